"""ETags, pages and idempotency, on the simplest of objects."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi.testclient import TestClient


def test_an_object_that_is_known_already_is_not_sent_again(admin: TestClient) -> None:
    first = admin.get("/v1/keys")
    etag = first.headers["etag"]

    for header in (etag, f'"other", W/{etag}', "*"):
        again = admin.get("/v1/keys", headers={"If-None-Match": header})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == etag
    admin.post("/v1/keys", json={"name": "new"})
    assert admin.get("/v1/keys", headers={"If-None-Match": etag}).status_code == 200


def test_a_write_meant_for_an_older_version_is_refused(admin: TestClient) -> None:
    own = f"/v1/keys/{admin.post('/v1/keys', json={'name': 'x'}).json()['id']}"
    refused = admin.delete(own, headers={"If-Match": '"old"'})
    etag = admin.get(own).headers["etag"]

    assert refused.status_code == 412
    assert etag in refused.json()["detail"]
    assert refused.json()["remedy"]
    assert admin.delete(own, headers={"If-Match": etag}).status_code == 204
    assert admin.delete(own, headers={"If-Match": etag}).status_code == 404


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_pages_come_to_the_whole_list(admin: TestClient, order: str) -> None:
    made = [admin.post("/v1/keys", json={"name": str(i)}).json()["id"] for i in range(6)]
    params: dict[str, str | int] = {"limit": 3, "order": order}
    seen: list[str] = []
    while True:
        page = admin.get("/v1/keys", params=params).json()
        ids = [key["id"] for key in page["data"]]
        assert (page["object"], page["first_id"], page["last_id"]) == ("list", ids[0], ids[-1])
        seen += ids
        if not page["has_more"]:
            break
        params["after"] = page["last_id"]

    assert len(seen) == 7
    assert seen == sorted(seen, reverse=order == "desc")
    assert set(made) < set(seen)


def test_one_idempotency_key_makes_one_object(admin: TestClient) -> None:
    def post(_: int) -> str:
        answer = admin.post("/v1/keys", json={"name": "once"}, headers={"Idempotency-Key": "k"})
        assert answer.status_code == 201
        return str(answer.json()["id"])

    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(post, range(16)))
    assert len(ids) == 1
    assert len(admin.get("/v1/keys").json()["data"]) == 2


def test_another_body_under_the_same_key_is_refused(admin: TestClient) -> None:
    headers = {"Idempotency-Key": "k"}
    assert admin.post("/v1/keys", json={"name": "one"}, headers=headers).status_code == 201

    answer = admin.post("/v1/keys", json={"name": "two"}, headers=headers)
    assert answer.status_code == 422
    assert answer.json()["code"] == "idempotency_key_reused"


def test_a_refused_request_does_not_use_its_key_up(admin: TestClient) -> None:
    headers = {"Idempotency-Key": "k"}
    assert admin.post("/v1/keys", json={"name": ""}, headers=headers).status_code == 422
    assert admin.post("/v1/keys", json={"name": "one"}, headers=headers).status_code == 201
