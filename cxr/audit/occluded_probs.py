"""Measure networks and linear models on images whose lungs are hidden.

N images, F features, K classes, S side of prepared pixels.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxr.audit.context import CHUNK, Floats, Images, Masks, Rows
from cxr.audit.limits import Interval, auroc_excess
from cxr.audit.linear import fit_linear
from cxr.audit.occlude import VARIANTS, Variant, occlude
from cxr.audit.pooled_features import pooled_features
from cxr.audit.traits import thumbnails
from cxr.data.decode import ShowProgress
from cxr.evaluation.intervals import CONFIDENCE, auroc_influences, auroc_interval
from cxr.models.build import Member
from cxr.models.ensemble import EQUAL, Ensemble, all_probs

FEATURES, THUMBNAIL = "linear on features", "linear on 16 x 16"
DECIDES: Variant = "box black"
"""The lungs' own outline may show the disease, a box around both shows only where they lie."""
CONTROL: Variant = "box alone"
"""What that place alone tells."""


@dataclass(frozen=True)
class Known:
    """Pooled features of images as they are, from an earlier pass.

    Attributes:
        rows: (n,) rising; of which images.
        features: per member (n, F).
    """

    rows: Rows
    features: Mapping[str, NDArray[np.float32]]

    def of(self, member: str, rows: Rows) -> NDArray[np.float32]:
        """Return (m, F) of rows that are all among the known ones."""
        places = np.searchsorted(self.rows, rows)
        assert (self.rows[places] == rows).all(), "features of an image that was not passed"
        return np.asarray(self.features[member][places])


@dataclass(frozen=True)
class Hidden:
    """What every model makes of every variant.

    Attributes:
        images: their targets and groups.
        probs: per variant and model (n, K), of ``few`` test images, or of ``every`` one by
            ``THUMBNAIL``.
        few: rows of the drawn test images, ascending and all among ``every``.
        every: rows of all test images with lungs, ascending.
        visible: per variant the mean share of an image that is left to see.
    """

    images: Images
    probs: dict[tuple[Variant, str], Floats]
    few: Rows
    every: Rows
    visible: dict[Variant, float]

    @property
    def models(self) -> list[str]:
        """Names, the linear models last."""
        return list(dict.fromkeys(model for _, model in self.probs))

    def rows(self, model: str) -> Rows:
        """Return the test images of a model."""
        return self.every if model == THUMBNAIL else self.few

    def hits(self, variant: Variant, model: str) -> Masks:
        """Return (n,) which images a model has right."""
        found = self.probs[variant, model].argmax(axis=1)
        return np.asarray(found == self.images.targets[self.rows(model)])

    def auroc(self, variant: Variant, model: str, k: int) -> Interval:
        """Return a model's AUROC of a class against the rest."""
        rows = self.rows(model)
        return auroc_interval(
            self.images.targets[rows] == k,
            self.probs[variant, model][:, k],
            self.images.groups[rows],
        )

    def control(self, model: str, k: int) -> tuple[str, Floats]:
        """Return which linear model tells most of a class from the box alone, and its scores.

        They are of the same images as the model's. To the thumbnail model its like is set, which
        sees the same but what lies around the box; to networks the better of both.
        """
        thumbs = self.probs[CONTROL, THUMBNAIL][:, k]
        if model == THUMBNAIL:
            return THUMBNAIL, thumbs
        positive = self.images.targets[self.few] == k
        found = {
            THUMBNAIL: thumbs[np.searchsorted(self.every, self.few)],
            FEATURES: self.probs[CONTROL, FEATURES][:, k],
        }
        best = max(found, key=lambda name: auroc_influences(positive, found[name])[0])
        return best, found[best]

    def excess(self, model: str, k: int, *, confidence: float = CONFIDENCE) -> Interval:
        """Return the share of what the box alone leaves open that a model tells beside it."""
        rows = self.rows(model)
        return auroc_excess(
            self.images.targets[rows] == k,
            self.probs[DECIDES, model][:, k],
            self.control(model, k)[1],
            self.images.groups[rows],
            confidence=confidence,
        )


