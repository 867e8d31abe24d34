"""Intervals of what was measured on several images a patient; closed forms, nothing is resampled.

Every figure is a function of how much each image counts. Its derivatives by these weights, the
influences, add up within a patient, and the spread of the sums gives the standard error.
N images, G groups (patients). ``groups`` are (N,) patient or group names, ``confidence`` is
two-sided, and an interval has ``value``, ``low`` and ``high``.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit
from scipy.stats import norm, rankdata, t

CONFIDENCE = 0.95
FEW_PATIENTS = 50
"""Patients of a class below which its figures bear a mark."""
PRIOR_PATIENTS = 1.0
"""What complete agreement within patients weighs in the design effect, in patients of the rarer
outcome: the least with which the simulated coverage (benchmarks/coverage.py) is never short."""
FEWEST_DF = 2.0
EXACT_FLIPS = 12
"""Up to so many patients that differ, all sign patterns (4,096) are counted."""

Floats = NDArray[np.float64]
Interval = dict[str, float]


def share_interval(hits: ArrayLike, groups: ArrayLike) -> Interval:
    """Return a share of images with a Wilson interval for as many images as the patients are worth.

    N images are worth N / d of independent patients, d the design effect: the variance over
    patients divided by that of independent images, drawn towards complete agreement where
    few patients have the rarer outcome, and at least 1. It has a width at 0 and 1 too.

    Returns:
        The interval of hits, (N,) bool; all NaN without images.

    Source: Wilson 1927; effective sample size: Korn, Graubard 1998, Survey Methodology
    24:193-201; Dean, Pagano 2015, J. Surv. Stat. Methodol. 3:484-503.
    """
    right = np.asarray(hits, np.float64)
    if not len(right):
        return undefined()
    sums, sizes = _by_group(right, groups), _by_group(np.ones(len(right)), groups)
    share, images = float(right.mean()), len(right)
    agreeing = float((sizes**2).sum() / images)
    rarer = min(int((sums > 0).sum()), int((sums < sizes).sum()))
    effect, variance = agreeing, share * (1 - share)
    if rarer and len(sizes) > 1:
        seen = float(((sums - share * sizes) ** 2).sum()) / (images * variance)
        effect = (rarer * seen + PRIOR_PATIENTS * agreeing) / (rarer + PRIOR_PATIENTS)
    worth = images / max(effect, 1.0)
    return wilson_interval(share, worth)


def wilson_interval(share: float, count: float, confidence: float = CONFIDENCE) -> Interval:
    """Return Wilson's interval of a share of ``count`` (not always whole) answers.

    Source: Wilson 1927, J. Am. Stat. Assoc. 22:209-212.
    """
    z = float(norm.ppf(0.5 + confidence / 2))
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    # At 0 and 1 the formula gives just these but for rounding.
    low = 0.0 if share == 0 else float(middle - half)
    return {"value": share, "low": low, "high": 1.0 if share == 1 else float(middle + half)}


def cluster_interval(
    value: float,
    influences: ArrayLike,
    groups: ArrayLike,
    *,
    scale: str = "plain",
    patients: int | None = None,
    confidence: float = CONFIDENCE,
) -> Interval:
    """Return the interval of any smooth figure from its influences.

    Student's t on the scale given. Its degrees of freedom fall with how unevenly the patients
    contribute: a few patients who decide all leave few.

    Args:
        value: the figure.
        influences: (N,) its derivatives by the images' weights; they sum to about 0.
        groups: (N,).
        scale: "plain"; "logit" of figures from 0 to 1; "log" of figures above 0.
        patients: how many a figure of just 0 or 1 rests on; G if None. It then has the limit
            that a share of so many has.
        confidence: two-sided.

    Returns:
        The interval; NaN where the value is.

    Source: the infinitesimal jackknife, Efron 1982, chapter 6, summed by cluster; degrees of
    freedom: Satterthwaite 1946, with the variance of a variance, Cramer 1946, 27.4.
    """
    sums = _by_group(np.asarray(influences, np.float64), groups)
    n_groups = len(sums)
    if np.isnan(value) or n_groups < 2:
        return undefined() | {"value": float(value)}
    total = float((sums**2).sum())
    if scale == "logit" and (total <= 1e-18 or not 0 < value < 1):
        count = n_groups if patients is None else patients
        return _none_seen(float(value), count, confidence)
    if total <= 1e-18:
        return {"value": float(value), "low": float(value), "high": float(value)}
    spread = float((sums**4).sum()) / total**2 - 1 / n_groups
    freedom = min(max(2 / max(spread, 1e-9), FEWEST_DF), n_groups - 1)
    half = float(t.ppf(0.5 + confidence / 2, freedom)) * np.sqrt(total * n_groups / (n_groups - 1))
    low, high = value - half, value + half
    if scale == "logit":
        half /= value * (1 - value)
        low, high = expit(logit(value) - half), expit(logit(value) + half)
    if scale == "log":
        low, high = value * np.exp(-half / value), value * np.exp(half / value)
    return {"value": float(value), "low": float(low), "high": float(high)}


def mean_interval(
    values: ArrayLike, groups: ArrayLike, *, scale: str = "plain", confidence: float = CONFIDENCE
) -> Interval:
    """Return the mean over images, such as of a loss, with its interval by patient."""
    numbers = np.asarray(values, np.float64)
    if not len(numbers):
        return undefined()
    mean = float(numbers.mean())
    influences = (numbers - mean) / len(numbers)
    return cluster_interval(mean, influences, groups, scale=scale, confidence=confidence)


def auroc_influences(positive: ArrayLike, scores: ArrayLike) -> tuple[float, Floats]:
    """Return the AUROC and its influences, (N,); NaN where one side has no image.

    Source: the structural components of DeLong, DeLong, Clarke-Pearson 1988, by midranks as in
    Sun, Xu 2014, IEEE Signal Process. Lett. 21:1389-1393.
    """
    truth, values = np.asarray(positive, bool), np.asarray(scores, np.float64)
    n_true, n_false = int(truth.sum()), int((~truth).sum())
    if not n_true or not n_false:
        return np.nan, np.full(len(truth), np.nan)
    ranks, components = rankdata(values), np.empty(len(truth))
    components[truth] = (ranks[truth] - rankdata(values[truth])) / n_false
    components[~truth] = 1 - (ranks[~truth] - rankdata(values[~truth])) / n_true
    auroc = float(components[truth].mean())
    return auroc, (components - auroc) / np.where(truth, n_true, n_false)


def auroc_interval(
    positive: ArrayLike, scores: ArrayLike, groups: ArrayLike, *, confidence: float = CONFIDENCE
) -> Interval:
    """Return the AUROC of scores (N,) for positive ones, (N,) bool, on the logit scale, by patient.

    Returns:
        The interval; NaN where one side has no image. An AUROC of 1 has the lower limit of a
        share of 1 among the patients of the rarer side, who may have images of both.

    Source: Obuchowski 1997, Biometrics 53:567-578.
    """
    truth, names = np.asarray(positive, bool), np.asarray(groups)
    auroc, influences = auroc_influences(truth, scores)
    fewest = min(len(np.unique(names[truth])), len(np.unique(names[~truth])))
    return cluster_interval(
        auroc, influences, names, scale="logit", patients=fewest, confidence=confidence
    )


def paired_difference(
    first: ArrayLike,
    second: ArrayLike,
    groups: ArrayLike,
    *,
    rng: np.random.Generator,
    draws: int = 9999,
) -> dict[str, Any]:
    """Compare two models on the same images, by patient.

    Args:
        first: (N,) such as whether the first model is right, or its loss.
        second: (N,) the same of the second.
        groups: (N,).
        rng: of the sign patterns.
        draws: sign patterns, where too many patients differ to count all.

    Returns:
        The interval of the mean of first minus second, and the two-sided ``p`` of the permutation
        that swaps the models for all images of a patient at once; 1 where they never differ. Of
        answers right or wrong that never differ the interval is what so many patients leave open.

    Source: Fisher 1935, The design of experiments, section 21; one added to the count and the
    draws: Phipson, Smyth 2010, Stat. Appl. Genet. Mol. Biol. 9:39.
    """
    one, two = np.asarray(first), np.asarray(second)
    gaps = one.astype(np.float64) - two.astype(np.float64)
    if not len(gaps):
        return undefined() | {"p": np.nan}
    sums, found = _by_group(gaps, groups), mean_interval(gaps, groups)
    if one.dtype == np.bool_ and not gaps.any():
        reach = _none_seen(0.0, len(sums))["high"]
        found |= {"low": -reach, "high": reach}
    return found | {"p": _sign_flip_p(sums, rng=rng, draws=draws)}


def _sign_flip_p(sums: Floats, *, rng: np.random.Generator, draws: int) -> float:
    """Return how often sums (G,) with signs at random lie as far from 0 as these do, together."""
    parts = sums[sums != 0]
    least = abs(parts.sum()) - 1e-9 * np.abs(parts).sum()
    if len(parts) <= EXACT_FLIPS:
        patterns = (np.arange(1 << len(parts))[:, None] >> np.arange(len(parts))) & 1
        return float((np.abs((2 * patterns - 1) @ parts) >= least).mean())
    signs = rng.integers(0, 2, (draws, len(parts)), dtype=np.int8) * 2 - 1
    return float((1 + (np.abs(signs @ parts) >= least).sum()) / (1 + draws))


def undefined() -> Interval:
    """Return the interval of what is undefined."""
    return dict.fromkeys(("value", "low", "high"), np.nan)


def _none_seen(value: float, patients: int, confidence: float = CONFIDENCE) -> Interval:
    """Return what a share that is the same in all of so many patients leaves open."""
    reach = wilson_interval(0.0, patients, confidence)["high"] if patients else 1.0
    return {"value": value, "low": max(0.0, value - reach), "high": min(1.0, value + reach)}


def _by_group(values: Floats, groups: ArrayLike) -> Floats:
    _, places = np.unique(np.asarray(groups), return_inverse=True)
    return np.asarray(np.bincount(places, weights=values), np.float64)
