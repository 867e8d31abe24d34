"""What networks and linear models make of images whose lungs are occluded.

n test images, F features, K classes, S side of prepared pixels.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxr.audit.baseline_inputs import thumbnails
from cxr.audit.context import AuditContext, Floats, Interval, Rows, chunks, pooled_features
from cxr.audit.limits import Scored, firm_limit
from cxr.audit.linear import fit_linear
from cxr.audit.occlude import VARIANTS, Variant, occlude, visible_share
from cxr.evaluation.intervals import CONFIDENCE
from cxr.models.build import Member
from cxr.models.ensemble import EQUAL, all_probs

FEATURES, THUMBNAIL = "linear on features", "linear on 16 x 16"
DECIDES: Variant = "box_black"
"""The lungs' own outline may show the disease, a box around both shows only where they lie."""
CONTROL: Variant = "box_alone"
"""What that place alone tells."""


@dataclass(frozen=True)
class Occluded:
    """What every model makes of every variant, by (variant, model).

    Attributes:
        few: the drawn test images; has the control by ``THUMBNAIL`` too.
        every: all test images with lungs, by ``THUMBNAIL`` alone.
        visible: per variant the mean share of an image that is left to see.
    """

    few: Scored
    every: Scored
    visible: dict[Variant, float]

    @property
    def models(self) -> list[str]:
        """Names, the linear models last."""
        return list(dict.fromkeys(model for _, model in self.few.probs))

    def scored(self, model: str) -> Scored:
        """Return the test images of a model."""
        return self.every if model == THUMBNAIL else self.few

    def auroc(self, variant: Variant, model: str, k: int) -> Interval:
        """Return a model's AUROC of a class against the rest."""
        return self.scored(model).auroc((variant, model), k)

    def control(self, model: str, k: int) -> tuple[Variant, str]:
        """Return which linear model tells most of a class from the box alone.

        To the thumbnail model its like is set, which sees the same but what lies around the box; to
        networks the better of both.
        """
        if model == THUMBNAIL:
            return CONTROL, THUMBNAIL
        both = ((CONTROL, THUMBNAIL), (CONTROL, FEATURES))
        return max(both, key=lambda name: self.few.auroc(name, k)["value"])

    def control_auroc(self, model: str, k: int) -> Interval:
        """Return what the box alone tells of a class, on the model's images."""
        return self.scored(model).auroc(self.control(model, k), k)

    def gain(self, model: str, k: int) -> Interval:
        """Return a model's AUROC under the box less that of the box alone, on the same images."""
        return self.scored(model).gain((DECIDES, model), self.control(model, k), k)

    def excess(self, model: str, k: int, *, confidence: float = CONFIDENCE) -> Interval:
        """Return the share of what the box alone leaves open that a model tells beside it."""
        names = (DECIDES, model), self.control(model, k)
        return self.scored(model).excess(*names, k, confidence=confidence)

    def limit(self, model: str, k: int, *, confidence: float) -> float:
        """Return the lower limit by which the excess is judged, as ``auroc_limit``."""
        any_told = self.excess(model, k, confidence=confidence)["low"] > 0
        return firm_limit(self.excess(model, k), any_told, chance=0.0)


def occluded_models(
    context: AuditContext, fit: Rows, test: Rows, few_fit: Rows, few: Rows
) -> Occluded:
    """Return what networks and linear models make of images with lungs, the first of few of them.

    All rows are ascending, and the few are among the others.
    """
    probs, thumbs = network_probs(context, few_fit, few), thumbnail_probs(context, fit, test)
    probs[CONTROL, THUMBNAIL] = thumbs[CONTROL, THUMBNAIL][np.searchsorted(test, few)]
    masks, targets, groups = context.read_masks(few), context.targets, context.groups
    return Occluded(
        Scored(targets[few], groups[few], probs),
        Scored(targets[test], groups[test], thumbs),
        {variant: visible_share(masks, variant) for variant in VARIANTS},
    )


def network_probs(
    context: AuditContext, fit: Rows, test: Rows
) -> dict[tuple[Variant, str], Floats]:
    """Return test probabilities (n, K) by variant of the networks as trained and a linear model.

    The latter is fitted on ``fit`` images; all have a mask.
    """
    both, members, size = np.concatenate([fit, test]), context.members, context.batch_size
    pixels, masks = np.asarray(context.pixels[both]), context.read_masks(both)
    everyone = np.arange(len(both))
    probs: dict[tuple[Variant, str], Floats] = {}
    with context.progress("lungs occluded", len(both) * len(VARIANTS) * len(members)) as done:
        for variant in VARIANTS:
            changed = occlude(pixels, masks, variant)
            pooled = {
                name: pooled_features(member, changed, everyone, batch_size=size, on_image=done)
                for name, member in members.items()
            }
            logits = {name: _logits(members[name], x[len(fit) :]) for name, x in pooled.items()}
            trained = all_probs(logits, context.ensemble)
            probs |= {(variant, name): part for name, part in trained.items() if name != EQUAL}
            joined = np.concatenate([pooled[name] for name in members], axis=1)
            probs[variant, FEATURES] = _linear_probs(context, joined, fit)
    return probs


def _logits(member: Member, pooled: NDArray[np.float32]) -> Floats:
    """Return the head's logits of pooled features; a member is nothing more behind them."""
    weight = member.head.weight.detach().cpu().numpy().astype(np.float64)
    bias = member.head.bias.detach().cpu().numpy().astype(np.float64)
    return np.asarray(pooled.astype(np.float64) @ weight.T + bias)


def _linear_probs(context: AuditContext, values: NDArray[np.float32], fit: Rows) -> Floats:
    """Fit on the first rows, which are ``fit``, and return probabilities of the others."""
    targets, groups = context.targets[fit], context.groups[fit]
    model = fit_linear(values[: len(fit)], targets, groups, n_classes=len(context.labels))
    return model.probs(values[len(fit) :])


def thumbnail_probs(
    context: AuditContext, fit: Rows, test: Rows
) -> dict[tuple[Variant, str], Floats]:
    """Return test probabilities (n, K) by variant of a linear model on thumbnails; see above."""
    both = np.concatenate([fit, test])
    parts: dict[Variant, list[NDArray[np.float32]]] = {variant: [] for variant in VARIANTS}
    with context.progress("thumbnails, lungs occluded", len(both)) as done:
        for rows in chunks(both):
            pixels, masks = np.asarray(context.pixels[rows]), context.read_masks(rows)
            for variant, small in parts.items():
                thumbs = thumbnails(occlude(pixels, masks, variant), np.arange(len(rows)))
                small.append(thumbs.reshape(len(rows), -1))
            for _ in rows:
                done()
    return {
        (variant, THUMBNAIL): _linear_probs(context, np.concatenate(small), fit)
        for variant, small in parts.items()
    }
