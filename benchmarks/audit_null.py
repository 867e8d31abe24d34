"""What each audit test says of clean data, and of shortcuts planted at three strengths.

    python benchmarks/audit_null.py baselines [--runs 200] [--planted 20] [--patients 15]
    python benchmarks/audit_null.py phantom [--sets 2]

Every run draws new patients of four classes. The grain of the lungs is the disease (four
kinds, of equal gray), outlines are random. A fixed filter bank with a linear head, learned on the
run's own training images, stands for the networks, so that it takes a shortcut where there is
one. The audit's own functions judge each run. Planted: a share of the covid patients (a quarter,
a half, all) comes from a hospital of its own, and its images bear a marker, an exposure or a
framing. A test that looks for something else gets that instead: copies (leak), a gap (subgroups),
maps that mark another place (faithfulness), answers that lean on exposure (robustness). The
filter bank is fragile, so the null of ``robustness`` is a network that answers some images at
random, as often right when they are changed.
"""

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from cxr.audit.pooled_features import pooled_features
from cxr.audit.traits import thumbnails
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.stats import binomtest
from torch import Tensor, nn

from cxr.audit import occluded_probs as hidden
from cxr.audit import source_pairs as inside
from cxr.audit.attention import audit_attention
from cxr.audit.baseline_inputs import FILE, SIZE, Inputs, read_inputs
from cxr.audit.baselines import audit_baselines
from cxr.audit.context import Images
from cxr.audit.leakage import audit_leak
from cxr.audit.linear import fit_linear, out_of_fold
from cxr.audit.map_faithfulness import audit_faithfulness
from cxr.audit.occlusion import audit_lungs
from cxr.audit.result import AuditResult
from cxr.audit.robustness import audit_robustness
from cxr.audit.subgroups import audit_subgroups
from cxr.audit.within_class_sources import audit_sources, source_rows
from cxr.data import registration as alike
from cxr.data.phantom.writer import PhantomSettings, write_phantom
from cxr.imaging.preprocess import MemberInput
from cxr.imaging.read import read_gray
from cxr.models.build import Member, MemberSpec
from cxr.models.ensemble import Ensemble
from cxr.training.inference import predict_logits

SIDE, CELL = 32, 4
LABELS = ("normal", "covid", "bacterial", "viral")
COVID = 1
GRAINS = ((0.9, 0.9), (1.7, 1.7), (3.0, 3.0), (0.7, 3.0))
"""Blur, down and across in pixels, of the noise in the lungs of each class."""
SPREAD = 22
"""Standard deviation of gray in all lungs, so that a histogram tells no disease."""
STRENGTHS = {"weak": 0.25, "medium": 0.5, "strong": 1.0}
"""Share of the covid patients whose images bear the shortcut."""
SHORTCUTS = ("marker", "exposure", "framing")


@dataclass
class Run:
    """One simulated data set with its network."""

    images: Images
    table: pd.DataFrame
    member: Member
    rng: np.random.Generator
    missed: float = 0.0
    """Share of the women with covid that the network calls normal."""


class FilterBank(nn.Module):
    """Grain of four kinds, light and white, pooled to cells; then one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        side = 11
        spike = np.zeros((side, side))
        spike[side // 2, side // 2] = 1
        blur = [gaussian_filter(spike, sigma) for sigma in (0.7, 1.4, 2.6)]
        stripes = gaussian_filter(spike, (0.7, 2.5)) - gaussian_filter(spike, (2.5, 0.7))
        grains = (spike - blur[0], blur[0] - blur[1], blur[1] - blur[2], stripes)
        kernels = np.stack([*grains, *(-grain for grain in grains), blur[1], spike])
        self.stem = nn.Conv2d(3, len(kernels), side, padding=side // 2, padding_mode="reflect")
        self.act, self.pool = nn.ReLU(), nn.AvgPool2d(CELL)
        self.fc = nn.Linear(len(kernels), len(LABELS))
        with torch.no_grad():
            self.stem.weight.copy_(torch.tensor(kernels)[:, None] / 3)
            self.stem.bias.copy_(torch.tensor([-0.03] * 8 + [-0.5, -0.9]))

    def forward_features(self, inputs: Tensor) -> Tensor:
        """Return (B, C, h, w)."""
        return self.pool(self.act(self.stem(inputs)))

    def get_classifier(self) -> nn.Linear:
        """Return the head."""
        return self.fc

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (B, K) logits."""
        return self.fc(self.forward_features(inputs).mean(dim=(2, 3)))


