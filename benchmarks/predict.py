"""Milliseconds per image of a bundle, beside the same members in PyTorch; start and memory.

    python benchmarks/predict.py BUNDLE [--run outputs/cxr4/patient] [--threads 2] [--rounds 9]

Every way is timed in turn within a round, so that a noisy machine hits all alike; the median
and the least of the rounds are shown, and ratios are those of the medians. The peers' way is
PyTorch eager for the prediction and pytorch-grad-cam on both members for the maps. On a machine
that is busy with other work give --busy: ratios are then those of processor time, which others
hardly change. With --run, each way's accuracy on the run's test images is measured too.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cxr.bundle.export import output_names
from cxr.bundle.format import MODEL_FILE, read_info
from cxr.bundle.runtimes import RUNTIMES, open_runtime
from cxr.errors import InputError
from cxr.models.ensemble import WEIGHTED, Ensemble, all_probs

Way = Callable[[np.ndarray], Any]
PEERS = "eager f32, then pytorch-grad-cam"
BATCHES = (1, 16)
START = """
import sys, time
began = time.perf_counter()
from pathlib import Path
import numpy as np
from cxr import Predictor
bundle, runtime, threads, count = sys.argv[1:]
predictor = Predictor(bundle, runtime=runtime, threads=int(threads))
side = predictor.info["preprocess"]["size_px"]
images = list(np.random.default_rng(0).integers(0, 256, (int(count), side, side), np.uint8))
predictor.predict(images[0], maps=True).maps.overlay(predictor.labels[0])
first = time.perf_counter() - began
predictor.predict(images, maps=True)
status = Path("/proc/self/status").read_text()
peak = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
print(f"{first} {int(peak) / 1024}")
"""


def torch_ways(bundle: Path, threads: int) -> dict[str, Way]:
    """Return the ways without the bundle's graph; each takes (B, 1, S, S) uint8."""
    import torch
    from pytorch_grad_cam import GradCAM

    from cxr.models.build import load_member

    torch.set_num_threads(threads)
    info = read_info(bundle)
    ensemble = Ensemble.from_dict(info)
    members = [load_member(bundle / "members" / name) for name in info["members"]]
    layers = [member.network.get_submodule(member.spec.feature_module) for member in members]
    last = [load_member(bundle / "members" / name) for name in info["members"]]
    for member in last:
        member.to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def eager(pixels: np.ndarray) -> np.ndarray:
        images = torch.from_numpy(pixels)
        return mixed([member(member.prepare(images)) for member in members])

    @torch.inference_mode()
    def half(pixels: np.ndarray) -> np.ndarray:
        images, found = torch.from_numpy(pixels), []
        with torch.autocast("cpu", torch.bfloat16):
            for member in last:
                inputs = member.prepare(images).contiguous(memory_format=torch.channels_last)
                found.append(member(inputs))
        return mixed([logits.float() for logits in found])

    def mixed(logits: list[torch.Tensor]) -> np.ndarray:
        named = dict(zip(info["members"], logits, strict=True))
        return all_probs(named, ensemble)[WEIGHTED]

    def peers(pixels: np.ndarray) -> np.ndarray:
        probs = eager(pixels)
        images = torch.from_numpy(pixels)
        for member, layer in zip(members, layers, strict=True):
            # Its hooks would slow the plain way down, so they go again.
            with GradCAM(member, [layer]) as cam:
                cam(input_tensor=member.prepare(images), targets=None)
        return probs

    return {"eager f32": eager, PEERS: peers, "eager bf16 channels-last": half}


def bundle_ways(bundle: Path, threads: int) -> dict[str, Way]:
    """Return the ways of the bundle's graph, each with every output: maps and features too."""
    info = read_info(bundle)
    outputs, ways = output_names(tuple(info["members"])), {}
    for runtime in RUNTIMES:
        try:
            graph = open_runtime(bundle / MODEL_FILE, runtime=runtime, threads=threads)
        except InputError as error:
            print(error, file=sys.stderr)
            continue
        name = f"{runtime}, maps and features inside"
        ways[name] = lambda pixels, graph=graph: graph.run(pixels, outputs)["probs"]
    return ways


