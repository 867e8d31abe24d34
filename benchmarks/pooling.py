"""Which pool and which weight prior: cross-fitted NLL and accuracy on validation, re-dealt often.

    python benchmarks/pooling.py RUN_FOLDER [RUN_FOLDER ...] [--deals 40] [--folds 5] [--seed 0]

Each re-deal splits a run's validation films into folds by patient; temperatures and weights are
fitted on the other folds and measured on the fold left out. Everything is set beside equal
probabilities: the mean of the members' calibrated probabilities with no temperature behind it.
"better" counts re-deals in which the NLL is lower; re-deals share their films, so their range is
that of the dealing alone, not that of other patients. Test films are never read.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from cxr.console import print_table
from cxr.data.folds import deal_folds
from cxr.data.prepared import open_prepared
from cxr.runlog import read_json
from cxr.stages.run import trained_members
from cxr.stages.uncertainty import validation_predictions
from cxr.training.ensemble import LINEAR, POOLS, member_log_probs, nll, pool_logits, softmax
from cxr.training.ensemble_fit import fit_temperature, fit_weights

PRIORS = (0.0, 10.0, 100.0, 1000.0, 1e9)
REFERENCE = "equal probabilities, no temperature behind"
Scores = dict[str, tuple[float, float]]


def measure(folder: Path, deals: int, folds: int, seed: int) -> list[Scores]:
    """Return NLL and accuracy of each way of pooling, per re-deal."""
    info = read_json(folder / "run.json", mend="train first")
    prepared = open_prepared(folder / info["prepared"])
    aligned = validation_predictions(folder, trained_members(folder), prepared.labels)
    groups = prepared.table.set_index("image")["group"].loc[list(aligned.images)]
    targets = aligned.targets
    table = pd.DataFrame({"label": targets.astype(str), "group": groups.to_numpy()})
    print(f"{folder}: {len(targets)} validation films of {groups.nunique()} patients or groups")
    found = []
    for deal in range(deals):
        dealt, probs = deal_folds(table, folds=folds, seed=seed + deal), {}
        for fold in range(1, folds + 1):
            out = dealt == fold
            for name, values in one_fold(aligned.logits, targets, out).items():
                probs.setdefault(name, np.empty((len(targets), values.shape[1])))
                probs[name][out] = values
        found.append({
            name: (nll(values, targets), float((values.argmax(axis=1) == targets).mean()))
            for name, values in probs.items()
        })  # fmt: skip
    return found


def one_fold(
    logits: dict[str, np.ndarray], targets: np.ndarray, out: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the probabilities of films left out, fitted on the others, per way of pooling."""
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


def rows(deals: list[Scores]) -> list[dict[str, str]]:
    """Return a row per way of pooling: means over re-deals, and differences to the reference."""
    table = []
    for name in deals[0]:
        values = np.array([deal[name] for deal in deals])
        change = values - np.array([deal[REFERENCE] for deal in deals])
        table.append({
            "pool": name, "NLL": f"{values[:, 0].mean():.4f}",
            "NLL, difference": f"{change[:, 0].mean():+.4f}",
            "range": f"{change[:, 0].min():+.4f} to {change[:, 0].max():+.4f}",
            "better": f"{(change[:, 0] < 0).mean():.0%}",
            "accuracy": f"{values[:, 1].mean():.4f}",
            "points": f"{100 * change[:, 1].mean():+.2f}",
        })  # fmt: skip
    return table


def main() -> None:
    """Measure the runs given, each by itself and together."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--deals", type=int, default=40)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    together: list[Scores] = []
    for folder in options.runs:
        found = measure(folder, options.deals, options.folds, options.seed)
        print_table(f"{folder}, {options.deals} re-deals", rows(found))
        together += found
    if len(options.runs) > 1:
        print_table(f"all {len(options.runs)} runs", rows(together))


if __name__ == "__main__":
    main()
