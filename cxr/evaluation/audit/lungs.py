"""Test 3: hide the lungs, then ask for the diagnosis. What still tells it is not the disease.

N films, F features, K classes, S side of prepared pixels.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cxr.data.decode import ShowProgress, no_progress
from cxr.evaluation.audit.figures import draw_lungs
from cxr.evaluation.audit.films import Films, Rows, draw_per_class
from cxr.evaluation.audit.hidden import (
    FEATURES,
    THUMBNAIL,
    Hidden,
    Known,
    network_probs,
    per_class,
    score_hidden,
    thumbnail_probs,
)
from cxr.evaluation.audit.occlude import VARIANTS, Variant, occlude
from cxr.evaluation.audit.result import (
    AuditResult,
    Cell,
    Table,
    figure_of,
    judge,
    list_words,
    skipped,
)
from cxr.evaluation.bootstrap import interval
from cxr.evaluation.tables import show_interval
from cxr.plotting import save_figure
from cxr.training.ensemble import WEIGHTED, Ensemble
from cxr.training.members import Member

NAME, TITLE = "lungs", "The diagnosis without the lungs"
WHAT = (
    "The lungs are covered on every film, in three ways, and the trained networks and two plain "
    "linear models are asked for the class. A lung disease cannot be seen on such a film; what "
    "is still told from it comes from elsewhere: the hospital, the machine, the patient's age."
)
CHANCE = 0.5
DECIDES: Variant = "box black"
"""The lungs' own outline may show the disease, a box around both cannot."""
SUSPICIOUS_AUROC = 0.65
"""A film of the class and one of another are then put in the right order two times in three."""
SHORTCUT_AUROC = 0.80
"""Four times in five, without a lung to look at: as well as many published classifiers do."""
FEWEST = 10
"""Films of a class below which its AUROC takes no part in the verdict."""
MOST_FIT, MOST_TEST = 120, 100
"""Films of a class that pass through the networks, whole and in each of four variants."""
RESAMPLES = 1000


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
    resamples: int = RESAMPLES,
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
        rng: draws films and resamples.
        folder: receives ``lungs.png``; no figure without it.
        note: what the films are.
        known: pooled features of films as they are; spares a pass, and films are drawn from
            these.
        most_fit: films of a class on which the linear model on features is trained.
        most_test: films of a class on which networks are tested.
        resamples: of groups, for the intervals.
        batch_size: films at once.
        progress: see ``ShowProgress``.

    Returns:
        The verdict is by the lower end of the best model's and class's AUROC on films under
        the box: from ``SUSPICIOUS_AUROC`` and from ``SHORTCUT_AUROC`` on.
    """
    fit, test = films.with_lungs(films.fit_rows), films.with_lungs(films.test_rows)
    counts = films.counts(test)
    enough = [label for label, count in counts.items() if count >= FEWEST]
    if len(enough) < 2 or len(np.unique(films.targets[fit])) < 2:
        return skipped(NAME, TITLE, WHAT, _why_not(films, counts))
    passed = [rows if known is None else np.intersect1d(rows, known.rows) for rows in (fit, test)]
    few_fit = draw_per_class(passed[0], films.targets, most_fit, rng)
    few_test = draw_per_class(passed[1], films.targets, most_test, rng)
    probs = network_probs(
        members, ensemble, films, (few_fit, few_test),
        known=known, batch_size=batch_size, progress=progress,
    )  # fmt: skip
    thumbs = thumbnail_probs(films, fit, test, progress)
    found = score_hidden(films, probs, few_test, thumbs, test, rng=rng, resamples=resamples)
    result = _judge(films, found, counts, enough, few_test)
    if folder is not None:
        shown = _example(films, few_test, rng)
        figure = draw_lungs(
            shown, _by_model(found, films.labels), labels=films.labels,
            marks=(SUSPICIOUS_AUROC, SHORTCUT_AUROC), note=note,
        )  # fmt: skip
        save_figure(figure, folder / f"{NAME}.png")
        result.figures.append(f"{NAME}.png")
    return result


def _by_model(
    found: Hidden, labels: tuple[str, ...]
) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """Return the AUROCs of the models that the figure shows: those that see everything."""
    aurocs = per_class(found, labels)
    return {
        model: {variant: aurocs[variant, model] for variant in VARIANTS}
        for model in (WEIGHTED, FEATURES, THUMBNAIL)
    }


def _why_not(films: Films, counts: Mapping[str, int]) -> str:
    if not films.has_mask.any():
        return "no film of this data set has a lung mask"
    shown = ", ".join(f"{count} {label}" for label, count in counts.items())
    return (
        f"too few films have a lung mask (test: {shown}); two classes need {FEWEST} each, and "
        "train needs both"
    )


def _judge(
    films: Films,
    found: Hidden,
    counts: Mapping[str, int],
    enough: list[str],
    few_test: Rows,
) -> AuditResult:
    aurocs = per_class(found, films.labels)
    models = list(dict.fromkeys(model for _, model in found.scores))

    def low(label: str, model: str) -> float:
        # Undefined ones come last.
        return float(np.nan_to_num(aurocs[DECIDES, model][label]["low"], nan=-1))

    best = {label: max(models, key=lambda model: low(label, model)) for label in enough}
    ranked = sorted(enough, key=lambda label: -low(label, best[label]))
    first = ranked[0]
    decisive = aurocs[DECIDES, best[first]][first]
    verdict = judge(decisive["low"], suspicious=SUSPICIOUS_AUROC, shortcut=SHORTCUT_AUROC)
    told = [f"{k} {show_interval(aurocs[DECIDES, best[k]][k], digits=2)}" for k in ranked]
    trained = {v: float(np.nanmean([aurocs[v, WEIGHTED][k]["value"] for k in enough]))
               for v in ("whole", DECIDES)}  # fmt: skip
    ending = {
        "clear": "Nothing to speak of is told from outside the lungs.",
        "suspicious": "Something outside the lungs tells the class; find out what.",
        "shortcut": "None of that can be lung disease: a network trained on these films can "
        "score well without looking at a lung.",
        "skipped": "The figure is undefined.",
    }[verdict]
    sentence = (
        f"With both lungs under a black box ({found.visible[DECIDES]:.0%} of the film left to see) "
        f"the class is still told from the rest with AUROC {list_words(told)}, where 0.50 is "
        f"guessing (best of the networks and two linear models). The trained ensemble itself has "
        f"a mean AUROC of {trained['whole']:.2f} on whole films and {trained[DECIDES]:.2f} "
        f"under the box. {ending}"
    )  # fmt: skip
    thin = [f"{label} ({count})" for label, count in counts.items() if label not in enough]
    without = len(films.test_rows) - len(found.rows["all"])
    reasons = [f"too few films with a mask to judge {list_words(thin)}"] if thin else []
    reasons += [f"{without} test films without a mask take no part"] if without else []
    metric = f"AUROC of {first} against the rest, {DECIDES}, {best[first]}"
    return AuditResult(
        NAME, TITLE, WHAT, verdict, sentence,
        figure_of(decisive, metric=metric, chance=CHANCE),
        [_table(films, found, aurocs, models, few_test)], "; ".join(reasons),
    )  # fmt: skip


def _table(
    films: Films,
    found: Hidden,
    aurocs: Mapping[tuple[Variant, str], Mapping[str, Mapping[str, float]]],
    models: list[str],
    few_test: Rows,
) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for model in models:
        for variant in VARIANTS:
            scores = found.scores[variant, model]
            everyone = model == THUMBNAIL
            count = len(found.rows["all"]) if everyone else len(few_test)
            rows.append((
                model, variant, f"{found.visible[variant]:.0%}", count,
                # Drawn films do not have the classes' shares, so their accuracy says little.
                show_interval(interval(scores["accuracy"]), digits=2) if everyone else None,
                show_interval(interval(scores["balanced_accuracy"]), digits=2),
                *(show_interval(aurocs[variant, model][k], digits=2) for k in films.labels),
            ))  # fmt: skip
    heads = ("model", "film", "to see", "films", "accuracy", "balanced accuracy")
    return Table(
        "Test films with a lung mask, AUROC of each class against the rest",
        (*heads, *(f"AUROC {label}" for label in films.labels)), tuple(rows),
    )  # fmt: skip


def _example(films: Films, rows: Rows, rng: np.random.Generator) -> dict[str, Any]:
    """Return one film in every variant."""
    row = rows[[int(rng.integers(len(rows)))]]
    pixels, masks = np.asarray(films.pixels[row]), films.read_masks(row)
    return {variant: occlude(pixels, masks, variant)[0] for variant in VARIANTS}
