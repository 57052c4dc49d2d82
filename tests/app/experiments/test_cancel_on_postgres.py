"""A cancel of an experiment and the end of one of its jobs never wait for each other, where rows have locks."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import event, select

from app.experiments import service
from app.experiments.models import Experiment, ExperimentJob
from app.identity import Identity
from app.jobs.models import Job
from app.jobs.states import State
from tests import postgres
from tests.service import job_of, put_job, tables


def test_every_job_is_held_before_the_first_is_moved(server: postgres.Server) -> None:
    free: list[list[str]] = []
    with tables(server.fresh()) as database:
        made = [put_job(database) for _ in range(2)]
        given: dict[str, Any] = {"task": "text_classification", "metric": "accuracy", "dataset_id": "ds_1"}
        given |= {"baseline": {}, "treatments": [{"name": "edge"}], "seeds": [1], "margin": 0.01, "secret": "00"}
        with database.session() as session:
            session.add(Experiment(id="exp_1", tenant="default", created_at=datetime.now(UTC), **given))
            session.flush()
            session.add_all(
                ExperimentJob(experiment_id="exp_1", arm=arm, seed=1, job_id=job_id) for arm, job_id in enumerate(made)
            )

        def look(_: Any, __: Any, statement: str, *___: Any) -> None:
            if statement.startswith("UPDATE jobs"):
                with database.session() as other:
                    free.append(list(other.scalars(select(Job.id).with_for_update(skip_locked=True))))

        event.listen(database.engine, "before_cursor_execute", look)
        with database.session() as session:
            service.cancel(session, Identity("default", "key_1", "member"), "exp_1")
        event.remove(database.engine, "before_cursor_execute", look)
        assert free[0] == []
        assert {job_of(database, job_id).state for job_id in made} == {State.CANCELLED}
