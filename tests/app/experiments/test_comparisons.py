"""What an experiment comes to once its jobs have ended, from the files that they left, over HTTP."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.experiments import settling
from app.experiments.comparing import figures_of
from app.experiments.presenting import front
from app.experiments.reading import Left, left_by, paired, training_seconds
from app.experiments.wording import summary
from app.storage import StoreDown
from tests.app.experiments.asked import experiment
from tests.app.experiments.conftest import ROWS
from tests.service import statements


def lines(hits: list[int], ids: list[int] | None = None) -> list[dict[str, Any]]:
    """Answers of a classifier with two classes."""
    return [
        {"id": f"row-{i}", "figures": [hit, i % 2, (i + 1 - hit) % 2], "label": "a", "predicted": "ab"[hit]}
        for i, hit in zip(ids or range(len(hits)), hits, strict=True)
    ]


def left(hits: list[int], ids: list[int] | None = None, **receipt: Any) -> Left:
    given = {"size": {"exported_bytes": 100}, "latency": {"ratio": 0.5}, "privacy": None} | receipt
    return of_lines(lines(hits, ids), given, 2.0)


def of_lines(told: list[dict[str, Any]], receipt: dict[str, Any], seconds: float | None) -> Left:
    figures = np.array([line["figures"] for line in told], dtype=np.float64)
    return Left([line["id"] for line in told], figures, lambda: told, receipt, seconds)


def test_an_experiment_ends_with_a_verdict_on_each_treatment(admin: TestClient, finished: dict[str, Any]) -> None:
    told = admin.get(f"/v1/experiments/{finished['id']}").json()
    assert told["state"] == "succeeded"
    baseline, edge, slow = told["arms"]
    assert baseline["score"]["n"] == ROWS
    assert baseline["score"]["ci95"][0] < baseline["score"]["mean"] < baseline["score"]["ci95"][1]
    assert (baseline["size_bytes"], edge["size_bytes"], baseline["latency_ratio"]) == (1000, 500, 0.5)
    assert baseline["training_seconds"] >= 0
    assert edge["score"]["mean"] - baseline["score"]["mean"] > 0.3
    better, same = told["comparisons"]
    assert (better["treatment"], better["verdict"], better["seeds_needed"]) == ("edge", "better", 0)
    assert better["difference"] == pytest.approx(edge["score"]["mean"] - baseline["score"]["mean"], abs=2e-6)
    assert better["p_adjusted"] == pytest.approx(2 * better["p_value"])
    assert 0 < better["p_adjusted"] <= 0.05
    assert better["ci95"][0] > 0
    assert [one["seed"] for one in better["by_seed"]] == [1, 2, 3]
    assert "better than the baseline" in better["summary"]
    # Equal on every row, and yet forty rows cannot rule out a difference of a point.
    assert (same["difference"], same["p_value"], same["verdict"]) == (0.0, 1.0, "undecided")
    assert same["seeds_needed"] is None
    assert "40 test rows" in same["summary"]
    assert slow["size_bytes"] == 500
    assert told["front"] == ["edge"]  # no smaller than the other treatment, and better than both


def test_figures_are_worked_out_once(
    admin: TestClient, finished: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = admin.get(f"/v1/experiments/{finished['id']}")
    monkeypatch.setattr(settling, "left_by", lambda *_: pytest.fail("the files were read again"))
    again = admin.get(f"/v1/experiments/{finished['id']}")
    assert again.json() == first.json()
    assert again.headers["etag"] == first.headers["etag"]
    assert first.json() in admin.get("/v1/experiments").json()["data"]
    assert admin.post(f"/v1/experiments/{finished['id']}/cancel").status_code == 409


def test_an_arm_whose_jobs_all_fail_fails_the_experiment_and_hides_no_other(
    admin: TestClient, run: Callable[..., dict[str, Any]], dataset: str
) -> None:
    body = experiment(dataset)
    body["treatments"].append({"name": "slow", "changes": {"instructions": ["warmup_schedule"]}})
    made = run(body, {"": 0.3, "post_training_quantization": None, "warmup_schedule": 0.9})
    told = admin.get(f"/v1/experiments/{made['id']}").json()
    states = [{one["state"] for one in arm["runs"]} for arm in told["arms"]]
    assert states == [{"succeeded"}, {"failed"}, {"succeeded"}]
    assert told["state"] == "failed"
    assert [arm["score"] is None for arm in told["arms"]] == [False, True, False]
    edge, slow = told["comparisons"]
    assert (edge["verdict"], edge["difference"], edge["seeds_needed"], edge["n"]) == ("undecided", None, None, 0)
    assert "no seed has succeeded" in edge["summary"]
    # What cannot be compared is no comparison to correct for.
    assert slow["p_adjusted"] == slow["p_value"] < 0.05
    assert told["front"] == ["slow"]


def test_whoever_looks_while_figures_are_worked_out_is_not_held_up(
    admin: TestClient, run: Callable[..., dict[str, Any]], dataset: str
) -> None:
    own = f"/v1/experiments/{run(experiment(dataset), {'': 0.3, 'post_training_quantization': 0.9})['id']}"
    busy = settling._one_at_a_time
    assert busy.acquire(timeout=1)
    patience = threading.Timer(10, busy.release)
    patience.start()
    told = admin.get(own).json()
    assert (told["state"], told["comparisons"], list(told["links"])) == ("running", [], ["self"])
    patience.cancel()
    busy.release()
    done = admin.get(own).json()
    assert (done["state"], len(done["comparisons"])) == ("succeeded", 1)


def test_nobody_waits_long_for_figures_and_they_are_worked_out_once(
    admin: TestClient, run: Callable[..., dict[str, Any]], dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = f"/v1/experiments/{run(experiment(dataset), {'': 0.3, 'post_training_quantization': 0.9})['id']}"
    go_on, read = threading.Event(), list[bool]()

    def slow(*arguments: Any) -> Any:
        read.append(go_on.wait(20))
        return left_by(*arguments)

    monkeypatch.setattr(settling, "left_by", slow)
    monkeypatch.setattr(settling, "PATIENCE_SECONDS", 0.05)
    assert [admin.get(own).json()["state"] for _ in range(2)] == ["running", "running"]
    go_on.set()
    assert settling._one_at_a_time.acquire(timeout=20)
    settling._one_at_a_time.release()
    done = admin.get(own).json()
    assert (done["state"], len(done["comparisons"]), read) == ("succeeded", 1, [True])


def test_what_stands_in_the_way_of_figures_is_told(
    admin: TestClient, run: Callable[..., dict[str, Any]], dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = f"/v1/experiments/{run(experiment(dataset), {'': 0.3, 'post_training_quantization': 0.9})['id']}"

    def down(*_: Any) -> Any:
        raise StoreDown("files")

    with monkeypatch.context() as patched:
        patched.setattr(settling, "left_by", down)
        assert admin.get(own).status_code == 503
    assert admin.get(own).json()["state"] == "succeeded"


def test_a_look_reads_no_request_of_a_job(admin: TestClient, service: FastAPI, finished: dict[str, Any]) -> None:
    with statements(service.state.database.readers) as asked:
        assert finished["id"] in {one["id"] for one in admin.get("/v1/experiments").json()["data"]}
    assert any("jobs.state" in statement for statement in asked)
    assert not any("jobs.spec" in statement or "jobs.plan" in statement for statement in asked)


def test_what_was_erased_is_gone_and_what_was_worked_out_stays(
    admin: TestClient, run: Callable[..., dict[str, Any]], dataset: str
) -> None:
    made = run(experiment(dataset), {"": 0.3, "post_training_quantization": 0.9})
    early, late = made["arms"][0]["jobs"][0], made["arms"][0]["jobs"][1]
    assert admin.delete(f"/v1/jobs/{early}").status_code == 202
    told = admin.get(f"/v1/experiments/{made['id']}").json()
    assert [one["state"] for one in told["arms"][0]["runs"]] == [None, "succeeded"]
    (one,) = told["comparisons"]
    assert (one["verdict"], one["ci95"], len(one["by_seed"])) == ("undecided", None, 1)
    assert "a single seed" in one["summary"]
    assert admin.delete(f"/v1/jobs/{late}").status_code == 202
    assert admin.get(f"/v1/experiments/{made['id']}").json()["comparisons"] == [one]


def test_arms_are_compared_on_the_rows_that_all_of_them_answered() -> None:
    rows = paired([{1: left([1, 1, 0, 0]), 2: left([1, 1, 0, 0])}, {1: left([1, 0], [3, 0]), 2: left([1, 0], [3, 0])}])
    assert rows.ids == ["row-0", "row-3"]
    found = figures_of(["baseline", "edge"], "accuracy", 0.01, rows)
    assert [arm["score"]["mean"] for arm in found["arms"]] == [0.5, 0.5]
    assert found["comparisons"][0]["n"] == 2
    assert found["comparisons"][0]["p_value"] == 1.0


def test_macro_f1_takes_its_classes_from_what_was_said() -> None:
    both = [{1: left([1, 0, 1, 1]), 2: left([1, 1, 1, 1])}, {1: left([1, 0, 1, 1]), 2: left([1, 1, 1, 1])}]
    found = figures_of(["baseline", "same"], "macro_f1", 0.01, paired(both))
    expected = (1 + (2 / 3 + 4 / 5) / 2) / 2
    assert found["arms"][0]["score"]["mean"] == pytest.approx(expected, abs=1e-6)


def test_of_bits_less_is_better() -> None:
    def bits(nats: float) -> Left:
        told = [{"id": str(i), "figures": [nats + i % 3, 8.0]} for i in range(60)]
        return of_lines(told, {"size": {"exported_bytes": 1}, "latency": {"ratio": 1.0}}, None)

    arms = [{seed: bits(10 + seed / 100) for seed in (1, 2, 3)}, {seed: bits(9 + seed / 100) for seed in (1, 2, 3)}]
    found = figures_of(["baseline", "edge"], "bits_per_byte", 0.01, paired(arms))
    (one,) = found["comparisons"]
    assert (one["verdict"], one["difference"] < 0) == ("better", True)
    assert "less is better" in one["summary"]


def test_epsilon_is_that_of_one_model_and_the_front_counts_none_as_without_end() -> None:
    private = {seed: left([1, 0], privacy={"epsilon": seed / 1.0}) for seed in (1, 2)}
    found = figures_of(["baseline", "private"], "accuracy", 0.01, paired([{1: left([1, 1]), 2: left([1, 1])}, private]))
    assert [arm["epsilon"] for arm in found["arms"]] == [None, 2.0]
    audited = {1: left([1, 1], privacy={"epsilon": None, "audited_lower_bound": 0.5})}  # 41 alone claims nothing
    told = figures_of(["baseline", "audited"], "accuracy", 0.01, paired([{1: left([1, 1])}, audited]))
    assert [arm["epsilon"] for arm in told["arms"]] == [None, None]
    names = ["baseline", "private"]
    assert front(names, found["arms"], None, more_is_better=True) == names
    found["arms"][1]["epsilon"] = None
    assert front(names, found["arms"], None, more_is_better=True) == ["baseline"]
    people = {"strengths": {"baseline": {"value": 0.2}, "private": {"value": 0.8}}}
    assert front(names, found["arms"], people, more_is_better=True) == names
    del people["strengths"]["baseline"]  # nobody has judged it yet
    assert front(names, found["arms"], people, more_is_better=True) == ["baseline"]


def test_training_is_counted_over_all_attempts() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    told = ["running", "data", "train", "paused", "queued", "running", "train", "compress", "export", "succeeded"]
    moments = [(name, start + timedelta(seconds=10 * number)) for number, name in enumerate(told)]
    assert training_seconds(moments) == 20.0
    assert training_seconds(moments[:2]) is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"verdict": "worse"}, "worse than the baseline"),
        ({"verdict": "no_difference", "ci95": [-0.004, 0.006]}, "within 0.01."),
        ({"verdict": "no_difference", "ci95": [0.001, 0.006]}, "though it is not zero"),
        ({"verdict": "undecided", "seeds_needed": 4}, "About 4 further seeds would"),
        ({"verdict": "undecided", "seeds_needed": None}, "the 70 test rows are what limits it"),
    ],
)
def test_a_verdict_in_words(changes: dict[str, Any], words: str) -> None:
    told = {"treatment": "edge", "metric": "accuracy", "difference": 0.02, "ci95": [0.01, 0.03], "p_adjusted": 0.02}
    assert words in summary({**told, "margin": 0.01, "n": 70, "seeds_needed": 0, **changes}, more_is_better=True)
