"""Files to gray pixels, with what a file may not be.

JPEG, PNG and TIFF of 8 or 16 bits, palette, alpha and EXIF orientation. H W pixels.
"""

import io
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from cxr.errors import InputError, MissingInputError

MIN_SIDE_PX = 32
"""Below this side nothing of a chest film is left to see."""
MAX_PIXELS = 100_000_000
"""Largest film accepted: ten times a detector's 3,000 x 3,000, and no decompression bomb."""
SUFFIXES = (".jpeg", ".jpg", ".png", ".tif", ".tiff")
"""File name endings that count as films."""
FORMATS = ("JPEG", "PNG", "TIFF")


class ImageError(InputError):
    """A file that is no usable film; the message names it."""


def read_gray(source: Path | bytes, *, name: str | None = None) -> NDArray[np.uint8]:
    """Decode a film to gray.

    Args:
        source: a path or the file's bytes.
        name: what errors call the film; the path by default.

    Returns:
        (H, W) uint8, 0 black. Colours are weighted as ITU-R 601 luma, 16-bit values keep
        their upper 8 bits, transparency is laid on black.

    Raises:
        MissingInputError: no file at the path.
        ImageError: not a JPEG, PNG or TIFF, truncated, under 32 pixels on a side or over
            100 megapixels.
    """
    shown = name or (str(source) if isinstance(source, Path) else "the uploaded bytes")
    try:
        with warnings.catch_warnings():
            # Pillow warns where we refuse: the size is checked right below.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            stream = source if isinstance(source, Path) else io.BytesIO(source)
            with Image.open(stream, formats=FORMATS) as image:
                _check_size(image.width, image.height, shown)
                return _to_gray(image, shown)
    except FileNotFoundError:
        raise MissingInputError(
            f"no image at {shown}: mend the manifest's path, or restore the file"
        ) from None
    except UnidentifiedImageError:
        raise ImageError(
            f"{shown} is no image: JPEG, PNG and TIFF are read; remove it, or skip such "
            "files with data.on_error=skip"
        ) from None
    except Image.DecompressionBombError:
        raise ImageError(
            f"{shown} has over {MAX_PIXELS // 1_000_000} megapixels: scale it down"
        ) from None
    except (OSError, SyntaxError, EOFError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise ImageError(
            f"{shown} cannot be decoded ({_one_line(error)}): restore it, or skip such files "
            "with data.on_error=skip"
        ) from None


def _check_size(width: int, height: int, shown: str) -> None:
    if min(width, height) < MIN_SIDE_PX:
        raise ImageError(
            f"{shown} is {width} x {height} pixels: at least {MIN_SIDE_PX} x {MIN_SIDE_PX} "
            "are needed; use the original film"
        )
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"{shown} is {width} x {height} pixels: at most {MAX_PIXELS // 1_000_000} "
            "megapixels are read; scale it down"
        )


def _to_gray(image: Image.Image, shown: str) -> NDArray[np.uint8]:
    image.load()
    upright = ImageOps.exif_transpose(image)
    if upright.mode in ("I;16", "I;16B", "I;16L"):
        return np.asarray(np.asarray(upright).astype(np.uint16) >> 8, np.uint8)
    if upright.mode in ("I", "F"):
        raise ImageError(
            f"{shown} has 32 bits a pixel and so no fixed black and white: save it as 16 bit"
        )
    if "A" in upright.mode or "transparency" in upright.info:
        layered = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", layered.size, (0, 0, 0, 255)), layered)
    return np.asarray(upright.convert("L"))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
