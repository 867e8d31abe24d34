"""What each audit test says of clean data, and of shortcuts planted at three strengths.

    python benchmarks/audit_null.py baselines [--runs 200] [--planted 20] [--patients 15]
    python benchmarks/audit_null.py phantom [--sets 2]

The audit's own functions judge the simulated runs of ``null_images.py``. Planted: a share of the
covid patients (a quarter, a half, all) comes from a hospital of its own, and its images bear a
marker, an exposure or a framing. A test that looks for something else gets that instead: copies
(leak), a gap (subgroups), maps that mark another place (faithfulness), answers that lean on
exposure (robustness). The filter bank is fragile, so the null of ``robustness`` is a network that
answers some images at random, as often right when they are changed.
"""

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.stats import binomtest

from cxr.audit import occluded_probs, source_pairs
from cxr.audit.attention import audit_attention
from cxr.audit.baseline_inputs import FILE, SIZE, Inputs, read_inputs, thumbnails
from cxr.audit.baselines import audit_baselines
from cxr.audit.context import AuditContext
from cxr.audit.framing import audit_framing
from cxr.audit.leakage import audit_leak
from cxr.audit.linear import fit_linear, out_of_fold
from cxr.audit.map_faithfulness import audit_faithfulness
from cxr.audit.occlusion import audit_lungs
from cxr.audit.result import AuditResult
from cxr.audit.robustness import audit_robustness
from cxr.audit.subgroups import audit_subgroups
from cxr.audit.within_class_sources import audit_sources
from cxr.data import registration
from cxr.data.phantom.writer import PhantomSettings, write_phantom
from cxr.imaging.read import read_gray
from cxr.models.ensemble import Ensemble
from cxr.training.inference import predict_logits

from null_images import (  # isort: skip
    CELL,
    COVID,
    LABELS,
    SHORTCUTS,
    SIDE,
    STRENGTHS,
    Elsewhere,
    Leaning,
    copied,
    restless,
    simulate,
)


def missed(context: AuditContext, share: float) -> AuditContext:
    """Let the network call a share of the women with covid normal; see ``subgroups``."""
    return replace(context, table=context.table.assign(missed=str(share)))


def baselines(context: AuditContext) -> AuditResult:
    """Non-anatomical inputs; size and file are random."""
    inputs = _inputs(context.pixels)
    more = {name: context.stream(0).normal(size=(len(context.table), 3)) for name in (SIZE, FILE)}
    probs = torch.softmax(torch.tensor(_logits(context)), dim=1).double().numpy()
    context = replace(context, probs={"bank": probs})
    return audit_baselines(context, inputs=Inputs({**inputs.features, **more}, {}))


def _inputs(pixels: NDArray[np.uint8]) -> Inputs:
    ones = ["1"] * len(pixels)
    return read_inputs(pixels, ones, ones, [Path("/nowhere")] * len(pixels))


def _logits(context: AuditContext) -> NDArray[np.float32]:
    return predict_logits(
        context.members["bank"], context.pixels, context.test_rows, batch_size=1024
    )


def subgroups(context: AuditContext) -> AuditResult:
    """Sex, age, view and hospital; of some patients one image is left, so that sizes differ."""
    rng, test_rows = context.stream(0), context.test_rows
    kept = rng.random(len(test_rows)) < 0.8
    rows, predicted = test_rows[kept], _logits(context)[kept].argmax(axis=1)
    women = (context.targets[rows] == COVID) & (context.column("sex")[rows] == "F")
    predicted[women & (rng.random(len(women)) < float(context.column("missed")[0] or 0))] = 0
    probs = {"bank": np.eye(len(LABELS))[predicted]}
    return audit_subgroups(
        replace(context, test_rows=rows, probs=probs, resamples=1000, stream_of_all=None)
    )


