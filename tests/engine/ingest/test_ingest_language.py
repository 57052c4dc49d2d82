"""What the check of a language model's file finds, and what it stores."""

import gzip
import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.data import Source, read_rows
from engine.ingest.__main__ import ingest, report
from engine.ingest.findings import Choices, Limits
from engine.ingest.language import BLOCK_BYTES, pieces
from engine.ingest.tables import PEEKED_ROWS

Check = Callable[..., dict[str, Any]]
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Two plus two?"},
    {"role": "assistant", "content": "Vier 🎈"},
]


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Checks bytes as a file of a language model; gives the report, and the file's path under `out`."""

    def run(content: bytes, filename: str = "a.txt", *, limits: Limits | None = None, **choices: Any) -> dict[str, Any]:
        source = tmp_path / "upload"
        source.write_bytes(content)
        chosen = Choices(choices.pop("columns", {}), **choices)
        out = tmp_path / "rows.parquet"
        found = report(*ingest(source, filename, "causal_lm", out, chosen, limits or Limits()))
        left = {path.name for path in tmp_path.iterdir()} - {"upload"}
        assert left == (set() if found["problems"] else {"rows.parquet"})
        return found | {"out": out}

    return run


def texts(found: dict[str, Any]) -> list[str]:
    assert found["problems"] == []
    stored: list[str] = pq.read_table(found["out"])["text"].to_pylist()
    return stored


def codes(found: dict[str, Any]) -> list[tuple[str, int | None]]:
    return [(problem["code"], problem["line"]) for problem in found["problems"]]


