"""No fault of what is made by JSON hides another: each case is one request and every fault that it is told."""

from typing import Any

import pytest

from tests.app.refusals.asking import BAD_KEY, LOCAL, OF_THE_KEY, TEXTS, Place, Told, told

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
    (
        "/v1/fine_tuning/jobs",
        {"model": "smollm2-135m", "training_file": "<file>", "validation_file": "ds_no", "integrations": [1]},
        [
            ("/integrations", "too_long"),
            ("/training_file", "wrong_purpose"),
            ("/validation_file", "unknown_dataset"),
        ],
    ),
    (
        "/v1/uploads",
        {"bytes": 2**52, "filename": "\u202e", "mime_type": "text/plain", "purpose": "x"},
        [("/bytes", "too_large"), ("/filename", "hidden_character"), ("/purpose", "literal_error")],
    ),
    (
        "/v1/uploads/<upload>/complete",
        {"part_ids": ["a", "a"], "md5": "zz"},
        [
            ("/md5", "string_pattern_mismatch"),
            ("/part_ids", "part_twice"),
            ("/part_ids/0", "unknown_part"),
            ("/part_ids/1", "unknown_part"),
        ],
    ),
    (
        "/v1/populations",
        {"name": " ", "clients": 5, "budget": {"epsilon": 8.0, "delta": 0.5}, "min_clients": 20},
        [("/budget/delta", "delta_too_large"), ("/min_clients", "too_many"), ("/name", "blank")],
    ),
    # Whether a delta or a number of clients is too large follows from the number of all clients.
    (
        "/v1/populations",
        {"clients": "5", "budget": {"epsilon": 0.0, "delta": 0.5}},
        [("/budget/epsilon", "greater_than_equal"), ("/clients", "int_type")],
    ),
    (
        "/v1/rounds",
        {
            "population": "pop_no",
            "base": "art_no",
            "clip_norm": 0,
            "epsilon": 1.0,
            "noise_multiplier": 1.0,
            "expected_clients": 20,
            "tensors": {"a": {"shape": [1], "dtipe": "F32"}},
        },
        [
            ("/base", "unknown_artifact"),
            ("/clip_norm", "greater_than"),
            ("/epsilon", "one_of_two"),
            ("/population", "not_found"),
            ("/tensors", "one_of_two"),
            ("/tensors/a/dtipe", "unknown_field"),
            ("/tensors/a/dtype", "missing"),
        ],
    ),
    (
        "/v1/rounds",
        {
            "population": "<population>",
            "format": "weights",
            "clip_norm": 1.0,
            "delta": 0.9,
            "expected_clients": 20,
            "sampling": {"poisson": 3.0, "often": 1},
        },
        [
            ("/base", "missing_base"),
            ("/delta", "delta_too_large"),
            ("/noise_multiplier", "one_of_two"),
            ("/sampling/often", "unknown_field"),
            ("/sampling/poisson", "less_than_equal"),
        ],
    ),
    (
        "/v1/experiments/<experiment>/raters",
        {"name": "Ann\u202e", "key": 1},
        [("/key", "unknown_field"), ("/name", "hidden_character")],
    ),
    (
        "/v1/experiments/<experiment>/ballots",
        {"ballot": "", "choice": "x"},
        [("/ballot", "string_too_short"), ("/choice", "literal_error")],
    ),
    (
        "/v1/experiments",
        {
            "baseline": TEXTS | {"dataset": "ds_no", "instructions": ["x", 1, 1], "kind": "evaluate"},
            "treatments": [
                {"name": "a", "changes": {"metric": "macro_f1", "instructions": [28]}},
                {"name": "a", "chnges": {}},
                {"name": "a", "changes": {"instructions": [3, 11]}},
            ],
            "seeds": [1, 1, -1, *range(2, 6)],
            "human": {"itms": 1},
        },
        [
            ("/baseline/dataset", "unknown_dataset"),
            ("/baseline/instructions/0", "unknown_instruction"),
            ("/baseline/instructions/2", "repeated_instruction"),
            ("/baseline/kind", "decided_by_experiment"),
            ("/human/itms", "unknown_field"),
            ("/seeds", "second_seed"),
            ("/seeds", "too_many_jobs"),
            ("/seeds/2", "greater_than_equal"),
            ("/treatments/0/changes/instructions/0", "missing_need"),
            ("/treatments/0/changes/metric", "not_a_treatment"),
            ("/treatments/1/changes", "missing"),
            ("/treatments/1/chnges", "unknown_field"),
            ("/treatments/2/changes/instructions/1", "excluded"),
            ("/treatments/2/name", "second_arm"),
        ],
    ),
    (
        "/v1/experiments",
        {"treatments": [{"name": "a", "changes": {"task": "x"}}, {"name": "a", "changes": {}}], "seeds": [1]},
        [
            ("/baseline", "missing"),
            ("/seeds", "too_short"),
            ("/treatments/0/changes/task", "not_a_treatment"),
            ("/treatments/1/name", "second_arm"),
        ],
    ),
]


@pytest.mark.parametrize(("path", "body", "faults"), OTHERS)
def test_what_is_made_is_told_all_of_its_faults(place: Place, path: str, body: Any, faults: Told) -> None:
    assert told(place, path, body) == sorted(faults)
    assert told(place, path, body, headers=BAD_KEY) == sorted([*faults, OF_THE_KEY])


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/webhooks", "/v1/keys", "/v1/experiments", "/v1/fine_tuning/jobs"])
@pytest.mark.parametrize("body", [[1], 7, "x"])
def test_what_is_no_object_is_one_fault(place: Place, path: str, body: Any) -> None:
    assert told(place, path, body) == [("", "model_type")]


def test_a_budget_is_told_all_of_its_faults(place: Place) -> None:
    body = {"epsilon": 0.0, "delta": 0.9}
    found = told(place, "/v1/privacy/budgets/<dataset>", body, method="PUT")
    assert found == [("/delta", "delta_too_large"), ("/epsilon", "greater_than_equal")]


def test_an_experiment_that_can_never_start_is_not_told_to_wait(place: Place) -> None:
    body = {
        "baseline": TEXTS | {"dataset": place.seeds.dataset[0]},
        "treatments": [{"name": "a", "changes": {"training": {"epochs": 1}}}],
        "seeds": list(range(14)),
    }
    (fault,) = place.client.post("/v1/experiments", json=body).json()["errors"]
    assert (fault["pointer"], fault["code"]) == ("/seeds", "too_many_jobs")
    assert "are 28 jobs, 8 more than the 20" in fault["detail"]
    assert "at most 10 seeds" in fault["remedy"]
    assert "wait" not in fault["remedy"]
    body["seeds"] = list(range(10))  # as many as may be open, but for those that are
    assert told(place, "/v1/experiments", body, status=429) == [("", "too_many_open_jobs")]
