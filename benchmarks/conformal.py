"""How prediction sets per class cover where patients have several images.

    python benchmarks/conformal.py [--runs 2000]
    python benchmarks/conformal.py RUN...      (cross-fitted inside validation, test stays shut)

Simulated: each patient has 1 to 10 images whose logits agree to 0.95; with ``harder`` a patient is
the harder the more images there are. Coverage is that of an image of a new patient (a patient
drawn, then an image), and of all images; ``in range`` is the share of validations whose coverage
lies where ``chance_range`` says (nominal 0.95), counting what the method counts. Methods:
``images`` as if each were a patient; ``one image`` drawn once per patient; ``2 x mean p`` over
draws (Dunn et al., 1 - alpha by doubling); ``by patient``, which is used.
A run's folder holds members/*/predictions.csv. Validation's patients are dealt to ten parts, nine
fit temperatures, weights and sets, the tenth measures; mean over 20 deals. A class stands with
its images and patients, and is covered by image / by patient.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr.console import print_table
from cxr.evaluation.set_coverage import chance_range
from cxr.models.ensemble import LOGARITHMIC, WEIGHTED, all_probs, softmax
from cxr.models.ensemble_fit import fit_ensemble
from cxr.pipeline.fit_uncertainty import validation_predictions
from cxr.reliability.conformal import (
    conformal_threshold,
    fit_uncertainty,
    prediction_sets,
    thresholds_of,
)

LEVELS = (0.8, 0.9, 0.95)
PATIENTS = (20, 40, 80, 400)
"""Of one class."""
CLASSES, AGREE = 3, 0.95
DEALS, FOLDS = 20, 10
Fit = Callable[[NDArray[Any], NDArray[Any], float, np.random.Generator], float]


def simulated(
    patients: int, rng: np.random.Generator, *, harder: bool
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Draw images of one class: probabilities (N, 3), class 0 true, and patients (N,)."""
    images = rng.integers(1, 11, patients)
    names = np.repeat(np.arange(patients), images)
    own, shared = rng.normal(size=(len(names), CLASSES)), rng.normal(size=(patients, CLASSES))
    logits = 2.2 * (np.sqrt(AGREE) * shared[names] + np.sqrt(1 - AGREE) * own)
    logits[:, 0] += 3.3 - (0.5 * (images[names] - 5.5) if harder else 0)
    return softmax(logits), names


def one_image(scores: Any, names: Any, level: float, rng: np.random.Generator) -> float:
    """Draw an image of each patient, once."""
    order = rng.permutation(len(names))
    chosen = order[np.unique(names[order], return_index=True)[1]]
    return as_limit(conformal_threshold(scores[chosen], names[chosen], level))


def as_limit(limit: float | None) -> float:
    """Return what no threshold means: every score is in."""
    return np.inf if limit is None else limit


METHODS: dict[str, Fit] = {
    "images": lambda scores, names, level, _: as_limit(
        conformal_threshold(scores, np.arange(len(scores)), level)
    ),
    "one image": one_image,
    "2 x mean p": lambda scores, names, level, _: as_limit(
        conformal_threshold(scores, names, (1 + level) / 2)
    ),
    "by patient": lambda scores, names, level, _: as_limit(
        conformal_threshold(scores, names, level)
    ),
}


