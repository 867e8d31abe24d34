"""The history: every user's own results and nobody else's."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, delete, func, select
from sqlalchemy.dialects.postgresql import insert as insert_postgresql
from sqlalchemy.dialects.sqlite import insert as insert_sqlite
from sqlalchemy.orm import Session

from cxr.serve.store.rows import FILE_NAME_CHARS, PredictionRow, Usage

REFUSED = "refused"
"""What the history calls the outcome of an image that was refused; no class may be named so."""


@dataclass(frozen=True)
class Page:
    """A page of the history.

    Attributes:
        rows: newest first.
        total: rows on all pages.
        number: of this page, from 1.
        pages: how many there are, at least 1.
    """

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
    add_usage(session, row.user_id, row.origin, refused=row.refused, now=row.created_at)


def add_usage(session: Session, user_id: int, origin: str, *, refused: bool, now: datetime) -> None:
    """Count one image of a user's day."""
    sqlite = session.get_bind().dialect.name == "sqlite"
    insert = insert_sqlite if sqlite else insert_postgresql
    row = insert(Usage).values(
        user_id=user_id, day=now.date(), origin=origin, films=1, refused=int(refused)
    )
    more = {"films": Usage.films + 1, "refused": Usage.refused + int(refused)}
    session.execute(
        row.on_conflict_do_update(index_elements=["user_id", "day", "origin"], set_=more)
    )


def own_prediction(session: Session, user_id: int, prediction_id: str) -> PredictionRow | None:
    """Return a user's own result, or None: there is none, or it is another user's."""
    query = select(PredictionRow).where(
        PredictionRow.id == prediction_id, PredictionRow.user_id == user_id
    )
    return session.execute(query).scalar_one_or_none()


def own_predictions(
    session: Session,
    user_id: int,
    *,
    search: str = "",
    outcome: str = "",
    page: int = 1,
    per_page: int = 20,
) -> Page:
    """Return a page of a user's own results.

    Args:
        session: a reading one.
        user_id: whose.
        search: part of an image's name or of an outcome, in any case of letters.
        outcome: a class or ``refused``; any by default.
        page: from 1; beyond the last one the last one is returned.
        per_page: rows on a page.
    """
    query = _matching(select(PredictionRow), user_id, search, outcome)
    counted = _matching(select(func.count()).select_from(PredictionRow), user_id, search, outcome)
    total = session.execute(counted).scalar_one()
    pages = max(1, -(-total // per_page))
    number = min(max(1, page), pages)
    newest = query.order_by(PredictionRow.created_at.desc(), PredictionRow.id)
    rows = session.execute(newest.limit(per_page).offset((number - 1) * per_page)).scalars().all()
    return Page(rows, total, number, pages)


def own_outcomes(session: Session, user_id: int) -> list[str]:
    """Return the outcomes that a user's history holds, by alphabet."""
    query = select(PredictionRow.label).where(PredictionRow.user_id == user_id).distinct()
    return sorted(label or REFUSED for label in session.execute(query).scalars())


def delete_prediction(session: Session, user_id: int, prediction_id: str) -> str | None:
    """Delete a user's own result; return the stem of its files, or None where there is none."""
    gone = (
        delete(PredictionRow)
        .where(PredictionRow.id == prediction_id, PredictionRow.user_id == user_id)
        .returning(PredictionRow.stem)
    )
    return session.execute(gone).scalar_one_or_none()


def delete_all_predictions(session: Session, user_id: int) -> list[str]:
    """Delete a user's history; return the stems of its files."""
    gone = delete(PredictionRow).where(PredictionRow.user_id == user_id)
    return list(session.execute(gone.returning(PredictionRow.stem)).scalars())


def delete_older(session: Session, before: datetime) -> list[str]:
    """Delete everybody's results from before a moment; return the stems of their files."""
    gone = delete(PredictionRow).where(PredictionRow.created_at < before)
    return list(session.execute(gone.returning(PredictionRow.stem)).scalars())


def known_stems(session: Session, stems: Sequence[str]) -> set[str]:
    """Return which of the stems belong to a result."""
    known: set[str] = set()
    for start in range(0, len(stems), 500):
        some = select(PredictionRow.stem).where(PredictionRow.stem.in_(stems[start : start + 500]))
        known |= set(session.execute(some).scalars())
    return known


def _matching(query: Select[Any], user_id: int, search: str, outcome: str) -> Select[Any]:
    query = query.where(PredictionRow.user_id == user_id)
    if outcome:
        query = query.where(PredictionRow.label == ("" if outcome == REFUSED else outcome))
    for word in search.split():
        part = word.lower()
        hit = func.lower(PredictionRow.name).contains(part, autoescape=True)
        hit |= PredictionRow.label.contains(part, autoescape=True)
        query = query.where(hit)
    return query
