"""How much slower training and prediction become where other programs keep all processors busy.

    python benchmarks/busy_machine.py [--epochs 2] [--threads 0] [--bundle FOLDER] [--rounds 1]

Trains InceptionV3 on the phantom, on a machine that is free and beside as many busy programs as it
has processors; with --bundle, its images per second too. Run it on a machine that is free.
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cxr.bundle.format import MODEL_FILE, read_info
from cxr.bundle.runtimes import open_runtime
from cxr.files import read_json
from cxr.pipeline.config import compose
from cxr.pipeline.train_stage import train_stage

SPIN = "while True: pass"
SECONDS = 10.0


@contextlib.contextmanager
def busy(programs: int) -> Iterator[None]:
    """Keep that many processors busy, each program in a session of its own, as users' are."""
    command = [sys.executable, "-c", SPIN]
    running = [subprocess.Popen(command, start_new_session=True) for _ in range(programs)]
    try:
        yield
    finally:
        for program in running:
            program.kill()
            program.wait()


def training_rate(root: Path, name: str, epochs: int, threads: int) -> float:
    """Return images per second of a whole training, validation and checkpoints included."""
    words = ["data=phantom", "model=inceptionv3", f"trainer.max_epochs={epochs}", f"run={name}"]
    words += [f"output_root={root}", f"trainer.threads={threads}", "trainer.progress=false"]
    card = read_json(train_stage(compose("train", words)) / "member.json", hint="train again")
    training = card["training"]
    print(f"  threads that were used: {training['threads']}", file=sys.stderr)
    return float(training["epochs"] * card["data"]["train_images"] / training["seconds"])


def prediction_rate(bundle: Path, threads: int) -> float:
    """Return images per second of the graph in batches of 16."""
    side = int(read_info(bundle)["preprocess"]["size_px"])
    pixels = np.random.default_rng(0).integers(0, 256, (16, 1, side, side), np.uint8)
    runtime = open_runtime(bundle / MODEL_FILE, threads=threads)
    runtime.run(pixels, ["probs"])
    began, batches = time.monotonic(), 0
    while time.monotonic() - began < SECONDS:
        runtime.run(pixels, ["probs"])
        batches += 1
    return batches * len(pixels) / (time.monotonic() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--bundle", type=Path)
    options = parser.parse_args()
    processors = len(os.sched_getaffinity(0))
    rates: dict[tuple[str, bool], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.rounds):
            for crowded in (False, True):
                with busy(processors if crowded else 0):
                    name = f"{number}-{crowded}"
                    rate = training_rate(Path(folder), name, options.epochs, options.threads)
                    rates.setdefault(("training", crowded), []).append(rate)
                    if options.bundle:
                        rate = prediction_rate(options.bundle, options.threads)
                        rates.setdefault(("prediction", crowded), []).append(rate)
    print(f"{'':12}{'free, images/s':>16}{'busy, images/s':>16}{'times slower':>14}")
    for what in dict.fromkeys(key for key, _ in rates):
        free, crowded_rate = (statistics.median(rates[what, crowded]) for crowded in (False, True))
        print(f"{what:12}{free:>16.1f}{crowded_rate:>16.1f}{free / crowded_rate:>14.2f}")


if __name__ == "__main__":
    main()
