"""Rates that hold across processes: how often something happened in the last while."""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import delete, select, update
from sqlalchemy.dialects.postgresql import insert as insert_postgresql
from sqlalchemy.dialects.sqlite import insert as insert_sqlite
from sqlalchemy.orm import Session

from cxr.serve.store.rows import Counter


@dataclass(frozen=True)
class Rate:
    """What a counter says.

    Attributes:
        allowed: whether this one is still within the limit.
        limit: how many are.
        remaining: how many more are.
        retry_after_s: seconds until one is allowed again; 0 where one is.
    """

    allowed: bool
    limit: int
    remaining: int
    retry_after_s: int


def count_hit(
    session: Session, key: str, *, limit: int, window_s: int, now: datetime, amount: int = 1
) -> Rate:
    """Count something and say whether it is within its limit.

    The last window's count fades linearly while the present one grows, so that a limit cannot
    be used twice around a border. What is refused is not counted.

    Args:
        session: a writing one.
        key: what is counted, such as ``predict:7``; stored as a digest.
        limit: most in any window.
        window_s: length of the window in seconds.
        now: the present, with its time zone.
        amount: how many at once.
    """
    slot, position = divmod(now.timestamp(), window_s)
    name = _name(key)
    insert = insert_sqlite if _is_sqlite(session) else insert_postgresql
    row = insert(Counter).values(
        key=name,
        slot=int(slot),
        count=amount,
        expires_at=datetime.fromtimestamp((slot + 2) * window_s, UTC),
    )
    added = row.on_conflict_do_update(
        index_elements=["key", "slot"], set_={"count": Counter.count + amount}
    ).returning(Counter.count)
    present = session.execute(added).scalar_one() - amount
    before = _count(session, name, int(slot) - 1)
    faded = before * (1 - position / window_s)
    if present + amount + faded <= limit:
        return Rate(True, limit, int(limit - present - amount - faded), 0)
    this_slot = (Counter.key == name, Counter.slot == int(slot))
    session.execute(update(Counter).where(*this_slot).values(count=Counter.count - amount))
    room = limit - amount
    if present <= room:
        fits_at = window_s * (1 - (room - present) / max(before, 1))
    else:
        fits_at = window_s * (2 - max(room, 0) / present)
    return Rate(False, limit, 0, max(1, int(fits_at - position) + 1))


def take_back(session: Session, key: str, *, window_s: int, now: datetime) -> None:
    """Uncount one, such as a try to sign in that was right."""
    here = (Counter.key == _name(key), Counter.slot == int(now.timestamp() // window_s))
    less = update(Counter).where(*here, Counter.count > 0).values(count=Counter.count - 1)
    session.execute(less)


def forget(session: Session, key: str) -> None:
    """Set a counter back to nothing."""
    session.execute(delete(Counter).where(Counter.key == _name(key)))


def drop_expired(session: Session, now: datetime) -> None:
    """Delete counters whose windows are over."""
    session.execute(delete(Counter).where(Counter.expires_at < now))


def _count(session: Session, name: str, slot: int) -> int:
    query = select(Counter.count).where(Counter.key == name, Counter.slot == slot)
    return session.execute(query).scalar() or 0


def _name(key: str) -> str:
    """Hide addresses and account names: who can read the database need not see them here."""
    return hashlib.sha256(key.encode()).hexdigest()


def _is_sqlite(session: Session) -> bool:
    return session.get_bind().dialect.name == "sqlite"
