"""A DICOM file to gray pixels and doubts: the grayscale pipeline as one table (``depth``).

V = 2 ** bits stored, H W pixels. Source: PS3.3, C.11.1 (modality), C.11.2 (values of interest),
C.7.6.3.1.2 (photometric interpretation).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cxr.imaging import depth
from cxr.imaging.depth import Table, between
from cxr.imaging.dicom.frames import Codes, colour_frame, stored_codes
from cxr.imaging.dicom.header import Layout, check_layout, check_subject
from cxr.imaging.dicom.parse import Elements, parse
from cxr.imaging.raster import ImageError

SURE = 0.5
"""Correlation above which an image is certainly a positive. Of 6,184 real positives (the set
``cxr4``) 98.2 % reach it, and none reaches -0.5, so no true negative would be mistaken."""

# Left half of the average of 6,184 chest images at 6 x 6, each source weighing the same, each
# image without its mean and at unit length, in hundredths: dark air at the sides and in the
# lungs, bright spine and diaphragm. The right half mirrors it.
_HALF = ((-28, -16, 0), (-10, -8, -1), (-9, -13, 7), (-10, -7, 19), (-12, 9, 28), (-9, 27, 35))


def read_dicom(data: bytes, shown: str) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Decode a chest image from DICOM, and nothing of its patient.

    The order is DICOM's: stored bits, modality table or rescale, table or window of
    interest (a table first; of several, the first), inversion of MONOCHROME1. Without a
    window, images of up to 8 bits keep their range, deeper ones are spread between the
    values that 0.1 % and 99.9 % of the pixels lie below. Padding is black.

    Returns:
        (H, W) uint8, 0 black; one sentence for each doubt. Neither doubts nor errors, which call
        the image ``shown``, hold free text of the header.

    Raises:
        ImageError: damaged, without pixels, several frames, no chest radiograph by its
            header, or of a kind that is not read.
    """
    try:
        elements = parse(data)
        doubts = list(check_subject(elements))
        layout = check_layout(elements)
        if layout.samples == 3:
            doubts.append("is stored in colour: read as gray")
            return colour_frame(elements, layout), tuple(doubts)
        image = _show(stored_codes(elements, layout), elements, layout, doubts)
        return image, tuple(doubts)
    except MemoryError:
        raise ImageError(f"{shown} needs more memory than there is: scale it down") from None
    except ImageError as error:
        raise ImageError(f"{shown} {str(error).strip()}") from None


def _show(codes: Codes, elements: Elements, layout: Layout, doubts: list[str]) -> NDArray[np.uint8]:
    """Take stored values through the grayscale pipeline."""
    counts = depth.count_codes(codes, layout.bits_stored)
    padding = _padding(elements, layout)
    counts[padding] = 0
    shown = _mapping(elements, layout, counts, doubts)
    inverted = layout.photometric == "MONOCHROME1"
    shape = elements.text("PresentationLUTShape")
    if shape in ("IDENTITY", "INVERSE") and (shape == "INVERSE") != inverted:
        doubts.append(
            f"contradicts itself ({layout.photometric}, PresentationLUTShape {shape}): "
            f"{layout.photometric} is followed"
        )
    table = depth.to_bytes(shown, inverted=inverted)
    image = depth.apply_table(table, codes)
    if inverted and polarity(image) < -SURE:
        doubts.append("states MONOCHROME1 over pixels that are a positive already: not inverted")
        table = np.invert(table)
        image = np.invert(image)
    if padding.any():
        table[padding] = 0
        image = depth.apply_table(table, codes)
    return image


def _mapping(
    elements: Elements, layout: Layout, counts: NDArray[np.int64], doubts: list[str]
) -> Table:
    """Return what each stored code shows, 0 to 1, before any inversion."""
    stored = stored_values(layout.bits_stored, signed=layout.signed)
    values = _modality(elements, layout, stored)
    shown = _interest(elements, values, signed=layout.signed or values.min() < 0, doubts=doubts)
    if shown is not None:
        if depth.shows_enough(shown, counts):
            return shown
        doubts.append("has a window that hides nearly all of the image: passed over")
    if layout.bits_stored <= 8 and not layout.signed:
        return between(values, float(values.min()), float(values.max()))
    return between(values, *depth.robust_range(values, counts))


def _modality(elements: Elements, layout: Layout, stored: Table) -> Table:
    table = elements.table("ModalityLUTSequence", signed=layout.signed)
    if table is not None:
        return look_up(stored, *table[:2])
    slope, intercept = elements.number("RescaleSlope"), elements.number("RescaleIntercept")
    if slope == 0:
        raise ImageError("has a RescaleSlope of 0, which leaves nothing to see")
    return stored * (1.0 if slope is None else slope) + (intercept or 0.0)


def _interest(
    elements: Elements, values: Table, *, signed: bool, doubts: list[str]
) -> Table | None:
    """Apply the header's table or window of interest; None where there is none."""
    table = elements.table("VOILUTSequence", signed=signed)
    if table is not None:
        entries, first, bits = table
        used = max(entries).bit_length()
        # Entries of 12 bits under a stated 16 would be all but black.
        top = (1 << (used if used <= bits - 4 or used > bits else bits)) - 1
        return between(look_up(values, entries, first), 0, top)
    center, width = elements.number("WindowCenter"), elements.number("WindowWidth")
    if center is None or width is None:
        return None
    try:
        return window(values, center, width, elements.text("VOILUTFunction") or "LINEAR")
    except ValueError:
        doubts.append("has a window that DICOM does not allow: passed over")
        return None


def _padding(elements: Elements, layout: Layout) -> NDArray[np.bool_]:
    """Tell which codes are no part of the image (PS3.3, C.7.5.1.1.2)."""
    codes = np.zeros(1 << layout.bits_stored, np.bool_)
    if not elements.raw("PixelPaddingValue"):
        return codes
    first = elements.integer("PixelPaddingValue", signed=layout.signed)
    last = elements.integer("PixelPaddingRangeLimit", first, signed=layout.signed)
    values = stored_values(layout.bits_stored, signed=layout.signed)
    return np.asarray((values >= min(first, last)) & (values <= max(first, last)))


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
    """Map values, after the modality transformation, to 0 (black) to 1 through a window.

    Source: PS3.3, C.11.2.1.2.1 (LINEAR), C.11.2.1.3.2 (LINEAR_EXACT) and C.11.2.1.3.1 (SIGMOID).

    Raises:
        ValueError: another function, or a width that is not above 0, or under 1 for LINEAR.
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
