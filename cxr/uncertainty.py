"""Prediction sets that cover at a stated level, and which films go to a human.

Fitted on validation when the ensemble is fitted; applied by evaluation and by whoever serves the
model. Only numpy.

Split conformal prediction with the score 1 - p_y, one less the probability of the true class
("least ambiguous" sets: of all sets with that coverage the smallest on average). The threshold is
the ceil((n + 1) level)-th smallest score of n validation films; a class is in the set if its score
is at most that. Plain thresholds cover the films as a whole, per-class thresholds cover each class
by itself, the rare one too. The promise holds for films drawn as validation's were.
N films, K classes.

Source: Vovk, Gammerman, Shafer 2005 (split and label-conditional conformal prediction); Sadinle,
Lei, Wasserman 2019, JASA 114:223-234 (the score); Angelopoulos, Bates 2023 (the quantile).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cxr.errors import InputError

LEVELS = (0.8, 0.9, 0.95)
"""Levels that are fitted and stored."""
REFERRAL_COVERAGE = 0.8
"""Share of films that the model answers; the rest goes to a human."""
FEW_FILMS = 100
"""Below so many validation films a temperature or a threshold is noted as unsure: the standard
error of a share of 0.9 is then above 0.03."""
METHOD = "split conformal, score 1 - probability of the true class (LAC)"
REFERRAL_SCORE = "largest probability"

Threshold = float | None
"""Largest score of a class in the set; None where validation is too small to give one."""


def conformal_threshold(scores: ArrayLike, level: float) -> Threshold:
    """Return the ceil((n + 1) level)-th smallest score.

    Args:
        scores: (n,) of validation films.
        level: wished coverage, above 0 and below 1.

    Returns:
        The threshold, or None where n is too small to cover at this level (n + 1 films would
        have to reach ``level``): only the set of all classes is then sure to.

    Raises:
        InputError: a level outside 0 to 1.
    """
    if not 0 < level < 1:
        raise InputError(f"the level of a prediction set is {level}: it lies between 0 and 1")
    ordered = np.sort(np.asarray(scores, np.float64))
    # The product of binary fractions may lie a hair above the whole number that is meant.
    rank = math.ceil((len(ordered) + 1) * level - 1e-9)
    return None if rank > len(ordered) else float(ordered[rank - 1])


def films_needed(level: float) -> int:
    """Return the fewest validation films that can cover at a level."""
    return math.ceil(level / (1 - level) - 1e-9)


def fit_conformal(
    probs: ArrayLike, targets: ArrayLike, *, level: float, per_class: bool = False
) -> tuple[Threshold, ...]:
    """Fit the thresholds of prediction sets on validation.

    Args:
        probs: (N, K) calibrated, rows summing to 1.
        targets: (N,) class positions.
        level: wished coverage, above 0 and below 1.
        per_class: a threshold from each class's own films; else one from all films.

    Returns:
        K thresholds, all equal unless ``per_class``.

    Raises:
        InputError: shapes that do not fit, or a level outside 0 to 1.
    """
    scores, classes = _true_scores(probs, targets)
    n_classes: int = np.shape(probs)[1]
    if not per_class:
        return (conformal_threshold(scores, level),) * n_classes
    return tuple(conformal_threshold(scores[classes == k], level) for k in range(n_classes))


def prediction_sets(
    probs: ArrayLike, thresholds: Sequence[Threshold], *, with_top: bool = True
) -> NDArray[np.bool_]:
    """Tell which classes are in the set of each film.

    Args:
        probs: (N, K) calibrated, rows summing to 1.
        thresholds: K, of ``fit_conformal``; a class whose threshold is None is in every set.
        with_top: put the most probable class into every set, also where its own threshold
            would leave it out. No set is then empty, a higher level never gives a smaller set,
            and coverage can only rise. The bare sets are what the theory speaks of.

    Returns:
        (N, K) bool.

    Raises:
        InputError: another number of thresholds than classes.
    """
    values = np.asarray(probs, np.float64)
    if values.ndim != 2 or values.shape[1] != len(thresholds):
        raise InputError(
            f"{len(thresholds)} thresholds do not go with probabilities of shape {values.shape}: "
            "one is needed for each class"
        )
    limits = np.array([np.inf if limit is None else limit for limit in thresholds])
    sets = np.asarray(1 - values <= limits, np.bool_)
    if with_top:
        sets[np.arange(len(values)), values.argmax(axis=1)] = True
    return sets


def fit_referral(probs: ArrayLike, *, coverage: float = REFERRAL_COVERAGE) -> float:
    """Return the largest probability above which at least ``coverage`` of validation lies.

    Args:
        probs: (N, K) calibrated, N above 0.
        coverage: share that is answered, above 0, at most 1.

    Raises:
        InputError: no film, or a coverage outside 0 to 1.
    """
    certainty = np.sort(np.asarray(probs, np.float64).max(axis=1, initial=0))[::-1]
    if not len(certainty) or not 0 < coverage <= 1:
        raise InputError(
            f"cannot fit referral on {len(certainty)} films for a coverage of {coverage}: "
            "validation needs a film, and coverage lies between 0 and 1"
        )
    return float(certainty[math.ceil(len(certainty) * coverage - 1e-9) - 1])


def refer(probs: ArrayLike, threshold: float) -> NDArray[np.bool_]:
    """Tell which films go to a human: those whose largest probability is below the threshold.

    Args:
        probs: (N, K).
        threshold: of ``fit_referral``.

    Returns:
        (N,) bool.
    """
    return np.asarray(np.asarray(probs, np.float64).max(axis=1) < threshold, np.bool_)


def fit_uncertainty(
    probs: ArrayLike,
    targets: ArrayLike,
    labels: Sequence[str],
    *,
    levels: Sequence[float] = LEVELS,
    coverage: float = REFERRAL_COVERAGE,
) -> dict[str, Any]:
    """Fit everything that is stored in ``uncertainty.json``.

    Args:
        probs: (N, K) of validation, calibrated.
        targets: (N,) class positions.
        labels: K class names.
        levels: wished coverages of prediction sets.
        coverage: share of films that is answered.

    Returns:
        Plain values for JSON; ``thresholds_of`` and ``referral_threshold`` read them. A
        threshold that validation is too small for is None, and the level's ``note`` says so;
        ``warning`` is not empty where validation is small for all of it.

    Raises:
        InputError: shapes that do not fit, no film, a level outside 0 to 1.
    """
    _, classes = _true_scores(probs, targets)
    counts = dict(zip(labels, np.bincount(classes, minlength=len(labels)).tolist(), strict=True))
    threshold = fit_referral(probs, coverage=coverage)
    warning = ""
    if len(classes) < FEW_FILMS:
        warning = (
            f"validation has {len(classes)} films, fewer than {FEW_FILMS}: temperatures, sets and "
            "referral fitted on them are unsure"
        )
    return {
        "fitted_on": "validation",
        "n": len(classes),
        "labels": list(labels),
        "counts": counts,
        "warning": warning,
        "conformal": {
            "method": METHOD,
            "levels": {f"{level:g}": _fit_level(probs, targets, counts, level) for level in levels},
        },
        "referral": {
            "coverage": coverage,
            "threshold": threshold,
            "score": REFERRAL_SCORE,
            "answered": float(1 - refer(probs, threshold).mean()),
        },
    }


def thresholds_of(
    uncertainty: Mapping[str, Any], level: float, *, per_class: bool = False
) -> tuple[Threshold, ...]:
    """Read the K thresholds of a level from what ``fit_uncertainty`` gave.

    Raises:
        InputError: a level that was not fitted.
    """
    levels = uncertainty["conformal"]["levels"]
    found = levels.get(f"{level:g}")
    if found is None:
        raise InputError(
            f"level {level} of prediction sets was not fitted: choose one of {', '.join(levels)}"
        )
    if per_class:
        return tuple(found["per_class"][label] for label in uncertainty["labels"])
    return (found["plain"],) * len(uncertainty["labels"])


def referral_threshold(uncertainty: Mapping[str, Any]) -> float:
    """Read the threshold for ``refer`` from what ``fit_uncertainty`` gave."""
    return float(uncertainty["referral"]["threshold"])


def _fit_level(
    probs: ArrayLike, targets: ArrayLike, counts: Mapping[str, int], level: float
) -> dict[str, Any]:
    """Return a level's thresholds, and a note that names what validation is too small for."""
    plain = fit_conformal(probs, targets, level=level)[0]
    own = fit_conformal(probs, targets, level=level, per_class=True)
    per_class = dict(zip(counts, own, strict=True))
    lacking = [f"{name} ({counts[name]})" for name, limit in per_class.items() if limit is None]
    total = sum(counts.values())
    short = ([f"all classes together ({total})"] if plain is None else []) + lacking
    note = ""
    if short:
        note = (
            f"validation is too small to cover at {level:g}, which takes {films_needed(level)} "
            f"films: {', '.join(short)}; such a class is in every set"
        )
    return {"plain": plain, "per_class": per_class, "note": note}


def _true_scores(
    probs: ArrayLike, targets: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return (N,) scores 1 - p_y and (N,) classes, checked."""
    values, classes = np.asarray(probs, np.float64), np.asarray(targets, np.int64)
    if values.ndim != 2 or classes.shape != values.shape[:1]:
        raise InputError(
            f"probabilities of shape {values.shape} and targets of shape {classes.shape} do not "
            "belong together: (N, K) and (N,) are needed"
        )
    if len(classes) and not (classes.min() >= 0 and classes.max() < values.shape[1]):
        raise InputError(
            f"targets reach from {classes.min()} to {classes.max()}: allowed are 0 to "
            f"{values.shape[1] - 1}"
        )
    if not np.isfinite(values).all():
        raise InputError("a probability is not finite: predict the films again")
    return 1 - values[np.arange(len(classes)), classes], classes
