"""Fit temperatures and weights of an ensemble on images that no member was trained on.

First each member's own temperature, then the weights under a prior towards equal, last one
temperature on the pool. M members, N samples, K classes.
"""

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax

from cxr.data.splits import deal_folds
from cxr.errors import InputError
from cxr.labels import check_labels
from cxr.models.aligned_logits import check_logits
from cxr.models.ensemble import (
    LINEAR,
    VALIDATION,
    Ensemble,
    all_probs,
    check_members,
    check_pool,
    member_log_probs,
    pool_logits,
    softmax,
)

TEMPERATURE_RANGE = (0.05, 20.0)
"""Search range; a network that needs more than a twentyfold correction is broken."""
WEIGHT_RANGE = (-10.0, 10.0)
"""Of log w up to a constant: no weight falls below 2e-9 of another."""
FOLDS = 5
"""Of cross-fitting."""

logger = logging.getLogger(__name__)


def fit_temperature(logits: ArrayLike, targets: ArrayLike) -> float:
    """Find the temperature that minimises the NLL of softmax(z / T).

    The NLL is convex in 1 / T, hence has one minimum over log T, which is searched.

    Returns:
        T within 0.05 to 20. 1 where no temperature is better than none, and where every
        image is right, since the NLL then falls without end as T goes to 0.

    Raises:
        InputError: shapes that do not fit, no row, or a logit that is not finite.

    Source: Guo et al. 2017, On Calibration of Modern Neural Networks, section 4.2.
    """
    scores, classes = check_logits(logits, targets, "the member")
    others = scores.copy()
    others[np.arange(len(classes)), classes] = -np.inf
    if (scores[np.arange(len(classes)), classes] > others.max(axis=1)).all():
        logger.warning(
            "all %d validation images are right: no temperature can be fitted, 1 is kept and "
            "the certainty shown is not calibrated",
            len(classes),
        )
        return 1.0

    def loss(log_temperature: float) -> float:
        log_probs = log_softmax(scores * np.exp(-log_temperature), axis=1)
        return float(-np.take_along_axis(log_probs, classes[:, None], axis=1).mean())

    low, high = np.log(TEMPERATURE_RANGE)
    found = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-7})
    if loss(0.0) <= found.fun + 1e-12:
        return 1.0
    if min(found.x - low, high - found.x) < 1e-3:
        logger.warning(
            "a temperature lies at the end of the range %s: the logits do not go with the "
            "validation labels, so the certainty shown is not calibrated",
            TEMPERATURE_RANGE,
        )
    return float(np.exp(found.x))


def fit_weights(
    log_probs: ArrayLike, targets: ArrayLike, *, pool: str, prior: float
) -> NDArray[np.float64]:
    """Find the weights (M,) on the simplex that are most probable given the images (MAP).

    The prior is Dirichlet(1 + prior / M, ...): it counts like ``prior`` more images that speak
    for every member alike. 0 is maximum likelihood, a large one gives equal weights. Weights
    are fitted together with the temperature that follows them: with T held at 1 they gather on
    the best member, only because that makes the pool less under-confident. Members that are equally
    good keep equal weights. ``log_probs`` (M, N, K) are of the members with their own temperatures.

    Raises:
        InputError: an unknown pool, or a prior that is not allowed.
    """
    check_pool(pool, prior)
    parts, classes = np.asarray(log_probs, np.float64), np.asarray(targets, np.int64)
    count, rows = len(parts), np.arange(len(classes))
    per_image = prior / (count * len(rows))

    def loss(point: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        log_weights = log_softmax(point[:-1])
        weights = np.exp(log_weights)
        scores = pool_logits(parts, weights, pool)
        log_q = log_softmax(scores / np.exp(point[-1]), axis=1)
        residual = np.exp(log_q)
        residual[rows, classes] -= 1
        residual /= np.exp(point[-1]) * len(rows)
        slopes = np.exp(parts - scores) if pool == LINEAR else parts
        by_weight = np.einsum("mnk,nk->m", slopes, residual)
        by_point = weights * (by_weight - weights @ by_weight) + per_image * (count * weights - 1)
        value = -log_q[rows, classes].mean() - per_image * log_weights.sum()
        return value, np.append(by_point, -(residual * scores).sum())

    found = minimize(
        loss,
        np.zeros(count + 1),
        jac=True,
        method="L-BFGS-B",
        bounds=[WEIGHT_RANGE] * count + [tuple(np.log(TEMPERATURE_RANGE))],
        options={"ftol": 1e-13, "gtol": 1e-8, "maxiter": 1000},
    )
    return softmax(found.x[:-1])


def fit_ensemble(
    logits_by_member: Mapping[str, ArrayLike],
    targets: ArrayLike,
    labels: Sequence[str],
    *,
    pool: str,
    weight_prior: float,
    fitted_on: str = VALIDATION,
) -> Ensemble:
    """Fit the members' temperatures, then weights, then the pools' temperatures.

    ``logits_by_member`` are (N, K) each, rows in the same order; ``fitted_on`` says where they come
    from.

    Raises:
        InputError: no member, a reserved name, shapes that do not fit, logits that are not
            finite, a class without an image, or a pool or prior that is not allowed.
    """
    members = tuple(logits_by_member)
    check_members(members)
    check_labels(labels)
    checked = {}
    for name, logits in logits_by_member.items():
        checked[name], classes = check_logits(logits, targets, name, n_classes=len(labels))
    absent = [label for index, label in enumerate(labels) if not (classes == index).any()]
    if absent:
        raise InputError(
            f"validation has no image of {', '.join(absent)} ({len(classes)} images): temperatures "
            "and weights need each class; give val more groups of it, or leave the class out"
        )
    temperatures = {name: fit_temperature(checked[name], classes) for name in members}
    log_probs = member_log_probs(checked, temperatures)
    weights = fit_weights(log_probs, classes, pool=pool, prior=weight_prior)
    equal = np.full(len(members), 1 / len(members))
    return Ensemble(
        tuple(labels),
        members,
        temperatures,
        dict(zip(members, weights.tolist(), strict=True)),
        pool=pool,
        temperature=fit_temperature(pool_logits(log_probs, weights, pool), classes),
        equal_temperature=fit_temperature(pool_logits(log_probs, equal, pool), classes),
        weight_prior=float(weight_prior),
        fitted_on=fitted_on,
    )


def cross_fitted(
    logits: Mapping[str, NDArray[np.float64]],
    targets: NDArray[np.int64],
    groups: ArrayLike,
    ensemble: Ensemble,
) -> dict[str, NDArray[np.float64]]:
    """Return probabilities, as of ``all_probs``, of images by an ensemble fitted on other patients.

    Of ``ensemble`` only pool and prior count; ``groups`` (N,) are the patients.

    Raises:
        InputError: a class with too few groups for the folds.
    """
    table = pd.DataFrame(
        {"label": np.asarray(ensemble.labels)[targets], "group": np.asarray(groups, str)}
    )
    dealt = deal_folds(table, folds=FOLDS, seed=0)
    found: dict[str, NDArray[np.float64]] = {}
    for fold in range(1, FOLDS + 1):
        rest, out = dealt != fold, dealt == fold
        fitted = fit_ensemble(
            {name: values[rest] for name, values in logits.items()},
            targets[rest],
            ensemble.labels,
            pool=ensemble.pool,
            weight_prior=ensemble.weight_prior,
        )
        probs = all_probs({name: values[out] for name, values in logits.items()}, fitted)
        for name, values in probs.items():
            found.setdefault(name, np.empty((len(targets), values.shape[1])))[out] = values
    return found
