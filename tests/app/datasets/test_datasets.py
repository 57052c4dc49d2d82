"""Data sets over HTTP: what is stored, what is refused with nothing stored, who may delete."""

import gzip
import io
import json
import threading
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from app.datasets import check, service
from app.datasets.upload import Form
from app.ids import new_id
from app.jobs import repository as jobs
from app.jobs.models import Job
from app.jobs.states import State
from app.main import create_app
from app.settings import Settings
from tests.app.datasets.uploads import ROWS, stored, upload

Clients = Callable[..., TestClient]


def test_an_upload_is_ready_at_once(admin: TestClient, settings: Settings) -> None:
    answer = upload(admin, name="mail", nominal_rows="1000")
    made = answer.json()

    assert answer.status_code == 201
    assert answer.headers["location"] == f"/v1/datasets/{made['id']}"
    assert made["name"] == "mail"
    assert (made["status"], made["rows"], made["nominal_rows"], made["splits"]) == ("ready", 6, 1000, {})
    assert (made["labels"], made["label_counts"], made["problems"]) == (["a", "b"], {"a": 3, "b": 3}, [])
    assert admin.get(answer.headers["location"]).json() == made
    assert admin.get("/v1/datasets").json()["data"] == [made]
    assert admin.get("/v1/datasets", params={"task": "image_classification"}).json()["data"] == []
    assert [path.name for path in stored(settings)] == [made["sha256"]]


@pytest.mark.parametrize(
    ("filename", "name"),
    [
        ("mail.jsonl", "mail.jsonl"),
        ("/srv/eve/mail.jsonl", "mail.jsonl"),
        ("C:\\a\u202e.jsonl", "a.jsonl"),
        ("a/", None),
    ],
)
def test_a_data_set_without_a_name_is_called_as_its_file(filename: str, name: str | None) -> None:
    assert service.wanted(Form(filename, fields={"task": "causal_lm"})).name == name
    assert service.wanted(Form(filename, fields={"task": "causal_lm", "name": "mail"})).name == "mail"


def test_a_preview_shows_the_first_rows(admin: TestClient) -> None:
    made = upload(admin).json()
    rows = admin.get(f"/v1/datasets/{made['id']}/preview", params={"rows": 2}).json()["rows"]

    assert [(row["text"], row["label"], row["label_name"]) for row in rows] == [("row 0", 0, "a"), ("row 1", 1, "b")]


def test_a_preview_stays_small_however_large_the_rows(admin: TestClient, service: FastAPI) -> None:
    rows = [{"text": "ä" * 300_000, "label": "a"}, {"text": "short", "label": "b"}] * 2
    made = upload(admin, "".join(json.dumps(row) + "\n" for row in rows).encode()).json()
    answer = admin.get(f"/v1/datasets/{made['id']}/preview", params={"rows": 100})
    first, second, *others = answer.json()["rows"]
    assert (first["text"], first["cut"], first["label_name"]) == ("ä" * 4_000, ["text"], "a")
    assert (second["text"], second.get("cut")) == ("short", None)
    assert len(others) == 2


def test_a_large_picture_is_left_out_of_a_preview(admin: TestClient) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, size in (("a/1.bmp", 8), ("b/2.bmp", 300)):
            picture = io.BytesIO()
            Image.new("RGB", (size, size)).save(picture, "BMP")
            archive.writestr(name, picture.getvalue())
    made = upload(admin, stream.getvalue(), "a.zip", task="image_classification").json()
    shown = admin.get(f"/v1/datasets/{made['id']}/preview").json()["rows"]
    assert [(row["image"] is None, row.get("cut")) for row in shown] == [(False, None), (True, ["image"])]


def test_faults_are_told_with_their_lines_and_nothing_stays(admin: TestClient, settings: Settings) -> None:
    answer = upload(admin, ROWS + b'{"text": "no label"}\nnot json\n')

    assert answer.status_code == 422
    assert [(fault["line"], fault["code"]) for fault in answer.json()["errors"]] == [
        (7, "missing_label"),
        (8, "malformed_row"),
    ]
    assert admin.get("/v1/datasets").json()["data"] == []
    assert stored(settings) == []


def test_invalid_rows_may_be_skipped_and_are_listed(admin: TestClient) -> None:
    content = ROWS + b'{"text": "no label"}\n'
    made = upload(admin, content, invalid_rows="skip", max_invalid_fraction="0.5").json()

    assert (made["rows"], [problem["line"] for problem in made["problems"]]) == (6, [7])


