"""Trimmed tokenizers: texts of kept tokens are cut as before, whichever the model; all that has an id moves along."""

import json
from collections.abc import Callable, Sequence

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from engine.vocabulary import kept_ids, renumbered_ids, trimmed

TEXTS = [
    "the meeting is tomorrow at noon",
    "free prizes for every winner of the day",
    "lunch was better than the meetings of tomorrow",
    "winning a prize is unbelievable",
]
OTHERS = ["winter begins", "some unrelated words follow here", "zebras and xylophones"]


def number_of(tokenizer: Tokenizer, token: str) -> int:
    """The id of a token that is there."""
    found = tokenizer.token_to_id(token)
    assert found is not None
    return found


def _trained(tokenizer: Tokenizer, trainer: trainers.Trainer) -> Tokenizer:
    tokenizer.train_from_iterator([*TEXTS * 3, *OTHERS * 3], trainer)
    tokenizer.enable_padding(pad_id=number_of(tokenizer, "[PAD]"), pad_token="[PAD]")
    return tokenizer


def word_piece() -> Tokenizer:
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    special = ["[OLD]", "[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    made = _trained(made, trainers.WordPieceTrainer(vocab_size=160, special_tokens=special))
    made.post_processor = processors.BertProcessing(
        ("[SEP]", number_of(made, "[SEP]")), ("[CLS]", number_of(made, "[CLS]"))
    )
    return made


def byte_pairs() -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return _trained(made, trainers.BpeTrainer(vocab_size=200, special_tokens=["[PAD]", "<end>"]))


def unigram() -> Tokenizer:
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["[PAD]", "<unk>", "<s>"]
    made = _trained(made, trainers.UnigramTrainer(vocab_size=120, special_tokens=special, unk_token="<unk>"))
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", number_of(made, "<s>"))]
    )
    return made


def used(tokenizer: Tokenizer, texts: Sequence[str]) -> set[int]:
    return {number for text in texts for number in tokenizer.encode(text).ids}


@pytest.mark.parametrize("make", [word_piece, byte_pairs, unigram])
def test_texts_of_kept_tokens_are_cut_as_before(make: Callable[[], Tokenizer]) -> None:
    whole = make()
    kept = kept_ids(whole, used(whole, TEXTS), (), characters=True)
    small = trimmed(whole, kept)
    assert len(kept) == small.get_vocab_size() < whole.get_vocab_size()
    for text in TEXTS:
        before, after = whole.encode(text), small.encode(text)
        assert after.tokens == before.tokens
        assert after.ids == [kept.index(number) for number in before.ids]
        assert small.decode(after.ids) == whole.decode(before.ids)
    for text in OTHERS:  # cut otherwise, yet nothing is unknown: single characters are there
        assert not {"[UNK]", "<unk>"} & set(small.encode(text).tokens)
    assert any(small.encode(text).tokens != whole.encode(text).tokens for text in OTHERS)


@pytest.mark.parametrize("make", [word_piece, byte_pairs, unigram])
def test_specials_and_padding_move_along(make: Callable[[], Tokenizer]) -> None:
    whole = make()
    small = trimmed(whole, kept_ids(whole, used(whole, TEXTS), (), characters=True))
    about = json.loads(small.to_str())
    assert about["padding"]["pad_id"] == small.token_to_id("[PAD]")
    assert {one["content"]: one["id"] for one in about["added_tokens"]} == {
        one["content"]: small.token_to_id(one["content"]) for one in about["added_tokens"]
    }
    batch = small.encode_batch(TEXTS)
    pad = small.token_to_id("[PAD]")
    assert any(pad in one.ids for one in batch)
    for one in batch:
        assert [small.id_to_token(number) for number in one.ids] == one.tokens


def test_every_merge_that_leads_to_a_kept_token_is_kept() -> None:
    whole = byte_pairs()
    number = whole.token_to_id("meeting") or whole.encode("meeting").ids[-1]
    kept = kept_ids(whole, {number}, (), characters=True)
    small = trimmed(whole, kept)
    assert small.encode(whole.id_to_token(number)).tokens == whole.encode(whole.id_to_token(number)).tokens
    vocabulary = small.get_vocab()
    for first, second in json.loads(small.to_str())["model"]["merges"]:
        assert {first, second, first + second} <= set(vocabulary)


def test_named_tokens_stay_and_strangers_are_refused() -> None:
    whole = word_piece()
    names = [str(whole.id_to_token(number)) for number in sorted(used(whole, OTHERS))[-2:]]
    kept = kept_ids(whole, used(whole, TEXTS), (), characters=False, tokens=names)
    assert {whole.token_to_id(name) for name in names} <= set(kept)
    with pytest.raises(KeyError, match="nosuch"):
        kept_ids(whole, (), (), characters=False, tokens=["nosuch"])


def test_bytes_stay_where_characters_fall_back_to_them() -> None:
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *"abc", "ab", "cab"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    model = models.BPE(vocab=vocabulary, merges=[("a", "b"), ("c", "ab")], byte_fallback=True, unk_token="<unk>")
    whole = Tokenizer(model)
    small = trimmed(whole, kept_ids(whole, used(whole, ["ab"]), (), characters=True))
    assert small.token_to_id("cab") is None
    assert small.encode("ab\u00e4").tokens == whole.encode("ab\u00e4").tokens == ["ab", "<0xC3>", "<0xA4>"]


def test_settings_that_name_tokens_take_the_new_ids() -> None:
    told = {"eos_token_id": [2, 9], "pad_token_id": 4, "bos_token_id": None, "suppress_tokens": [3, 4], "top_k": 4}
    new = {2: 0, 4: 1, 9: 2}
    assert renumbered_ids(told, new) == {"eos_token_id": [0, 2], "pad_token_id": 1, "suppress_tokens": [1]}
