"""Test 3: hide the lungs, then ask for the diagnosis. What still tells it is not the disease.

N films, F features, K classes, S side of prepared pixels.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cxr.audit.audit_plots import draw_lungs
from cxr.audit.context import Films, Rows, draw_per_class
from cxr.audit.limits import (
    Interval,
    auroc_gain,
    balanced_interval,
    corrected,
    shortages,
    too_few,
)
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
    "The lungs are covered on every film, in three ways, and the trained networks and two plain "
    "linear models are asked for the class. A box over both lungs still shows where they lie and "
    "how large they are, so the same linear models are also given the box alone; what is told "
    "beyond it comes from the rest of the film: the hospital, the machine, the patient's age."
)
SUSPICIOUS_EXCESS = 0.30
"""Of the pairs that the box alone leaves open. An AUROC of 0.65 where the box tells nothing: a
film of the class and one of another are put in the right order two times in three."""
SHORTCUT_EXCESS = 0.60
"""An AUROC of 0.80 where the box tells nothing, as well as many published classifiers do."""
MEANING = (
    "It can be the hospital, the machine, the patient's age or position; it can also be disease "
    "that reaches beyond the lungs' outline, or that the outline left out."
)
"""What a finding does not tell apart."""
MOST_FIT, MOST_TEST = 120, 100
"""Films of a class that pass through the networks, whole and in each other variant."""


def audit_lungs(
    members: Mapping[str, Member],
    ensemble: Ensemble,
    films: Films,
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
    features of such films; another on a 16 x 16 thumbnail, which needs no network and so sees
    every film with a mask.

    Args:
        members: the trained networks.
        ensemble: their temperatures and weights.
        films: only those with a mask take part.
        rng: draws films.
        folder: receives ``lungs.png``; no figure without it.
        note: what the films are.
        known: pooled features of films as they are; spares a pass, and films are drawn from
            these.
        most_fit: films of a class on which the linear model on features is trained.
        most_test: films of a class on which networks are tested.
        batch_size: films at once.
        progress: see ``ShowProgress``.

    Returns:
        The verdict is by what the best model tells of a class from the film around the box
        beyond what the box alone tells: the lower limit of ``auroc_excess`` (at 1 - 0.05 /
        comparisons, one-sided) from ``SUSPICIOUS_EXCESS`` and from ``SHORTCUT_EXCESS`` on.

    One box for all films would tell nothing by its place; but to cover the lungs of 98 % of the
    films of cxr4 it must cover 94 % of the film, and what is left is the left and right border,
    which the baselines see. So each film keeps its box, and what that tells is taken off.
    Regressing the scores on the box's coordinates instead leaves an AUROC of up to 0.8 where
    the scores are a function of the box and nothing else; a model of the same kind leaves 0.5.
    """
    fit, test = films.with_lungs(films.fit_rows), films.with_lungs(films.test_rows)
    short = {where: shortages(films.targets[rows], films.groups[rows], films.labels)
             for where, rows in (("fit", fit), ("test", test))}  # fmt: skip
    enough = [
        k for k, label in enumerate(films.labels) if not any(s[label] for s in short.values())
    ]
    thin = [reason for where, part in short.items()
            for reason in too_few(part, f"{where} films with a mask")]  # fmt: skip
    if not films.has_mask.any():
        return skipped(NAME, TITLE, WHAT, "no film of this data set has a lung mask")
    if not enough:
        return skipped(NAME, TITLE, WHAT, "; ".join(thin))
    passed = [rows if known is None else np.intersect1d(rows, known.rows) for rows in (fit, test)]
    few_fit = draw_per_class(passed[0], films.targets, most_fit, rng)
    few_test = draw_per_class(passed[1], films.targets, most_test, rng)
    probs = network_probs(
        members, ensemble, films, (few_fit, few_test),
        known=known, batch_size=batch_size, progress=progress,
    )  # fmt: skip
    thumbs = thumbnail_probs(films, fit, test, progress)
    masks = films.read_masks(few_test)
    visible = {variant: visible_share(masks, variant) for variant in VARIANTS}
    every = {(variant, THUMBNAIL): values for variant, values in thumbs.items()}
    found = Hidden(films, probs | every, few_test, test, visible)
    result = _judge(found, enough, thin)
    if folder is not None:
        aurocs: dict[str, dict[str, dict[str, Interval]]] = {
            model: {variant: {label: found.auroc(variant, model, k)
                              for k, label in enumerate(films.labels)} for variant in VARIANTS}
            for model in (WEIGHTED, FEATURES, THUMBNAIL)
        }  # fmt: skip
        figure = draw_lungs(_example(films, few_test, rng), aurocs, labels=films.labels, note=note)
        save_figure(figure, folder / f"{NAME}.png")
        result.figures.append(f"{NAME}.png")
    return result