@pytest.mark.parametrize(
    ("fields", "pointers", "remedy"),
    [
        ({"task": "translation"}, ["/task"], "image_classification"),
        ({"tsak": "x", "lable_column": "y"}, ["/lable_column", "/tsak"], "did you mean label_column?"),
        ({"nominal_rows": "many", "invalid_rows": "maybe"}, ["/invalid_rows", "/nominal_rows"], "send"),
        ({"max_invalid_fraction": "0.5"}, ["/max_invalid_fraction"], "invalid_rows=skip"),
        ({"invalid_rows": "skip", "max_invalid_fraction": "nan"}, ["/max_invalid_fraction"], ""),
        ({"name": "nul \0"}, ["/name"], "leave it out"),
        ({"name": "a\x1b[2Jb"}, ["/name"], "leave out control characters"),
        ({"label_column": "lable"}, ["/label_column"], "did you mean label_column=label?"),
    ],
)
def test_wrong_fields_are_all_told(admin: TestClient, fields: dict[str, Any], pointers: list[str], remedy: str) -> None:
    answer = upload(admin, **fields)

    assert answer.status_code == 422
    assert sorted(fault["pointer"] for fault in answer.json()["errors"]) == pointers
    assert any(remedy in fault["remedy"] for fault in answer.json()["errors"])


def test_a_form_without_its_file_or_task(admin: TestClient) -> None:
    answer = admin.post("/v1/datasets", files={"other": ("x", b"x")}, data={})
    assert sorted(fault["pointer"] for fault in answer.json()["errors"]) == ["/file", "/other", "/task"]


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"{}", "application/json", 415),
        (b"x", "multipart/form-data", 415),
        (b"x", "multipart/form-data; boundary=b", 400),
        (b"--b\r\nContent-Disposition: form-data; name=task\r\n\r\nx", "multipart/form-data; boundary=b", 400),
        (b"--b\r\n" * 60, "multipart/form-data; boundary=b", 400),
        (b"x", f"multipart/form-data; boundary*{'9' * 4_500}=b", 415),
        (b"x", "multipart/form-data; boundary*=b; boundary*0=b", 415),
    ],
)
def test_broken_forms(admin: TestClient, content: bytes, kind: str, status: int) -> None:
    answer = admin.post("/v1/datasets", content=content, headers={"Content-Type": kind})
    assert answer.status_code == status, answer.text


def test_a_field_that_is_far_too_long(admin: TestClient) -> None:
    answer = admin.post("/v1/datasets", files={"file": ("a.jsonl", ROWS)}, data={"name": "x" * 100_000})
    assert answer.status_code == 413
    assert answer.json()["remedy"]


@pytest.mark.parametrize(
    "filename",
    [
        "*=unicode_escape''%5Cud800.csv",
        "*=raw_unicode_escape''%5Cud800.csv",
        "*=utf-7''%2B2AA-.csv",
        "*=a%00b''x.csv",
        "*=undefined''x.csv",
        "*=a; filename*0=b",
    ],
)
def test_a_filename_in_a_character_set_of_its_own_is_a_hint_and_no_more(admin: TestClient, filename: str) -> None:
    file = f'--B\r\nContent-Disposition: form-data; name="file"; filename{filename}\r\n\r\n'.encode() + ROWS
    task = b'\r\n--B\r\nContent-Disposition: form-data; name="task"\r\n\r\ntext_classification\r\n--B--\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=B"}
    answer = admin.post("/v1/datasets", content=file + task, headers=headers)
    assert answer.status_code in (201, 422), answer.text


def test_names_of_columns_that_are_no_unicode(admin: TestClient) -> None:
    for content, name in ((b"te\xffxt,label\na,b\nc,d\n", "a.csv"), (b'{"te\\ud800xt": "a", "label": 1}\n', "a.jsonl")):
        answer = upload(admin, content, name)
        assert answer.status_code == 422, answer.text
        assert all(fault["remedy"] for fault in answer.json()["errors"])


@pytest.mark.parametrize(
    ("header", "status"), [('"old"', 412), ("W/{}", 412), ("{}", 204), ('"old", {}', 204), ("*", 204)]
)
def test_a_delete_may_name_the_version_it_means(admin: TestClient, header: str, status: int) -> None:
    own = f"/v1/datasets/{upload(admin).json()['id']}"
    etag = admin.get(own).headers["etag"]
    assert admin.delete(own, headers={"If-Match": header.format(etag)}).status_code == status
    assert admin.get(own).status_code == (200 if status == 412 else 404)