def jsonl(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def chats(*conversations: Any) -> bytes:
    return jsonl([{"messages": messages} for messages in conversations])


def test_a_plain_text_is_parted_at_blank_lines(check: Check) -> None:
    found = check("\ufeffOne line,\r\nand more.\r\n\r\n \n\nThe [next] block.\n".encode())
    assert texts(found) == ["One line,\nand more.", "The [next] block."]
    assert (found["rows"], found["labels"], found["label_counts"]) == (2, [], {})
    table = pq.read_table(found["out"])
    assert table.schema.names == ["id", "text"]
    assert table["id"].to_pylist() == [hashlib.sha256(one.encode()).hexdigest()[:16] for one in texts(found)]


@pytest.mark.parametrize("filename", ["a.txt", "a.txt.gz", "file"])
def test_a_text_that_begins_like_json_is_read_by_its_name(check: Check, filename: str) -> None:
    content = b"[Illustration]\n\n{braces}\n" if filename != "file" else b"Plain, words\n\nand more\n"
    found = check(gzip.compress(content) if filename.endswith(".gz") else content, filename)
    assert len(texts(found)) == 2


def test_long_blocks_are_cut_at_lines_and_nothing_is_lost(check: Check) -> None:
    lines = [f"sentence {i} of a long document, über alles.\n" for i in range(400)]
    rows = texts(check("".join(lines).encode()))
    assert len(rows) > 5
    assert all(len(row.encode()) <= BLOCK_BYTES for row in rows)
    assert "\n".join(rows) + "\n" == "".join(lines)


def test_a_long_line_is_cut_behind_spaces_and_nothing_is_lost() -> None:
    words = "".join(f"wört{i} " for i in range(2000))
    parts = pieces(words)
    assert "".join(parts) == words
    assert all(len(part.encode()) <= BLOCK_BYTES for part in parts)
    assert all(part.endswith(" ") for part in parts[:-1])
    assert pieces("word " * 4_000_000)[-1]  # linear in the length
    solid = pieces("é" * 3000)
    assert "".join(solid) == "é" * 3000
    assert all(len(part.encode()) <= BLOCK_BYTES for part in solid)


def test_faults_of_a_plain_text_have_their_line(check: Check) -> None:
    content = b"fine\n\nnul \x00 here\nstill fine\n\n\xff\xfe\xfd broken\nlast\n"
    found = check(content)
    assert codes(found) == [("nul_character", 3), ("not_utf8", 6)]
    kept = check(content, skip_invalid=True, max_invalid_fraction=0.5)
    assert texts(kept) == ["fine", "still fine", "last"]
    assert [one["line"] for one in kept["skipped"]] == [3, 6]


def test_an_empty_text_and_columns_of_a_plain_text_are_refused(check: Check) -> None:
    assert [code for code, _ in codes(check(b"\n \n\n"))] == ["no_rows"]
    found = check(b"words\n", columns={"text": "text"})
    assert [(one["code"], one["pointer"]) for one in found["problems"]] == [("not_applicable", "/text_column")]


def test_a_split_that_only_later_records_name_is_not_lost(check: Check) -> None:
    first = [{"text": f"word {number}"} for number in range(PEEKED_ROWS)]
    found = check(jsonl([*first, {"text": "one more", "split": "test"}]), "rows.jsonl")
    assert codes(found) == [("late_split", PEEKED_ROWS + 1)]


def test_records_with_a_text_keep_it_and_need_no_label(check: Check) -> None:
    rows = [{"text": "Once.\n\nTwice.", "split": "train"}, {"text": "Thrice.", "split": "dev"}]
    found = check(jsonl(rows), "a.jsonl")
    assert texts(found) == ["Once.\n\nTwice.", "Thrice."]
    assert found["splits"] == {"train": 1, "valid": 1}
    assert texts(check(b"body,who\nhello there,me\nbye,you\n", "a.csv", columns={"text": "body", "group": "who"})) == [
        "hello there",
        "bye",
    ]
    assert "not_applicable" in [code for code, _ in codes(check(jsonl(rows), "a.jsonl", columns={"label": "split"}))]


def test_conversations_are_stored_as_json_with_a_mark(check: Check) -> None:
    parts = [
        *CHAT[:2],
        {"role": "assistant", "content": [{"type": "text", "text": "Vier"}, {"type": "text", "text": "!"}]},
    ]
    weighed = [CHAT[1], {**CHAT[2], "weight": 0}, CHAT[1], {**CHAT[2], "weight": 1}]
    found = check(chats(CHAT, parts, weighed), "a.jsonl")
    stored = [json.loads(one) for one in texts(found)]
    assert stored[0] == CHAT
    assert stored[1][2] == {"role": "assistant", "content": "Vier!"}
    assert [one.get("weight") for one in stored[2]] == [None, 0, None, None]
    assert found["columns"] == {"text": "messages"}
    source = Source.open(found["out"])
    assert source.chat
    rows = read_rows([(source, "")], source.labels)
    assert rows.chat
    assert rows.labels.tolist() == [0, 0, 0]


def test_parquet_holds_conversations_too(check: Check) -> None:
    stream = io.BytesIO()
    pq.write_table(pa.table({"messages": [CHAT, CHAT[1:]]}), stream)
    assert [len(json.loads(one)) for one in texts(check(stream.getvalue(), "a.parquet"))] == [3, 2]


def test_every_fault_of_a_conversation_is_told_with_its_line(check: Check) -> None:
    def answer(**changed: Any) -> list[dict[str, Any]]:
        return [CHAT[1], {**CHAT[2], **changed}]

    bad = [
        [],
        "no list",
        CHAT[:2],
        ["no object"],
        answer(role="tool"),
        answer(content=None),
        answer(content=" "),
        answer(weight=2),
        answer(weight=True),
        answer(weight=0),
        answer(content=[{"type": "image_url", "image_url": {}}]),
        answer(tool_calls=[{"id": "x"}]),
        answer(content="nul \0"),
        answer(content="lone \ud800"),
    ]
    found = check(chats(CHAT, *bad), "a.jsonl")
    expected = ["wrong_type", "wrong_type", "no_target", "wrong_type", "wrong_role", "wrong_type", "empty_text"]
    expected += [
        "wrong_weight",
        "wrong_weight",
        "no_target",
        "wrong_type",
        "unknown_field",
        "nul_character",
        "not_utf8",
    ]
    assert codes(found) == list(zip(expected, range(2, 16), strict=True))
    assert all(problem["remedy"] for problem in found["problems"])


def test_tools_beside_the_messages_are_a_fault_too(check: Check) -> None:
    """They would be dropped without a word, and the model would learn to answer where it was shown tools."""
    tools = [{"type": "function", "function": {"name": "look_up"}}]
    rows = [{"messages": CHAT, "tools": []}, {"messages": CHAT, "tools": tools}, {"messages": CHAT, "functions": tools}]
    assert codes(check("".join(json.dumps(row) + "\n" for row in rows).encode(), "a.jsonl")) == [
        ("unknown_field", 2),
        ("unknown_field", 3),
    ]
    stream = io.BytesIO()
    pq.write_table(pa.table({"messages": [CHAT], "tools": [json.dumps(tools)]}), stream)
    assert codes(check(stream.getvalue(), "a.parquet")) == [("unknown_field", 1)]


def test_caps_hold_for_plain_texts(check: Check) -> None:
    content = b"words and words\n\n" * 20
    assert codes(check(content, limits=Limits(max_rows=10))) == [("too_many_rows", None)]
    assert codes(check(content, limits=Limits(max_bytes=100))) == [("decompressed_too_large", None)]
    assert codes(check(content, limits=Limits(max_cell_bytes=10)))[0] == ("cell_too_large", 1)
    assert [code for code, _ in codes(check(b"PK\x03\x04" + bytes(50), "a.zip"))] == ["unknown_format"]


def test_texts_and_conversations_are_not_mixed(check: Check, tmp_path: Path) -> None:
    first = check(chats(CHAT), "a.jsonl")["out"].rename(tmp_path.parent / "chat.parquet")
    second = check(b"plain\n")["out"]
    with pytest.raises(Exception, match="some of the files hold conversations"):
        read_rows([(Source.open(first), "train"), (Source.open(second), "test")], ())


REFUSED = [
    ({"role": [], "content": "a"}, "wrong_role"),
    ({"role": {}, "content": "a"}, "wrong_role"),
    ({"role": "user", "content": "a", "weight": "\ud800"}, "wrong_weight"),
    ({"role": "user", "content": "a", "\ud800": 1}, "unknown_field"),
    ({"role": "user", "content": "a", "k\x00": 1}, "unknown_field"),
]


@pytest.mark.parametrize(("message", "code"), REFUSED)
def test_what_is_told_of_a_message_can_be_stored_wherever_it_is_told(
    check: Check, message: dict[str, Any], code: str
) -> None:
    rows = [json.dumps({"messages": CHAT})] * 20 + [json.dumps({"messages": [message, CHAT[2]]})]
    found = check("\n".join(rows).encode(), "a.jsonl", skip_invalid=True)
    (skipped,) = found["skipped"]
    assert (skipped["code"], skipped["line"]) == (code, 21)
    skipped["detail"].encode()
    assert "\x00" not in skipped["detail"]


def test_a_role_that_is_a_list_in_a_parquet_file(check: Check) -> None:
    stream = io.BytesIO()
    pq.write_table(pa.table({"messages": [[{"role": ["user"], "content": "a"}]]}), stream)
    (problem,) = check(stream.getvalue(), "a.parquet")["problems"]
    assert problem["code"] == "wrong_role"
