"""Blind ballots over HTTP: who may ask and cast, what is shown and what is not, and that nothing is cast twice."""

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from app.experiments.ballots import Ballot
from app.experiments.items import items_of
from app.experiments.models import ExperimentBallot
from app.experiments.reading import Left, paired
from app.main import create_app
from tests.app.experiments.asked import experiment
from tests.app.experiments.conftest import ROWS

Made = dict[str, Any]


@pytest.fixture(scope="module")
def own(admin: TestClient, finished: Made) -> str:
    """The address of an experiment that people judge; somebody has looked at it."""
    assert admin.get(f"/v1/experiments/{finished['id']}").json()["human"]["items"] == 10
    return f"/v1/experiments/{finished['id']}"


@pytest.fixture(scope="module")
def rater_of(service: FastAPI, admin: TestClient, own: str) -> Callable[[str], TestClient]:
    """Makes a client with a rater's own key."""

    def make(name: str) -> TestClient:
        answer = admin.post(f"{own}/raters", json={"name": name})
        assert answer.status_code == 201, answer.text
        return TestClient(service, headers={"Authorization": f"Bearer {answer.json()['secret']}"})

    return make


def vote_all(rater: TestClient, own: str, choose: Callable[[Made], str]) -> list[Made]:
    """Cast every ballot; gives them in their order."""
    seen: list[Made] = []
    while (answer := rater.get(f"{own}/ballots/next")).status_code == 200:
        ballot = answer.json()
        seen.append(ballot)
        cast = rater.post(f"{own}/ballots", json={"ballot": ballot["ballot"], "choice": choose(ballot)})
        assert cast.status_code == 201, cast.text
        assert cast.json()["remaining"] == ballot["remaining"] - 1
    assert answer.status_code == 204
    return seen


def test_a_rater_judges_blindly_and_the_figures_follow(
    admin: TestClient, own: str, rater_of: Callable[[str], TestClient]
) -> None:
    before = admin.get(own).json()
    assert before["human"] == {"items": 10, "ballots": 0, "raters": 0, "strengths": {}, "alpha": None}
    right = {f"the text of row {i}": ("ham", "spam")[i % 2] for i in range(ROWS)}

    def better(ballot: Made) -> str:
        return "left" if ballot["left"]["label"] == right[ballot["item"]["text"]] else "right"

    seen = vote_all(rater_of("Ann"), own, better)
    # Two of the three arms say the same on every row, so each item is judged in two pairs.
    assert len(seen) == 20
    assert len({one["ballot"] for one in seen}) == 20
    assert {key for one in seen for key in one} == {"object", "ballot", "item", "left", "right", "remaining"}
    told = json.dumps([{**one, "ballot": ""} for one in seen])
    assert not any(word in told for word in ("edge", "slow", "baseline", "arm"))
    assert all(one["left"] != one["right"] for one in seen)
    sides = [better(one) for one in seen]
    assert {"left", "right"} == set(sides)
    human = admin.get(own).json()["human"]
    assert (human["ballots"], human["raters"], human["alpha"]) == (20, 1, None)
    assert human["strengths"]["edge"]["value"] > 0.5 > human["strengths"]["slow"]["value"]
    assert sum(one["value"] for one in human["strengths"].values()) == pytest.approx(1, abs=1e-5)
    assert human["strengths"]["edge"]["ci95"][0] > human["strengths"]["slow"]["ci95"][1]

    again = vote_all(rater_of("Bob"), own, better)
    assert [one["item"] for one in again] != [one["item"] for one in seen]
    assert {one["ballot"] for one in again}.isdisjoint({one["ballot"] for one in seen})
    after = admin.get(own).json()
    assert (after["human"]["ballots"], after["human"]["raters"], after["human"]["alpha"]) == (40, 2, 1.0)
    assert after in admin.get("/v1/experiments").json()["data"]
    assert [(one["name"], one["ballots"]) for one in admin.get(f"{own}/raters?order=asc").json()["data"]] == [
        ("Ann", 20),
        ("Bob", 20),
    ]


def test_sides_are_drawn_anew_for_each_rater_and_item() -> None:
    def drawn(rater: str, secret: str = "00" * 32) -> list[tuple[int, int]]:
        return [Ballot(rater, item, 0, 1).sides(secret) for item in range(64)]

    ann, bob, elsewhere = drawn("Ann"), drawn("Bob"), drawn("Ann", "01" * 32)
    assert {frozenset(one) for one in ann} == {frozenset({0, 1})}
    assert 16 < ann.count((0, 1)) < 48
    assert ann == drawn("Ann")
    assert ann not in (bob, elsewhere)