class Elsewhere(FilterBank):
    """Marks places ``cells`` away from those that it answers by, which the pooling does not see."""

    cells = 0

    def forward_features(self, inputs: Tensor) -> Tensor:
        """Return (B, C, h, w)."""
        return torch.roll(super().forward_features(inputs), (self.cells, self.cells), dims=(2, 3))


class Quarters(FilterBank):
    """Answers the brightest quarter; for one image in three at random, as any pixel has it."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (B, K) logits."""
        logits = nn.functional.adaptive_avg_pool2d(inputs[:, 0], 2).flatten(1) * 50
        flat = inputs[:, 0].double().flatten(1)
        weights = torch.linspace(1.0, 1.9, flat.shape[1], dtype=torch.float64).sin()
        chance = ((flat @ weights) * 1e5).sin() * 1e4
        chance = chance - chance.floor()
        rolled = (chance * 1e3 % len(LABELS)).long().clamp(max=len(LABELS) - 1)
        random = 99.0 * nn.functional.one_hot(rolled, len(LABELS)).float()
        return torch.where((chance < 1 / 3)[:, None], random, logits)


class Leaning(Quarters):
    """Is wrong on a ``share`` of the images that are lighter or darker than it knows them."""

    share = 0.0

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (B, K) logits."""
        logits = super().forward(inputs)
        chance = (inputs[:, 0].double().sum(dim=(1, 2)) * 1e5).sin() * 1e4
        off = (inputs[:, 0].mean(dim=(1, 2)) - 0.373).abs() > 0.05
        wrong = off & (chance - chance.floor() < self.share)
        return torch.where(wrong[:, None], logits.roll(1, dims=1), logits)


def restless(seed: int, patients: int, network: type[FilterBank] = Quarters) -> Run:
    """Return images whose brightest quarter is the class, with a network that rolls dice."""
    run = simulate(seed, patients=patients)
    run.images.pixels[:] = run.rng.integers(80, 100, run.images.pixels.shape)
    for row, k in enumerate(run.images.targets):
        down, across = SIDE // 2 * (k // 2) + 5, SIDE // 2 * (k % 2) + 5
        run.images.pixels[row, down : down + 8, across : across + 8] += 80
    run.member = Member(network(), run.member.spec).eval()
    return run


def simulate(
    seed: int,
    shortcut: str = "none",
    strength: float = 0.0,
    *,
    patients: int = 15,
    network: type[FilterBank] = FilterBank,
) -> Run:
    """Draw a data set, half of it for test, and learn its network.

    Args:
        seed: of everything.
        shortcut: one of ``SHORTCUTS``, or none.
        strength: share of the covid patients that bear it.
        patients: of each class in test, and in train; two images each.
        network: whose head is learned.
    """
    rng = np.random.default_rng([2026, seed])
    count = 2 * patients * len(LABELS)
    classes = np.arange(count) % len(LABELS)
    planted = (classes == COVID) & (rng.random(count) < strength) & (shortcut in SHORTCUTS)
    hospital = np.where(planted, "b", rng.choice(["a", "c"], count))
    who = np.repeat(np.arange(count), 2)
    targets, marked = classes[who], planted[who]
    zoom, shift = rng.normal(1, 0.05, count)[who], rng.normal(0, 0.04, (count, 2))[who]
    if shortcut == "framing":
        zoom, shift[:, 0] = np.where(marked, zoom * 0.8, zoom), shift[:, 0] + 0.1 * marked
    pixels, lungs = _draw(targets, zoom, shift, rng.normal(0, 6, count)[who], rng)
    if shortcut == "exposure":
        pixels[marked] = 255 * (pixels[marked] / 255) ** 0.65
    if shortcut == "marker":
        pixels[marked, 1:4, 1:6] = 255
    images = np.rint(pixels).astype(np.uint8)
    split = np.where(np.arange(count) // len(LABELS) % 2, "test", "train")[who]
    rows = np.arange(len(who))
    groups = np.char.add("p", who.astype(str))
    radiographs = Images(
        images,
        targets,
        groups,
        LABELS,
        rows[split != "test"],
        rows[split == "test"],
        np.ones(len(rows), bool),
        lambda wanted: lungs[wanted],
    )
    table = pd.DataFrame(
        {
            "label": np.array(LABELS)[targets],
            "source": hospital[who],
            "split": split,
            "group": groups,
            "sex": rng.choice(["F", "M"], count)[who],
            "age": rng.choice(["25", "50", "70"], count)[who],
            "view": rng.choice(["PA", "AP"], len(who)),
        }
    )
    spec = MemberSpec("bank", LABELS, MemberInput(SIDE, (0.0,) * 3, (1.0,) * 3), "pool")
    member = Member(network(), spec).eval()
    _learn(member, radiographs, rng)
    return Run(radiographs, table, member, rng)


def _draw(
    targets: NDArray[np.int64],
    zoom: NDArray[np.float64],
    shift: NDArray[np.float64],
    gray: NDArray[np.float64],
    rng: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return gray values (N, S, S) 0 to 255 and lung masks."""
    axis = np.linspace(-1, 1, SIDE)
    down = (axis[None, :, None] - shift[:, 0, None, None]) / zoom[:, None, None]
    across = (axis[None, None, :] - shift[:, 1, None, None]) / zoom[:, None, None]
    lungs = ((np.abs(across) - 0.42) / 0.3) ** 2 + (down / 0.62) ** 2 < 1
    body = (across / 0.95) ** 4 + (down / 0.95) ** 4 < 1
    values = np.where(body, 110.0, 95.0) + rng.normal(0, 3, lungs.shape)
    for k, blur in enumerate(GRAINS):
        own = targets == k
        grain = gaussian_filter(rng.normal(size=lungs[own].shape), (0, *blur), mode="wrap")
        grain *= SPREAD / grain.std()
        values[own] = np.where(lungs[own], 110 + grain, values[own])
    values += gray[:, None, None]
    return np.clip(values, 0, 255), lungs


