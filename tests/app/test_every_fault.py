"""No fault hides another, in whichever layer each lies: the fields, their relations, what they name, the headers.

Each case is one request and every fault that it is told, none more: what follows only from another fault is none.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

import pytest
from fastapi.testclient import TestClient

from app.auth.bootstrap import bootstrap
from app.jobs.requests import REQUESTS, Unserved
from app.main import create_app
from app.settings import Settings
from tests.app.seeds import Seeds, seed
from tests.service import lay_tables

SECRET = "whsec_AAAAAAAAAAAAAAAAAAAAAAAA"
TEXTS = {"task": "text_classification"}
BAD_KEY = {"Idempotency-Key": "no spaces"}
OF_THE_KEY = ("", "wrong_header")
LOCAL = "http://127.0.0.1/"
Told = list[tuple[str, str]]


@dataclass(frozen=True)
class Place:
    """A service with one of everything, and a client with an admin's key."""

    client: TestClient
    seeds: Seeds


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("service")
    settings = Settings(data_dir=folder / "data", requests_per_second=10_000, max_open_jobs=20)
    service = create_app(settings)
    lay_tables(service.state.database)
    secret = bootstrap(service.state.database, settings)
    seeds = seed(service, folder)
    with TestClient(service, headers={"Authorization": f"Bearer {secret}"}) as client:
        yield Place(client, seeds)


def filled(value: Any, seeds: Seeds) -> Any:
    """The value with `<dataset>` and its like replaced by the id of what there is."""
    if isinstance(value, dict):
        return {name: filled(one, seeds) for name, one in value.items()}
    if isinstance(value, list):
        return [filled(one, seeds) for one in value]
    known = isinstance(value, str) and value.startswith("<")
    return getattr(seeds, value.strip("<>"))[0] if known else value


def told(place: Place, path: str, body: Any, status: int = 422, **options: Any) -> Told:
    """Pointer and code of each fault, sorted; each has words and a next step, and all of them stand in the detail."""
    parts = [filled(part, place.seeds) for part in path.split("/")]
    sent = {"json": filled(body, place.seeds)} if body is not None else {}
    answer = place.client.request(options.pop("method", "POST"), "/".join(parts), **sent, **options)
    assert answer.status_code == status, answer.text
    faults = answer.json()["errors"]
    assert all(fault["detail"] and fault["remedy"] for fault in faults), faults
    assert not any("mend the value" in fault["remedy"] for fault in faults), faults
    assert all(fault["detail"] in answer.json()["detail"] for fault in faults)
    return sorted((fault["pointer"], fault["code"]) for fault in faults)


JOBS: list[tuple[dict[str, Any], Told]] = [
    (
        {"dataset": "<dataset>", "instructions": [1, "lenght_bucketing", 1]},
        [("/instructions/1", "unknown_instruction"), ("/instructions/2", "repeated_instruction")],
    ),
    (
        # Whose parameters are wrong is chosen all the same; which of its facts hold is not known.
        {"dataset": "<dataset>", "instructions": [{"name": "structured_pruning", "ratio": 7}, 45, 28]},
        [
            ("/instructions/0/ratio", "less_than_equal"),
            ("/instructions/1", "repeated_instruction"),
            ("/instructions/2", "missing_need"),
        ],
    ),
    # What is needed may be what cannot be read.
    (
        {"dataset": "<dataset>", "instructions": [{"name": "quantization_aware_training", "bits": 7}, 51]},
        [("/instructions/0/bits", "unknown_field")],
    ),
    ({"dataset": "<dataset>", "instructions": ["x", 51]}, [("/instructions/0", "unknown_instruction")]),
    (
        {"dataset": "<dataset>", "instructions": ["dp_sdg"], "limits": {"max_epsilon": 3}},
        [("/instructions/0", "unknown_instruction")],
    ),
    (
        {"dataset": "<dataset>", "instructions": ["low_rank_adaption"], "export": {"format": "peft"}},
        [("/instructions/0", "unknown_instruction")],
    ),
    (
        {"dataset": "<dataset>", "limits": {"confidence": 0.9, "min_metric": 3}},
        [("/limits/min_metric", "less_than_equal")],
    ),
    (
        {"dataset": "<dataset>", "instructions": [37, 15]},
        [("/instructions/0", "excluded")] * 3 + [("/instructions/1", "excluded")],
    ),
    (
        {
            "dataset": "<dataset>",
            "instructions": [{"name": "sequence_packing", "length": 64}],
            "training": {"epochs": 0, "max_length": 128},
        },
        [("/instructions/0", "wrong_task"), ("/training", "decided_twice"), ("/training/epochs", "greater_than_equal")],
    ),
    (
        {"dataset": "<dataset>", "webhook": {"url": LOCAL, "secret": "bad"}},
        [("/webhook/secret", "webhook_secret"), ("/webhook/url", "webhook_address")],
    ),
    (
        {"dataset": "ds_no", "webhook": {"url": LOCAL, "secret": SECRET}, "name": "\u202e"},
        [("/dataset", "unknown_dataset"), ("/name", "hidden_character"), ("/webhook/url", "webhook_address")],
    ),
    (
        # Which base, metric or parameters are right follows from the task; a data set that is not there does not.
        {"task": "x", "dataset": "ds_no", "instructions": [11, 3, 11], "metric": "recall_at_1", "colour": 1},
        [
            ("/colour", "unknown_field"),
            ("/dataset", "unknown_dataset"),
            ("/instructions/0", "excluded"),
            ("/instructions/2", "excluded"),
            ("/instructions/2", "repeated_instruction"),
            ("/task", "literal_error"),
        ],
    ),
    (
        {"kind": "evalute", "model": "job_no", "dataset": "ds_no", "limits": {"max_epsilon": 1}},
        [
            ("/dataset", "unknown_dataset"),
            ("/kind", "literal_error"),
            ("/limits/max_epsilon", "not_applicable"),
            ("/model", "unknown_model"),
        ],
    ),
    # The fields of a kind that nobody knows cannot be judged, but for those that all kinds have.
    ({"kind": "zzz", "inputs": 1, "name": " "}, [("/kind", "literal_error"), ("/name", "blank")]),
    ({"kind": 1, "metadata": []}, [("/kind", "literal_error"), ("/metadata", "dict_type")]),
    ({"kind": "aggregate", "round": "rnd_no"}, [("/kind", "kind_not_available")]),
    (
        {"kind": "compress", "model": "job_no", "dataset": "ds_no", "instructions": [1, 47, 47]},
        [
            ("/dataset", "unknown_dataset"),
            ("/instructions/0", "wrong_kind"),
            ("/instructions/2", "repeated_instruction"),
            ("/model", "unknown_model"),
        ],
    ),
    (
        {"kind": "compress", "model": "folder", "instructions": [47], "export": {"number": "x"}},
        [
            ("/dataset", "needs_rows"),
            ("/export/number", "literal_error"),
            ("/instructions/0", "needs_rows"),
            ("/model", "unknown_model"),
        ],
    ),
    (
        {"kind": "detect", "model": "job_no", "inputs": {"dataset": "ds_no"}, "calibration": "<dataset>", "task": "x"},
        [
            ("/inputs/dataset", "unknown_dataset"),
            ("/model", "unknown_model"),
            ("/target_fpr", "too_few_rows"),
            ("/task", "literal_error"),
        ],
    ),
]


