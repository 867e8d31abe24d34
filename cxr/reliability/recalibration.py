"""Fit a finished model's confidence anew on local images: temperature, sets, referral.

What was fitted on validation promises nothing for images that are drawn in another way, such as
those of another hospital; fitted anew on a sample of them, it does. Without torch.
N images, K classes.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit

from cxr.errors import InputError
from cxr.models.ensemble import MIN_PROB
from cxr.models.ensemble_fit import fit_temperature
from cxr.reliability.conformal import fit_uncertainty, prediction_sets, tempered, thresholds_of

DEALINGS = 200
"""Random parts behind the coverage that is reported."""

Uncertainty = Mapping[str, Any]
"""What ``fit_uncertainty`` returns."""


def recalibrate(
    probs: ArrayLike, targets: ArrayLike, groups: ArrayLike, former: Uncertainty
) -> tuple[float, dict[str, Any]]:
    """Fit a temperature behind a model's own probabilities (N, K), then sets and referral.

    A class without a local image keeps its former threshold, carried over to the new temperature
    as if there were two classes; nothing is promised for it, and ``note`` says so.

    Returns:
        The temperature, and what takes the place of ``former``.

    Raises:
        InputError: shapes that do not fit, or no image.
    """
    logits = np.log(np.maximum(np.asarray(probs, np.float64), MIN_PROB))
    temperature = fit_temperature(logits, targets)
    found = fit_uncertainty(
        tempered(probs, temperature),
        targets,
        former["labels"],
        groups=groups,
        levels=[float(level) for level in former["conformal"]["levels"]],
        coverage=former["referral"]["coverage"],
        fitted_on="local images",
    )
    if absent := [label for label, count in found["counts"].items() if not count]:
        for name, level in found["conformal"]["levels"].items():
            before = former["conformal"]["levels"][name]["per_class"]
            for label in absent:
                limit = before[label]
                # Of 1 - p at another temperature, exact for two classes.
                carried = None if limit is None else float(expit(logit(limit) / temperature))
                level["per_class"][label] = carried
            own = [
                label
                for label, limit in level["per_class"].items()
                if label not in absent and limit is None
            ]
            level["note"] = (
                f"no local image of {', '.join(absent)}: the former threshold stays, and nothing "
                "is promised"
                + (f"; too few patients, so in every set: {', '.join(own)}" * bool(own))
            )
    return temperature, found


def held_out_coverage(
    probs: ArrayLike,
    targets: ArrayLike,
    groups: ArrayLike,
    former: Uncertainty,
    *,
    images: int | None = None,
    dealings: int = DEALINGS,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure the sets before and after on images that the recalibration did not see.

    Patients are dealt at random again and again: one part to fit on, half of the images in whole
    patients or as many as ``images``, the rest to measure on.

    Returns:
        Per level ``before`` and ``after``: ``coverage``, mean ``size`` of the sets, coverage
        ``per_class``; each with ``value``, the mean over the dealings, and ``low`` and ``high``,
        between which 95 % of them lie. None where no dealing has an image of the class.

    Raises:
        InputError: patients that cannot be dealt to two parts.
    """
    values, classes, names = np.asarray(probs), np.asarray(targets), np.asarray(groups)
    patients, member = np.unique(names, return_inverse=True)
    rng = np.random.default_rng(seed)
    measured: dict[tuple[str, str], list[list[float]]] = {}
    for _ in range(dealings):
        order = rng.permutation(len(patients))[member]
        # Whole patients, the fewest that have so many images.
        counts = np.cumsum(np.bincount(order))
        fit = order <= np.searchsorted(counts, len(names) // 2 if images is None else images)
        if fit.all():
            raise InputError(
                f"{len(patients)} patients with {len(names)} images cannot be dealt to two parts: "
                "label images of more patients"
            )
        anew = recalibrate(values[fit], classes[fit], names[fit], former)
        for when, (temperature, stored) in {"before": (1.0, former), "after": anew}.items():
            shown = tempered(values[~fit], temperature)
            for level in former["conformal"]["levels"]:
                sets = prediction_sets(shown, thresholds_of(stored, float(level)))
                shares = _shares(sets, classes[~fit])
                measured.setdefault((level, when), []).append(shares)
    found: dict[str, Any] = {level: {} for level in former["conformal"]["levels"]}
    for (level, when), rows in measured.items():
        coverage, size, *own = map(_spread, np.transpose(rows))
        per_class = dict(zip(former["labels"], own, strict=True))
        found[level][when] = {"coverage": coverage, "size": size, "per_class": per_class}
    return found


def _shares(sets: NDArray[np.bool_], targets: NDArray[np.int64]) -> list[float]:
    """Return coverage, mean size, and the coverage of each class; NaN without an image."""
    hits = sets[np.arange(len(targets)), targets]
    own = [hits[targets == k] for k in range(sets.shape[1])]
    shares = [float(part.mean()) if len(part) else np.nan for part in own]
    return [float(hits.mean()), float(sets.sum(axis=1).mean()), *shares]


def _spread(values: NDArray[np.float64]) -> dict[str, float] | None:
    """Return the mean and the middle 95 % of what was measured in the dealings."""
    known = values[~np.isnan(values)]
    if not len(known):
        return None
    low, high = np.quantile(known, [0.025, 0.975])
    return {"value": float(known.mean()), "low": float(low), "high": float(high)}
