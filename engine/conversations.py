"""Conversations: JSON text of messages, as a row holds them, and as a model's own template writes them.

Knows no model and no tokens. A template is data of whoever made the base model: transformers renders it in a sandbox,
and only in the process of a job.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from engine.errors import InvalidData
from engine.ports import Payload

Message: TypeAlias = Mapping[str, Any]
Render: TypeAlias = Callable[[Sequence[Message], bool], str]
"""From messages, and whether the assistant is to speak next, to the text that the model reads."""


def messages_of(payload: str) -> list[dict[str, Any]]:
    """The messages of a row.

    Raises:
        InvalidData: where an instruction left something else than the JSON that was stored.
    """
    try:
        found = json.loads(payload)
    except ValueError as error:
        raise InvalidData(
            f"a conversation is no JSON any more: {error}", remedy="leave out the instruction that changes raw texts"
        ) from error
    return [dict(one) for one in found]


def contents_of(payload: str) -> list[str]:
    """What each message of a row says.

    Raises:
        InvalidData: as `messages_of`.
    """
    return [str(one["content"]) for one in messages_of(payload)]


def each_message(change: Callable[[Payload], Payload]) -> Callable[[Payload], Payload]:
    """A change of texts as a change of conversations: made to the content of every message."""

    def changed(payload: Payload) -> Payload:
        messages = messages_of(str(payload))
        told = [{**one, "content": str(change(one["content"]))} for one in messages]
        return json.dumps(told, ensure_ascii=False, separators=(",", ":"))

    return changed


def rendered(render: Render, messages: Sequence[Message]) -> tuple[str, list[tuple[int, int]]]:
    """A whole conversation as text, and the spans of characters that the assistant is to learn.

    A span begins behind what the template writes before a turn of the assistant and ends with that turn's end mark. A
    turn of weight 0 is none, nor is a first message, which nothing asks for, nor one that the template writes otherwise
    once the conversation goes on: the model would learn what it never is to say.
    """
    whole = render(messages, False)
    spans = []
    for number, message in enumerate(messages):
        if not number or message["role"] != "assistant" or message.get("weight") == 0:
            continue
        before, after = render(messages[:number], True), render(messages[: number + 1], False).rstrip()
        if len(after) > len(before) and whole.startswith(before) and whole.startswith(after):
            spans.append((len(before), len(after)))
    return whole, spans