def simulate(runs: int, *, harder: bool, level: float) -> list[dict[str, str]]:
    """Return a row per number of patients and method."""
    rng = np.random.default_rng(0)
    probs, names = simulated(20_000, rng, harder=harder)
    weights = 1 / np.bincount(names)[names]
    order = np.argsort(1 - probs[:, 0])
    scores = (1 - probs[:, 0])[order]
    by_patient = np.append(0, np.cumsum(weights[order]) / weights.sum())
    by_image = np.arange(len(scores) + 1) / len(scores)
    rows = []
    for patients in PATIENTS:
        limits: dict[str, list[float]] = {name: [] for name in METHODS}
        images = 0
        for _ in range(runs):
            drawn, owners = simulated(patients, rng, harder=harder)
            images += len(drawn)
            for name, fit in METHODS.items():
                limits[name].append(fit(1 - drawn[:, 0], owners, level, rng))
        for name, found in limits.items():
            places = np.searchsorted(scores, found, side="right")
            held = by_patient[places]
            low, high = chance_range(level, images // runs if name == "images" else patients)
            sets = np.mean(
                [
                    (weights[::20] @ (1 - probs[::20] <= limit)).sum() / weights[::20].sum()
                    for limit in found[:300]
                ]
            )
            rows.append(
                {
                    "patients": str(patients),
                    "thresholds": name,
                    "level": f"{level:.2f}",
                    "new patient": f"{held.mean():.4f} ± {held.std() / np.sqrt(runs):.4f}",
                    "all images": f"{by_image[places].mean():.4f}",
                    "in range": f"{np.mean((low <= held) & (held <= high)):.3f}",
                    "classes": f"{sets:.2f}",
                }
            )
    return rows


def cross_fitted(folder: Path) -> list[dict[str, str]]:
    """Return coverage, size and coverage by class at 0.9 inside a run's validation, by method."""
    info = json.loads((folder / "run.json").read_text())
    labels = tuple(info["labels"])
    aligned = validation_predictions(
        folder, sorted(path.name for path in (folder / "members").iterdir()), labels
    )
    table = pd.read_csv(folder / info["prepared"] / "table.csv", dtype=str).set_index("image")
    groups = pd.factorize(table.loc[list(aligned.images), "group"])[0]
    kinds: dict[str, tuple[bool, bool]] = {
        "one threshold, images": (False, False),
        "per class, images": (True, False),
        "per class, by patient": (True, True),
    }
    found: dict[str, list[list[float]]] = {kind: [] for kind in kinds}
    rng, truth = np.random.default_rng(0), aligned.targets
    pairs = np.unique(np.stack([groups, truth]), axis=1, return_inverse=True)[1]
    weights = 1 / np.bincount(pairs)[pairs]
    own = [truth == k for k in range(len(labels))]
    for _ in range(DEALS):
        hits = {kind: np.zeros((2, len(truth))) for kind in kinds}
        fold_of = rng.permutation(groups.max() + 1) % FOLDS
        for fold in range(FOLDS):
            out = fold_of[groups] == fold
            ensemble = fit_ensemble(
                {name: z[~out] for name, z in aligned.logits.items()},
                truth[~out],
                labels,
                pool=LOGARITHMIC,
                weight_prior=100,
            )
            probs = all_probs(aligned.logits, ensemble)[WEIGHTED]
            for kind, (per_class, by_patient) in kinds.items():
                units = (groups if by_patient else np.arange(len(groups)))[~out]
                fitted = fit_uncertainty(
                    probs[~out], truth[~out], ensemble.labels, groups=units, levels=[0.9]
                )
                limits = thresholds_of(fitted, 0.9, per_class=per_class)
                sets = prediction_sets(probs[out], limits)
                hits[kind][:, out] = sets[np.arange(out.sum()), truth[out]], sets.sum(axis=1)
        for kind, (held, sizes) in hits.items():
            shares = [
                (held[mine].mean(), np.average(held[mine], weights=weights[mine])) for mine in own
            ]
            found[kind].append([held.mean(), sizes.mean(), *np.ravel(shares)])
    rows = []
    for kind, values in found.items():
        coverage, size, *shares = np.mean(values, axis=0)
        row = {
            "run": folder.name,
            "thresholds": kind,
            "coverage": f"{coverage:.3f}",
            "classes": f"{size:.3f}",
        }
        for k, label in enumerate(labels):
            head = f"{label} ({own[k].sum()}, {len(np.unique(groups[own[k]]))})"
            row[head] = f"{shares[2 * k]:.3f} / {shares[2 * k + 1]:.3f}"
        rows.append(row)
    return rows


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--runs", type=int, default=2000)
    given = parser.parse_args()
    for folder in given.folders:
        print_table("Cross-fitted in validation, 0.90", cross_fitted(folder))
    for harder in (False, True) if not given.folders else ():
        rows = [row for level in LEVELS for row in simulate(given.runs, harder=harder, level=level)]
        print_table(f"Simulated, {'harder with more images' if harder else 'alike'}", rows)


if __name__ == "__main__":
    main()
