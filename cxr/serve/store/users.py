"""Accounts, who is signed in, and API tokens: shown once, stored as a digest."""

import hashlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, ScalarSelect, delete, func, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from cxr.errors import InputError
from cxr.serve.store.rows import NAME_CHARS, ROLES, LoginSession, PredictionRow, Token, Usage, User

_NAME = re.compile(r"[a-z0-9][a-z0-9._@+-]*")
SEEN_EVERY = timedelta(seconds=60)
"""The last use of a session or a token is written at most this often."""
PREFIX = "cxr_"
"""Begins every token, so that scanners for leaked secrets can know one."""
MOST_TOKENS = 20
"""Tokens that one account may have."""


@dataclass(frozen=True)
class UserUsage:
    """An account and how much it uses."""

    user: User
    images: int
    """Since the account was made, deleted ones included."""
    refused: int
    images_30_days: int
    kept: int
    """In the history now."""


def digest_secret(secret: str) -> str:
    """Return what is stored of a random secret: its SHA-256; nobody guesses 256 random bits."""
    return hashlib.sha256(secret.encode()).hexdigest()


def clean_name(name: str) -> str:
    """Return an account name as it is stored.

    Raises:
        InputError: empty, too long, or other than letters, digits and ``. _ @ + -``.
    """
    lowered = name.strip().lower()
    if len(lowered) > NAME_CHARS or not _NAME.fullmatch(lowered):
        raise InputError(
            f"{name[:80]!r} cannot be an account's name: 1 to {NAME_CHARS} letters, digits and "
            ". _ @ + - are allowed, beginning with a letter or digit"
        )
    return lowered


def add_user(
    session: Session, name: str, password_hash: str, *, role: str = "user", now: datetime
) -> User:
    """Make an account.

    Raises:
        InputError: the name is taken or not allowed, or an unknown role.
    """
    name = clean_name(name)
    if role not in ROLES:
        raise InputError(f"role is {role!r}: allowed are {', '.join(ROLES)}")
    if find_user(session, name) is not None:
        raise InputError(f"the account {name!r} exists already: choose another name")
    user = User(name=name, password_hash=password_hash, role=role, disabled=False, created_at=now)
    session.add(user)
    session.flush()
    return user


def find_user(session: Session, name: str) -> User | None:
    """Return the account of a name, in any case of letters, or None."""
    return session.scalar(select(User).where(User.name == name.strip().lower()))


def need_user(session: Session, name: str) -> User:
    """Return the account of a name, or raise InputError: there is none."""
    user = find_user(session, name)
    if user is None:
        raise InputError(f"there is no account {name[:80]!r}: see the command users list")
    return user


def set_password(session: Session, user_id: int, password_hash: str) -> None:
    """Change the password's hash and end every session of the account."""
    session.get_one(User, user_id).password_hash = password_hash
    end_sessions(session, user_id)


def set_disabled(session: Session, user_id: int, disabled: bool) -> None:
    """Bar an account or let it in again; barring ends its sessions, its tokens stop working."""
    session.get_one(User, user_id).disabled = disabled
    if disabled:
        end_sessions(session, user_id)


def begin_session(session: Session, user: User, now: datetime) -> str:
    """Sign a user in; return the secret for the cookie, of which the digest alone is stored."""
    secret = secrets.token_urlsafe(32)
    digest = digest_secret(secret)
    session.add(LoginSession(digest=digest, user_id=user.id, created_at=now, seen_at=now))
    session.get_one(User, user.id).login_at = now
    return secret


def session_user(
    session: Session, secret: str, *, now: datetime, lifetime: timedelta, idle: timedelta
) -> tuple[User, bool] | None:
    """Return who is signed in by what a cookie holds, for a lifetime or until idle for too long.

    Returns:
        The account and whether ``touch_session`` is due, or None: unknown, ended, expired or
        disabled.
    """
    query = (
        select(User, LoginSession)
        .join(LoginSession, LoginSession.user_id == User.id)
        .where(LoginSession.digest == digest_secret(secret), User.disabled.is_(False))
    )
    row = session.execute(query).one_or_none()
    if row is None:
        return None
    user, login = row
    if now - login.created_at > lifetime or now - login.seen_at > idle:
        return None
    return user, now - login.seen_at > SEEN_EVERY


