"""From the words of a command line to what a model says of them. Knows no server and prints nothing."""

import re
from collections.abc import Sequence
from pathlib import Path

from client.artifact import Package, Prediction

_FILE = re.compile(r"\S*[\w)]\.(txt|csv|jsonl?|md|png|jpe?g)|[./~]*(\w[^\s/]*/)+\S+\.\w+", re.IGNORECASE)


def predictions(package: Package, words: Sequence[str], batch_size: int) -> tuple[list[str], list[Prediction]]:
    """What was asked about and the answer to each.

    A word is a text, or the name of a file: with a picture, or with a text. A model of pairs takes both, pictures as
    files and texts as they are, and ranks the texts for each picture.
    """
    if package.task == "text_image_pairs":
        pictures = [word for word in words if is_file(word)]
        return pictures, package.rank([Path(one) for one in pictures], [word for word in words if word not in pictures])
    pictured = package.task == "image_classification"
    inputs = [Path(word) if pictured or is_file(word) else word for word in words]
    return list(words), package.predict(inputs, batch_size=batch_size)


def like_files(words: Sequence[str]) -> list[str]:
    """Words that look like the name of a file that is not there, and so are read as texts."""
    return [word for word in words if _FILE.fullmatch(word) and not is_file(word)]


def is_table(word: str) -> bool:
    """Whether a word names a file of many rows, which is nevertheless read as one text."""
    return is_file(word) and Path(word).suffix.lower() in (".csv", ".jsonl", ".parquet")


def is_file(word: str) -> bool:
    """Whether a word names a file."""
    try:
        return Path(word).is_file()
    except (OSError, ValueError):  # a long text is no file name
        return False
