"""Whether two films show the same exposure, by laying one on the other.

A film that was encoded, resized, brightened, cropped by a hair, mirrored or turned again is
a near copy; a second exposure of the same child is not.
N films, S side of their squares, P pairs, s side of a thumbnail, D = s * s.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from cxr.data.near import ORIENTATIONS, orient

_SIDES = (32, 64, 112)
"""Thumbnails in pixels, coarse to fine."""
_STEPS = (4, 2, 3)
"""Gauss-Newton steps on each; six on each changed no decision on 1,800 altered films."""
_COARSE_EXTRA = 0.05
_MIN_OVERLAP = 0.8

Matrix = NDArray[np.float32]
Vector = NDArray[np.float64]


def confirm_pairs(
    squares: NDArray[np.uint8], pairs: NDArray[np.int64], *, min_correlation: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Keep the pairs that show the same exposure by their pixels.

    The second film of a pair is turned as fits best, then laid on the first by a small
    affine motion, coarse before fine, so that another crop or resize of a film still fits
    while a second exposure of the same child does not.

    Args:
        squares: (N, S, S) uint8.
        pairs: (P, 2) int64 rows of ``squares``.
        min_correlation: lowest correlation of a copy, up to 0.9; -2 only measures. Thumbnails must
            reach 0.05 more, since different children's agree more readily too.

    Returns:
        The kept pairs (Q, 2) in their order; the orientation (Q,) of the second film that
        fits the first, an index into ``ORIENTATIONS``; the correlation (Q,) of fine detail.
    """
    side = _SIDES[0]
    rows, places = np.unique(pairs, return_inverse=True)
    places = places.reshape(pairs.shape)
    # float16 keeps 2 kB per film, so that films of many pairs are shrunk once.
    coarse = np.empty((len(rows), side, side), np.float16)
    for start in range(0, len(rows), 256):
        coarse[start : start + 256] = _detail(squares, rows[start : start + 256], side)
    kept, turns, values = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [np.empty(0)]
    for start in range(0, len(pairs), 256):
        first, second = (coarse[at].astype(np.float32) for at in places[start : start + 256].T)
        turn = _best_orientation(first, second)
        motion = np.zeros((len(turn), 6))
        motion, value = _align(first, _turned(second, turn), motion, steps=_STEPS[0])
        left = np.flatnonzero(value >= min_correlation + _COARSE_EXTRA)
        motion, value = motion[left], value[left]
        for finer, steps in zip(_SIDES[1:], _STEPS[1:], strict=True):
            couple = pairs[start + left]
            first, second = (_detail(squares, at, finer) for at in couple.T)
            motion, value = _align(first, _turned(second, turn[left]), motion, steps=steps)
            stay = value >= min_correlation
            left, value, motion = left[stay], value[stay], motion[stay]
        kept.append(start + left)
        turns.append(turn[left])
        values.append(value)
    return pairs[np.concatenate(kept)], np.concatenate(turns), np.concatenate(values)


def _detail(squares: NDArray[np.uint8], rows: NDArray[np.int64], side: int) -> Matrix:
    """Take what differs between films: detail without shading, at even local strength."""
    small = np.empty((len(rows), side, side), np.float32)
    for place, row in enumerate(rows):
        image = Image.fromarray(np.ascontiguousarray(squares[row]))
        small[place] = np.asarray(image.resize((side, side), Image.Resampling.BOX))
    detail = small - ndimage.gaussian_filter(small, (0, 4, 4), mode="nearest")
    power = ndimage.gaussian_filter(detail**2, (0, 8, 8), mode="nearest")
    # Two gray levels of floor keep a flat background's noise from counting as detail.
    detail /= np.sqrt(power) + 2
    detail -= detail.mean(axis=(1, 2), keepdims=True)
    spread = detail.std(axis=(1, 2), keepdims=True)
    return np.asarray(detail / np.maximum(spread, 1e-6), np.float32)


