"""The HTTP client: what it repeats, what it refuses, and that a download ends whole or not at all."""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from client.errors import BadPackage, BadUsage, Refused, Unreachable
from client.http import Client
from tests.client.stand_in_server import KEY, StandIn


@pytest.fixture
def client(server: StandIn) -> Iterator[Client]:
    """A client of the stand-in server that does not pause."""
    with Client(server.url, KEY, attempts=3, pause=0) as found:
        yield found


def test_a_post_is_repeated_under_one_idempotency_key(server: StandIn, client: Client) -> None:
    server.refuse_next = [503, 429]
    assert client.post("/v1/jobs", {"task": "x", "dataset": "ds_1"})["id"] == "job_1"
    keys = [headers["idempotency-key"] for headers, _ in server.seen("POST", "/v1/jobs")]
    assert len(keys) == 3
    assert len(set(keys)) == 1
    client.post("/v1/jobs", {"task": "x", "dataset": "ds_1"})
    assert server.seen("POST", "/v1/jobs")[-1][0]["idempotency-key"] != keys[0]


@pytest.mark.parametrize(
    ("content", "media_type", "body"),
    [
        ({"epsilon": 8.0}, "application/json", b'{"epsilon":8.0}'),
        (b"\x00\xff", "application/octet-stream", b"\x00\xff"),
    ],
)
def test_what_is_put_is_put_again_until_it_is_heard(
    content: dict[str, float] | bytes, media_type: str, body: bytes
) -> None:
    seen = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append((request.method, request.url.path, request.headers["content-type"], request.read()))
        return httpx.Response(503 if len(seen) == 1 else 200, json={"id": "one"})

    with Client("http://x", KEY, pause=0, transport=httpx.MockTransport(answer)) as client:
        assert client.put("/v1/one", content) == {"id": "one"}
    assert seen == [("PUT", "/v1/one", media_type, body)] * 2


def test_a_server_that_stays_away_is_unreachable(server: StandIn, client: Client) -> None:
    server.refuse_next = [503] * 3
    with pytest.raises(Unreachable) as error:
        client.get("/v1/jobs")
    assert "--server" in error.value.remedy
    with pytest.raises(Unreachable), Client("http://127.0.0.1:9", KEY, attempts=2, pause=0) as nobody:
        nobody.get("/v1/jobs")


def test_a_limit_that_is_not_lifted_is_the_servers_word(server: StandIn, client: Client) -> None:
    server.refuse_next = [429] * 3
    with pytest.raises(Refused) as refused:
        client.get("/v1/jobs")
    assert refused.value.status == 429


def test_faults_are_told_one_a_line_and_not_repeated(server: StandIn, client: Client) -> None:
    with pytest.raises(Refused) as refused:
        client.post("/v1/jobs", {"task": "bad_task", "dataset": "ds_1"})
    assert refused.value.lines() == [
        "Wrong choices (422)",
        "  /task: no such task — text_classification",
        "  /model: no such model — minilm-l6",
    ]
    assert len(server.seen("POST", "/v1/jobs")) == 1


def test_a_wrong_key_names_the_next_step(server: StandIn) -> None:
    with pytest.raises(Refused) as refused, Client(server.url, "wrong") as stranger:
        stranger.get("/v1/jobs")
    assert any("fiftytwo login" in line for line in refused.value.lines())


def test_an_answer_that_is_no_problem_is_told_too() -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(418, text="<html>teapot</html>"))
    with pytest.raises(Refused, match="teapot"):
        Client("http://x", KEY, transport=transport).get("/v1/jobs")


def test_lists_are_read_to_their_end(client: Client) -> None:
    assert [job["id"] for job in client.listed("/v1/jobs")] == ["job_1", "job_2", "job_3"]
    assert [job["id"] for job in client.listed("/v1/jobs", at_most=2)] == ["job_1", "job_2"]


def test_an_upload_is_sent_whole_again_after_a_failure(server: StandIn, client: Client, tmp_path: Path) -> None:
    path = tmp_path / "mail.csv"
    path.write_text("text,label\nfree,spam\n")
    server.refuse_next = [503]
    client.upload(path, {"task": "text_classification"})
    (_, first), (headers, second) = server.seen("POST", "/v1/datasets")
    for body in (first, second):
        assert b"free,spam" in body
        assert b'name="task"' in body
        assert b'filename="mail.csv"' in body
    assert headers["content-type"].startswith("multipart/form-data")


