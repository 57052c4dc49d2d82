"""Jobs are found by metadata of any signs, and what no commit can bring back is erased after it."""

from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

from tests.app.jobs.test_jobs_http import spec

MakeDataset = Callable[..., str]


def test_a_key_of_any_signs_is_found(admin: TestClient, dataset: MakeDataset) -> None:
    ds = dataset()

    def listed(key: str, value: str) -> list[str]:
        return [job["id"] for job in admin.get("/v1/jobs", params={f"metadata[{key}]": value}).json()["data"]]

    for key in ('a"b', "a\\b", 'a\\"', "$.team", "team]", "a'b", "%", "ü"):
        one = admin.post("/v1/jobs", json=spec(ds, auto_start=False, metadata={key: "w", "n": "1"})).json()["id"]
        assert listed(key, "w") == [one], key
        assert listed(key, "v") == [], key


def test_what_no_commit_brings_back_is_erased_after_it(
    admin: TestClient, dataset: MakeDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = f"/v1/jobs/{admin.post('/v1/jobs', json=spec(dataset())).json()['id']}"
    seen: list[int | str] = []

    def look(*_: object, **__: object) -> None:
        # Others see the change already, and may write.
        told = admin.get(own)
        seen.append(told.json()["state"] if told.status_code == 200 else told.status_code)
        assert admin.post("/v1/keys", json={"name": "meanwhile"}).status_code == 201

    monkeypatch.setattr("app.jobs.service.erase_run", look)
    assert admin.post(f"{own}/cancel").status_code == 202
    assert admin.delete(own).status_code == 202
    assert seen == ["cancelled", 404]
