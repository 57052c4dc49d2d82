"""What a job asks for, as the request's own JSON. Knows neither how it is stored nor where data sets lie.

In a request `dataset` names data sets by id; in a job file for `python -m engine` it names canonical files by path.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)
from pydantic_core import PydanticCustomError

from engine.accounting import PrivacyBudget
from engine.catalogue import AnyInstruction, resolve_choice
from engine.evaluate import METRICS
from engine.faults import at_once
from engine.optimizer import rate_factor
from engine.tasks import TASKS

TaskName: TypeAlias = Literal["text_classification", "causal_lm", "image_classification", "text_image_pairs"]
MetricName: TypeAlias = Literal["accuracy", "macro_f1", "bits_per_byte", "recall_at_1", "recall_at_5", "recall_at_10"]
FormatName: TypeAlias = Literal["onnx", "safetensors", "gguf", "peft"]
Kind: TypeAlias = Literal["train", "compress", "evaluate", "detect", "aggregate"]
# Strict: true is no number, and "3" is none either.
Whole = Annotated[int, Field(strict=True)]
Real = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Fraction = Annotated[Real, Field(ge=0, le=1)]
Positive = Annotated[Real, Field(gt=0)]
Choice = Annotated[AnyInstruction, BeforeValidator(resolve_choice)]

_FROZEN = ConfigDict(frozen=True, extra="forbid")


class Splits(BaseModel):
    """One file a split; without `valid` a tenth of the training rows stands in."""

    model_config = _FROZEN

    train: str = Field(min_length=1)
    valid: str | None = Field(default=None, min_length=1)
    test: str = Field(min_length=1)

    def named(self) -> list[tuple[str, str]]:
        """(role, file or id) of each that is given."""
        return [
            (role, value)
            for role, value in (("train", self.train), ("valid", self.valid), ("test", self.test))
            if value
        ]


class Training(BaseModel):
    """The loop's own numbers. `learning_rate` None: 1e-4 for a pretrained base, else 1e-3; more for few weights."""

    model_config = _FROZEN

    epochs: Whole = Field(default=3, ge=1, le=1000, description="Passes over the training rows.")
    batch_size: Whole = Field(default=32, ge=1, le=65536, description="Rows a batch.")
    learning_rate: Real | None = Field(default=None, gt=0, le=10, description="None: by the base model and the plan.")
    weight_decay: Fraction = Field(default=0.01, description="What AdamW takes off the weights.")
    max_length: Whole = Field(default=128, ge=1, le=131072, description="Tokens of a text; pictures have none.")
    seed: Whole = Field(default=7, ge=0, lt=2**53, description="Equal seeds give equal runs.")
    max_steps: Whole | None = Field(default=None, ge=1, le=2**31, description="Ends the training early.")
    max_seconds: Real | None = Field(
        default=None, gt=0, le=30 * 86400, description="A run that takes longer fails as time_limit."
    )
    optimizer: Literal["adamw"] = "adamw"
    keep: Literal["last", "best"] = Field(
        default="last", description="Whose weights ship: the last epoch's, or those that did best on valid."
    )

    def rate(self, pretrained: bool, factor: float = 1.0) -> float:
        """The base learning rate; `factor` is what `rate_factor` says of the run."""
        return self.learning_rate or (1e-4 if pretrained else 1e-3) * factor


class Limits(BaseModel):
    """What the measured figures must keep; a limit of None binds nothing."""

    model_config = _FROZEN

    max_metric_loss: Fraction | None = Field(default=None, description="How far the score may fall by compression.")
    min_metric: Fraction | None = Field(default=None, description="Least score of the exported file.")
    min_agreement: Fraction | None = Field(
        default=None, description="Least share of rows that the file answers as the trained model does."
    )
    min_speedup: Positive | None = Field(default=None, description="Over PyTorch in fp32, one row at a time.")
    max_size_bytes: Whole | None = Field(default=None, gt=0, lt=2**53, description="Of the exported file.")
    max_size_ratio: Positive | None = Field(default=None, description="Exported bytes over those of the fp32 weights.")
    max_epsilon: Positive | None = Field(default=None, description="Privacy that the training may spend.")
    min_robust_score: Fraction | None = Field(default=None, description="Least score under the plan's attacks.")
    confidence: Real | None = Field(
        default=None, gt=0.5, lt=1, description="The bad end of this interval decides; None: the point estimate."
    )