def _best_orientation(first: Matrix, second: Matrix) -> NDArray[np.int64]:
    """Return how to turn each second film so that it fits the first best as it lies."""
    fit = [
        np.einsum("pyx,pyx->p", first, orient(second, index)) for index in range(len(ORIENTATIONS))
    ]
    return np.asarray(np.stack(fit).argmax(axis=0), np.int64)


def _turned(films: Matrix, turns: NDArray[np.int64]) -> Matrix:
    turned = np.empty_like(films)
    for place, turn in enumerate(turns):
        turned[place] = orient(films[place], int(turn))
    return turned


def _align(first: Matrix, second: Matrix, motion: Vector, *, steps: int) -> tuple[Vector, Vector]:
    """Move second films onto the first; return the motions and the correlations there.

    A motion (shift of y, its stretch with y and shear with x, then the same of x, as parts
    of the side) follows from Gauss-Newton steps on the squared difference, with the gradient
    of the first film.

    Source: Hager, Belhumeur 1998, Efficient region tracking with parametric models of
    geometry and illumination.
    """
    side = first.shape[1]
    y, x = (axis.ravel() for axis in np.mgrid[:side, :side].astype(np.float32) / side - 0.5)
    basis = np.stack([np.ones_like(y), y, x])
    slopes = np.gradient(first, 1 / side, axis=(1, 2))
    jacobian = np.concatenate([slope.reshape(-1, 1, side**2) * basis for slope in slopes], axis=1)
    normal = jacobian @ jacobian.transpose(0, 2, 1)
    ridge = 1e-3 * np.trace(normal, axis1=1, axis2=2) / 6 + 1e-6
    normal += np.eye(6, dtype=np.float32) * ridge[:, None, None]
    fixed = first.reshape(-1, side**2)
    best, best_motion = np.full(len(first), -1.0), motion
    for _ in range(steps):
        shifts = motion.astype(np.float32).reshape(-1, 2, 3) @ basis
        moved, inside = _sample(second, (shifts + np.stack([y, x]) + 0.5) * side)
        value = _correlation(fixed, moved, inside)
        better = value > best
        best = np.where(better, value, best)
        best_motion = np.where(better[:, None], motion, best_motion)
        pull = jacobian @ ((fixed - moved) * inside)[:, :, None]
        motion = motion + np.linalg.solve(normal, pull)[:, :, 0]
    return best_motion, best


def _sample(films: Matrix, at: Matrix) -> tuple[Matrix, Matrix]:
    """Read films (P, s, s) between pixels at (P, 2, D), and where that lies inside (0 or 1)."""
    side = films.shape[1]
    inside = ((at >= 0) & (at <= side - 1)).all(axis=1).astype(np.float32)
    at = np.clip(at, 0, np.float32(side - 1.001))
    low = at.astype(np.int32)
    part = at - low.astype(np.float32)
    part_y, part_x = part[:, 0], part[:, 1]
    flat = films.ravel()
    corner = (np.arange(len(films), dtype=np.int32) * side**2)[:, None]
    corner = corner + low[:, 0] * side + low[:, 1]
    upper = flat[corner] * (1 - part_x) + flat[corner + 1] * part_x
    lower = flat[corner + side] * (1 - part_x) + flat[corner + side + 1] * part_x
    return upper * (1 - part_y) + lower * part_y, inside


def _correlation(first: Matrix, second: Matrix, inside: Matrix) -> Vector:
    """Correlate rows (P, D) where they overlap; -1 where too little does."""
    area = np.maximum(inside.sum(axis=1, keepdims=True), 1)
    first, second = (
        (rows - (rows * inside).sum(axis=1, keepdims=True) / area) * inside
        for rows in (first, second)
    )
    power = (first**2).sum(axis=1) * (second**2).sum(axis=1)
    value = (first * second).sum(axis=1) / np.sqrt(power + 1e-9)
    return np.where(inside.mean(axis=1) > _MIN_OVERLAP, value, -1).astype(np.float64)