def network_probs(
    members: Mapping[str, Member],
    ensemble: Ensemble,
    images: Images,
    rows: tuple[Rows, Rows],
    *,
    known: Known | None,
    batch_size: int,
    progress: ShowProgress,
) -> dict[tuple[Variant, str], Floats]:
    """Return test probabilities of the networks as trained and of a linear model.

    Args:
        members: the trained networks.
        ensemble: their temperatures and weights.
        images: where the rows' pixels and masks are.
        rows: images to fit the linear model on, and images to test.
        known: pooled features of the images as they are, where they are there; spares a pass.
        batch_size: images at once.
        progress: see ``ShowProgress``.

    Returns:
        (n, K) per variant and model: members, "ensemble" and ``FEATURES``.
    """
    fit, test = rows
    both = np.concatenate([fit, test])
    pixels, masks = np.asarray(images.pixels[both]), images.read_masks(both)
    found: dict[tuple[Variant, str], Floats] = {}
    passes = [v for v in VARIANTS if v != "whole" or known is None]
    with progress("lungs hidden", len(both) * len(passes) * len(members)) as done:
        for variant in VARIANTS:
            if variant == "whole" and known is not None:
                pooled = {name: known.of(name, both) for name in members}
            else:
                changed = occlude(pixels, masks, variant)
                pooled = {
                    name: pooled_features(
                        member, changed, np.arange(len(both)), batch_size=batch_size, on_image=done
                    )
                    for name, member in members.items()
                }
            trained = all_probs(
                {
                    name: _logits(members[name], values[len(fit) :])
                    for name, values in pooled.items()
                },
                ensemble,
            )
            found |= {(variant, name): part for name, part in trained.items() if name != EQUAL}
            joined = np.concatenate([pooled[name] for name in members], axis=1)
            model = fit_linear(
                joined[: len(fit)],
                images.targets[fit],
                images.groups[fit],
                n_classes=len(images.labels),
            )
            found[variant, FEATURES] = model.probs(joined[len(fit) :])
    return found


def _logits(member: Member, pooled: NDArray[np.float32]) -> Floats:
    """Return the head's logits of pooled features; a member is nothing more behind them."""
    weight = member.head.weight.detach().cpu().numpy().astype(np.float64)
    bias = member.head.bias.detach().cpu().numpy().astype(np.float64)
    return np.asarray(pooled.astype(np.float64) @ weight.T + bias)


def thumbnail_probs(
    images: Images, fit: Rows, test: Rows, progress: ShowProgress
) -> dict[Variant, Floats]:
    """Return test probabilities (n, K) per variant of a linear model on thumbnails.

    Args:
        images: where the rows' pixels and masks are.
        fit: images with a mask to fit on.
        test: images with a mask to test.
        progress: see ``ShowProgress``.
    """
    both = np.concatenate([fit, test])
    parts: dict[Variant, list[NDArray[np.float32]]] = {variant: [] for variant in VARIANTS}
    with progress("thumbnails, lungs hidden", len(both)) as done:
        for start in range(0, len(both), CHUNK):
            rows = both[start : start + CHUNK]
            pixels, masks = np.asarray(images.pixels[rows]), images.read_masks(rows)
            for variant, kept in parts.items():
                small = thumbnails(occlude(pixels, masks, variant), np.arange(len(rows)))
                kept.append(small.reshape(len(rows), -1))
            for _ in rows:
                done()
    found = {}
    for variant, kept in parts.items():
        values = np.concatenate(kept)
        model = fit_linear(
            values[: len(fit)],
            images.targets[fit],
            images.groups[fit],
            n_classes=len(images.labels),
        )
        found[variant] = model.probs(values[len(fit) :])
    return found
