"""What the model was not trained for: tests of an image, each of which says what it found.

* ``distance``: the Mahalanobis distance of a member's pooled features from the training images',
  with a covariance shrunk to its P largest directions and one variance for all others
  (Tipping, Bishop 1999, J. R. Stat. Soc. B 61:611-622). Measured on four classes of real images it
  tells photographs, noise, blanks and text apart better than nearest neighbours do.
* ``turned`` and ``inverted``: a linear function of the image seen at 14 x 14 blocks.
* ``blank``: the contrast of the same blocks.
* ``colour``: what of the original's colours its gray does not explain.
* ``lungs``: whether two lungs lie side by side, as on every frontal chest image and on no other;
  asked where the finder knows the bundle's own images. Who shows a clear pair is not ``turned``.

``cxr.reliability.ood_fit`` fits them. Only numpy.
N images, S side of prepared pixels, F features of a member, P directions, B blocks a side.
"""

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxr.errors import InputError, MissingInputError
from cxr.files import atomic_write
from cxr.lungs.find import Lungs

Floats = NDArray[np.float64]
Features = Mapping[str, NDArray[Any]]
"""Member to (N, F) pooled features."""
ARRAYS = ("mean", "axes", "variances")
"""Of a ``Subspace``, as they are stored."""

BLOCKS = 14
"""B; 28 tells turned images apart no better."""
SURE = 0.99
"""From this score of the lung finder on, lungs stand upright: of 60 images turned upside down the
highest has 0.94, of 3,004 chest images of hospitals never seen 99.7 % have more."""
LEAST_RATIO, LEAST_OVERLAP = 0.4, 0.6
"""Smaller lung to larger, and rows of the image that both share, of the shorter one's. In each of
six sources 99 % of the chest images have 0.49 and 0.88 or more; on a lateral one the lungs lie over
each other, and what looks like two is unequal, or lies before and behind the heart at different
heights."""


@dataclass(frozen=True)
class Refusal:
    """A test that an image fails."""

    test: str  # distance, turned, inverted, blank, colour or lungs
    sentence: str  # which it is, and by how much
    value: float  # what was found
    limit: float  # what is allowed


@dataclass(frozen=True)
class Subspace:
    """A member's training features: their mean, largest directions and variances."""

    mean: NDArray[np.float32]  # (F,)
    axes: NDArray[np.float32]  # (P, F), orthonormal
    variances: NDArray[np.float32]  # (P,), along the axes
    residual: float  # variance along every other direction

    def distance(self, features: NDArray[Any]) -> Floats:
        """Return (N,) Mahalanobis distances of (N, F) features."""
        away = np.asarray(features, np.float64) - self.mean
        along = away @ self.axes.T.astype(np.float64)
        rest = np.maximum((away**2).sum(axis=1) - (along**2).sum(axis=1), 0)
        return np.asarray(np.sqrt((along**2 / self.variances).sum(axis=1) + rest / self.residual))


def blocks(pixels: NDArray[np.uint8]) -> Floats:
    """Return the mean gray, 0 to 255, of B x B blocks of images (N, S, S), S at least B."""
    edges = np.arange(BLOCKS + 1) * pixels.shape[-1] // BLOCKS
    lengths = np.diff(edges)
    sums = np.add.reduceat(pixels, edges[:-1], axis=2, dtype=np.uint32)
    sums = np.add.reduceat(sums, edges[:-1], axis=1)
    return np.asarray(sums / (lengths[:, None] * lengths))


def contrast(small: Floats) -> Floats:
    """Return (N,) standard deviation of (N, B, B) blocks, in gray levels."""
    return np.asarray(small.std(axis=(1, 2)))


def without_exposure(small: Floats) -> Floats:
    """Return (N, B * B + 1): each image without its own brightness and contrast, and a one."""
    centred = small - small.mean(axis=(1, 2), keepdims=True)
    # 5 gray levels keep the grain of a blank image from looking like structure.
    flat = (centred / (contrast(small)[:, None, None] + 5)).reshape(len(small), BLOCKS**2)
    return np.concatenate([flat, np.ones((len(flat), 1))], axis=1)


