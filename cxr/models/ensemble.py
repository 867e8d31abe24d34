"""The members' probabilities pooled into one prediction; fitted by ``cxr.models.ensemble_fit``.

linear: q = sum_m w_m p_m, logarithmic: q = prod_m p_m^w_m / Z, with p_m = softmax(z_m / T_m) and
w on the simplex; then p = softmax(log q / T), T being fitted last. A linear pool of calibrated
members is under-confident, which only a temperature behind the pool can correct. M members,
N samples, K classes.

Source: Genest & Zidek 1986, Combining Probability Distributions (both pools); Ranjan & Gneiting
2010, Combining Probability Forecasts, and Gneiting & Ranjan 2013, Combining Predictive
Distributions (a linear pool of calibrated forecasts is not calibrated, and is corrected behind it).
"""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_softmax, logsumexp
from scipy.special import softmax as _softmax

from cxr.errors import InputError, command
from cxr.labels import check_labels

EQUAL, WEIGHTED = "equal", "ensemble"
"""Names under which the two averages stand beside the members; no member may bear them."""
LINEAR, LOGARITHMIC = POOLS = ("linear", "logarithmic")
FITTED_ON = VALIDATION, OUT_OF_FOLD = ("validation", "cv")
"""What may be fitted on: the run's validation, or the out-of-fold predictions of ``make cv``."""
MIN_PROB = 1e-300
"""Floor inside logarithms: keeps the NLL of an underflown probability finite."""


