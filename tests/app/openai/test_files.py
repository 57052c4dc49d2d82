"""Files through the real client: what comes back, what is wrong with a line, and what becomes of it all."""

import hashlib
from datetime import UTC, datetime, timedelta

import openai
import pytest
from fastapi import FastAPI
from sqlalchemy import select, update

from app.datasets.models import Dataset
from app.jobs.repository import open_jobs_reading
from app.openai.expiry import sweep
from app.openai.files import repository
from app.openai_tables.models import File
from tests import postgres
from tests.app.openai.conftest import CHAT, GOOD, MakeClient, jsonl
from tests.service import tables

TEXTS = jsonl(*({"text": f"text {i}", "label": ["ham", "spam"][i % 2]} for i in range(4)))


def test_a_file_of_conversations_becomes_a_data_set(client: openai.OpenAI) -> None:
    made = client.files.create(file=("spam.jsonl", GOOD), purpose="fine-tune")
    assert made.model_dump().items() >= {"object": "file", "bytes": len(GOOD), "filename": "spam.jsonl"}.items()
    assert (made.purpose, made.status, made.status_details, made.expires_at) == ("fine-tune", "processed", None, None)
    assert client.files.wait_for_processing(made.id, poll_interval=0) == client.files.retrieve(made.id) == made
    dataset = client.get(f"/datasets/{made.datasets['causal_lm']}", cast_to=dict[str, object])  # type: ignore[attr-defined]
    assert (dataset["name"], dataset["rows"]) == ("spam.jsonl", 6)

    gone = client.files.delete(made.id)
    assert (gone.id, gone.object, gone.deleted) == (made.id, "file", True)
    for lost in (f"/files/{made.id}", f"/datasets/{dataset['id']}"):
        with pytest.raises(openai.NotFoundError):
            client.get(lost, cast_to=object)


def test_bytes_without_a_name_and_texts_with_classes_are_read_too(client: openai.OpenAI) -> None:
    made = client.files.create(file=TEXTS, purpose="fine-tune")
    assert (made.filename, made.status, list(made.datasets)) == ("upload", "processed", ["text_classification"])  # type: ignore[attr-defined]


def test_lines_that_do_not_fit_are_told_by_number(client: openai.OpenAI) -> None:
    wrong = jsonl({"messages": CHAT}, {"messages": CHAT[:1]}, {"messages": CHAT}, {"messages": "hello"}, {"prompt": 1})
    made = client.files.create(file=("bad.jsonl", wrong), purpose="fine-tune")
    file = client.files.wait_for_processing(made.id)
    assert file.status == "error"
    assert file.status_details is not None
    for told in ("line 2: 'messages' has no turn of the assistant", "line 4: 'messages' is no list", "line 5: "):
        assert told in file.status_details
    assert [one["line"] for one in file.problems] == [2, 4, 5]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (
            GOOD + b'{"messages": [\n' + b'{"messages": "\xff"}\n' + b'["a list"]\n',
            [
                "line 7: the line is not JSON",
                "line 8: byte 15 of the line is not UTF-8",
                "line 9: the line is JSON, yet no object",
            ],
        ),
        (b"\n\n", ["the file has no rows"]),
        (b"", ["the file is empty"]),
    ],
)
def test_what_is_no_jsonl_is_refused_at_once(client: openai.OpenAI, content: bytes, told: list[str]) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.files.create(file=("bad.jsonl", content), purpose="fine-tune")
    assert all(one in caught.value.message for one in told)
    assert (caught.value.type, caught.value.param) == ("invalid_request_error", "file")
    assert str(caught.value.request_id).startswith("req_")
    assert list(client.files.list()) == []


