"""Prediction sets that cover at a stated level, and which images go to a human.

Fitted on validation when the ensemble is fitted; applied by evaluation and by whoever serves the
model. Only numpy.

Split conformal prediction with the score 1 - p_y, one less the probability of the true class
("least ambiguous" sets: of all sets with that coverage the smallest on average); a class is in
the set if its score is at most the threshold. Thresholds per class, which are served, cover each
class by itself, the rare one too; a plain one covers all classes as a whole.

Images of one patient resemble each other, so patients are the units that are exchangeable: each
of a patient's images weighs 1 / its number of images, and G patients and an unknown one give the
threshold, which makes p-values that are the mean over all draws of one image per patient. An image
drawn from a new patient is then covered with probability at least the level, exactly and at any
G, where patients are drawn alike and a patient's images are exchangeable (within a class, per
class). Averaged p-values in general promise only 1 - 2 (1 - level). Nothing is promised for images
drawn in another way than validation's, nor for every patient or for these very thresholds.
N images, K classes.

Source: Vovk, Gammerman, Shafer 2005 (split and label-conditional conformal prediction); Sadinle,
Lei, Wasserman 2019, JASA 114:223-234 (the score); Dunn, Wasserman, Ramdas 2023, JASA 118:2491
(pooled distributions, repeated subsampling and its 1 - 2 alpha); Lee, Barber, Willett 2023,
arXiv:2306.06342 (with the unknown patient's share put at infinity, 1 - alpha holds at any G).
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
"""Share of images that the model answers; the rest goes to a human."""
UNSURE_BELOW = 100
"""Below so many validation patients a temperature or a threshold is noted as unsure: the standard
error of a share of 0.9 is then above 0.03."""
METHOD = (
    "split conformal by patient, score 1 - probability of the true class (LAC), each image "
    "weighing 1 / its patient's images"
)
REFERRAL_SCORE = "largest probability"

Threshold = float | None
"""Largest score of a class in the set; None where validation is too small to give one."""


def conformal_threshold(scores: ArrayLike, groups: ArrayLike, level: float) -> Threshold:
    """Return the smallest score up to which patients weigh at least (G + 1) level.

    With one image per patient it is the ceil((G + 1) level)-th smallest of the (n,) scores, whose
    patients or groups are ``groups``. None where G is too small to cover at this level: only the
    set of all classes is then sure to.

    Raises:
        InputError: a level outside 0 to 1.
    """
    if not 0 < level < 1:
        raise InputError(f"the level of a prediction set is {level}: it lies between 0 and 1")
    values = np.asarray(scores, np.float64)
    names, member, images = np.unique(groups, return_inverse=True, return_counts=True)
    if len(names) < patients_needed(level):
        return None
    order = np.argsort(values)
    mass = np.cumsum(1 / images[member[order]])
    # Sums of fractions may lie a hair beside the whole number that is meant.
    return float(values[order][np.searchsorted(mass, (len(names) + 1) * level - 1e-7)])


def patients_needed(level: float) -> int:
    """Return the fewest validation patients that can cover at a level."""
    return math.ceil(level / (1 - level) - 1e-9)


def prediction_sets(
    probs: ArrayLike, thresholds: Sequence[Threshold], *, with_top: bool = True
) -> NDArray[np.bool_]:
    """Tell which classes are in the set of each image, (N, K) bool.

    ``with_top`` puts the most probable class into every set, also where its own threshold would
    leave it out. No set is then empty, a higher level never gives a smaller set, and coverage can
    only rise. The bare sets are what the theory speaks of. A class whose threshold is None is in
    every set.

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


def tempered(probs: ArrayLike, temperature: float) -> NDArray[np.float64]:
    """Return softmax(log p / T), (N, K), of probabilities (N, K); T = 1 leaves them as they are."""
    values = np.asarray(probs, np.float64)
    if temperature == 1:
        return values
    powers = (values / values.max(axis=1, keepdims=True)) ** (1 / temperature)
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def fit_referral(probs: ArrayLike, *, coverage: float = REFERRAL_COVERAGE) -> float:
    """Return the largest probability above which at least ``coverage`` of validation (N, K) lies.

    Raises:
        InputError: no image, or a coverage that is not above 0 and at most 1.
    """
    certainty = np.sort(np.asarray(probs, np.float64).max(axis=1, initial=0))[::-1]
    if not len(certainty) or not 0 < coverage <= 1:
        raise InputError(
            f"cannot fit referral on {len(certainty)} images for a coverage of {coverage}: "
            "validation needs an image, and coverage lies between 0 and 1"
        )
    return float(certainty[math.ceil(len(certainty) * coverage - 1e-9) - 1])


