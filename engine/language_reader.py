"""A language model read back from its folder: likelihoods, greedy answers to fixed prompts, and the race against the
untouched model. Knows nothing of how the folder was made."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM

from client.artifact import replay
from engine.conversations import each_message, messages_of
from engine.errors import WrongExport
from engine.inference import eager_answers
from engine.ports import Answers, Payload, text_of
from engine.tasks.causal_lm import CausalLM, own_keys

MOST_NEW_TOKENS = 16
MOST_CONTINUED_TOKENS, MOST_PROMPT_TOKENS, MOST_PROMPT_CHARACTERS = 24, 512, 300
# Public, and the same for every model: whoever runs the file elsewhere sees at once whether it is the same model.
PROMPTS = (
    "What is the capital of France?",
    "Write one sentence about the sea.",
    "List three fruits.",
    "What is 12 plus 30?",
    "Translate to German: good morning",
)


class LanguageReader:
    """A folder with config.json and tokenizer, whose weights `load` reads; by default as a stranger loads it."""

    def __init__(self, folder: Path, load: Callable[[Path], nn.Module] | None = None) -> None:
        self.folder, self.exported = folder, self
        self._steps: Sequence[Mapping[str, Any]] = own_keys(folder).get("preprocess") or []
        self.task = CausalLM.reopen(folder)
        self.model = (load or load_hugging_face)(folder).eval()

    def answers(self, inputs: Sequence[Payload], batch_size: int = 64) -> Answers:
        """(n, 3): nats, target tokens and bytes of raw rows."""
        return eager_answers(self.task, self.model, self.task.encode(self._prepared(inputs)), batch_size)

    def golden(self, payloads: Sequence[Payload]) -> Mapping[str, Any]:
        """What the model says to the fixed prompts, word by word the likeliest; with what such an answer rests on.

        Raises:
            WrongExport: where it says nothing at all.
        """
        tokenizer = self.task.tokenizer
        template = tokenizer.chat_template
        told = [self._said(prompt) for prompt in PROMPTS]
        if not any(one["token_ids"] for one in told):
            raise WrongExport("the exported model answers no prompt", remedy="report this as a fault of the server")
        digest = hashlib.sha256(str(template).encode()).hexdigest() if template else None
        special = {
            name: tokenizer.convert_tokens_to_ids(token)
            for name, token in sorted(tokenizer.special_tokens_map.items())
            if isinstance(token, str)
        }
        about = {"method": "greedy", "max_new_tokens": MOST_NEW_TOKENS, "chat_template_sha256": digest}
        return {"golden": told, "generation": {**about, "special_token_ids": special}}

    def _said(self, prompt: str) -> dict[str, Any]:
        tokenizer = self.task.tokenizer
        if tokenizer.chat_template:
            messages = [{"role": "user", "content": prompt}]
            prompt_ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        else:
            prompt_ids = tokenizer(prompt)["input_ids"]
        new = self._generated(prompt_ids, MOST_NEW_TOKENS)
        return {"prompt": prompt, "answer": tokenizer.decode(new, skip_special_tokens=True), "token_ids": new}

    def _generated(self, prompt_ids: Sequence[int], most: int) -> list[int]:
        """At most so many tokens after the prompt, each the likeliest."""
        ids = torch.tensor([prompt_ids], dtype=torch.int64)
        with torch.inference_mode():
            made = self.model.generate(  # type: ignore[operator]
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=most,
                pad_token_id=self.task.pad,
            )
        new: list[int] = made[0, ids.shape[1] :].tolist()
        return new

    def continued(self, payloads: Sequence[Payload]) -> Sequence[Mapping[str, Any]]:
        """`generated` from the first half of a text, or up to the last turn of a conversation's assistant, and how much
        of the row that prompt was; nothing of a row whose prompt is empty or too long."""
        return [self._continued(text_of(one)) for one in payloads]

    def _continued(self, row: str) -> Mapping[str, Any]:
        prompt, given = _turns(row) if self.task.chat else _half(row)
        if not prompt:
            return {}
        tokenizer, prepared = self.task.tokenizer, text_of(self._prepared([prompt])[0])
        if self.task.chat:
            messages = messages_of(prepared)
            ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        else:
            ids = tokenizer(prepared)["input_ids"]
        room = int(self.task.config.max_position_embeddings) - MOST_CONTINUED_TOKENS
        if not 0 < len(ids) <= min(MOST_PROMPT_TOKENS, room):
            return {}
        new = self._generated(ids, MOST_CONTINUED_TOKENS)
        return {"generated": tokenizer.decode(new, skip_special_tokens=True), **given}

    def contestants(
        self, untouched: nn.Module, payloads: Sequence[Payload]
    ) -> tuple[Callable[[int], Any], Callable[[int], Any]]:
        """The untouched model and this one on the first part of one row each, by the row's number."""
        examples = self.task.encode(self._prepared(payloads))
        ids = [self.task.collate([one], [0])["input_ids"][:1] for one in examples]

        @torch.inference_mode()
        def run(model: nn.Module, number: int) -> Any:
            return model(input_ids=ids[number], use_cache=False).logits

        return lambda number: run(untouched, number), lambda number: run(self.model, number)

    def _prepared(self, payloads: Sequence[Payload]) -> list[Payload]:
        def change(payload: Payload) -> Payload:
            return replay(self._steps, text_of(payload))

        if not self._steps:
            return list(payloads)
        one = each_message(change) if self.task.chat else change
        return [one(payload) for payload in payloads]


def _half(text: str) -> tuple[str, Mapping[str, Any]]:
    """The first half of a text, at most 300 characters and whole words, and how many characters that is."""
    end = min(len(text) // 2, MOST_PROMPT_CHARACTERS)
    end = text.rfind(" ", 0, end + 1) if " " in text[: end + 1] else end
    return text[:end], {"prompt_characters": end}


def _turns(row: str) -> tuple[str, Mapping[str, Any]]:
    """A conversation up to the last turn of its assistant, and how many messages that is."""
    messages = messages_of(row)
    end = max((i for i, one in enumerate(messages) if one["role"] == "assistant"), default=0)
    return json.dumps(messages[:end]) if end else "", {"prompt_messages": end}


def load_hugging_face(folder: Path) -> nn.Module:
    """A causal model from safetensors in fp32; no code of the folder is run."""
    model: nn.Module = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
    )
    return model
