"""The rows that people judge: where the arms say something different, as each is shown. Knows no rater.

An arm is judged by its model of the first seed that all arms have left answers of. Rows are drawn by a key, so no score
has a say in which.
"""

import base64
import hashlib
import hmac
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from app.experiments.reading import Line, Paired
from engine.conversations import messages_of

MOST_CHARACTERS = 4_000
MOST_PIXELS = 384
"""Of the longer side of a picture."""
Said = dict[str, Any]


@dataclass(frozen=True)
class Item:
    """A row as it is shown, and what each arm says of it, by the arm's number; None of an arm without answers."""

    shown: Said
    answers: Sequence[Said | None]


def items_of(path: Path, rows: Paired, secret: str, most: int) -> list[Item]:
    """At most so many items.

    Args:
        path: the data file that the test rows lie in.
        rows: what the arms answered.
        secret: what the rows are drawn by.
        most: how many.
    """
    judged = [arm for arm, by_seed in enumerate(rows.by_arm) if by_seed]
    seeds = set.intersection(*(set(rows.by_arm[arm]) for arm in judged)) if judged else set()
    if not seeds or len(judged) < 2:
        return []
    lines = {arm: rows.by_arm[arm][min(seeds)].lines() for arm in judged}
    differing = [i for i in range(len(rows.ids)) if len({_told(lines[arm][i]) for arm in judged} - {None}) > 1]
    chosen = sorted(differing, key=lambda i: keyed(secret, "item", rows.ids[i]))[:most]
    found = [lines[arm][i]["found"] for i in chosen for arm in judged if "found" in lines[arm][i]]
    payloads = read_rows(path, {*(rows.ids[i] for i in chosen), *found})
    said = _sayer(payloads)
    return [
        Item(
            shown=_shown(payloads[rows.ids[i]], _speaking([lines[arm][i] for arm in judged])),
            answers=[said(lines[arm][i]) if arm in lines else None for arm in range(len(rows.by_arm))],
        )
        for i in chosen
        if rows.ids[i] in payloads
    ]


def keyed(secret: str, *parts: object) -> bytes:
    """A hash of the parts that only who has the secret can work out."""
    return hmac.digest(bytes.fromhex(secret), "\0".join(map(str, parts)).encode(), hashlib.sha256)


def _told(line: Line) -> str | None:
    """What an arm says of a row, to be compared: a label, a text, or the row of the text that a picture finds."""
    for name in ("predicted", "generated", "found"):
        if name in line:
            said: str = line[name]
            return said
    return None


def _speaking(said: Sequence[Line]) -> Line:
    """The line of an arm that goes on from the row, if one does: not every arm need have had room for it."""
    return next((line for line in said if "generated" in line), said[0])


def _sayer(payloads: Mapping[str, Line]) -> Callable[[Line], Said | None]:
    def said(line: Line) -> Said | None:
        if "predicted" in line:
            return {"kind": "label", "label": line["predicted"]}
        if "generated" in line:
            return {"kind": "text", "text": line["generated"]}
        row = payloads.get(line["found"]) if "found" in line else None
        return None if row is None else {"kind": "text", "text": row["text"]}

    return said


def _shown(row: Line, line: Line) -> Said:
    """The row as whoever judges sees it: its picture, or its text, or the part that a language model went on from."""
    if "image" in row:
        return {"kind": "picture", "picture": data_url(row["image"])}
    text: str = row["text"]
    if "prompt_messages" in line:
        text = "\n\n".join(f"{one['role']}: {one['content']}" for one in messages_of(text)[: line["prompt_messages"]])
    elif "prompt_characters" in line:
        text = text[: line["prompt_characters"]]
    return {"kind": "text", "text": text[:MOST_CHARACTERS], "cut": len(text) > MOST_CHARACTERS}


def data_url(picture: bytes) -> str:
    """A picture as a PNG of at most 384 pixels a side, in a URL of its own."""
    with Image.open(io.BytesIO(picture)) as opened:
        image = opened.convert("RGB")
    image.thumbnail((MOST_PIXELS, MOST_PIXELS))
    out = io.BytesIO()
    image.save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def read_rows(path: Path, ids: set[str]) -> dict[str, Line]:
    """The payloads of rows by id: `text`, `image`, or both; only the row groups that hold them are read."""
    found: dict[str, Line] = {}
    with pq.ParquetFile(path) as file:
        columns = [name for name in ("text", "image") if name in file.schema_arrow.names]
        for group in range(file.metadata.num_row_groups):
            names = file.read_row_group(group, columns=["id"])["id"].to_pylist()
            wanted = [i for i, name in enumerate(names) if name in ids and name not in found]
            if wanted:
                rows = file.read_row_group(group, columns=columns).take(np.array(wanted)).to_pylist()
                found |= {names[i]: row for i, row in zip(wanted, rows, strict=True)}
    return found