class Export(BaseModel):
    """The form of the file that ships; its number format follows from the plan."""

    model_config = _FROZEN

    format: FormatName | None = Field(default=None, description="None: the first format of the task.")
    number: Literal["f16", "q8_0"] = Field(default="f16", description="The number format of a gguf file's matrices.")

    @property
    def written_as(self) -> str:
        """The entry in `engine.exporters.FORMATS`."""
        return "gguf-q8_0" if self.format == "gguf" and self.number == "q8_0" else str(self.format)


def _one_or_three(dataset: Any) -> str:
    return "file_a_split" if isinstance(dataset, Splits | Mapping) else "one_file"


def _told_or_kept(answers: Any) -> str:
    return "kept_answers" if answers == "kept" else "true_or_false"


Told: TypeAlias = Annotated[
    Annotated[bool, Field(strict=True), Tag("true_or_false")] | Annotated[Literal["kept"], Tag("kept_answers")],
    Discriminator(_told_or_kept),
    WithJsonSchema({"type": "boolean"}),
]
"""Whether the answers to test rows are written. `kept`: for whoever runs the job alone, such as an experiment."""
Dataset: TypeAlias = Annotated[
    Annotated[Annotated[str, Field(min_length=1, strict=True)], Tag("one_file")]
    | Annotated[Splits, Tag("file_a_split")],
    Discriminator(_one_or_three),
]


