"""Tokenizers with fewer tokens, as changes to the JSON that they are stored as. Knows no task and no model.

What is kept keeps its order, so a text of kept tokens alone is cut into the very same tokens as before: a longest match
stays the longest, a best path the best, and every merge on the way to a kept token is kept too.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from tokenizers import Tokenizer

Numbers: TypeAlias = Mapping[int, int]  # old id to new id
_CONTINUED = "##"  # of WordPiece, before what does not begin a word
_BEGINS = "\u2581"  # of SentencePiece, before what begins a word
_ENDS = "</w>"  # of CLIP, behind what ends a word
_NAMES_TOKENS = ("_token_id", "suppress_tokens")  # ends of settings whose values are ids
_BYTE = re.compile("<0x[0-9A-F]{2}>")


def kept_ids(
    tokenizer: Tokenizer, used: Iterable[int], special: Iterable[int], *, characters: bool, tokens: Sequence[str] = ()
) -> list[int]:
    """The ids that stay, ascending: used ones, special ones, named ones, single characters, and what these are made of.

    Raises:
        KeyError: naming a token that is not there.
    """
    about = json.loads(tokenizer.to_str())
    vocabulary: dict[str, int] = tokenizer.get_vocab(with_added_tokens=True)
    found = {*used, *special, *(one["id"] for one in about["added_tokens"]), *_named(about["post_processor"])}
    unknown = about["model"].get("unk_token")
    found |= {vocabulary[unknown]} if isinstance(unknown, str) and unknown in vocabulary else set()
    found |= {about["model"]["unk_id"]} if isinstance(about["model"].get("unk_id"), int) else set()
    found |= {vocabulary[token] for token in tokens}
    if about["model"].get("byte_fallback"):  # a character that is no token is written as its bytes
        found |= {number for token, number in vocabulary.items() if _BYTE.fullmatch(token)}
    if characters:
        found |= {number for token, number in vocabulary.items() if _is_character(token)}
    parts = _merges(about["model"], vocabulary)
    waiting = list(found)
    while waiting:
        made_of = [part for pair in parts.get(waiting.pop(), ()) for part in pair if part not in found]
        found.update(made_of)
        waiting += made_of
    return sorted(found)


def trimmed(tokenizer: Tokenizer, kept: Sequence[int]) -> Tokenizer:
    """The tokenizer with these ids alone, numbered anew in their order: vocabulary, merges, specials and padding."""
    new = numbers(kept)
    about = json.loads(tokenizer.to_str())
    model = about["model"]
    vocabulary: dict[str, int] = tokenizer.get_vocab(with_added_tokens=True)
    if isinstance(model["vocab"], list):  # Unigram: pieces with their scores, an id by place
        model["vocab"] = [model["vocab"][old] for old in kept if old < len(model["vocab"])]
        if isinstance(model.get("unk_id"), int):
            model["unk_id"] = new[model["unk_id"]]
    else:
        model["vocab"] = {token: new[old] for token, old in model["vocab"].items() if old in new}
    if model.get("merges"):
        model["merges"] = [one for one in model["merges"] if _survives(one, vocabulary, new)]
    for one in about["added_tokens"]:
        one["id"] = new[one["id"]]
    about["post_processor"] = _renumbered(about["post_processor"], new)
    if about.get("padding"):
        about["padding"]["pad_id"] = new.get(about["padding"]["pad_id"], 0)
    return Tokenizer.from_str(json.dumps(about))


def numbers(kept: Sequence[int]) -> Numbers:
    """Where each kept id goes."""
    return {old: place for place, old in enumerate(kept)}


def renumber(config: Any, new: Numbers) -> None:
    """Write the new size and the new ids of special tokens into a configuration, in place."""
    for name, value in renumbered_ids(vars(config), new).items():
        setattr(config, name, value)
    config.vocab_size = len(new)


def renumbered_ids(content: Mapping[str, Any], new: Numbers) -> dict[str, Any]:
    """Those of some settings that name tokens, one or a list of them, by the new ids; what is not kept is left out."""
    found: dict[str, Any] = {}
    for name, value in content.items():
        if not name.endswith(_NAMES_TOKENS):
            continue
        if isinstance(value, list):
            found[name] = [new[one] for one in value if one in new]
        elif _is_id(value) and value in new:
            found[name] = new[value]
    return found


def special_ids(config: Any) -> set[int]:
    """The ids that a configuration names, by themselves or in lists."""
    named = [value for name, value in vars(config).items() if name.endswith("_token_id")]
    every = [one for value in named for one in (value if isinstance(value, list) else [value])]
    return {one for one in every if _is_id(one)}


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_character(token: str) -> bool:
    plain = (token.removeprefix(_CONTINUED) or token, token.removeprefix(_BEGINS), token.removesuffix(_ENDS))
    return any(len(one) == 1 for one in plain)


def _pair(merge: Any) -> tuple[str, str]:
    """Both parts of a merge, which older files write as one string."""
    first, second = merge.split(" ", 1) if isinstance(merge, str) else merge
    return first, second


def _merges(model: Mapping[str, Any], vocabulary: Mapping[str, int]) -> dict[int, list[tuple[int, int]]]:
    """By the id that comes out: the ids of the two parts of every merge that gives it."""
    found: dict[int, list[tuple[int, int]]] = {}
    for merge in model.get("merges") or ():
        first, second = _pair(merge)
        whole = vocabulary.get(first + second)
        if whole is not None:
            found.setdefault(whole, []).append((vocabulary[first], vocabulary[second]))
    return found


def _survives(merge: Any, vocabulary: Mapping[str, int], new: Numbers) -> bool:
    first, second = _pair(merge)
    return all(vocabulary.get(token) in new for token in (first, second, first + second))


def _named(part: Any) -> set[int]:
    """Every id that a post-processor writes."""
    if isinstance(part, dict):
        own = set(part["ids"]) if isinstance(part.get("ids"), list) else set()
        return own.union(*(_named(value) for value in part.values()))
    if isinstance(part, list):
        if len(part) == 2 and isinstance(part[0], str) and isinstance(part[1], int):  # ["[SEP]", 102]
            return {part[1]}
        return set[int]().union(*(_named(one) for one in part))
    return set()


def _renumbered(part: Any, new: Numbers) -> Any:
    """The same post-processor with the new ids."""
    if isinstance(part, dict):
        return {
            name: [new[one] for one in value] if name == "ids" and isinstance(value, list) else _renumbered(value, new)
            for name, value in part.items()
        }
    if isinstance(part, list):
        if len(part) == 2 and isinstance(part[0], str) and isinstance(part[1], int):
            return [part[0], new[part[1]]]
        return [_renumbered(one, new) for one in part]
    return part