def touch_session(session: Session, secret: str, now: datetime) -> None:
    """Write down that a session is in use."""
    if row := session.get(LoginSession, digest_secret(secret)):
        row.seen_at = now


def end_session(session: Session, secret: str) -> None:
    """Sign out one session."""
    session.execute(delete(LoginSession).where(LoginSession.digest == digest_secret(secret)))


def end_sessions(session: Session, user_id: int) -> None:
    """Sign out every session of an account."""
    session.execute(delete(LoginSession).where(LoginSession.user_id == user_id))


def drop_old_sessions(session: Session, before: datetime) -> None:
    """Delete sessions that began before a moment."""
    session.execute(delete(LoginSession).where(LoginSession.created_at < before))


def create_token(
    session: Session, user_id: int, name: str, *, now: datetime, days: int | None = None
) -> tuple[str, Token]:
    """Make a token that lasts some days, or for ever.

    Returns:
        The token itself, never to be seen again, and its row.

    Raises:
        InputError: an empty or too long name, too many tokens, or no positive number of days.
    """
    name = " ".join(name.split())
    if not 1 <= len(name) <= NAME_CHARS or not name.isprintable():
        raise InputError(
            f"a token's name has {len(name)} characters: 1 to {NAME_CHARS} printable are allowed"
        )
    if days is not None and not 1 <= days <= 3660:
        raise InputError(f"a token cannot last {days} days: allowed are 1 to 3660")
    if len(list_tokens(session, user_id)) >= MOST_TOKENS:
        raise InputError(f"the account has {MOST_TOKENS} tokens, the most: revoke one first")
    secret = PREFIX + secrets.token_urlsafe(32)
    expires = None if days is None else now + timedelta(days=days)
    token = Token(
        user_id=user_id,
        name=name,
        digest=digest_secret(secret),
        hint=secret[:10],
        created_at=now,
        expires_at=expires,
    )
    session.add(token)
    session.flush()
    return secret, token


def token_user(session: Session, secret: str, now: datetime) -> tuple[User, Token] | None:
    """Return whose token this is and its row, or None: unknown, expired or account disabled."""
    query = (
        select(User, Token)
        .join(Token, Token.user_id == User.id)
        .where(
            Token.digest == digest_secret(secret),
            User.disabled.is_(False),
            or_(Token.expires_at.is_(None), Token.expires_at > now),
        )
    )
    row = session.execute(query).one_or_none()
    return row and (row[0], row[1])


def is_touch_due(token: Token, now: datetime) -> bool:
    """Whether ``touch_token`` is due; not at every request, for it writes."""
    return token.used_at is None or now - token.used_at > SEEN_EVERY


def touch_token(session: Session, token_id: int, now: datetime) -> None:
    """Write down that a token is in use."""
    if token := session.get(Token, token_id):
        token.used_at = now


def list_tokens(session: Session, user_id: int) -> Sequence[Token]:
    """Return an account's tokens, newest first."""
    query = select(Token).where(Token.user_id == user_id).order_by(Token.id.desc())
    return session.scalars(query).all()


def revoke_token(session: Session, user_id: int, token_id: int) -> bool:
    """Delete an account's own token; return whether there was one."""
    mine = delete(Token).where(Token.id == token_id, Token.user_id == user_id)
    return session.scalar(mine.returning(Token.id)) is not None


def revoke_tokens(session: Session, user_id: int) -> None:
    """Delete every token of an account."""
    session.execute(delete(Token).where(Token.user_id == user_id))


def list_usage(session: Session, now: datetime) -> list[UserUsage]:
    """Return the accounts by name with how much they use."""
    recently = Usage.day >= (now - timedelta(days=30)).date()
    kept = select(func.count()).where(PredictionRow.user_id == User.id).scalar_subquery()
    sums = (_sum(Usage.films), _sum(Usage.refused), _sum(Usage.films, recently))
    rows = session.execute(select(User, *sums, kept).order_by(User.name))
    return [UserUsage(row[0], *map(int, row[1:])) for row in rows]


def _sum(column: InstrumentedAttribute[int], *rules: ColumnElement[bool]) -> ScalarSelect[int]:
    """Return a column of the usage, added up for each user of the query around it."""
    total = select(func.coalesce(func.sum(column), 0))
    return total.where(Usage.user_id == User.id, *rules).scalar_subquery()
