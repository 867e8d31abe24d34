"""The commands, and the application from an installed wheel."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from cxr.serve.serving import serving, utc_now
from cxr.serve.store.users import token_user


@pytest.fixture
def run(app):
    runner = app.test_cli_runner()

    def run_(*words: str, typed: str = "", code: int = 0) -> str:
        result = runner.invoke(args=list(words), input=typed)
        assert result.exit_code == code, result.output
        return result.output

    return run_


def test_account_is_made_used_reset_barred_and_shown(app, run, kit):
    client = app.test_client()
    assert "ann can sign in" in run("users", "add", "Ann", typed=f"{kit.password}\n")
    ann = type("Account", (), {"name": "ann", "password": kit.password})
    assert kit.sign_in(client, ann).status_code == 303
    output = run("users", "reset", "ann", "--generate")
    assert client.get("/history").status_code == 302
    ann.password = re.search(r"password: (\S+)", output)[1]
    assert kit.sign_in(client, ann).status_code == 303
    run("users", "disable", "ann")
    assert client.get("/history").status_code == 302
    assert re.search(r"ann +user +disabled +0 +0 +20", run("users", "list"))
    run("users", "enable", "ann")
    assert kit.sign_in(client, ann).status_code == 303


def test_what_can_be_mended_is_one_line_and_exit_2(run, kit):
    run("users", "add", "ann", typed=f"{kit.password}\n")
    for words, typed, reason in (
        (("users", "add", "ann"), "", "exists already"),
        (("users", "add", "a b"), "", "cannot be an account's name"),
        (("users", "add", "eve"), "short\n", "12 to 256"),
        (("users", "reset", "eve"), "", "no account"),
        (("users", "disable", "eve"), "", "no account"),
        (("tokens", "revoke", "ann", "7"), "", "no token 7"),
        (("tokens", "create", "ann", "t", "--days", "0"), "", "0 days"),
    ):
        output = run(*words, typed=typed, code=2)
        assert reason in output
        assert output.startswith("error: ")
        assert output.count("\n") == 1


def test_tokens_are_made_listed_and_revoked(app, run, kit):
    run("users", "add", "ann", typed=f"{kit.password}\n")
    secret = run("tokens", "create", "ann", "script").strip()
    with serving(app).database.read() as session:
        user, token = token_user(session, secret, utc_now())
        assert user.name == "ann"
    assert "script" in run("tokens", "list", "ann")
    assert secret not in run("tokens", "list", "ann")
    run("tokens", "revoke", "ann", str(token.id))
    with serving(app).database.read() as session:
        assert token_user(session, secret, utc_now()) is None


def test_database_commands(run):
    assert "0002 (needed: 0002)" in run("db", "current")
    assert "revision 0002" in run("db", "upgrade")
    assert "0 old results" in run("tidy")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("CXR_DATA_FOLDER", "/dev/null/x", "CXR_DATA_FOLDER"),
        ("CXR_LEVEL", "2", "CXR_LEVEL"),
        ("CXR_DATABASE_URL", "nonsense", "CXR_DATABASE_URL"),
        ("CXR_DATABASE_URL", "sqlite:////dev/null/x/y", "CXR_DATABASE_URL"),
    ],
)
def test_start_that_cannot_succeed_says_why_in_one_line(tmp_path, name, value, words):
    environ = {"PATH": os.environ["PATH"], "CXR_DATA_FOLDER": str(tmp_path), name: value}
    flask = Path(sys.executable).with_name("flask")
    done = subprocess.run(
        [flask, "--app", "cxr.serve", "users", "list"],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert words in done.stderr


def test_commands_need_no_model_and_no_torch(tmp_path):
    code = (
        "import sys; from cxr.serve import create_app; "
        f"app = create_app({{'data_folder': {str(tmp_path)!r}, 'bundle': 'none'}}); "
        "print(app.test_cli_runner().invoke(args=['users', 'list']).output); "
        "heavy = {'torch', 'pandas', 'matplotlib', 'onnxruntime'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "last login" in done.stdout


@pytest.mark.long
def test_wheel_holds_templates_assets_and_revisions(tmp_path):
    root = Path(__file__).resolve().parents[2]
    source = tmp_path / "source"  # building leaves folders behind
    shutil.copytree(root / "cxr", source / "cxr")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, source)
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--no-deps",
            "--no-build-isolation",
            "--quiet",
            "--wheel-dir",
            tmp_path,
            source,
        ],
        check=True,
    )
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    serve = root / "cxr" / "serve"
    wanted = [
        path
        for kind in ("templates/*.html", "static/*", "migrations/**/*.py")
        for path in serve.glob(kind)
    ]
    assert len(wanted) > 20
    for path in wanted:
        assert path.relative_to(root).as_posix() in names
