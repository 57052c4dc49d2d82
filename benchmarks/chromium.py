"""Where this machine's Chromium is. Nothing is ever downloaded for it: Debian has it as the package `chromium`."""

import shutil

_NAMES = ("chromium", "chromium-browser", "google-chrome")
# Inside a container there is no sandbox to be had; the pages are all our own.
ARGUMENTS = ("--no-sandbox", "--disable-dev-shm-usage")
MISSING = "no Chromium on this machine: `apt-get install chromium` (Debian) brings it"


def chromium() -> str | None:
    """The path of the browser; None where there is none."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)
