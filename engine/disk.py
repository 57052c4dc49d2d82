"""What the disk has to be told so that a name outlives a loss of power. Knows no file."""

import os
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk: a rename is not safe before."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
