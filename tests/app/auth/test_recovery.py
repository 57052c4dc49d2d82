"""`fiftytwo admin-key`: a way back in for whoever holds the database, and a clear word where there is none."""

import json
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.settings import Settings
from client.cli import main


def test_a_lost_admin_key_is_replaced_beside_the_running_server(
    service: FastAPI, admin: TestClient, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = admin.get("/v1/keys").json()["data"][0]["id"]
    refused = TestClient(service).get("/v1/keys", headers={"Authorization": "Bearer forgotten"})
    assert "`fiftytwo admin-key`" in refused.json()["remedy"]

    assert main(["admin-key", "--data-dir", str(settings.data_dir), "--json"]) == 0
    secret = json.loads(capsys.readouterr().out)["key"]
    found = TestClient(service, headers={"Authorization": f"Bearer {secret}"})
    made = found.get("/v1/keys").json()["data"][0]
    assert (made["name"], made["role"], made["tenant"]) == ("recovered", "admin", "default")
    entry = found.get("/v1/audit").json()["data"][0]
    assert (entry["action"], entry["subject_id"], entry["key"]) == ("key.create", made["id"], made["id"])
    assert entry["detail"] == {"role": "admin", "name": "recovered"}
    assert found.delete(f"/v1/keys/{lost}").status_code == 204
    assert admin.get("/v1/keys").status_code == 401


def test_a_wrong_folder_is_said_and_not_filled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["admin-key", "--data-dir", str(tmp_path / "typo")]) == 2
    assert "--data-dir DIR" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_database_without_its_tables_names_the_next_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "fiftytwo.db").touch()
    assert main(["admin-key", "--data-dir", str(tmp_path)]) == 2
    printed = capsys.readouterr().err
    assert "no such table" in printed
    assert "fiftytwo migrate" in printed
    assert "Traceback" not in printed