@dataclass(frozen=True)
class OodReference:
    """What an image is compared with."""

    subspaces: Mapping[str, Subspace]  # member to its training features
    lines: Mapping[str, Floats]  # ``turned`` and ``inverted`` to (B * B + 1,) weights
    limits: Mapping[str, float]
    """``turned``, ``inverted``, ``blank``, ``colour``, ``distance <member>``, and, where the finder
    knows such images, ``lungs``, the least score."""
    info: Mapping[str, Any] = field(default_factory=dict)
    """How it was fitted: numbers of images, shares refused on validation, a note."""

    def values(self, small: Floats, features: Features) -> dict[str, Floats]:
        """Return each test's value, (N,), by its name in ``limits`` (but ``colour``).

        ``small`` are the (N, B, B) ``blocks`` of prepared images.

        Raises:
            InputError: features of a member are missing or of another width.
        """
        seen = without_exposure(small)
        found: dict[str, Floats] = {"blank": contrast(small)}
        found |= {name: np.asarray(seen @ line) for name, line in self.lines.items()}
        if "inverted" in self.limits:
            # Inverting changes the sign of all but the constant: of an inverted image the
            # negative is asked whether it is turned.
            negative = 2 * self.lines["turned"][-1] - found["turned"]
            inverted = found["inverted"] > self.limits["inverted"]
            found["turned"] = np.where(inverted, negative, found["turned"])
        for member, space in self.subspaces.items():
            if member not in features or features[member].shape[-1] != len(space.mean):
                raise InputError(
                    f"the out-of-distribution reference needs {len(space.mean)} features of "
                    f"{member}, and they are not given: it belongs to another bundle"
                )
            found[f"distance {member}"] = space.distance(features[member])
        return found

    def scores(self, values: Mapping[str, Floats]) -> Floats:
        """Return (N,) largest of the members' distances over their limits: beyond 1 is refused."""
        ratios = [values[name] / self.limits[name] for name in distance_tests(self.limits)]
        return np.asarray(np.max(ratios, axis=0))

    def check(
        self,
        pixels: NDArray[np.uint8],
        features: Features,
        *,
        colours: Sequence[float | None] | None = None,
        lungs: Sequence[Lungs] | None = None,
    ) -> list[tuple[float, list[Refusal]]]:
        """Test images: prepared pixels (N, S, S) and each member's (N, F) features.

        ``colours`` are ``cxr.imaging.raster.colourfulness`` of each original, None where it was
        gray; ``lungs``, of each original, are needed where ``limits`` has ``lungs``.

        Returns:
            For each image its score (its distance over the limit, 0 upwards) and the tests
            that it fails; none: it may be answered.

        Raises:
            InputError: features that are not those of the reference.
        """
        values = self.values(blocks(pixels), features)
        scores = self.scores(values)
        found = []
        for row, score in enumerate(scores.tolist()):
            one = {name: float(value[row]) for name, value in values.items()}
            colour = colours[row] if colours is not None else None
            pair = lungs[row] if lungs is not None and "lungs" in self.limits else None
            found.append((score, self._refusals(one, colour, pair)))
        return found

    def _refusals(
        self, values: Mapping[str, float], colour: float | None, lungs: Lungs | None
    ) -> list[Refusal]:
        limits, found = self.limits, []
        if colour is not None and colour > limits["colour"]:
            found.append(_refusal("colour", colour, limits["colour"]))
        if values["blank"] < limits["blank"]:
            # Of an image in which nothing is seen, nothing else can be said.
            return [*found, _refusal("blank", values["blank"], limits["blank"])]
        if lungs is not None and (fault := pair_fault(lungs, limits["lungs"])):
            found.append(fault)
        upright = lungs is not None and not found and lungs.score >= SURE
        for name in ("inverted",) if upright else ("turned", "inverted"):
            if values[name] > limits[name]:
                found.append(_refusal(name, values[name], limits[name]))
        # A distance that is not a number is no pass either.
        names = [name for name in distance_tests(limits) if not values[name] <= limits[name]]
        if names:
            worst = max(names, key=lambda name: values[name] / limits[name])
            found.append(_refusal("distance", values[worst], limits[worst]))
        return found

    def save(self, path: Path) -> None:
        """Write the reference as .npz, whole or not at all; the same gives the same bytes."""
        arrays: dict[str, NDArray[Any]] = {
            f"line {name}": line.astype(np.float32) for name, line in self.lines.items()
        }
        for member, space in self.subspaces.items():
            arrays |= {f"{part} {member}": getattr(space, part) for part in ARRAYS}
        head = {
            "members": {name: space.residual for name, space in self.subspaces.items()},
            "lines": list(self.lines),
            "limits": dict(self.limits),
            "info": dict(self.info),
        }
        arrays["head"] = np.array(json.dumps(head))
        with atomic_write(path) as file:
            np.savez(file, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: Path) -> "OodReference":
        """Read what ``save`` wrote.

        Raises:
            MissingInputError: no such file.
            InputError: it is no such file, or damaged.
        """
        try:
            # From memory: numpy leaves a damaged file open.
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
                head = json.loads(str(file["head"]))
                spaces = {}
                for name, residual in head["members"].items():
                    arrays = {part: file[f"{part} {name}"] for part in ARRAYS}
                    spaces[name] = Subspace(**arrays, residual=residual)
                lines = {name: file[f"line {name}"].astype(float) for name in head["lines"]}
                return cls(spaces, lines, head["limits"], head["info"])
        except FileNotFoundError:
            raise MissingInputError(f"{path} is missing: restore the bundle") from None
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, EOFError):
            raise InputError(
                f"{path} is no out-of-distribution reference, or damaged: restore the bundle"
            ) from None


