"""The kinds of job, one class of fields each, told apart by `kind`. Knows no server and runs nothing.

`engine.spec.Spec` is the kind `train`, and what every run reads: a kind that starts from a trained model makes one of
its own fields and its parent's. A request names that model by id; a job file has `parent` beside it, where whoever
wrote the file says what the id stands for.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from client.signals import SignalName
from engine.aggregate import AggregateFile
from engine.errors import Fault, InvalidPlan
from engine.faults import from_validation
from engine.guard import PRIVATE, hides_test_rows
from engine.optimizer import rate_factor
from engine.spec import Choice, Export, Limits, MetricName, Real, Spec, TaskName, TrainFile, Training

_FROZEN = ConfigDict(frozen=True, extra="forbid")


class Derived(BaseModel):
    """What the kinds share that start from a trained model. The task is the model's."""

    model_config = _FROZEN

    model: str = Field(
        min_length=1, max_length=200, description="`job_...` or `art_...`: a trained model, or the job that made it."
    )
    task: TaskName | None = Field(default=None, description="The model's; another one is a fault.")
    instructions: tuple[Choice, ...] = Field(default=(), max_length=52)
    metric: MetricName | None = Field(default=None, description="null: the metric that the model was trained by.")
    limits: Limits = Limits()
    include_inputs: bool = Field(default=False, strict=True)
    dataset: str | None = Field(default=None, min_length=1, strict=True)

    def changes(self) -> dict[str, Any]:
        """Fields of the parent's spec that this job puts its own in the place of."""
        chosen = [one.model_dump() for one in self.instructions]
        own: dict[str, Any] = {"instructions": chosen, "limits": self.limits.model_dump(), "compare": "trained"}
        own |= {"include_inputs": self.include_inputs, "answers": False}
        return own | ({"metric": self.metric} if self.metric is not None else {})

    def run_spec(self, kind: str, parent: Spec) -> Spec:
        """What a run of this job reads.

        Raises:
            InvalidPlan: where a choice does not fit the parent's task; pointers are those of a request.
        """
        try:
            return Spec.model_validate({**parent.model_dump(), **self.changes(), "kind": kind})
        except ValidationError as error:
            raise InvalidPlan(from_validation(error, Spec)) from error

    def resolved(self, run: Spec, parent: Mapping[str, Any]) -> dict[str, Any]:
        """The job as JSON with every default filled in, and what `model` stands for: a job file but for its paths.

        Args:
            run: what `run_spec` gave.
            parent: the fields of `Parent`, with ids in the place of paths.
        """
        fields = set(SPECS[run.kind].model_fields) - {"parent"}
        filled = self.model_dump(mode="json", include=fields)
        settled = run.model_dump(mode="json", include={"task", "metric", "training", "export"} & fields)
        return {**filled, **settled, "parent": dict(parent)}


class Evaluate(Derived):
    """Measure a trained model's file: on its own test rows, or on all rows of a data set."""

    kind: Literal["evaluate"]
    dataset: str | None = Field(
        default=None, min_length=1, strict=True, description="null: the test rows of the job that trained the model."
    )


class Compress(Derived):
    """Make a trained model's file smaller by instructions 43 to 48, scored on the test rows of its training.

    A language model also gets smaller by a format with narrower numbers alone: `export` with `gguf`.
    """

    kind: Literal["compress"]
    model: str = Field(
        min_length=1,
        max_length=200,
        description="`job_...` or `art_...`, or a folder of the models directory with a trained text classifier.",
    )
    dataset: str | None = Field(
        default=None,
        min_length=1,
        strict=True,
        description="Where training and calibration rows come from; null: only instructions that need none.",
    )
    training: Training | None = Field(
        default=None,
        description="Batch size, rate, length and seed of recovery; null: those of the job that trained the model.",
    )
    export: Export = Export()

    def run_spec(self, kind: str, parent: Spec) -> Spec:
        """As for the others; a rate that was meant for adapters is no rate for the whole weights that recover."""
        factor = rate_factor(fact for one in parent.instructions for fact in one.provides)
        if factor != 1.0 and self.training is None:
            whole = parent.training.rate(pretrained=True, factor=factor) / factor
            training = parent.training.model_copy(update={"learning_rate": whole})
            parent = parent.model_copy(update={"training": training})
        return super().run_spec(kind, parent)

    def changes(self) -> dict[str, Any]:
        """Also the numbers of recovery and the form of the file."""
        own = {**super().changes(), "export": self.export.model_dump()}
        return own | ({"training": self.training.model_dump()} if self.training is not None else {})


def _not_empty(text: str) -> str:
    if not text.strip():
        told = {"remedy": "leave empty texts out: there is nothing to judge"}
        raise PydanticCustomError("empty_text", "the text is empty", told)
    return text


class Inputs(BaseModel):
    """What is screened: the rows of a data set, or texts."""

    model_config = _FROZEN

    dataset: str | None = Field(default=None, min_length=1, strict=True, description="All of its rows.")
    texts: tuple[Annotated[str, Field(strict=True, max_length=100_000), AfterValidator(_not_empty)], ...] | None = (
        Field(default=None, min_length=1, max_length=1000, description="Up to 1,000 texts; more come as a data set.")
    )

    @model_validator(mode="after")
    def _one_of_two(self) -> "Inputs":
        if (self.dataset is None) is (self.texts is None):
            raise PydanticCustomError(
                "one_of_two", "inputs are either a data set or texts", {"remedy": "send one of dataset and texts"}
            )
        return self


