"""Test 3: occlude the lungs, then ask for the diagnosis. What still tells it is not the disease.

F features, K classes, S side of prepared pixels.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from cxr.audit.audit_plots import draw_lungs
from cxr.audit.context import AuditContext, draw_per_class
from cxr.audit.limits import corrected, judgeable
from cxr.audit.occlude import VARIANTS, occlude
from cxr.audit.occluded_probs import DECIDES, FEATURES, THUMBNAIL, Occluded, occluded_models
from cxr.audit.result import AuditResult, AuditTable, AuditTest, Column, judge, statistic_of
from cxr.evaluation.tables import show_interval
from cxr.labels import list_words
from cxr.models.ensemble import WEIGHTED

TEST = AuditTest(
    "lungs",
    3,
    "Occlusion of the lungs",
    "The lungs are covered on every image, in three ways, and the trained networks and two plain "
    "linear models are asked for the class. A box over both lungs still shows where they lie and "
    "how large they are, so the same linear models are also given the box alone; what is told "
    "beyond it comes from the rest of the image: the hospital, the machine, the patient's age.",
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
ENDING = {
    "clear": "Little is told beyond where the lungs lie.",
    "suspicious": "Something around the lungs tells the class; find out what.",
    "shortcut": "A network trained on these images can score well without looking at a lung.",
    "skipped": "The statistic is undefined.",
}
MOST_FIT, MOST_TEST = 120, 100
"""Images of a class that pass through the networks, whole and in each other variant."""


def audit_lungs(context: AuditContext) -> AuditResult:
    """Measure what can be told with the lungs occluded, and with nothing but the lungs.

    The networks are taken as trained, and a linear model is trained anew on their pooled
    features of such images; another on a 16 x 16 thumbnail, which needs no network and so sees
    every image with a mask.

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
    targets, groups, labels = context.targets, context.groups, context.labels
    fit, test = context.with_lungs(context.fit_rows), context.with_lungs(context.test_rows)
    parts = {"fit images with a mask": fit, "test images with a mask": test}
    enough, thin = judgeable(parts, targets, groups, labels)
    if context.has_mask is None or not context.has_mask.any():
        return TEST.skipped("no image of this data set has a lung mask")
    if not enough:
        return TEST.skipped("; ".join(thin))
    rng = context.stream(TEST.number)
    few_fit = draw_per_class(fit, targets, MOST_FIT, rng)
    few_test = draw_per_class(test, targets, MOST_TEST, rng)
    occluded = occluded_models(context, fit, test, few_fit, few_test)
    result = _judge(context, occluded, enough, thin + context.mask_notes(test))
    models = (WEIGHTED, FEATURES, THUMBNAIL)
    aurocs = {model: _aurocs(occluded, model, labels) for model in models}
    row = few_test[[int(rng.integers(len(few_test)))]]
    pixels, mask = np.asarray(context.pixels[row]), context.read_masks(row)
    example: dict[str, Any] = {variant: occlude(pixels, mask, variant)[0] for variant in VARIANTS}
    return context.with_plot(
        result, lambda: draw_lungs(example, aurocs, labels=labels, note=context.note)
    )


def _aurocs(
    occluded: Occluded, model: str, labels: Sequence[str]
) -> dict[str, dict[str, dict[str, float]]]:
    """Return a model's AUROC per variant and class."""
    return {
        variant: {label: occluded.auroc(variant, model, k) for k, label in enumerate(labels)}
        for variant in VARIANTS
    }


