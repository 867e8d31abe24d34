"""Fixtures of the server: an application on a fake model, a user, a browser's client."""

import io
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image
from werkzeug.test import TestResponse

from cxr.bundle.maps import HeatMaps
from cxr.bundle.predictor import Prediction
from cxr.errors import InputError
from cxr.imaging.read import DecodedImage, read_image
from cxr.labels import CANONICAL
from cxr.serve import create_app
from cxr.serve.passwords import hash_password
from cxr.serve.serving import serving, utc_now
from cxr.serve.settings import Settings
from cxr.serve.store.database import Database
from cxr.serve.store.users import add_user, create_token

PASSWORD = "four words in a row"
DARK_IS_NO_IMAGE = 8
"""The fake refuses images that are darker than this on average."""


def _pixels(image: Any) -> np.ndarray:
    return image.pixels if isinstance(image, DecodedImage) else read_image(image).pixels


class FakePredictor:
    """Answers like a bundle's predictor, at once, from the image's brightness."""

    labels = CANONICAL
    members = ("mobilenetv2", "inceptionv3")
    fingerprint = "f" * 64
    note = "Research use only, not a medical device"

    def __init__(self) -> None:
        self.info: dict[str, Any] = {
            "labels": list(self.labels),
            "weights": {"mobilenetv2": 0.6, "inceptionv3": 0.4},
            "data": {"name": "fake"},
            "test": "not evaluated",
        }
        self.delay_s = 0.0
        self.refer = False
        self.refuse = False
        self.calls = 0

    def predict_each(
        self, images: Iterable[Any], *, level: float = 0.9, maps: bool = False, names: Any = None
    ) -> Iterator[Prediction | InputError]:
        for image in images:
            self.calls += 1
            time.sleep(self.delay_s)
            try:
                image = image if isinstance(image, np.ndarray) else _pixels(image)
            except InputError as error:
                yield error
                continue
            yield self._prediction(image, level, maps)

    def _prediction(self, image: np.ndarray, level: float, maps: bool) -> Prediction:
        refused = self.refuse or float(image.mean()) < DARK_IS_NO_IMAGE
        first = np.array([0.04, 0.01, 0.72, 0.23])
        second = np.array([0.03, 0.02, 0.41, 0.54])
        member_probs = {
            name: dict(zip(self.labels, map(float, probs), strict=True))
            for name, probs in zip(self.members, (first, second), strict=True)
        }
        probs = dict(zip(self.labels, map(float, 0.6 * first + 0.4 * second), strict=True))
        return Prediction(
            label="bacterial",
            probs=probs,
            member_probs=member_probs,
            level=level,
            prediction_set=("bacterial", "viral"),
            refer=self.refer,
            ood_score=1.0,
            refused=refused,
            refusals=("the image is too dark to be a chest X-ray",) if refused else (),
            image=image,
            maps=self._maps(image) if maps else None,
            name="",
            note=self.note,
        )

    def _maps(self, image: np.ndarray) -> HeatMaps:
        rows, columns = np.mgrid[0:7, 0:7].astype(np.float32)
        blobs = [np.exp(-((rows - 2 - k) ** 2 + (columns - 1 - k) ** 2) / 3) for k in range(4)]
        grid = np.stack(blobs).astype(np.float32)
        members = {"mobilenetv2": grid, "inceptionv3": grid[:, ::-1].copy()}
        lungs = np.zeros((128, 128), bool)
        lungs[20:100, 15:55] = lungs[20:100, 75:115] = True
        return HeatMaps(self.labels, members, self.info["weights"], image, lungs=lungs)


@dataclass(frozen=True)
class Account:
    """A user of the tests."""

    id: int
    name: str
    password: str = PASSWORD


def csrf_of(page: TestResponse) -> str:
    """Return the token of a page's first form."""
    found = re.search(r'name="csrf_token" value="([^"]+)"', page.get_data(as_text=True))
    assert found, page.get_data(as_text=True)
    return found[1]


def sign_in(client: FlaskClient, account: Account) -> TestResponse:
    """Sign in through the form."""
    token = csrf_of(client.get("/login"))
    form = {"csrf_token": token, "name": account.name, "password": account.password}
    return client.post("/login", data=form)


def add_account(app: Flask, name: str, role: str = "user") -> Account:
    """Make an account in the database."""
    with app.app_context(), serving().database.write() as session:
        user = add_user(session, name, PASSWORD_HASH, role=role, now=utc_now())
        return Account(user.id, user.name)


