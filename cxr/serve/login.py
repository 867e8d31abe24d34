"""Who is signed in: the rule that nothing opens without it, the cookie, passwords as argon2id."""

import functools
import ipaddress
import secrets
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar, cast
from urllib.parse import urlsplit

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from flask import current_app, flash, g, jsonify, redirect, request, session, url_for
from flask.typing import ResponseReturnValue

from cxr.errors import InputError
from cxr.serve.serving import read, serving, utc_now, write
from cxr.serve.store import users as accounts
from cxr.serve.store.counters import count_hit, take_back
from cxr.serve.store.rows import LoginSession, User

COOKIE_KEY = "login"
OPEN_BLUEPRINTS = ("api", "api-docs", "health")
"""These know their own rules: tokens, and nothing worth hiding."""
REFERENCE = "api-docs.openapi_swagger_ui"
"""A page of the service that anybody may read; it greets who is signed in."""
ACCOUNT_TIMES, ADDRESS_TIMES = 4, 6
"""How many times the limit of a pair an account from anywhere and an address may try."""

MIN_CHARS, MAX_CHARS = 12, 256
"""Length is what counts; NIST SP 800-63B asks for no rules on kinds of characters."""
MEMORY_KIB, PASSES, LANES = 19 * 1024, 2, 1
"""Source: OWASP Password Storage Cheat Sheet, argon2id's first configuration."""
AT_ONCE = 4
"""Passwords worked on side by side in a process, so that many tries cannot take its memory."""

hasher = PasswordHasher(time_cost=PASSES, memory_cost=MEMORY_KIB, parallelism=LANES)
_turn = threading.BoundedSemaphore(AT_ONCE)

View = TypeVar("View", bound=Callable[..., ResponseReturnValue])


def public(view: View) -> View:
    """Mark a view that opens without being signed in."""
    view.is_public = True  # type: ignore[attr-defined]
    return view


def guard() -> ResponseReturnValue | None:
    """Let a request pass, or send it to the login; runs before every request."""
    g.user = None
    if request.endpoint is None or request.endpoint == "static":
        return None
    if (request.blueprint or "").split(".")[0] in OPEN_BLUEPRINTS:
        g.user = _find_user() if request.endpoint == REFERENCE else None
        return None
    g.user = _find_user()
    g.user_id = g.user.id if g.user else None  # for the log
    view = current_app.view_functions.get(request.endpoint)
    if g.user is not None or getattr(view, "is_public", False):
        return None
    if wants_json():
        return jsonify(error="You are signed out. Sign in again.", login=url_for("auth.login")), 401
    if request.method == "GET":
        return redirect(url_for("auth.login", next=request.full_path.rstrip("?")))
    fault = "You were signed out, so nothing was done. Sign in and try again."
    return go_to("auth.login", fault, "warning")


def go_to(endpoint: str, message: str, kind: str = "success") -> ResponseReturnValue:
    """Answer a form: go to a page, which shows the message on top."""
    flash(message, kind)
    return redirect(url_for(endpoint), 303)


def current_user() -> User:
    """Return who is signed in; behind ``guard`` there is always somebody."""
    return cast(User, g.user)


def sign_in(user: User) -> None:
    """Begin a session with a fresh cookie, so that one planted before is worth nothing."""
    secret = write(accounts.begin_session, user, utc_now())
    session.clear()
    session[COOKIE_KEY] = secret


def sign_out() -> None:
    """End the session here and in the database."""
    if secret := session.get(COOKIE_KEY):
        write(accounts.end_sessions, LoginSession.digest == accounts.digest_secret(str(secret)))
    session.clear()


def count_attempt(name: str, *, back: bool = False) -> int:
    """Count a try to sign in, before the password is looked at, or take a right one back.

    Return the seconds to wait where tries are used up, else 0.
    """
    settings, address = serving().settings, network(request.remote_addr or "")
    name, most = name.strip().lower()[:256], settings.login_attempts
    keys = {
        f"login:{name}|{address}": most,
        f"login:{name}": most * ACCOUNT_TIMES,
        f"login:|{address}": most * ADDRESS_TIMES,
    }
    window_s, now = 60 * settings.login_window_minutes, utc_now()
    with serving().database.write() as store:
        for key, limit in keys.items():
            if back:
                take_back(store, key, window_s=window_s, now=now)
            elif wait_s := count_hit(store, key, limit=limit, window_s=window_s, now=now):
                return wait_s
    return 0


def network(address: str) -> str:
    """Return an address; of IPv6 its /64, for one household has as many as it likes."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return "unknown"
    if parsed.version == 6:
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)


def safe_next(target: str | None) -> str:
    """Return where to go after signing in; never to another site."""
    start = url_for("pages.upload")
    if not target or not target.startswith("/") or "\\" in target or not target.isprintable():
        return start
    parts = urlsplit(target)
    return start if parts.scheme or parts.netloc or target.startswith("//") else target


def wants_json() -> bool:
    """Return whether a script of ours asks, and not a reader."""
    return request.accept_mimetypes.best == "application/json"


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


def _find_user() -> User | None:
    secret, settings, now = session.get(COOKIE_KEY), serving().settings, utc_now()
    if not isinstance(secret, str):
        return None
    lifetime = timedelta(hours=settings.session_hours)
    idle = timedelta(minutes=settings.idle_minutes)
    signed_in = read(accounts.session_user, secret, now=now, lifetime=lifetime, idle=idle)
    if signed_in is None:
        session.pop(COOKIE_KEY, None)
        return None
    user, row = signed_in
    if accounts.is_touch_due(row, now):
        write(accounts.touch, row, now)
    return user
