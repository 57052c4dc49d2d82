"""Instruction 7: the terms that bring texts and pictures into one space. Knows two towers by name, and no task."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from engine.contrastive import (
    MOST_LOG_SCALE,
    alignment,
    contrastive_losses,
    mean_cosine,
    ranks,
    sides,
    told_apart,
    uniformity,
)
from engine.errors import Fault
from engine.inference import eager_answers
from engine.instruction import Instruction
from engine.pair_encoder import set_dimension
from engine.run import Run

if TYPE_CHECKING:  # a spec holds instructions: a circle of types only
    from engine.spec import Spec

_LEAST_BATCH = 8


class MultimodalAlignment(Instruction):
    """Trains texts and pictures into one space of unit vectors: right pairs close, wrong pairs apart.

    Sound: cross-entropy from text to picture and back over the pairs of a batch at a learned temperature, where every
    caption of a picture and every picture of a caption is right; on demand the distance of pairs and the spread of each
    side. The scale stays at or below 100 and does not decay. The article's formula is unsound as it stands: its two
    text and image losses are undefined, and its only term between the two is a distance that any constant answer
    minimises; not normalised, it falls by shrinking. Read as the two directions of the contrastive loss, .6 : .3 : .1
    is as good as the plain one.

    Refuses: weights without a term that pushes apart, since a constant encoder would be perfect; batches under 8 pairs;
    mixed pairs, which have no single right partner; private training, since a row's loss depends on other rows.

    Effect: recall both ways on the test rows, distance of pairs, spread of pictures and their mean cosine, which nears
    1 where the space has collapsed: a collapsed space can still beat chance at recall.
    """

    number = 7
    band = "preprocessing"
    title = "Multimodal alignment"
    source = "Radford et al. 2021 (2103.00020) section 2.3; Wang and Isola 2020 (2005.10242) section 4"
    metric = "image_to_text_recall_at_10"
    tasks = frozenset({"text_image_pairs"})
    name: Literal["multimodal_alignment"] = "multimodal_alignment"

    text_weight: float = Field(default=0.5, ge=0, le=1, description="weight of the cross-entropy from text to picture")
    image_weight: float = Field(default=0.5, ge=0, le=1, description="weight of the cross-entropy from picture to text")
    alignment_weight: float = Field(default=0.0, ge=0, le=1, description="weight of the squared distance of a pair")
    uniformity_weight: float = Field(
        default=0.0, ge=0, le=1, description="weight of the log mean exp(-2 distance^2) within each side"
    )
    dimension: int | None = Field(
        default=None, ge=16, le=1024, description="numbers of an embedding; null: the base's own, without a fresh head"
    )
    temperature: float = Field(default=0.07, ge=0.01, le=1, description="what cosines are divided by at the start")
    learnable: bool = Field(default=True, description="learn the temperature, down to .01")
    freeze_text: bool = Field(default=True, description="leave the text tower as it is and train the rest")

    @property
    def provides(self) -> frozenset[str]:
        """One space, through losses that look at several rows at once."""
        return frozenset({"aligned_space", "couples_rows"})

    @property
    def excludes(self) -> Mapping[str, str]:
        """What leaves a row without a partner or a gradient of its own."""
        return {
            "mixed_labels": "a mixed pair has no single right partner",
            "differential_privacy": "a row's loss depends on the others of its batch: it has no gradient of its own",
        }

    def check(self, spec: "Spec", facts: frozenset[str]) -> Iterable[Fault]:
        """Something must push apart, and there must be something to push from."""
        if not self.text_weight + self.image_weight + self.uniformity_weight:
            detail = "an attracting term alone has a constant solution: every text and picture at one point"
            yield Fault("/text_weight", "alignment_collapses", detail, "raise text_weight and image_weight above 0")
        if spec.training.batch_size < _LEAST_BATCH:
            detail = f"in batches of {spec.training.batch_size} a pair has fewer than {_LEAST_BATCH - 1} wrong partners"
            yield Fault("", "too_few_negatives", detail, f"raise training.batch_size to at least {_LEAST_BATCH}")

    def model(self, run: Run, model: nn.Module) -> nn.Module:
        """Set the dimension, the temperature, and what of it trains."""
        if self.dimension and set_dimension(model, self.dimension) and run.task.pretrained:
            run.warn("fresh_projections", f"the base's projections have another size than {self.dimension}: fresh ones")
        scale = model.get_parameter("logit_scale")
        with torch.no_grad():
            scale.fill_(-torch.tensor(self.temperature).log())
        scale.requires_grad_(self.learnable)
        model.get_submodule("text_model").requires_grad_(not self.freeze_text)
        return model

    def loss(self, run: Run, losses: Tensor, outputs: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """The weighted terms in place of the task's own, (batch,)."""
        text, image = sides(outputs[:, :-1])
        to_image, to_text = contrastive_losses(text, image, outputs[0, -1], batch["labels"])
        weighted = self.text_weight * to_image + self.image_weight * to_text
        if self.alignment_weight:
            weighted = weighted + self.alignment_weight * alignment(text, image)
        if self.uniformity_weight:
            weighted = weighted + self.uniformity_weight * (uniformity(text) + uniformity(image)) / 2
        return weighted

    def after_step(self, run: Run) -> None:
        """Keep the temperature from .01 to 1."""
        with torch.no_grad():
            run.model.get_parameter("logit_scale").clamp_(min=0.0, max=MOST_LOG_SCALE)

    def report(self, run: Run) -> Mapping[str, float]:
        """Recall both ways and the shape of the space on the test rows, the temperature, and wrong partners a row."""
        text, image = sides(eager_answers(run.task, run.model, run.data.examples["test"]))
        alike = told_apart(run.data.test.labels)
        ways = {"image_to_text": ranks(image, text, alike[:, ::-1]), "text_to_image": ranks(text, image, alike)}
        scale = run.model.get_parameter("logit_scale").detach()
        return {
            **{f"{way}_recall_at_{k}": float((found < k).mean()) for way, found in ways.items() for k in (1, 5, 10)},
            "alignment": float(alignment(torch.from_numpy(text), torch.from_numpy(image)).mean()),
            "uniformity": float(uniformity(torch.from_numpy(image))),
            "mean_cosine_between_images": mean_cosine(image),
            "temperature": float((-scale).exp()),
            "negatives": float(min(run.spec.training.batch_size, len(run.data.train)) - 1),
        }
