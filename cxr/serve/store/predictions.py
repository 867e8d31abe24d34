"""The history: every user's own results and nobody else's."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, delete, func, select
from sqlalchemy.orm import Session

from cxr.serve.store.rows import FILE_NAME_CHARS, PredictionRow, Usage, add_counts

REFUSED = "refused"
"""What the history calls the outcome of an image that was refused; no class may be named so."""


@dataclass(frozen=True)
class Page:
    """A page of the history."""

    rows: Sequence[PredictionRow]
    """Newest first."""
    total: int
    """Rows on all pages."""
    number: int
    """Of this page, from 1."""
    pages: int
    """How many there are, at least 1."""


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
    matching = _matching(user_id, search, outcome)
    counted = select(func.count()).select_from(PredictionRow).where(*matching)
    total = session.execute(counted).scalar_one()
    pages = max(1, -(-total // per_page))
    number = min(max(1, page), pages)
    newest = (PredictionRow.created_at.desc(), PredictionRow.id)
    query = select(PredictionRow).where(*matching).order_by(*newest)
    rows = session.scalars(query.limit(per_page).offset((number - 1) * per_page)).all()
    return Page(rows, total, number, pages)


def own_outcomes(session: Session, user_id: int) -> list[str]:
    """Return the outcomes that a user's history holds, by alphabet."""
    query = select(PredictionRow.label).where(PredictionRow.user_id == user_id).distinct()
    return sorted(label or REFUSED for label in session.scalars(query))


def delete_prediction(session: Session, user_id: int, prediction_id: str) -> str | None:
    """Delete a user's own result; return the stem of its files, or None where there is none."""
    return next(iter(_delete(session, *_own(user_id, prediction_id))), None)


def delete_all_predictions(session: Session, user_id: int) -> list[str]:
    """Delete a user's history; return the stems of its files."""
    return _delete(session, PredictionRow.user_id == user_id)


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


def _own(user_id: int, prediction_id: str) -> tuple[ColumnElement[bool], ...]:
    return PredictionRow.id == prediction_id, PredictionRow.user_id == user_id


def _delete(session: Session, *rules: ColumnElement[bool]) -> list[str]:
    gone = delete(PredictionRow).where(*rules).returning(PredictionRow.stem)
    return list(session.scalars(gone))


def _matching(user_id: int, search: str, outcome: str) -> list[ColumnElement[bool]]:
    rules: list[ColumnElement[bool]] = [PredictionRow.user_id == user_id]
    if outcome:
        rules.append(PredictionRow.label == ("" if outcome == REFUSED else outcome))
    for word in search.lower().split():
        hit = func.lower(PredictionRow.name).contains(word, autoescape=True)
        rules.append(hit | PredictionRow.label.contains(word, autoescape=True))
    return rules
