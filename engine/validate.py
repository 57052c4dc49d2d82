"""The validation after an epoch. Knows no task by name."""

import math

from engine.errors import Diverged
from engine.evaluate import METRICS
from engine.inference import eager_answers
from engine.run import Run
from engine.token_loss import counted_hits


def validate(run: Run) -> None:
    """Tell loss and score on the validation rows at the step that was just made; keep the best weights where asked.

    Of a model that predicts tokens also the share of the targets that it takes for the likeliest.

    Raises:
        Diverged: where the step left weights that give no numbers.
    """
    if not len(run.data.valid):
        if run.spec.training.keep == "best" and not run.clock.epoch:
            run.warn("nothing_to_choose_by", "there are no validation rows: the last weights are kept, not the best")
        return
    with counted_hits() as hits:
        answers, labels = eager_answers(run.task, run.model, run.data.examples["valid"]), run.data.valid.labels
    loss = run.task.mean_loss(answers, labels)
    if not math.isfinite(loss):
        raise Diverged(
            f"the loss on the validation rows is {loss} after step {run.clock.step}",
            remedy="lower training.learning_rate, or choose 20 or 22",
        )
    metric = METRICS[run.spec.metric]
    value = metric.value(run.task.figures(run.spec.metric, answers, labels))
    by_token = {} if hits.share is None else {"valid_token_accuracy": hits.share}
    run.tell(run.clock.step, {"valid_loss": loss, "valid_score": value, **by_token})
    gain = value if metric.more_is_better else -value
    if run.spec.training.keep == "best" and gain > run.state("keep").get("gain", -math.inf):
        weights = {name: weight.detach().clone() for name, weight in run.model.state_dict().items()}
        run.state("keep").update(gain=gain, weights=weights)


def forget_best(run: Run) -> None:
    """Drop the best weights so far: what comes is judged in another way, so the two cannot be compared."""
    run.memory.pop("keep", None)
