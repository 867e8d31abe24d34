"""Non-anatomical inputs of the baselines: gray, border, file, size; and thumbnails.

N images, F features, S side of prepared pixels, s side of a thumbnail.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, UnidentifiedImageError

from cxr.data.decode import ShowProgress, no_progress

Floats = NDArray[np.float64]
Pixels = NDArray[np.uint8]

GRAY, HISTOGRAM, BORDER, THUMBNAIL = "gray", "histogram", "border", "thumbnail"
SIZE, FILE = "size", "file"
WORDS = {
    GRAY: "mean and spread of gray",
    HISTOGRAM: "histogram, 32 bins",
    SIZE: "width, height, aspect of the original",
    FILE: "file size and compression",
    BORDER: "outer two rings of a 16 x 16 thumbnail",
    THUMBNAIL: "16 x 16 thumbnail",
}
"""Every input in the order shown, and what it is."""
UNSEEN = (SIZE, FILE)
"""Not in the pixels that a network gets: they tell that images came by different ways."""
THUMB_PX = 16
RINGS = 2
"""Outer rings of a 16 x 16 thumbnail: an eighth of the side, where lungs seldom reach."""
BINS = 32
QUANT_COEFFICIENTS = 64
"""Entries of a JPEG quantisation table; they tell the encoder and its quality setting."""
FILE_COLUMNS = 4
_BLOCK = 256


class Inputs(NamedTuple):
    """What the linear models are given: per input (N, F) features, or the reason why none."""

    features: dict[str, NDArray[np.floating]]
    missing: dict[str, str]


def read_inputs(
    pixels: Pixels,
    width: ArrayLike,
    height: ArrayLike,
    paths: list[Path],
    *,
    progress: ShowProgress = no_progress,
) -> Inputs:
    """Gather the non-anatomical inputs of N images, (N, S, S) uint8, and their original files.

    ``width`` and ``height`` are (N,) text of the table, of the originals.
    """
    rows = np.arange(len(pixels))
    thumbs = thumbnails(pixels, rows)
    features: dict[str, NDArray[np.floating]] = {
        GRAY: gray_spread(pixels, rows),
        HISTOGRAM: gray_histogram(pixels, rows),
        BORDER: outer_rings(thumbs),
        THUMBNAIL: thumbs.reshape(len(rows), -1),
    }
    missing = {}
    if (sizes := original_size(width, height)) is None:
        missing[SIZE] = "the manifest does not give every original's width and height"
    elif (sizes == sizes[0]).all():
        missing[SIZE] = "all originals have one size"
    else:
        features[SIZE] = sizes
    with progress("baselines: read the files' headers", len(paths)) as done:
        traits = file_traits(paths, on_file=done)
    if traits is None:
        missing[FILE] = "the original files are not at hand"
    elif (traits == traits[0]).all():
        missing[FILE] = "all files have one size and one compression"
    else:
        features[FILE] = traits
    return Inputs({name: features[name] for name in WORDS if name in features}, missing)


def thumbnails(pixels: Pixels, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Shrink rows of pixels (M, S, S) by averaging to (N, s, s) float32, 0 to 255."""
    small = np.empty((len(rows), THUMB_PX, THUMB_PX), np.float32)
    for place, row in enumerate(rows):
        image = Image.fromarray(np.ascontiguousarray(pixels[row])).convert("F")
        small[place] = np.asarray(image.resize((THUMB_PX, THUMB_PX), Image.Resampling.BOX))
    return small


def outer_rings(thumbs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the outermost ``RINGS`` of thumbnails (N, s, s) as (N, values)."""
    border = np.ones(thumbs.shape[1:], bool)
    border[RINGS:-RINGS, RINGS:-RINGS] = False
    return np.asarray(thumbs[:, border])


def gray_spread(pixels: Pixels, rows: NDArray[np.int64]) -> Floats:
    """Return the mean and the standard deviation of each image's gray, (N, 2)."""
    spread = np.empty((len(rows), 2))
    for start in range(0, len(rows), _BLOCK):
        images = np.asarray(pixels[rows[start : start + _BLOCK]]).reshape(-1, pixels[0].size)
        spread[start : start + _BLOCK, 0] = images.mean(axis=1)
        spread[start : start + _BLOCK, 1] = images.std(axis=1, dtype=np.float32)
    return spread


def gray_histogram(pixels: Pixels, rows: NDArray[np.int64]) -> Floats:
    """Return the share of each image's pixels in equal bins of gray, (N, ``BINS``)."""
    shares = np.empty((len(rows), BINS))
    for place, row in enumerate(rows):
        counts = np.bincount(np.asarray(pixels[row]).ravel(), minlength=256)
        shares[place] = counts.reshape(BINS, -1).sum(axis=1) / pixels[row].size
    return shares


def original_size(width: ArrayLike, height: ArrayLike) -> Floats | None:
    """Return width, height and aspect of the originals, (N, 3), or None where one is unknown."""
    try:
        sides = np.stack([np.asarray(width, np.float64), np.asarray(height, np.float64)], axis=1)
    except ValueError:
        return None
    if not np.isfinite(sides).all() or (sides <= 0).any():
        return None
    return np.column_stack([sides, sides[:, 0] / sides[:, 1]])


def file_traits(paths: list[Path], *, on_file: Callable[[], None] | None = None) -> Floats | None:
    """Return what an image's file tells before it is decoded, or None where one is missing.

    Returns:
        (N, 4 + 64): bytes, bytes a pixel, whether it is JPEG, number of channels, and the
        first JPEG quantisation table (zeros where there is none).
    """
    traits = np.zeros((len(paths), FILE_COLUMNS + QUANT_COEFFICIENTS))
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
        traits[place, :FILE_COLUMNS] = size, size / pixels, bool(quantisation), channels
        if quantisation:
            table = next(iter(quantisation.values()))[:QUANT_COEFFICIENTS]
            traits[place, FILE_COLUMNS : FILE_COLUMNS + len(table)] = table
        if on_file:
            on_file()
    return traits
