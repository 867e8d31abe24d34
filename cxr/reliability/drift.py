"""Do the images of late look to the model like those that it was validated on? Only numpy.

Histograms of three quantities are compared with validation's by the population stability index
(PSI), sum (a - e) log(a / e) over the bins' shares, less its mean by chance. Whether that is more
than chance a permutation test says, exactly where images are exchangeable. Several images of one
patient are not, so a small shift gives no alarm however sure it is.

Source: Siddiqi 2006, Credit Risk Scorecards (PSI; from 0.25 on a shift is called large); Yurdakul,
Naranjo 2020, J. Risk Model Validation 14(4) (its chance); Phipson, Smyth 2010, Stat. Appl. Genet.
Mol. Biol. 9:39 (p-values of permutations).
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

WINDOW = 200
"""Images that are compared with validation."""
BATCH = 50_000
"""Images of a batch that are compared: all but of the largest ones."""
LEAST = 100
"""Images below which nothing is said: of windows of 50 whole patients of cxr4's test split, 8 %
gave an alarm, of 100 images 6 %, of 200 none."""
FALSE_ALARMS = 0.01
"""Share of windows like validation that give an alarm, at most."""
LEAST_PSI = 0.25
BINS = 10
PERMUTATIONS = 1999
QUANTITIES = {
    "score": "how far images lie from the training images",
    "confidence": "the largest probability",
    "refused": "the share refused",
}

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Drift:
    """A window compared with validation."""

    images: int  # in the window
    p_value: float  # of the clearest quantity, corrected for there being three
    psi: dict[str, float]  # of each quantity, less the mean of its permutations
    alarm: bool  # whether a PSI of at least ``LEAST_PSI`` is more than chance
    sentence: str  # all of it in a line


def drift_reference(values: Mapping[str, ArrayLike]) -> dict[str, dict[str, list[Any]]]:
    """Return what ``bundle.json`` keeps of validation: inner edges and counts of each quantity.

    ``values`` are (N,) each, NaN where an image has none.
    """
    found = {}
    for name in QUANTITIES:
        seen = np.asarray(values[name], np.float64)
        known = seen[np.isfinite(seen)]
        inner = [0.5]
        if name != "refused":
            shares = np.arange(1, BINS) / BINS
            inner = np.unique(np.quantile(known, shares)).tolist() if len(known) else []
        found[name] = {"edges": inner, "counts": _histogram(seen, inner).tolist()}
    return found


class DriftWindow:
    """The last ``size`` images that a model was given; not for several threads at once.

    What comes in an order (a folder by alphabet, which may be by class) needs all of them.
    ``reference`` is empty where a bundle has none.
    """

    def __init__(self, reference: Mapping[str, Any] | None, size: int = WINDOW) -> None:
        self._reference, self._size = reference or {}, size
        self._images: deque[tuple[float, ...]] = deque(maxlen=size)

    def add(self, *, score: float, confidence: float, refused: bool) -> None:
        """Add an image; a refused one has no confidence, which is NaN."""
        self._images.append((score, np.nan if refused else confidence, float(refused)))

    def full(self) -> Drift | None:
        """Compare a window once it is full, and begin the next one; None before."""
        if len(self._images) < self._size:
            return None
        found = self.compare()
        self._images.clear()
        return found

    def compare(self) -> Drift | None:
        """Compare the last images; None below ``LEAST`` of them, or without a reference."""
        if len(self._images) < LEAST or not self._reference:
            return None
        columns = dict(zip(QUANTITIES, np.array(self._images).T, strict=True))
        return compare(self._reference, columns)


def compare(
    reference: Mapping[str, Any], values: Mapping[str, ArrayLike], *, seed: int = 0
) -> Drift:
    """Compare a window's quantities, (n,) each, NaN where an image has none, with a reference."""
    rng = np.random.default_rng(seed)
    psi, p_values = {}, {}
    for name in QUANTITIES:
        kept = reference[name]
        expected = np.asarray(kept["counts"], np.int64)
        actual = _histogram(np.asarray(values[name], np.float64), kept["edges"])
        # Which images of both are the window's is a draw without putting back.
        drawn = rng.multivariate_hypergeometric(
            actual + expected, int(actual.sum()), size=PERMUTATIONS
        )
        found, chance = _psi(actual, expected), _psi(drawn, actual + expected - drawn)
        psi[name] = float(found - chance.mean())
        p_values[name] = float((1 + (chance >= found - 1e-12).sum()) / (1 + PERMUTATIONS))
    worst = min(QUANTITIES, key=lambda name: (p_values[name], -psi[name]))
    p_value = min(1.0, len(QUANTITIES) * p_values[worst])
    alarm = p_value <= FALSE_ALARMS and psi[worst] >= LEAST_PSI
    images = len(np.asarray(values["refused"]))
    verdict = "unlike" if alarm else "like"
    return Drift(
        images,
        p_value,
        psi,
        alarm,
        f"drift: the last {images} images are {verdict} the validation images; clearest is "
        f"{QUANTITIES[worst]}, PSI {psi[worst]:.2f}, p = {p_value:.2g}"
        + ("; recalibrate on local images before its probabilities are believed" if alarm else ""),
    )


def _histogram(values: NDArray[np.float64], edges: ArrayLike) -> Counts:
    known = values[np.isfinite(values)]
    bins = np.searchsorted(np.asarray(edges, np.float64), known, side="right")
    return np.bincount(bins, minlength=np.size(edges) + 1).astype(np.int64)


def _psi(actual: Counts, expected: Counts) -> NDArray[np.float64]:
    """Return the PSI of counts (..., bins); half an image more in each bin keeps it finite."""
    parts = [counts + 0.5 for counts in (actual, expected)]
    shares, others = (part / part.sum(axis=-1, keepdims=True) for part in parts)
    return np.asarray(((shares - others) * np.log(shares / others)).sum(axis=-1))