@dataclass(frozen=True)
class Ensemble:
    """What turns the members' logits into one prediction; the content of ensemble.json.

    The defaults are what files of version 0.1 mean, which had a linear pool without a
    temperature behind it.
    """

    labels: tuple[str, ...]  # class names in column order
    members: tuple[str, ...]  # in fitted order
    temperatures: dict[str, float]  # per member, above 0; of its own probabilities
    weights: dict[str, float]  # per member, 0 to 1, summing to 1
    pool: str = LINEAR
    temperature: float = 1.0  # T behind the weighted pool, above 0
    equal_temperature: float = 1.0  # T behind the same pool with equal weights, above 0
    weight_prior: float = 0.0  # under which the weights were fitted, in images
    fitted_on: str = VALIDATION

    def __post_init__(self) -> None:
        check_labels(self.labels)
        check_members(self.members)
        check_pool(self.pool, self.weight_prior)
        check_fitted_on(self.fitted_on)
        again = f"fit the ensemble again ({command('ensemble')})"
        for name, values in (("temperatures", self.temperatures), ("weights", self.weights)):
            if set(values) != set(self.members):
                raise InputError(
                    f"the ensemble's {name} name {sorted(values)}, its members are "
                    f"{sorted(self.members)}: {again}"
                )
        weights = list(self.weights.values())
        temperatures = [*self.temperatures.values(), self.temperature, self.equal_temperature]
        if not all(0 < value < np.inf for value in temperatures):
            raise InputError(
                f"the ensemble's temperatures are {temperatures}: finite values above 0 are "
                f"allowed; {again}"
            )
        if not all(value >= 0 for value in weights) or not np.isclose(sum(weights), 1, atol=1e-6):
            raise InputError(
                f"the ensemble's weights are {weights}: values from 0 up, summing to 1, are "
                f"allowed; {again}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        plain = asdict(self)
        return plain | {"labels": list(self.labels), "members": list(self.members)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Ensemble":
        """Read what ``to_dict`` gave, also in version 0.1; keys beside it are ignored.

        Raises:
            InputError: a key is missing, or the values contradict each other.
        """
        needed = [item.name for item in fields(cls) if item.default is MISSING]
        if missing := [key for key in needed if key not in values]:
            raise InputError(
                f"ensemble.json lacks {', '.join(missing)}: fit the ensemble again "
                f"({command('ensemble')})"
            )
        found = {item.name: values[item.name] for item in fields(cls) if item.name in values}
        return cls(**found | {key: tuple(found[key]) for key in ("labels", "members")})


def softmax(logits: ArrayLike, temperature: float = 1.0) -> NDArray[np.float64]:
    """Return the softmax of z / T over the last axis as float64."""
    return np.asarray(_softmax(np.asarray(logits, np.float64) / temperature, axis=-1), np.float64)


def nll(probs: ArrayLike, targets: NDArray[np.int64]) -> float:
    """Return the mean negative log-likelihood of probabilities (N, K), in nats per image."""
    chosen = np.take_along_axis(np.asarray(probs, np.float64), targets[:, None], axis=1)
    return float(-np.log(np.maximum(chosen, MIN_PROB)).mean())


def pool_logits(log_probs: ArrayLike, weights: ArrayLike, pool: str) -> NDArray[np.float64]:
    """Return log q of a pool up to a constant per sample, (N, K), before the pool's temperature.

    ``log_probs`` (M, N, K) are finite and up to 0; the weights (M,) sum to 1.
    """
    parts, shares = np.asarray(log_probs, np.float64), np.asarray(weights, np.float64)
    if pool == LOGARITHMIC:
        return np.asarray(np.tensordot(shares, parts, 1))
    return np.asarray(logsumexp(parts, axis=0, b=shares[:, None, None]))


def pool_probs(log_probs: ArrayLike, ensemble: Ensemble, name: str) -> NDArray[np.float64]:
    """Return the probabilities (N, K) of the pool ``EQUAL`` or ``WEIGHTED``.

    ``log_probs`` (M, N, K) are of the members with their own temperatures, in their order.
    """
    members, temperature = ensemble.members, ensemble.temperature
    weights = [ensemble.weights[member] for member in members]
    if name == EQUAL:
        weights, temperature = [1 / len(members)] * len(members), ensemble.equal_temperature
    return softmax(pool_logits(log_probs, weights, ensemble.pool), temperature)


def member_log_probs(
    logits: Mapping[str, ArrayLike], temperatures: Mapping[str, float]
) -> NDArray[np.float64]:
    """Return log softmax(z_m / T_m) of the members in the temperatures' order, (M, N, K).

    Raises:
        InputError: a member without logits, or logits of a member that is not known.
    """
    if set(logits) != set(temperatures):
        raise InputError(
            f"logits are given of {sorted(logits)}, the ensemble has {sorted(temperatures)}: "
            "predict with exactly its members"
        )
    shapes = {name: np.shape(logits[name]) for name in temperatures}
    if len(set(shapes.values())) != 1:
        raise InputError(f"the members' logits differ in shape, {shapes}: predict the same images")
    scaled = [np.asarray(logits[name], np.float64) / temperatures[name] for name in temperatures]
    return np.asarray(log_softmax(np.stack(scaled), axis=-1))


def all_probs(logits: Mapping[str, ArrayLike], ensemble: Ensemble) -> dict[str, NDArray[Any]]:
    """Return the probabilities, (N, K) each, of every member (calibrated), ``EQUAL``, ``WEIGHTED``.

    "equal" is the same pool with equal weights and a temperature of its own behind it. See
    ``member_log_probs`` for what is refused.
    """
    temperatures = {name: ensemble.temperatures[name] for name in ensemble.members}
    log_probs = member_log_probs(logits, temperatures)
    members = {name: softmax(logits[name], T) for name, T in temperatures.items()}
    return members | {name: pool_probs(log_probs, ensemble, name) for name in (EQUAL, WEIGHTED)}


def check_pool(pool: str, weight_prior: float) -> None:
    """Refuse an unknown pool, and a prior that is no finite number from 0 up."""
    if pool not in POOLS:
        raise InputError(f"pool is {pool!r}: allowed are {', '.join(POOLS)}")
    if not 0 <= weight_prior < np.inf:
        raise InputError(
            f"weight_prior is {weight_prior}: allowed are finite numbers from 0 (none) up; a "
            "large one, such as 1e9, gives equal weights"
        )


def check_fitted_on(fitted_on: str) -> None:
    """Refuse an unknown source of what the ensemble is fitted on."""
    if fitted_on not in FITTED_ON:
        raise InputError(f"fitted_on is {fitted_on!r}: allowed are {', '.join(FITTED_ON)}")


def check_members(members: Sequence[str]) -> None:
    """Refuse no member, a member twice, and a reserved name."""
    reserved = {EQUAL, WEIGHTED} & set(members)
    if not members or reserved or len(set(members)) != len(members):
        raise InputError(
            f"members are {list(members)}: at least one is needed, each once, and none "
            f"may be called {EQUAL!r} or {WEIGHTED!r}; rename it"
        )
