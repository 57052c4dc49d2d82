"""Instruction 48. Knows what is counted and when too much would go; how tokenizers shrink is `engine.vocabulary`'s."""

import copy
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field
from torch import nn

from engine.errors import Fault, InvalidData
from engine.instruction import COMPRESSES, TEXT_TASKS, Instruction
from engine.ports import Example, Trimming
from engine.run import Run
from engine.vocabulary import kept_ids

if TYPE_CHECKING:  # a spec holds instructions: a circle of types only
    from engine.spec import Spec


class VocabularyTrimming(Instruction):
    """Drops the embedding rows of tokens that the training rows never use, and rewrites the tokenizer to match.

    A language model loses the same rows of its output layer, tied or not; of pairs it is the text side.

    Sound: the ids of training rows alone are counted. Kept are special tokens, single characters, what is used, and the
    parts of every merge that leads there; all keep their order, so a text of kept tokens gives the very same logits,
    bit for bit; of a language model, the very same states. Vocabulary, added tokens, post-processor and every id in a
    configuration are numbered anew together. A language model deals the probability of what went among what stays, so
    such a text can only become likelier.

    Refuses: more than `max_unknown` of the tokens of the validation rows gone: a text that loses a token is cut into
    other ones, which the unknown token alone would not show; tokens to be kept that are not there; a language model
    without its single characters, which could not write every text any more.

    Effect: fewer rows of embedding, and equal logits where every token of a text stays; the report has rows, bytes and
    the share of texts that are cut otherwise, the receipt what that costs in quality.
    """

    number = 48
    band = "compression"
    title = "Vocabulary trimming"
    source = "Abdaoui et al. 2020 (2010.05609), Load What You Need"
    metric = "rows_removed"
    kinds = COMPRESSES
    tasks = TEXT_TASKS
    name: Literal["vocabulary_trimming"] = "vocabulary_trimming"

    min_count: int = Field(default=1, ge=1, le=100, description="how often a token must occur in the training rows")
    keep_characters: bool = Field(default=True, description="keep all tokens of one character")
    keep_tokens: list[str] = Field(
        default=[], max_length=100_000, strict=False, description="tokens that stay whatever their count"
    )
    max_unknown: float = Field(
        default=0.01, ge=0, le=0.2, allow_inf_nan=False, description="largest share of validation tokens that may go"
    )

    @property
    def provides(self) -> frozenset[str]:
        """A smaller vocabulary, which tells what words the training rows held."""
        return frozenset({"trimmed_vocabulary", "couples_rows"})

    @property
    def after(self) -> frozenset[str]:
        """Shapes and masks come first, the number format last."""
        return frozenset({"teacher", "resized", "resized_after_training", "mask"})

    def check(self, spec: "Spec", facts: frozenset[str]) -> Iterable[Fault]:
        """A language model has no token for what it cannot spell."""
        if spec.task == "causal_lm" and not self.keep_characters:
            detail = "without its single characters a language model cannot write every text"
            yield Fault("/keep_characters", "cannot_trim", detail, "leave keep_characters on")

    def model(self, run: Run, model: nn.Module) -> nn.Module:
        """See before the training whether too much would go."""
        self._kept(run)
        return model

    def compress(self, run: Run, model: nn.Module) -> nn.Module:
        """Trim tokenizer, task and model together, and encode the rows anew; the task of before stays as it was."""
        kept = self._kept(run)
        run.task = copy.deepcopy(run.task)
        task = _trimming(run)
        rows = list(run.data.valid.payloads)
        before = [task.tokens(row) for row in rows]
        removed = task.trim(model, kept)
        changed = sum(was != task.tokens(row) for was, row in zip(before, rows, strict=True))
        effects = {"rows_removed": removed, "rows_kept": len(kept), "texts_changed": changed / max(1, len(rows))}
        run.state(self.name).update({name: float(value) for name, value in effects.items()})
        run.data = run.data.anew(run.task)
        return model

    def report(self, run: Run) -> Mapping[str, float]:
        """Rows that went, the share of validation tokens that went with them, and of texts that are cut anew for it."""
        effects: Mapping[str, float] = run.state(self.name)
        return effects

    def _kept(self, run: Run) -> list[int]:
        """The ids that stay.

        Raises:
            InvalidData: for tokens to be kept that are not there, or too many validation tokens that would go.
        """
        task = _trimming(run)
        counts = _counts(task, run.data.examples["train"])
        used = [token for token, count in counts.items() if count >= self.min_count]
        try:
            kept = kept_ids(
                task.vocabulary, used, task.special, characters=self.keep_characters, tokens=self.keep_tokens
            )
        except KeyError as error:
            raise self._refusal(run, "keep_tokens", f"the vocabulary has no token {error}", "leave it out") from error
        held_out = _counts(task, run.data.examples["valid"])
        if not held_out:
            run.warn("nothing_to_judge_by", "there are no validation rows to see by which tokens are missed")
            return kept
        gone = 1 - sum(held_out[token] for token in kept) / held_out.total()
        if gone > self.max_unknown:
            detail = (
                f"{gone:.2%} of the tokens of the validation rows would go, and at most {self.max_unknown:.2%} may: "
                "the training rows do not hold enough of the words that come later"
            )
            remedy = "give more training rows, name words in keep_tokens, or raise max_unknown"
            raise self._refusal(run, "max_unknown", detail, remedy)
        run.state(self.name)["tokens_gone"] = gone
        return kept

    def _refusal(self, run: Run, parameter: str, detail: str, remedy: str) -> InvalidData:
        index = next(i for i, one in enumerate(run.spec.instructions) if one.name == self.name)
        fault = Fault(f"/instructions/{index}/{parameter}", "cannot_trim", detail, remedy)
        return InvalidData(detail, remedy=remedy, faults=[fault])


def _counts(task: Trimming, examples: Sequence[Example]) -> Counter[int]:
    found: Counter[int] = Counter()
    for number in range(len(examples)):
        found.update(task.read(examples[number]))
    return found


def _trimming(run: Run) -> Trimming:
    assert isinstance(run.task, Trimming)  # by the tasks that it serves
    return run.task
