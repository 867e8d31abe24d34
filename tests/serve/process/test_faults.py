"""What goes wrong under a server: nothing stored is lost or half-written, the next start serves."""

import os
import random
import resource
import shutil
import signal
import socket
import sqlite3
import subprocess
import threading
import time

import pytest

pytestmark = pytest.mark.long


def half_an_upload(server) -> socket.socket:
    """Send half of an image and keep the connection."""
    connection = socket.create_connection(("127.0.0.1", server.port), 10)
    head = (
        "POST /api/v1/predictions HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
        f"Authorization: Bearer {server.token}\r\nContent-Length: 100000\r\n\r\n"
    )
    connection.sendall(head.encode() + b"\x89PNG" * 12_000)
    return connection


def stored(server) -> dict[str, str]:
    """Return id to folder of what the history holds."""
    with sqlite3.connect(server.data / "cxr.sqlite") as base:
        assert base.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return dict(base.execute("SELECT id, stem FROM predictions"))


def check_whole(server, answered: list[str]) -> None:
    """Check that what was answered is there, and that no row lacks a file."""
    rows = stored(server)
    assert set(answered) <= set(rows), "an answered image is lost"
    kept = {folder.name for folder in server.images}
    assert set(rows.values()) <= kept, "a result has lost its image"
    for name in rows:
        status, shown = server.api("GET", f"/predictions/{name}?maps=true")
        assert status == 200
        assert shown["maps"]
        assert (
            server.ask(
                "GET", f"/api/v1/predictions/{name}/map.png", Authorization=f"Bearer {server.token}"
            )[0]
            == 200
        )


class Clients:
    """Threads that upload until they are stopped; what was answered gathers here."""

    def __init__(self, server, count: int = 4) -> None:
        self.server, self.answered, self.statuses = server, [], []
        self.fingerprints: set[str] = set()
        self.going = True
        self.threads = [threading.Thread(target=self.run, args=(n,)) for n in range(count)]
        for thread in self.threads:
            thread.start()

    def run(self, number: int) -> None:
        while self.going:
            try:
                status, shown = self.server.predict(number, side=200)
            except (OSError, ValueError, EOFError):  # the server was killed
                time.sleep(0.05)
                continue
            except Exception as error:
                if "http" not in type(error).__module__:
                    raise
                continue
            self.statuses.append(status)
            if status == 201:
                self.answered.append(shown["id"])
                self.fingerprints.add(shown["fingerprint"])

    def stop(self) -> None:
        self.going = False
        for thread in self.threads:
            thread.join()


def test_killed_in_the_middle_of_uploads_nothing_answered_is_lost(server):
    server.settings |= {"CXR_RATE_PER_MINUTE": "10000"}
    server.start()
    server.account()
    chance, answered = random.Random(0), []
    for _ in range(2):
        half = half_an_upload(server)
        clients = Clients(server)
        already = len(answered)
        server.until(lambda clients=clients: len(clients.answered) >= 5)
        time.sleep(chance.uniform(0, 0.3))
        server.kill()
        clients.stop()
        half.close()
        answered += clients.answered
        assert len(answered) > already
        server.start()
        check_whole(server, answered)
        assert server.predict()[0] == 201
    server.flask("tidy")
    left = [path for path in (server.data / "films").rglob("*") if path.name.startswith(".new-")]
    ages = [time.time() - path.stat().st_mtime for path in left]
    assert all(age < 3600 for age in ages), "what a kill left is tidied away within the hour"


def test_a_client_that_leaves_in_the_middle_stores_nothing_and_keeps_no_place(server):
    server.start()
    server.account()
    for _ in range(12):
        half_an_upload(server).close()
    server.until(lambda: server.figure("cxr_images_in_work") == 0)
    assert not server.images
    assert stored(server) == {}
    assert server.predict()[0] == 201


