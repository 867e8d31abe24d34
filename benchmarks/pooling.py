"""Which pool and which weight prior: cross-fitted NLL and accuracy on validation, re-dealt often.

    python benchmarks/pooling.py RUN_FOLDER [RUN_FOLDER ...] [--deals 40] [--folds 5] [--seed 0]

Each re-deal splits a run's validation images into folds by patient; temperatures and weights are
fitted on the other folds and measured on the fold left out. Everything is set beside equal
probabilities: the mean of the members' calibrated probabilities with no temperature behind it.
"better" counts re-deals in which the NLL is lower; re-deals share their images, so what it leaves
open is the dealing alone. Brackets: 95 % intervals by patient of the paired difference, each
image's figures averaged over re-deals. Test images are never read.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from cxr.console import print_table
from cxr.data.prepared import open_prepared
from cxr.data.splits import deal_folds
from cxr.evaluation.intervals import paired_difference
from cxr.evaluation.tables import show_interval
from cxr.files import read_json
from cxr.models.ensemble import LINEAR, POOLS, member_log_probs, pool_logits, softmax
from cxr.models.ensemble_fit import fit_temperature, fit_weights
from cxr.pipeline.fit_uncertainty import validation_predictions
from cxr.pipeline.run_folder import trained_members

PRIORS = (0.0, 10.0, 100.0, 1000.0, 1e9)
REFERENCE = "equal probabilities, no temperature behind"
Scores = dict[str, np.ndarray]


def measure(folder: Path, deals: int, folds: int, seed: int) -> tuple[Scores, np.ndarray]:
    """Return each way's log loss and whether it is right, (2, deals, N), and the groups (N,)."""
    info = read_json(folder / "run.json", hint="train first")
    prepared = open_prepared(folder / info["prepared"])
    aligned = validation_predictions(folder, trained_members(folder), prepared.labels)
    groups = prepared.table.set_index("image")["group"].loc[list(aligned.images)].to_numpy(str)
    targets = aligned.targets
    table = pd.DataFrame({"label": targets.astype(str), "group": groups})
    patients = len(np.unique(groups))
    print(f"{folder}: {len(targets)} validation images of {patients} patients or groups")
    found: Scores = {}
    for deal in range(deals):
        dealt = deal_folds(table, folds=folds, seed=seed + deal)
        for fold in range(1, folds + 1):
            out = dealt == fold
            for name, probs in one_fold(aligned.logits, targets, out).items():
                part = found.setdefault(name, np.empty((2, deals, len(targets))))[:, deal]
                part[0, out] = -np.log(probs[np.arange(out.sum()), targets[out]])
                part[1, out] = probs.argmax(axis=1) == targets[out]
    return found, groups


def one_fold(
    logits: dict[str, np.ndarray], targets: np.ndarray, out: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the probabilities of images left out, fitted on the others, per way of pooling."""
    rest = ~out
    temperatures = {name: fit_temperature(z[rest], targets[rest]) for name, z in logits.items()}
    log_probs = member_log_probs(logits, temperatures)
    fit, test = log_probs[:, rest], log_probs[:, out]
    equal = np.full(len(logits), 1 / len(logits))
    found = {f"{name} alone": np.exp(test[place]) for place, name in enumerate(logits)}
    found[REFERENCE] = np.exp(pool_logits(test, equal, LINEAR))
    for pool in POOLS:
        for prior in PRIORS:
            weights = fit_weights(fit, targets[rest], pool=pool, prior=prior)
            behind = fit_temperature(pool_logits(fit, weights, pool), targets[rest])
            name = "equal weights" if prior == PRIORS[-1] else f"prior of {prior:g} images"
            found[f"{pool}, {name}"] = softmax(pool_logits(test, weights, pool), behind)
    return found


def rows(found: Scores, groups: np.ndarray) -> list[dict[str, str]]:
    """Return a row per way of pooling: means over re-deals, and differences to the reference."""
    table = []
    for name, values in found.items():
        each = [part.mean(axis=1) for part in (values[0], found[REFERENCE][0])]
        loss, right = (
            paired_difference(
                one.mean(axis=0), other.mean(axis=0), groups, rng=np.random.default_rng(0), draws=1
            )
            for one, other in zip(values, found[REFERENCE], strict=True)
        )
        points = {key: 100 * right[key] for key in ("value", "low", "high")}
        table.append(
            {
                "pool": name,
                "NLL": f"{values[0].mean():.4f}",
                "difference": show_interval(loss, digits=4),
                "better": f"{(each[0] < each[1]).mean():.0%}",
                "accuracy": f"{values[1].mean():.4f}",
                "points": show_interval(points, digits=2),
            }
        )
    return table


def main() -> None:
    """Measure the runs given, each by itself and together."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--deals", type=int, default=40)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    parts = [measure(folder, options.deals, options.folds, options.seed) for folder in options.runs]
    for folder, part in zip(options.runs, parts, strict=True):
        print_table(f"{folder}, {options.deals} re-deals", rows(*part))
    if len(parts) > 1:
        together = {
            name: np.concatenate([found[name] for found, _ in parts], axis=-1)
            for name in parts[0][0]
        }
        print_table("all runs", rows(together, np.concatenate([groups for _, groups in parts])))


if __name__ == "__main__":
    main()
