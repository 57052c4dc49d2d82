"""What else happens in the transaction that moves a job: its account is settled, and files that it alone needed go."""

from sqlalchemy.orm import Session

from app.jobs import files
from app.jobs.states import TERMINAL, Move, Mover
from app.privacy import settlement


def follow(session: Session, job_id: str, move: Move) -> None:
    """Follow a move that was made: nobody has to remember to, whoever ends a job, or finds it lost."""
    if move.mover is Mover.RESCUE:
        settlement.lose(session, job_id)
    if move.target in TERMINAL:
        settlement.settle(session, job_id)
        files.drop(session, job_id)
