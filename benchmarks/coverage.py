"""Simulated coverage of the intervals and size of the paired test; prints tables.

Run: ``python benchmarks/coverage.py`` (two minutes on one core). Patients have 1 to 5 images that
agree more or less (correlation within a patient: 0, 0.3, 0.8).
"""

import sys
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, norm

from cxr.evaluation.intervals import auroc_interval, paired_difference, share_interval

Floats = NDArray[np.float64]
PATIENTS, AGREEMENT = (40, 80, 400), (0.0, 0.3, 0.8)
IMAGES = (1, 5)


def draw_groups(rng: np.random.Generator, patients: int) -> NDArray[np.int64]:
    """Return each image's patient."""
    return np.repeat(np.arange(patients), rng.integers(IMAGES[0], IMAGES[1] + 1, patients))


def correlated(rng: np.random.Generator, groups: NDArray[np.int64], agreement: float) -> Floats:
    """Draw a standard normal value an image, correlated within a patient."""
    shared = rng.normal(size=groups.max() + 1)[groups]
    return np.sqrt(agreement) * shared + np.sqrt(1 - agreement) * rng.normal(size=len(groups))


def share_covered(rng: np.random.Generator, patients: int, agreement: float, truth: float) -> bool:
    """Simulate one share; intra-cluster correlation of the hits by the beta-binomial model."""
    groups = draw_groups(rng, patients)
    chance = np.full(patients, truth)
    if agreement:
        scale = (1 - agreement) / agreement
        chance = rng.beta(truth * scale, (1 - truth) * scale, patients)
    found = share_interval(rng.random(len(groups)) < chance[groups], groups)
    return found["low"] <= truth <= found["high"]


def auroc_covered(
    rng: np.random.Generator, patients: int, agreement: float, truth: float, *, mixed: float = 0.1
) -> bool:
    """Simulate one AUROC: a class of so many patients against four times as many others.

    A share ``mixed`` of the class's patients has images of both kinds.
    """
    groups = draw_groups(rng, 5 * patients)
    positive = groups < patients
    positive &= ~((groups < mixed * patients) & (rng.random(len(groups)) < 0.5))
    if not 0 < positive.sum() < len(positive):
        return True
    scores = np.sqrt(2) * norm.ppf(truth) * positive + correlated(rng, groups, agreement)
    found = auroc_interval(positive, scores, groups)
    return found["low"] <= truth <= found["high"]


def draw_pair(
    rng: np.random.Generator, patients: int, agreement: float, first: float, second: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.int64]]:
    """Draw whether two models of these accuracies are right on the same images."""
    groups = draw_groups(rng, patients)
    common = correlated(rng, groups, agreement)
    right = [
        np.sqrt(0.5) * (common + correlated(rng, groups, agreement)) < norm.ppf(share)
        for share in (first, second)
    ]
    return right[0], right[1], groups


def paired_result(
    rng: np.random.Generator, patients: int, agreement: float, first: float, second: float
) -> tuple[bool, bool, bool]:
    """Return whether the interval covers, and whether our test and McNemar's reject."""
    one, two, groups = draw_pair(rng, patients, agreement, first, second)
    found = paired_difference(one, two, groups, rng=rng, draws=499)
    alone, other = int((one & ~two).sum()), int((two & ~one).sum())
    mcnemar = binomtest(alone, alone + other).pvalue if alone + other else 1.0
    return found["low"] <= first - second <= found["high"], found["p"] <= 0.05, mcnemar <= 0.05


def table(title: str, truths: tuple[float, ...], covered: Callable[..., bool], runs: int) -> None:
    """Print coverage for each number of patients, agreement and truth."""
    print(f"\n{title}\n patients  agreement  " + "  ".join(f"{truth:5g}" for truth in truths))
    for patients in PATIENTS:
        for agreement in AGREEMENT:
            rng = np.random.default_rng([patients, int(10 * agreement)])
            n = runs if patients < 400 else runs // 2
            rates = [
                np.mean([covered(rng, patients, agreement, truth) for _ in range(n)])
                for truth in truths
            ]
            cells = "  ".join(f"{rate:5.3f}" for rate in rates)
            print(f"{patients:9d}  {agreement:9g}  {cells}", flush=True)


def main(runs: int = 2000) -> None:
    """Print every table; a rate of 0.95 from 2,000 runs has a standard error of 0.005."""
    table("share_interval, true share", (0.5, 0.8, 0.9, 0.97), share_covered, runs)
    table("auroc_interval, true AUROC", (0.7, 0.9, 0.97, 0.99), auroc_covered, runs // 2)
    print("\npaired_difference, accuracies: coverage, share of p <= 0.05, that of McNemar's test")
    for patients in PATIENTS:
        for agreement in AGREEMENT:
            rng, cells = np.random.default_rng([patients, int(10 * agreement)]), []
            for first, second in ((0.9, 0.9), (0.8, 0.8), (0.9, 0.8), (0.97, 0.92)):
                found = [
                    paired_result(rng, patients, agreement, first, second) for _ in range(runs // 2)
                ]
                rates = " ".join(f"{rate:.3f}" for rate in np.mean(found, axis=0))
                cells.append(f"{first:g}/{second:g}: {rates}")
            print(f"{patients:9d}  {agreement:9g}  {'   '.join(cells)}", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
