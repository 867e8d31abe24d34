"""JPEG, PNG and TIFF to gray pixels, within bounds of memory and time. H W pixels."""

import io
import math
import threading
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from cxr.errors import InputError, reason_of
from cxr.imaging.depth import ROBUST, apply_table, between, count_codes, robust_range, to_bytes

MIN_SIDE_PX = 32
"""Below this side nothing of a chest image is left to see."""
MAX_PIXELS = 100_000_000
"""Largest image accepted: ten times a detector's 3,000 x 3,000, and no decompression bomb."""
MAX_COSTLY_PIXELS = 50_000_000
"""Largest image whose decoder keeps more than a byte or two a pixel (colour, transparency,
progressive JPEG, DICOM), so that no file takes more than 1 GB."""
COLOUR_LIMIT = 5.0
"""Gray levels of 255. A gray image stored in colour, tinted throughout or with coloured marks lies
below 2, ten photographs at 8 and beyond."""
COLOUR_SIDE_PX = 120
"""Longer side at which colour is looked for."""
MAX_SCANS = 50
"""Passes of a progressive JPEG: encoders write about ten, and each costs the whole image."""
FORMATS = ("JPEG", "PNG", "TIFF")
WHITE_IS_ZERO = 0
"""Value of the TIFF tag 262 that makes 0 white (TIFF 6.0, section 8)."""
NARROW = 1 / 4
"""Share of its bits below which a range is spread: values with an offset, no image in full."""
MIDDLE = (0.05, 0.95)
"""Shares of the pixels between which something must be seen: no marker is as large."""
LEAST_MIDDLE = 1 / 16
"""Share of the shown range that the middle must span, 16 gray levels of 256."""

DICOM_HEAD_BYTES = 132
"""A DICOM file begins with 128 free bytes and DICM (PS3.10, 7.1)."""
_STRIP_PIXELS = 4_000_000
_warning_lock = threading.Lock()


class ImageError(InputError):
    """A file that is no usable image; the message names it."""


def read_raster(data: bytes, shown: str) -> tuple[NDArray[np.uint8], tuple[str, ...], float | None]:
    """Decode a JPEG, PNG or TIFF, which errors call ``shown``, to gray.

    Returns:
        (H, W) uint8, 0 black; one sentence for everything that had to be guessed; and how
        far the original lies off gray (``colourfulness``), None where it was gray.
        Colours are weighted as ITU-R 601 luma, 16-bit values keep the upper 8 of the bits
        that they use (see ``eight_bits``), transparency is laid on black, the EXIF
        orientation is applied.

    Raises:
        ImageError: not a JPEG, PNG or TIFF, truncated, under 32 pixels on a side or over
            100 megapixels (50 in colour, with transparency, or as a progressive JPEG); of 16
            bits nearly blank, or using fewer in colour.
    """
    try:
        with _open(data) as image:
            costly = image.mode not in ("1", "L", "I;16", "I;16B") or "progressive" in image.info
            most = MAX_COSTLY_PIXELS if costly else MAX_PIXELS
            check_size(image.width, image.height, shown, most=most)
            _check_depth(image, data, shown)
            gray, notes = _to_gray(image, shown)
            return _upright(gray, image.getexif().get(0x0112, 1)), notes, _colour(image)
    except UnidentifiedImageError:
        raise ImageError(
            f"{shown} is no image: JPEG, PNG, TIFF and DICOM are read; remove it, or skip such "
            "files with data.on_error=skip"
        ) from None
    except Image.DecompressionBombError:
        raise ImageError(
            f"{shown} has over {MAX_PIXELS // 1_000_000} megapixels: scale it down"
        ) from None
    # What Pillow raises on damaged files differs by format and version.
    except Exception as error:
        if isinstance(error, InputError):
            raise
        raise ImageError(
            f"{shown} cannot be decoded ({reason_of(error, 1000)}): restore it, or skip such files "
            "with data.on_error=skip"
        ) from None


def has_dicom_mark(head: bytes) -> bool:
    """Tell a DICOM file by the mark in its first 132 bytes."""
    return head[DICOM_HEAD_BYTES - 4 : DICOM_HEAD_BYTES] == b"DICM"


def check_size(width: int, height: int, shown: str, *, most: int = MAX_PIXELS) -> None:
    """Raise ImageError for what has under 32 pixels on a side or over ``most`` pixels."""
    if min(width, height) < MIN_SIDE_PX:
        raise ImageError(
            f"{shown} is {width} x {height} pixels: at least {MIN_SIDE_PX} x {MIN_SIDE_PX} "
            "are needed; use the original image"
        )
    if width * height > most:
        raise ImageError(
            f"{shown} is {width} x {height} pixels: at most {most // 1_000_000} megapixels "
            "of this kind are read; scale it down"
        )


