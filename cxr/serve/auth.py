"""Pages around the account: sign in, sign out, password, tokens; for admins the users."""

import math

from flask import (
    Blueprint,
    Response,
    flash,
    g,
    make_response,
    redirect,
    render_template,
    request,
    url_for,
)
from flask.typing import ResponseReturnValue

from cxr.errors import InputError
from cxr.serve.login import (
    count_attempt,
    current_user,
    need_admin,
    public,
    safe_next,
    sign_in,
    sign_out,
)
from cxr.serve.passwords import MIN_CHARS, check_password, hash_password, is_outdated, is_password
from cxr.serve.phrases import sentence
from cxr.serve.security import loses_cookie
from cxr.serve.serving import serving, utc_now
from cxr.serve.store.counters import Rate
from cxr.serve.store.rows import User
from cxr.serve.store.tokens import create_token, list_tokens, revoke_token
from cxr.serve.store.users import find_user, list_usage, set_password

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
        return redirect(safe_next(request.args.get("next")))
    return render_template("login.html", next=request.args.get("next", ""), plain=loses_cookie())


@blueprint.post("/login")
@public
def try_login() -> ResponseReturnValue:
    """Sign in, or say that it did not work and after how many tries to wait."""
    name, password = request.form.get("name", ""), request.form.get("password", "")
    rate = count_attempt(name)
    if rate is not None:
        answer = _again(_wait_words(rate), name, 429)
        answer.headers["Retry-After"] = str(rate.retry_after_s)
        return answer
    with serving().database.read() as store:
        user = find_user(store, name)
    if not is_password(password, user.password_hash if user else None) or user is None:
        return _again(WRONG, name, 401)
    if user.disabled:
        return _again(WRONG, name, 401)
    count_attempt(name, back=True)
    if is_outdated(user.password_hash):
        with serving().database.write() as store:
            store.get_one(User, user.id).password_hash = hash_password(password)
    sign_in(user)
    return redirect(safe_next(request.form.get("next")), 303)


@blueprint.post("/logout")
def logout() -> ResponseReturnValue:
    """Sign out."""
    sign_out()
    flash("You are signed out.", "success")
    return redirect(url_for("auth.login"), 303)


@blueprint.get("/account")
def account() -> ResponseReturnValue:
    """Show password form and tokens."""
    return _account_page()


@blueprint.post("/account/password")
def change_password() -> ResponseReturnValue:
    """Change the password; every other session ends."""
    user, form = current_user(), request.form
    rate = count_attempt(user.name)
    if rate is not None:
        flash(_wait_words(rate), "error")
        return _account_page(429)
    if not is_password(form.get("old", ""), user.password_hash):
        flash("The present password is not right; nothing was changed.", "error")
        return _account_page(422)
    count_attempt(user.name, back=True)
    new = form.get("new", "")
    try:
        if new != form.get("again", ""):
            raise InputError("the new password and its repetition differ: type both again")
        check_password(new, user.name)
    except InputError as error:
        flash(sentence(error), "error")
        return _account_page(422)
    new_hash = hash_password(new)
    with serving().database.write() as store:
        set_password(store, user.id, new_hash)
    sign_in(user)
    flash("The password is changed. Other devices were signed out.", "success")
    return redirect(url_for("auth.account"), 303)


@blueprint.post("/account/tokens")
def make_token() -> ResponseReturnValue:
    """Make a token and show it, this once."""
    days = request.form.get("days", "")
    try:
        with serving().database.write() as store:
            secret, token = create_token(
                store,
                current_user().id,
                request.form.get("name", ""),
                now=utc_now(),
                days=int(days) if days in map(str, TOKEN_DAYS) else None,
            )
    except InputError as error:
        flash(sentence(error), "error")
        return _account_page(422)
    return render_template("token.html", secret=secret, token=token)


@blueprint.post("/account/tokens/<int:token_id>/revoke")
def drop_token(token_id: int) -> ResponseReturnValue:
    """Revoke one of one's own tokens."""
    with serving().database.write() as store:
        gone = revoke_token(store, current_user().id, token_id)
    if gone:
        flash("The token is revoked and works no more.", "success")
    else:
        flash("There is no such token.", "error")
    return redirect(url_for("auth.account"), 303)


@blueprint.get("/users")
def users() -> ResponseReturnValue:
    """Show accounts and how much they use, to admins."""
    need_admin()
    with serving().database.read() as store:
        rows = list_usage(store, utc_now())
    return render_template("users.html", rows=rows)


def _wait_words(rate: Rate) -> str:
    minutes = math.ceil(rate.retry_after_s / 60)
    return f"Too many tries. Try again in {minutes} {'minute' if minutes == 1 else 'minutes'}."


def _account_page(status: int = 200) -> ResponseReturnValue:
    with serving().database.read() as store:
        tokens = list_tokens(store, current_user().id)
    page = render_template(
        "account.html", tokens=tokens, min_chars=MIN_CHARS, token_days=TOKEN_DAYS, now=utc_now()
    )
    return make_response(page, status)


def _again(message: str, name: str, status: int) -> Response:
    flash(message, "error")
    page = render_template(
        "login.html", next=request.form.get("next", ""), name=name[:64], plain=loses_cookie()
    )
    return make_response(page, status)