def test_a_second_cast_is_refused_and_changes_nothing(
    service: FastAPI, admin: TestClient, own: str, rater_of: Callable[[str], TestClient]
) -> None:
    rater = rater_of("Cleo")
    ballot = rater.get(f"{own}/ballots/next").json()
    assert rater.get(f"{own}/ballots/next").json() == ballot
    body = {"ballot": ballot["ballot"], "choice": "both"}
    assert rater.post(f"{own}/ballots", json=body).status_code == 201
    before = admin.get(own).json()["human"]
    # Another process, or this one after a restart, knows it as well.
    another = create_app(service.state.settings)
    with TestClient(another, headers=dict(rater.headers)) as other:
        for client in (rater, other, admin):
            again = client.post(f"{own}/ballots", json={**body, "choice": "left"})
            assert (again.status_code, again.json()["code"]) == (409, "cast_before")
    assert admin.get(own).json()["human"] == before
    with service.state.database.reading() as session:
        rows = session.query(ExperimentBallot).filter_by(rater="Cleo").all()
    assert [one.preferred for one in rows] == ["both"]


def test_a_raters_key_does_nothing_else(
    admin: TestClient, own: str, rater_of: Callable[[str], TestClient], run: Callable[..., Made], dataset: str
) -> None:
    rater, other = rater_of("Dora"), rater_of("Emil")
    for path in ("/v1/jobs", "/v1/models", "/v1/datasets", own, "/v1/experiments", f"{own}/raters", "/v1/instructions"):
        assert rater.get(path).status_code == 403, path
    assert rater.post("/v1/experiments", json=experiment(dataset)).status_code == 403
    assert rater.post(f"{own}/raters", json={"name": "Fred"}).status_code == 403
    assert rater.get(f"{own}/ballots/next?rater=Dora").status_code == 200
    assert rater.get(f"{own}/ballots/next?rater=Emil").status_code == 403
    ballot = rater.get(f"{own}/ballots/next").json()
    stolen = other.post(f"{own}/ballots", json={"ballot": ballot["ballot"], "choice": "left"})
    assert (stolen.status_code, stolen.json()["code"]) == (404, "not_found")
    elsewhere = admin.post("/v1/experiments", json=experiment(dataset, human={"items": 1})).json()["id"]
    assert rater.get(f"/v1/experiments/{elsewhere}/ballots/next").status_code == 404
    body = {"ballot": ballot["ballot"], "choice": "left"}
    assert rater.post(f"/v1/experiments/{elsewhere}/ballots", json=body).status_code == 404


def test_a_member_asks_and_casts_by_any_name_and_a_viewer_casts_nothing(
    own: str, client_for: Callable[..., TestClient]
) -> None:
    member, viewer = client_for(role="member"), client_for(role="viewer")
    ballot = member.get(f"{own}/ballots/next?rater=Gil").json()["ballot"]
    assert viewer.post(f"{own}/ballots", json={"ballot": ballot, "choice": "left"}).status_code == 403
    assert member.post(f"{own}/ballots", json={"ballot": ballot, "choice": "neither"}).status_code == 201
    unnamed = member.get(f"{own}/ballots/next")
    assert (unnamed.status_code, unnamed.json()["errors"][0]["code"]) == (422, "missing")


@pytest.mark.parametrize("token", ["bal_", "bal_AAAA", "job_1", "bal_" + "A" * 40, "bal_ä"])
def test_an_id_that_nobody_gave_is_no_ballot(admin: TestClient, own: str, token: str) -> None:
    answer = admin.post(f"{own}/ballots", json={"ballot": token, "choice": "left"})
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_an_id_with_another_name_or_item_is_no_ballot(admin: TestClient, own: str) -> None:
    token = admin.get(f"{own}/ballots/next?rater=Hal").json()["ballot"]
    told = bytearray(base64.urlsafe_b64decode(token.removeprefix("bal_") + "=="))
    for place in (1, 5, len(told) - 1):
        forged = bytearray(told)
        forged[place] ^= 1
        body = {"ballot": "bal_" + base64.urlsafe_b64encode(forged).decode().rstrip("="), "choice": "left"}
        assert admin.post(f"{own}/ballots", json=body).status_code == 404


def test_a_name_has_one_key_and_keeps_its_ballots_where_that_is_revoked(admin: TestClient, own: str) -> None:
    first = admin.post(f"{own}/raters", json={"name": "Ida"}).json()
    again = admin.post(f"{own}/raters", json={"name": "Ida"})
    assert (again.status_code, again.json()["code"]) == (409, "second_rater")
    assert admin.get(f"/v1/keys/{first['id']}").json()["role"] == "rater"
    assert admin.delete(f"/v1/keys/{first['id']}").status_code == 204
    assert admin.post(f"{own}/raters", json={"name": "Ida"}).json()["id"] != first["id"]
    assert admin.post("/v1/keys", json={"name": "x", "role": "rater"}).status_code == 422