class Detect(BaseModel):
    """Screen inputs with a trained model: which look manipulated, at a stated rate of false alarms."""

    model_config = _FROZEN

    kind: Literal["detect"]
    model: str = Field(
        min_length=1, max_length=200, description="`job_...` or `art_...`: a trained model, or the job that made it."
    )
    task: TaskName | None = Field(default=None, description="The model's; another one is a fault.")
    inputs: Inputs
    signals: tuple[SignalName, ...] | None = Field(
        default=None, min_length=1, max_length=7, description="null: all that the detector has."
    )
    target_fpr: Real | None = Field(
        default=None,
        ge=0.001,
        le=0.5,
        description="Share of honest inputs that may be flagged; null: the detector's, .05.",
    )
    control: Literal["fpr", "fdr"] = Field(
        default="fpr", description="fpr: the share is of honest inputs; fdr: of the flags, and depends on the batch."
    )
    calibration: str | None = Field(
        default=None,
        min_length=1,
        strict=True,
        description="A data set of clean rows, in the place of the detector that the model carries.",
    )

    def resolved(self, task: str, parent: Mapping[str, Any]) -> dict[str, Any]:
        """The job as JSON, and what `model` stands for: a job file but for its paths."""
        fields = set(Detect.model_fields)
        return {**self.model_dump(mode="json", include=fields), "task": task, "parent": dict(parent)}


class Parent(BaseModel):
    """What `model` stands for: the files of the job that made it, and the training that its weights came from."""

    model_config = _FROZEN

    job: str | None = None
    package: str = Field(min_length=1, description="Path of model.zip, or of a folder that it was unpacked into.")
    checkpoint: str = Field(min_length=1, description="Path of checkpoint.zip, or of such a folder.")
    spec: Spec


class InFolder(BaseModel):
    """A trained model that no job made: the folder under the models directory that `spec.model` names.

    `spec`: what it is taken for, and the rows that score it.
    """

    model_config = _FROZEN

    spec: Spec


class EvaluateFile(Evaluate):
    """The job file of `evaluate`."""

    parent: Parent


class CompressFile(Compress):
    """The job file of `compress`."""

    parent: Parent | InFolder


class DetectFile(Detect):
    """The job file of `detect`."""

    parent: Parent


AnySpec: TypeAlias = Spec | EvaluateFile | CompressFile | AggregateFile | DetectFile
SPECS: Mapping[str, type[AnySpec]] = {
    "train": TrainFile,
    "evaluate": EvaluateFile,
    "compress": CompressFile,
    "aggregate": AggregateFile,
    "detect": DetectFile,
}
"""The class of a job file by its kind: one more entry here and one in `engine.runners` make a further kind."""


def spec_class(body: Any) -> type[AnySpec]:
    """The class that a job file is read by; that of `train`, which then says what is wrong, where there is none."""
    kind = body.get("kind", "train") if isinstance(body, Mapping) else "train"
    return SPECS.get(kind, Spec) if isinstance(kind, str) else Spec


def derived_faults(body: Derived, parent: Spec, facts: frozenset[str]) -> list[Fault]:
    """What is wrong with the fields of a job beside its parent, by facts of the parent's plan; `Plan.of` sees the rest.

    Args:
        facts: what was true of the parent's training.
    """
    faults = []
    if body.task is not None and body.task != parent.task:
        detail = f"the model serves {parent.task}, not {body.task}"
        faults.append(Fault("/task", "wrong_task", detail, f"send {parent.task}, or leave task out"))
    own_rows = body.dataset is None or isinstance(body, Compress)  # a compression is scored on its parent's in any case
    if body.include_inputs and own_rows and hides_test_rows(parent):
        detail = "the rows that the model was trained on privately may not stand in a receipt"
        faults.append(Fault("/include_inputs", "excluded", detail, "leave it out, or name another data set"))
    if isinstance(body, Compress):
        faults += compress_faults(body, parent.task, facts)
    return faults


def compress_faults(body: Compress, task: str | None, facts: frozenset[str]) -> list[Fault]:
    """What is wrong with the choice of a compression; `task` None: nobody knows the model, and less can be told."""
    faults = []
    if not body.instructions and body.export.format != "gguf":  # whose numbers are narrower by themselves
        detail, remedy = "nothing is chosen that makes the file smaller", "choose from 43 to 48, such as [47]"
        if task == "causal_lm":
            remedy = "choose from 43 and 48, or set export.format to gguf"
        faults.append(Fault("/instructions", "nothing_to_do", detail, remedy))
    for index, one in enumerate(body.instructions):
        learns = {"reads_training_rows", "couples_rows"} & one.provides
        if PRIVATE in facts and PRIVATE in one.excludes:
            detail = f"{one.name} does not go with a model that was trained privately: {one.excludes[PRIVATE]}"
            faults.append(Fault(f"/instructions/{index}", "excluded", detail, f"leave {one.name} out"))
        elif learns and body.dataset is None:
            detail = f"{one.name} needs training rows with these parameters, and the job gives none"
            remedy = "name a data set, or choose parameters that need no rows (see GET /v1/instructions)"
            faults.append(Fault(f"/instructions/{index}", "needs_rows", detail, remedy))
        elif learns and PRIVATE in facts:
            detail = f"{one.name} learns from rows outside the accounted steps of a model that was trained privately"
            remedy = "leave it out, or choose parameters that need no rows"
            faults.append(Fault(f"/instructions/{index}", "excluded", detail, remedy))
    return faults
