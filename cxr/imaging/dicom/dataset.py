"""A DICOM file to gray pixels and doubts. H W pixels."""

import numpy as np
from numpy.typing import NDArray

from cxr.imaging.depth import (
    Table,
    apply_table,
    between,
    count_codes,
    robust_range,
    shows_enough,
    to_bytes,
)
from cxr.imaging.dicom.frames import Codes, colour_frame, stored_codes
from cxr.imaging.dicom.grayscale import SURE, look_up, polarity, stored_values, window
from cxr.imaging.dicom.header import Layout, check_layout, check_subject
from cxr.imaging.dicom.parse import Elements, parse
from cxr.imaging.raster import ImageError


def read_dicom(data: bytes, shown: str) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Decode a chest image from DICOM, and nothing of its patient.

    The order is DICOM's: stored bits, modality table or rescale, table or window of
    interest (a table first; of several, the first), inversion of MONOCHROME1. Without a
    window, images of up to 8 bits keep their range, deeper ones are spread between the
    values that 0.1 % and 99.9 % of the pixels lie below. Padding is black.

    Args:
        data: the file.
        shown: what errors call the image.

    Returns:
        (H, W) uint8, 0 black; one sentence for each doubt. Neither doubts nor errors hold free
        text of the header.

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
    counts = count_codes(codes, layout.bits_stored)
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
    table = to_bytes(shown, inverted=inverted)
    image = apply_table(table, codes)
    if inverted and polarity(image) < -SURE:
        doubts.append("states MONOCHROME1 over pixels that are a positive already: not inverted")
        table = np.invert(table)
        image = np.invert(image)
    if padding.any():
        table[padding] = 0
        image = apply_table(table, codes)
    return image


def _mapping(
    elements: Elements, layout: Layout, counts: NDArray[np.int64], doubts: list[str]
) -> Table:
    """Return what each stored code shows, 0 to 1, before any inversion."""
    stored = stored_values(layout.bits_stored, signed=layout.signed)
    values = _modality(elements, layout, stored)
    shown = _interest(elements, values, signed=layout.signed or values.min() < 0, doubts=doubts)
    if shown is not None:
        if shows_enough(shown, counts):
            return shown
        doubts.append("has a window that hides nearly all of the image: passed over")
    if layout.bits_stored <= 8 and not layout.signed:
        return between(values, float(values.min()), float(values.max()))
    return between(values, *robust_range(values, counts))


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