def refer(probs: ArrayLike, threshold: float) -> NDArray[np.bool_]:
    """Tell which images (N, K) go to a human: their largest probability is below the threshold."""
    return np.asarray(np.asarray(probs, np.float64).max(axis=1) < threshold, np.bool_)


def fit_uncertainty(
    probs: ArrayLike,
    targets: ArrayLike,
    labels: Sequence[str],
    *,
    groups: ArrayLike,
    levels: Sequence[float] = LEVELS,
    coverage: float = REFERRAL_COVERAGE,
    fitted_on: str = "validation",
) -> dict[str, Any]:
    """Fit everything that is stored in ``uncertainty.json``.

    ``probs`` (N, K) of validation are calibrated, ``targets`` (N,) class positions, ``groups`` (N,)
    patients. ``levels`` are wished coverages of prediction sets, ``coverage`` is the share of
    images that is answered, ``fitted_on`` says what the images are.

    Returns:
        Plain values for JSON; ``thresholds_of`` and ``referral_threshold`` read them. Images
        (``n``, ``counts``) and patients (``n_patients``, ``patients``) in all and per class. A
        threshold that there are too few patients for is None, and the level's ``note`` says so;
        ``warning`` is not empty where they are few for all of it.

    Raises:
        InputError: shapes that do not fit, no image, a level outside 0 to 1.
    """
    scores, classes, names = _true_scores(probs, targets, groups)
    images = np.unique(names, return_counts=True)[1]
    of_class = {label: classes == k for k, label in enumerate(labels)}
    patients = {label: len(np.unique(names[own])) for label, own in of_class.items()}
    threshold = fit_referral(probs, coverage=coverage)
    warning = ""
    if len(images) < UNSURE_BELOW:
        warning = (
            f"{fitted_on} has {len(images)} patients, fewer than {UNSURE_BELOW}: temperatures, "
            "sets and referral fitted on them are unsure"
        )
    return {
        "fitted_on": fitted_on,
        "n": len(classes),
        "n_patients": len(images),
        "images_per_patient": {"mean": float(images.mean()), "largest": int(images.max())},
        "labels": list(labels),
        "counts": {label: int(own.sum()) for label, own in of_class.items()},
        "patients": patients,
        "warning": warning,
        "conformal": {
            "method": METHOD,
            "levels": {
                f"{level:g}": _fit_level(scores, names, of_class, level, fitted_on)
                for level in levels
            },
        },
        "referral": {
            "coverage": coverage,
            "threshold": threshold,
            "score": REFERRAL_SCORE,
            "answered": float(1 - refer(probs, threshold).mean()),
        },
    }


def _fit_level(
    scores: NDArray[np.float64],
    names: NDArray[Any],
    of_class: Mapping[str, NDArray[np.bool_]],
    level: float,
    fitted_on: str,
) -> dict[str, Any]:
    """Return a level's thresholds, and a note that names what there are too few patients for."""
    plain = conformal_threshold(scores, names, level)
    per_class = {
        label: conformal_threshold(scores[own], names[own], level)
        for label, own in of_class.items()
    }
    short = [] if plain is not None else [f"all classes together ({len(np.unique(names))})"]
    lacking = [label for label, limit in per_class.items() if limit is None]
    short += [f"{label} ({len(np.unique(names[of_class[label]]))})" for label in lacking]
    note = (
        f"{fitted_on} is too small to cover at {level:g}, which takes "
        f"{patients_needed(level)} patients: {', '.join(short)}; such a class is in every set"
    )
    return {"plain": plain, "per_class": per_class, "note": note if short else ""}


def thresholds_of(
    uncertainty: Mapping[str, Any], level: float, *, per_class: bool = True
) -> tuple[Threshold, ...]:
    """Read the K thresholds of a level from what ``fit_uncertainty`` gave, also that of 0.1.

    Those per class are served; the other is one for all classes.

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


def _true_scores(
    probs: ArrayLike, targets: ArrayLike, groups: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[Any]]:
    """Return (N,) scores 1 - p_y, (N,) classes and (N,) groups, checked."""
    values, classes = np.asarray(probs, np.float64), np.asarray(targets, np.int64)
    names = np.asarray(groups)
    if values.ndim != 2 or not classes.shape == names.shape == values.shape[:1]:
        raise InputError(
            f"probabilities of shape {values.shape}, targets of shape {classes.shape} and groups "
            f"of shape {names.shape} do not belong together: (N, K), (N,) and (N,) are needed"
        )
    if len(classes) and not (classes.min() >= 0 and classes.max() < values.shape[1]):
        raise InputError(
            f"targets reach from {classes.min()} to {classes.max()}: allowed are 0 to "
            f"{values.shape[1] - 1}"
        )
    if not np.isfinite(values).all():
        raise InputError("a probability is not finite: predict the images again")
    return 1 - values[np.arange(len(classes)), classes], classes, names
