"""Which images of one prepared set are images of another, identical or near.

N images of the new set, M of the known one, S side of their squares, Q pairs.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cxr.data.groups import MAX_DISTANCE, MIN_CORRELATION
from cxr.data.near_duplicates import near_pairs, perceptual_hashes
from cxr.data.registration import alike_pairs, describe
from cxr.data.superposition import confirm_pairs

BLOCK_PAIRS = 4096
"""Candidates compared at once, which bounds memory at some 400 MB for squares of 224."""


@dataclass(frozen=True)
class Overlap:
    """Images that both sets hold."""

    row: NDArray[np.int64]  # (Q,) row of the new set
    known: NDArray[np.int64]  # (Q,) row of the known set
    identical: NDArray[np.bool_]  # (Q,) whether the decoded pixels are equal
    correlation: NDArray[np.float64]  # (Q,) of fine detail, 1 for identical images


def find_overlap(
    squares: NDArray[np.uint8],
    digests: ArrayLike,
    known_squares: NDArray[np.uint8],
    known_digests: ArrayLike,
    *,
    near: bool = True,
    on_progress: Callable[[], None] | None = None,
) -> Overlap:
    """Find the images of a set that are also in a known one, altered ones too.

    Args:
        squares: (N, S, S) uint8.
        digests: (N,) of the decoded pixels.
        known_squares: (M, S, S) uint8.
        known_digests: (M,).
        near: also look for near copies.
        on_progress: called after each of the N + M images.

    Returns:
        The pairs, sorted by row; an image may have several.
    """
    pairs = _identical(np.asarray(digests, str), np.asarray(known_digests, str))
    identical, correlation = np.ones(len(pairs), np.bool_), np.ones(len(pairs))
    if near and len(squares) and len(known_squares):
        both = (squares, known_squares)
        hashes = np.concatenate([perceptual_hashes(part) for part in both])
        alike = alike_pairs(
            np.concatenate([describe(part) for part in both]),
            apart=np.repeat(["new", "known"], [len(part) for part in both]),
            on_progress=on_progress,
        )
        candidates = np.concatenate([near_pairs(hashes, max_distance=MAX_DISTANCE), alike])
        candidates = np.unique(candidates, axis=0)
        across = (candidates[:, 0] < len(squares)) & (candidates[:, 1] >= len(squares))
        candidates = candidates[across] - np.array([0, len(squares)])
        fresh = ~np.isin(_key(candidates, len(known_squares)), _key(pairs, len(known_squares)))
        copies, values = _confirm(squares, known_squares, candidates[fresh])
        pairs = np.concatenate([pairs, copies])
        correlation = np.concatenate([correlation, values])
        identical = np.concatenate([identical, np.zeros(len(copies), np.bool_)])
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    return Overlap(pairs[order, 0], pairs[order, 1], identical[order], correlation[order])


def _identical(digests: NDArray[np.str_], known: NDArray[np.str_]) -> NDArray[np.int64]:
    """Pair each image with the first known image of the same digest."""
    place: dict[str, int] = {}
    for row, value in enumerate(known.tolist()):
        place.setdefault(value, row)
    found = [(row, place[value]) for row, value in enumerate(digests.tolist()) if value in place]
    return np.array(found, np.int64).reshape(-1, 2)


def _key(pairs: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    return np.asarray(pairs[:, 0] * width + pairs[:, 1], np.int64)


def _confirm(
    squares: NDArray[np.uint8], known_squares: NDArray[np.uint8], candidates: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Keep the candidates that show the same exposure; return them and their correlation."""
    kept, values = [np.empty((0, 2), np.int64)], [np.empty(0)]
    for start in range(0, len(candidates), BLOCK_PAIRS):
        block = candidates[start : start + BLOCK_PAIRS]
        mine, first = np.unique(block[:, 0], return_inverse=True)
        theirs, second = np.unique(block[:, 1], return_inverse=True)
        images = np.concatenate([squares[mine], known_squares[theirs]])
        local = np.stack([first, second + len(mine)], axis=1).astype(np.int64)
        found, _, value = confirm_pairs(images, local, min_correlation=MIN_CORRELATION)
        kept.append(np.stack([mine[found[:, 0]], theirs[found[:, 1] - len(mine)]], axis=1))
        values.append(value)
    return np.concatenate(kept), np.concatenate(values)
