"""The trivial inputs of test 2, gathered for every image, with what cannot be had.

N images, F features, S side of prepared pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cxr.audit.traits import (
    file_traits,
    gray_histogram,
    gray_spread,
    original_size,
    outer_rings,
    thumbnails,
)
from cxr.data.decode import ShowProgress, no_progress

GRAY, HISTOGRAM = "mean and spread of gray", "histogram, 32 bins"
BORDER, THUMBNAIL = "outer two rings of a 16 x 16 thumbnail", "16 x 16 thumbnail"
SIZE, FILE = "width, height, aspect of the original", "file size and compression"
TRIVIAL = (GRAY, HISTOGRAM, SIZE, FILE, BORDER, THUMBNAIL)
"""In the order shown."""
UNSEEN = (SIZE, FILE)
"""Not in the pixels that a network gets: they tell that images came by different ways."""


@dataclass(frozen=True)
class Inputs:
    """What the linear models are given.

    Attributes:
        features: per name (N, F), for all images.
        missing: per name that cannot be had, the reason.
    """

    features: dict[str, NDArray[np.floating]]
    missing: dict[str, str]


def read_inputs(
    pixels: NDArray[np.uint8],
    width: ArrayLike,
    height: ArrayLike,
    *,
    root: Path,
    names: Sequence[str],
    progress: ShowProgress = no_progress,
) -> Inputs:
    """Gather the trivial inputs of every image.

    Args:
        pixels: (N, S, S) uint8.
        width: (N,) text of the table, of the originals.
        height: likewise.
        root: folder of the original files.
        names: (N,) paths below it.
        progress: see ``ShowProgress``.
    """
    rows = np.arange(len(pixels))
    thumbs = thumbnails(pixels, rows)
    found: dict[str, NDArray[np.floating]] = {
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
        found[SIZE] = sizes
    with progress("baselines: read the files' headers", len(names)) as done:
        traits = file_traits([root / name for name in names], on_file=done)
    if traits is None:
        missing[FILE] = "the original files are not at hand"
    elif (traits == traits[0]).all():
        missing[FILE] = "all files have one size and one compression"
    else:
        found[FILE] = traits
    return Inputs({name: found[name] for name in TRIVIAL if name in found}, missing)
