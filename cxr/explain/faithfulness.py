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
    """Rank each image's pixels by its map, the highest first, equal ones in random order.

    Args:
        maps: (N, S, S).
        rng: decides between equals, such as the zeros of a map.

    Returns:
        (N, S, S), 0 for the first pixel.
    """
    flat = maps.reshape(len(maps), -1)
    ranks = np.empty(flat.shape, np.int64)
    for row, values in enumerate(flat):
        order = np.lexsort((rng.random(len(values)), -values))
        ranks[row, order] = np.arange(len(values))
    return ranks.reshape(maps.shape)


def perturbed(
    images: NDArray[np.uint8], ranks: NDArray[np.int64], fraction: float, mode: Mode
) -> NDArray[np.uint8]:
    """Cover (deletion) or uncover (insertion) the first pixels of an order.

    Args:
        images: (N, S, S).
        ranks: (N, S, S), see ``pixel_order``.
        fraction: share of the pixels.
        mode: deletion puts the image's mean gray over them; insertion lays them on the
            blurred image.

    Raises:
        InputError: an unknown mode.
    """
    first = ranks < round(fraction * images[0].size)
    if mode == "deletion":
        return np.where(first, mean_gray(images), images)
    if mode == "insertion":
        return np.where(first, images, blurred(images))
    raise InputError(f"mode is {mode!r}: allowed are insertion, deletion")


def mean_gray(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return (N, 1, 1), each image's mean."""
    return np.asarray(np.rint(images.mean(axis=(1, 2), keepdims=True)), np.uint8)


def blurred(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the images blurred by ``BLUR``."""
    sigma = BLUR * images.shape[-1]
    return np.asarray(
        np.rint(gaussian_filter(images.astype(np.float32), (0, sigma, sigma))), np.uint8
    )


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
    """Follow a class's probability while pixels are covered or uncovered.

    Args:
        predict: the network or ensemble.
        images: (N, S, S).
        maps: (N, S, S), 0 and above.
        mode: see ``perturbed``.
        rng: decides between pixels of equal value.
        fractions: L, rising, from 0 to 1.
        ends: (N,) probabilities at fractions 0 and 1, which no map changes; spares two passes.

    Returns:
        (N, L).

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
    """Return the probabilities at fractions 0 and 1."""
    whole = predict(images)
    if mode == "deletion":
        return whole, predict(np.broadcast_to(mean_gray(images), images.shape))
    return predict(blurred(images)), whole


def area_under(curves: Floats, fractions: tuple[float, ...] = FRACTIONS) -> Floats:
    """Return the area under each curve (N, L) by trapezia, (N,), 0 to 1."""
    return np.asarray(np.trapezoid(curves, fractions, axis=1), np.float64)


def edge_maps(images: NDArray[np.uint8]) -> Maps:
    """Return the strength of edges, which no network had a part in.

    Args:
        images: (N, S, S).

    Returns:
        (N, S, S) float32, length of the Sobel gradient.
    """
    gray = images.astype(np.float32)
    return np.asarray(np.hypot(sobel(gray, axis=1), sobel(gray, axis=2)), np.float32)


def to_cells(maps: Maps, cells: tuple[int, int]) -> Maps:
    """Average (N, S, S) maps over a grid of (h, w) cells, as coarse as a network's map.

    Cells' edges are rounded to pixels.
    """
    row_edges = np.rint(np.linspace(0, maps.shape[1], cells[0] + 1)).astype(int)
    column_edges = np.rint(np.linspace(0, maps.shape[2], cells[1] + 1)).astype(int)
    sums = np.add.reduceat(
        np.add.reduceat(maps.astype(np.float64), row_edges[:-1], axis=1), column_edges[:-1], axis=2
    )
    sizes = np.outer(np.diff(row_edges), np.diff(column_edges))
    return np.asarray(sums / sizes, np.float32)
