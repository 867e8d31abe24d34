"""Inputs that a linear model can have beside the image's findings: thumbnails, gray, file, size.

N images, S side of prepared pixels, s side of a thumbnail.
"""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, UnidentifiedImageError

Floats = NDArray[np.float64]

THUMB_PX = 16
RINGS = 2
"""Outer rings of a 16 x 16 thumbnail: an eighth of the side, where lungs seldom reach."""
BINS = 32
QUANT_COEFFICIENTS = 64
"""Entries of a JPEG quantisation table; they tell the encoder and its quality setting."""
FILE_COLUMNS = 4
_BLOCK = 256


def thumbnails(
    pixels: NDArray[np.uint8], rows: NDArray[np.int64], *, side_px: int = THUMB_PX
) -> NDArray[np.float32]:
    """Shrink images by averaging.

    Args:
        pixels: (M, S, S) uint8, may be a memory map.
        rows: (N,) which of them, in order.
        side_px: s.

    Returns:
        (N, s, s) float32, 0 to 255.
    """
    small = np.empty((len(rows), side_px, side_px), np.float32)
    for place, row in enumerate(rows):
        image = Image.fromarray(np.ascontiguousarray(pixels[row])).convert("F")
        small[place] = np.asarray(image.resize((side_px, side_px), Image.Resampling.BOX))
    return small


def outer_rings(thumbs: NDArray[np.float32], *, rings: int = RINGS) -> NDArray[np.float32]:
    """Return the outermost rings of thumbnails (N, s, s) as (N, values)."""
    border = np.ones(thumbs.shape[1:], bool)
    border[rings:-rings, rings:-rings] = False
    return np.asarray(thumbs[:, border])


def gray_spread(pixels: NDArray[np.uint8], rows: NDArray[np.int64]) -> Floats:
    """Return the mean and the standard deviation of each image's gray, (N, 2)."""
    found = [np.empty((0, 2))]
    for start in range(0, len(rows), _BLOCK):
        images = np.asarray(pixels[rows[start : start + _BLOCK]]).reshape(-1, pixels[0].size)
        found.append(np.stack([images.mean(axis=1), images.std(axis=1, dtype=np.float32)], axis=1))
    return np.concatenate(found)


def gray_histogram(pixels: NDArray[np.uint8], rows: NDArray[np.int64], bins: int = BINS) -> Floats:
    """Return the share of each image's pixels in equal bins of gray, (N, bins)."""
    shares = np.empty((len(rows), bins))
    for place, row in enumerate(rows):
        counts = np.bincount(np.asarray(pixels[row]).ravel(), minlength=256)
        shares[place] = counts.reshape(bins, -1).sum(axis=1) / pixels[row].size
    return shares


def original_size(width: ArrayLike, height: ArrayLike) -> Floats | None:
    """Return width, height and aspect of the originals, (N, 3), or None where one is unknown.

    Args:
        width: (N,) text of the prepared table.
        height: likewise.
    """
    try:
        sides = np.stack([np.asarray(width, np.float64), np.asarray(height, np.float64)], axis=1)
    except ValueError:
        return None
    if not np.isfinite(sides).all() or (sides <= 0).any():
        return None
    return np.column_stack([sides, sides[:, 0] / sides[:, 1]])


def file_traits(paths: list[Path], *, on_file: Callable[[], None] | None = None) -> Floats | None:
    """Return what an image's file tells before it is decoded, or None where one is missing.

    Args:
        paths: N files.
        on_file: called after each.

    Returns:
        (N, 4 + 64): bytes, bytes a pixel, whether it is JPEG, number of channels, and the
        first JPEG quantisation table (zeros where there is none).
    """
    found = np.zeros((len(paths), FILE_COLUMNS + QUANT_COEFFICIENTS))
    for place, path in enumerate(paths):
        try:
            size = path.stat().st_size
            with warnings.catch_warnings():
                # Only the header is read here, so a large image is no danger.
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                with Image.open(path) as image:
                    quantisation = getattr(image, "quantization", None) or {}
                    pixels, channels = image.width * image.height, len(image.getbands())
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
            return None
        found[place, :FILE_COLUMNS] = size, size / pixels, bool(quantisation), channels
        if quantisation:
            table = next(iter(quantisation.values()))[:QUANT_COEFFICIENTS]
            found[place, FILE_COLUMNS : FILE_COLUMNS + len(table)] = table
        if on_file:
            on_file()
    return found