def pair_fault(lungs: Lungs, least_score: float) -> Refusal | None:
    """Return why what was found is no pair of lungs as a frontal image shows; None if it is."""
    ratio, overlap = pair_shape(lungs.mask) if lungs.count == 2 else (0.0, 0.0)
    for value, limit, words in (
        (lungs.count, 2, "{value:.0f} found"),
        (ratio, LEAST_RATIO, "the smaller has {value:.2f} of the larger's area"),
        (overlap, LEAST_OVERLAP, "they share {value:.2f} of their height"),
        (lungs.score, least_score, "the lung finder's score is {value:.2f}"),
    ):
        if not value >= limit:
            sentence = (
                "No two lungs side by side: "
                f"{words.format(value=value)}, at least {limit:g} needed; a whole upright frontal "
                "chest image is expected, no lateral one and no other part of the body."
            )
            return Refusal("lungs", sentence, float(value), limit)
    return None


def pair_shape(mask: NDArray[np.bool_]) -> tuple[float, float]:
    """Return the smaller lung's share of the larger, and of the shorter one's rows those shared.

    The (G, G) mask of both is parted at the column with least lung in the middle third.
    """
    heights = mask.sum(axis=0)
    columns = np.flatnonzero(heights)
    third = max(1, (columns[-1] + 1 - columns[0]) // 3)
    middle = columns[0] + third
    parted = middle + int(heights[middle : middle + third].argmin())
    sides = mask[:, :parted], mask[:, parted:]
    areas = [int(side.sum()) for side in sides]
    rows = [side.any(axis=1) for side in sides]
    shared = (rows[0] & rows[1]).sum() / max(min(row.sum() for row in rows), 1)
    return min(areas) / max(areas), float(shared)


def distance_tests(names: Mapping[str, Any]) -> list[str]:
    """Return the names of the members' distance tests."""
    return [name for name in names if name.startswith("distance ")]


def _refusal(test: str, value: float, limit: float) -> Refusal:
    shown = round(limit, 2) + 0.0  # no minus before a zero
    sentence = {
        "colour": f"In colour: the image lies {value:.1f} gray levels off gray, and at most "
        f"{limit:.1f} are allowed; an X-ray is gray.",
        "blank": f"Nearly blank: its contrast is {value:.1f} gray levels, and at least "
        f"{limit:.1f} are needed.",
        "turned": "Turned: it looks turned by a quarter, or upside down "
        f"({value:.2f} where upright images stay below {shown:.2f}).",
        "inverted": "Inverted gray: air looks bright and bone dark "
        f"({value:.2f} where images stay below {shown:.2f}).",
        "distance": "Not like the training images: its distance from them is "
        f"{value / limit:.2f} times the limit ({value:.1f}, allowed {limit:.1f}).",
    }[test]
    return Refusal(test, sentence, value, limit)
