"""Stored values to what is seen: the grayscale pipeline of DICOM as one table.

A stored value has at most 16 bits, so every step works on the table of all values and the
film is looked up once. V = 2 ** bits stored. Source: PS3.3, C.11.1 (modality), C.11.2
(values of interest), C.7.6.3.1.2 (photometric interpretation).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Table = NDArray[np.float64]

ROBUST = (0.001, 0.999)
"""Shares of the pixels below black and below white where no window is given."""
LEAST_SHOWN = 0.02
"""A window that clips more than all but this share of the film is taken for a mistake."""

_STRIP_PIXELS = 4_000_000


def stored_values(bits: int, *, signed: bool) -> Table:
    """Return the value of each stored code, two's complement where signed.

    Returns:
        (V,) float64.
    """
    codes = np.arange(1 << bits, dtype=np.float64)
    if signed:
        codes[codes >= 1 << (bits - 1)] -= 1 << bits
    return codes


def look_up(values: Table, entries: Sequence[int], first: int) -> Table:
    """Look values up in a table that starts at ``first``; beyond its ends its ends hold.

    Source: PS3.3, C.11.1.1.1 and C.11.2.1.1.
    """
    places = np.clip(np.rint(values) - first, 0, len(entries) - 1).astype(np.int64)
    found: Table = np.take(np.asarray(entries, np.float64), places)
    return found


def window(values: Table, center: float, width: float, function: str = "LINEAR") -> Table:
    """Map values to 0 (black) to 1 through a window.

    Args:
        values: any shape, after the modality transformation.
        center: in the values' unit.
        width: above 0; at least 1 for LINEAR.
        function: LINEAR, LINEAR_EXACT or SIGMOID.

    Returns:
        0 to 1, the shape of ``values``.

    Source: PS3.3, C.11.2.1.2.1, C.11.2.1.3.2 and C.11.2.1.3.1.

    Raises:
        ValueError: a width or a function that is not allowed.
    """
    if width <= 0 or (function == "LINEAR" and width < 1):
        raise ValueError(f"a {function} window of width {width:g}")
    if function == "SIGMOID":
        return np.asarray(1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -60, 60))))
    if function not in ("LINEAR", "LINEAR_EXACT"):
        raise ValueError("a window function that DICOM does not define")
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
    if width == 0:
        return np.asarray(values > center, np.float64)
    return np.clip((values - center) / width + 0.5, 0.0, 1.0)


def robust_range(values: Table, counts: NDArray[np.int64]) -> tuple[float, float]:
    """Return the values below which 0.1 % and 99.9 % of the pixels lie.

    Args:
        values: (V,).
        counts: (V,) pixels of each stored code.
    """
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(counts[order])
    if not reached[-1]:
        return float(values.min()), float(values.max())
    low, high = (order[np.searchsorted(reached, share * reached[-1])] for share in ROBUST)
    return float(values[low]), float(values[high])


def between(values: Table, low: float, high: float) -> Table:
    """Map ``low`` to 0 and ``high`` to 1; a film of one value is black."""
    if high <= low:
        return np.zeros_like(values)
    return np.clip((values - low) / (high - low), 0.0, 1.0)


def shows_enough(shown: Table, counts: NDArray[np.int64]) -> bool:
    """Tell whether a mapping leaves at least 2 % of the pixels unclipped."""
    total = counts.sum()
    return bool(total == 0 or counts[(shown > 0) & (shown < 1)].sum() >= LEAST_SHOWN * total)


def to_bytes(shown: Table, *, inverted: bool) -> NDArray[np.uint8]:
    """Round 0 to 1 to 0 to 255, black and white exchanged where asked."""
    eight = np.floor(shown * 255 + 0.5).astype(np.uint8)
    return np.invert(eight) if inverted else eight


def count_codes(codes: NDArray[np.uint8] | NDArray[np.uint16], bits: int) -> NDArray[np.int64]:
    """Count the pixels of each stored code.

    Returns:
        (V,) int64.
    """
    flat = codes.reshape(-1)
    counts = np.zeros(1 << bits, np.int64)
    # In strips: NumPy widens what it counts and what it looks up to 8 bytes a pixel.
    for first in range(0, flat.size, _STRIP_PIXELS):
        counts += np.bincount(flat[first : first + _STRIP_PIXELS], minlength=counts.size)
    return counts


def apply_table(
    table: NDArray[np.uint8], codes: NDArray[np.uint8] | NDArray[np.uint16]
) -> NDArray[np.uint8]:
    """Look every pixel up.

    Returns:
        uint8 of the shape of ``codes``.
    """
    flat = codes.reshape(-1)
    film = np.empty(flat.size, np.uint8)
    for first in range(0, flat.size, _STRIP_PIXELS):
        film[first : first + _STRIP_PIXELS] = table[flat[first : first + _STRIP_PIXELS]]
    return film.reshape(codes.shape)
