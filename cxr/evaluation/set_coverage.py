"""Do prediction sets cover as they promise, and how large are they.

N samples, K classes, R resamples, G patients.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import beta

from cxr.evaluation.bootstrap import interval
from cxr.evaluation.intervals import CONFIDENCE, share_interval
from cxr.evaluation.metrics import Floats
from cxr.evaluation.tables import show_interval
from cxr.labels import list_words
from cxr.reliability.conformal import Threshold, patients_needed, prediction_sets, thresholds_of

KINDS = ("plain", "per_class")
"""One threshold from all images of validation, or one from each class's own, which is served."""


def chance_range(level: float, patients: int) -> tuple[float, float]:
    """Return where the true coverage lies in at least 95 of 100 validations of G patients.

    Images of a patient that agree count as one; where they do not, the range is wider than it
    need be.

    Returns:
        Limits of the coverage of endless new patients; (1, 1) where G is too small.

    Source: Vovk 2012, Conditional validity of inductive conformal predictors: the coverage is
    Beta(k, G + 1 - k) with k = ceil((G + 1) level).
    """
    if patients < patients_needed(level):
        return 1.0, 1.0
    rank = int(np.ceil((patients + 1) * level - 1e-9))
    tail = (1 - CONFIDENCE) / 2
    low, high = beta.ppf([tail, 1 - tail], rank, patients + 1 - rank)
    return float(low), float(high)


Sets = dict[tuple[str, str], NDArray[np.bool_]]
"""Level and kind to (N, K), which classes are in each image's set."""


def fitted_sets(y_prob: ArrayLike, uncertainty: Mapping[str, Any]) -> Sets:
    """Return the sets of images, (N, K) probabilities, at every level and of both kinds."""
    return {
        (level, kind): prediction_sets(y_prob, _thresholds(uncertainty, level, kind))
        for level in uncertainty["conformal"]["levels"]
        for kind in KINDS
    }


def mean_sizes(sets: Sets, weights: Floats) -> Floats:
    """Return the mean number of classes in the sets, (rows, sets), for (rows, N) weights."""
    sizes = np.stack([members.sum(axis=1) for members in sets.values()], axis=1)
    return np.asarray(weights @ sizes / weights.sum(axis=1, keepdims=True))


def measure_sets(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    groups: ArrayLike,
    uncertainty: Mapping[str, Any],
    sets: Sets,
    sizes: Sequence[Floats],
) -> dict[str, Any]:
    """Measure the stored prediction sets on images that had no part in fitting them.

    Args:
        y_true: (N,) positions among ``uncertainty["labels"]``.
        y_prob: (N, K) calibrated.
        groups: (N,) patient or group names.
        uncertainty: content of uncertainty.json.
        sets: of ``fitted_sets``.
        sizes: what ``resample`` gave for ``mean_sizes``.

    Returns:
        Per level and kind: ``coverage`` of all images and ``per_class`` (value, interval, images
        and patients of each), mean ``size`` with its interval, and what ``_describe`` tells.
    """
    targets, names = np.asarray(y_true, np.int64), np.asarray(groups)
    probs, labels = np.asarray(y_prob, np.float64), list(uncertainty["labels"])
    levels, means = uncertainty["conformal"]["levels"], np.concatenate(sizes)
    result: dict[str, Any] = {level: {"note": levels[level]["note"]} for level in levels}
    for place, ((level, kind), members) in enumerate(sets.items()):
        hits = members[np.arange(len(targets)), targets]
        behind = (
            uncertainty["patients"] if kind == "per_class" else {"all": uncertainty["n_patients"]}
        )
        result[level][kind] = {
            "coverage": _coverage(hits, names),
            "size": interval(means[:, place]),
            "per_class": {
                label: _coverage(hits[targets == k], names[targets == k])
                for k, label in enumerate(labels)
            },
            "expected": {name: chance_range(float(level), n) for name, n in behind.items()},
        } | _describe(targets, probs, _thresholds(uncertainty, level, kind), labels)
    return result


def _thresholds(uncertainty: Mapping[str, Any], level: str, kind: str) -> tuple[Threshold, ...]:
    return thresholds_of(uncertainty, float(level), per_class=kind == "per_class")


def sets_sentences(found: Mapping[str, Any]) -> list[str]:
    """Say per level what the sets that are served cover of each class."""
    sentences = []
    for level, kinds in found["prediction_sets"].items():
        own = kinds["per_class"]["per_class"]
        told = ", ".join(f"{label} {show_interval(share)}" for label, share in own.items())
        short = [label for label, share in own.items() if (share["high"] or 0) < float(level)]
        verdict = "no class short of that by more than chance"
        if short:
            verdict = f"{list_words(short)} short of that, by more than chance"
        sentences.append(
            f"sets per class promise to hold the truth of each class with "
            f"{float(level):.0%}, and hold that of {told}: {verdict}"
        )
    return sentences


def _coverage(hits: NDArray[np.bool_], groups: NDArray[Any]) -> dict[str, Any]:
    """Return a share of images with its interval, and how many images and patients it rests on."""
    counts = {"images": len(hits), "patients": len(np.unique(groups))}
    return share_interval(hits, groups) | counts


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
