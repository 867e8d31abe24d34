"""Rates that hold across processes: how often something happened in the last while."""

import hashlib
from datetime import UTC, datetime

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from cxr.serve.store.rows import Counter, add_counts


def count_hit(session: Session, key: str, *, limit: int, window_s: int, now: datetime) -> int:
    """Count something, such as ``predict:7``; what is over its limit is not counted.

    The last window's count fades linearly while the present one grows, so that a limit cannot
    be used twice around a border. Return 0 within it, else the seconds until one is allowed.
    """
    windows, position = divmod(now.timestamp(), window_s)
    name, slot = _name(key), int(windows)
    expires = datetime.fromtimestamp((slot + 2) * window_s, UTC)
    keys = {"key": name, "slot": slot}
    added = add_counts(session, Counter, keys, {"count": 1}, expires_at=expires)
    present = session.execute(added.returning(Counter.count)).scalar_one() - 1
    last = select(Counter.count).where(Counter.key == name, Counter.slot == slot - 1)
    before = session.scalar(last) or 0
    if present + 1 + before * (1 - position / window_s) <= limit:
        return 0
    take_back(session, key, window_s=window_s, now=now)
    room = limit - 1
    if present <= room:
        fits_at = window_s * (1 - (room - present) / max(before, 1))
    else:
        fits_at = window_s * (2 - max(room, 0) / present)
    return max(1, int(fits_at - position) + 1)


def take_back(session: Session, key: str, *, window_s: int, now: datetime) -> None:
    """Uncount one, such as a try to sign in that was right."""
    here = (Counter.key == _name(key), Counter.slot == int(now.timestamp() // window_s))
    less = update(Counter).where(*here, Counter.count > 0).values(count=Counter.count - 1)
    session.execute(less)


def drop_expired(session: Session, now: datetime) -> None:
    """Delete counters whose windows are over."""
    session.execute(delete(Counter).where(Counter.expires_at < now))


def _name(key: str) -> str:
    """Hide addresses and account names: who can read the database need not see them here."""
    return hashlib.sha256(key.encode()).hexdigest()
