"""Test 3: hide the lungs, then ask for the diagnosis. What still tells it is not the disease.

N images, F features, K classes, S side of prepared pixels.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cxr.audit.audit_plots import draw_lungs
from cxr.audit.context import Images, Rows, draw_per_class
from cxr.audit.limits import Interval, auroc_gain, balanced_interval, corrected, shortages, too_few
from cxr.audit.occlude import VARIANTS, occlude, visible_share
from cxr.audit.occluded_probs import (
    DECIDES,
    FEATURES,
    THUMBNAIL,
    Hidden,
    Known,
    network_probs,
    thumbnail_probs,
)
from cxr.audit.result import AuditResult, figure_of, judge, skipped
from cxr.data.decode import ShowProgress, no_progress
from cxr.evaluation.intervals import auroc_interval, share_interval
from cxr.evaluation.tables import Cell, Table, show_interval
from cxr.labels import list_words
from cxr.models.build import Member
from cxr.models.ensemble import WEIGHTED, Ensemble
from cxr.plotting import save_figure

NAME, TITLE = "lungs", "The diagnosis without the lungs"
WHAT = (
    "The lungs are covered on every image, in three ways, and the trained networks and two plain "
    "linear models are asked for the class. A box over both lungs still shows where they lie and "
    "how large they are, so the same linear models are also given the box alone; what is told "
    "beyond it comes from the rest of the image: the hospital, the machine, the patient's age."
)
SUSPICIOUS_EXCESS = 0.30
"""Of the pairs that the box alone leaves open. An AUROC of 0.65 where the box tells nothing: an
image of the class and one of another are put in the right order two times in three."""
SHORTCUT_EXCESS = 0.60
"""An AUROC of 0.80 where the box tells nothing, as well as many published classifiers do."""
MEANING = (
    "It can be the hospital, the machine, the patient's age or position; it can also be disease "
    "that reaches beyond the lungs' outline, or that the outline left out."
)
"""What a finding does not tell apart."""
MOST_FIT, MOST_TEST = 120, 100
"""Images of a class that pass through the networks, whole and in each other variant."""


def audit_lungs(
    members: Mapping[str, Member],
    ensemble: Ensemble,
    images: Images,
    *,
    rng: np.random.Generator,
    folder: Path | None = None,
    note: str = "",
    known: Known | None = None,
    most_fit: int = MOST_FIT,
    most_test: int = MOST_TEST,
    batch_size: int = 32,
    progress: ShowProgress = no_progress,
) -> AuditResult:
    """Measure what can be told with the lungs hidden, and with nothing but the lungs.

    The networks are taken as trained, and a linear model is trained anew on their pooled
    features of such images; another on a 16 x 16 thumbnail, which needs no network and so sees
    every image with a mask.

    Args:
        members: the trained networks.
        ensemble: their temperatures and weights.
        images: only those with a mask take part.
        rng: draws images.
        folder: receives ``lungs.png``; no figure without it.
        note: what the images are.
        known: pooled features of images as they are; spares a pass, and images are drawn from
            these.
        most_fit: images of a class on which the linear model on features is trained.
        most_test: images of a class on which networks are tested.
        batch_size: images at once.
        progress: see ``ShowProgress``.

    Returns:
        The verdict is by what the best model tells of a class from the image around the box
        beyond what the box alone tells: the lower limit of ``auroc_excess`` (at 1 - 0.05 /
        comparisons, one-sided) from ``SUSPICIOUS_EXCESS`` and from ``SHORTCUT_EXCESS`` on.

    One box for all images would tell nothing by its place; but to cover the lungs of 98 % of the
    images of cxr4 it must cover 94 % of the image, and what is left is the left and right border,
    which the baselines see. So each image keeps its box, and what that tells is taken off.
    Regressing the scores on the box's coordinates instead leaves an AUROC of up to 0.8 where
    the scores are a function of the box and nothing else; a model of the same kind leaves 0.5.
    """
    fit, test = images.with_lungs(images.fit_rows), images.with_lungs(images.test_rows)
    short = {
        where: shortages(images.targets[rows], images.groups[rows], images.labels)
        for where, rows in (("fit", fit), ("test", test))
    }
    enough = [
        k for k, label in enumerate(images.labels) if not any(s[label] for s in short.values())
    ]
    thin = [
        reason
        for where, part in short.items()
        for reason in too_few(part, f"{where} images with a mask")
    ]
    if not images.has_mask.any():
        return skipped(NAME, TITLE, WHAT, "no image of this data set has a lung mask")
    if not enough:
        return skipped(NAME, TITLE, WHAT, "; ".join(thin))
    passed = [rows if known is None else np.intersect1d(rows, known.rows) for rows in (fit, test)]
    few_fit = draw_per_class(passed[0], images.targets, most_fit, rng)
    few_test = draw_per_class(passed[1], images.targets, most_test, rng)
    probs = network_probs(
        members,
        ensemble,
        images,
        (few_fit, few_test),
        known=known,
        batch_size=batch_size,
        progress=progress,
    )
    thumbs = thumbnail_probs(images, fit, test, progress)
    masks = images.read_masks(few_test)
    visible = {variant: visible_share(masks, variant) for variant in VARIANTS}
    every = {(variant, THUMBNAIL): values for variant, values in thumbs.items()}
    found = Hidden(images, probs | every, few_test, test, visible)
    result = _judge(found, enough, thin)
    if folder is not None:
        aurocs: dict[str, dict[str, dict[str, Interval]]] = {
            model: {
                variant: {
                    label: found.auroc(variant, model, k) for k, label in enumerate(images.labels)
                }
                for variant in VARIANTS
            }
            for model in (WEIGHTED, FEATURES, THUMBNAIL)
        }
        figure = draw_lungs(
            _example(images, few_test, rng), aurocs, labels=images.labels, note=note
        )
        save_figure(figure, folder / f"{NAME}.png")
        result.figures.append(f"{NAME}.png")
    return result


def _judge(found: Hidden, enough: list[int], thin: list[str]) -> AuditResult:
    labels, confidence = found.images.labels, corrected(len(enough) * len(found.models))

    def limit(model: str, k: int) -> float:
        # As ``auroc_limit``: that anything is told, by all together; how much, by its own.
        told = found.excess(model, k, confidence=confidence)["low"] > 0
        own = found.excess(model, k)["low"]
        return own if told else min(own, 0.0)

    def low(model: str, k: int) -> float:
        # Undefined ones come last.
        return float(np.nan_to_num(limit(model, k), nan=-9))

    best = {k: max(found.models, key=lambda model: low(model, k)) for k in enough}
    ranked = sorted(enough, key=lambda k: -low(best[k], k))
    first = ranked[0]
    verdict = judge(
        limit(best[first], first), suspicious=SUSPICIOUS_EXCESS, shortcut=SHORTCUT_EXCESS
    )
    told = [
        f"{labels[k]} {show_interval(found.auroc(DECIDES, best[k], k), digits=2)} (the box alone "
        f"{control_auroc(found, best[k], k)['value']:.2f}; of what that leaves open "
        f"{show_interval(found.excess(best[k], k), digits=2)})"
        for k in ranked
    ]
    trained = {
        v: float(np.nanmean([found.auroc(v, WEIGHTED, k)["value"] for k in enough]))
        for v in ("whole", DECIDES)
    }
    ending = {
        "clear": "Little is told beyond where the lungs lie.",
        "suspicious": "Something around the lungs tells the class; find out what.",
        "shortcut": "A network trained on these images can score well without looking at a lung.",
        "skipped": "The figure is undefined.",
    }[verdict]
    sentence = (
        f"With both lungs under a black box ({found.visible[DECIDES]:.0%} of the image left to "
        f"see) the class is still told from the rest with AUROC {list_words(told)}, where 0.50 is "
        f"guessing (best of the networks and two linear models). The trained ensemble itself has "
        f"a mean AUROC of {trained['whole']:.2f} on whole images and {trained[DECIDES]:.2f} "
        f"under the box. {ending} {MEANING}"
    )
    without = len(found.images.test_rows) - len(found.every)
    reasons = thin + ([f"{without} test images without a mask take no part"] if without else [])
    metric = (
        f"share of what the box alone leaves open of {labels[first]} against the rest, "
        f"{DECIDES}, {best[first]}"
    )
    return AuditResult(
        NAME,
        TITLE,
        WHAT,
        verdict,
        sentence,
        figure_of(found.excess(best[first], first), metric=metric, chance=0.0),
        [_table(found), _excess_table(found)],
        "; ".join(reasons),
    )


def control_auroc(found: Hidden, model: str, k: int) -> Interval:
    """Return what the box alone tells of a class, on the model's images."""
    rows = found.rows(model)
    return auroc_interval(
        found.images.targets[rows] == k, found.control(model, k)[1], found.images.groups[rows]
    )


