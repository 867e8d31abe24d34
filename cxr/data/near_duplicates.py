"""Perceptual hashes of images, and the search for near ones.

Chest images all look alike, so that hashes only propose pairs, and ``overlay`` decides.
N images, S side of their squares, P pairs.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import fft

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
_MAX_KEY_BITS = 24


def orient(images: NDArray[Any], index: int) -> NDArray[Any]:
    """Return square images (..., S, S) in one of the ``ORIENTATIONS``, as a view."""
    return np.rot90(images[..., ::-1] if index >= 4 else images, index % 4, axes=(-2, -1))


def perceptual_hashes(
    squares: NDArray[np.uint8], *, on_progress: Callable[[], None] | None = None
) -> NDArray[np.uint64]:
    """Hash the eight orientations of each image.

    The image is shrunk once; its orientations are exact permutations of the small image.

    Args:
        squares: (N, S, S) uint8.
        on_progress: called after each image.

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
    """Find the pairs whose hashes differ in few bits, whichever way one image is turned.

    By the pigeonhole principle, hashes cut into m chunks that differ in at most d bits agree
    in m - d chunks: for each choice of m - d chunks, images are bucketed by these bits, and
    only images of a bucket are compared. m grows with N, so that buckets stay small.

    Args:
        hashes: (N, 8) uint64, column 0 the image as it is.
        max_distance: most bits in which a pair differs, 0 to 12.

    Returns:
        (P, 2) int64, first below second, sorted: column 0 of one image lies within
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
    turned = np.ascontiguousarray(hashes.T).ravel()
    codes = [_code(turned, bits) for bits in _chunk_bits(hashes[:, 0], chunks)]
    found = np.empty(0, np.int64)
    fresh: list[NDArray[np.int64]] = []
    for chosen in itertools.combinations(codes, agreeing):
        keys = _join(chosen, HASH_BITS // chunks + 1)
        for first, second in _same_bucket(keys[:count], keys):
            close = np.bitwise_count(turned[first] ^ turned[second]) <= max_distance
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
            f"over {MAX_PAIRS:,} pairs of images lie within {max_distance} bits: most images "
            "look the same; remove blank ones, or use data.near_duplicates=false"
        )


def _choose_chunks(count: int, max_distance: int) -> tuple[int, int]:
    """Return the number of chunks and how many must agree, by least expected work."""
    best, choice = math.inf, (0, 0)
    for agreeing in range(1, 6):
        chunks = max_distance + agreeing
        tables = math.comb(chunks, agreeing)
        key_bits = min(HASH_BITS * agreeing / chunks, _MAX_KEY_BITS)
        # Images share bits: by measurement a fifth of the bits tell nothing.
        compared = 8 * count**2 / 2 ** (0.8 * key_bits)
        work = tables * (8 * count + 2**key_bits + 2 * compared)
        if work < best:
            best, choice = work, (chunks, agreeing)
    return choice


def _chunk_bits(upright: NDArray[np.uint64], chunks: int) -> list[NDArray[np.int64]]:
    """Deal the bits to chunks, the most telling first, so that no chunk is uninformative."""
    bits = np.arange(HASH_BITS)
    share = np.array([((upright >> np.uint64(bit)) & np.uint64(1)).mean() for bit in bits])
    order = np.argsort(np.abs(share - 0.5), kind="stable")
    return [order[chunk::chunks] for chunk in range(chunks)]


def _code(hashes: NDArray[np.uint64], bits: NDArray[np.int64]) -> NDArray[np.uint32]:
    """Gather the chosen bits of each hash in a small number."""
    code = np.zeros(len(hashes), np.uint64)
    for place, bit in enumerate(bits[:_MAX_KEY_BITS]):
        code |= ((hashes >> np.uint64(bit)) & np.uint64(1)) << np.uint64(place)
    return code.astype(np.uint32)


def _join(codes: Sequence[NDArray[np.uint32]], width: int) -> NDArray[np.uint32]:
    """Join chunks to one key; bits beyond the limit only widen the buckets, so they go."""
    key = codes[0].copy()
    for place, code in enumerate(codes[1:], start=1):
        if place * width < _MAX_KEY_BITS:
            key |= code << np.uint32(place * width)
    return key & np.uint32(2**_MAX_KEY_BITS - 1)


def _same_bucket(
    keys: NDArray[np.uint32], asked: NDArray[np.uint32]
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
