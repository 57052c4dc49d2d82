"""Requests that fit the API's document, and requests that nearly do: no failure of ours, no answer outside it.

Schemathesis makes both from the document itself. Paths get ids of things that are there, made anew where a request may
have erased or moved them, so that the answers are more than 404.
"""

import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck
from hypothesis import settings as how
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.config import SchemathesisConfig
from schemathesis.core.parameters import ParameterLocation
from schemathesis.generation.modes import GenerationMode

from app.auth.bootstrap import bootstrap
from app.broker import embedded
from app.jobs.states import State
from app.main import ROUTERS, create_app
from app.openapi import document
from app.settings import Settings
from tests.app.seeds import (
    seed_artifact,
    seed_dataset,
    seed_experiment,
    seed_file,
    seed_job,
    seed_key,
    seed_population,
    seed_round,
    seed_upload,
    seed_webhook,
)
from tests.service import lay_tables

load_all_checks()
NAMES = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
    "negative_data_rejection",
)
# Left out: `positive_data_acceptance`. A body that fits the schema may still name a data set that is not there, or
# choose two instructions that do not go together: 422 with the reason is right then.
checks = [CHECKS.get_one(name) for name in NAMES]
EXAMPLES = 12
# The state in which a job allows the move that the path ends with.
STATES = {"start": State.CREATED, "cancel": State.QUEUED, "pause": State.RUNNING, "resume": State.PAUSED}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    """A service of this module's own, with a broker."""
    folder = tmp_path_factory.mktemp("data")
    broker = embedded(folder)
    running = subprocess.Popen(broker.command, stdout=subprocess.DEVNULL)
    assert broker.answers(10)
    made = create_app(
        Settings(data_dir=folder, redis_url=broker.url, requests_per_second=1_000_000, max_open_jobs=1_000_000)
    )
    lay_tables(made.state.database)
    yield made
    made.state.queue.close()
    made.state.database.close()
    running.kill()
    running.wait()
    broker.clean()


@pytest.fixture(scope="module")
def secret(service: FastAPI) -> str:
    """The first admin key."""
    made = bootstrap(service.state.database, service.state.settings)
    assert made is not None
    return made


@pytest.fixture(scope="module")
def things(service: FastAPI, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], str]:
    """Makes what a path parameter names, such that the operation may succeed on it; gives its id."""
    folder = tmp_path_factory.mktemp("things")
    dataset = seed_dataset(service, folder)
    done = seed_job(service, dataset, state=State.SUCCEEDED)
    model = seed_artifact(service, folder, "default", done, "model", "model.zip")
    seed_artifact(service, folder, "default", done, "receipt", "receipt.json")

    population = seed_population(service)

    def trained() -> str:
        job = seed_job(service, dataset, state=State.SUCCEEDED)
        return seed_artifact(service, folder, "default", job, "model", "model.zip")

    def job(operation: str) -> str:
        if operation.startswith("GET"):
            return done
        return seed_job(service, dataset, state=STATES.get(operation.rpartition("/")[2], State.FAILED))

    kinds: dict[str, Callable[[str], str]] = {
        "dataset_id": lambda operation: dataset if operation.startswith("GET") else seed_dataset(service, folder),
        "job_id": job,
        "artifact_id": lambda _: model,
        "model_id": lambda operation: model if operation.startswith("GET") else trained(),
        "key_id": lambda _: seed_key(service),
        "choice": lambda _: "length_bucketing",
        "webhook_id": lambda _: seed_webhook(service, done)[0],
        "delivery_id": lambda _: seed_webhook(service, done)[1],
        "population_id": lambda _: population,
        "round_id": lambda _: seed_round(service, population),
        "client": lambda _: "client-1",
        "experiment_id": lambda _: seed_experiment(service, dataset),
        "file_id": lambda _: seed_file(service, folder),
        "upload_id": lambda _: seed_upload(service),
    }
    return lambda name, operation: kinds[name](operation)


def _fits(case: Any) -> bool:
    """Whether the path was made to fit the document."""
    path = case.meta.components.get(ParameterLocation.PATH)
    return path is None or path.mode is GenerationMode.POSITIVE


def _document() -> dict[str, Any]:
    routes = FastAPI(title="fiftytwo", version="0")
    for router in ROUTERS:
        routes.include_router(router)
    return document(routes)


# Walking each bound of a choice among all instructions takes minutes; tests/app/jobs/test_bad_jobs.py is the table.
WITHOUT_BOUNDS = {"include-name": "POST /v1/jobs", "phases": {"coverage": {"enabled": False}}}
api = schemathesis.openapi.from_dict(_document(), config=SchemathesisConfig.from_dict({"operations": [WITHOUT_BOUNDS]}))


@api.parametrize()
@how(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
def test_every_answer_is_within_the_document(
    case: Any, service: FastAPI, secret: str, things: Callable[[str, str], str]
) -> None:
    if _fits(case):
        for name in case.path_parameters:
            case.path_parameters[name] = things(name, case.operation.label)
    answer = case.call_and_validate(app=service, headers={"Authorization": f"Bearer {secret}"}, checks=checks)
    assert answer.headers["x-request-id"][0].startswith("req_")
