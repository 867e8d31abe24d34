"""Do prediction sets cover as they promise, and how large are they.

N samples, K classes, R resamples.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import beta

from cxr.evaluation.bootstrap import CONFIDENCE, RESAMPLES, interval, weight_blocks
from cxr.uncertainty import prediction_sets, thresholds_of

KINDS = ("plain", "per_class")
"""One threshold from all films of validation, or one from each class's own."""


def chance_range(level: float, fitted_on: int) -> tuple[float, float]:
    """Return where the true coverage lies in 95 of 100 validations of this size.

    Args:
        level: wished coverage.
        fitted_on: n, validation films behind the threshold.

    Returns:
        Limits of the coverage over endless new films; (1, 1) where n is too small.

    Source: Vovk 2012, Conditional validity of inductive conformal predictors: the coverage is
    Beta(k, n + 1 - k) with k = ceil((n + 1) level).
    """
    rank = int(np.ceil((fitted_on + 1) * level - 1e-9))
    if rank > fitted_on:
        return 1.0, 1.0
    tail = (1 - CONFIDENCE) / 2
    low, high = beta.ppf([tail, 1 - tail], rank, fitted_on + 1 - rank)
    return float(low), float(high)


def measure_sets(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    groups: ArrayLike,
    uncertainty: Mapping[str, Any],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure the stored prediction sets on films that had no part in fitting them.

    Args:
        y_true: (N,) positions among ``uncertainty["labels"]``.
        y_prob: (N, K) calibrated.
        groups: (N,) patient or group names; whole groups are drawn.
        uncertainty: content of uncertainty.json.
        resamples: R.
        seed: of the draws.

    Returns:
        Per level and kind: ``coverage``, ``size`` (classes in a set, mean) and ``per_class``
        coverage with intervals, and what ``_describe`` tells.
    """
    targets, labels = np.asarray(y_true, np.int64), list(uncertainty["labels"])
    levels = list(uncertainty["conformal"]["levels"])
    chosen = {
        (level, kind): thresholds_of(uncertainty, float(level), per_class=kind == "per_class")
        for level in levels
        for kind in KINDS
    }
    sets = {key: prediction_sets(y_prob, limits) for key, limits in chosen.items()}
    truth = np.eye(len(labels))[targets]
    # Columns: size, hit, then hit and presence of each class.
    columns = {
        key: np.column_stack([found.sum(axis=1), (found * truth).sum(axis=1), found * truth])
        for key, found in sets.items()
    }
    parts: dict[tuple[str, str], list[Any]] = {key: [] for key in sets}
    for weights in weight_blocks(groups, resamples, np.random.default_rng(seed)):
        totals, films = weights.sum(axis=1, keepdims=True), weights @ truth
        for key, values in columns.items():
            sums = weights @ values
            own = np.full(films.shape, np.nan)
            np.divide(sums[:, 2:], films, out=own, where=films > 0)
            parts[key].append(np.hstack([sums[:, :2] / totals, own]))
    result: dict[str, Any] = {level: {} for level in levels}
    for (level, kind), blocks in parts.items():
        draws = np.concatenate(blocks)
        result[level][kind] = {
            "coverage": interval(draws[:, 1]),
            "size": interval(draws[:, 0]),
            "per_class": {label: interval(draws[:, 2 + k]) for k, label in enumerate(labels)},
        } | _describe(targets, np.asarray(y_prob, np.float64), chosen[level, kind], labels)
        result[level][kind]["expected"] = _expected(uncertainty, float(level), kind)
        result[level]["note"] = uncertainty["conformal"]["levels"][level]["note"]
    return result


def _describe(
    targets: Any, probs: Any, limits: Sequence[float | None], labels: Sequence[str]
) -> dict[str, Any]:
    """Return thresholds, shares of set sizes, and how the sets are without the class put in."""
    found, bare = prediction_sets(probs, limits), prediction_sets(probs, limits, with_top=False)
    sizes, rows = found.sum(axis=1), np.arange(len(targets))
    single = sizes == 1
    right = found[single, targets[single]]
    return {
        "thresholds": dict(zip(labels, limits, strict=True)),
        "share_of_sizes": {
            str(size): float((sizes == size).mean()) for size in range(1, len(labels) + 1)
        },
        "accuracy_of_singles": float(right.mean()) if len(right) else float("nan"),
        "empty_without_top": float((~bare.any(axis=1)).mean()),
        "coverage_without_top": float(bare[rows, targets].mean()),
    }


def _expected(uncertainty: Mapping[str, Any], level: float, kind: str) -> dict[str, Any]:
    """Return what chance in validation lets the coverage be, for all or for each class."""
    if kind == "plain":
        return {"all": chance_range(level, uncertainty["n"])}
    return {label: chance_range(level, n) for label, n in uncertainty["counts"].items()}