def _judge(
    context: AuditContext, occluded: Occluded, enough: list[int], reasons: list[str]
) -> AuditResult:
    models, labels = occluded.models, context.labels
    confidence = corrected(len(enough) * len(models))
    lows = {
        (k, model): occluded.limit(model, k, confidence=confidence)
        for k in enough
        for model in models
    }
    # Undefined ones come last.
    ranks = {key: float(np.nan_to_num(low, nan=-9)) for key, low in lows.items()}
    best = {k: max(models, key=lambda model: ranks[k, model]) for k in enough}
    ranked = sorted(enough, key=lambda k: -ranks[k, best[k]])
    first = ranked[0]
    verdict = judge(
        lows[first, best[first]], suspicious=SUSPICIOUS_EXCESS, shortcut=SHORTCUT_EXCESS
    )
    by_class = [
        f"{labels[k]} {show_interval(occluded.auroc(DECIDES, best[k], k), digits=2)} (the box "
        f"alone {occluded.control_auroc(best[k], k)['value']:.2f}; of what that leaves open "
        f"{show_interval(occluded.excess(best[k], k), digits=2)})"
        for k in ranked
    ]
    whole, boxed = (
        float(np.nanmean([occluded.auroc(variant, WEIGHTED, k)["value"] for k in enough]))
        for variant in ("whole", DECIDES)
    )
    sentence = (
        f"With both lungs under a black box ({occluded.visible[DECIDES]:.0%} of the image left to "
        f"see) the class is still told from the rest with AUROC {list_words(by_class)}, where 0.50 "
        f"is guessing (best of the networks and two linear models). The trained ensemble itself "
        f"has a mean AUROC of {whole:.2f} on whole images and {boxed:.2f} under the box. "
        f"{ENDING[verdict]} {MEANING}"
    )
    metric = (
        f"share of what the box alone leaves open of {labels[first]} against the rest, box black, "
        f"{best[first]}"
    )
    every = occluded.every
    return TEST.result(
        verdict,
        sentence,
        statistic_of(occluded.excess(best[first], first), "excess", metric, chance=0.0),
        values={
            "accuracy": {name: every.accuracy((name, THUMBNAIL)) for name in VARIANTS},
            "auroc": _aurocs(occluded, THUMBNAIL, labels),
        },
        tables=[_table(occluded, labels), _excess_table(occluded, labels)],
        reason="; ".join(reasons),
    )


def _table(occluded: Occluded, labels: Sequence[str]) -> AuditTable:
    rows = []
    for model in occluded.models:
        scored = occluded.scored(model)
        for variant in VARIANTS:
            name = (variant, model)
            # Drawn images do not have the classes' shares, so their accuracy says little.
            accuracy = scored.accuracy(name) if model == THUMBNAIL else None
            aurocs = (scored.auroc(name, k) for k in range(len(labels)))
            image = variant.replace("_", " "), occluded.visible[variant], len(scored.targets)
            rows.append((model, *image, accuracy, scored.balanced_accuracy(name), *aurocs))
    columns = (
        *(Column("model"), Column("image"), Column("visible", "to see", "share")),
        Column("images", kind="count"),
        *(Column(name, "", "interval", 2) for name in ("accuracy", "balanced_accuracy")),
        *(Column(f"auroc_{label}", f"AUROC {label}", "interval", 2) for label in labels),
    )
    title = "Test images with a lung mask, AUROC of each class against the rest"
    return AuditTable("variants", title, columns, tuple(rows))


def _excess_table(occluded: Occluded, labels: Sequence[str]) -> AuditTable:
    """Set each model's AUROC under the box beside that of the box alone, on the same images."""
    rows = []
    for model in occluded.models:
        for k, label in enumerate(labels):
            own, alone = occluded.auroc(DECIDES, model, k), occluded.control_auroc(model, k)
            told = (own, alone, occluded.gain(model, k), occluded.excess(model, k))
            rows.append((model, label, occluded.control(model, k)[1], *told))
    columns = (
        *(Column("model"), Column("class"), Column("control")),
        Column("box_auroc", "AUROC under the box", "interval", 2),
        Column("control_auroc", "AUROC of the box alone", "interval", 2),
        Column("difference", "", "interval", 2),
        Column("excess", "share of what it leaves open", "interval", 2),
    )
    title = "Beyond what the place of the box tells, same images"
    return AuditTable("excess", title, columns, tuple(rows))
