"""The page of the API tells of every route and field, needs no key, and loads nothing from anywhere else."""

import re

from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.dashboard import guard
from tests.app.dashboard.conftest import ORIGIN


def test_the_reference_is_whole_and_stands_without_the_internet(service: FastAPI) -> None:
    answer = TestClient(service, headers=ORIGIN).get("/docs")
    assert answer.status_code == 200
    assert answer.headers["content-security-policy"] == guard.POLICY
    loaded = re.findall(r'(?:src|href)="([^"]*)"', answer.text)
    assert [one for one in loaded if not one.startswith(("/", "#"))] == []
    told = re.sub(r"<[^>]+>", "", answer.text)
    document = service.openapi()
    for path, operations in document["paths"].items():
        assert path in told
        assert all(operation["summary"].replace("'", "&#39;") in told for operation in operations.values())
    for name, schema in document["components"]["schemas"].items():
        assert f'id="{name}"' in answer.text
        assert all(f"<code>{field}</code>" in answer.text for field in schema.get("properties", {})), name
    targets = set(re.findall(r'href="#([^"]*)"', answer.text))
    assert targets <= set(re.findall(r'id="([^"]*)"', answer.text))


def test_a_field_tells_its_type_its_bounds_and_its_default(service: FastAPI) -> None:
    page = TestClient(service, headers=ORIGIN).get("/docs").text
    training = page.partition('id="Training"')[2].partition("</table>")[0]
    epochs = " ".join(
        re.sub(r"<[^>]+>", " ", training.partition("<code>epochs</code>")[2].partition("</tr>")[0]).split()
    )
    assert epochs == "integer, 1 to 1000 3 Passes over the training rows."


def test_a_program_still_reads_the_document_itself(service: FastAPI) -> None:
    program = TestClient(service)
    assert program.get("/openapi.json").json()["openapi"].startswith("3.")
    assert program.get("/").json()["docs"] == "/docs"
