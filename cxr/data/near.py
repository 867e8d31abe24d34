"""Near-identical films: perceptual hashes, their search, and the proof on pixels.

A film that was encoded, resized, brightened, cropped by a hair, mirrored or turned again is
a near copy. Chest films all look alike, so that hashes only propose pairs and pixels decide.
N films, S side of their squares, P pairs.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import fft, ndimage

from cxr.errors import InputError

ORIENTATIONS = (
    *("upright", "turned 90", "turned 180", "turned 270"),
    *("mirrored", "mirrored, turned 90", "mirrored, turned 180", "mirrored, turned 270"),
)
"""The eight flips and right-angle rotations; turns are counter-clockwise, after mirroring."""

HASH_BITS = 64
MAX_PAIRS = 50_000_000
"""Beyond this many pairs (800 MB) the hashes tell nothing apart."""
BLOCK_PAIRS = 1 << 21
"""Pairs compared at once, which bounds memory at some 100 MB."""
_SIDES, _STEPS = (32, 64, 112), (4, 2, 3)
_COARSE_EXTRA = 0.05
_MIN_OVERLAP = 0.8
_MAX_KEY_BITS = 24

Matrix = NDArray[np.float32]
Vector = NDArray[np.float64]


def orient(images: NDArray[Any], index: int) -> NDArray[Any]:
    """Return square images (..., S, S) in one of the ``ORIENTATIONS``, as a view."""
    return np.rot90(images[..., ::-1] if index >= 4 else images, index % 4, axes=(-2, -1))


def perceptual_hashes(
    squares: NDArray[np.uint8], *, on_progress: Callable[[], None] | None = None
) -> NDArray[np.uint64]:
    """Hash the eight orientations of each film.

    The film is shrunk once; its orientations are exact permutations of the small image.

    Args:
        squares: (N, S, S) uint8.
        on_progress: called after each film.

    Returns:
        (N, 8) uint64, in the order of ``ORIENTATIONS``: which of the 8 x 8 lowest cosine
        coefficients of the 32 x 32 image lie above their median, first bit uppermost.

    Source: phash of the imagehash library, hash_size 8 and highfreq_factor 4.
    """
    small = np.empty((len(squares), 32, 32), np.uint8)
    for row, square in enumerate(squares):
        image = Image.fromarray(np.ascontiguousarray(square))
        small[row] = np.asarray(image.resize((32, 32), Image.Resampling.LANCZOS))
        if on_progress:
            on_progress()
    hashes = np.empty((len(squares), len(ORIENTATIONS)), np.uint64)
    for column in range(len(ORIENTATIONS)):
        stack = orient(small, column)
        for start in range(0, len(stack), 4096):
            waves = fft.dctn(stack[start : start + 4096].astype(np.float64), axes=(1, 2))
            low = waves[:, :8, :8].reshape(-1, HASH_BITS)
            bits = low > np.median(low, axis=1, keepdims=True)
            packed = np.packbits(bits, axis=1).view(">u8")[:, 0]
            hashes[start : start + 4096, column] = packed
    return hashes


def near_pairs(hashes: NDArray[np.uint64], *, max_distance: int) -> NDArray[np.int64]:
    """Find the pairs whose hashes differ in few bits, whichever way one film is turned.

    By the pigeonhole principle, hashes cut into m chunks that differ in at most d bits agree
    in m - d chunks: for each choice of m - d chunks, films are bucketed by these bits, and
    only films of a bucket are compared. m grows with N, so that buckets stay small.

    Args:
        hashes: (N, 8) uint64, column 0 the film as it is.
        max_distance: most bits in which a pair differs, 0 to 12.

    Returns:
        (P, 2) int64, first below second, sorted: column 0 of one film lies within
        ``max_distance`` of any column of the other.

    Raises:
        InputError: ``max_distance`` out of range, or more than ``MAX_PAIRS`` pairs.

    Source: Norouzi, Punjani, Fleet 2012, Fast search in Hamming space with multi-index
    hashing, with several chunks per key.
    """
    if not 0 <= max_distance <= 12:
        raise InputError(f"max_distance is {max_distance}: allowed are 0 to 12 bits")
    count = len(hashes)
    if count < 2:
        return np.empty((0, 2), np.int64)
    chunks, agreeing = _choose_chunks(count, max_distance)
    masks = _chunk_masks(hashes[:, 0], chunks)
    turned = np.ascontiguousarray(hashes.T).ravel()
    found = np.empty(0, np.int64)
    fresh: list[NDArray[np.int64]] = []
    for chosen in itertools.combinations(masks, agreeing):
        # Fewer bits than agree only widen the buckets, and keep their table small.
        bits = np.concatenate(chosen)[:_MAX_KEY_BITS]
        for first, second in _same_bucket(_keys(hashes[:, 0], bits), _keys(turned, bits)):
            close = np.bitwise_count(hashes[first, 0] ^ turned[second]) <= max_distance
            one, other = first[close], second[close] % count
            one, other = np.minimum(one, other), np.maximum(one, other)
            fresh.append((one * count + other)[one < other])
            if sum(map(len, fresh)) > len(found) + BLOCK_PAIRS:
                found, fresh = np.unique(np.concatenate([found, *fresh])), []
                _check_pair_count(len(found), max_distance)
    found = np.unique(np.concatenate([found, *fresh]))
    _check_pair_count(len(found), max_distance)
    return np.stack([found // count, found % count], axis=1)


def _check_pair_count(pairs: int, max_distance: int) -> None:
    if pairs > MAX_PAIRS:
        raise InputError(
            f"over {MAX_PAIRS:,} pairs of films lie within {max_distance} bits: most films "
            "look the same; remove blank ones or lower data.near_distance"
        )


def _choose_chunks(count: int, max_distance: int) -> tuple[int, int]:
    """Return the number of chunks and how many must agree, by least expected work."""
    best, choice = math.inf, (0, 0)
    for agreeing in range(1, 6):
        chunks = max_distance + agreeing
        key_bits = min(HASH_BITS * agreeing // chunks, _MAX_KEY_BITS)
        # Films share bits: by measurement a bucket holds as if a fifth of the bits were void.
        compared = 8 * count**2 / 2 ** (0.8 * key_bits)
        work = math.comb(chunks, agreeing) * (8 * count * key_bits + 2**key_bits + 8 * compared)
        if work < best:
            best, choice = work, (chunks, agreeing)
    return choice


def _chunk_masks(upright: NDArray[np.uint64], chunks: int) -> list[NDArray[np.int64]]:
    """Deal the bits to chunks, the most telling first, so that no chunk is uninformative."""
    bits = np.arange(HASH_BITS)
    share = np.array([((upright >> np.uint64(bit)) & np.uint64(1)).mean() for bit in bits])
    order = np.argsort(np.abs(share - 0.5), kind="stable")
    return [order[chunk::chunks] for chunk in range(chunks)]


def _keys(hashes: NDArray[np.uint64], bits: NDArray[np.int64]) -> NDArray[np.int64]:
    keys = np.zeros(len(hashes), np.uint64)
    for place, bit in enumerate(bits):
        keys |= ((hashes >> np.uint64(bit)) & np.uint64(1)) << np.uint64(place)
    return keys.astype(np.int64)


def _same_bucket(
    keys: NDArray[np.int64], asked: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield blocks of positions (in keys, in asked) with equal keys."""
    order = np.argsort(keys, kind="stable")
    sizes = np.bincount(keys, minlength=max(int(asked.max()), int(keys.max())) + 1)
    starts = np.cumsum(sizes) - sizes
    members = sizes[asked]
    hits = np.flatnonzero(members)
    members = members[hits]
    ends = np.cumsum(members)
    done = 0
    while done < len(hits):
        before = int(ends[done - 1]) if done else 0
        last = max(done + 1, int(np.searchsorted(ends, before + BLOCK_PAIRS, side="right")))
        many = members[done:last]
        offset = np.arange(many.sum()) - np.repeat(np.cumsum(many) - many, many)
        second = np.repeat(hits[done:last], many)
        yield order[np.repeat(starts[asked[hits[done:last]]], many) + offset], second
        done = last


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
    return np.stack(fit).argmax(axis=0)


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
