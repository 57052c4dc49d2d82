"""The validation after an epoch. Knows no task by name."""

import math

import torch

from engine.errors import Diverged
from engine.evaluate import score
from engine.events import StepDone
from engine.inference import eager_logits
from engine.run import Run


def validate(run: Run) -> None:
    """Tell loss and score on the validation rows at the step that was just made; keep the best weights where asked.

    Raises:
        Diverged: where the step left weights that give no numbers.
    """
    if not len(run.data.valid):
        if run.spec.training.keep == "best" and not run.clock.epoch:
            run.warn("nothing_to_choose_by", "there are no validation rows: the last weights are kept, not the best")
        return
    logits = eager_logits(run.task, run.model, run.data.examples["valid"])
    labels = {"labels": torch.from_numpy(run.data.valid.labels)}
    loss = float(run.task.losses(torch.from_numpy(logits), labels).mean())
    if not math.isfinite(loss):
        raise Diverged(
            f"the loss on the validation rows is {loss} after step {run.clock.step}",
            remedy="lower training.learning_rate, or choose 20 or 22",
        )
    value = score(run.spec.metric, logits.argmax(axis=1), run.data.valid.labels, len(run.task.labels))
    values = {"valid_loss": loss, "valid_score": value}
    run.sink.emit(StepDone(step=run.clock.step, total_steps=run.clock.total, values=values))
    if run.spec.training.keep == "best" and value > run.state("keep").get("score", -math.inf):
        weights = {name: weight.detach().clone() for name, weight in run.model.state_dict().items()}
        run.state("keep").update(score=value, weights=weights)
