"""Accounts: signing in and out, lockout, expiry, password, tokens, roles, and who may see what."""

import io
import re
from datetime import timedelta

import pytest
from argon2 import PasswordHasher
from sqlalchemy import select, update

from cxr.serve.serving import serving, utc_now
from cxr.serve.store.rows import LoginSession, User
from cxr.serve.store.users import set_disabled, token_user

DOCUMENT = {"api-docs.openapi_json", "api-docs.openapi_swagger_ui", "viewer"}
OPEN = {"auth.login", "auth.try_login", "static"} | DOCUMENT


def test_nothing_opens_without_a_session(app, client, login, kit):
    form = {
        "csrf_token": kit.csrf_of(login.get("/")),
        "image": (io.BytesIO(kit.image_bytes()), "a.png"),
    }
    place = login.post("/", data=form).headers["Location"].strip("/").split("/")[1]
    stranger = app.test_client()
    rules = [
        rule
        for rule in app.url_map.iter_rules()
        if rule.endpoint not in OPEN and rule.endpoint.split(".")[0] not in ("api", "health")
    ]
    assert len(rules) >= 20
    for rule in rules:
        path = re.sub(r"<int:[^>]+>", "1", rule.rule).replace("<prediction_id>", place)
        for method in rule.methods - {"HEAD", "OPTIONS"}:
            answer = stranger.open(path, method=method)
            assert answer.status_code in (302, 303), (method, path)
            assert answer.headers["Location"].startswith("/login"), path
            answer = stranger.open(path, method=method, headers={"Accept": "application/json"})
            assert answer.status_code == 401


def test_results_of_others_do_not_exist(app, login, kit):
    form = {
        "csrf_token": kit.csrf_of(login.get("/")),
        "image": (io.BytesIO(kit.image_bytes()), "secret.png"),
    }
    place = login.post("/", data=form).headers["Location"]
    other = app.test_client()
    kit.sign_in(other, kit.add_account(app, "eve", "admin"))
    token = kit.csrf_of(other.get("/"))
    for name in (
        "",
        "image.png",
        "thumb.png",
        "layer.png",
        "lungs.png",
        "download.png",
        "download.json",
        "print",
        "delete",
    ):
        assert other.get(place + name).status_code == 404, name
    assert other.post(f"{place}delete", data={"csrf_token": token}).status_code == 404
    assert "secret.png" not in other.get("/history").get_data(as_text=True)
    assert other.get(f"/uploaded?id={place.split('/')[2]}").status_code == 404
    assert login.get(place).status_code == 200


def test_forms_without_a_fresh_token_do_nothing(app, login, kit):
    posts = [
        rule.rule
        for rule in app.url_map.iter_rules()
        if "POST" in rule.methods and not rule.endpoint.startswith("api.")
    ]
    assert len(posts) >= 7
    for rule in posts:
        path = re.sub(r"<int:[^>]+>", "1", rule).replace("<prediction_id>", "x")
        for form in ({}, {"csrf_token": "stale"}, {"csrf_token": "IjEyMyI.abc.def"}):
            answer = login.post(path, data=form)
            assert answer.status_code == 400, path
            assert "open too long" in answer.get_data(as_text=True)
    assert login.get("/history").status_code == 200


def test_token_of_another_session_is_refused(app, login, user, kit):
    other = app.test_client()
    kit.sign_in(other, user)
    foreign = kit.csrf_of(other.get("/"))
    assert login.post("/logout", data={"csrf_token": foreign}).status_code == 400


@pytest.mark.parametrize("name", ["ann", "nobody"])
def test_wrong_password_says_the_same_for_every_name(client, user, kit, name):
    form = {"csrf_token": kit.csrf_of(client.get("/login")), "name": name, "password": "wrong"}
    answer = client.post("/login", data=form)
    assert answer.status_code == 401
    assert "do not go together" in answer.get_data(as_text=True)
    assert client.get("/history").status_code == 302


