"""What can be wrong with a job that screens inputs with a trained model. Knows no request but that one."""

from pydantic import ValidationError

from app.datasets.models import Dataset
from app.jobs.checked import Checked, Lookups, data_set, invalid
from app.jobs.derived import known
from app.jobs.parents import TrainedModel
from app.jobs.requests import DetectCreate
from client.conformal import least_rate
from engine.conformal import MODES, too_few
from engine.detect import DEFAULT_RATE
from engine.errors import Fault
from engine.estimate import estimate_derived
from engine.plan import Plan
from engine.spec import Spec

_ROWS_OF_TEXT = 40  # forward passes that the judgement of one text takes, roughly: one a word


def check(lookups: Lookups, tenant: str, body: DetectCreate) -> Checked:
    """The job with what it needs.

    Raises:
        Invalid: with every fault found.
    """
    model = lookups.model(tenant, body.model)
    trained = _training(body, model) if isinstance(model, TrainedModel) else None
    task = trained.task if isinstance(trained, Spec) else None
    found, faults = _rows(lookups, tenant, body, task)
    faults += _rate_faults(body, found)
    if isinstance(model, Fault):
        raise invalid([model, *faults])
    if isinstance(trained, Fault):
        raise invalid([trained, *faults])
    assert trained is not None
    faults += _model_faults(body, model, trained)
    if faults:
        raise invalid(faults)
    own = known(lookups, tenant, trained) if "calibration" in found else {}
    inputs = {one.id: one.storage_key for one in (*found.values(), *own.values())} | model.inputs
    screened = found["inputs"].rows if "inputs" in found else len(body.inputs.texts or ())
    calibrated = found["calibration"].rows if "calibration" in found else 0
    run = trained.model_copy(update={"kind": "detect", "instructions": ()})
    passes = _ROWS_OF_TEXT * (screened + calibrated)
    return Checked(
        body,
        trained.task,
        body.resolved(trained.task, model.shown),
        Plan((), frozenset()),
        inputs,
        lambda: estimate_derived(run, passes),
    )


def _training(body: DetectCreate, model: TrainedModel) -> Spec | Fault:
    try:
        return Spec.model_validate(model.spec)
    except ValidationError:
        detail = f"the training of {body.model} asked for what this server does not know any more"
        return Fault("/model", "stale_model", detail, "train the model again")


def _rows(
    lookups: Lookups, tenant: str, body: DetectCreate, task: str | None
) -> tuple[dict[str, Dataset], list[Fault]]:
    """The data sets that the job names, by what they are for."""
    found: dict[str, Dataset] = {}
    faults: list[Fault] = []
    named = {"inputs": ("/inputs/dataset", body.inputs.dataset), "calibration": ("/calibration", body.calibration)}
    for role, (pointer, dataset_id) in named.items():
        if dataset_id is None:
            continue
        one = data_set(lookups.dataset, tenant, dataset_id, pointer, task)
        if isinstance(one, Fault):
            faults.append(one)
        else:
            found[role] = one
    return found, faults


def _model_faults(body: DetectCreate, model: TrainedModel, trained: Spec) -> list[Fault]:
    faults = []
    if body.task is not None and body.task != trained.task:
        detail = f"the model serves {trained.task}, not {body.task}"
        faults.append(Fault("/task", "wrong_task", detail, f"send {trained.task}, or leave task out"))
    if trained.task not in MODES:
        # Which signals and inputs are right follows from a task that is served.
        detail = f"a model of {trained.task} gives no answer that a detector could judge"
        return [*faults, Fault("/model", "wrong_task", detail, f"name a model of {' or '.join(MODES)}")]
    if body.inputs.texts is not None and trained.task != "text_classification":
        detail = f"the model reads what {trained.task} takes, and these are texts"
        faults.append(Fault("/inputs/texts", "wrong_inputs", detail, "name a data set of pictures"))
    served = MODES[trained.task]["full"]
    wrong = [one for one in body.signals or () if one not in served and body.calibration is not None]
    if wrong:
        detail = f"{', '.join(wrong)} cannot be read off what {trained.task} takes"
        faults.append(Fault("/signals", "wrong_signal", detail, f"choose among {', '.join(served)}"))
    if body.calibration is None and "detector" not in model.kinds:
        detail = f"{body.model} carries no detector"
        remedy = "name a data set of clean rows as calibration, or train with attention_detection (33)"
        faults.append(Fault("/calibration", "needs_calibration", detail, remedy))
    return faults


def _rate_faults(body: DetectCreate, found: dict[str, Dataset]) -> list[Fault]:
    """A rate that the calibration rows cannot hold; those of a carried detector are counted when it is read."""
    if "calibration" not in found:
        return []
    rows = found["calibration"].rows
    wrong = too_few(body.target_fpr or DEFAULT_RATE, rows)
    if wrong is None:
        return []
    remedy = f"give more rows, or set target_fpr to at least {least_rate(rows):g}" if rows >= 40 else "give more rows"
    return [Fault("/target_fpr", "too_few_rows", wrong, remedy)]
