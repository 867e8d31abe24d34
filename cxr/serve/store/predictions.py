"""The history: every user's own results and nobody else's."""

import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import ColumnElement, delete, func, select
from sqlalchemy.orm import Session

from cxr.serve.store.rows import FILE_NAME_CHARS, PredictionRow, Usage, add_counts

REFUSED = "refused"
"""What the history calls the outcome of an image that was refused; no class may be named so."""
PER_PAGE = 20


class Page(NamedTuple):
    """A page of the history, newest first: of how many rows, its number from 1, of how many."""

    rows: Sequence[PredictionRow]
    total: int
    number: int
    pages: int


def new_id() -> str:
    """Return 128 random bits for an address that cannot be guessed."""
    return secrets.token_urlsafe(16)


def clean_file_name(name: str) -> str:
    """Return what the history calls an image: the last part of a path, printable, not too long."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    shown = " ".join("".join(letter for letter in last if letter.isprintable()).split())
    if len(shown) > FILE_NAME_CHARS:
        half = FILE_NAME_CHARS // 2
        shown = f"{shown[: half - 1]}…{shown[-half:]}"
    return shown or "image"


def save_prediction(session: Session, row: PredictionRow) -> None:
    """Add a result to its user's history, and to the usage of the day."""
    session.add(row)
    session.flush()
    keys = {"user_id": row.user_id, "day": row.created_at.date(), "origin": row.origin}
    counts = {"films": 1, "refused": int(row.refused)}
    session.execute(add_counts(session, Usage, keys, counts))


def own_prediction(session: Session, user_id: int, prediction_id: str) -> PredictionRow | None:
    """Return a user's own result, or None: there is none, or it is another user's."""
    return session.scalar(select(PredictionRow).where(*_own(user_id, prediction_id)))


def own_predictions(
    session: Session, user_id: int, *, search: str = "", outcome: str = "", page: int = 1
) -> Page:
    """Return a page, from 1, of a user's own results; beyond the last one the last one.

    ``search`` are parts of an image's name or of an outcome, in any case of letters; ``outcome`` a
    class or ``refused``.
    """
    rules = [PredictionRow.user_id == user_id]
    if outcome:
        rules.append(PredictionRow.label == ("" if outcome == REFUSED else outcome))
    for word in search.lower().split():
        hit = func.lower(PredictionRow.name).contains(word, autoescape=True)
        rules.append(hit | PredictionRow.label.contains(word, autoescape=True))
    counted = select(func.count()).select_from(PredictionRow).where(*rules)
    total = session.execute(counted).scalar_one()
    pages = max(1, -(-total // PER_PAGE))
    number = min(max(1, page), pages)
    newest = (PredictionRow.created_at.desc(), PredictionRow.id)
    query = select(PredictionRow).where(*rules).order_by(*newest)
    rows = session.scalars(query.limit(PER_PAGE).offset((number - 1) * PER_PAGE)).all()
    return Page(rows, total, number, pages)


def own_outcomes(session: Session, user_id: int) -> list[str]:
    """Return the outcomes that a user's history holds, by alphabet."""
    query = select(PredictionRow.label).where(PredictionRow.user_id == user_id).distinct()
    return sorted(label or REFUSED for label in session.scalars(query))


def delete_own(session: Session, user_id: int, prediction_id: str | None = None) -> list[str]:
    """Delete a user's own result, or the whole history; return the stems of the files."""
    return _delete(session, *_own(user_id, prediction_id))


def delete_older(session: Session, before: datetime) -> list[str]:
    """Delete everybody's results from before a moment; return the stems of their files."""
    return _delete(session, PredictionRow.created_at < before)


def known_stems(session: Session, stems: Sequence[str]) -> set[str]:
    """Return which of the stems belong to a result."""
    known: set[str] = set()
    for start in range(0, len(stems), 500):
        some = PredictionRow.stem.in_(stems[start : start + 500])
        known |= set(session.scalars(select(PredictionRow.stem).where(some)))
    return known


def _own(user_id: int, prediction_id: str | None) -> list[ColumnElement[bool]]:
    mine = PredictionRow.user_id == user_id
    return [mine] if prediction_id is None else [mine, PredictionRow.id == prediction_id]


def _delete(session: Session, *rules: ColumnElement[bool]) -> list[str]:
    return list(session.scalars(delete(PredictionRow).where(*rules).returning(PredictionRow.stem)))
