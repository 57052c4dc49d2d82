"""Knows rows again that were uploaded before, so that a copy, a part or a mixture of them shares their budget.

By content: the hashes of the rows, of all of them up to `SKETCHED`, and of those with the smallest hashes beyond, so
that a few rows of a very large file may go unnoticed. A determined user can get round this by changing each row a
little; nobody does so by accident.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from app.database import insert_into
from app.datasets.models import Dataset
from app.privacy import repository
from app.privacy.models import PrivacyEntry, PrivacyRow
from engine.rows import groups_to_train_on

SKETCHED = 16_384
LOOKED_UP = 65_536
SHARED = 0.01
"""The share of the smaller of two that makes them one subject."""
_AT_A_TIME = 1_000
_WHOLE = 2**256

Hashes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Content:
    """What a file tells of itself: hashes of its rows, sorted; the number of groups to train on; which row is whose."""

    hashes: Hashes
    groups: int | None
    grouping: str | None = None

    @classmethod
    def read(cls, path: Path) -> "Content":
        """Read a canonical file's small columns."""
        names: set[str] = set()
        ids: list[npt.NDArray[np.int64]] = []
        grouping = 0
        with pq.ParquetFile(path) as file:
            there = set(file.schema_arrow.names)
            grouped = "group" in there
            columns = [name for name in ("id", "group", "split") if name in there]
            for batch in file.iter_batches(columns=columns, use_threads=False):
                ids.append(_as_integers(batch["id"].to_pylist()))
                if grouped:
                    grouping += _assigned(batch["id"].to_pylist(), batch["group"].to_pylist())
                    splits = batch["split"].to_pylist() if "split" in there else None
                    names |= groups_to_train_on(batch["group"].to_pylist(), splits)
        hashes = np.unique(np.concatenate(ids)) if ids else np.zeros(0, np.int64)
        if not grouped:
            return cls(hashes, None)
        return cls(hashes, len(names), f"{grouping % _WHOLE:064x}")

    def place(self, session: Session, tenant: str, sha256: str) -> tuple[str, bool]:
        """Find the subject of newly uploaded rows, or make one; subjects that the rows tie together become one.

        Returns:
            The subject, and whether it has a budget.
        """
        repository.lock(session, [tenant])
        same = select(Dataset.lineage).where(Dataset.tenant == tenant, Dataset.sha256 == sha256).limit(1)
        known = session.scalar(same)
        subjects = {known} if known is not None else _overlapping(session, tenant, self.hashes)
        subject = min(subjects, default=sha256)
        for other in sorted(subjects - {subject}):
            _merge(session, tenant, other, subject)
        _remember(session, tenant, subject, self.hashes[:SKETCHED])
        account = repository.account(session, tenant, subject)
        return subject, account is not None and account.epsilon is not None


def _assigned(ids: Sequence[str], groups: Sequence[str | None]) -> int:
    """The sum of a hash for each row with its group: the same in any order of the rows."""
    pairs = (f"{row}\n{group or ''}" for row, group in zip(ids, groups, strict=True))
    return sum(int.from_bytes(hashlib.sha256(pair.encode()).digest(), "big") for pair in pairs)


def _as_integers(ids: Sequence[str]) -> Hashes:
    """The first 63 bits of each id, a hash in hex, so that both databases can hold it."""
    return np.array([int(one[:16], 16) >> 1 for one in ids], dtype=np.int64)


def _overlapping(session: Session, tenant: str, hashes: Hashes) -> set[str]:
    """The subjects of which these rows hold more than a hundredth, or which hold that of these rows."""
    looked_up = hashes[:LOOKED_UP]
    hits: dict[str, int] = {}
    for start in range(0, len(looked_up), _AT_A_TIME):
        some = looked_up[start : start + _AT_A_TIME].tolist()
        query = select(PrivacyRow.subject, func.count()).where(
            PrivacyRow.tenant == tenant, PrivacyRow.row_hash.in_(some)
        )
        for subject, count in session.execute(query.group_by(PrivacyRow.subject)):
            hits[subject] = hits.get(subject, 0) + count
    return {
        subject for subject, count in hits.items() if count > SHARED * _smaller(session, tenant, subject, looked_up)
    }


def _smaller(session: Session, tenant: str, subject: str, looked_up: Hashes) -> int:
    """How many rows the smaller of the two has where both are known: below the last hash of either."""
    mine = (PrivacyRow.tenant == tenant, PrivacyRow.subject == subject)
    total, last = session.execute(select(func.count(), func.max(PrivacyRow.row_hash)).where(*mine)).one()
    theirs = total
    if len(looked_up) == LOOKED_UP:
        below = (PrivacyRow.row_hash <= int(looked_up[-1]),)
        theirs = session.scalar(select(func.count()).where(*mine, *below)) or 0
    ours = len(looked_up) if total < SKETCHED else int(np.searchsorted(looked_up, last, side="right"))
    return int(min(theirs, ours))


def _merge(session: Session, tenant: str, old: str, new: str) -> None:
    """Let two subjects be one: what was spent on either was spent on it, and the tighter budget holds.

    The data sets are held before the accounts are read: a job that begins to read them plainly notes that first.
    """
    repository.hold_datasets(session, tenant, old, new)
    for table, column in (
        (Dataset, Dataset.lineage),
        (PrivacyEntry, PrivacyEntry.subject),
        (PrivacyRow, PrivacyRow.subject),
    ):
        statement = update(table).where(table.tenant == tenant, column == old).values({column.key: new})
        session.execute(statement.execution_options(synchronize_session=False))
    first, second = (repository.account(session, tenant, one) for one in (new, old))
    if first is None and second is not None:
        second.subject = new
    elif first is not None and second is not None:
        repository.tighten(first, second)
        session.delete(second)
    session.flush()
    repository.mark_budgeted(session, tenant, new)


def _remember(session: Session, tenant: str, subject: str, hashes: Hashes) -> None:
    if not len(hashes):
        return
    statement = insert_into(session, PrivacyRow).on_conflict_do_nothing()
    rows = [{"tenant": tenant, "row_hash": one, "subject": subject} for one in hashes.tolist()]
    for start in range(0, len(rows), _AT_A_TIME):
        session.execute(statement, rows[start : start + _AT_A_TIME])