@pytest.mark.parametrize(("body", "faults"), JOBS)
def test_a_job_is_told_all_of_its_faults(place: Place, body: dict[str, Any], faults: Told) -> None:
    wanted = body if "kind" in body else TEXTS | body
    assert told(place, "/v1/jobs", wanted) == sorted(faults)
    assert told(place, "/v1/jobs", wanted, headers=BAD_KEY) == sorted([*faults, OF_THE_KEY])


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/jobs?dry_run=true"])
def test_a_key_that_is_none_refuses_what_is_sound_otherwise(place: Place, path: str) -> None:
    sound = TEXTS | {"dataset": "<dataset>"}
    assert told(place, path, sound, headers=BAD_KEY) == [OF_THE_KEY]


@pytest.mark.parametrize(("query", "code"), [("dry_rum=true", "unknown_parameter"), ("dry_run=maybe", "bool_parsing")])
def test_a_fault_of_the_address_hides_none_of_the_fields(place: Place, query: str, code: str) -> None:
    found = told(place, f"/v1/jobs?{query}", TEXTS | {"dataset": "<dataset>", "colour": 1}, headers=BAD_KEY)
    assert set(found) >= {("", code), ("/colour", "unknown_field")}


def test_the_kinds_that_are_named_are_those_that_are_served() -> None:
    assert get_args(Unserved.model_fields["kind"].annotation) == tuple(REQUESTS)


OTHERS: list[tuple[str, Any, Told]] = [
    (
        "/v1/webhooks",
        {"url": LOCAL, "events": ["x"], "secret": "a"},
        [("/events/0", "literal_error"), ("/secret", "unknown_field"), ("/url", "webhook_address")],
    ),
    ("/v1/webhooks", {"url": LOCAL}, [("/url", "webhook_address")]),
    ("/v1/keys", {"name": "\u202e", "role": "x"}, [("/name", "hidden_character"), ("/role", "literal_error")]),
    (
        "/v1/fine_tuning/jobs",
        {
            "model": "smollm2-135m",
            "training_file": "<dataset>",
            "hyperparameters": {"n_epochs": 5000, "learning_rate_multiplier": 1e9},
        },
        [
            ("/hyperparameters/learning_rate_multiplier", "less_than_equal"),
            ("/hyperparameters/n_epochs", "less_than_equal"),
            ("/training_file", "wrong_task"),
        ],
    ),
    (
        "/v1/fine_tuning/jobs",
        {
            "model": "gpt-4",
            "training_file": "file_no",
            "suffix": "\u202e",
            "hyperparameters": {"n_epochs": 3, "batch_size": 0},
            "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}},
            "training": {"epochs": 5, "max_length": 0},
            "instructions": ["x", 1, 1],
            "name": "x",
        },
        [
            ("/hyperparameters/batch_size", "wrong_number"),
            ("/hyperparameters/n_epochs", "decided_twice"),
            ("/instructions/0", "unknown_instruction"),
            ("/instructions/2", "repeated_instruction"),
            ("/model", "unknown_model"),
            ("/name", "unknown_field"),
            ("/suffix", "hidden_character"),
            ("/training/epochs", "decided_twice"),
            ("/training/max_length", "greater_than_equal"),
            ("/training_file", "unknown_file"),
        ],
    ),
    (
        # Without a base nobody knows the task, so nothing is told that follows from it.
        "/v1/fine_tuning/jobs",
        {"training_file": "file_no", "instructions": [1, 1, 28], "method": {"type": "dpo"}},
        [
            ("/instructions/1", "repeated_instruction"),
            ("/instructions/2", "missing_need"),
            ("/method/type", "method_not_available"),
            ("/model", "missing"),
            ("/training_file", "unknown_file"),
        ],
    ),
]


@pytest.mark.parametrize(("path", "body", "faults"), OTHERS)
def test_what_is_made_is_told_all_of_its_faults(place: Place, path: str, body: Any, faults: Told) -> None:
    assert told(place, path, body) == sorted(faults)
    assert told(place, path, body, headers=BAD_KEY) == sorted([*faults, OF_THE_KEY])