def times(ways: dict[str, Way], images: np.ndarray, rounds: int) -> dict[str, np.ndarray]:
    """Return milliseconds per image of each way, (rounds, 2): by the clock, and of processors."""
    found: dict[str, list[list[float]]] = {name: [] for name in ways}
    for way in ways.values():
        way(images)
    repeats = max(1, 4 // len(images))
    for _ in range(rounds):
        for name, way in ways.items():
            began = np.array([time.perf_counter(), time.process_time()])
            for _ in range(repeats):
                way(images)
            ended = np.array([time.perf_counter(), time.process_time()])
            found[name].append(((ended - began) * 1e3 / repeats / len(images)).tolist())
    return {name: np.array(values) for name, values in found.items()}


def show_times(
    table: dict[str, np.ndarray], batch: int, bases: dict[str, str], *, busy: bool
) -> None:
    heads = "".join(f"{f'x {head}':>14}" for head in bases)
    print(f"\nbatch of {batch}, ratios of {'processor time' if busy else 'the clock'}")
    print(f"{'way':50}{'ms, median':>11}{'least':>8}{'processor':>11}{heads}")
    middle = {name: np.median(values, axis=0) for name, values in table.items()}
    for name, values in table.items():
        kind = int(busy)
        ratios = "".join(
            f"{middle[base][kind] / middle[name][kind]:14.2f}" for base in bases.values()
        )
        clock, processor = middle[name]
        print(
            f"{name:50}{clock:11.1f}{values[:, 0].min():8.1f}{processor:11.1f}{ratios}", flush=True
        )


def show_accuracy(ways: dict[str, Way], run: Path) -> None:
    """Print each way's accuracy on the run's test images, its difference with an interval."""
    from cxr.data.prepared import open_prepared
    from cxr.evaluation.evaluate import read_predictions
    from cxr.evaluation.intervals import paired_difference
    from cxr.labels import label_indices

    prepared = open_prepared(run / json.loads((run / "run.json").read_text())["prepared"])
    table = read_predictions(run / "evaluation" / "predictions.csv")
    place = {image: row for row, image in enumerate(prepared.table["image"])}
    rows = [place[image] for image in table["image"]]
    targets = np.array(label_indices(table["label"], prepared.labels))
    base = table[[f"prob_ensemble_{label}" for label in prepared.labels]].to_numpy(float)
    print(
        f"\n{len(rows)} test images\n{'way':52}{'accuracy':>10}{'difference':>12}"
        f"{'interval, paired':>22}{'largest change':>16}"
    )
    for name, way in ways.items():
        parts = [
            way(np.asarray(prepared.pixels[rows[start : start + 16]])[:, None])
            for start in range(0, len(rows), 16)
        ]
        probs = np.concatenate(parts).astype(float)
        probs /= probs.sum(axis=1, keepdims=True)
        right, before = (values.argmax(axis=1) == targets for values in (probs, base))
        groups, rng = table["group"].to_numpy(str), np.random.default_rng(0)
        gap = paired_difference(right, before, groups, rng=rng)
        print(
            f"{name:52}{right.mean():10.4f}{gap['value']:+12.4f}"
            f"{gap['low']:+12.4f} to {gap['high']:+.4f}{np.abs(probs - base).max():16.4f}",
            flush=True,
        )


def show_start(bundle: Path, threads: int, ways: dict[str, Way]) -> None:
    """Print seconds from import to the first answer with an overlay, and peak memory."""
    print(f"\n{'predictor in a fresh process':52}{'first answer, s':>16}{'peak, MB':>10}")
    for name in ways:
        runtime = name.split(",")[0]
        command = [sys.executable, "-c", START, str(bundle), runtime, str(threads), "32"]
        runs = []
        for _ in range(3):
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            runs.append([float(word) for word in done.stdout.split()])
        first, peak = np.median(np.array(runs), axis=0)
        print(f"{name.split(',')[0]:52}{first:16.2f}{peak:10.0f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--run", type=Path, help="the bundle's run, for accuracies")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--busy", action="store_true", help="ratios of processor time")
    given = parser.parse_args()
    served = bundle_ways(given.bundle, given.threads)
    ways = torch_ways(given.bundle, given.threads) | served
    side = read_info(given.bundle)["preprocess"]["size_px"]
    images = np.random.default_rng(0).integers(0, 256, (max(BATCHES), 1, side, side), np.uint8)
    for batch in BATCHES:
        table = times(ways, images[:batch], given.rounds)
        bases = {"peers": PEERS} if batch == 1 else {}
        bases |= {"eager f32": "eager f32", "eager bf16": "eager bf16 channels-last"}
        show_times(table, batch, bases, busy=given.busy)
    if given.run:
        show_accuracy({name: way for name, way in ways.items() if name != PEERS}, given.run)
    show_start(given.bundle, given.threads, served)


if __name__ == "__main__":
    main()
