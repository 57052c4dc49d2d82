"""`python -m benchmarks.llama_cpp FOLDER [--packages DIR]`: does llama.cpp answer from a GGUF file as its receipt says?

The golden prompts of the receipt go through the folder's own chat template and, as text, to llama.cpp. Told for each:
whether it cuts the prompt into the same tokens, and how many tokens of the greedy answer agree before the first that
does not. llama.cpp rounds activations too where the weights are Q8_0, so a close choice may fall the other way there.

DIR is where `npm install node-llama-cpp` was run. Exit code 1: a prompt's tokens differ, or no answer begins the same.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

SCRIPT = Path(__file__).with_suffix(".mjs")


def asked(folder: Path) -> list[dict[str, Any]]:
    """The golden prompts as text and token ids, and the answers on record."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    receipt = json.loads((folder / "receipt.json").read_text(encoding="utf-8"))
    found = []
    for one in receipt["quality"]["golden"]:
        turns = [{"role": "user", "content": one["prompt"]}]
        text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        found.append({"text": text, "ids": ids, "answer": one["token_ids"], "most": len(one["token_ids"])})
    return found


def answered(model: Path, prompts: Sequence[Mapping[str, Any]], packages: Path) -> list[dict[str, Any]]:
    """What llama.cpp makes of the prompts."""
    script = shutil.copy(SCRIPT, packages)  # Node looks for packages beside the script
    command = ["node", str(script), str(model.resolve())]
    out = subprocess.run(command, input=json.dumps(prompts), capture_output=True, text=True, cwd=packages, check=True)
    return [json.loads(line) for line in out.stdout.splitlines()]


def agreement(prompt: Mapping[str, Any], answer: Mapping[str, Any]) -> tuple[bool, int]:
    """Whether the prompt's tokens are the same, and how many tokens of the answer are before the first that is not."""
    pairs = zip(prompt["answer"], answer["answer"], strict=False)
    return prompt["ids"] == answer["ids"], sum(1 for _ in takewhile(lambda two: two[0] == two[1], pairs))


def main(words: Sequence[str] | None = None) -> int:
    """Ask and compare."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.llama_cpp", description="Read a GGUF file by llama.cpp."
    )
    parser.add_argument("folder", type=Path, help="an unpacked model.zip with model.gguf and receipt.json")
    parser.add_argument("--packages", type=Path, default=Path(), help="where node-llama-cpp is installed")
    given = parser.parse_args(words)
    prompts = asked(given.folder)
    answers = answered(given.folder / "model.gguf", prompts, given.packages)
    same, tokens = zip(*map(agreement, prompts, answers), strict=True)
    for prompt, answer, alike, count in zip(prompts, answers, same, tokens, strict=True):
        verdict = "same prompt tokens" if alike else "OTHER prompt tokens"
        print(f"{verdict}, {count} of {prompt['most']} answer tokens: {answer['said']!r}")
    return 0 if all(same) and any(tokens) else 1


if __name__ == "__main__":
    sys.exit(main())
