"""Whether two images show the same exposure, by laying one on the other.

An image that was encoded, resized, brightened, inverted, letterboxed, framed, written on, cropped,
rotated or mirrored again is a near copy; a second exposure of the same child is not.
N images, S side of their squares, P pairs, s side of a thumbnail, D = s * s.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cxr.data.near_duplicates import orient
from cxr.data.registration import VIEWS, Squares, best_views, describe, shrink

_SIDES = (32, 64, 112)
"""Thumbnails in pixels, coarse to fine."""
_BLOCKS = (4, 8, 7)
"""To a side of each thumbnail; their median forgives what covers less than half of an image."""
_STEPS = (8, 4, 3)
"""Gauss-Newton steps on each."""
_SLACK = (0.07, 0.04, 0.0)
"""Below the lowest correlation that a copy may fall on each thumbnail; of the altered copies
that `benchmarks/near_duplicates.py recall` makes, few fall further."""
_FIRM = 1.5
"""Difference, in standard deviations, beyond which a pixel pulls no harder: it was drawn over."""
_MIN_BLOCKS = 0.4
_BLANK = 0.05
"""Share of the mean power below which a block of both images is background."""
_BLOCK = 256

Matrix = NDArray[np.float32]
Vector = NDArray[np.float64]
_INVERSE = np.array([0, 3, 2, 1, 4, 5, 6, 7])
"""Of each of the ``ORIENTATIONS``."""


def confirm_pairs(
    squares: Squares,
    pairs: NDArray[np.int64],
    *,
    min_correlation: float,
    on_progress: Callable[[], None] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Keep the pairs (P, 2) of squares (N, S, S) that show the same exposure by their pixels.

    One image of a pair is laid on the other as the best view of it says, then by a small affine
    motion, coarse before fine, so that another crop or rotation of an image still fits while a
    second exposure of the same child does not. Bars at the border are cut off first. A
    ``min_correlation`` of -2 only measures.

    Returns:
        The kept pairs (Q, 2) in their order; the orientation (Q,) of the second image that
        fits the first, an index into ``ORIENTATIONS``; the correlation (Q,) of fine detail,
        the median over parts of the image.
    """
    rows, places = np.unique(pairs, return_inverse=True)
    places = places.reshape(pairs.shape).astype(np.int64)
    thumbs = describe(squares, rows=rows)
    ordered, view, likeness = best_views(thumbs, places)
    # float16 keeps 2 kB per image, so that images of many pairs are shrunk once.
    coarse = np.empty((len(rows), _SIDES[0], _SIDES[0]), np.float16)
    for start in range(0, len(rows), _BLOCK):
        coarse[start : start + _BLOCK] = _detail(squares, rows[start : start + _BLOCK], _SIDES[0])
    sign = np.where(likeness < 0, -1, 1).astype(np.float32)
    turn = np.array([orientation for orientation, _ in VIEWS])[view]
    motions = np.array([motion for _, motion in VIEWS])[view]
    kept, values = [np.empty(0, np.int64)], [np.empty(0)]
    for start in range(0, len(pairs), _BLOCK):
        left = np.arange(start, min(start + _BLOCK, len(pairs)))
        motion, value = motions[left], np.empty(len(left))
        for level, side in enumerate(_SIDES):
            fixed, moving = (
                coarse[at].astype(np.float32) if level == 0 else _detail(squares, rows[at], side)
                for at in ordered[left].T
            )
            moving = _turned(moving, turn[left]) * sign[left, None, None]
            motion, value = _align(fixed, moving, motion, _STEPS[level], _BLOCKS[level])
            stay = value >= min_correlation - _SLACK[level]
            left, value, motion = left[stay], value[stay], motion[stay]
        kept.append(left)
        values.append(value)
        for _ in range(len(pairs[start : start + _BLOCK]) if on_progress else 0):
            on_progress()  # type: ignore[misc]
    chosen = np.concatenate(kept)
    # The second image is the seen one or the target: the other way round is the inverse.
    swapped = ordered[chosen, 1] != places[chosen, 1]
    turn = np.where(swapped, _INVERSE[turn[chosen]], turn[chosen])
    return pairs[chosen], turn, np.concatenate(values)


def _detail(squares: Squares, rows: NDArray[np.int64], side: int) -> Matrix:
    """Take what differs between images: detail without shading, at even local strength."""
    small = shrink(squares, rows, side)
    detail = small - ndimage.gaussian_filter(small, (0, 4, 4), mode="nearest")
    power = ndimage.gaussian_filter(detail**2, (0, 8, 8), mode="nearest")
    # Two gray levels of floor keep a flat background's noise from counting as detail.
    detail /= np.sqrt(power) + 2
    detail -= detail.mean(axis=(1, 2), keepdims=True)
    spread = detail.std(axis=(1, 2), keepdims=True)
    return np.asarray(detail / np.maximum(spread, 1e-6), np.float32)


