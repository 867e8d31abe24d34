"""Films of different splits that show the same exposure, found from pixels and files.

Two searches propose pairs, the perceptual hash and, where the set is small enough, the nearest
thumbnail of another split, both in all eight flips and right-angle turns; laying one film on the
other decides. N films, S side of prepared pixels, P pairs.
"""

import concurrent.futures
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxr.data.decode import ShowProgress, no_progress
from cxr.data.groups import MAX_DISTANCE, MIN_CORRELATION
from cxr.data.near import ORIENTATIONS, near_pairs, orient, perceptual_hashes
from cxr.data.overlay import confirm_pairs
from cxr.errors import InputError
from cxr.evaluation.audit.inputs import thumbnails
from cxr.images import read_gray
from cxr.preprocess import PreprocessSpec, to_square
from cxr.runlog import digest

EXTRA_BITS = 2
"""Beyond the distance that ``prepare`` uses, so that its own misses can be found."""
NEIGHBOURS = 2
"""Nearest thumbnails of other splits that are laid on each film."""
MAX_COMPARED = 100_000_000
"""Pairs of thumbnails; beyond, the perceptual hash searches alone."""
_THUMB_PX = 16
_BLOCK = 512

Pairs = NDArray[np.int64]


@dataclass(frozen=True)
class Copies:
    """Pairs of films of two splits that show the same exposure.

    Attributes:
        pairs: (P, 2) rows, first below second.
        identical: (P,) whether the pixels are equal as they stand.
        turns: (P,) index into ``ORIENTATIONS``.
        correlation: (P,) of fine detail.
    """

    pairs: Pairs
    identical: NDArray[np.bool_]
    turns: NDArray[np.int64]
    correlation: NDArray[np.float64]


@dataclass(frozen=True)
class FileCheck:
    """What the original files say.

    Attributes:
        digests: (N,) of the decoded pixels; "" where a file is missing or cannot be read.
        differing: rows whose file no longer gives the prepared pixels.
    """

    digests: NDArray[np.str_]
    differing: list[int]


def find_leaks(
    pixels: NDArray[np.uint8],
    split: NDArray[np.str_],
    *,
    digests: NDArray[np.str_] | None = None,
    progress: ShowProgress = no_progress,
) -> Copies:
    """Find pairs of films of different splits that show the same exposure.

    Args:
        pixels: (N, S, S) uint8.
        split: (N,) names.
        digests: (N,) of the original pixels, "" where unknown; equal ones are identical too.
        progress: see ``ShowProgress``.
    """
    count = len(pixels)
    found = [np.empty((0, 2), np.int64)]
    squares = [digest(np.ascontiguousarray(film).tobytes()) for film in pixels]
    same = [pair_equal(np.asarray(squares))] + ([] if digests is None else [pair_equal(digests)])
    with progress("leak: hash films in eight orientations", count) as done:
        hashes = perceptual_hashes(pixels, on_progress=done)
    found.append(_across(near_pairs(hashes, max_distance=MAX_DISTANCE + EXTRA_BITS), split))
    found.append(_nearest_thumbnails(pixels, split, progress))
    candidates = np.unique(np.concatenate([*found, _across(np.concatenate(same), split)]), axis=0)
    kept, turned, likeness = [np.empty((0, 2), np.int64)], [np.empty(0, np.int64)], [np.empty(0)]
    with progress("leak: lay candidates on each other", len(candidates)) as done:
        for start in range(0, len(candidates), _BLOCK):
            block = candidates[start : start + _BLOCK]
            these, turns, values = confirm_pairs(pixels, block, min_correlation=MIN_CORRELATION)
            kept.append(these)
            turned.append(turns)
            likeness.append(values)
            for _ in range(len(block)):
                done()
    pairs = np.concatenate(kept)
    identical = np.array([squares[a] == squares[b] for a, b in pairs], bool)
    if digests is not None:
        identical |= (digests[pairs[:, 0]] == digests[pairs[:, 1]]) & (digests[pairs[:, 0]] != "")
    return Copies(pairs, identical, np.concatenate(turned), np.concatenate(likeness))


def read_files(
    root: Path,
    names: Sequence[str],
    pixels: NDArray[np.uint8],
    spec: PreprocessSpec,
    *,
    workers: int = 2,
    progress: ShowProgress = no_progress,
) -> FileCheck | None:
    """Decode the original films again and compare them with the prepared pixels.

    Args:
        root: folder of the films.
        names: (N,) paths below it.
        pixels: (N, S, S) uint8, what ``prepare`` made of them.
        spec: how.
        workers: threads that decode.
        progress: see ``ShowProgress``.

    Returns:
        None where not one of the files is there.
    """
    if not any((root / name).is_file() for name in names):
        return None

    def one(row: int) -> tuple[str, bool]:
        try:
            film = read_gray(root / names[row], name=names[row])
        except InputError:
            return "", False
        key = digest(np.asarray(film.shape, np.int64).tobytes(), film.tobytes())
        return key, bool(np.array_equal(to_square(film, spec), pixels[row]))

    digests, differing = [], []
    pool = concurrent.futures.ThreadPoolExecutor(workers)
    with progress("leak: read the original files", len(names)) as done, pool:
        for row, (key, equal) in enumerate(pool.map(one, range(len(names)))):
            digests.append(key)
            if not equal:
                differing.append(row)
            done()
    return FileCheck(np.asarray(digests, str), differing)


def _nearest_thumbnails(
    pixels: NDArray[np.uint8], split: NDArray[np.str_], progress: ShowProgress
) -> Pairs:
    """Pair each film outside the largest split with its nearest films of other splits."""
    names, counts = np.unique(split, return_counts=True)
    asked = np.flatnonzero(split != names[counts.argmax()])
    count = len(pixels)
    if len(names) < 2 or len(asked) * count > MAX_COMPARED:
        return np.empty((0, 2), np.int64)
    thumbs = thumbnails(pixels, np.arange(count), side_px=_THUMB_PX)
    flat = _standardise(thumbs)
    found = []
    with progress("leak: nearest thumbnails", len(asked)) as done:
        for start in range(0, len(asked), _BLOCK):
            rows = asked[start : start + _BLOCK]
            likeness = np.full((len(rows), count), -2, np.float32)
            for index in range(len(ORIENTATIONS)):
                turned = _standardise(np.ascontiguousarray(orient(thumbs[rows], index)))
                np.maximum(likeness, turned @ flat.T, out=likeness)
            likeness[split[rows][:, None] == split[None, :]] = -2
            most = min(NEIGHBOURS, count - 1)
            nearest = np.argpartition(-likeness, most - 1, axis=1)[:, :most]
            found.append(np.stack([np.repeat(rows, most), nearest.ravel()], axis=1))
            for _ in rows:
                done()
    return _across(np.sort(np.concatenate(found), axis=1), split)


def _standardise(thumbs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bring thumbnails (n, s, s) to rows of mean 0 and length 1."""
    flat = thumbs.reshape(len(thumbs), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    return np.asarray(flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6))


def pair_equal(keys: NDArray[np.str_]) -> Pairs:
    """Pair each row with the others of its key, by a chain; "" stays alone."""
    order = np.argsort(keys, kind="stable")
    links = np.stack([order[:-1], order[1:]], axis=1)
    equal = (keys[links[:, 0]] == keys[links[:, 1]]) & (keys[links[:, 0]] != "")
    return np.sort(links[equal], axis=1).astype(np.int64).reshape(-1, 2)


def _across(pairs: Pairs, split: NDArray[np.str_]) -> Pairs:
    return np.asarray(pairs[split[pairs[:, 0]] != split[pairs[:, 1]]])
