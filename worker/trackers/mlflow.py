"""Tells MLflow: a run of an experiment for each job, its parameters, and its metrics under transformers' names.

Loaded only where FIFTYTWO_MLFLOW_URI is set; needs the extra `mlflow`.
"""

from collections.abc import Sequence

from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from app.jobs.lifecycle import Point
from app.jobs.states import State
from worker.tracking import Tracked

JOB, TENANT, ATTEMPT = "fiftytwo.job", "fiftytwo.tenant", "fiftytwo.attempt"
AT_ONCE = 1_000
"""Most metrics of one request, which is MLflow's own bound; of parameters it is 100."""
PARAMETERS_AT_ONCE, LONGEST_VALUE = 100, 500
STATUSES = {State.SUCCEEDED: "FINISHED", State.FAILED: "FAILED", State.CANCELLED: "KILLED"}
NAMES = {
    "train_loss": "train/loss",
    "valid_loss": "eval/loss",
    "valid_score": "eval/score",
    "valid_token_accuracy": "eval/token_accuracy",
    "learning_rate": "train/learning_rate",
    "gradient_norm": "train/grad_norm",
    "epsilon": "privacy/epsilon",
}


class MlflowTracker:
    """One run of MLflow's."""

    def __init__(self, uri: str, experiment: str) -> None:
        self._client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        self._experiment = experiment
        self._run = self._attempt = ""

    def begin(self, run: Tracked) -> None:
        """Make the job's run, or go on with it."""
        experiment = self._experiment_id()
        found = self._client.search_runs([experiment], f"tags.`{JOB}` = '{run.job_id}'", max_results=1)
        if found:
            self._run = found[0].info.run_id
            self._client.update_run(self._run, status="RUNNING")
        else:
            made = self._client.create_run(experiment, run_name=run.job_id, tags={JOB: run.job_id, TENANT: run.tenant})
            self._run = made.info.run_id
            told = [Param(name, value[:LONGEST_VALUE]) for name, value in run.parameters.items()]
            for start in range(0, len(told), PARAMETERS_AT_ONCE):
                self._client.log_batch(self._run, params=told[start : start + PARAMETERS_AT_ONCE])
        self._attempt = str(run.attempt)
        self._client.set_tag(self._run, ATTEMPT, self._attempt)

    def points(self, points: Sequence[Point]) -> None:
        """Log the values under the steps and moments that they are of."""
        told = [
            Metric(NAMES.get(one.name, f"train/{one.name}"), one.value, int(one.at.timestamp() * 1000), one.step)
            for one in points
        ]
        for start in range(0, len(told), AT_ONCE):
            self._client.log_batch(self._run, metrics=told[start : start + AT_ONCE])

    def end(self, state: State | None) -> None:
        """Say how it ended; one that will go on is scheduled, unless it goes on already."""
        if state is not None:
            self._client.set_terminated(self._run, STATUSES[state])
        elif self._client.get_run(self._run).data.tags.get(ATTEMPT) == self._attempt:
            self._client.update_run(self._run, status="SCHEDULED")

    def _experiment_id(self) -> str:
        found = self._client.get_experiment_by_name(self._experiment)
        if found is not None:
            return str(found.experiment_id)
        try:
            return str(self._client.create_experiment(self._experiment))
        except MlflowException:
            # Another worker has made it meanwhile.
            found = self._client.get_experiment_by_name(self._experiment)
            if found is None:
                raise
            return str(found.experiment_id)
