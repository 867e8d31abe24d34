"""A real server in processes of its own: gunicorn with our configuration, on a free port."""

import contextlib
import http.client
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

HERE = Path(__file__).resolve().parent


@dataclass
class Server:
    """gunicorn with the application and a model of the test's own."""

    root: Path
    settings: dict[str, str] = field(default_factory=dict)
    before: Callable[[], None] | None = None
    port: int = 0
    token: str = ""
    process: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def images(self) -> list[Path]:
        """Folders of images, the half-written ones of a dot included."""
        kept = self.data / "films"
        return [path.parent for path in kept.rglob("film.png")] if kept.is_dir() else []

    @property
    def calls(self) -> int:
        """Images that the model was given."""
        marks = self.root / "calls"
        return len(marks.read_text()) if marks.exists() else 0

    @property
    def environment(self) -> dict[str, str]:
        own = {key: value for key, value in os.environ.items() if not key.startswith("CXR_")}
        own.pop("PROMETHEUS_MULTIPROC_DIR", None)
        return own | {
            "CXR_BUNDLE": str(self.root / "bundle"),
            "CXR_DATA_FOLDER": str(self.data),
            "CXR_BIND": f"127.0.0.1:{self.port}",
            "CXR_WATCH_S": "0.1",
            "OMP_NUM_THREADS": "1",
            "CXR_GRACEFUL_S": "5",
            "TMPDIR": str(self.root),
            **self.settings,
        }

    def model(self, name: str, *, delay_s: float = 0.0, bad: bool = False) -> None:
        """Put a bundle there, whole or not at all."""
        folder = self.root / "bundle"
        folder.mkdir(exist_ok=True)
        fresh = self.root / "bundle.new"
        fresh.write_text(json.dumps({"name": name, "delay_s": delay_s, "bad": bad}))
        fresh.replace(folder / "bundle.json")

    def start(self, *, ready: bool = True) -> None:
        if not self.port:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                self.port = free.getsockname()[1]
        with (self.root / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "gunicorn",
                    "--config",
                    "python:cxr.serve.gunicorn_conf",
                    "--pythonpath",
                    str(HERE),
                    "faked:create()",
                ],
                env=self.environment,
                stdout=log,
                stderr=log,
                preexec_fn=self.before,
            )
        self.until(lambda: self.get("/readyz" if ready else "/healthz")[0] == 200, 60)

    def flask(self, *words: str, said: str = "") -> str:
        done = subprocess.run(
            [sys.executable, "-m", "flask", "--app", "cxr.serve", *words],
            input=said,
            env=self.environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    def account(self, name: str = "ann") -> str:
        """Make an account with a token; return the token."""
        self.flask("users", "add", name, "--generate")
        self.token = self.flask("tokens", "create", name, "test").splitlines()[-1]
        return self.token

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        timeout: float = 30,
        **headers: str,
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()

    def get(self, path: str) -> tuple[int, dict[str, str], bytes]:
        try:
            return self.ask("GET", path, timeout=5)
        except OSError:
            return 0, {}, b""

    def api(self, method: str, path: str, body: bytes | None = None) -> tuple[int, Any]:
        status, _, data = self.ask(
            method,
            f"/api/v1{path}",
            body,
            Authorization=f"Bearer {self.token}",
            **{"Content-Type": "image/png"},
        )
        return status, json.loads(data) if data else None

    @staticmethod
    def image(seed: int = 0, side: int = 96) -> bytes:
        """Return an image's file: noise, which no format makes smaller."""
        pixels = np.random.default_rng(seed).integers(0, 255, (side, side), dtype=np.uint8)
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG")
        return stream.getvalue()

    def predict(self, seed: int = 0, side: int = 96) -> tuple[int, Any]:
        return self.api("POST", "/predictions", self.image(seed, side))

    def lines(self) -> list[dict[str, Any]]:
        """Return the log's lines, every one of which is JSON."""
        text = (self.root / "log").read_text()
        return [json.loads(line) for line in text.splitlines() if line]

    def figure(self, name: str) -> float:
        """Return a sum over the labels of a Prometheus figure."""
        text = self.get("/metrics")[2].decode()
        found = [line for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
        return sum(float(line.rsplit(" ", 1)[1]) for line in found)

    def until(self, said: Callable[[], bool], seconds: float = 20) -> None:
        end = time.monotonic() + seconds
        while not said():
            if self.process is not None and self.process.poll() is not None:
                raise AssertionError("the server ended: " + (self.root / "log").read_text()[-2000:])
            assert time.monotonic() < end, (self.root / "log").read_text()[-2000:]
            time.sleep(0.05)

    def stop(self, sign: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(sign)
        return self.process.wait(30)

    def kill(self) -> None:
        """End master and workers at once, as a power cut would."""
        assert self.process is not None
        for pid in [*self.workers(), self.process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(10)

    def workers(self) -> list[int]:
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in children.read_text().split()]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Return a server that is not started yet, with a fast model named 'first'."""
    made = Server(tmp_path)
    made.model("first")
    yield made
    if made.process is not None and made.process.poll() is None:
        made.kill()


@dataclass
class Postgres:
    """A PostgreSQL cluster that a test may stop and start."""

    folder: Path
    binaries: Path
    port: int

    @property
    def url(self) -> str:
        """The address, without the password, as compose.yaml gives it."""
        return f"postgresql://cxr@127.0.0.1:{self.port}/postgres"

    @property
    def password_file(self) -> Path:
        return self.folder / "password"

    def run(self, *words: str) -> None:
        as_user: dict[str, Any] = {}
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            as_user = {"user": "nobody", "group": "nogroup", "extra_groups": []}
        subprocess.run(
            [self.binaries / words[0], "-D", self.folder / "data", *words[1:]],
            check=True,
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            **as_user,
        )

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c fsync=off -k {self.folder}"
        self.run("pg_ctl", "-w", "-o", options, "-l", str(self.folder / "log"), "start")

    def stop(self) -> None:
        self.run("pg_ctl", "-m", "immediate", "stop")


@pytest.fixture
def postgres_of_its_own() -> Iterator[Postgres]:
    """Return a running cluster, or skip."""
    found = shutil.which("postgres")
    places = [Path(found).resolve().parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    binaries = next((place for place in places if (place / "initdb").exists()), None)
    if binaries is None:
        pytest.skip("no PostgreSQL here: install Debian's package postgresql")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="cxr-faults-", dir="/tmp") as name:
        folder = Path(name)
        if os.geteuid() == 0:
            shutil.chown(folder, "nobody", "nogroup")
        made = Postgres(folder, binaries, port)
        made.password_file.write_text("p@ss/word:of the test\n")
        made.password_file.chmod(0o644)
        made.run(
            "initdb",
            "-U",
            "cxr",
            "-E",
            "UTF8",
            "--no-sync",
            "--auth=scram-sha-256",
            f"--pwfile={made.password_file}",
        )
        made.start()
        yield made
        with contextlib.suppress(subprocess.CalledProcessError):
            made.stop()