class Spec(BaseModel):
    """One job. Everything but `dataset` and `task` has a default."""

    model_config = _FROZEN

    kind: Kind = "train"
    task: TaskName
    model: str | None = Field(
        default=None, min_length=1, max_length=200, description="None: the task's default base model"
    )
    dataset: Dataset
    instructions: tuple[Choice, ...] = Field(default=(), max_length=52)
    metric: MetricName = Field(default=None, validate_default=True, description="None: the first metric of the task.")
    training: Training = Field(default=Training(), validate_default=True)
    limits: Limits = Limits()
    export: Export = Field(default=Export(), validate_default=True)
    compare: Literal["trained", "untreated"] = Field(
        default="trained", description="The score to hold against: the trained weights', or an untreated twin's."
    )
    include_inputs: bool = Field(default=False, strict=True, description="Let the receipt quote texts of test rows.")
    answers: Told = Field(default=False, description="Also write `answers.jsonl`: what the file says of each test row.")

    @field_validator("task")
    @classmethod
    def _served(cls, task: str) -> str:
        if task not in TASKS:
            raise ValueError(f"this server does not serve {task}; it serves {', '.join(sorted(TASKS))}")
        return task

    @field_validator("metric", mode="before")
    @classmethod
    def _metric_of_the_task(cls, metric: Any, about: ValidationInfo) -> Any:
        task = TASKS.get(about.data.get("task", ""))
        if metric is None:
            return "accuracy" if task is None else task.metrics[0]
        known_metric = isinstance(metric, str) and metric in METRICS
        if task is not None and known_metric and metric not in task.metrics:
            known = ", ".join(task.metrics)
            raise PydanticCustomError(
                "wrong_metric",
                "{metric} is no metric of {task}",
                {"metric": metric, "task": task.name, "remedy": f"choose one of: {known}"},
            )
        return metric

    @field_validator("training")
    @classmethod
    def _as_instructions_decide(cls, training: Training, about: ValidationInfo) -> Training:
        given = training
        twice: dict[str, PydanticCustomError] = {}
        for one in about.data.get("instructions", ()):
            for name, value in one.decides.items():
                if name in given.model_fields_set and getattr(given, name) != value:
                    twice[name] = PydanticCustomError(
                        "decided_twice",
                        "{instruction} and training.{name} both say how large this number is",
                        {"instruction": one.name, "name": name, "remedy": f"leave training.{name} out"},
                    )
            training = training.model_copy(update=dict(one.decides)) if one.decides else training
        if twice:
            raise at_once("training", twice, given)
        return training

    @field_validator("limits")
    @classmethod
    def _limits_of_the_metric(cls, limits: Limits, about: ValidationInfo) -> Limits:
        metric, wrong = METRICS.get(about.data.get("metric", "")), {}
        told = {"metric": about.data.get("metric", ""), "remedy": "limit max_metric_loss instead"}
        if limits.min_agreement is not None and metric is not None and not metric.counted:
            said = "by {metric} a row is neither right nor wrong, so there is no agreement to hold against it"
            wrong["min_agreement"] = PydanticCustomError("wrong_limit", said, told)
        if limits.min_metric is not None and metric is not None and not metric.more_is_better:
            said = "min_metric is a floor, and of {metric} less is better"
            wrong["min_metric"] = PydanticCustomError("wrong_limit", said, told)
        if wrong:
            raise at_once("limits", wrong, limits)
        return limits

    @field_validator("export")
    @classmethod
    def _format_of_the_task(cls, export: Export, about: ValidationInfo) -> Export:
        task = TASKS.get(about.data.get("task", ""))
        if task is None:
            return export
        if export.format is None:
            return export.model_copy(update={"format": task.formats[0]})
        if export.format not in task.formats:
            known = ", ".join(task.formats)
            raise PydanticCustomError(
                "wrong_format",
                "{task} does not ship as {format}",
                {"task": task.name, "format": export.format, "remedy": f"choose one of: {known}"},
            )
        # With a choice that cannot be read nobody can say whether there is an adapter.
        if export.format == "peft" and "instructions" in about.data:
            _adapter_ships(about.data.get("kind", ""), task.name, about.data.get("instructions", ()))
        return export

    @property
    def base_model(self) -> str:
        """The base model's name, the task's default where none was given."""
        return self.model or TASKS[self.task].default_model

    def resolved(self, pretrained: bool) -> dict[str, Any]:
        """The spec as JSON with every default filled in; what a subclass adds is not part of it."""
        filled = self.model_dump(mode="json", include=_SPEC_FIELDS)
        filled["model"] = self.base_model
        filled["training"]["learning_rate"] = self.training.rate(
            pretrained, rate_factor(fact for one in self.instructions for fact in one.provides)
        )
        return filled

    def files(self) -> list[tuple[str, str]]:
        """(role, file or id) of each data set; role "" for one that holds all splits."""
        return self.dataset.named() if isinstance(self.dataset, Splits) else [("", self.dataset)]


def _adapter_ships(kind: str, task: str, chosen: tuple[AnyInstruction, ...]) -> None:
    """Refuse an export as adapter where there is none, or where it is not all that was changed, or cannot be judged."""
    told = {"remedy": f"choose {TASKS[task].formats[0]}, which holds the whole model"}
    if kind != "evaluate" and not any("adapters" in one.provides for one in chosen):
        mend = {"remedy": f"add low_rank_adaptation (19), or choose {TASKS[task].formats[0]}"}
        raise PydanticCustomError("missing_need", "peft ships the adapter of a training, and there is none", mend)
    for one in chosen:
        if {"compress", "exporter"} & set(one.hooks):
            detail = "{name} changes the merged weights, and an adapter ships beside those of the base"
        elif task == "text_classification" and {"detector", "robust_accuracy"} & one.provides:
            detail = "{name} asks the file as its users run it, and an adapter does not run without its base"
        else:
            continue
        raise PydanticCustomError("wrong_format", detail, {"name": one.name, **told})


class TrainFile(Spec):
    """The job file of `train`: whoever keeps the account of privacy tells the run what it holds."""

    privacy_budget: PrivacyBudget = PrivacyBudget()


def steps_of(rows: int, training: Training, batches_a_step: int = 1) -> int:
    """An estimate of the optimizer steps for `rows` training rows."""
    steps = training.epochs * math.ceil(math.ceil(rows / training.batch_size) / batches_a_step)
    return min(steps, training.max_steps or steps)


_SPEC_FIELDS = set(Spec.model_fields)