def test_an_upload_of_nothing_is_bad_usage(client: Client, tmp_path: Path) -> None:
    with pytest.raises(BadUsage, match=r"missing\.csv"):
        client.upload(tmp_path / "missing.csv", {"task": "x", "dataset": "ds_1"})


def test_waiting_ends_with_the_job(server: StandIn, client: Client) -> None:
    assert client.wait("job_1")["state"] == "succeeded"
    assert server.looks == 3


def test_an_interrupted_download_goes_on_where_it_stopped(server: StandIn, client: Client, tmp_path: Path) -> None:
    server.cut_after = 1000
    seen: list[int] = []
    target = client.download(server.artifact(), tmp_path / "out" / "model.zip", seen.append)
    assert target.read_bytes() == server.package
    (_, second) = server.seen("GET", "/v1/artifacts/art_1/content")
    assert second[0]["range"] == "bytes=1000-"
    assert second[0]["if-range"] == f'"{server.artifact()["sha256"]}"'
    assert seen[-1] == len(server.package)
    assert [path.name for path in target.parent.iterdir()] == ["model.zip"]


def test_a_whole_file_is_not_fetched_again(server: StandIn, client: Client, tmp_path: Path) -> None:
    client.download(server.artifact(), tmp_path / "model.zip")
    client.download(server.artifact(), tmp_path / "model.zip")
    assert len(server.seen("GET", "/v1/artifacts/art_1/content")) == 1


def test_damage_on_the_way_is_found(server: StandIn, client: Client, tmp_path: Path) -> None:
    artifact = server.artifact()
    server.package = bytes(len(server.package))
    with pytest.raises(BadPackage, match="damaged"):
        client.download(artifact, tmp_path / "model.zip")
    assert list(tmp_path.glob("model.zip*")) == []


def test_an_unknown_artifact_names_those_there_are(server: StandIn, client: Client) -> None:
    server.looks = 3
    with pytest.raises(BadUsage, match="it has: model, receipt"):
        client.artifact("job_1", "gguf")


def test_an_address_without_http_is_bad_usage() -> None:
    with pytest.raises(BadUsage, match="no http address"):
        Client("localhost:8052", KEY)


def test_the_stand_in_serves_a_real_package(server: StandIn, tmp_path: Path) -> None:
    (tmp_path / "model.zip").write_bytes(server.package)
    with zipfile.ZipFile(tmp_path / "model.zip") as package:
        assert json.loads(package.read("labels.json")) == ["ham", "spam"]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (httpx.Response(302, headers={"Location": "https://sso.example/login"}), r"https://sso\.example/login"),
        (httpx.Response(308), "308"),
        (httpx.Response(200, text="<html>welcome</html>"), "without JSON"),
        (httpx.Response(200, json=["no", "object"]), "without JSON"),
    ],
)
def test_a_proxy_that_answers_itself_is_no_server_of_ours(answer: httpx.Response, says: str, tmp_path: Path) -> None:
    client = Client("http://x", KEY, transport=httpx.MockTransport(lambda _: answer))
    (tmp_path / "rows").write_text("")
    for ask in (
        lambda: client.get("/v1/jobs"),
        lambda: client.post("/v1/jobs", {}),
        lambda: client.put("/v1/jobs", {}),
        lambda: client.upload(tmp_path / "rows", {}),
        lambda: list(client.listed("/v1/jobs")),
    ):
        with pytest.raises(Unreachable, match=says) as error:
            ask()
        assert "--server" in error.value.remedy


def test_a_redirect_is_no_download_and_no_deletion(tmp_path: Path) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(302, headers={"Location": "https://sso.example"}))
    client = Client("http://x", KEY, transport=transport)
    artifact = {"id": "art_1", "filename": "model.zip", "size_bytes": 3, "sha256": "0" * 64}
    with pytest.raises(Unreachable, match="sso"):
        client.download(artifact, tmp_path / "model.zip")
    with pytest.raises(Unreachable, match="sso"):
        client.delete("/v1/jobs/job_1")