def _learn(member: Member, images: Images, rng: np.random.Generator) -> None:
    """Learn the head on the training images and on copies of other brightness and contrast."""
    rows = images.fit_rows
    gray = images.pixels[rows].astype(np.float64)
    copies = [images.pixels[rows]]
    for _ in range(2):
        scale, add = (
            rng.uniform(0.7, 1.3, (len(rows), 1, 1)),
            rng.uniform(-30, 30, (len(rows), 1, 1)),
        )
        changed = 255 * (np.clip(128 + (gray - 128) * scale + add, 0, 255) / 255) ** np.exp(
            rng.uniform(-0.25, 0.25, (len(rows), 1, 1))
        )
        copies.append(np.rint(changed).astype(np.uint8))
    shown = np.concatenate(copies)
    features = pooled_features(member, shown, np.arange(len(shown)), batch_size=1024)
    model = fit_linear(
        features,
        np.tile(images.targets[rows], len(copies)),
        np.tile(images.groups[rows], len(copies)),
        n_classes=len(LABELS),
        penalties=(1e-2,),
    )
    weights = model.weights / model.scale[:, None]
    with torch.no_grad():
        member.head.weight.copy_(torch.tensor(weights.T))
        member.head.bias.copy_(torch.tensor(model.bias - model.mean @ weights))


def _ensemble() -> Ensemble:
    return Ensemble(LABELS, ("bank",), {"bank": 1.0}, {"bank": 1.0})


def leak(run: Run) -> AuditResult:
    """Copies and patients."""
    groups = run.images.groups
    return audit_leak(run.images.pixels, run.table["split"], groups, groups, groups.tolist())


