"""What is asked of llama.cpp, and what is the same answer. llama.cpp itself comes from npm and does not run here."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import llama_cpp
from benchmarks.llama_cpp import agreement, asked, main
from tests.engine.tiny_lm import tiny_tokenizer

GOLDEN = [
    {"prompt": "the sea", "token_ids": [5, 6, 7], "answer": "x"},
    {"prompt": "fruits", "token_ids": [8], "answer": "y"},
]


@pytest.fixture
def download(tmp_path: Path) -> Path:
    tiny_tokenizer().save_pretrained(tmp_path)
    (tmp_path / "receipt.json").write_text(json.dumps({"quality": {"golden": GOLDEN}}), encoding="utf-8")
    return tmp_path


def test_the_prompts_go_through_the_chat_template(download: Path) -> None:
    first, second = asked(download)
    assert first["text"] == "<|im_start|>user\nthe sea<|im_end|>\n<|im_start|>assistant\n"
    assert tiny_tokenizer().decode(first["ids"]) == first["text"]
    assert (first["most"], second["most"]) == (3, 1)


@pytest.mark.parametrize(
    ("said", "expected"),
    [([5, 6, 7], (True, 3)), ([5, 9, 7], (True, 1)), ([], (True, 0)), ([5, 6], (True, 2))],
)
def test_tokens_count_until_the_first_that_differs(said: list[int], expected: tuple[bool, int]) -> None:
    assert agreement({"ids": [1, 2], "answer": [5, 6, 7]}, {"ids": [1, 2], "answer": said}) == expected


@pytest.mark.parametrize(("cut", "said", "code"), [(0, [5, 6, 7], 0), (0, [0], 1), (1, [5, 6, 7], 1)])
def test_other_prompt_tokens_or_an_answer_that_begins_otherwise_fail(
    download: Path, monkeypatch: pytest.MonkeyPatch, cut: int, said: list[int], code: int
) -> None:
    def answered(_: Path, prompts: Any, __: Path) -> list[dict[str, Any]]:
        return [{"ids": one["ids"][cut:], "answer": said, "said": ""} for one in prompts]

    monkeypatch.setattr(llama_cpp, "answered", answered)
    assert main([str(download)]) == code
