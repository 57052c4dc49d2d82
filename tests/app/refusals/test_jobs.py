"""No fault of a job hides another, in whichever layer each lies: fields, relations, what they name, headers.

Each case is one request and every fault that it is told, none more: what follows only from another fault is none.
"""

from typing import Any, get_args

import pytest

from app.jobs.requests import REQUESTS, Unserved
from tests.app.refusals.asking import BAD_KEY, LOCAL, OF_THE_KEY, TEXTS, Place, Told, told

SECRET = "whsec_AAAAAAAAAAAAAAAAAAAAAAAA"
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
    ({"instructions": [28]}, [("/dataset", "missing"), ("/instructions/0", "missing_need")]),
    # What is needed may be what cannot be read.
    (
        {"dataset": "<dataset>", "instructions": [{"name": "quantization_aware_training", "bits": 7}, 51]},
        [("/instructions/0/bits", "unknown_field")],
    ),
    (
        {"dataset": "<dataset>", "instructions": [{"name": "autocast", "dtype": "float17"}, 28]},
        [("/instructions/0/dtype", "literal_error")],
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
        [
            ("/instructions/0", "wrong_task"),
            ("/training/max_length", "decided_twice"),
            ("/training/epochs", "greater_than_equal"),
        ],
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
        {"kind": "detect", "model": "job_no", "inputs": {"texts": ["", "a"], "dataset": "ds_no", "rows": 1}},
        [
            ("/inputs", "one_of_two"),
            ("/inputs/rows", "unknown_field"),
            ("/inputs/texts/0", "empty_text"),
            ("/model", "unknown_model"),
        ],
    ),
    (
        {
            "kind": "evaluate",
            "model": "<artifact>",
            "dataset": "ds_no",
            "task": "causal_lm",
            "instructions": [36, 36, 1],
            "metric": "bits_per_byte",
            "limits": {"max_epsilon": 1},
        },
        [
            ("/dataset", "unknown_dataset"),
            ("/instructions/1", "repeated_instruction"),
            ("/instructions/2", "wrong_kind"),
            ("/limits/max_epsilon", "not_applicable"),
            ("/metric", "wrong_metric"),
            ("/task", "wrong_task"),
        ],
    ),
    (
        {"dataset": "<dataset>", "model": "minilm-l7", "instructions": [{"name": "low_rank_adaptation", "rank": 0}]},
        [("/instructions/0/rank", "greater_than_equal"), ("/model", "unknown_model")],
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


def test_a_query_is_told_all_of_its_faults(place: Place) -> None:
    found = told(place, "/v1/jobs?limit=0&ordre=up&state=x&kind=a&kind=b", None, method="GET")
    codes = ["enum", "greater_than_equal", "repeated_parameter", "unknown_parameter"]
    assert [code for _, code in found] == codes


def test_the_kinds_that_are_named_are_those_that_are_served() -> None:
    assert get_args(Unserved.model_fields["kind"].annotation) == tuple(REQUESTS)