def copied(run: Run, count: int) -> Run:
    """Put darker copies of training images in the place of some test images."""
    chosen = run.rng.permutation(run.images.test_rows)[:count]
    source = run.rng.choice(run.images.fit_rows, count, replace=False)
    run.images.pixels[chosen] = np.rint(run.images.pixels[source] * 0.9 + 8).astype(np.uint8)
    return run


def baselines(run: Run) -> AuditResult:
    """Trivial inputs; size and file are random."""
    images = run.images
    ones = ["1"] * len(images.pixels)
    inputs = read_inputs(images.pixels, ones, ones, root=Path("/nowhere"), names=ones)
    more = {name: run.rng.normal(size=(len(ones), 3)) for name in (SIZE, FILE)}
    probs = torch.softmax(torch.tensor(_logits(run)), dim=1).double().numpy()
    return audit_baselines(
        Inputs({**inputs.features, **more}, {}),
        images.targets,
        images.groups,
        LABELS,
        fit_rows=images.fit_rows,
        test_rows=images.test_rows,
        model_probs={"bank": probs},
        model="bank",
    )


def _logits(run: Run) -> NDArray[np.float32]:
    return predict_logits(run.member, run.images.pixels, run.images.test_rows, batch_size=1024)


def _on_images(
    audit: Callable[..., AuditResult], **options: object
) -> Callable[[Run], AuditResult]:
    def test(run: Run) -> AuditResult:
        return audit(
            {"bank": run.member}, _ensemble(), run.images, rng=run.rng, batch_size=1024, **options
        )

    return test


def sources(run: Run) -> AuditResult:
    """Hospitals."""
    table = run.table
    rows = source_rows(table["split"], table["label"], table["source"])
    features = {"bank": pooled_features(run.member, run.images.pixels, rows, batch_size=1024)}
    return audit_sources(table, LABELS, features, rows)


def subgroups(run: Run) -> AuditResult:
    """Sex, age, view and hospital; of some patients one image is left, so that sizes differ."""
    images, test_rows = run.images, run.images.test_rows
    kept = run.rng.random(len(test_rows)) < 0.8
    test, targets = run.table.iloc[test_rows[kept]], images.targets[test_rows[kept]]
    predicted = _logits(run)[kept].argmax(axis=1)
    women = (targets == COVID) & (test["sex"] == "F").to_numpy()
    predicted[women & (run.rng.random(len(women)) < run.missed)] = 0
    return audit_subgroups(
        targets,
        predicted,
        images.groups[test_rows[kept]],
        LABELS,
        {name: test[name].to_numpy(str) for name in ("sex", "age", "view", "source")},
    )


RESAMPLES = 200
TESTS: dict[str, Callable[[Run], AuditResult]] = {
    "leak": leak,
    "baselines": baselines,
    "lungs": _on_images(audit_lungs),
    "attention": _on_images(audit_attention, resamples=RESAMPLES, stages=2, most_random=4),
    "sources": sources,
    "robustness": _on_images(audit_robustness, resamples=RESAMPLES, count=60),
    "faithfulness": _on_images(
        audit_faithfulness, resamples=RESAMPLES, methods=("closed_form",), count=32
    ),
    "subgroups": subgroups,
}


def hasten() -> None:
    """Spare the choice of a penalty in lungs and sources, and leak's same views in every run."""
    for module in (hidden, inside):
        module.fit_linear = partial(fit_linear, penalties=(0.1,))
    inside.out_of_fold = partial(out_of_fold, penalties=(0.1,))
    alike._sampling = cache(alike._sampling)


