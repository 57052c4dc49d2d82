"""Instruction 1: a table of pairs, equal texts in every encoding, counts by hand, and training against use."""

import dataclasses
import hashlib
import json
import unicodedata
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.artifact import replay
from client.preprocess import normalize_text
from engine.errors import InvalidData
from engine.instructions.preprocessing.i01_text_normalization import TextNormalization, changes
from engine.rows import Rows
from engine.run import Run

PAIRS = [
    ("plain", "plain"),
    ("naÃ¯ve", "naïve"),
    ("cafe\u0301", "café"),
    ("soft\u00adhyphen", "softhyphen"),
    ("a\u200bb", "ab"),
    ("\u202eevil\u202c", "evil"),
    ("two  spaces", "two spaces"),
    ("tab\there", "tab here"),
    ("no\u00a0break", "no break"),
    ("line\r\nfeed", "line feed"),
    ("x²", "x²"),
    ("½", "½"),
    ("２００ ｋｇ", "２００ ｋｇ"),
    ("“curly”", "“curly”"),
    ("&amp;", "&amp;"),
    ("ﬁn", "ﬁn"),
    ("می\u200cخواهم", "می\u200cخواهم"),
    ("👨\u200d👩\u200d👧", "👨\u200d👩\u200d👧"),
    ("in\u200dvisible", "invisible"),
    ("Straße", "Straße"),
]


def _rows(*texts: str) -> Rows:
    count = len(texts)
    return Rows(
        payloads=list(texts),
        ids=np.array([hashlib.sha256(text.encode()).hexdigest()[:16] for text in texts]),
        labels=np.zeros(count, np.int64),
        splits=np.full(count, ""),
        groups=None,
        shards=np.zeros(count, np.int64),
    )


def _run(task: str = "text_classification") -> Run:
    return Run(cast(Any, SimpleNamespace(task=task)), cast(Any, None), cast(Any, None))


@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_each_text_of_the_table_is_read_as_written_beside_it(before: str, after: str) -> None:
    assert list(TextNormalization().records(_run(), _rows(before)).payloads) == [after]


@given(st.text(min_size=1))
def test_twice_is_once_and_every_encoding_of_a_text_is_one(text: str) -> None:
    def normal(one: str) -> str:
        return normalize_text(one, **TextNormalization().parameters())

    assert normal(normal(text)) == normal(text)
    assert normal(unicodedata.normalize("NFD", text)) == normal(unicodedata.normalize("NFC", text))


@pytest.mark.parametrize(
    ("parameters", "before", "after"),
    [
        ({"form": "NFKC"}, "x² ｋｇ", "x2 kg"),
        ({"repair": False}, "naÃ¯ve", "naÃ¯ve"),
        ({"strip_invisible": False}, "a\u200bb", "a\u200bb"),
        ({"keep_joiners": False}, "می\u200cخواهم", "میخواهم"),
        ({"whitespace": "keep_lines"}, "a  b\n c", "a b\nc"),
        ({"whitespace": "keep"}, "a  b", "a  b"),
        ({"casefold": True}, "Straße", "strasse"),
    ],
)
def test_each_parameter_does_what_it_says_in_training_and_in_use(
    parameters: dict[str, Any], before: str, after: str
) -> None:
    chosen = TextNormalization(**parameters)
    trained_on = list(chosen.records(_run(), _rows(before)).payloads)
    step = chosen.preprocess(_run())
    assert trained_on == [after]
    assert step is not None
    assert step["version"].startswith("ftfy ")
    assert replay([step], before) == after


def test_rows_keep_ids_and_are_read_lazily() -> None:
    rows = _rows("a  b", "c")
    changed = TextNormalization().records(_run(), rows)
    cast(list[str], rows.payloads)[1] = "d  e"
    assert changed.payloads[1] == "d e"
    assert changed.ids.tolist() == rows.ids.tolist()


def test_the_report_counts_what_was_done() -> None:
    run = _run()
    TextNormalization().records(run, _rows("clean", "two  spaces", "a\u200bb", "cafe\u0301", "naÃ¯ve  x"))
    # Characters: one space and one mark go; e and accent go, é comes; "Ã¯" and a space go, "ï" comes.
    total = 5 + 11 + 3 + 5 + 9
    assert TextNormalization().report(run) == pytest.approx(
        {
            "rows_changed": 4 / 5,
            "repaired": 1 / 5,
            "recomposed": 1 / 5,
            "stripped": 1 / 5,
            "respaced": 2 / 5,
            "casefolded": 0.0,
            "characters_changed": (1 + 1 + 3 + 4) / total,
        }
    )


def test_an_unchanged_text_counts_its_characters_alone() -> None:
    assert changes("same", "same", TextNormalization().parameters()) == {"characters": 4}


def test_rows_that_become_empty_are_refused_with_their_count_and_numbers() -> None:
    with pytest.raises(InvalidData, match=r"2 of 4 rows .* rows 2, 4") as refused:
        TextNormalization().records(_run(), _rows("a", "\u200b", "b", " \n"))
    assert [fault.code for fault in refused.value.faults] == ["text_empty_after_normalization"]


def test_a_language_model_does_not_lose_its_lines_unseen() -> None:
    rows = _rows("one line", "two\nlines")
    with pytest.raises(InvalidData, match="row 2") as refused:
        TextNormalization().records(_run("causal_lm"), rows)
    assert "keep_lines" in refused.value.remedy
    kept = TextNormalization(whitespace="keep_lines").records(_run("causal_lm"), rows)
    assert kept.payloads[1] == "two\nlines"


def _chat(*contents: str) -> str:
    roles = ["user", "assistant"]
    return json.dumps([{"role": roles[i % 2], "content": one} for i, one in enumerate(contents)], separators=(",", ":"))


def _chats(*rows: str) -> Rows:
    return dataclasses.replace(_rows(*rows), chat=True)


def test_messages_lose_neither_their_lines_nor_all_they_said() -> None:
    code = _chat("write it", "def f():\n    return 1")
    with pytest.raises(InvalidData, match="a message of row 2 has several lines") as refused:
        TextNormalization().records(_run("causal_lm"), _chats(_chat("a", "b"), code))
    assert [fault.code for fault in refused.value.faults] == ["text_loses_lines"]
    keeps = TextNormalization(whitespace="keep_lines")
    assert json.loads(str(keeps.records(_run("causal_lm"), _chats(code)).payloads[0]))[1]["content"].count("\n") == 1
    gone = [_chat("a", "b"), _chat("\u200b", "b"), _chat("a", "\u200b\u200b")]
    with pytest.raises(InvalidData, match=r"2 of 3 rows have a message that is empty .* rows 2, 3"):
        keeps.records(_run("causal_lm"), _chats(*gone))
    keeps.records(_run("causal_lm"), _chats(_chat("", "a system may say nothing")))


def test_a_conversation_counts_as_one_row_and_by_what_its_messages_say() -> None:
    run = _run("causal_lm")
    TextNormalization().records(run, _chats(_chat("two  spaces", "more  of  them"), _chat("a", "b")))
    found = TextNormalization().report(run)
    assert (found["rows_changed"], found["respaced"]) == (0.5, 0.5)
    assert found["characters_changed"] == pytest.approx(3 / (11 + 14 + 2))
