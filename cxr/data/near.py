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
_COARSE_PX, _FINE_PX = 64, 112
_COARSE_GATE, _ALIGNED_GATE = 0.45, 0.75
_STEPS = 8
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
        bits = np.concatenate(chosen)
        for first, second in _same_bucket(_keys(hashes[:, 0], bits), _keys(turned, bits), count):
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
    best, choice = math.inf, (max_distance + 1, 1)
    for agreeing in range(1, 6):
        chunks = max_distance + agreeing
        key_bits = HASH_BITS * agreeing / chunks
        if key_bits > _MAX_KEY_BITS:
            break
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
    keys: NDArray[np.int64], asked: NDArray[np.int64], count: int
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

    Coarse detail chooses the orientation and passes over most pairs. The rest are laid on
    each other by a small affine motion, coarse before fine, so that another crop or resize
    of a film still fits while a second exposure of the same child does not.

    Args:
        squares: (N, S, S) uint8.
        pairs: (P, 2) int64 rows of ``squares``.
        min_correlation: lowest correlation of a copy, -1 to 1; -1 only measures.

    Returns:
        The kept pairs (Q, 2) in their order; the orientation (Q,) of the second film that
        fits the first, an index into ``ORIENTATIONS``; the correlation (Q,) of fine detail.
    """
    turns, coarse = _best_orientation(squares, pairs)
    gates = [min(gate, min_correlation) for gate in (_COARSE_GATE, _ALIGNED_GATE)]
    values = np.full(len(pairs), -np.inf)
    for place in np.flatnonzero(coarse >= gates[0]):
        rows = pairs[place]
        motion, value = np.zeros(6), -1.0
        for side, gate in ((_COARSE_PX, gates[1]), (_FINE_PX, min_correlation)):
            first, second = _detail(squares, rows, side)
            upright = np.ascontiguousarray(orient(second, int(turns[place])))
            motion, value = _align(first, upright, motion)
            if value < gate:
                break
        else:
            values[place] = value
    kept = values > -np.inf
    return pairs[kept], turns[kept], values[kept]


def _best_orientation(
    squares: NDArray[np.uint8], pairs: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the orientation of the second films that fits best as it lies, and how well."""
    rows, places = np.unique(pairs, return_inverse=True)
    places = places.reshape(pairs.shape)
    detail = np.empty((len(rows), _COARSE_PX, _COARSE_PX), np.float16)
    for start in range(0, len(rows), 256):
        detail[start : start + 256] = _detail(squares, rows[start : start + 256], _COARSE_PX)
    fit = np.empty((len(pairs), len(ORIENTATIONS)))
    for start in range(0, len(pairs), 512):
        first, second = (detail[at].astype(np.float32) for at in places[start : start + 512].T)
        for index in range(len(ORIENTATIONS)):
            turned = orient(second, index)
            fit[start : start + 512, index] = np.einsum("pyx,pyx->p", first, turned)
    return fit.argmax(axis=1), fit.max(axis=1, initial=-1) / _COARSE_PX**2


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


def _align(first: Matrix, second: Matrix, motion: Vector) -> tuple[Vector, float]:
    """Move the second film onto the first and return the motion and their correlation.

    The motion (shift, stretch and shear of y, then of x, as parts of the side) follows from
    Gauss-Newton steps on the squared difference, with the gradient of the first film.

    Source: Hager, Belhumeur 1998, Efficient region tracking with parametric models.
    """
    side = len(first)
    y, x = np.mgrid[:side, :side].astype(np.float32) / side - 0.5
    slope_y, slope_x = np.gradient(first, 1 / side)
    jacobian = np.stack([slope_y, slope_y * y, slope_y * x, slope_x, slope_x * y, slope_x * x])
    jacobian = jacobian.reshape(6, -1)
    normal = jacobian @ jacobian.T
    normal += np.eye(6) * (1e-3 * np.trace(normal) / 6 + 1e-6)
    best, best_motion = -1.0, motion
    for _ in range(_STEPS):
        at_y = y + motion[0] + motion[1] * y + motion[2] * x
        at_x = x + motion[3] + motion[4] * y + motion[5] * x
        place = (np.stack([at_y, at_x]) + 0.5) * side
        moved = ndimage.map_coordinates(second, place, order=1, mode="nearest")
        inside = ((place >= 0) & (place <= side - 1)).all(axis=0)
        if inside.mean() < _MIN_OVERLAP:
            break
        value = _correlation(first[inside], moved[inside])
        if value > best:
            best, best_motion = value, motion
        step = np.linalg.solve(normal, jacobian @ ((first - moved) * inside).ravel())
        motion = motion + step
        if np.abs(step).max() < 1e-4:
            break
    return best_motion, best


def _correlation(first: Matrix, second: Matrix) -> float:
    first, second = first - first.mean(), second - second.mean()
    power = float((first**2).sum()) * float((second**2).sum())
    return float((first * second).sum()) / math.sqrt(power) if power > 0 else 0.0
