"""Stored values to what is seen: the grayscale pipeline of DICOM as one table (``depth``).

V = 2 ** bits stored. Source: PS3.3, C.11.1 (modality), C.11.2 (values of interest),
C.7.6.3.1.2 (photometric interpretation).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cxr.imaging.depth import Table

SURE = 0.5
"""Correlation above which an image is certainly a positive. Of 6,184 real positives (the set
``cxr4``) 98.2 % reach it, and none reaches -0.5, so no true negative would be mistaken."""

# Left half of the average of 6,184 chest images at 6 x 6, each source weighing the same, each
# image without its mean and at unit length, in hundredths: dark air at the sides and in the
# lungs, bright spine and diaphragm. The right half mirrors it.
_HALF = ((-28, -16, 0), (-10, -8, -1), (-9, -13, 7), (-10, -7, 19), (-12, 9, 28), (-9, 27, 35))


def stored_values(bits: int, *, signed: bool) -> Table:
    """Return the value (V,) float64 of each stored code, two's complement where signed."""
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
    """Map values of any shape to 0 (black) to 1 through a window.

    Args:
        values: after the modality transformation.
        center: in the values' unit.
        width: above 0; at least 1 for LINEAR.
        function: LINEAR, LINEAR_EXACT or SIGMOID.

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


def polarity(image: NDArray[np.uint8]) -> float:
    """Correlate an image (H, W) uint8, at least 6 x 6, with the average chest image.

    MONOCHROME1 is at times written over pixels that are a positive already; inverting those as
    the header asks gives a negative, which no model of positives may be shown.

    Returns:
        -1 to 1: positives (air dark) lie near 0.7, their negatives at the same figure below 0;
        0 for an image of one value.
    """
    side = len(_HALF)
    half = np.asarray(_HALF, np.float64)
    average = np.hstack([half, half[:, ::-1]])
    rows = np.array_split(np.arange(image.shape[0]), side)
    columns = np.array_split(np.arange(image.shape[1]), side)
    blocks = np.array(
        [[image[r[0] : r[-1] + 1, c[0] : c[-1] + 1].mean() for c in columns] for r in rows]
    )
    blocks -= blocks.mean()
    average -= average.mean()
    length = float(np.linalg.norm(blocks) * np.linalg.norm(average))
    return float((blocks * average).sum()) / length if length > 1e-9 else 0.0