def test_fifty_wrong_passwords_lock_the_pair_and_then_the_right_one_waits_too(
    app, client, user, kit
):
    form = {"csrf_token": kit.csrf_of(client.get("/login")), "name": "ANN", "password": "wrong"}
    statuses = [client.post("/login", data=form).status_code for _ in range(50)]
    assert statuses == [401] * 5 + [429] * 45
    answer = client.post("/login", data=form | {"password": user.password})
    assert answer.status_code == 429
    assert 1 <= int(answer.headers["Retry-After"]) <= 1800
    elsewhere = {"REMOTE_ADDR": "192.0.2.7"}
    other = app.test_client()
    token = kit.csrf_of(other.get("/login", environ_base=elsewhere))
    form = {"csrf_token": token, "name": "ann", "password": user.password}
    assert other.post("/login", data=form, environ_base=elsewhere).status_code == 303


def test_lockout_counts_an_account_from_many_addresses(app, client, user, kit):
    form = {"csrf_token": kit.csrf_of(client.get("/login")), "name": "ann", "password": "wrong"}
    statuses = [
        client.post(
            "/login", data=form, environ_base={"REMOTE_ADDR": f"198.51.100.{n}"}
        ).status_code
        for n in range(25)
    ]
    assert statuses == [401] * 20 + [429] * 5


def test_lockout_holds_across_processes(make_app, kit):
    first, second = make_app(), make_app()
    user = kit.add_account(first, "ann")
    for app, expected in (
        (first, 401),
        (second, 401),
        (first, 401),
        (second, 401),
        (first, 401),
        (second, 429),
        (first, 429),
    ):
        client = app.test_client()
        form = {
            "csrf_token": kit.csrf_of(client.get("/login")),
            "name": user.name,
            "password": "wrong",
        }
        assert client.post("/login", data=form).status_code == expected


def test_session_holds_across_processes_and_ends_everywhere(make_app, kit):
    first, second = make_app(), make_app()
    client = first.test_client()
    kit.sign_in(client, kit.add_account(first, "ann"))
    cookie = client.get_cookie("cxr").value
    other = second.test_client()
    other.set_cookie("cxr", cookie)
    assert other.get("/history").status_code == 200
    client.post("/logout", data={"csrf_token": kit.csrf_of(client.get("/"))})
    assert other.get("/history").status_code == 302


def test_logout_ends_the_session_and_not_only_the_cookie(login, kit):
    old = login.get_cookie("cxr").value
    login.post("/logout", data={"csrf_token": kit.csrf_of(login.get("/"))})
    login.set_cookie("cxr", old)
    assert login.get("/history").status_code == 302


def test_signing_in_changes_the_session(client, user, kit):
    client.get("/login")
    before = client.get_cookie("cxr").value
    kit.sign_in(client, user)
    assert client.get_cookie("cxr").value != before


@pytest.mark.parametrize(
    ("column", "age"),
    [(LoginSession.created_at, timedelta(hours=13)), (LoginSession.seen_at, timedelta(hours=2))],
)
def test_session_expires(app, login, column, age):
    assert login.get("/history").status_code == 200
    with serving(app).database.write() as session:
        session.execute(update(LoginSession).values({column: utc_now() - age}))
    assert login.get("/history").status_code == 302


def test_new_password_ends_other_sessions(app, login, user, kit):
    other = app.test_client()
    kit.sign_in(other, user)
    form = {
        "csrf_token": kit.csrf_of(login.get("/account")),
        "old": user.password,
        "new": "five other words in a row",
        "again": "five other words in a row",
    }
    assert login.post("/account/password", data=form).status_code == 303
    assert login.get("/history").status_code == 200
    assert other.get("/history").status_code == 302
    assert kit.sign_in(other, user).status_code == 401