def test_a_huge_line_and_a_huge_file(client: openai.OpenAI, service: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    small = service.state.settings.model_copy(update={"max_cell_bytes": 2_000})
    monkeypatch.setitem(service.state._state, "settings", small)
    huge = GOOD + jsonl({"messages": [{"role": "user", "content": "x" * 20_000}, CHAT[1]]})
    with pytest.raises(openai.BadRequestError, match="line 7: the line has more than 12000 bytes"):
        client.files.create(file=("a.jsonl", huge), purpose="fine-tune")
    with pytest.raises(openai.APIStatusError, match="more than 200000 bytes") as caught:
        client.files.create(file=("a.bin", bytes(200_001)), purpose="user_data")
    assert caught.value.status_code == 413


def test_a_wrong_form_is_told_whole(client: openai.OpenAI) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        client.files.create(
            file=GOOD,
            purpose="training",  # type: ignore[arg-type]
            expires_after={"anchor": "created_at", "seconds": 5},
            extra_body={"colour": "red"},
        )
    answer = caught.value.response.json()
    assert {one["pointer"] for one in answer["errors"]} == {"/purpose", "/expires_after/seconds", "/colour"}
    assert all(one["remedy"] for one in answer["errors"])


def test_files_are_listed_newest_first_in_pages(client: openai.OpenAI) -> None:
    made = [client.files.create(file=(f"{i}.txt", b"note"), purpose="user_data").id for i in range(4)]
    made.append(client.files.create(file=("a.txt", b"note"), purpose="evals").id)
    assert [file.id for file in client.files.list(limit=2)] == made[::-1]
    assert [file.id for file in client.files.list(order="asc", purpose="user_data", limit=3)] == made[:4]
    page = client.files.list(limit=5)
    assert (page.has_more, page.has_next_page()) == (False, False)


def test_content_comes_whole_by_range_or_not_again(client: openai.OpenAI) -> None:
    notes = bytes(range(256)) * 10
    made = client.files.create(file=("notes.bin", notes), purpose="user_data")
    answer = client.files.content(made.id)
    assert answer.content == notes
    etag = answer.response.headers["etag"]
    assert etag == f'"{hashlib.sha256(notes).hexdigest()}"'
    part = client.files.content(made.id, extra_headers={"Range": "bytes=100-199", "If-Range": etag})
    assert (part.response.status_code, part.content) == (206, notes[100:200])
    with pytest.raises(openai.APIStatusError) as caught:
        client.files.content(made.id, extra_headers={"If-None-Match": etag})
    assert (caught.value.status_code, caught.value.response.content) == (304, b"")


def test_a_file_of_another_tenant_is_not_there(client: openai.OpenAI, client_for: MakeClient) -> None:
    made = client.files.create(file=("a.txt", b"note"), purpose="user_data")
    stranger = client_for("stranger", "admin")
    for reach in (stranger.files.retrieve, stranger.files.content, stranger.files.delete):
        with pytest.raises(openai.NotFoundError) as caught:
            reach(made.id)
        assert caught.value.code == "not_found"
    assert client.files.retrieve(made.id) == made
    viewer = client_for("stranger", "viewer")
    with pytest.raises(openai.PermissionDeniedError):
        viewer.files.create(file=("a.txt", b"note"), purpose="user_data")


def test_what_one_process_erases_another_leaves_alone(server: postgres.Server) -> None:
    now = datetime.now(UTC)
    told = {"purpose": "user_data", "filename": "a", "size_bytes": 1, "sha256": "", "storage_key": "", "problems": []}
    with tables(server.fresh()) as database:
        with database.session() as session:
            session.add(File(id="file_1", tenant="default", created_at=now, expires_at=now, **told))
        with database.session() as first, database.session() as second:
            assert repository.expired_file(first, "file_1") is not None
            assert repository.expired_file(second, "file_1") is None


def test_an_expired_file_is_gone_with_its_rows(client: openai.OpenAI, service: FastAPI) -> None:
    kept = client.files.create(file=GOOD, purpose="fine-tune")
    made = client.files.create(file=GOOD, purpose="fine-tune", expires_after={"anchor": "created_at", "seconds": 3600})
    assert made.expires_at is not None
    assert made.expires_at - made.created_at in (3600, 3601)
    state = service.state
    with state.database.session() as session:
        past = datetime.now(UTC) - timedelta(seconds=1)
        session.execute(update(File).where(File.id == made.id).values(expires_at=past))
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(made.id)
    assert [file.id for file in client.files.list()] == [kept.id]
    sweep(state.database, state.storage, open_jobs_reading)
    with state.database.reading() as session:
        assert session.get(File, made.id) is None
        left = set(session.scalars(select(Dataset.id)))
    assert made.datasets["causal_lm"] not in left  # type: ignore[attr-defined]
    assert kept.datasets["causal_lm"] in left  # type: ignore[attr-defined]
    assert client.files.content(kept.id).content == GOOD
