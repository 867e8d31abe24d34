"""Insertion and deletion: does the probability hang on what a map marks?

Pixels are uncovered, or covered, in the order of a map, and the probability of the class is
followed. N images, S side of prepared pixels, L fractions of the image.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, sobel

from cxr.errors import InputError

Maps = NDArray[np.float32]
Floats = NDArray[np.float64]
Predict = Callable[[NDArray[np.uint8]], Floats]
"""From (N, S, S) uint8 to (N,), the probability of the class explained on each image."""
Mode = Literal["insertion", "deletion"]

FRACTIONS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0)
"""Shares of the image, denser where the first pixels of an order decide."""
BLUR = 1 / 20
"""Standard deviation of the blur that insertion starts from, as a share of the side: ribs and
patches of disease are gone, the outline of the chest is not. Petsiuk et al. blur too, since
pieces of image on an even ground make edges that the image never had."""


def pixel_order(maps: Maps, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return each pixel's rank (N, S, S) by its map, 0 for the highest; equal ones at random."""
    flat = maps.reshape(len(maps), -1)
    ranks = np.empty(flat.shape, np.int64)
    for row, values in enumerate(flat):
        order = np.lexsort((rng.random(len(values)), -values))
        ranks[row, order] = np.arange(len(values))
    return ranks.reshape(maps.shape)


def perturbed(
    images: NDArray[np.uint8], ranks: NDArray[np.int64], fraction: float, mode: Mode
) -> NDArray[np.uint8]:
    """Cover (deletion) or uncover (insertion) the first share of the pixels by their ranks.

    Deletion puts the image's mean gray over them; insertion lays them on the blurred image; another
    mode is an InputError.
    """
    first = ranks < round(fraction * images[0].size)
    if mode == "deletion":
        mean_gray = np.rint(images.mean(axis=(1, 2), keepdims=True)).astype(np.uint8)
        return np.where(first, mean_gray, images)
    if mode == "insertion":
        return np.where(first, images, blurred(images))
    raise InputError(f"mode is {mode!r}: allowed are insertion, deletion")


def blurred(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the images blurred by ``BLUR``."""
    sigma = BLUR * images.shape[-1]
    smooth = gaussian_filter(images.astype(np.float32), (0, sigma, sigma))
    return np.asarray(np.rint(smooth), np.uint8)


def perturbation_curve(
    predict: Predict,
    images: NDArray[np.uint8],
    maps: Maps,
    mode: Mode,
    *,
    rng: np.random.Generator,
    fractions: tuple[float, ...] = FRACTIONS,
    ends: tuple[Floats, Floats] | None = None,
) -> Floats:
    """Follow a class's probability (N, L) while pixels are covered or uncovered, see ``perturbed``.

    ``maps`` (N, S, S), 0 and above, give the order, ``rng`` that of equal values; ``fractions``
    (L,) rise from 0 to 1; ``ends`` are what ``end_points`` returns, which no map changes.

    Raises:
        InputError: maps of other images, or fractions that do not rise from 0 to 1.

    Source: Petsiuk et al. 2018, RISE, section 4.2.
    """
    if maps.shape != images.shape:
        raise InputError(f"maps are {maps.shape}, images {images.shape}: use the same images")
    if fractions[0] != 0 or fractions[-1] != 1 or list(fractions) != sorted(set(fractions)):
        raise InputError(f"fractions are {fractions}: values rising from 0 to 1 are allowed")
    ranks = pixel_order(maps, rng)
    inner = [predict(perturbed(images, ranks, part, mode)) for part in fractions[1:-1]]
    first, last = ends or end_points(predict, images, mode)
    return np.stack([first, *inner, last], axis=1)


def end_points(predict: Predict, images: NDArray[np.uint8], mode: Mode) -> tuple[Floats, Floats]:
    """Return the probabilities (N,) at fractions 0 and 1, where the order does not count."""
    ranks = np.zeros(images.shape, np.int64)
    first, last = (predict(perturbed(images, ranks, part, mode)) for part in (0.0, 1.0))
    return first, last


def area_under(curves: Floats, fractions: tuple[float, ...] = FRACTIONS) -> Floats:
    """Return the area under each curve (N, L) by trapezia, (N,), 0 to 1."""
    return np.asarray(np.trapezoid(curves, fractions, axis=1), np.float64)


def edge_maps(images: NDArray[np.uint8]) -> Maps:
    """Return the length of the Sobel gradient (N, S, S), in which no network had a part."""
    gray = images.astype(np.float32)
    return np.asarray(np.hypot(sobel(gray, axis=1), sobel(gray, axis=2)), np.float32)


def to_cells(maps: Maps, cells: tuple[int, int]) -> Maps:
    """Average (N, S, S) maps over (h, w) cells, whose edges are rounded to pixels."""
    sums, sizes = maps.astype(np.float64), []
    for axis, (side, count) in enumerate(zip(maps.shape[1:], cells, strict=True), start=1):
        edges = np.rint(np.linspace(0, side, count + 1)).astype(int)
        sums = np.add.reduceat(sums, edges[:-1], axis=axis)
        sizes.append(np.diff(edges))
    return np.asarray(sums / np.outer(*sizes), np.float32)
