"""The shared data sets as files that can be uploaded, whole or their first rows. Knows no server and no instruction."""

import json
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.article.section import NotAtHand
from benchmarks.texts import ROOT

DATA = ROOT.parent / "shared" / "data"
SPLITS = ("train", "valid", "test")
Row = dict[str, Any]


def at_hand(name: str) -> Path:
    """A file or folder of the shared data by its path there.

    Raises:
        NotAtHand: where it is missing.
    """
    path = DATA / name
    if not path.exists():
        raise NotAtHand(f"{name} is missing: it belongs into ../shared/data, whose README.md says where it comes from")
    return path


def rows(name: str, split: str, most: int | None = None) -> Iterator[Row]:
    """The first rows of a split of a text set; raises NotAtHand."""
    with at_hand(f"text/{name}/{split}.jsonl").open(encoding="utf-8") as file:
        yield from (json.loads(line) for line in islice(file, most))


def joined(
    folder: Path,
    name: str,
    most: Mapping[str, int] | None = None,
    client: Callable[[str, int, Row], str] | None = None,
) -> Path:
    """A text set as one file of JSON lines with `text`, `label` (by name) and `split`.

    Args:
        folder: where the file lands.
        name: the set's.
        most: rows of a split that are kept, where not all are.
        client: names the client of a row by its split, its number there and the row; the file has `client` then.
    """
    out = folder / f"{name}.jsonl"
    with out.open("w", encoding="utf-8") as file:
        for split in SPLITS:
            for number, row in enumerate(rows(name, split, (most or {}).get(split))):
                kept = {"text": row["text"], "label": row["label_name"], "split": split}
                if client is not None:
                    kept["client"] = client(split, number, row)
                file.write(json.dumps(kept) + "\n")
    return out