def test_repeated_parts_are_refused(admin: TestClient) -> None:
    files = [("file", ("a.jsonl", ROWS)), ("file", ("b.jsonl", ROWS))]
    answer = admin.post("/v1/datasets", files=files, data={"task": ["text_classification"] * 2})
    assert sorted(fault["code"] for fault in answer.json()["errors"]) == ["repeated_field", "repeated_field"]


def test_the_cap_on_bytes_holds_while_they_come(settings: Settings, admin: TestClient, service: FastAPI) -> None:
    service.state.settings = settings.model_copy(update={"max_upload_bytes": 10_000})
    answer = upload(admin, ROWS * 1_000)

    assert answer.status_code == 413
    assert stored(settings) == []
    assert upload(admin).status_code == 201


@pytest.mark.parametrize("change", [{"max_rows": 3}, {"max_decompressed_bytes": 10}])
def test_caps_on_what_is_inside(
    settings: Settings, admin: TestClient, service: FastAPI, change: dict[str, int]
) -> None:
    service.state.settings = settings.model_copy(update=change)
    assert upload(admin, gzip.compress(ROWS)).status_code == 413


def test_a_check_that_runs_out_of_memory_is_the_files_fault(
    settings: Settings, admin: TestClient, service: FastAPI
) -> None:
    service.state.settings = settings.model_copy(
        update={"ingest_memory_bytes": 600 << 20, "max_cell_bytes": 1 << 30, "max_decompressed_bytes": 1 << 33}
    )
    answer = upload(admin, gzip.compress(b"0" * 700_000_000, 1))

    assert answer.status_code == 413
    assert answer.json()["errors"][0]["code"] == "check_limit"
    assert stored(settings) == []


def test_a_check_that_takes_too_long_is_ended(
    settings: Settings, admin: TestClient, service: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.state.settings = settings.model_copy(update={"ingest_seconds": 0.0001})
    monkeypatch.setattr(check, "str", lambda value: "1" if value == 0.0001 else str(value), raising=False)
    assert upload(admin).json()["errors"][0]["code"] == "check_limit"


def test_an_idempotency_key_covers_file_and_fields(admin: TestClient) -> None:
    first = upload(admin, idempotency_key="k")
    again = upload(admin, idempotency_key="k")

    assert again.json() == first.json()
    assert again.headers["idempotent-replayed"] == "true"
    assert upload(admin, ROWS + ROWS, idempotency_key="k").status_code == 422
    assert upload(admin, name="other", idempotency_key="k", label_column="label").status_code == 422
    assert upload(admin, filename="others.jsonl", idempotency_key="k").status_code == 422
    assert len(admin.get("/v1/datasets").json()["data"]) == 1


@pytest.mark.parametrize(("state", "status"), [(State.RUNNING, 409), (State.CREATED, 409), (State.SUCCEEDED, 204)])
def test_a_data_set_that_a_job_needs_stays(admin: TestClient, service: FastAPI, state: State, status: int) -> None:
    made = upload(admin).json()
    job = Job(
        id=new_id("job"),
        tenant="default",
        kind="train",
        task="text_classification",
        metadata_={},
        spec={},
        plan=[],
        inputs={made["id"]: "sha256/ab/" + "a" * 64},
        state=state,
        created_at=datetime.now(UTC),
    )
    with service.state.database.session() as session:
        jobs.add(session, job)

    answer = admin.delete(f"/v1/datasets/{made['id']}")
    assert answer.status_code == status
    if status == 409:
        assert job.id in answer.json()["detail"]


def test_a_stranger_sees_nothing(admin: TestClient, client_for: Clients) -> None:
    made = upload(admin).json()
    stranger = client_for("other", "admin")

    assert stranger.get("/v1/datasets").json()["data"] == []
    for path in (f"/v1/datasets/{made['id']}", f"/v1/datasets/{made['id']}/preview"):
        assert stranger.get(path).status_code == 404
    assert stranger.delete(f"/v1/datasets/{made['id']}").status_code == 404
    assert admin.get(f"/v1/datasets/{made['id']}").status_code == 200


def test_uploads_at_the_same_time(admin: TestClient) -> None:
    answers: list[int] = []
    threads = [
        threading.Thread(target=lambda i=i: answers.append(upload(admin, ROWS * (i + 1)).status_code)) for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [201] * 4


def test_an_app_starts_on_an_empty_folder(tmp_path: Path) -> None:
    assert create_app(Settings(data_dir=tmp_path / "new")).title == "fiftytwo"
    assert (tmp_path / "new").is_dir()
