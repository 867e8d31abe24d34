"""Simulated coverage of the intervals and size of the paired test; prints tables.

Run: ``python benchmarks/coverage.py`` (five minutes on one core). Patients have 1 to 5 images that
agree more or less (correlation within a patient: 0, 0.3, 0.8).
"""

import sys
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, norm

from cxr.evaluation.bootstrap import resample_weights
from cxr.evaluation.calibration import (
    BINS,
    bin_gaps,
    bins_for,
    error_interval,
    events,
    image_losses,
)
from cxr.evaluation.intervals import (
    auroc_interval,
    mean_interval,
    paired_difference,
    share_interval,
)
from cxr.evaluation.metrics import OVERALL, PER_CLASS, score
from cxr.evaluation.selective import measure_selective, risk_area, risks_at
from cxr.evaluation.summary import summarise

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


SKILL = np.array([2.0, 2.6, 1.6, 2.2])
"""How far the logit of the true class lies above the others', by class."""
TRUTH: dict[str, Floats] = {}


def draw_classes(
    rng: np.random.Generator, patients: int, agreement: float
) -> tuple[NDArray[np.int64], Floats, NDArray[np.int64]]:
    """Draw targets, probabilities and groups: of four classes the last two have about so many.

    The class of a patient, drawn at random, is that of all its images; the first two have three
    times as many patients.
    """
    groups = draw_groups(rng, 8 * patients)
    targets = rng.choice(4, 8 * patients, p=[3 / 8, 3 / 8, 1 / 8, 1 / 8])[groups]
    noise = np.stack([correlated(rng, groups, agreement) for _ in SKILL], axis=1)
    logits = 1.5 * (noise + (SKILL * np.eye(4))[targets])
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return targets, weights / weights.sum(axis=1, keepdims=True), groups


def true_scores() -> dict[str, Floats]:
    """Return the metrics of 400,000 independent images, once."""
    if not TRUTH:
        targets, probs, _ = draw_classes(np.random.default_rng(9), 16_000, 0.0)
        TRUTH.update(score(targets, probs))
        prob, truth = events(targets, probs)[0]
        TRUTH["aurc"] = np.asarray(risk_area(prob, ~truth)[0])
        TRUTH["risk_at_80"] = risks_at(prob, ~truth, [0.8])[0][0]
        TRUTH["brier"] = image_losses(targets, probs)["brier"].mean()
        TRUTH["ece"] = bin_gaps(prob, truth, np.ones((1, len(prob))), bins=BINS).error[0]
    return TRUTH


def summary_covered(rng: np.random.Generator, patients: int, agreement: float) -> dict[str, bool]:
    """Simulate a model; return of each metric, of the rarest class too, if its interval covers."""
    targets, probs, groups = draw_classes(rng, patients, agreement)
    found, truth = summarise(targets, probs, groups, "abcd"), true_scores()
    pairs = {name: (found[name], truth[name]) for name in OVERALL}
    pairs |= {name: (found["per_class"]["d"][name], truth[name][3]) for name in PER_CLASS}
    prob, right = events(targets, probs)[0]
    referral = measure_selective(targets, probs, groups, coverage=0.8)
    accuracy = referral["at_coverage"]["accuracy"]
    pairs["aurc"] = (referral["aurc"], truth["aurc"])
    pairs["risk_at_80"] = (
        {"low": 1 - accuracy["high"], "high": 1 - accuracy["low"]},
        truth["risk_at_80"],
    )
    brier = mean_interval(image_losses(targets, probs)["brier"], groups, scale="log")
    pairs["brier"] = (brier, truth["brier"])
    weights = np.vstack([np.ones((1, len(prob))), resample_weights(groups, 200, rng)])
    low, high = error_interval(bin_gaps(prob, right, weights, bins=bins_for(len(prob))))
    pairs["ece"] = ({"low": low, "high": high}, truth["ece"])
    return {name: bool(a["low"] <= value <= a["high"]) for name, (a, value) in pairs.items()}


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
    print("\nsummarise, every metric of four classes, the rarest class's own")
    for patients in PATIENTS:
        for agreement in AGREEMENT:
            rng = np.random.default_rng([patients, int(10 * agreement)])
            n = runs // 8 if patients < 400 else runs // 32
            found = [summary_covered(rng, patients, agreement) for _ in range(n)]
            cells = "  ".join(f"{k} {np.mean([row[k] for row in found]):.3f}" for k in found[0])
            print(f"{patients:9d}  {agreement:9g}  {cells}", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