def test_nobody_is_asked_too_early_or_where_people_are_not_wanted(admin: TestClient, dataset: str) -> None:
    running = admin.post("/v1/experiments", json=experiment(dataset, human={"items": 4})).json()["id"]
    early = admin.get(f"/v1/experiments/{running}/ballots/next?rater=Ann")
    assert (early.status_code, early.json()["code"]) == (409, "nothing_to_judge")
    assert admin.post(f"/v1/experiments/{running}/raters", json={"name": "Ann"}).status_code == 201
    alone = admin.post("/v1/experiments", json=experiment(dataset)).json()["id"]
    unwanted = admin.get(f"/v1/experiments/{alone}/ballots/next?rater=Ann")
    assert (unwanted.status_code, unwanted.json()["code"]) == (409, "not_asked")
    assert admin.post(f"/v1/experiments/{alone}/raters", json={"name": "Ann"}).status_code == 409


def test_what_was_copied_of_a_data_set_goes_with_it_and_ballots_stay(
    admin: TestClient, run: Callable[..., Made], make_dataset: Callable[..., str]
) -> None:
    dataset = make_dataset()
    made = run(experiment(dataset, human={"items": 5}), {"": 0.3, "post_training_quantization": 0.9})
    own = f"/v1/experiments/{made['id']}"
    ballot = admin.get(f"{own}/ballots/next?rater=Ann").json()["ballot"]
    assert admin.post(f"{own}/ballots", json={"ballot": ballot, "choice": "left"}).status_code == 201
    assert admin.delete(f"/v1/datasets/{dataset}").status_code in (200, 202, 204)
    assert admin.get(f"{own}/ballots/next?rater=Ann").status_code == 204
    human = admin.get(own).json()["human"]
    assert (human["items"], human["ballots"]) == (0, 1)


def left(lines: list[Made]) -> Left:
    return Left([line["id"] for line in lines], np.zeros((len(lines), 1)), lambda: lines, {}, None)


def test_pictures_and_what_they_find_are_shown(tmp_path: Path) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (800, 400), "red").save(picture, "JPEG")
    rows = {"id": ["a", "b"], "image": [picture.getvalue()] * 2, "text": ["a cat", "a dog"]}
    pq.write_table(pa.table(rows), tmp_path / "rows.parquet")
    arms = [{1: left([{"id": "a", "found": one}, {"id": "b", "found": "b"}])} for one in ("a", "b")]
    (item,) = items_of(tmp_path / "rows.parquet", paired(arms), "00", 5)
    assert [one and one["text"] for one in item.answers] == ["a cat", "a dog"]
    content = base64.b64decode(item.shown["picture"].removeprefix("data:image/png;base64,"))
    with Image.open(io.BytesIO(content)) as shown:
        assert shown.size == (384, 192)


def test_a_prompt_is_shown_and_not_what_followed(tmp_path: Path) -> None:
    chat = json.dumps([{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "the truth"}])
    pq.write_table(pa.table({"id": ["a", "b"], "text": [chat, "one two three"]}), tmp_path / "rows.parquet")
    given = [{"id": "a", "prompt_messages": 1}, {"id": "b", "prompt_characters": 7}]
    arms = [{1: left([{**one, "generated": said} for one in given])} for said in ("x", "y")]
    items = items_of(tmp_path / "rows.parquet", paired(arms), "00", 5)
    assert {one.shown["text"] for one in items} == {"user: Hi?", "one two"}
    assert items[0].answers == [{"kind": "text", "text": "x"}, {"kind": "text", "text": "y"}]
    silent = [{1: left([{"id": one["id"]} for one in given])}, *arms]
    assert {one.shown["text"] for one in items_of(tmp_path / "rows.parquet", paired(silent), "00", 5)} == {
        "user: Hi?",
        "one two",
    }


def test_an_arm_that_left_nothing_is_not_judged(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": ["a"], "text": ["row"]}), tmp_path / "rows.parquet")
    one, other = (left([{"id": "a", "predicted": label}]) for label in ("ham", "spam"))
    (item,) = items_of(tmp_path / "rows.parquet", paired([{2: one}, {}, {1: one, 2: other}]), "00", 5)
    assert [answer and answer["label"] for answer in item.answers] == ["ham", None, "spam"]
    assert items_of(tmp_path / "rows.parquet", paired([{1: one}, {2: other}]), "00", 5) == []
