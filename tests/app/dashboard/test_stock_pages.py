"""Pages of data sets and models: an upload through the form, what is wrong with one, whose things are shown to whom."""

import base64
from pathlib import Path

import pytest
from fastapi import FastAPI

from app.datasets.models import Dataset
from app.jobs.states import State
from tests.app.dashboard.conftest import SignIn
from tests.app.seeds import seed_artifact, seed_dataset, seed_job

ROWS = b"".join(b'{"text": "text %d", "label": "%s"}\n' % (i, b"ham" if i % 3 else b"spam") for i in range(30))
LEFT_OPEN = {"text_column": "", "label_column": " ", "nominal_rows": "", "invalid_rows": "", "name": ""}


def test_a_file_goes_up_by_the_form_and_has_a_page(service: FastAPI, sign_in: SignIn) -> None:
    browser = sign_in()
    assert "No data sets yet" in browser.get("/datasets").text
    long_rows = ROWS.replace(b'", "label"', b" " + b"x" * 40_000 + b'", "label"')
    assert len(long_rows) > service.state.settings.max_json_bytes, "it is streamed, past the cap on other bodies"
    broken = long_rows + b'{"text": "", "label": "ham"}\n{"text": "b"}\n'
    form = LEFT_OPEN | {"task": "text_classification"}
    refused = browser.post("/datasets", data=form | {"name": "mails"}, files={"file": ("mails.jsonl", broken)})
    assert refused.status_code == 422
    assert "Line 31: " in refused.text
    assert "Line 32: " in refused.text
    assert "Remedy" in refused.text
    assert 'value="mails"' in refused.text, "what was filled in stays"
    form |= {"invalid_rows": "skip", "name": "mails <b>"}
    made = browser.post("/datasets", data=form, files={"file": ("mails.jsonl", broken)})
    assert made.status_code == 303
    page = browser.get(made.headers["location"]).text
    for told in (
        "mails &lt;b&gt;",
        "2 left out",
        "spam: 10 rows",
        "text 3",
        "Rows that were left out",
        '<td class="number" data-label="Line">31</td>',
    ):
        assert told in page
    dataset = made.headers["location"].rpartition("/")[2]
    assert f'href="/jobs/new?dataset={dataset}"' in page
    assert f'href="/datasets/{dataset}"' in browser.get("/datasets?task=text_classification").text
    assert "No data set fits" in browser.get("/datasets?task=causal_lm").text


@pytest.mark.parametrize(
    ("content", "status", "said"),
    [
        (b"--b\r\n", 400, "ends before its last boundary"),
        (b'--b\r\nContent-Disposition: form-data; name="colour"\r\n\r\nred\r\n--b--\r\n', 422, "no part `file`"),
    ],
)
def test_a_form_that_is_none_is_told_on_the_page(sign_in: SignIn, content: bytes, status: int, said: str) -> None:
    browser = sign_in()
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    refused = browser.post("/datasets", content=content, headers=headers)
    assert refused.status_code == status
    assert said in refused.text
    assert "The file was not taken" in refused.text


def test_data_sets_are_of_their_tenant_and_viewers_read_only(service: FastAPI, sign_in: SignIn, tmp_path: Path) -> None:
    mine, theirs = seed_dataset(service, tmp_path), seed_dataset(service, tmp_path, "other")
    reader, member = sign_in("viewer"), sign_in()
    page = reader.get("/datasets").text
    assert mine in page
    assert theirs not in page
    assert 'id="upload-form"' not in page
    one = reader.get(f"/datasets/{mine}").text
    assert "Erase" not in one
    assert "Train on it" not in one
    assert reader.get(f"/datasets/{theirs}").status_code == 404
    assert member.post(f"/datasets/{theirs}/delete").status_code == 404
    assert reader.post(f"/datasets/{mine}/delete").status_code == 403
    assert reader.post("/datasets", files={"file": ("a.jsonl", ROWS)}).status_code == 403
    evil = {"Origin": "https://evil.example"}
    assert member.post(f"/datasets/{mine}/delete", headers=evil).status_code == 403
    assert member.post("/datasets", files={"file": ("a.jsonl", ROWS)}, headers=evil).status_code == 403
    assert member.get("/datasets?after=%21").status_code == 422
    with service.state.database.reading() as session:
        assert session.get(Dataset, theirs) is not None


def test_a_data_set_is_erased(service: FastAPI, sign_in: SignIn, tmp_path: Path) -> None:
    dataset, browser = seed_dataset(service, tmp_path), sign_in()
    assert browser.post(f"/datasets/{dataset}/delete").headers["location"] == "/datasets"
    assert browser.get(f"/datasets/{dataset}").status_code == 404


def test_long_lists_go_on(service: FastAPI, sign_in: SignIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.dashboard.pages.datasets.ROWS", 2)
    monkeypatch.setattr("app.dashboard.pages.models.ROWS", 2)
    made = [seed_dataset(service, tmp_path) for _ in range(3)]
    browser = sign_in("viewer")
    assert f'href="/datasets?after={made[1]}"' in browser.get("/datasets").text
    second = browser.get(f"/datasets?after={made[1]}").text
    assert made[0] in second
    assert made[2] not in second
    jobs = [seed_job(service, made[0], state=State.SUCCEEDED) for _ in range(3)]
    models = [seed_artifact(service, tmp_path, "default", job, "model", "model.zip") for job in jobs]
    assert f'href="/models?after={models[1]}"' in browser.get("/models").text
    assert jobs[0] in browser.get(f"/models?after={models[1]}").text


def test_models_are_the_bases_and_what_the_tenant_has_trained(
    service: FastAPI, sign_in: SignIn, tmp_path: Path
) -> None:
    dataset = seed_dataset(service, tmp_path)
    mine, theirs = (seed_job(service, dataset, tenant, State.SUCCEEDED) for tenant in ("default", "other"))
    artifact = seed_artifact(service, tmp_path, "default", mine, "model", "model.zip")
    seed_artifact(service, tmp_path, "other", theirs, "model", "model.zip")
    page = sign_in().get("/models").text
    assert "resnet-small" in page
    assert "default for text classification" in page
    assert f'href="/artifacts/{artifact}/content"' in page
    assert f"/jobs/new?kind=compress&amp;model={mine}" in page
    assert theirs not in page
    assert "kind=compress" not in sign_in("viewer").get("/models").text
    assert "Nothing is trained yet" in sign_in(tenant="third").get("/models").text


def test_a_picture_is_shown_as_one(
    sign_in: SignIn, service: FastAPI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = seed_dataset(service, tmp_path)
    picture = base64.b64encode(b"\x89PNG").decode()
    row = {"id": "0", "image": picture, "label": 0, "label_name": "cat <i>"}
    monkeypatch.setattr("app.dashboard.pages.datasets.service.preview", lambda *_: [row])
    page = sign_in("viewer").get(f"/datasets/{dataset}").text
    assert f'src="data:image/png;base64,{picture}"' in page
    assert "cat &lt;i&gt;" in page
