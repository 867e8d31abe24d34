"""The images that look most alike, whichever way one was rotated, cropped, padded or inverted.

A perceptual hash forgives little more than another encoding. Here each image is seen through
some hundred windows (``VIEWS``) and compared with every other image as it is, by detail alone:
the sign of a correlation tells a negative. What comes nearest is a candidate, no more; laying
one image on the other (``superposition``) decides. N images, S side of their squares, P pairs,
T = 32 side of a thumbnail, D = T * T, V views.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from cxr.data.near_duplicates import ORIENTATIONS, orient

NEIGHBOURS = 2
"""Most alike images that become candidates, of every image as seen and as a target."""
MAX_COMPARED = 400_000_000
"""Ordered pairs of images (20,000 images, some five minutes); beyond, the hashes search alone."""
_SIDE = 32
_WINDOW = 0.76
"""Of the side: what is compared, so that frames and the corners of a rotated image are not."""
_SAMPLES = 16
_COMPONENTS = 96
_BLOCK = 1024
_PAIR_BLOCK = 1 << 15
_FLAT = 3.0
"""Standard deviation in gray levels below which a border row is a bar, JPEG noise included."""

Matrix = NDArray[np.float32]
Pairs = NDArray[np.int64]
Squares = NDArray[np.uint8] | Sequence[NDArray[np.uint8]]
"""(N, S, S) uint8, read one by one."""


def _motion(angle_deg: float, scale: float, shift: tuple[float, ...]) -> tuple[float, ...]:
    cos, sin = (float(scale * wave(np.deg2rad(angle_deg))) for wave in (np.cos, np.sin))
    return (shift[0], cos - 1, -sin, shift[1], sin, cos - 1)


_WINDOWS: tuple[tuple[float, float, tuple[float, ...]], ...] = (
    *((angle, scale, (0.0, 0.0)) for angle in (0, -10, -5, 5, 10) for scale in (1.0, 0.9, 0.8)),
    *((0, 0.9, shift) for shift in itertools.product((-0.05, 0.05), repeat=2)),
    (0, 0.7, (0.0, 0.0)),
)
_SAME_SIZE = [index for index, window in enumerate(_WINDOWS) if window[1] == 1]
VIEWS = tuple(
    (orientation, _motion(*window))
    for orientation in range(len(ORIENTATIONS))
    for window in _WINDOWS
)
"""Windows on an image: an index into ``ORIENTATIONS``, applied first, and a motion (shift of y, its
part of y and of x less one's own, then the same of x), in parts of the side."""


def without_bars(square: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Cut rows and columns of one gray off the border (S, S), as letterboxes and frames leave them.

    The whole image is kept where less than a quarter would be left of a side.
    """
    border = (square[0], square[-1], square[:, 0], square[:, -1])
    if all(line.std() > _FLAT for line in border):
        return square
    cut = []
    for axis in (0, 1):
        busy = np.flatnonzero(square.std(axis=1 - axis) > _FLAT)
        most = len(busy) and busy[-1] + 1 - busy[0] >= len(square) // 4
        cut.append(slice(int(busy[0]), int(busy[-1]) + 1) if most else slice(None))
    return square[cut[0], cut[1]]


def shrink(squares: Squares, rows: NDArray[np.int64], side: int) -> Matrix:
    """Resize the chosen rows of (N, S, S) images, without their bars, to (M, side, side)."""
    small = np.empty((len(rows), side, side), np.float32)
    for place, row in enumerate(rows):
        image = Image.fromarray(np.ascontiguousarray(without_bars(squares[row])))
        small[place] = np.asarray(image.resize((side, side), Image.Resampling.BOX))
    return small


def describe(squares: Squares, *, rows: NDArray[np.int64] | None = None) -> Matrix:
    """Shrink images (M, S, S), of which ``rows`` or all, without their bars, to local detail.

    Returns:
        (N, D) float32 within 2.5 of 0; the negative of an image has the negative values.
    """
    small = shrink(squares, np.arange(len(squares)) if rows is None else rows, _SIDE)
    fine, coarse = (
        ndimage.gaussian_filter(small, (0, width, width), mode="nearest") for width in (0.5, 2)
    )
    detail = fine - coarse
    power = ndimage.gaussian_filter(detail**2, (0, 4, 4), mode="nearest")
    # Two gray levels of floor keep a flat background's noise from counting as detail.
    level = np.clip(detail / (np.sqrt(power) + 2), -2.5, 2.5)
    return np.asarray(level.reshape(len(small), -1), np.float32)


def alike_pairs(
    thumbs: Matrix,
    *,
    apart: NDArray[Any] | None = None,
    on_progress: Callable[[], None] | None = None,
) -> Pairs:
    """Pair each image with those that look most alike through any view.

    Every view of every image (N, D), of ``describe``, is compared with every image as it is, so
    time grows with the square of N, and memory with N. With ``apart`` (N,) only images that differ
    in it are paired. ``on_progress`` is called after each image.

    Returns:
        (P, 2), first below second, sorted; none beyond ``MAX_COMPARED``.
    """
    count = len(thumbs)
    if count < 2 or count**2 > MAX_COMPARED:
        return np.empty((0, 2), np.int64)
    looks = [_sampling(view) for view in VIEWS]
    whiten = _whitening(thumbs @ looks[0])
    looks = [look @ whiten for look in looks]
    plain = _unit(thumbs @ looks[0])
    found, scores, sources = [], [], []
    for start in range(0, count, _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, count))
        mine, score = thumbs[rows], np.zeros((len(rows), count), np.float32)
        for look in looks:
            likeness = _unit(mine @ look) @ plain.T
            np.maximum(score, np.abs(likeness, out=likeness), out=score)
        score[np.arange(len(rows)), rows] = -1
        if apart is not None:
            score[apart[rows][:, None] == apart] = -1
        targets, score_targets = _highest(score, axis=1)
        found.append(_joined(rows[:, None], targets, score_targets))
        places, score_sources = _highest(score, axis=0)
        scores.append(score_sources)
        sources.append(rows[places])
        for _ in rows if on_progress else ():
            on_progress()  # type: ignore[misc]
    best, score_best = _highest(np.concatenate(scores), axis=0)
    seen = np.take_along_axis(np.concatenate(sources), best, axis=0)
    found.append(_joined(seen, np.arange(count), score_best))
    return np.unique(np.sort(np.concatenate(found), axis=1), axis=0)


def best_views(thumbs: Matrix, pairs: Pairs) -> tuple[Pairs, NDArray[np.int64], Matrix]:
    """Find through which view one image of a pair (P, 2) looks most like the other.

    Returns:
        The pairs as (target, seen through the view); the view's index (P,); the correlation
        (P,), below 0 for a negative.
    """
    looks = [_sampling(view) for view in VIEWS]
    plain = _unit(thumbs @ looks[0])
    best = np.zeros(len(pairs), np.float32)
    view, ordered = np.zeros(len(pairs), np.int64), pairs.copy()
    for index, look in enumerate(looks):
        seen = _unit(thumbs @ look)
        for start in range(0, len(pairs), _PAIR_BLOCK):
            block = slice(start, start + _PAIR_BLOCK)
            # A view of the same size is the inverse of another, so one way will do.
            ways = (pairs[block], pairs[block, ::-1])
            for way in ways[: 1 if index % len(_WINDOWS) in _SAME_SIZE else 2]:
                score = np.einsum("pd,pd->p", plain[way[:, 0]], seen[way[:, 1]])
                better = start + np.flatnonzero(np.abs(score) > np.abs(best[block]))
                best[better], view[better] = score[better - start], index
                ordered[better] = way[better - start]
    return ordered, view, best


def _sampling(view: tuple[int, tuple[float, ...]]) -> Matrix:
    """Return (D, n): what reads a thumbnail between pixels on the view's grid, less the mean."""
    grid = ((np.arange(_SAMPLES) + 0.5) / _SAMPLES - 0.5) * _WINDOW
    y, x = (axis.ravel() for axis in np.meshgrid(grid, grid, indexing="ij"))
    orientation, motion = view[0], np.reshape(view[1], (2, 3))
    at = (motion @ np.stack([np.ones_like(y), y, x]) + np.stack([y, x]) + 0.5) * _SIDE - 0.5
    at = np.clip(at, 0, _SIDE - 1.001)
    low = at.astype(np.int64)
    part = at - low
    read = np.zeros((_SIDE, _SIDE, len(y)), np.float32)
    for down, right in itertools.product((0, 1), repeat=2):
        weight = np.abs(1 - down - part[0]) * np.abs(1 - right - part[1])
        read[low[0] + down, low[1] + right, np.arange(len(y))] = weight
    # An orientation moves pixels; its inverse on the weights is the same on the image.
    place = orient(np.arange(_SIDE**2).reshape(_SIDE, _SIDE), orientation).ravel()
    turned = np.empty((_SIDE**2, len(y)), np.float32)
    turned[place] = read.reshape(_SIDE**2, -1)
    return np.asarray(turned - turned.mean(axis=1, keepdims=True), np.float32)


def _whitening(seen: Matrix) -> Matrix:
    """Return (n, c): what all images share counts less, without a mean so that signs stay."""
    power, axes = np.linalg.eigh(seen.T @ seen / len(seen))
    power, axes = power[::-1][:_COMPONENTS], axes[:, ::-1][:, :_COMPONENTS]
    scale = np.sqrt(np.maximum(power, 0) + 0.3 * power.mean() + 1e-12)
    return np.asarray(axes / scale, np.float32)


def _unit(rows: Matrix) -> Matrix:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(length, 1e-6), np.float32)


def _highest(scores: Matrix, *, axis: int) -> tuple[NDArray[np.int64], Matrix]:
    """Return where the ``NEIGHBOURS`` highest scores lie along an axis, in no order, and these."""
    count = min(NEIGHBOURS, scores.shape[axis])
    place = np.argpartition(-scores, count - 1, axis=axis).take(np.arange(count), axis=axis)
    return place, np.take_along_axis(scores, place, axis=axis)


def _joined(first: NDArray[np.int64], second: NDArray[np.int64], scores: Matrix) -> Pairs:
    """Join rows and partners to (P, 2), less those that must not be paired (below 0)."""
    return np.stack(np.broadcast_arrays(first, second), axis=-1)[scores >= 0]
