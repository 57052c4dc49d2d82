"""Rows are known again: copies, parts and mixtures of them share one account, and nothing that is erased resets it."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.database import Database
from app.datasets.models import Dataset
from app.privacy import lineage, repository
from app.privacy.lineage import Content
from app.privacy.models import PrivacyAccount
from engine.data import Source
from engine.job import clients_of
from tests.app.privacy.conftest import private_job, put_dataset

BUDGET = {"epsilon": 2.0, "delta": 1e-5}


def lines(texts: list[str]) -> bytes:
    return "".join(
        json.dumps({"text": text, "label": i % 2, "who": text[-1]}) + "\n" for i, text in enumerate(texts)
    ).encode()


def upload(client: TestClient, texts: list[str]) -> str:
    data = {"task": "text_classification", "group_column": "who"}
    answer = client.post("/v1/datasets", data=data, files={"file": ("rows.jsonl", lines(texts))})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def test_the_same_rows_uploaded_again_have_the_budget_and_what_was_spent(admin: TestClient, service: FastAPI) -> None:
    texts = [f"text number {i}" for i in range(1_000)]
    first = upload(admin, texts)
    admin.put(f"/v1/privacy/budgets/{first}", json=BUDGET)
    job = admin.post("/v1/jobs", json=private_job(first)).json()["id"]
    spent = admin.get("/v1/privacy/budgets").json()["data"][0]["spent"]
    assert spent > 0
    service.state.dataset_readers = lambda *_: []
    assert admin.delete(f"/v1/datasets/{first}").status_code == 204
    # The same file, another order, a tenth of the rows, and these among others.
    for again in (texts, texts[::-1], texts[:100], [f"another {i}" for i in range(500)] + texts[:20]):
        other = upload(admin, again)
        told = admin.get("/v1/privacy/budgets").json()["data"]
        assert [one["spent"] for one in told if other in one["datasets"]] == [spent]
        plain = admin.post("/v1/jobs", json={"task": "text_classification", "dataset": other})
        assert [fault["code"] for fault in plain.json()["errors"]] == ["needs_privacy"]
    unrelated = upload(admin, [f"nobody knows {i}" for i in range(500)])
    assert admin.post("/v1/jobs", json={"task": "text_classification", "dataset": unrelated}).status_code == 202
    assert [one["job"] for one in admin.get(f"/v1/privacy/ledger?dataset={other}").json()["data"]] == [job]


def test_groups_are_counted(admin: TestClient, service: FastAPI) -> None:
    one = upload(admin, [f"text number {i}" for i in range(57)])
    with service.state.database.reading() as session:
        found = session.get(Dataset, one)
        assert found is not None
        assert found.groups == 10


def test_another_tenant_has_an_account_of_its_own(
    admin: TestClient, client_for: Callable[..., TestClient], service: FastAPI, tmp_path: Path
) -> None:
    mine, theirs = put_dataset(service, tmp_path), put_dataset(service, tmp_path, tenant="other")
    admin.put(f"/v1/privacy/budgets/{mine}", json=BUDGET)
    other = client_for("other")
    assert other.get("/v1/privacy/budgets").json()["data"] == []
    assert other.post("/v1/jobs", json={"task": "text_classification", "dataset": theirs}).status_code == 202


def content(ids: Any) -> Content:
    return Content(np.unique(np.asarray(ids, dtype=np.int64)), None)


@pytest.mark.parametrize(
    ("first", "second", "one"),
    [
        (range(0, 300), range(0, 300), True),
        (range(0, 300), range(297, 600), False),  # three of three hundred are a hundredth, and no more
        (range(0, 300), range(296, 600), True),
        (range(0, 100_000), range(50_000, 50_200), True),  # a part of many
        (range(50_000, 50_200), range(0, 100_000), True),
        (range(0, 100_000), range(100_000, 100_200), False),
    ],
)
def test_what_shares_rows_is_one_subject(database: Database, first: range, second: range, one: bool) -> None:
    scattered = np.random.default_rng(1).integers(0, 2**62, 110_000)
    with database.session() as session:
        placed = [content(scattered[list(rows)]).place(session, "t", str(i)) for i, rows in enumerate((first, second))]
    assert (placed[0][0] == placed[1][0]) is one


def test_subjects_that_are_tied_together_keep_the_tighter_budget(database: Database) -> None:
    with database.session() as session:
        for name, rows, epsilon, delta in (("a", range(100), 3.0, 1e-6), ("b", range(100, 200), 2.0, 1e-5)):
            subject, _ = content(rows).place(session, "t", name)
            session.add(
                PrivacyAccount(
                    id=name,
                    tenant="t",
                    subject=subject,
                    epsilon=epsilon,
                    delta=delta,
                    order=epsilon,
                    created_at=datetime.now(UTC),
                )
            )
        session.flush()
        subject, budgeted = content(range(50, 150)).place(session, "t", "c")
        account = repository.account(session, "t", subject)
        assert account is not None
        assert (subject, budgeted) == ("a", True)
        assert (account.epsilon, account.delta, account.order) == (2.0, 1e-6, 2.0)
        assert repository.account(session, "t", "b") is None


def test_the_hashes_of_a_file_are_those_of_its_rows(tmp_path: Path) -> None:
    ids = ["ffffffffffffffff", "0000000000000002", "0000000000000002"]
    pq.write_table(pa.table({"id": ids, "group": ["a", None, "b"]}), tmp_path / "rows.parquet")
    read = Content.read(tmp_path / "rows.parquet")
    assert read.hashes.tolist() == [1, 2**63 - 1]
    assert read.groups == 2
    assert lineage.SKETCHED < lineage.LOOKED_UP


def test_clients_whose_rows_are_all_held_out_do_not_count(admin: TestClient, service: FastAPI) -> None:
    rows = [
        {"text": f"text number {i}", "label": i % 2, "who": f"client {who}", "split": split}
        for i, (who, split) in enumerate([("a", "train"), ("b", "train"), ("b", "test"), ("c", "test"), ("d", "valid")])
    ]
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    data = {"task": "text_classification", "group_column": "who"}
    answer = admin.post("/v1/datasets", data=data, files={"file": ("rows.jsonl", content)})
    assert answer.status_code == 201, answer.text
    with service.state.database.reading() as session:
        found = session.get(Dataset, answer.json()["id"])
        assert found is not None
        assert found.groups == 2
        # The run counts alike, or it would plan other draws than the ledger has reserved.
        path = service.state.storage.local_path(found.storage_key)
    assert clients_of(Source.open(path)) == 2
