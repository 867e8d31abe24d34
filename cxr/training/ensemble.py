"""Weighted average of the members' calibrated probabilities, fitted on validation alone.

p = sum_m w_m softmax(z_m / T_m), w on the simplex. T_m minimises the member's validation
NLL, w the mixture's. M members, N samples, K classes.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from scipy.special import softmax as _softmax

from cxr.errors import InputError
from cxr.labels import check_labels
from cxr.training.align import check_logits

EQUAL, WEIGHTED = "equal", "ensemble"
"""Names under which the two averages stand beside the members; no member may bear them."""
TEMPERATURE_RANGE = (0.05, 20.0)
"""Search range; a network that needs more than a twentyfold correction is broken."""
MIN_PROB = 1e-300
"""Floor inside logarithms: keeps the NLL of an underflown probability finite."""
WEIGHT_TOLERANCE = 1e-8
"""Bound, in nats per film, on how far the fitted weights' NLL may lie above the optimum."""
WEIGHT_STEPS = 20_000

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ensemble:
    """What turns the members' logits into one prediction; the content of ensemble.json.

    Attributes:
        labels: class names in column order.
        members: member names in fitted order.
        temperatures: per member, above 0.
        weights: per member, 0 to 1, summing to 1.
    """

    labels: tuple[str, ...]
    members: tuple[str, ...]
    temperatures: dict[str, float]
    weights: dict[str, float]

    def __post_init__(self) -> None:
        """Check that the parts fit together."""
        check_labels(self.labels)
        _check_members(self.members)
        for name, values in (("temperatures", self.temperatures), ("weights", self.weights)):
            if set(values) != set(self.members):
                raise InputError(
                    f"the ensemble's {name} name {sorted(values)}, its members are "
                    f"{sorted(self.members)}: fit the ensemble again (make train)"
                )
        temperatures, weights = list(self.temperatures.values()), list(self.weights.values())
        if not all(0 < value < np.inf for value in temperatures):
            raise InputError(
                f"the ensemble's temperatures are {temperatures}: finite values above 0 are "
                "allowed; fit the ensemble again (make train)"
            )
        if not all(value >= 0 for value in weights) or not np.isclose(sum(weights), 1, atol=1e-6):
            raise InputError(
                f"the ensemble's weights are {weights}: values from 0 up, summing to 1, are "
                "allowed; fit the ensemble again (make train)"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        plain = asdict(self)
        return plain | {"labels": list(self.labels), "members": list(self.members)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Ensemble":
        """Read what ``to_dict`` gave; keys that others added beside it are ignored.

        Raises:
            InputError: a key is missing, or the values contradict each other.
        """
        missing = [key for key in cls.__dataclass_fields__ if key not in values]
        if missing:
            raise InputError(
                f"ensemble.json lacks {', '.join(missing)}: fit the ensemble again (make train)"
            )
        return cls(
            tuple(values["labels"]),
            tuple(values["members"]),
            {name: float(value) for name, value in values["temperatures"].items()},
            {name: float(value) for name, value in values["weights"].items()},
        )


def softmax(logits: ArrayLike, temperature: float = 1.0) -> NDArray[np.float64]:
    """Return the softmax of z / T over the last axis as float64."""
    return np.asarray(_softmax(np.asarray(logits, np.float64) / temperature, axis=-1), np.float64)


def nll(probs: ArrayLike, targets: NDArray[np.int64]) -> float:
    """Return the mean negative log-likelihood, in nats per film.

    Args:
        probs: (N, K), each 0 to 1.
        targets: (N,) class positions.
    """
    chosen = np.take_along_axis(np.asarray(probs, np.float64), targets[:, None], axis=1)
    return float(-np.log(np.maximum(chosen, MIN_PROB)).mean())


def fit_temperature(logits: ArrayLike, targets: ArrayLike) -> float:
    """Find the temperature that minimises the NLL of softmax(z / T).

    The NLL is convex in 1 / T, hence has one minimum over log T, which is searched.

    Args:
        logits: (N, K).
        targets: (N,) class positions.

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
            "the certainty shown is not calibrated", len(classes),
        )  # fmt: skip
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
            "validation labels, so the certainty shown is not calibrated", TEMPERATURE_RANGE,
        )  # fmt: skip
    return float(np.exp(found.x))


def fit_weights(probs: ArrayLike, targets: ArrayLike) -> NDArray[np.float64]:
    """Find the weights on the simplex that minimise the mixture's NLL.

    Expectation maximisation from equal weights; the problem is convex. It stops when the
    gradient proves that the NLL is within 1e-8 of the optimum.

    Args:
        probs: (M, N, K), each 0 to 1.
        targets: (N,) class positions.

    Returns:
        (M,) float64, summing to 1. Members that are equally good keep equal weights.

    Source: Dempster, Laird, Rubin 1977, section 4.3 (mixing proportions only). The stop: a
    concave f has f* - f(w) <= max_m (grad f)_m - w . grad f, and here w . grad f = 1.
    """
    classes = np.asarray(targets, np.int64)
    chosen = np.asarray(probs, np.float64)[:, np.arange(len(classes)), classes]
    chosen = np.maximum(chosen, MIN_PROB)
    weights = np.full(len(chosen), 1 / len(chosen))
    for _ in range(WEIGHT_STEPS):
        gradient = (chosen / (weights @ chosen)).mean(axis=1)
        if gradient.max() - 1 < WEIGHT_TOLERANCE:
            break
        weights = weights * gradient
    return np.asarray(weights / weights.sum(), np.float64)


def combine(
    logits: Mapping[str, ArrayLike],
    temperatures: Mapping[str, float],
    weights: Mapping[str, float],
) -> NDArray[np.float64]:
    """Return sum_m w_m softmax(z_m / T_m), (N, K) float64.

    Args:
        logits: per member (N, K).
        temperatures: per member, above 0.
        weights: per member, summing to 1.

    Raises:
        InputError: a member without logits, or logits of a member that is not known.
    """
    if not set(logits) == set(temperatures) == set(weights):
        raise InputError(
            f"logits are given of {sorted(logits)}, the ensemble has {sorted(weights)}: "
            "predict with exactly its members"
        )
    parts = [weights[name] * softmax(logits[name], temperatures[name]) for name in weights]
    if len({part.shape for part in parts}) != 1:
        shapes = {name: part.shape for name, part in zip(weights, parts, strict=True)}
        raise InputError(f"the members' logits differ in shape, {shapes}: predict the same images")
    return np.asarray(np.sum(parts, axis=0), np.float64)


def all_probs(logits: Mapping[str, ArrayLike], ensemble: Ensemble) -> dict[str, NDArray[Any]]:
    """Return the probabilities of each member (calibrated), "equal" and "ensemble".

    Args:
        logits: per member (N, K).
        ensemble: temperatures and weights.

    Returns:
        In this order: the members, ``EQUAL``, ``WEIGHTED``; each (N, K) float64.
    """
    temperatures = ensemble.temperatures
    equal = dict.fromkeys(ensemble.members, 1 / len(ensemble.members))
    averages = {
        EQUAL: combine(logits, temperatures, equal),
        WEIGHTED: combine(logits, temperatures, ensemble.weights),
    }
    return {name: softmax(logits[name], temperatures[name]) for name in ensemble.members} | averages


def fit_ensemble(
    logits_by_member: Mapping[str, ArrayLike], targets: ArrayLike, labels: Sequence[str]
) -> Ensemble:
    """Fit temperatures, then weights, on validation.

    Args:
        logits_by_member: per member (N, K), rows in the same order.
        targets: (N,) positions among the labels.
        labels: K class names.

    Raises:
        InputError: no member, a reserved name, shapes that do not fit, logits that are not
            finite, or a class without a validation image.
    """
    members = tuple(logits_by_member)
    _check_members(members)
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
    probs = np.stack([softmax(checked[name], temperatures[name]) for name in members])
    weights = dict(zip(members, fit_weights(probs, classes).tolist(), strict=True))
    return Ensemble(tuple(labels), members, temperatures, weights)


def _check_members(members: tuple[str, ...]) -> None:
    reserved = {EQUAL, WEIGHTED} & set(members)
    if not members or reserved or len(set(members)) != len(members):
        raise InputError(
            f"members are {list(members)}: at least one is needed, each once, and none "
            f"may be called {EQUAL!r} or {WEIGHTED!r}; rename it"
        )
