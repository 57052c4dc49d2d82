"""The validation after an epoch. Knows no task by name."""

import math

import torch

from engine.evaluate import score
from engine.events import StepDone
from engine.inference import eager_logits
from engine.run import Run


def validate(run: Run) -> None:
    """Tell loss and score on the validation rows at the step that was just made; keep the best weights where asked."""
    if not len(run.data.valid):
        return
    logits = eager_logits(run.task, run.model, run.data.examples["valid"])
    labels = {"labels": torch.from_numpy(run.data.valid.labels)}
    loss = float(run.task.losses(torch.from_numpy(logits), labels).mean())
    value = score(run.spec.metric, logits.argmax(axis=1), run.data.valid.labels, len(run.task.labels))
    values = {"valid_loss": loss, "valid_score": value}
    run.sink.emit(StepDone(step=run.clock.step, total_steps=run.clock.total, values=values))
    if run.spec.training.keep == "best" and value > run.state("keep").get("score", -math.inf):
        weights = {name: weight.detach().clone() for name, weight in run.model.state_dict().items()}
        run.state("keep").update(score=value, weights=weights)
