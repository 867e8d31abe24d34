"""Images of different splits that show the same exposure, found from pixels and files.

Two searches propose pairs, the perceptual hash in all eight orientations and,
where the set is small enough, the images of another split that look most alike through any view;
laying one image on the other decides. N images, S side of prepared pixels, P pairs.
"""

import concurrent.futures
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cxr.audit.context import Floats, Masks, Names, Pixels, Rows
from cxr.data.decode import ShowProgress, no_progress
from cxr.data.groups import MAX_DISTANCE, MIN_CORRELATION
from cxr.data.near_duplicates import near_pairs, perceptual_hashes
from cxr.data.registration import alike_pairs, describe
from cxr.data.superposition import confirm_pairs
from cxr.errors import InputError
from cxr.files import digest
from cxr.imaging.read import read_gray

EXTRA_BITS = 2
"""Beyond the distance that ``prepare`` uses, so that its own misses can be found."""
WORKERS = 2
"""Threads that decode the original files."""

Pairs = Rows


class Copies(NamedTuple):
    """Pairs of images of two splits that show the same exposure, (P, 2) rows, first below second.

    ``identical`` are those whose pixels are equal as they stand; ``orientations`` are indices into
    ``ORIENTATIONS``, ``correlation`` is of fine detail.
    """

    pairs: Pairs
    identical: Masks
    orientations: Rows
    correlation: Floats


class FileCheck(NamedTuple):
    """What the original files say: (N,) digests of their pixels, "" where they cannot be read.

    ``differing`` are rows whose file no longer gives the prepared pixels.
    """

    digests: Names
    differing: list[int]


def find_leaks(
    pixels: Pixels,
    split: Names,
    *,
    digests: Names | None = None,
    progress: ShowProgress = no_progress,
) -> Copies:
    """Find pairs of images, (N, S, S), of different splits that show the same exposure.

    Where digests (N,) of the original pixels are equal and not "", the images are identical too.
    """
    squares = [digest(np.ascontiguousarray(image).tobytes()) for image in pixels]
    same = [pair_equal(np.asarray(squares))] + ([] if digests is None else [pair_equal(digests)])
    hashes = perceptual_hashes(pixels)
    proposed = [_across(near_pairs(hashes, max_distance=MAX_DISTANCE + EXTRA_BITS), split)]
    with progress("leak: look for the most alike images", len(pixels)) as done:
        proposed.append(alike_pairs(describe(pixels), apart=split, on_progress=done))
    proposed.append(_across(np.concatenate(same), split))
    candidates = np.unique(np.concatenate(proposed), axis=0)
    with progress("leak: lay candidates on each other", len(candidates)) as done:
        pairs, orientations, correlation = confirm_pairs(
            pixels, candidates, min_correlation=MIN_CORRELATION, on_progress=done
        )
    identical = np.array([squares[a] == squares[b] for a, b in pairs], bool)
    if digests is not None:
        identical |= (digests[pairs[:, 0]] == digests[pairs[:, 1]]) & (digests[pairs[:, 0]] != "")
    return Copies(pairs, identical, orientations, correlation)


def read_files(
    root: Path,
    names: Sequence[str],
    pixels: Pixels,
    square_of: Callable[[int, Pixels], Pixels],
    *,
    progress: ShowProgress = no_progress,
) -> FileCheck | None:
    """Decode N original images below a folder again and compare them with the prepared pixels.

    ``square_of`` makes a row's original (H, W) to (S, S), as ``prepare`` did.

    Returns:
        None where not one of the files is there.
    """
    if not any((root / name).is_file() for name in names):
        return None

    def one(row: int) -> tuple[str, bool]:
        try:
            image = read_gray(root / names[row], name=names[row])
        except InputError:
            return "", False
        key = digest(np.asarray(image.shape, np.int64).tobytes(), image.tobytes())
        return key, bool(np.array_equal(square_of(row, image), pixels[row]))

    checked = []
    pool = concurrent.futures.ThreadPoolExecutor(WORKERS)
    with progress("leak: read the original files", len(names)) as done, pool:
        for found in pool.map(one, range(len(names))):
            checked.append(found)
            done()
    digests, equal = zip(*checked, strict=True)
    return FileCheck(np.asarray(digests, str), np.flatnonzero(~np.array(equal)).tolist())


def pair_equal(keys: Names) -> Pairs:
    """Pair each row with the others of its key, by a chain; "" stays alone."""
    order = np.argsort(keys, kind="stable")
    links = np.stack([order[:-1], order[1:]], axis=1)
    equal = (keys[links[:, 0]] == keys[links[:, 1]]) & (keys[links[:, 0]] != "")
    return np.sort(links[equal], axis=1).astype(np.int64).reshape(-1, 2)


def _across(pairs: Pairs, split: Names) -> Pairs:
    return np.asarray(pairs[split[pairs[:, 0]] != split[pairs[:, 1]]])