def _turned(images: Matrix, turns: NDArray[np.int64]) -> Matrix:
    turned = np.empty_like(images)
    for place, turn in enumerate(turns):
        turned[place] = orient(images[place], int(turn))
    return turned


def _align(
    first: Matrix, second: Matrix, motion: Vector, steps: int, blocks: int
) -> tuple[Vector, Vector]:
    """Move second images onto the first; return the motions and the correlations there.

    A motion (shift of y, its stretch with y and shear with x, then the same of x, as parts
    of the side) follows from Gauss-Newton steps on the difference, with the gradient of the
    first image; large differences weigh as Huber's loss has them.

    Source: Hager, Belhumeur 1998, Efficient region tracking with parametric models of
    geometry and illumination, with its section on occlusion.
    """
    side = first.shape[1]
    y, x = (axis.ravel() for axis in np.mgrid[:side, :side].astype(np.float32) / side - 0.5)
    basis = np.stack([np.ones_like(y), y, x])
    slopes = np.gradient(first, 1 / side, axis=(1, 2))
    jacobian = np.concatenate([slope.reshape(-1, 1, side**2) * basis for slope in slopes], axis=1)
    fixed = first.reshape(-1, side**2)
    best, best_motion = np.full(len(first), -1.0), motion
    for _ in range(steps):
        shifts = motion.astype(np.float32).reshape(-1, 2, 3) @ basis
        moved, inside = _sample(second, (shifts + np.stack([y, x]) + 0.5) * side)
        value = _correlation(fixed, moved, inside, blocks)
        better = value > best
        best = np.where(better, value, best)
        best_motion = np.where(better[:, None], motion, best_motion)
        residual = fixed - moved
        pull = jacobian * (inside / np.maximum(np.abs(residual) / _FIRM, 1))[:, None]
        normal = pull @ jacobian.transpose(0, 2, 1)
        ridge = 1e-3 * np.trace(normal, axis1=1, axis2=2) / 6 + 1e-6
        normal += np.eye(6, dtype=np.float32) * ridge[:, None, None]
        motion = motion + np.linalg.solve(normal, pull @ residual[:, :, None])[:, :, 0]
    return best_motion, best


def _sample(images: Matrix, at: Matrix) -> tuple[Matrix, Matrix]:
    """Read images (P, s, s) between pixels at (P, 2, D), and where that lies inside (0 or 1)."""
    side = images.shape[1]
    inside = ((at >= 0) & (at <= side - 1)).all(axis=1).astype(np.float32)
    at = np.clip(at, 0, np.float32(side - 1.001))
    low = at.astype(np.int32)
    part = at - low.astype(np.float32)
    part_y, part_x = part[:, 0], part[:, 1]
    flat = images.ravel()
    corner = (np.arange(len(images), dtype=np.int32) * side**2)[:, None]
    corner = corner + low[:, 0] * side + low[:, 1]
    upper = flat[corner] * (1 - part_x) + flat[corner + 1] * part_x
    lower = flat[corner + side] * (1 - part_x) + flat[corner + side + 1] * part_x
    return upper * (1 - part_y) + lower * part_y, inside


def _correlation(first: Matrix, second: Matrix, inside: Matrix, blocks: int) -> Vector:
    """Correlate rows (P, D) block by block and take the median; -1 where too few blocks tell."""
    side = round(first.shape[1] ** 0.5)
    tile = side // blocks

    def total(values: Matrix) -> Vector:
        parts = values.reshape(-1, blocks, tile, blocks, tile)
        sums = parts.sum(axis=(2, 4), dtype=np.float64)
        return np.asarray(sums.reshape(len(values), blocks**2))

    area = total(inside)
    one, other = first * inside, second * inside
    size = np.maximum(area, 1)
    mean, mean_other = total(one) / size, total(other) / size
    power = total(one * first) / size - mean**2
    power_other = total(other * second) / size - mean_other**2
    shared = total(one * second) / size - mean * mean_other
    value = shared / np.sqrt(np.maximum(power, 1e-3) * np.maximum(power_other, 1e-3))
    told = (area > tile**2 / 2) & (np.maximum(power, power_other) > _BLANK)
    enough = told.mean(axis=1) >= _MIN_BLOCKS
    ranked = np.sort(np.where(told, value, np.inf), axis=1)
    middle = np.maximum(told.sum(axis=1) - 1, 0) // 2
    median = np.take_along_axis(ranked, middle[:, None], axis=1)[:, 0]
    return np.where(enough, median, -1.0)
