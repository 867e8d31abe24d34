"""Perceptual hashes of images, and the search for near ones.

Chest images all look alike, so that hashes only propose pairs, and ``superposition`` decides.
N images, S side of their squares, P pairs.
"""

import logging
import os
from collections.abc import Iterator, Sequence
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
MAX_NUMPY_IMAGES = 2_000
"""Up to here numpy compares all hashes in the time that faiss takes to be imported, 0.1 s."""
_FAISS_RESULTS = 1 << 25
"""Most that one search may find, 400 MB: of blank images each has all as neighbours."""


def orient(images: NDArray[Any], index: int) -> NDArray[Any]:
    """Return square images (..., S, S) in one of the ``ORIENTATIONS``, as a view."""
    return np.rot90(images[..., ::-1] if index >= 4 else images, index % 4, axes=(-2, -1))


def perceptual_hashes(
    squares: NDArray[np.uint8] | Sequence[NDArray[np.uint8]],
) -> NDArray[np.uint64]:
    """Hash the eight orientations of each image (N, S, S), the first of them as it is.

    Returns:
        (N, 8) uint64, in the order of ``ORIENTATIONS``: which of the 8 x 8 lowest cosine
        coefficients of the 32 x 32 image lie above their median, first bit uppermost.

    Source: phash of the imagehash library, hash_size 8 and highfreq_factor 4.
    """
    small = np.empty((len(squares), 32, 32), np.uint8)
    for row, square in enumerate(squares):
        image = Image.fromarray(np.ascontiguousarray(square))
        small[row] = np.asarray(image.resize((32, 32), Image.Resampling.LANCZOS))
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
    """Find the pairs whose hashes (N, 8) differ in few bits, whichever way one image is rotated.

    Returns:
        (P, 2) int64, first below second, sorted: column 0 of one image lies within
        ``max_distance``, 0 to 12 bits, of any column of the other.

    Raises:
        InputError: ``max_distance`` out of range, or more than ``MAX_PAIRS`` pairs.
    """
    if not 0 <= max_distance <= 12:
        raise InputError(f"max_distance is {max_distance}: allowed are 0 to 12 bits")
    count = len(hashes)
    search = _search_numpy if count <= MAX_NUMPY_IMAGES else _search_faiss
    keys = np.empty(0, np.int64)
    fresh: list[NDArray[np.int64]] = []
    for rows, others in search(np.ascontiguousarray(hashes), max_distance):
        first, second = np.minimum(rows, others), np.maximum(rows, others)
        fresh.append((first * count + second)[first < second])
        if sum(map(len, fresh)) > len(keys) + BLOCK_PAIRS:
            keys, fresh = np.unique(np.concatenate([keys, *fresh])), []
            _check_pair_count(len(keys), max_distance)
    keys = np.unique(np.concatenate([keys, *fresh]))
    _check_pair_count(len(keys), max_distance)
    return np.stack(np.divmod(keys, max(count, 1)), axis=1)


def _search_numpy(
    hashes: NDArray[np.uint64], max_distance: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield rows, and the images as they are that lie near one of each row's columns."""
    step = max(1, BLOCK_PAIRS // max(hashes.size, 1))
    for start in range(0, len(hashes), step):
        distances = np.bitwise_count(hashes[start : start + step, :, None] ^ hashes[:, 0])
        rows, others = np.nonzero((distances <= max_distance).any(axis=1))
        yield start + rows, others


def _search_faiss(
    hashes: NDArray[np.uint64], max_distance: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Do what ``_search_numpy`` does; where several columns are near, a pair comes several times.

    Exact: faiss-cpu (MIT), IndexBinaryFlat. Its buckets (IndexBinaryMultiHash) took 1.4 times as
    long on 200,000 hashes of images.
    """
    # Imported here: few sets are so large, and it starts threads of its own beside torch's.
    # It says at length which of its builds it could not load.
    logging.getLogger("faiss.loader").setLevel(logging.WARNING)
    import faiss

    index = faiss.IndexBinaryFlat(HASH_BITS)
    index.add(np.ascontiguousarray(hashes[:, 0]).view(np.uint8).reshape(-1, HASH_BITS // 8))
    step = max(1, _FAISS_RESULTS // hashes.size)
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(min(threads, os.cpu_count() or 1))
    try:
        for start in range(0, len(hashes), step):
            queries = hashes[start : start + step].reshape(-1).view(np.uint8)
            # faiss finds what lies below the radius.
            limits, _, others = index.range_search(
                queries.reshape(-1, HASH_BITS // 8), max_distance + 1
            )
            ends = np.asarray(limits, np.int64)
            near = ends[1:] - ends[:-1]
            rows = start + np.repeat(np.arange(len(near)) // len(ORIENTATIONS), near)
            yield rows, others
    finally:
        faiss.omp_set_num_threads(threads)


def _check_pair_count(pairs: int, max_distance: int) -> None:
    if pairs > MAX_PAIRS:
        raise InputError(
            f"over {MAX_PAIRS:,} pairs of images lie within {max_distance} bits: most images "
            "look the same; remove blank ones, or use data.near_duplicates=false"
        )
