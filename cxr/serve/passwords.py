"""Passwords: what one may be, and its argon2id."""

import functools
import secrets
import threading

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from cxr.errors import InputError

MIN_CHARS, MAX_CHARS = 12, 256
"""Length is what counts; NIST SP 800-63B asks for no rules on kinds of characters."""
MEMORY_KIB, PASSES, LANES = 19 * 1024, 2, 1
"""Source: OWASP Password Storage Cheat Sheet, argon2id's first configuration."""
AT_ONCE = 4
"""Passwords worked on side by side in a process, so that many tries cannot take its memory."""

hasher = PasswordHasher(time_cost=PASSES, memory_cost=MEMORY_KIB, parallelism=LANES)
_turn = threading.BoundedSemaphore(AT_ONCE)


def check_password(password: str, name: str) -> None:
    """Raise InputError for what is too short, too long, few characters, or the account's name."""
    if not MIN_CHARS <= len(password) <= MAX_CHARS:
        raise InputError(
            f"the password has {len(password)} characters: {MIN_CHARS} to {MAX_CHARS} are "
            "allowed; a few words in a row are good"
        )
    core = password.lower().replace(name.lower(), "") if name else password.lower()
    if len(set(password)) < 5 or len(core) < MIN_CHARS // 2:
        raise InputError(
            "the password is too easy to guess: it repeats few characters or the account's name; "
            "take a few words in a row"
        )


def hash_password(password: str) -> str:
    """Return a password's argon2id with its own salt."""
    with _turn:
        return hasher.hash(password)


def is_password(password: str, password_hash: str | None) -> bool:
    """Return whether a password is right; with no hash, for no account, it takes as long."""
    if len(password) > MAX_CHARS:
        return False
    with _turn:
        try:
            return hasher.verify(password_hash or _stand_in(), password) and bool(password_hash)
        except (VerificationError, InvalidHashError):
            return False


@functools.cache
def _stand_in() -> str:
    return hasher.hash(secrets.token_hex())
