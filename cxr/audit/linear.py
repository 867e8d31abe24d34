"""Balanced multinomial logistic models: what a straight line can tell from given inputs.

Used by every audit test that asks "is the class already in this input?":

    model = fit_linear(features[fit], targets[fit], groups[fit], n_classes=4)
    probs = model.probs(features[test])                       # (N, K)

``out_of_fold`` gives probabilities of images that no fit has seen where there is no test part.
N images, F features, K classes, R rank.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.model_selection import StratifiedGroupKFold

from cxr.errors import InputError

Floats = NDArray[np.float64]
Rows = NDArray[np.float32]

PENALTIES = (1.0, 1e-1, 1e-2, 1e-3, 1e-4)
"""Weights of half the squared coefficients, beside the mean loss of an image; at a thousand
images 1e-3 is scikit-learn's C = 1. From strong to weak."""
OUTER_FOLDS, INNER_FOLDS = 5, 3
MIN_SPREAD = 1e-6
"""Share of the largest spread below which a feature is constant and says nothing."""
TOLERANCE = 1e-4
"""Largest slope at the solution; probabilities then stand to about 1e-3."""
MAX_STEPS = 500


@dataclass(frozen=True)
class LinearModel:
    """A fitted logistic model: (F,) mean and scale, (F, K) weights, (K,) bias, chosen penalty."""

    mean: Floats
    scale: Floats
    weights: Floats
    bias: Floats
    penalty: float

    def probs(self, features: ArrayLike) -> Floats:
        """Return (N, K) probabilities, rows summing to 1, of (N, F) features.

        The classes were made to count alike in the fit, so these are probabilities under
        equal shares of the classes.
        """
        scaled = (np.asarray(features, np.float64) - self.mean) / self.scale
        return np.asarray(softmax(scaled @ self.weights + self.bias, axis=1))


def fit_linear(
    features: ArrayLike,
    targets: ArrayLike,
    groups: ArrayLike,
    *,
    n_classes: int,
    seed: int = 0,
    penalties: Sequence[float] = PENALTIES,
) -> LinearModel:
    """Fit a balanced logistic model; its penalty is chosen by group-disjoint inner folds.

    Features are brought to mean 0 and spread 1. Each class has the same total weight. The
    penalty is the one with the smallest balanced loss on held-out groups, the strongest of
    equals; with one penalty, or too few groups for folds, the first is taken.

    Args:
        features: (N, F), finite. Only the images that the model may see.
        targets: (N,) class positions; classes that do not occur get no probability to speak of.
        groups: (N,) patient or group names.
        n_classes: K.
        seed: of the folds.
        penalties: from strong to weak.

    Raises:
        InputError: fewer than two classes occur, or a feature is not finite.
    """
    values, classes = np.asarray(features, np.float64), np.asarray(targets, np.int64)
    if not np.isfinite(values).all():
        raise InputError("a feature of a linear model is not finite: allowed are finite numbers")
    if len(np.unique(classes)) < 2:
        raise InputError("a linear model needs images of two classes at least: one was given")
    mean, spread = values.mean(axis=0), values.std(axis=0)
    scale = np.where(spread > MIN_SPREAD * max(spread.max(initial=0), 1e-12), spread, np.inf)
    scaled = (values - mean) / scale
    axes = _principal_axes(scaled)
    rotated = np.asarray(scaled @ axes, np.float32)
    chosen = penalties[0]
    if len(penalties) > 1:
        folds = _folds(classes, np.asarray(groups), INNER_FOLDS, seed)
        chosen = _choose_penalty(rotated, classes, folds, n_classes, penalties)
    solution = np.zeros((1 + rotated.shape[1], n_classes))
    for penalty in (strong for strong in penalties if strong >= chosen):
        solution = _solve(rotated, classes, solution, penalty)
    return LinearModel(mean, scale, axes @ solution[1:], solution[0], chosen)


def out_of_fold(
    features: ArrayLike,
    targets: ArrayLike,
    groups: ArrayLike,
    *,
    n_classes: int,
    seed: int = 0,
    penalties: Sequence[float] = PENALTIES,
) -> Floats:
    """Return (N, K) probabilities of each image by a model that has not seen its group.

    The arguments are those of ``fit_linear``; there are ``OUTER_FOLDS`` outside, fewer where a
    class has fewer groups.

    Raises:
        InputError: a class with fewer than two groups, which leaves nothing to hold out.
    """
    values, classes = np.asarray(features, np.float64), np.asarray(targets, np.int64)
    names = np.asarray(groups)
    parts = _folds(classes, names, OUTER_FOLDS, seed)
    if not parts:
        raise InputError(
            "a class has fewer than two groups: cross-validation needs two, one to hold out"
        )
    probs = np.full((len(values), n_classes), np.nan)
    for fit, held in parts:
        model = fit_linear(
            *(values[fit], classes[fit], names[fit]),
            n_classes=n_classes,
            seed=seed,
            penalties=penalties,
        )
        probs[held] = model.probs(values[held])
    return probs


