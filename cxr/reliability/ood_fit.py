"""Fit the tests of ``ood``: what images are on training images, limits on validation.

Limits are set so that 99 % of validation's images pass all tests together. Only numpy.
N images, S side of prepared pixels, F features of a member, P directions, B blocks a side.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxr.errors import InputError
from cxr.imaging.raster import COLOUR_LIMIT
from cxr.lungs.find import Lungs
from cxr.reliability.ood import (
    BLOCKS,
    Features,
    Floats,
    OodReference,
    Subspace,
    blocks,
    contrast,
    distance_tests,
    pair_fault,
    without_exposure,
)

PASS = 0.99
"""Share of validation images that pass all tests together."""
ENOUGH_IMAGES = 200
"""Below so many validation images a share of 1 % is not measured but guessed, and this is noted."""
ELSEWHERE = 1.25
"""A distance may exceed the largest one that is to pass by so much. Limits fitted without a source
were exceeded 1.16 and 1.18 times by 1 % of that source's images (cxr4's Hannover and Cohen), and
what is no chest image is to be told by its lungs, not by the hospital."""
DIRECTIONS = 128
"""P at most; with few images a quarter of their number."""
LUNGS_SCORE = 0.9
"""Least score of the lung finder: 99.2 to 99.5 % of adults of four hospitals that it never saw have
more, of drawn limbs, teeth, breasts, slices and laid-over lungs none."""
LUNGS_FAIL = 0.05
"""Where more validation images than this show no two lungs, the finder does not know such images,
and is not asked."""
RIDGE = 0.01
"""Penalty, relative to the mean variance of the blocks; 0.001 to 0.1 give the same."""


def fit_ood(
    train: Features, val: Features, *, train_blocks: Floats, val_blocks: Floats
) -> OodReference:
    """Fit every test on training images, and its limit on validation images.

    ``train_blocks`` may be of any number of training images in any order, ``val_blocks`` are of the
    images of ``val``; (n, B, B) of ``blocks`` each.

    Raises:
        InputError: fewer than eight training images, or an image without finite features.
    """
    count = min(len(rows) for rows in train.values())
    if count < 8:
        raise InputError(f"{count} training images tell nothing of what images are: 8 are needed")
    for member, rows in [*train.items(), *val.items()]:
        if not np.isfinite(rows).all():
            raise InputError(f"features of {member} are not finite: train it again")
    small, seen = train_blocks, val_blocks
    lines = {
        "turned": _fit_line(upright_ways(small), turned_ways(small)),
        "inverted": _fit_line(_all_ways(small), _all_ways(255 - small)),
    }
    spaces = {member: fit_subspace(rows) for member, rows in train.items()}
    found = OodReference(spaces, lines, {}).values(seen, val)
    wrong = {
        "turned": _worst(lines["turned"], turned_ways(seen)),
        "inverted": _worst(lines["inverted"], _all_ways(255 - seen)),
    }
    if len(seen) >= ENOUGH_IMAGES:
        limits = _limits(found, wrong)
        limits |= {name: limits[name] * ELSEWHERE for name in distance_tests(limits)}
        note = f"{PASS:.0%} of {len(seen)} validation images pass all tests"
    else:
        limits = _limits_of_few(train, found, wrong)
        note = (
            f"only {len(seen)} validation images: limits are the largest values seen, "
            "distances a quarter more, so the share of images that pass is not known"
        )
    limits |= {
        "blank": float(contrast(np.concatenate([small, seen])).min()) / 2,
        "colour": COLOUR_LIMIT,
    }
    refused = {
        name: float((found[name] > limits[name]).sum()) / max(len(seen), 1)
        for name in [*wrong, *distance_tests(limits)]
    }
    info = {
        "n_train": count,
        "n_train_pixels": len(small),
        "n_val": len(seen),
        "directions": {name: len(space.axes) for name, space in spaces.items()},
        "refused_on_validation": refused,
        "note": note,
    }
    return OodReference(spaces, lines, limits, info)


def _worst(line: Floats, ways: Sequence[Floats]) -> float:
    """Return what 99 % of wrongly shown images exceed."""
    values = np.concatenate([without_exposure(small) @ line for small in ways])
    return float(np.quantile(values, 1 - PASS)) if len(values) else 1.0


def _limits(found: Mapping[str, Floats], wrong: Mapping[str, float]) -> dict[str, float]:
    """Choose limits of one rank in every test so that ``PASS`` of the images pass all of them.

    A test whose wrong images lie clear of the right ones gets its limit halfway between.
    """
    names = [*distance_tests(found), *wrong]
    ordered = {name: np.sort(found[name])[::-1] for name in names}
    allowed = math.floor(len(found[names[0]]) * (1 - PASS) + 1e-9)
    limits: dict[str, float] = {}
    for rank in range(allowed + 1):
        tried = {}
        for name in names:
            values = ordered[name]
            tried[name] = float((values[rank] + values[max(rank - 1, 0)]) / 2)
            if name in wrong and wrong[name] > tried[name]:
                tried[name] = (tried[name] + wrong[name]) / 2
        out = np.any([found[name] > tried[name] for name in names], axis=0)
        if limits and out.sum() > allowed:
            break
        limits = tried
    return limits


def _limits_of_few(
    train: Features, found: Mapping[str, Floats], wrong: Mapping[str, float]
) -> dict[str, float]:
    """Choose limits where validation is small: each training image is tested by the others too."""
    limits = {}
    for member, rows in train.items():
        fold = np.arange(len(rows)) % 4
        seen = [found[f"distance {member}"]]
        for part in range(4):
            space = fit_subspace(rows[fold != part])
            seen.append(space.distance(rows[fold == part]))
        limits[f"distance {member}"] = float(np.concatenate(seen).max()) * ELSEWHERE
    for name, low in wrong.items():
        most = float(found[name].max()) if len(found[name]) else -1.0
        limits[name] = (most + low) / 2 if low > most else most
    return limits


def refit_distances(reference: OodReference, features: Features) -> OodReference:
    """Return a reference whose distances are limited by other images, such as a hospital's own.

    ``features`` are of images that are to pass. Every other limit stays: blank, rotated, inverted
    and coloured images are so everywhere.
    """
    limits = dict(reference.limits)
    for name in distance_tests(limits):
        member = name.removeprefix("distance ")
        seen = reference.subspaces[member].distance(features[member])
        most = np.quantile(seen, PASS) if len(seen) >= ENOUGH_IMAGES else seen.max()
        limits[name] = float(most) * ELSEWHERE
    note = f"distances fitted anew on {len(seen)} local images"
    return replace(reference, limits=limits, info={**reference.info, "note": note})


def with_lungs(reference: OodReference, lungs: Sequence[Lungs]) -> OodReference:
    """Return a reference that asks for two lungs, if nearly all validation images show them."""
    faults = [pair_fault(found, LUNGS_SCORE) is not None for found in lungs]
    refused = float(np.mean(faults)) if faults else 1.0
    info = {**reference.info, "lungs_refused_on_validation": refused}
    if refused > LUNGS_FAIL:
        return replace(reference, info=info)
    return replace(reference, limits={**reference.limits, "lungs": LUNGS_SCORE}, info=info)


def fit_reference(
    features_of: Callable[[NDArray[np.uint8]], Features],
    pixels: NDArray[np.uint8],
    train: NDArray[np.int64],
    val: NDArray[np.int64],
    *,
    seed: int = 0,
    most_train: int = 700,
    most_val: int = 1000,
    most_pixels: int = 5000,
    batch_size: int = 16,
    on_image: Callable[[], None] | None = None,
) -> OodReference:
    """Fit the reference of a run, from a sample of its images.

    ``features_of`` goes from (n, S, S) uint8 to member's (n, F); ``pixels`` (M, S, S) may be a
    memory map, of which ``train`` and ``val`` are rows. Features are taken of ``most_train`` and
    ``most_val`` images, pixels, which cost little, of ``most_pixels``.

    Raises:
        InputError: too few images, or features that are not finite.
    """
    rng = np.random.default_rng(seed)
    mixed = rng.permutation(train)
    tried = {"train": np.sort(mixed[:most_train]), "val": np.sort(rng.permutation(val)[:most_val])}

    def gather(rows: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        parts: dict[str, list[NDArray[Any]]] = {}
        for start in range(0, len(rows), batch_size):
            batch = np.ascontiguousarray(pixels[rows[start : start + batch_size]])
            for member, found in features_of(batch).items():
                parts.setdefault(member, []).append(np.asarray(found))
            for _ in batch if on_image else ():
                on_image()  # type: ignore[misc]
        return {member: np.concatenate(found) for member, found in parts.items()}

    def blocks_of(rows: NDArray[np.int64]) -> Floats:
        parts = [blocks(pixels[rows[start : start + 256]]) for start in range(0, len(rows), 256)]
        return np.concatenate(parts) if parts else np.empty((0, BLOCKS, BLOCKS))

    known = gather(tried["train"])
    return fit_ood(
        known,
        gather(tried["val"]) or {member: rows[:0] for member, rows in known.items()},
        train_blocks=blocks_of(np.sort(mixed[:most_pixels])),
        val_blocks=blocks_of(tried["val"]),
    )


def fit_subspace(features: NDArray[Any]) -> Subspace:
    """Fit a member's training features (N, F), at least two images."""
    rows = np.asarray(features, np.float64)
    count, width = rows.shape
    mean = rows.mean(axis=0)
    kept = max(1, min(DIRECTIONS, count // 4, width - 1))
    _, sizes, axes = np.linalg.svd(rows - mean, full_matrices=False)
    variances = sizes**2 / max(count - 1, 1)
    # Centred images span one direction less than there are images.
    others = variances[kept : min(count - 1, width)]
    residual = float(others.mean()) if len(others) else 0.0
    # Where features do not vary, any change is a large one, but not an infinite one.
    least = max(float(variances.sum()) / width * 1e-3, 1e-12)
    return Subspace(
        mean.astype(np.float32),
        axes[:kept].astype(np.float32),
        np.maximum(variances[:kept], least).astype(np.float32),
        max(residual, least),
    )


def turned_ways(small: Floats) -> list[Floats]:
    """Return (..., B, B) images in the six orientations that are neither upright nor mirrored."""
    both = (small, small[..., ::-1])
    return [np.rot90(one, turns, axes=(-2, -1)) for one in both for turns in (1, 2, 3)]


def upright_ways(small: Floats) -> list[Floats]:
    """Return (..., B, B) images as they are and mirrored: which side is left is not tested."""
    return [small, small[..., ::-1]]


def _all_ways(small: Floats) -> list[Floats]:
    return upright_ways(small) + turned_ways(small)


def _fit_line(right: Sequence[Floats], wrong: Sequence[Floats]) -> Floats:
    """Return (B * B + 1,) weights, near -1 for the first and +1 for the second, which weigh alike.

    Ridge regression, in closed form.
    """
    parts = [(without_exposure(small), -1.0, len(right)) for small in right]
    parts += [(without_exposure(small), 1.0, len(wrong)) for small in wrong]
    width = BLOCKS**2 + 1
    square, target = np.zeros((width, width)), np.zeros(width)
    for seen, sign, share in parts:
        square += seen.T @ seen / share
        target += sign * seen.sum(axis=0) / share
    penalty = np.full(width, RIDGE * np.trace(square) / width)
    penalty[-1] = 1e-9
    return np.asarray(np.linalg.solve(square + np.diag(penalty), target), np.float64)