def _table(found: Hidden) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for model in found.models:
        images, everyone = found.rows(model), model == THUMBNAIL
        targets, groups = found.images.targets[images], found.images.groups[images]
        for variant in VARIANTS:
            hits = found.hits(variant, model)
            rows.append(
                (
                    model,
                    variant,
                    f"{found.visible[variant]:.0%}",
                    len(images),
                    # Drawn images do not have the classes' shares, so their accuracy says little.
                    show_interval(share_interval(hits, groups), digits=2) if everyone else None,
                    show_interval(balanced_interval(hits, targets, groups), digits=2),
                    *(
                        show_interval(found.auroc(variant, model, k), digits=2)
                        for k in range(len(found.images.labels))
                    ),
                )
            )
    heads = ("model", "image", "to see", "images", "accuracy", "balanced accuracy")
    return Table(
        "Test images with a lung mask, AUROC of each class against the rest",
        (*heads, *(f"AUROC {label}" for label in found.images.labels)),
        tuple(rows),
    )


def _excess_table(found: Hidden) -> Table:
    """Set each model's AUROC under the box beside that of the box alone, on the same images."""
    rows: list[tuple[Cell, ...]] = []
    for model in found.models:
        for k, label in enumerate(found.images.labels):
            name, control = found.control(model, k)
            own = found.rows(model)
            gain = auroc_gain(
                found.images.targets[own] == k,
                found.probs[DECIDES, model][:, k],
                control,
                found.images.groups[own],
            )
            figures = (
                found.auroc(DECIDES, model, k),
                control_auroc(found, model, k),
                gain,
                found.excess(model, k),
            )
            rows.append((model, label, name, *(show_interval(f, digits=2) for f in figures)))
    heads = (
        "model",
        "class",
        "control",
        "AUROC under the box",
        "AUROC of the box alone",
        "difference",
        "share of what it leaves open",
    )
    return Table("Beyond what the place of the box tells, same images", heads, tuple(rows))


def _example(images: Images, rows: Rows, rng: np.random.Generator) -> dict[str, Any]:
    """Return one image in every variant."""
    row = rows[[int(rng.integers(len(rows)))]]
    pixels, masks = np.asarray(images.pixels[row]), images.read_masks(row)
    return {variant: occlude(pixels, masks, variant)[0] for variant in VARIANTS}
