"""How the server answers 1, 8 and 32 clients at once, beside the predictor alone.

    python benchmarks/load.py BUNDLE --images FOLDER [--seconds 60] [--clients 1 8 32]

Starts gunicorn with the application on a free port and an empty data folder, on loopback. Each
client uploads images one after the other and, told 503, waits as long as Retry-After says.
Without --images it uploads synthetic pictures of 1024 x 1024.
"""

import argparse
import contextlib
import http.client
import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import track

from cxr.console import print_table
from cxr.imaging.read import SUFFIXES

ALONE = """
import itertools, sys, time
from pathlib import Path
from cxr import Predictor
bundle, seconds, threads, *paths = sys.argv[1:]
images = [Path(path).read_bytes() for path in paths]
predictor = Predictor(bundle, threads=int(threads))
answers = predictor.predict_each(itertools.cycle(images), maps=True)
for _ in range(8):
    next(answers)
count, began = 0, time.perf_counter()
while time.perf_counter() - began < float(seconds):
    next(answers)
    count += 1
print(count / (time.perf_counter() - began))
"""


@dataclass
class Phase:
    """What happened with one number of clients."""

    clients: int
    seconds: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    memory_mb: list[float] = field(default_factory=list)

    def row(self, alone: float, lone_p50_s: float) -> dict[str, str]:
        """Return the table's row."""
        times = np.array(self.latencies_s or [np.nan])
        per_second = len(self.latencies_s) / self.seconds
        p95_s = float(np.percentile(times, 95))
        others = {key: n for key, n in self.statuses.items() if key != "201"}
        return {
            "clients": str(self.clients),
            "images/s": f"{per_second:.1f}",
            "of the predictor alone": f"{per_second / alone:.0%}",
            "p50 ms": f"{1000 * np.median(times):.0f}",
            "p95 ms": f"{1000 * p95_s:.0f}",
            "p95 / lone p50": f"{p95_s / lone_p50_s:.1f}",
            "answered": str(self.statuses["201"]),
            "others": ", ".join(f"{key}: {n}" for key, n in sorted(others.items())) or "none",
            "memory MB first, last, most": (
                f"{self.memory_mb[0]:.0f}, {self.memory_mb[-1]:.0f}, {max(self.memory_mb):.0f}"
            ),
        }


@dataclass(frozen=True)
class Target:
    """A running server and what is sent to it."""

    port: int
    token: str
    images: list[bytes]
    master: int


def client(target: Target, phase: Phase, end: float, first: int) -> None:
    """Upload until the time is over."""
    connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=60)
    headers = {
        "Authorization": f"Bearer {target.token}",
        "Content-Type": "application/octet-stream",
    }
    images = target.images
    for number in itertools.count(first):
        if time.perf_counter() >= end:
            break
        began = time.perf_counter()
        try:
            connection.request("POST", "/api/v1/predictions", images[number % len(images)], headers)
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException) as error:
            phase.statuses[type(error).__name__] += 1
            connection.close()
            continue
        phase.statuses[str(answer.status)] += 1
        if answer.status == 201:
            phase.latencies_s.append(time.perf_counter() - began)
        elif answer.status in (429, 503):
            wait_s = float(answer.headers["Retry-After"])
            time.sleep(max(0.0, min(wait_s, end - time.perf_counter())))
    connection.close()


def memory_mb(master: int) -> float:
    """Return the memory of the master and its processes, shared pages counted once."""
    total_kb = 0
    children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    for pid in [str(master), *children]:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total_kb += int(line.split()[1])
    return total_kb / 1024


def run_phase(clients: int, seconds: float, target: Target) -> Phase:
    """Let so many clients upload for so long."""
    phase = Phase(clients)
    began = time.perf_counter()
    threads = [
        threading.Thread(target=client, args=(target, phase, began + seconds, 7 * number))
        for number in range(clients)
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        phase.memory_mb.append(memory_mb(target.master))
        time.sleep(0.5)
    phase.seconds = time.perf_counter() - began
    return phase


@contextlib.contextmanager
def server(bundle: Path, folder: Path, processes: int, threads: int):
    """Run the server; yield its port, a token and its number."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "CXR_BUNDLE": str(bundle),
        "CXR_DATA_FOLDER": str(folder),
        "CXR_THREADS": str(threads),
        "CXR_BIND": f"127.0.0.1:{port}",
        "CXR_RATE_PER_MINUTE": "1000000",
        "CXR_PROCESSES": str(processes),
        "TMPDIR": str(folder),
    }
    flask = [sys.executable, "-m", "flask", "--app", "cxr.serve"]
    for words in (["users", "add", "load", "--generate"], ["tokens", "create", "load", "load"]):
        done = subprocess.run(
            [*flask, *words], env=environment, check=True, capture_output=True, text=True
        )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "gunicorn",
                "--config",
                "python:cxr.serve.gunicorn_conf",
                "cxr.serve:create_app()",
            ],
            env=environment,
            stdout=log,
            stderr=log,
        )
    try:
        wait_until_ready(port)
        yield port, done.stdout.split()[-1], process.pid
    finally:
        process.terminate()
        process.wait(30)


def wait_until_ready(port: int) -> None:
    for _ in range(240):
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return
        time.sleep(0.25)
    sys.exit("error: the server did not become ready")


def synthetic_images(folder: Path) -> list[Path]:
    """Write smooth pictures of 1024 x 1024 as JPEG."""
    paths = []
    for seed in range(8):
        coarse = np.random.default_rng(seed).integers(20, 230, (24, 24), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((1024, 1024), Image.Resampling.BICUBIC)
        paths.append(folder / f"{seed}.jpeg")
        picture.save(paths[-1], quality=85)
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--threads", type=int, default=0, help="of the model; 0: every core")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cxr-load-") as name:
        folder = Path(name)
        found = sorted(given.images.rglob("*")) if given.images else synthetic_images(folder)
        paths = [path for path in found if path.suffix.lower() in SUFFIXES]
        paths = paths[:: max(1, len(paths) // 64)][:64]
        images = [path.read_bytes() for path in paths]

        def alone(seconds: float) -> float:
            words = [str(given.bundle), str(seconds), str(given.threads), *map(str, paths)]
            command = [sys.executable, "-c", ALONE, *words]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            return float(done.stdout)

        before = alone(given.seconds)
        data = folder / "data"
        data.mkdir()
        with server(given.bundle, data, given.processes, given.threads) as (port, token, master):
            target = Target(port, token, images, master)
            run_phase(1, min(5, given.seconds), target)
            phases = [
                run_phase(clients, given.seconds, target)
                for clients in track(given.clients, console=Console(stderr=True))
            ]
        # The machine may have been busier or idler meanwhile: measured before and after.
        after = alone(given.seconds)
        lone = float(np.median(phases[0].latencies_s))
        title = (
            f"{len(images)} images, {given.seconds:g} s each; predictor alone: {before:.1f} images "
            f"a second before, {after:.1f} after"
        )
        print_table(title, [phase.row((before + after) / 2, lone) for phase in phases])
        print(json.dumps({"alone": [before, after], "statuses": [p.statuses for p in phases]}))


if __name__ == "__main__":
    main()
