"""What the client sends again: answered once where the first answer was lost, and made anew where it was meant."""

from datetime import UTC, datetime

import httpx2
import openai
import pytest
from fastapi import FastAPI
from starlette.responses import Response

from app.openai.retries import WINDOW, Tries
from tests.app.openai.conftest import MakeClient

NOTE = ("note.txt", b"note")


def losing(client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch, tries: int) -> list[str]:
    """Let the first answers be lost on the way after the server gave them; the numbers of the tries that it saw."""
    seen: list[str] = []
    http = client._client
    send = http.send

    def lossy(request: httpx2.Request, **options: object) -> httpx2.Response:
        answer = send(request, **options)  # type: ignore[arg-type]
        seen.append(request.headers["x-stainless-retry-count"])
        if len(seen) <= tries:
            raise httpx2.ReadTimeout("lost", request=request)
        return answer

    monkeypatch.setattr(http, "send", lossy)
    return seen


def test_a_lost_answer_is_given_again_and_nothing_is_made_twice(
    client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = losing(client, monkeypatch, 2)
    made = client.files.create(file=NOTE, purpose="user_data")
    assert seen == ["0", "1", "2"]
    assert [file.id for file in client.files.list()] == [made.id]


def test_the_same_request_meant_twice_is_made_twice(client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    before = client.files.create(file=NOTE, purpose="user_data").id
    losing(client, monkeypatch, 1)
    again = client.files.create(file=NOTE, purpose="user_data").id
    assert [file.id for file in client.files.list(order="asc")] == [before, again]


def test_only_ones_own_retry_answers_a_first_try(service: FastAPI) -> None:
    now, database = datetime.now(UTC), service.state.database

    def answered(number: int, text: str, arrived: datetime = now) -> str:
        one = Tries("try of one request", number, arrived)
        with database.session() as session:
            first = one.begin(session, "tries") or one.finish(session, "tries", Response(text))
        return bytes(first.body).decode()

    assert answered(1, "by the retry") == "by the retry"
    assert answered(0, "by the first try, which was slower") == "by the retry"
    later = datetime.now(UTC)
    assert answered(0, "by another request", later) == "by another request"
    assert answered(0, "by one beside it", later) == "by one beside it"
    assert answered(1, "by its retry", later) == "by one beside it"
    assert answered(1, "by a retry of what nobody heard", later + 2 * WINDOW) == "by a retry of what nobody heard"


def test_an_idempotency_key_is_honoured(client: openai.OpenAI) -> None:
    key = {"Idempotency-Key": "one"}
    made = client.files.create(file=NOTE, purpose="user_data", extra_headers=key)
    assert client.files.create(file=NOTE, purpose="user_data", extra_headers=key) == made
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        client.files.create(file=("note.txt", b"another"), purpose="user_data", extra_headers=key)
    assert caught.value.code == "idempotency_key_reused"
    assert len(list(client.files.list())) == 1


def test_a_cancel_whose_answer_was_lost_is_no_conflict(client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    upload = client.uploads.create(bytes=4, filename="a", mime_type="text/plain", purpose="user_data")
    losing(client, monkeypatch, 1)
    assert client.uploads.cancel(upload.id).status == "cancelled"


def test_a_conflict_is_not_sent_again(client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    upload = client.uploads.create(bytes=4, filename="a", mime_type="text/plain", purpose="user_data")
    client.uploads.cancel(upload.id)
    seen = losing(client, monkeypatch, 0)
    with pytest.raises(openai.ConflictError) as caught:
        client.uploads.cancel(upload.id)
    assert seen == ["0"]
    assert caught.value.response.headers["x-should-retry"] == "false"


def test_a_busy_key_is_told_to_wait_no_longer_than_the_client_does(
    service: FastAPI, client_for: MakeClient, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = client_for(tenant)
    client.files.create(file=NOTE, purpose="user_data")
    waits = iter([120.0, 0.5, 0.0])
    monkeypatch.setattr(service.state.rate, "take", lambda key: next(waits, 0.0))
    seen = losing(client, monkeypatch, 0)
    assert len(list(client.files.list())) == 1
    assert seen == ["0", "1", "2"]
