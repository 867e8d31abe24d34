"""Measure networks and linear models on films whose lungs are hidden.

N films, F features, K classes, S side of prepared pixels.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxr.data.decode import ShowProgress
from cxr.evaluation.audit.features import pooled_features
from cxr.evaluation.audit.films import CHUNK, Films, Floats, Rows
from cxr.evaluation.audit.inputs import thumbnails
from cxr.evaluation.audit.linear import fit_linear
from cxr.evaluation.audit.occlude import VARIANTS, Variant, occlude, visible_share
from cxr.evaluation.bootstrap import bootstrap, interval
from cxr.evaluation.metrics import Scores
from cxr.training.ensemble import EQUAL, Ensemble, all_probs
from cxr.training.members import Member

FEATURES, THUMBNAIL = "linear on features", "linear on 16 x 16"


@dataclass(frozen=True)
class Known:
    """Pooled features of films as they are, from an earlier pass.

    Attributes:
        rows: (n,) rising; of which films.
        features: per member (n, F).
    """

    rows: Rows
    features: Mapping[str, NDArray[np.float32]]

    def of(self, member: str, rows: Rows) -> NDArray[np.float32]:
        """Return (m, F) of rows that are all among the known ones."""
        places = np.searchsorted(self.rows, rows)
        assert (self.rows[places] == rows).all(), "features of a film that was not passed"
        return np.asarray(self.features[member][places])


@dataclass(frozen=True)
class Hidden:
    """Scores per variant and model, on the (drawn or all) test films of which they are."""

    scores: dict[tuple[Variant, str], Scores]
    rows: dict[str, Rows]
    visible: dict[Variant, float]


def network_probs(
    members: Mapping[str, Member],
    ensemble: Ensemble,
    films: Films,
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
        films: where the rows' pixels and masks are.
        rows: films to fit the linear model on, and films to test.
        known: pooled features of the films as they are, where they are there; spares a pass.
        batch_size: films at once.
        progress: see ``ShowProgress``.

    Returns:
        (n, K) per variant and model: members, "ensemble" and ``FEATURES``.
    """
    fit, test = rows
    both = np.concatenate([fit, test])
    pixels, masks = np.asarray(films.pixels[both]), films.read_masks(both)
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
                        member, changed, np.arange(len(both)), batch_size=batch_size,
                        on_image=done,
                    )
                    for name, member in members.items()
                }  # fmt: skip
            trained = all_probs(
                {name: _logits(members[name], values[len(fit) :])
                 for name, values in pooled.items()}, ensemble
            )  # fmt: skip
            found |= {(variant, name): part for name, part in trained.items() if name != EQUAL}
            joined = np.concatenate([pooled[name] for name in members], axis=1)
            model = fit_linear(
                joined[: len(fit)], films.targets[fit], films.groups[fit],
                n_classes=len(films.labels),
            )  # fmt: skip
            found[variant, FEATURES] = model.probs(joined[len(fit) :])
    return found


def _logits(member: Member, pooled: NDArray[np.float32]) -> Floats:
    """Return the head's logits of pooled features; a member is nothing more behind them."""
    weight = member.head.weight.detach().cpu().numpy().astype(np.float64)
    bias = member.head.bias.detach().cpu().numpy().astype(np.float64)
    return np.asarray(pooled.astype(np.float64) @ weight.T + bias)


def thumbnail_probs(
    films: Films, fit: Rows, test: Rows, progress: ShowProgress
) -> dict[Variant, Floats]:
    """Return test probabilities (n, K) per variant of a linear model on thumbnails.

    Args:
        films: where the rows' pixels and masks are.
        fit: films with a mask to fit on.
        test: films with a mask to test.
        progress: see ``ShowProgress``.
    """
    both = np.concatenate([fit, test])
    parts: dict[Variant, list[NDArray[np.float32]]] = {variant: [] for variant in VARIANTS}
    with progress("thumbnails, lungs hidden", len(both)) as done:
        for start in range(0, len(both), CHUNK):
            rows = both[start : start + CHUNK]
            pixels, masks = np.asarray(films.pixels[rows]), films.read_masks(rows)
            for variant, kept in parts.items():
                small = thumbnails(occlude(pixels, masks, variant), np.arange(len(rows)))
                kept.append(small.reshape(len(rows), -1))
            for _ in rows:
                done()
    found = {}
    for variant, kept in parts.items():
        values = np.concatenate(kept)
        model = fit_linear(
            values[: len(fit)], films.targets[fit], films.groups[fit], n_classes=len(films.labels)
        )
        found[variant] = model.probs(values[len(fit) :])
    return found


def score_hidden(
    films: Films,
    probs: Mapping[tuple[Variant, str], Floats],
    few_test: Rows,
    thumbs: Mapping[Variant, Floats],
    test: Rows,
    *,
    rng: np.random.Generator,
    resamples: int,
) -> Hidden:
    """Score every model on every variant, all models of the same films on the same resamples.

    Args:
        films: their targets and groups.
        probs: what ``network_probs`` gave, on ``few_test``.
        few_test: its test films.
        thumbs: what ``thumbnail_probs`` gave, on ``test``.
        test: its test films.
        rng: of the resamples.
        resamples: of groups.
    """
    scores: dict[tuple[Variant, str], Scores] = {}
    whole = {(variant, THUMBNAIL): values for variant, values in thumbs.items()}
    for rows, part in ((few_test, probs), (test, whole)):
        keyed = {f"{variant}|{model}": values for (variant, model), values in part.items()}
        draws = bootstrap(
            films.targets[rows], keyed, films.groups[rows], rng=rng, resamples=resamples
        )
        scores |= {key: draws[f"{key[0]}|{key[1]}"] for key in part}
    masks = films.read_masks(few_test)
    visible = {variant: visible_share(masks, variant) for variant in VARIANTS}
    return Hidden(scores, {"few": few_test, "all": test}, visible)


def per_class(
    found: Hidden, labels: tuple[str, ...]
) -> dict[tuple[Variant, str], dict[str, dict[str, float]]]:
    """Return each variant's and model's AUROC per class with its interval."""
    return {
        key: {label: interval(scores["auroc"][:, k]) for k, label in enumerate(labels)}
        for key, scores in found.scores.items()
    }
