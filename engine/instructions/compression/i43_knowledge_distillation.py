"""Instruction 43. Knows what a student is taught and when; what it is made of is `engine.students`'s."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from engine.coupling import Unfit
from engine.distillation import overheard, soft_losses, soft_similarities, soft_token_losses
from engine.errors import Fault, InvalidPlan
from engine.evaluate import loss
from engine.inference import eager_answers
from engine.instruction import ALL_TASKS, COMPRESSES, Instruction
from engine.ports import Answers, Batch, Decoding
from engine.prepare import device
from engine.run import Run
from engine.students import student, student_blocks
from engine.tasks.retrieval import Retrieval
from engine.train import again

if TYPE_CHECKING:  # a spec holds instructions: a circle of types only
    from engine.spec import Spec

TEACHER = "teacher"


class KnowledgeDistillation(Instruction):
    """Trains a shallower student to answer as the trained model does, beside the labels.

    The teacher is the model that the job has trained, or the one that a `compress` job begins with; the student starts
    as some of its layers: an encoder's or a decoder's evenly spread, of a residual net the first block of each stage
    and some of the others. With structured pruning (45) in the plan no layer goes: the pruned model is the student, and
    this is the loss that it recovers by.

    Sound: `(1 - alpha) loss + alpha T^2 KL(teacher_T || student_T)` a row, with log-probabilities on both sides; the
    factor T^2 keeps the gradient's size when the temperature changes. A teacher of classes answers every training row
    once, in evaluation mode, so that no dropout speaks out of it and a step costs the student alone. A language model's
    answers are too many to keep, so it reads each batch along, and its distance is summed over the target tokens. Of
    pairs it is the similarities within a batch that are taught, each text over the pictures and back.

    Refuses: a student that is not smaller than its teacher; rounding in training, which would have to be trained twice;
    examples that are mixed, of which the teacher has said nothing; decoders whose layers are not all alike; pairs
    without 45, since their two towers have no one depth.

    Effect: on made-up texts a test holds that a student of one of two layers answers as its teacher on more than 90 %
    of the test rows, and one of a single step does not. The gain over a student of the same size that learns from
    labels alone is not measured yet.
    """

    number = 43
    band = "compression"
    title = "Knowledge distillation"
    source = "Hinton et al. 2015 (1503.02531) section 2; Sanh et al. 2019 (1910.01108) sections 2 and 3"
    metric = "distillation_agreement"
    kinds = COMPRESSES
    tasks = ALL_TASKS
    name: Literal["knowledge_distillation"] = "knowledge_distillation"

    temperature: float = Field(
        default=2.0, ge=0.5, le=20, allow_inf_nan=False, description="softens both sides; 1 leaves them as they are"
    )
    alpha: float = Field(default=0.5, ge=0, le=1, allow_inf_nan=False, description="weight of the teacher's answers")
    layers: int | None = Field(
        default=None, ge=1, le=256, description="layers of the student; null: half of the teacher's"
    )
    steps: int = Field(default=400, ge=1, le=100_000, description="steps that the student is trained for")

    @property
    def provides(self) -> frozenset[str]:
        """A teacher, who has seen the training rows."""
        return frozenset({TEACHER, "reads_training_rows"})

    @property
    def excludes(self) -> Mapping[str, str]:
        """What the teacher cannot speak to."""
        return {
            "fake_quantized": "the student would have to be trained to round anew; quantise it afterwards (47)",
            "mixed_labels": "the teacher has said nothing of rows that are mixed",
        }

    def check(self, spec: "Spec", facts: frozenset[str]) -> Iterable[Fault]:
        """Who prunes makes the student; of pairs nobody else does."""
        if spec.task == "text_image_pairs" and "resized" not in facts:
            detail = "two towers have no one depth, so no layer of them is left out and there would be no student"
            yield Fault("", "missing_need", detail, "add structured_pruning (45): what it prunes is then the student")
        if "resized" in facts and self.layers is not None:
            detail = "structured_pruning (45) makes the student in this plan"
            yield Fault("/layers", "not_applicable", detail, "leave layers out, or set layers_removed of 45")

    def further_steps(self, facts: frozenset[str]) -> int:
        """Those of the student; where 45 makes it, that one trains it."""
        return 0 if "resized" in facts else self.steps

    def model(self, run: Run, model: nn.Module) -> nn.Module:
        """See before the training whether there will be a student."""
        self._kept(run, model)
        return model

    def batch(self, run: Run, batch: Batch, row_ids: Sequence[int], epoch: int) -> Batch:
        """Put what the teacher said of these rows beside them."""
        taught = run.data.taught
        if taught is None:
            return batch
        return {**batch, TEACHER: torch.from_numpy(taught[list(row_ids)]).to(batch["labels"].device)}

    def context(self, run: Run) -> AbstractContextManager[Any]:
        """Overhear the student, where the teacher reads each batch along."""
        if run.data.teacher is None:
            return nullcontext()
        inside: Any = run.model  # a method of every transformers model
        return overheard(inside.get_decoder(), run.state(self.name))

    def loss(self, run: Run, losses: Tensor, outputs: Tensor, batch: Batch) -> Tensor:
        """Weigh the distance to the teacher in."""
        if run.data.teacher is not None:
            soft = self._of_tokens(run, run.data.teacher, batch)
        elif TEACHER in batch and isinstance(run.task, Retrieval):
            found, scale = outputs[:, :-1].float(), outputs[0, -1].detach()
            soft = soft_similarities(found, batch[TEACHER], scale, self.temperature)
        elif TEACHER in batch:
            soft = soft_losses(outputs.float(), batch[TEACHER], self.temperature)
        else:
            return losses
        return (1 - self.alpha) * losses + self.alpha * soft

    def compress(self, run: Run, model: nn.Module) -> nn.Module:
        """Ask the teacher, then make the student and train it; with 45 in the plan that one does both."""
        examples, model = run.data.examples, model.to(device())
        if isinstance(run.task, Decoding):
            run.data.teacher = copy.deepcopy(model).eval().requires_grad_(False)
        else:
            run.data.taught = eager_answers(run.task, model, examples["train"])
        run.state(self.name)["answers"] = torch.from_numpy(eager_answers(run.task, model, examples["test"]))
        kept = self._kept(run, model)
        if kept is None:
            return model
        made = again(run, student(model, kept), steps=self.steps)
        run.data.teacher = None
        return made

    def report(self, run: Run) -> Mapping[str, float]:
        """How often student and teacher say the same of a test row; else by how much its score is the worse one."""
        taught = run.state(self.name).get("answers")
        if taught is None:
            return {}
        said = eager_answers(run.task, run.model, run.data.examples["test"])
        same = run.task.same(taught.numpy(), said)
        return (
            {"score_lost": self._lost(run, taught.numpy(), said)} if same is None else {self.metric: float(same.mean())}
        )

    def _lost(self, run: Run, taught: Answers, said: Answers) -> float:
        metric, truth = run.spec.metric, run.data.test.labels
        before, after = (run.task.figures(metric, one, truth) for one in (taught, said))
        return loss(metric, before, after, run.spec.training.seed).value

    def _of_tokens(self, run: Run, teacher: Any, batch: Batch) -> Tensor:
        """The soft loss of each row, (rows,): the sum over its target tokens."""
        task, mine = run.task, run.state(self.name)["states"]
        assert isinstance(task, Decoding)  # whose teacher it is
        with torch.no_grad():
            its = task.states(teacher, batch)
        inside: Any = run.model  # methods of every transformers model
        heads = inside.get_output_embeddings(), teacher.get_output_embeddings()
        tokens = soft_token_losses(
            (heads[0], mine), (heads[1], its), batch["labels"], int(task.config.vocab_size), self.temperature
        )
        return run.task.losses(tokens, batch)

    def _kept(self, run: Run, model: nn.Module) -> dict[str, list[int]] | None:
        """The blocks that become the student; None where pruning makes it.

        Raises:
            InvalidPlan: where it would not be smaller.
        """
        if "resized" in run.plan.facts:
            return None
        try:
            return student_blocks(model, self.layers)
        except Unfit as error:
            index = next(i for i, one in enumerate(run.spec.instructions) if one.name == self.name)
            pointer = f"/instructions/{index}" + (f"/{error.parameter}" if error.parameter else "")
            raise InvalidPlan([Fault(pointer, "not_smaller", error.detail, error.remedy)]) from error