def makers(test: str, patients: int) -> dict[str, Callable[[int], Run]]:
    """Return, per row of a test, what makes the run of a number; the clean row first."""
    clean = partial(simulate, patients=patients)
    found: dict[str, Callable[[int], Run]] = {"clean": clean}
    if test == "leak":
        for copies in (1, 2, 6):
            found[f"copies in test: {copies}"] = lambda number, copies=copies: copied(
                clean(number), copies
            )
    elif test == "robustness":
        found = {"clean": partial(restless, patients=patients), "filter bank": clean}
        for share in (0.1, 0.25, 0.5):
            found[f"{share:.0%} lost by exposure"] = partial(
                restless, patients=patients, network=type("Lean", (Leaning,), {"share": share})
            )
    elif test == "subgroups":
        for share in (0.2, 0.4, 0.6):
            found[f"{share:.0%} of the women with covid missed"] = lambda number, share=share: (
                replace(clean(number), missed=share)
            )
    elif test == "faithfulness":
        for cells in (1, 2, 3):
            found[f"maps {CELL * cells} of {SIDE} px away"] = partial(
                clean, network=type("Moved", (Elsewhere,), {"cells": cells})
            )
    else:
        for shortcut in SHORTCUTS:
            for word, share in STRENGTHS.items():
                found[f"{shortcut}, {word}"] = partial(clean, shortcut=shortcut, strength=share)
    return found


def row_of(test: str, name: str, verdicts: list[str]) -> str:
    """Return a row of docs/audit.md."""
    alarms = sum(verdict in ("suspicious", "shortcut") for verdict in verdicts)
    bounds = binomtest(alarms, len(verdicts)).proportion_ci()
    return (
        f"| {test} | {name} | {alarms} of {len(verdicts)} | {bounds.low:.3f} to "
        f"{bounds.high:.3f} | {verdicts.count('shortcut')} | {verdicts.count('skipped')} |"
    )


def phantom(sets: int) -> None:
    """Print what the tests that need no network say of a few phantoms."""
    for shortcut, strength in [
        ("none", 1.0),
        *((s, w) for s in SHORTCUTS for w in STRENGTHS.values()),
    ]:
        told: dict[str, list[str]] = {}
        for seed in range(sets):
            for name, result in _audit_phantom(shortcut, strength, seed).items():
                told.setdefault(name, []).append(result.verdict)
        print(shortcut, strength, told, flush=True)


def _audit_phantom(shortcut: str, strength: float, seed: int) -> dict[str, AuditResult]:
    settings = PhantomSettings(
        patients_per_class=40,
        images_per_patient=(1, 1),
        size_px=64,
        seed=seed,
        shortcut=shortcut,
        shortcut_strength=strength,
    )
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "phantom"
        write_phantom(root, settings)
        table = pd.read_csv(root / "manifest.csv", dtype=str, keep_default_na=False)
        pixels = np.stack([read_gray(root / name) for name in table["image"]])
    targets = np.array([LABELS.index(label) for label in table["label"]])
    rows = np.arange(len(table))
    fit, test = rows[rows % 5 < 3], rows[rows % 5 >= 3]
    split = np.where(rows % 5 < 3, "train", "test")
    groups = table["patient_id"].to_numpy(str)
    ones = ["1"] * len(rows)
    inputs = read_inputs(pixels, ones, ones, root=Path("/nowhere"), names=ones)
    flat = thumbnails(pixels, rows).reshape(len(rows), -1)
    probs = fit_linear(flat[fit], targets[fit], groups[fit], n_classes=4).probs(flat[test])
    return {
        "leak": audit_leak(pixels, split, groups, groups, table["image"].tolist()),
        "baselines": audit_baselines(
            inputs,
            targets,
            groups,
            LABELS,
            fit_rows=fit,
            test_rows=test,
            model_probs={"thumbnail": probs},
            model="thumbnail",
        ),
        "subgroups": audit_subgroups(
            targets[test],
            probs.argmax(axis=1),
            groups[test],
            LABELS,
            {"sex": table["sex"].to_numpy(str)[test], "view": table["view"].to_numpy(str)[test]},
        ),
    }


def main() -> None:
    """Print the rows of one test."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("test", choices=[*TESTS, "phantom"])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--planted", type=int, default=20)
    parser.add_argument("--patients", type=int, default=15)
    parser.add_argument("--sets", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.test == "phantom":
        phantom(options.sets)
        return
    hasten()
    audit = TESTS[options.test]
    for name, make in makers(options.test, options.patients).items():
        runs = options.runs if name == "clean" else options.planted
        verdicts = [audit(make(number)).verdict for number in range(runs)]
        print(row_of(options.test, name, verdicts), flush=True)


if __name__ == "__main__":
    main()