@pytest.mark.parametrize(
    ("old", "new", "again", "words"),
    [
        ("wrong", "five other words", "five other words", "not right"),
        (None, "short", "short", "12 to 256"),
        (None, "five other words", "five other werds", "differ"),
        (None, "aaaaaaaaaaaaaaaa", "aaaaaaaaaaaaaaaa", "too easy"),
        (None, "annannannann1234", "annannannann1234", "too easy"),
    ],
)
def test_bad_new_password_changes_nothing(login, user, kit, old, new, again, words):
    form = {
        "csrf_token": kit.csrf_of(login.get("/account")),
        "old": old or user.password,
        "new": new,
        "again": again,
    }
    answer = login.post("/account/password", data=form)
    assert answer.status_code == 422
    assert words in answer.get_data(as_text=True)
    assert login.get("/history").status_code == 200


def test_disabled_account_is_out_at_once(app, login, user, token, kit):
    with serving(app).database.write() as session:
        set_disabled(session, user.name, True)
    assert login.get("/history").status_code == 302
    assert kit.sign_in(login, user).status_code == 401
    with serving(app).database.read() as session:
        assert token_user(session, token, utc_now()) is None


def test_token_is_shown_once_works_and_is_revoked(app, login, user, kit):
    form = {"csrf_token": kit.csrf_of(login.get("/account")), "name": "script", "days": "30"}
    page = login.post("/account/tokens", data=form).get_data(as_text=True)
    secret = re.search(r'value="(cxr_[^"]+)"', page)[1]
    with serving(app).database.read() as session:
        owner, row = token_user(session, secret, utc_now())
        assert owner.id == user.id
        assert secret not in repr(vars(row))
        assert token_user(session, secret, utc_now() + timedelta(days=31)) is None
    page = login.get("/account").get_data(as_text=True)
    assert "script" in page
    assert secret not in page
    form = {"csrf_token": kit.csrf_of(login.get("/account"))}
    login.post(f"/account/tokens/{row.id}/revoke", data=form)
    with serving(app).database.read() as session:
        assert token_user(session, secret, utc_now()) is None


def test_token_of_another_user_cannot_be_revoked(app, login, token, kit):
    other = app.test_client()
    kit.sign_in(other, kit.add_account(app, "eve"))
    form = {"csrf_token": kit.csrf_of(other.get("/account"))}
    other.post("/account/tokens/1/revoke", data=form)
    with serving(app).database.read() as session:
        assert token_user(session, token, utc_now()) is not None


def test_users_page_is_for_admins(app, login, kit):
    assert login.get("/users").status_code == 404
    admin = app.test_client()
    kit.sign_in(admin, kit.add_account(app, "boss", "admin"))
    assert "ann" in admin.get("/users").get_data(as_text=True)


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example/",
        "//evil.example/",
        "/\\evil.example",
        "javascript:alert(1)",
        "/ok\r\nX: y",
        "",
    ],
)
def test_login_never_leads_to_another_site(client, user, kit, target):
    form = {
        "csrf_token": kit.csrf_of(client.get("/login")),
        "name": user.name,
        "password": user.password,
        "next": target,
    }
    assert client.post("/login", data=form).headers["Location"] == "/"


def test_login_leads_back(client, user, kit):
    answer = client.get("/history?q=a")
    assert answer.headers["Location"] == "/login?next=/history?q%3Da"
    form = {
        "csrf_token": kit.csrf_of(client.get(answer.headers["Location"])),
        "name": user.name,
        "password": user.password,
        "next": "/history?q=a",
    }
    assert client.post("/login", data=form).headers["Location"] == "/history?q=a"


def test_password_is_kept_as_argon2id_and_an_older_hash_is_renewed(app, client, user, kit):
    old = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(user.password)
    with serving(app).database.write() as session:
        stored = session.get_one(User, user.id)
        assert stored.password_hash.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
        stored.password_hash = old
    assert kit.sign_in(client, user).status_code == 303
    with serving(app).database.read() as session:
        assert "m=19456" in session.get_one(User, user.id).password_hash


def test_there_is_no_account_at_first(app):
    with serving(app).database.read() as session:
        assert session.execute(select(User)).first() is None
