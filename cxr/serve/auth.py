"""Pages around the account: sign in, sign out, password, tokens; for admins the users."""

import math
from collections.abc import Mapping

from flask import Blueprint, flash, g, redirect, render_template, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import NotFound

from cxr.errors import InputError
from cxr.serve import login as access
from cxr.serve.login import current_user, go_to, public
from cxr.serve.phrases import sentence
from cxr.serve.security import loses_cookie
from cxr.serve.serving import read, serving, utc_now, write
from cxr.serve.store import users as accounts
from cxr.serve.store.rows import User

blueprint = Blueprint("auth", __name__)

TOKEN_DAYS = (30, 90, 365)
"""Lifetimes that the page offers, besides for ever."""
WRONG = "That account and password do not go together."
"""The same words whether the account exists or not."""


@blueprint.get("/login")
@public
def login() -> ResponseReturnValue:
    """Show the form."""
    if g.user is not None:
        return redirect(access.safe_next(request.args.get("next")))
    return render_template("login.html", next=request.args.get("next", ""), plain=loses_cookie())


@blueprint.post("/login")
@public
def try_login() -> ResponseReturnValue:
    """Sign in, or say that it did not work and after how many tries to wait."""
    name, password = request.form.get("name", ""), request.form.get("password", "")
    if wait_s := access.count_attempt(name):
        return _login_page(_wait_words(wait_s), name, 429, {"Retry-After": str(wait_s)})
    user = read(accounts.find_user, name)
    is_right = access.is_password(password, user.password_hash if user else None)
    if not is_right or user is None or user.disabled:
        return _login_page(WRONG, name, 401)
    access.count_attempt(name, back=True)
    if access.hasher.check_needs_rehash(user.password_hash):
        with serving().database.write() as store:
            store.get_one(User, user.id).password_hash = access.hash_password(password)
    access.sign_in(user)
    return redirect(access.safe_next(request.form.get("next")), 303)


@blueprint.post("/logout")
def logout() -> ResponseReturnValue:
    """Sign out."""
    access.sign_out()
    return go_to("auth.login", "You are signed out.")


@blueprint.get("/account")
def account() -> ResponseReturnValue:
    """Show password form and tokens."""
    return _account_page()


@blueprint.post("/account/password")
def change_password() -> ResponseReturnValue:
    """Change the password; every other session ends."""
    user, form = current_user(), request.form
    if wait_s := access.count_attempt(user.name):
        return _account_page(_wait_words(wait_s), 429)
    if not access.is_password(form.get("old", ""), user.password_hash):
        return _account_page("The present password is not right; nothing was changed.")
    access.count_attempt(user.name, back=True)
    new = form.get("new", "")
    try:
        if new != form.get("again", ""):
            raise InputError("the new password and its repetition differ: type both again")
        access.check_password(new, user.name)
    except InputError as error:
        return _account_page(sentence(error))
    write(accounts.set_password, user.id, access.hash_password(new))
    access.sign_in(user)
    return go_to("auth.account", "The password is changed. Other devices were signed out.")


@blueprint.post("/account/tokens")
def make_token() -> ResponseReturnValue:
    """Make a token and show it, this once."""
    name, days = request.form.get("name", ""), request.form.get("days", "")
    lasts = int(days) if days in map(str, TOKEN_DAYS) else None
    try:
        secret, token = write(
            accounts.create_token, current_user().id, name, now=utc_now(), days=lasts
        )
    except InputError as error:
        return _account_page(sentence(error))
    return render_template("token.html", secret=secret, token=token)


@blueprint.post("/account/tokens/<int:token_id>/revoke")
def drop_token(token_id: int) -> ResponseReturnValue:
    """Revoke one of one's own tokens."""
    if write(accounts.revoke_tokens, current_user().id, token_id):
        return go_to("auth.account", "The token is revoked and works no more.")
    return go_to("auth.account", "There is no such token.", "error")


@blueprint.get("/users")
def users() -> ResponseReturnValue:
    """Show accounts and how much they use, to admins."""
    if current_user().role != "admin":
        raise NotFound  # for others the page does not exist
    return render_template("users.html", rows=read(accounts.list_usage, utc_now()))


def _wait_words(wait_s: int) -> str:
    minutes = math.ceil(wait_s / 60)
    return f"Too many tries. Try again in {minutes} {'minute' if minutes == 1 else 'minutes'}."


def _account_page(fault: str = "", status: int = 422) -> ResponseReturnValue:
    if fault:
        flash(fault, "error")
    page = render_template(
        "account.html",
        tokens=read(accounts.list_tokens, current_user().id),
        min_chars=access.MIN_CHARS,
        token_days=TOKEN_DAYS,
        now=utc_now(),
    )
    return page, status if fault else 200


def _login_page(
    fault: str, name: str, status: int, headers: Mapping[str, str] | None = None
) -> ResponseReturnValue:
    flash(fault, "error")
    shown = {"next": request.form.get("next", ""), "name": name[:64], "plain": loses_cookie()}
    return render_template("login.html", **shown), status, dict(headers or {})