PASSWORD_HASH = hash_password(PASSWORD)


def image_bytes(
    kind: str = "PNG", *, size: tuple[int, int] = (120, 100), gray: int | None = None
) -> bytes:
    """Return a file that can pass for an image, or a uniformly gray one."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(40, 220, size[::-1], dtype=np.uint8)
    if gray is not None:
        pixels[:] = gray
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


@pytest.fixture(scope="session")
def kit() -> SimpleNamespace:
    """The helpers above, for test modules cannot import this one."""
    return SimpleNamespace(
        csrf_of=csrf_of,
        sign_in=sign_in,
        add_account=add_account,
        image_bytes=image_bytes,
        password=PASSWORD,
        fake=FakePredictor,
    )


@pytest.fixture
def fake_predictor() -> FakePredictor:
    return FakePredictor()


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file with this version's tables, to copy: upgrades take a while."""
    path = tmp_path_factory.mktemp("database") / "cxr.sqlite"
    database = Database(f"sqlite:///{path}")
    database.upgrade()
    database.close()
    return path


@pytest.fixture
def config(tmp_path: Path, empty_database: Path) -> dict[str, Any]:
    """Settings of the tests' application; nothing of the environment's."""
    (tmp_path / "data").mkdir()
    shutil.copy(empty_database, tmp_path / "data" / "cxr.sqlite")
    return {"bundle": tmp_path / "bundle", "data_folder": tmp_path / "data", "request_threads": 4}


@pytest.fixture
def make_app(
    config: dict[str, Any], fake_predictor: FakePredictor
) -> Iterator[Callable[..., Flask]]:
    """Make an application with further settings; all are closed at the end."""
    made: list[Flask] = []

    def make(**more: Any) -> Flask:
        settings = Settings.load(config | more, environ={})
        (settings.bundle).mkdir(exist_ok=True)
        app = create_app(settings, load=lambda bundle: fake_predictor)
        app.testing = True
        made.append(app)
        return app

    yield make
    for app in made:
        app.extensions["cxr"].queue.stop(1.0)
        serving(app).database.close()


@pytest.fixture
def app(make_app: Callable[..., Flask]) -> Flask:
    return make_app()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def user(app: Flask) -> Account:
    return add_account(app, "ann")


@pytest.fixture
def login(client: FlaskClient, user: Account) -> FlaskClient:
    """A client that is signed in as ``user``."""
    assert sign_in(client, user).status_code == 303
    return client


@pytest.fixture
def token(app: Flask, user: Account) -> str:
    """An API token of ``user``."""
    with app.app_context(), serving().database.write() as session:
        return create_token(session, user.id, "tests", now=utc_now())[0]


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a throwaway PostgreSQL cluster, or a skip."""
    binaries = _postgres_binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL here: install Debian's package postgresql")
    folder = Path("/tmp") / f"cxr-postgres-{os.getpid()}"
    folder.mkdir(mode=0o700)
    as_user: dict[str, Any] = {}
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        shutil.chown(folder, "nobody", "nogroup")
        as_user = {"user": "nobody", "group": "nogroup", "extra_groups": []}
    run = {
        "check": True,
        "stdout": subprocess.DEVNULL,
        "stderr": subprocess.STDOUT,
        "cwd": folder,
        **as_user,
    }
    data, password = folder / "data", folder / "password"
    password.write_text("not-a-secret\n")
    password.chmod(0o644)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    try:
        subprocess.run(
            [
                binaries / "initdb",
                "-D",
                data,
                "-U",
                "cxr",
                "-E",
                "UTF8",
                "--no-sync",
                "--auth=scram-sha-256",
                f"--pwfile={password}",
            ],
            **run,
        )
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c fsync=off -k {folder}"
        subprocess.run(
            [binaries / "pg_ctl", "-D", data, "-w", "-o", options, "-l", folder / "log", "start"],
            **run,
        )
        yield f"postgresql://cxr:not-a-secret@127.0.0.1:{port}/postgres"
    finally:
        stop = [binaries / "pg_ctl", "-D", data, "-m", "immediate", "stop"]
        subprocess.run(stop, **(run | {"check": False}))
        shutil.rmtree(folder, ignore_errors=True)


def _postgres_binaries() -> Path | None:
    found = shutil.which("postgres")
    places = [Path(found).resolve().parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((place for place in places if (place / "initdb").exists()), None)