TESTS: dict[str, Callable[[AuditContext], AuditResult]] = {
    "leak": audit_leak,
    "baselines": baselines,
    "lungs": audit_lungs,
    "attention": partial(audit_attention, stages=2, most_random=4),
    "sources": audit_sources,
    "robustness": partial(audit_robustness, count=60),
    "faithfulness": partial(audit_faithfulness, methods=("closed_form",), count=32),
    "subgroups": subgroups,
    "framing": audit_framing,
}


def hasten() -> None:
    """Spare the choice of a penalty in lungs and sources, and leak's same views in every run."""
    for module in (occluded_probs, source_pairs):
        module.fit_linear = partial(fit_linear, penalties=(0.1,))
    source_pairs.out_of_fold = partial(out_of_fold, penalties=(0.1,))
    registration._sampling = cache(registration._sampling)


def makers(test: str, patients: int) -> dict[str, Callable[[int], AuditContext]]:
    """Return, per row of a test, what makes the run of a number; the clean row first."""
    clean = partial(simulate, patients=patients)
    rows: dict[str, Callable[[int], AuditContext]] = {"clean": clean}
    if test == "leak":
        for copies in (1, 2, 6):
            rows[f"copies in test: {copies}"] = lambda number, copies=copies: copied(
                clean(number), copies
            )
    elif test == "robustness":
        rows = {"clean": partial(restless, patients=patients), "filter bank": clean}
        for share in (0.1, 0.25, 0.5):
            rows[f"{share:.0%} lost by exposure"] = partial(
                restless, patients=patients, network=type("Lean", (Leaning,), {"share": share})
            )
    elif test == "subgroups":
        for share in (0.2, 0.4, 0.6):
            rows[f"{share:.0%} of the women with covid missed"] = lambda number, share=share: (
                missed(clean(number), share)
            )
    elif test == "faithfulness":
        for cells in (1, 2, 3):
            rows[f"maps {CELL * cells} of {SIDE} px away"] = partial(
                clean, network=type("Moved", (Elsewhere,), {"cells": cells})
            )
    else:
        for shortcut in SHORTCUTS:
            for word, share in STRENGTHS.items():
                rows[f"{shortcut}, {word}"] = partial(clean, shortcut=shortcut, strength=share)
    return rows


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
    planted = [(shortcut, share) for shortcut in SHORTCUTS for share in STRENGTHS.values()]
    for shortcut, strength in [("none", 1.0), *planted]:
        verdicts: dict[str, list[str]] = {}
        for seed in range(sets):
            context = _phantom_context(shortcut, strength, seed)
            for audit in (
                audit_leak,
                partial(audit_baselines, inputs=_inputs(context.pixels)),
                audit_subgroups,
            ):
                result = audit(context)
                verdicts.setdefault(result.id, []).append(result.verdict)
        print(shortcut, strength, verdicts, flush=True)


def _phantom_context(shortcut: str, strength: float, seed: int) -> AuditContext:
    """Return a phantom with a linear model on thumbnails in the place of a network."""
    settings = PhantomSettings(
        patients_per_class=40,
        images_per_patient=[1, 1],
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
    rows, groups = np.arange(len(table)), table["patient_id"].to_numpy(str)
    fit, test = rows[rows % 5 < 3], rows[rows % 5 >= 3]
    flat = thumbnails(pixels, rows).reshape(len(rows), -1)
    model = fit_linear(flat[fit], targets[fit], groups[fit], n_classes=len(LABELS))
    known = table[["image", "label", "patient_id", "sex", "view"]]
    return AuditContext(
        table=known.assign(group=groups, split=np.where(rows % 5 < 3, "train", "test")),
        pixels=pixels,
        labels=LABELS,
        test_rows=test,
        members={},
        ensemble=Ensemble(LABELS, (), {}, {}),
        probs={"thumbnail": model.probs(flat[test])},
    )


def main() -> None:
    """Print the rows of one test, as docs/audit.md has them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("test", choices=[*TESTS, "phantom"])
    for name, default in (("runs", 200), ("planted", 20), ("patients", 15), ("sets", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
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