def eight_bits(
    deep: NDArray[np.uint16], shown: str, *, inverted: bool = False
) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Map 16-bit values (H, W) to 8 through the bits that they use, as far as pixels tell.

    Images of 10 to 14 bits are often saved in 16 unscaled, which would come out black. The bits
    used are those of the value that 99.9 % of the pixels lie below, at least 8; the upper 8 of
    them are kept, brighter pixels are white. What spans less than a quarter of these bits is
    spread between the values that 0.1 % and 99.9 % lie below, as DICOM without a window.

    Returns:
        (H, W) uint8, 0 black, which ``inverted`` pixels are not yet; one sentence where fewer
        than 16 bits or a narrow range was taken as the whole.

    Raises:
        ImageError: nothing to see: 90 % of the pixels lie within a sixteenth of the range.

    Source: of the constants, 9,224 real images of 8 bits (cxr4 and adults). In all but 6 the
    value at 99.9 % is 128 or more, so that the image tells in how many bits it was saved; they
    span at least 78 of 256 gray levels, and the middle 90 % of their pixels at least 40.
    """
    counts = count_codes(deep, 16)
    codes = np.arange(counts.size, dtype=np.float64)
    low, high = robust_range(codes, counts)
    darker, brighter = robust_range(codes, counts, MIDDLE)
    bits = max(8, int(high).bit_length())
    scale = 1 << bits
    narrow = high - low < NARROW * scale
    width = high - low if narrow else scale
    if brighter - darker < LEAST_MIDDLE * max(width, NARROW * scale, 256):
        raise ImageError(
            f"{shown} is nearly blank: 90 % of its pixels lie between {darker:.0f} and "
            f"{brighter:.0f}, 99.9 % below {high:.0f} of 65535; export it again with its whole "
            "range of grays, or skip such files with data.on_error=skip"
        )
    notes = () if bits == 16 else (f"uses {bits} of its 16 bits: brightened to the full range",)
    seen = np.minimum(codes // (scale >> 8), 255) / 255
    if narrow:
        seen = between(codes, low, high)
        notes = (f"holds grays from {low:.0f} to {high:.0f} of 65535: spread to the full range",)
    return apply_table(to_bytes(seen, inverted=inverted), deep), notes


def colourfulness(rgb: NDArray[np.uint8]) -> float:
    """Measure what of an image's colours its gray does not explain.

    Each channel is fitted by a line through the gray, so that an image that is tinted
    throughout, as an old scan may be, counts as gray. The fit is repeated on the best 70 % of
    the pixels, and the worst fifth does not count, so that coloured marks do not make an image a
    photograph. Of (H, W, 3) uint8, not yet made gray, some four thousand pixels are looked at.

    Returns:
        What four fifths of the pixels lie below, in gray levels of 255. See ``COLOUR_LIMIT``.
    """
    step = max(1, math.isqrt(rgb.shape[0] * rgb.shape[1] // 4_000))
    sample = rgb[::step, ::step].reshape(-1, 3).astype(np.float64)
    if np.ptp(sample, axis=1).max() <= 2:
        # Gray saved as colour, the common case.
        return 0.0
    gray = sample.mean(axis=1)
    kept = np.ones(len(gray), bool)
    off = np.zeros(len(gray))
    for _ in range(4):
        some, colours = gray[kept] - gray[kept].mean(), sample[kept].mean(axis=0)
        slopes = some @ sample[kept] / max(float(some @ some), 1e-9)
        line = colours + np.outer(gray - gray[kept].mean(), slopes)
        off = np.sqrt(((sample - line) ** 2).mean(axis=1))
        kept = off <= np.quantile(off, 0.7)
    return float(np.quantile(off, 0.8))


def _open(data: bytes) -> Image.Image:
    # Pillow warns where we refuse: the size is checked right after. The lock is there
    # because images are read in threads and the list of filters is everybody's.
    with _warning_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(io.BytesIO(data), formats=FORMATS)


def _check_depth(image: Image.Image, data: bytes, shown: str) -> None:
    """Refuse what costs too much, or has no black and white, before it is decoded."""
    if image.mode == "F" or (image.mode == "I" and image.format != "PNG"):
        raise ImageError(
            f"{shown} has 32 bits a pixel and so no fixed black and white: save it as 16 bit"
        )
    if image.format == "JPEG":
        scans = data.count(b"\xff\xda")
        if scans > MAX_SCANS:
            raise ImageError(
                f"{shown} is a JPEG of {scans} scans: at most {MAX_SCANS} are read; save it anew"
            )


def _to_gray(image: Image.Image, shown: str) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    deep = ";16" in str(getattr(image, "tile", ""))
    image.load()
    if image.mode.startswith("I"):
        # Pillow turns the 8-bit images of this kind itself.
        inverted = image.format == "TIFF" and image.tag_v2.get(262) == WHITE_IS_ZERO  # type: ignore[attr-defined]
        values = np.asarray(image).astype(np.uint16, copy=False)
        return eight_bits(values, shown, inverted=inverted)
    clear = "A" in image.mode or "transparency" in image.info
    gray = _flatten(image) if clear else np.asarray(image.convert("L"))
    # Of 16 bits in colour Pillow keeps the upper 8, of which an image of fewer has little.
    if deep and (gray > 127).mean() < 1 - ROBUST[1]:
        raise ImageError(
            f"{shown} uses fewer than its 16 bits and has channels of colour or transparency, "
            "of which only the upper 8 bits are read: export it as gray"
        )
    return gray, ()


def _colour(image: Image.Image) -> float | None:
    """Return how far an image lies off gray, seen in small; None for gray modes."""
    if image.mode not in ("RGB", "RGBA", "RGBX", "P", "PA", "CMYK", "YCbCr", "LAB", "HSV"):
        return None
    scale = min(1.0, COLOUR_SIDE_PX / max(image.size))
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    small = image.resize(size, Image.Resampling.NEAREST).convert("RGB")
    return colourfulness(np.asarray(small))


def _flatten(image: Image.Image) -> NDArray[np.uint8]:
    """Lay an image on black, a strip at a time: whole images of 4 bytes would be four at once."""
    gray = np.empty((image.height, image.width), np.uint8)
    rows = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        layer = image.crop((0, top, image.width, bottom)).convert("RGBA")
        black = Image.new("RGBA", layer.size, (0, 0, 0, 255))
        gray[top:bottom] = np.asarray(Image.alpha_composite(black, layer).convert("L"))
    return gray


def _upright(image: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Apply the EXIF orientation (Exif 2.3, tag 0x0112), 1 to 8; others mean upright."""
    if orientation not in range(2, 9):
        return image
    turned = image.T if orientation > 4 else image
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(turned[::rows, ::columns])