def test_a_client_that_leaves_while_it_waits_costs_the_model_nothing(server):
    server.model("slow", delay_s=3.0)
    server.settings |= {"CXR_BATCH": "1"}
    server.start()
    server.account()
    first = threading.Thread(target=server.predict)
    first.start()
    server.until(lambda: server.calls == 1)
    for seed in range(4):
        with pytest.raises(OSError, match="timed out"):
            server.ask(
                "POST",
                "/api/v1/predictions",
                server.image(seed),
                timeout=0.05,
                Authorization=f"Bearer {server.token}",
                **{"Content-Type": "image/png"},
            )
    first.join()
    server.until(lambda: server.figure("cxr_images_in_work") == 0)
    assert server.calls == 1
    assert len(server.images) == 1


def test_files_over_the_allowed_size_are_refused_and_small_ones_go_on(server):
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000))

    server.before = limit
    server.start()
    server.account()
    status, said = server.predict(side=900)  # noise: about 800 kB as PNG
    assert status == 507
    assert "store" in said["detail"]
    assert server.images == []
    assert stored(server) == {}
    assert not [path for path in (server.data / "films").rglob("*") if path.is_file()]
    assert server.predict(side=96)[0] == 201


@pytest.fixture
def small_disk(server):
    """Put the data on a disk of 12 MB of its own."""
    server.data.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(server.data)]
    if (
        os.geteuid() != 0
        or shutil.which("mount") is None
        or subprocess.run(command, capture_output=True, check=False).returncode
    ):
        pytest.skip("a small disk cannot be mounted here: that needs root")
    yield server.data
    if server.process is not None and server.process.poll() is None:
        server.kill()
    subprocess.run(["umount", "-l", str(server.data)], check=True)


def test_a_full_disk_refuses_images_and_loses_none(server, small_disk):
    server.settings |= {"CXR_SPARE_BYTES": "5000000"}
    server.start()
    server.account()
    answered = []
    for seed in range(40):
        status, shown = server.predict(seed, side=900)
        if status != 201:
            break
        answered.append(shown["id"])
    assert answered
    assert status == 507
    (small_disk / "ballast").write_bytes(b"x" * (shutil.disk_usage(small_disk).free - 300_000))
    assert server.get("/healthz")[0] == 200
    check_whole(server, answered)
    assert server.api("DELETE", f"/predictions/{answered.pop()}")[0] == 204
    (small_disk / "ballast").unlink()
    for name in answered[:5]:
        assert server.api("DELETE", f"/predictions/{name}")[0] == 204
    del answered[:5]
    assert server.predict(side=64)[0] == 201, "room was made"
    check_whole(server, answered)


def test_the_bundle_is_replaced_under_load_without_an_error(server):
    server.settings |= {"CXR_RATE_PER_MINUTE": "10000"}
    server.start()
    server.account()
    clients = Clients(server, 3)
    server.until(lambda: len(clients.answered) > 6)
    for name, bad in (("second", False), ("broken", True), ("third", False)):
        before = len(clients.answered)
        server.model(name, bad=bad)
        server.process.send_signal(signal.SIGHUP)
        server.until(lambda before=before: len(clients.answered) > before + 6)
        if not bad:
            server.until(lambda name=name: name in clients.fingerprints)
    clients.stop()
    assert set(clients.statuses) == {201}
    assert clients.fingerprints == {"first", "second", "third"}
    check_whole(server, clients.answered)


def test_the_database_goes_and_comes_back(server, postgres_of_its_own):
    server.settings |= {
        "CXR_DATABASE_URL": postgres_of_its_own.url,
        "CXR_DATABASE_PASSWORD_FILE": str(postgres_of_its_own.password_file),
    }
    server.start()
    server.account()
    first = server.predict(1)[1]["id"]
    postgres_of_its_own.stop()
    status, headers, body = server.ask(
        "POST",
        "/api/v1/predictions",
        server.image(2),
        Authorization=f"Bearer {server.token}",
        **{"Content-Type": "image/png"},
    )
    assert status == 503, body
    assert int(headers["Retry-After"]) > 0
    assert b"database" in body
    assert server.get("/readyz")[0] == 503
    assert server.get("/healthz")[0] == 200
    assert len(server.images) == 1
    postgres_of_its_own.start()
    server.until(lambda: server.get("/readyz")[0] == 200)
    assert server.predict(3)[0] == 201, "without a restart"
    assert server.api("GET", f"/predictions/{first}")[0] == 200
