"""The tables of experiments: what is compared, its jobs, the items that people judge, their ballots and their keys.

Knows no query and no rule.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Float, ForeignKey, Index, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from app.database import Base, UtcDateTime
from app.jobs.models import Document

BASELINE = 0
"""The number of the baseline among the arms; treatments count from 1 in the order of the request."""


class Experiment(Base):
    """What is compared. Its state is that of its jobs, and stands nowhere else but in `cancelled_at`."""

    __tablename__ = "experiments"
    __table_args__ = (Index("ix_experiments_tenant_id", "tenant", "id"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    tenant: Mapped[str] = mapped_column(String(63))
    name: Mapped[str | None] = mapped_column(String(200))
    task: Mapped[str] = mapped_column(String(32))
    metric: Mapped[str] = mapped_column(String(32))
    dataset_id: Mapped[str] = mapped_column(String(40))
    """The data set that holds the test rows; it may have been erased since."""
    baseline: Mapped[dict[str, Any]] = mapped_column(Document)
    treatments: Mapped[list[dict[str, Any]]] = mapped_column(Document)
    seeds: Mapped[list[int]] = mapped_column(Document)
    margin: Mapped[float] = mapped_column(Float)
    human_items: Mapped[int | None] = mapped_column(Integer)
    """How many items people are to judge; None: they are not asked."""
    secret: Mapped[str] = mapped_column(String(64))
    """What the sides and the order of ballots are drawn by, so that nobody can work them out."""
    figures: Mapped[dict[str, Any] | None] = mapped_column(Document)
    """What the arms come to, computed once after all jobs have ended."""
    cancelled_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class ExperimentJob(Base):
    """The job of one arm with one seed; a job that was erased is known by its id alone."""

    __tablename__ = "experiment_jobs"

    experiment_id: Mapped[str] = mapped_column(ForeignKey("experiments.id", ondelete="CASCADE"), primary_key=True)
    arm: Mapped[int] = mapped_column(Integer, primary_key=True)
    seed: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    job_id: Mapped[str] = mapped_column(String(40))


class ExperimentItem(Base):
    """A test row that people judge, with what each arm says of it. It goes with the data set that it came from."""

    __tablename__ = "experiment_items"

    experiment_id: Mapped[str] = mapped_column(ForeignKey("experiments.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id", ondelete="CASCADE"), index=True)
    shown: Mapped[dict[str, Any]] = mapped_column(Document)
    answers: Mapped[list[dict[str, Any]]] = mapped_column(Document)
    """By the number of the arm."""


class ExperimentBallot(Base):
    """What one rater says of one item and two arms, once: the primary key is what forbids a second time."""

    __tablename__ = "experiment_ballots"

    experiment_id: Mapped[str] = mapped_column(ForeignKey("experiments.id", ondelete="CASCADE"), primary_key=True)
    rater: Mapped[str] = mapped_column(String(64), primary_key=True)
    item: Mapped[int] = mapped_column(Integer, primary_key=True)
    first_arm: Mapped[int] = mapped_column(Integer, primary_key=True)
    second_arm: Mapped[int] = mapped_column(Integer, primary_key=True)
    """Above `first_arm`; which of the two stood left is no part of what was said."""
    preferred: Mapped[str] = mapped_column(String(8))
    """`first`, `second`, `both` or `neither`."""
    cast_at: Mapped[datetime] = mapped_column(UtcDateTime)


class ExperimentRater(Base):
    """Somebody who judges by a link: the one experiment and name that a key of the role `rater` stands for."""

    __tablename__ = "experiment_raters"

    experiment_id: Mapped[str] = mapped_column(ForeignKey("experiments.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    key_id: Mapped[str] = mapped_column(String(40), unique=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