def _judge(found: Hidden, enough: list[int], thin: list[str]) -> AuditResult:
    labels, confidence = found.films.labels, corrected(len(enough) * len(found.models))

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
        limit(best[first], first), suspicious=SUSPICIOUS_EXCESS, shortcut=SHORTCUT_EXCESS,
    )  # fmt: skip
    told = [
        f"{labels[k]} {show_interval(found.auroc(DECIDES, best[k], k), digits=2)} (the box alone "
        f"{control_auroc(found, best[k], k)['value']:.2f}; of what that leaves open "
        f"{show_interval(found.excess(best[k], k), digits=2)})" for k in ranked
    ]  # fmt: skip
    trained = {v: float(np.nanmean([found.auroc(v, WEIGHTED, k)["value"] for k in enough]))
               for v in ("whole", DECIDES)}  # fmt: skip
    ending = {
        "clear": "Little is told beyond where the lungs lie.",
        "suspicious": "Something around the lungs tells the class; find out what.",
        "shortcut": "A network trained on these films can score well without looking at a lung.",
        "skipped": "The figure is undefined.",
    }[verdict]
    sentence = (
        f"With both lungs under a black box ({found.visible[DECIDES]:.0%} of the film left to see) "
        f"the class is still told from the rest with AUROC {list_words(told)}, where 0.50 is "
        f"guessing (best of the networks and two linear models). The trained ensemble itself has "
        f"a mean AUROC of {trained['whole']:.2f} on whole films and {trained[DECIDES]:.2f} "
        f"under the box. {ending} {MEANING}"
    )  # fmt: skip
    without = len(found.films.test_rows) - len(found.every)
    reasons = thin + ([f"{without} test films without a mask take no part"] if without else [])
    metric = (
        f"share of what the box alone leaves open of {labels[first]} against the rest, "
        f"{DECIDES}, {best[first]}"
    )
    return AuditResult(
        NAME, TITLE, WHAT, verdict, sentence,
        figure_of(found.excess(best[first], first), metric=metric, chance=0.0),
        [_table(found), _excess_table(found)], "; ".join(reasons),
    )  # fmt: skip


def control_auroc(found: Hidden, model: str, k: int) -> Interval:
    """Return what the box alone tells of a class, on the model's films."""
    rows = found.rows(model)
    return auroc_interval(
        found.films.targets[rows] == k, found.control(model, k)[1], found.films.groups[rows]
    )


def _table(found: Hidden) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for model in found.models:
        films, everyone = found.rows(model), model == THUMBNAIL
        targets, groups = found.films.targets[films], found.films.groups[films]
        for variant in VARIANTS:
            hits = found.hits(variant, model)
            rows.append((
                model, variant, f"{found.visible[variant]:.0%}", len(films),
                # Drawn films do not have the classes' shares, so their accuracy says little.
                show_interval(share_interval(hits, groups), digits=2) if everyone else None,
                show_interval(balanced_interval(hits, targets, groups), digits=2),
                *(show_interval(found.auroc(variant, model, k), digits=2)
                  for k in range(len(found.films.labels))),
            ))  # fmt: skip
    heads = ("model", "film", "to see", "films", "accuracy", "balanced accuracy")
    return Table(
        "Test films with a lung mask, AUROC of each class against the rest",
        (*heads, *(f"AUROC {label}" for label in found.films.labels)), tuple(rows),
    )  # fmt: skip


def _excess_table(found: Hidden) -> Table:
    """Set each model's AUROC under the box beside that of the box alone, on the same films."""
    rows: list[tuple[Cell, ...]] = []
    for model in found.models:
        for k, label in enumerate(found.films.labels):
            name, control = found.control(model, k)
            own = found.rows(model)
            gain = auroc_gain(
                found.films.targets[own] == k, found.probs[DECIDES, model][:, k], control,
                found.films.groups[own],
            )  # fmt: skip
            figures = (found.auroc(DECIDES, model, k), control_auroc(found, model, k), gain,
                       found.excess(model, k))  # fmt: skip
            rows.append((model, label, name, *(show_interval(f, digits=2) for f in figures)))
    heads = ("model", "class", "control", "AUROC under the box", "AUROC of the box alone",
             "difference", "share of what it leaves open")  # fmt: skip
    return Table("Beyond what the place of the box tells, same films", heads, tuple(rows))


def _example(films: Films, rows: Rows, rng: np.random.Generator) -> dict[str, Any]:
    """Return one film in every variant."""
    row = rows[[int(rng.integers(len(rows)))]]
    pixels, masks = np.asarray(films.pixels[row]), films.read_masks(row)
    return {variant: occlude(pixels, masks, variant)[0] for variant in VARIANTS}
