"""Instruction 43. Knows what a student is taught and how; what is cut away is `engine.pruning`'s."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from engine.coupling import Unfit
from engine.errors import Fault, InvalidPlan
from engine.inference import eager_answers
from engine.instruction import COMPRESSES, Instruction
from engine.ports import Batch
from engine.prepare import device
from engine.pruning import blocks_of, keep_blocks, spread_blocks
from engine.run import Run
from engine.train import again

if TYPE_CHECKING:  # a spec holds instructions: a circle of types only
    from engine.spec import Spec

TEACHER = "teacher"


class KnowledgeDistillation(Instruction):
    """Trains a shallower student to answer as the trained model does, beside the labels.

    The teacher is the model that the job has trained, or the one that a `compress` job begins with; the student starts
    as some of its layers. With structured pruning (45) in the plan no layer goes: the pruned model is the student, and
    this is the loss that it recovers by.

    Sound: `(1 - alpha) loss + alpha T^2 KL(teacher_T || student_T)` a row, with log-probabilities on both sides; the
    factor T^2 keeps the gradient's size when the temperature changes. The teacher answers every training row once, in
    evaluation mode, so that no dropout speaks out of it and a step costs the student alone.

    Refuses: a student that is not smaller than its teacher; rounding in training, which would have to be trained twice;
    examples that are mixed, of which the teacher has said nothing.

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
    tasks = frozenset({"text_classification"})
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
        """Who prunes makes the student."""
        if "resized" in facts and self.layers is not None:
            detail = "structured_pruning (45) makes the student in this plan"
            yield Fault("/layers", "not_applicable", detail, "leave layers out, or set layers_removed of 45")

    def model(self, run: Run, model: nn.Module) -> nn.Module:
        """See before the training whether there will be a student."""
        self._numbers(run, model)
        return model

    def batch(self, run: Run, batch: Batch, row_ids: Sequence[int], epoch: int) -> Batch:
        """Put what the teacher said of these rows beside them."""
        taught = run.data.taught
        if taught is None:
            return batch
        return {**batch, TEACHER: torch.from_numpy(taught[list(row_ids)]).to(batch["labels"].device)}

    def loss(self, run: Run, losses: Tensor, outputs: Tensor, batch: Batch) -> Tensor:
        """Weigh the distance to the teacher in."""
        if TEACHER not in batch:
            return losses
        soft = soft_losses(outputs.float(), batch[TEACHER], self.temperature)
        return (1 - self.alpha) * losses + self.alpha * soft

    def compress(self, run: Run, model: nn.Module) -> nn.Module:
        """Ask the teacher, then make the student and train it; with 45 in the plan that one does both."""
        examples = run.data.examples
        run.data.taught = eager_answers(run.task, model.to(device()), examples["train"])
        run.state(self.name)["answers"] = torch.from_numpy(eager_answers(run.task, model, examples["test"]))
        numbers = self._numbers(run, model)
        if numbers is None:
            return model
        return again(run, keep_blocks(model, numbers), steps=self.steps)

    def report(self, run: Run) -> Mapping[str, float]:
        """How often student and teacher say the same of a test row."""
        taught = run.state(self.name).get("answers")
        if taught is None:
            return {}
        said = eager_answers(run.task, run.model, run.data.examples["test"])
        same = run.task.same(taught.numpy(), said)
        return {} if same is None else {self.metric: float(same.mean())}

    def _numbers(self, run: Run, model: nn.Module) -> list[int] | None:
        """The layers that become the student; None where pruning makes it.

        Raises:
            InvalidPlan: where it would not be smaller.
        """
        if "resized" in run.plan.facts:
            return None
        try:
            depth = blocks_of(model)
            return spread_blocks(depth, self.layers if self.layers is not None else max(1, depth // 2))
        except Unfit as error:
            index = next(i for i, one in enumerate(run.spec.instructions) if one.name == self.name)
            pointer = f"/instructions/{index}/layers"
            raise InvalidPlan([Fault(pointer, "not_smaller", error.detail, error.remedy)]) from error


def soft_losses(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 KL(teacher_T || student_T) a row, (batch,); logits (batch, classes) of both. Hinton et al. 2015 section 2."""
    said = torch.log_softmax(student / temperature, dim=-1)
    taught = torch.log_softmax(teacher / temperature, dim=-1)
    distance = nn.functional.kl_div(said, taught, reduction="none", log_target=True).sum(-1)
    return temperature**2 * distance
