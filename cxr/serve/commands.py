"""Commands: ``flask --app cxr.serve users|tokens|db|tidy``; accounts are made here alone."""

import secrets
import sys
from collections.abc import Sequence
from typing import Any

import click
from flask import Flask
from flask.cli import AppGroup, with_appcontext

from cxr.errors import InputError
from cxr.serve.login import check_password, hash_password
from cxr.serve.serving import read, serving, utc_now, write
from cxr.serve.settings import Settings
from cxr.serve.store import users as accounts
from cxr.serve.store.database import copy_rows, open_source
from cxr.serve.store.rows import ROLES
from cxr.serve.stored_results import tidy


class Group(AppGroup):
    """Commands that show what a user can correct as one line and exit with 2."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except InputError as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(2)


users = Group("users", help="Accounts: add, disable, enable, reset, list.")
tokens = Group("tokens", help="API tokens: create, list, revoke.")
db = Group("db", help="The database's tables: upgrade, current, copy.")


def init_app(app: Flask) -> None:
    """Add the commands."""
    for command in (users, tokens, db, _tidy_command):
        app.cli.add_command(command)


@users.command("add")
@click.argument("name")
@click.option("--role", type=click.Choice(ROLES), default="user", show_default=True)
@click.option("--generate", is_flag=True, help="Make a password and print it, once.")
def add(name: str, role: str, generate: bool) -> None:
    """Make an account; asks for the password, or reads it as a line where no one types."""
    name = read(accounts.check_new, name)  # before a password is asked for
    password_hash = hash_password(_new_password(name, generate))
    write(accounts.add_user, name, password_hash, role=role, now=utc_now())
    click.echo(f"The {role} {name} can sign in.")


@users.command("reset")
@click.argument("name")
@click.option("--generate", is_flag=True, help="Make a password and print it, once.")
@click.option("--tokens", "drop_tokens", is_flag=True, help="Also revoke the API tokens.")
def reset(name: str, generate: bool, drop_tokens: bool) -> None:
    """Set a new password; every session of the account ends."""
    user = read(accounts.need_user, name)
    password_hash = hash_password(_new_password(user.name, generate))
    with serving().database.write() as store:
        accounts.set_password(store, user.id, password_hash)
        if drop_tokens:
            accounts.revoke_tokens(store, user.id)
    click.echo(f"The password of {user.name} is changed; its sessions are ended.")


@users.command("disable")
@click.argument("name")
def disable(name: str) -> None:
    """Bar an account: sessions end, tokens stop working, the history stays."""
    write(accounts.set_disabled, name, True)
    click.echo(f"{name} can sign in no more.")


@users.command("enable")
@click.argument("name")
def enable(name: str) -> None:
    """Let a barred account in again."""
    write(accounts.set_disabled, name, False)
    click.echo(f"{name} can sign in again.")


@users.command("list")
def list_accounts() -> None:
    """Show the accounts and how much they use."""
    lines = []
    for row in read(accounts.list_usage, utc_now()):
        user = row.User
        state = "disabled" if user.disabled else "active"
        login = f"{user.login_at:%Y-%m-%d %H:%M}" if user.login_at else "never"
        lines.append((user.name, user.role, state, str(row.images), str(row.kept), login))
    _table(("name", "role", "state", "images", "kept", "last login"), lines)


@tokens.command("create")
@click.argument("user")
@click.argument("name")
@click.option("--days", type=int, default=None, help="How long it lasts; for ever by default.")
def create(user: str, name: str, days: int | None) -> None:
    """Make an API token and print it, this once."""
    with serving().database.write() as store:
        owner = accounts.need_user(store, user)
        secret, _ = accounts.create_token(store, owner.id, name, now=utc_now(), days=days)
    click.echo(secret)


@tokens.command("list")
@click.argument("user")
def list_user_tokens(user: str) -> None:
    """Show an account's tokens."""
    lines = []
    for row in read(accounts.list_tokens, read(accounts.need_user, user).id):
        used = f"{row.used_at:%Y-%m-%d}" if row.used_at else "never"
        lines.append((str(row.id), row.name, row.hint, f"{row.created_at:%Y-%m-%d}", used))
    _table(("id", "name", "begins", "made", "used"), lines)


@tokens.command("revoke")
@click.argument("user")
@click.argument("token_id", type=int)
def revoke(user: str, token_id: int) -> None:
    """Revoke a token by the number that ``tokens list`` shows."""
    with serving().database.write() as store:
        owner = accounts.need_user(store, user)
        if not accounts.revoke_tokens(store, owner.id, token_id):
            raise InputError(f"{owner.name} has no token {token_id}: see tokens list {owner.name}")
    click.echo("The token works no more.")


@db.command("upgrade")
def upgrade() -> None:
    """Bring the tables to this version; rows are kept."""
    serving().database.upgrade()
    click.echo(f"The database is at revision {serving().database.revision()}.")


@db.command("current")
def current() -> None:
    """Show the tables' revision and the one that this version needs."""
    database = serving().database
    click.echo(f"{database.revision() or 'empty'} (needed: {database.newest_revision()})")


@db.command("copy")
@click.argument("source")
def copy(source: str) -> None:
    """Fill this empty database from another one: sqlite:///PATH or postgresql://..."""
    counts = copy_rows(open_source(Settings(database_url=source).database), serving().database)
    click.echo(", ".join(f"{count} {table}" for table, count in counts.items()) + " copied.")


@click.command("tidy")
@with_appcontext
def _tidy_command() -> None:
    """Delete results past their retention, and files without a result."""
    old, orphans = tidy()
    click.echo(f"{old} old results and {orphans} files without a result are deleted.")


def _new_password(name: str, generate: bool) -> str:
    if generate:
        password = secrets.token_urlsafe(15)  # 120 bits
        click.echo(f"password: {password}")
        return password
    if sys.stdin.isatty():
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    check_password(password, name)
    return str(password)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    lines = [heads, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(cells).rstrip())
