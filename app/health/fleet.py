"""The figures of jobs, workers, webhooks and privacy for Prometheus, read from the database when they are asked for.

So any process of the API tells of the whole fleet, and a restart forgets nothing. No id is a label, but that of a data
set where its privacy is told, which is a gauge. Knows no HTTP.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from sqlalchemy.orm import Session

from app.database import let_go
from app.health import repository
from app.jobs.states import State
from app.jobs.tallies import BOUNDS, DURATION, LAPSE, NEVER_RAN, WAIT
from app.privacy.composition import total
from app.webhooks import repository as webhooks

ALIVE_SECONDS = 60.0


@dataclass(frozen=True)
class Fleet:
    """A collector: the jobs of one tenant, or of all, and then the workers too, where `tenant` is None."""

    session: Session
    tenant: str | None

    def collect(self) -> Iterator[Metric]:
        """Every family, also those that have no sample yet."""
        yield from self._states()
        yield from self._tallied()
        yield from self._runs()
        yield from self._privacy()
        yield from self._webhooks()
        if self.tenant is None:
            yield from self._workers()

    def _states(self) -> Iterator[Metric]:
        now = GaugeMetricFamily("fiftytwo_jobs_in_state", "Jobs that are in a state now.", labels=("kind", "state"))
        depth = 0
        for kind, state, number in repository.jobs(self.session, self.tenant):
            now.add_metric((kind, state.value), number)
            depth += number if state is State.QUEUED else 0
        yield now
        yield GaugeMetricFamily("fiftytwo_queue_depth", "Jobs that wait for a worker.", value=depth)
        since = repository.queued_since(self.session, self.tenant)
        age = (repository.now(self.session) - since).total_seconds() if since is not None else 0.0
        yield GaugeMetricFamily("fiftytwo_queue_age_seconds", "How long the oldest of them has waited.", value=age)

    def _tallied(self) -> Iterator[Metric]:
        ended: defaultdict[tuple[str, str], int] = defaultdict(int)
        lapses: defaultdict[str, int] = defaultdict(int)
        times: dict[str, dict[tuple[str, ...], _Times]] = {DURATION: {}, WAIT: {}}
        for measure, kind, state, bucket, number, seconds in repository.tallies(self.session, self.tenant):
            if measure == LAPSE:
                lapses[kind] += number
                continue
            if measure == DURATION:
                ended[kind, state] += number
            if bucket != NEVER_RAN:
                labels = (kind, state) if measure == DURATION else (kind,)
                times[measure].setdefault(labels, _Times.none()).add(bucket, number, seconds)
        jobs = CounterMetricFamily("fiftytwo_jobs", "Jobs that have ended, by how.", labels=("kind", "state"))
        for (kind, state), number in ended.items():
            jobs.add_metric((kind, state), number)
        yield jobs
        lost = CounterMetricFamily("fiftytwo_lease_lapses", "Runs that were lost with their worker.", labels=("kind",))
        for kind, number in lapses.items():
            lost.add_metric((kind,), number)
        yield lost
        yield _histogram(
            "fiftytwo_job_duration_seconds",
            "From a job's first claim to its end, pauses included.",
            ("kind", "state"),
            times[DURATION],
        )
        yield _histogram(
            "fiftytwo_queue_wait_seconds", "From a job's being queued to its claim.", ("kind",), times[WAIT]
        )

    def _runs(self) -> Iterator[Metric]:
        steps: defaultdict[str, list[float]] = defaultdict(list)
        for kind, latest in repository.running(self.session, self.tenant):
            if "step_seconds" in latest:
                steps[kind].append(latest["step_seconds"])
        mean = GaugeMetricFamily(
            "fiftytwo_step_seconds", "The last step's time, the mean of the jobs that run.", labels=("kind",)
        )
        for kind, found in sorted(steps.items()):
            mean.add_metric((kind,), sum(found) / len(found))
        yield mean
        written = repository.checkpoints(self.session, self.tenant)
        age = (repository.now(self.session) - min(written)).total_seconds() if written else 0.0
        text = "How old the newest checkpoint of a running job is, for the job where it is oldest."
        yield GaugeMetricFamily("fiftytwo_checkpoint_age_seconds", text, value=age)

    def _privacy(self) -> Iterator[Metric]:
        spent = GaugeMetricFamily(
            "fiftytwo_privacy_epsilon_spent",
            "Epsilon that private jobs have spent or reserved on the rows of a data set, or on a population.",
            labels=("dataset",),
        )
        found = repository.accounts(self.session, self.tenant)
        # What the accountant has not summed up before takes a third of a second each.
        let_go(self.session)
        for name, account, entries in found:
            spent.add_metric((name,), total(account, entries).quoted)
        yield spent

    def _webhooks(self) -> Iterator[Metric]:
        sent = GaugeMetricFamily(
            "fiftytwo_webhook_deliveries", "Events to webhooks: pending, delivered, given up.", labels=("state",)
        )
        for state, number in sorted(webhooks.by_state(self.session, self.tenant).items()):
            sent.add_metric((state,), number)
        yield sent

    def _workers(self) -> Iterator[Metric]:
        now = repository.now(self.session)
        ages = [(now - at).total_seconds() for at in repository.workers(self.session)]
        alive = sum(age < ALIVE_SECONDS for age in ages)
        yield GaugeMetricFamily("fiftytwo_workers", "Workers that were heard of within a minute.", value=alive)
        text = "Since when the worker that is silent longest was heard of; one that was stopped in order is forgotten."
        yield GaugeMetricFamily("fiftytwo_worker_heartbeat_age_seconds", text, value=max(ages, default=0.0))


@dataclass
class _Times:
    """A histogram's buckets, each by itself, and the sum of all."""

    counts: list[int]
    seconds: float

    @classmethod
    def none(cls) -> "_Times":
        return cls([0] * (len(BOUNDS) + 1), 0.0)

    def add(self, bucket: int, number: int, seconds: float) -> None:
        self.counts[bucket] += number
        self.seconds += seconds


def _histogram(name: str, text: str, labels: tuple[str, ...], found: dict[tuple[str, ...], _Times]) -> Metric:
    family = HistogramMetricFamily(name, text, labels=labels)
    for values, times in found.items():
        below, buckets = 0, []
        for bound, count in zip([*map(str, BOUNDS), "+Inf"], times.counts, strict=True):
            below += count
            buckets.append((bound, float(below)))
        family.add_metric(values, buckets, times.seconds)
    return family
