"""API tokens: made once, shown once, stored as a digest."""

import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import delete, or_, select
from sqlalchemy.orm import Session

from cxr.errors import InputError
from cxr.serve.store.rows import NAME_CHARS, Token, User
from cxr.serve.store.users import SEEN_EVERY, digest_secret

PREFIX = "cxr_"
"""Begins every token, so that scanners for leaked secrets can know one."""
MOST_TOKENS = 20
"""Tokens that one account may have."""


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
