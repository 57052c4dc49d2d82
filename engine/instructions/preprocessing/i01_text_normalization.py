"""Instruction 1: one encoding for equal texts. Knows no model; what it does to a text stands in `client.preprocess`."""

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import ftfy
from pydantic import Field

from client.preprocess import Form, Whitespace, normalize_text
from engine.conversations import contents_of
from engine.errors import Fault, InvalidData
from engine.instruction import TEXT_TASKS, Instruction
from engine.ports import text_of, with_text
from engine.rows import Rows
from engine.run import Run

_SHOWN = 5


class TextNormalization(Instruction):
    """Gives equal texts one encoding: mojibake repaired, one normal form, invisible characters gone, white space even.

    Sound: repair comes before the normal form, that before stripping, and white space last, again and again until
    nothing changes, so the function is idempotent. Every split is treated alike, and the artifact replays the same
    function before the model sees an input: a normalised training set alone is worse than none. NFKC changes
    meaning ("x²" becomes "x2") and is not the default; joiners stay but between Latin letters, since emoji and
    Persian need them. A row keeps the id of its raw content, so texts that become equal here may still stand in
    different splits.

    Refuses: rows that are nothing once normalised, with their count and the first of them; folding lines into one
    for a language model whose corpus has lines. Of a conversation each message is looked at by itself.

    Effect: test texts that are corrupted as training texts were not come back to the form that the model knows; on
    clean text nothing is to be expected. The report counts what was changed, by kind.
    """

    number = 1
    band = "preprocessing"
    title = "Unicode and whitespace normalisation"
    source = "Unicode Standard Annex 15 (normal forms); ftfy's documentation"
    metric = "rows_changed"
    tasks = TEXT_TASKS
    name: Literal["text_normalization"] = "text_normalization"
    form: Form = Field(default="NFC", description="Unicode normal form; NFKC changes meaning: x² becomes x2")
    repair: bool = Field(default=True, description="undo mojibake, such as Ã© for é")
    strip_invisible: bool = Field(
        default=True, description="drop control and zero-width characters, bidi controls and soft hyphens"
    )
    keep_joiners: bool = Field(
        default=True, description="keep zero-width joiners and non-joiners, but between two Latin letters"
    )
    whitespace: Whitespace = Field(
        default="collapse", description="collapse: every run is one space; keep_lines: inside each line; keep: as it is"
    )
    casefold: bool = Field(default=False, description="fold case for caseless comparison")

    @property
    def provides(self) -> frozenset[str]:
        """Later readers of the text may rely on one encoding."""
        return frozenset({"normalized_text"})

    @property
    def after(self) -> frozenset[str]:
        """Sharding decides how rows are read; this only maps what was read."""
        return frozenset({"streamed_records"})

    def records(self, run: Run, rows: Rows) -> Rows:
        """Count over one pass in order of storage, then map lazily.

        Raises:
            InvalidData: for rows that become empty, or lines that a language model would lose.
        """
        parameters = self.parameters()
        counts: Counter[str] = Counter()
        empty: list[int] = []
        folds = self.whitespace == "collapse" and run.spec.task == "causal_lm"
        for number in range(len(rows)):
            texts = _texts(rows, number)
            normal = [normalize_text(before, **parameters) for before in texts]
            found = [changes(*both, parameters) for both in zip(texts, normal, strict=True)]
            counts.update(_of_a_row(found))
            if any(_vanishes(rows, *both) for both in zip(texts, normal, strict=True)):
                empty.append(number)
            if folds and any("\n" in before for before in texts):
                detail = f"{'a message of ' if rows.chat else ''}row {number + 1} has several lines"
                raise _refusal("text_loses_lines", detail, 'set whitespace to "keep_lines"')
        if empty:
            shown = ", ".join(str(number + 1) for number in empty[:_SHOWN])
            what = "have a message that is empty" if rows.chat else "are empty"
            detail = f"{len(empty)} of {len(rows)} rows {what} once normalised; the first are rows {shown}"
            raise _refusal("text_empty_after_normalization", detail, "remove these rows")
        run.state(self.name).update({"rows": len(rows), **counts})
        return rows.map(lambda payload: with_text(payload, normalize_text(text_of(payload), **parameters)))

    def report(self, run: Run) -> Mapping[str, float]:
        """Shares of the rows that each kind of change touched, and of the characters that went or came."""
        counts = run.state(self.name)
        rows, characters = max(counts["rows"], 1), max(counts.get("characters", 0), 1)
        kinds = ("rows_changed", "repaired", "recomposed", "stripped", "respaced", "casefolded")
        return {
            **{kind: counts.get(kind, 0) / rows for kind in kinds},
            "characters_changed": counts.get("characters_changed", 0) / characters,
        }

    def preprocess(self, run: Run) -> Mapping[str, Any]:
        """The same function by name, with its parameters and the version of the library that repairs."""
        return {"name": self.name, "parameters": self.parameters(), "version": f"ftfy {ftfy.__version__}"}


def _texts(rows: Rows, number: int) -> list[str]:
    """The text of a row, or those of its messages."""
    payload = rows.payloads[number]
    return contents_of(str(payload)) if rows.chat else [text_of(payload)]


def _vanishes(rows: Rows, before: str, after: str) -> bool:
    """Whether nothing is left; a message that said nothing before, as a system's may, is what it was."""
    return not after.strip() and bool(before.strip() or not rows.chat)


def _of_a_row(found: Sequence[Mapping[str, int]]) -> Mapping[str, int]:
    """Characters of all its texts together, and each kind once."""
    whole = Counter[str]()
    for one in found:
        whole.update(one)
    return {kind: count if kind.startswith("characters") else min(count, 1) for kind, count in whole.items()}


def changes(before: str, after: str, parameters: Mapping[str, Any]) -> Mapping[str, int]:
    """What happened to one text, as counts; a kind counts where leaving it out would have given another text."""
    if before == after:
        return {"characters": len(before)}

    def matters(**left_out: Any) -> int:
        return int(normalize_text(before, **{**parameters, **left_out}) != after)

    had, has = Counter(before), Counter(after)
    return {
        "characters": len(before),
        "characters_changed": (had - has).total() + (has - had).total(),
        "rows_changed": 1,
        "repaired": matters(repair=False),
        "recomposed": int(not unicodedata.is_normalized(parameters["form"], before)),
        "stripped": matters(strip_invisible=False),
        "respaced": matters(whitespace="keep"),
        "casefolded": matters(casefold=False),
    }


def _refusal(code: str, detail: str, remedy: str) -> InvalidData:
    return InvalidData(detail, remedy=remedy, faults=[Fault("/dataset", code, detail, remedy)])