def _folds(
    classes: NDArray[np.int64], groups: NDArray[np.generic], count: int, seed: int
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Return (fit, held-out) rows of group-disjoint folds; none where a class has one group."""
    present = np.unique(classes)
    fewest = min(len(np.unique(groups[classes == k])) for k in present)
    count = min(count, fewest)
    if count < 2:
        return []
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    parts = splitter.split(np.zeros(len(classes)), classes, groups)
    return [(fit, held) for fit, held in parts if len(np.unique(classes[fit])) == len(present)]


def _balance(classes: NDArray[np.int64]) -> Floats:
    """Return (N,) weights of sum 1 that make the classes present count alike."""
    _, place, counts = np.unique(classes, return_inverse=True, return_counts=True)
    return np.asarray(1 / (counts[place] * len(counts)), np.float64)


def _principal_axes(scaled: Floats) -> Floats:
    """Return orthonormal axes (F, R) that span the rows, from the smaller Gram matrix.

    A rotation leaves the penalty and so the solution as it is, and no solution leaves the
    span of the rows; but along these axes the problem is easy to condition.
    """
    n_images, n_features = scaled.shape
    if n_features <= n_images:
        values, axes = np.linalg.eigh(scaled.T @ scaled)
        return np.asarray(axes[:, values > 1e-10 * values[-1]])
    values, left = np.linalg.eigh(scaled @ scaled.T)
    keep = values > 1e-10 * values[-1]
    return np.asarray(scaled.T @ (left[:, keep] / np.sqrt(values[keep])))


def _choose_penalty(
    rotated: Rows,
    classes: NDArray[np.int64],
    folds: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]],
    n_classes: int,
    penalties: Sequence[float],
) -> float:
    """Return the penalty of the least held-out loss, going from strong to weak until it grows."""
    solutions = [np.zeros((1 + rotated.shape[1], n_classes)) for _ in folds]
    parts = [(rotated[fit], rotated[held]) for fit, held in folds]
    best, chosen = np.inf, penalties[0]
    for penalty in penalties:
        loss = 0.0
        for place, (fit, held) in enumerate(folds):
            inner, outer = parts[place]
            solutions[place] = _solve(inner, classes[fit], solutions[place], penalty)
            scores = log_softmax(outer @ solutions[place][1:] + solutions[place][0], axis=1)
            loss -= float(_balance(classes[held]) @ scores[np.arange(len(held)), classes[held]])
        if loss >= best:
            break
        best, chosen = loss, penalty
    return chosen


def _solve(rotated: Rows, classes: NDArray[np.int64], start: Floats, penalty: float) -> Floats:
    """Return the solution (1 + R, K), bias first, from a start of the same shape.

    The coefficients are scaled so that the curvature is about 1 in every direction, which
    changes the way and not the goal; L-BFGS then needs tens of steps and not thousands.
    """
    n_classes = start.shape[1]
    weight, hot = _balance(classes), np.eye(n_classes)[classes]
    design = np.column_stack([np.ones(len(rotated), np.float32), rotated])
    # The bias is not penalised; so little only fixes the sum over the classes.
    ridge = np.full((design.shape[1], 1), penalty)
    ridge[0] = 1e-9
    curvature = np.einsum("n,nr,nr->r", weight, design, design)[:, None] / n_classes
    stretch = 1 / np.sqrt(curvature + ridge)
    inputs = design * stretch.T.astype(np.float32)
    transposed, pull = np.ascontiguousarray(inputs.T), ridge * stretch**2

    def loss(flat: Floats) -> tuple[float, Floats]:
        moved = flat.reshape(-1, n_classes)
        logs = log_softmax((inputs @ moved.astype(np.float32)).astype(np.float64), axis=1)
        value = 0.5 * (pull * moved**2).sum() - weight @ (logs * hot).sum(axis=1)
        rest = weight[:, None] * (np.exp(logs) - hot)
        slope = transposed @ rest.astype(np.float32) + pull * moved
        return float(value), slope.ravel()

    result = minimize(
        loss,
        (start / stretch).ravel(),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": MAX_STEPS, "gtol": TOLERANCE, "maxcor": 20},
    )
    return np.asarray(result.x.reshape(-1, n_classes) * stretch)
