"""The public number that stands for the secret number of training rows. Knows no job and reads no row.

A rate, a delta and a number of steps are part of what is published, so they must not follow from the rows themselves.
"""

from app.datasets.models import Dataset

HASHED_SHARE = 0.8
"""Of the training, where content hashes deal the rows out."""


def public_rows(train: Dataset, *, alone: bool) -> int | None:
    """What may be told instead of the number of training rows; None: the data set names no such number.

    Content hashes give each row to the training with one public chance, so there it is this share of the data set's
    number. How a file of its own splits deals its rows is as secret as the rows, so there, and where a file serves the
    training alone, the number is taken for that of the training rows: too large a one draws fewer, and spends less.

    Args:
        train: the data set of the training rows.
        alone: it serves the training alone, as others hold the rows of the other splits.
    """
    if train.nominal_rows is None:
        return None
    dealt = not alone and not train.splits
    return max(1, round(train.nominal_rows * HASHED_SHARE)) if dealt else train.nominal_rows
