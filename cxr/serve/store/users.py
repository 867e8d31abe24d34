"""Accounts, who is signed in, and API tokens: shown once, stored as a digest."""

import hashlib
import re
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Row, delete, func, or_, select, update
from sqlalchemy.orm import Session

from cxr.errors import InputError
from cxr.serve.store.rows import NAME_CHARS, ROLES, LoginSession, PredictionRow, Token, Usage, User

_NAME = re.compile(r"[a-z0-9][a-z0-9._@+-]*")
SEEN_EVERY = timedelta(seconds=60)
"""The last use of a session or a token is written at most this often."""
PREFIX = "cxr_"
"""Begins every token, so that scanners for leaked secrets can know one."""
MOST_TOKENS = 20
"""Tokens that one account may have."""


def digest_secret(secret: str) -> str:
    """Return what is stored of a random secret: its SHA-256; nobody guesses 256 random bits."""
    return hashlib.sha256(secret.encode()).hexdigest()


def clean_name(name: str) -> str:
    """Return an account's name as stored, or raise InputError: what it allows is in the message."""
    lowered = name.strip().lower()
    if len(lowered) > NAME_CHARS or not _NAME.fullmatch(lowered):
        raise InputError(
            f"{name[:80]!r} cannot be an account's name: 1 to {NAME_CHARS} letters, digits and "
            ". _ @ + - are allowed, beginning with a letter or digit"
        )
    return lowered


def check_new(session: Session, name: str) -> str:
    """Return the name of an account to be made, or raise InputError: taken or not allowed."""
    name = clean_name(name)
    if find_user(session, name) is not None:
        raise InputError(f"the account {name!r} exists already: choose another name")
    return name


def add_user(
    session: Session, name: str, password_hash: str, *, role: str = "user", now: datetime
) -> User:
    """Make an account, or raise InputError: the name is taken or not allowed, an unknown role."""
    name = check_new(session, name)
    if role not in ROLES:
        raise InputError(f"role is {role!r}: allowed are {', '.join(ROLES)}")
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
    end_sessions(session, LoginSession.user_id == user_id)


def set_disabled(session: Session, name: str, disabled: bool) -> None:
    """Bar an account or let it in again; barring ends its sessions, its tokens stop working."""
    user = need_user(session, name)
    user.disabled = disabled
    if disabled:
        end_sessions(session, LoginSession.user_id == user.id)


def begin_session(session: Session, user: User, now: datetime) -> str:
    """Sign a user in; return the secret for the cookie, of which the digest alone is stored."""
    secret = secrets.token_urlsafe(32)
    digest = digest_secret(secret)
    session.add(LoginSession(digest=digest, user_id=user.id, created_at=now, used_at=now))
    session.get_one(User, user.id).login_at = now
    return secret


def session_user(
    session: Session, secret: str, *, now: datetime, lifetime: timedelta, idle: timedelta
) -> tuple[User, LoginSession] | None:
    """Return who is signed in by what a cookie holds, and the session.

    None: unknown, ended, past its lifetime, idle for too long, or the account is disabled.
    """
    young = (LoginSession.created_at >= now - lifetime, LoginSession.used_at >= now - idle)
    return _owner(session, LoginSession, secret, *young)


def is_touch_due(row: LoginSession | Token, now: datetime) -> bool:
    """Whether ``touch`` is due; not at every request, for it writes."""
    return row.used_at is None or now - row.used_at > SEEN_EVERY


def touch(session: Session, row: LoginSession | Token, now: datetime) -> None:
    """Write down that a session or a token is in use."""
    table = type(row)
    session.execute(update(table).where(table.digest == row.digest).values(used_at=now))


def end_sessions(session: Session, *rules: ColumnElement[bool]) -> None:
    """Sign out the sessions that the rules choose."""
    session.execute(delete(LoginSession).where(*rules))


def create_token(
    session: Session, user_id: int, name: str, *, now: datetime, days: int | None = None
) -> tuple[str, Token]:
    """Make a token that lasts some days, or for ever; return it, this once, and its row.

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
    values = {"digest": digest_secret(secret), "hint": secret[:10], "expires_at": expires}
    token = Token(user_id=user_id, name=name, created_at=now, **values)
    session.add(token)
    session.flush()
    return secret, token


def token_user(session: Session, secret: str, now: datetime) -> tuple[User, Token] | None:
    """Return whose token this is and its row, or None: unknown, expired or account disabled."""
    lasts = or_(Token.expires_at.is_(None), Token.expires_at > now)
    return _owner(session, Token, secret, lasts)


def list_tokens(session: Session, user_id: int) -> Sequence[Token]:
    """Return an account's tokens, newest first."""
    query = select(Token).where(Token.user_id == user_id).order_by(Token.id.desc())
    return session.scalars(query).all()


def revoke_tokens(session: Session, user_id: int, token_id: int | None = None) -> bool:
    """Delete an account's own token, or all of them; return whether there was one."""
    mine = delete(Token).where(Token.user_id == user_id)
    mine = mine if token_id is None else mine.where(Token.id == token_id)
    return bool(session.scalars(mine.returning(Token.id)).all())


def list_usage(session: Session, now: datetime) -> Sequence[Row[Any]]:
    """Return the accounts by name, each as ``User``, and how much it uses.

    ``images`` since the account was made, deleted ones included, ``refused`` of them,
    ``images_30_days``, and ``kept`` in the history now.
    """

    def total(column: Any, *rules: ColumnElement[bool]) -> Any:
        added = select(func.coalesce(func.sum(column), 0))
        return added.where(Usage.user_id == User.id, *rules).scalar_subquery()

    kept = select(func.count()).where(PredictionRow.user_id == User.id).scalar_subquery()
    recently = Usage.day >= (now - timedelta(days=30)).date()
    columns = (
        total(Usage.films).label("images"),
        total(Usage.refused).label("refused"),
        total(Usage.films, recently).label("images_30_days"),
        kept.label("kept"),
    )
    return session.execute(select(User, *columns).order_by(User.name)).all()


def _owner(
    session: Session, table: type[LoginSession | Token], secret: str, *rules: ColumnElement[bool]
) -> tuple[User, Any] | None:
    """Return the account that holds a secret, and the secret's row; None of disabled accounts."""
    query = select(User, table).join(table, table.user_id == User.id)
    mine = (table.digest == digest_secret(secret), User.disabled.is_(False))
    row = session.execute(query.where(*mine, *rules)).one_or_none()
    return None if row is None else (row[0], row[1])
