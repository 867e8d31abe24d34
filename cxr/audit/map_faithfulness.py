"""Test 7: does the prediction hang on what the maps mark? N images, L fractions of the image."""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from cxr.audit.audit_plots import draw_faithfulness
from cxr.audit.context import (
    AuditContext,
    Floats,
    Interval,
    Pixels,
    Rows,
    draw_per_class,
    mean_intervals,
)
from cxr.audit.result import AuditResult, AuditTable, AuditTest, Cell, Column, Verdict, statistic_of
from cxr.evaluation.tables import show_interval
from cxr.explain import faithfulness
from cxr.explain.faithfulness import FRACTIONS, Maps, Mode, Predict
from cxr.explain.gradcam import ensemble_cam, member_maps
from cxr.explain.library import CLOSED_FORM
from cxr.models.ensemble import WEIGHTED

TEST = AuditTest(
    "faithfulness",
    7,
    "Faithfulness of the maps",
    "The places that a map marks most are covered first (deletion), or shown first on a blurred "
    "image (insertion), and the probability of the predicted class is followed. A map that tells "
    "what the prediction hangs on makes it fall, or rise, sooner than a random map does, and "
    "than the mere edges of the image.",
)
METHODS = (CLOSED_FORM, "LayerCAM", "GradCAMPlusPlus")
RANDOM, EDGES = "random", "edges"
IMAGES = 48
"""Test images, as many of each class. Each passes through the networks 75 times."""
FEWEST = 16
"""Images below which the interval would be too wide to say anything."""
MODES: tuple[Mode, ...] = ("insertion", "deletion")


@dataclass(frozen=True)
class Faith:
    """One method's insertion, deletion, score (the first less the second), and curves (L,) by mode.

    ``over`` is by how much the score exceeds that of each baseline, paired.
    """

    insertion: Interval
    deletion: Interval
    score: Interval
    over: dict[str, Interval]
    curves: dict[Mode, Floats]


def audit_faithfulness(
    context: AuditContext, *, count: int = IMAGES, methods: tuple[str, ...] = METHODS
) -> AuditResult:
    """Measure insertion and deletion of the ensemble's maps against two baselines.

    What is measured is what a user sees: the ensemble's map of the predicted class and the
    ensemble's probability. The baselines, random values and the strength of edges, are laid on
    the members' cells and averaged as their maps are, so that only the places differ and not
    the size of the patches. ``count`` test images are drawn; methods are ``closed_form`` or those
    of pytorch-grad-cam, and the first decides.

    Returns:
        Suspicious where the first method is not better than both baselines by more than
        chance explains. A map that fails misleads; it is no shortcut of the network.

    Raises:
        InputError: an unknown method.
    """
    rng = context.stream(TEST.number)
    each = -(-count // len(context.labels))
    rows = draw_per_class(context.test_rows, context.targets, each, rng)
    if len(rows) < FEWEST:
        return TEST.skipped(f"{len(rows)} test images are too few, {FEWEST} are needed")
    passes = 5 + 2 * (len(FRACTIONS) - 2) * (len(methods) + 2)
    pixels, everyone = np.asarray(context.pixels[rows]), np.arange(len(rows))
    total = len(rows) * len(context.members) * passes
    with context.progress("maps put to the test", total) as done:

        def probs(shown: Pixels) -> Floats:
            return np.asarray(context.predict(shown, done)[WEIGHTED], np.float64)

        classes = probs(pixels).argmax(axis=1)
        maps = _maps(context, pixels, classes, methods, rng)
        curves = _curves(lambda shown: probs(shown)[everyone, classes], pixels, maps, rng)
    faiths = _score(context, curves, rows, rng)
    return context.with_plot(
        _judge(faiths, methods[0], len(rows)),
        lambda: draw_faithfulness(
            {name: part.curves for name, part in faiths.items()},
            {name: part.score for name, part in faiths.items()},
            FRACTIONS,
            baselines=(RANDOM, EDGES),
            images=len(rows),
            note=context.note,
        ),
    )


def _maps(
    context: AuditContext,
    pixels: Pixels,
    classes: Rows,
    methods: tuple[str, ...],
    rng: np.random.Generator,
) -> dict[str, Maps]:
    """Return the ensemble's maps (N, S, S) by every method and baseline."""
    everyone, weights, size = np.arange(len(pixels)), context.ensemble.weights, context.batch_size
    # Weights that a pass in inference mode has moved know no gradient; copies do.
    networks = {name: copy.deepcopy(member) for name, member in context.members.items()}

    def by(method: str) -> dict[str, Maps]:
        return {
            name: member_maps(network, pixels, everyone, classes, method=method, batch_size=size)
            for name, network in networks.items()
        }

    grids = {name: maps.shape[1:] for name, maps in by(CLOSED_FORM).items()}
    edges = faithfulness.edge_maps(pixels)
    raw = {method: by(method) for method in methods}
    raw[RANDOM] = {
        name: rng.random((len(pixels), *grid), dtype=np.float32) for name, grid in grids.items()
    }
    raw[EDGES] = {name: faithfulness.to_cells(edges, grid) for name, grid in grids.items()}
    return {name: ensemble_cam(parts, weights, context.side_px) for name, parts in raw.items()}


def _curves(
    predict: Predict, pixels: Pixels, maps: Mapping[str, Maps], rng: np.random.Generator
) -> dict[str, dict[Mode, Floats]]:
    """Return, per map and mode, (N, L) probabilities."""
    ends = {mode: faithfulness.end_points(predict, pixels, mode) for mode in MODES}
    curve, curves = partial(faithfulness.perturbation_curve, predict, pixels), {}
    for name, values in maps.items():
        curves[name] = {mode: curve(values, mode, rng=rng, ends=ends[mode]) for mode in MODES}
    return curves


def _score(
    context: AuditContext,
    curves: Mapping[str, Mapping[Mode, Floats]],
    rows: Rows,
    rng: np.random.Generator,
) -> dict[str, Faith]:
    area = faithfulness.area_under
    areas = {name: [area(part[mode]) for mode in MODES] for name, part in curves.items()}
    score = {name: inserted - deleted for name, (inserted, deleted) in areas.items()}
    columns = []
    for name, own in score.items():
        columns += [*areas[name], own, *(own - score[other] for other in (RANDOM, EDGES))]
    groups, resamples = context.groups[rows], context.resamples
    means = mean_intervals(np.stack(columns, axis=1), groups, rng=rng, resamples=resamples)
    faiths = {}
    for place, (name, part) in enumerate(curves.items()):
        inserted, deleted, total, over_random, over_edges = means[5 * place : 5 * place + 5]
        over = {RANDOM: over_random, EDGES: over_edges}
        mean_curves = {mode: values.mean(axis=0) for mode, values in part.items()}
        faiths[name] = Faith(inserted, deleted, total, over, mean_curves)
    return faiths


def _judge(faiths: Mapping[str, Faith], method: str, count: int) -> AuditResult:
    first = faiths[method]
    lows = {name: over["low"] for name, over in first.over.items()}
    better = [name for name, low in lows.items() if low > 0]
    verdict: Verdict = "clear" if len(better) == 2 else "suspicious"
    if any(map(math.isnan, lows.values())):
        verdict = "skipped"
    ending = {
        2: "The maps tell what the prediction hangs on better than chance and than mere edges.",
        1: f"The maps beat the {(better or [''])[0]} baseline alone.",
        0: "The maps are no better than chance or edges: they must not be read as a reason.",
    }[len(better)]
    score, by_chance = first.score, faiths[RANDOM].score["value"]
    sentence = (
        f"Insertion minus deletion of the maps that users see is {show_interval(score, digits=2)} "
        f"on {count} test images; a random map has {by_chance:.2f} (difference "
        f"{show_interval(first.over[RANDOM], digits=2)}), the image's edges "
        f"{faiths[EDGES].score['value']:.2f} (difference "
        f"{show_interval(first.over[EDGES], digits=2)}). {ending}"
    )
    rows: list[tuple[Cell, ...]] = [
        (name, part.insertion, part.deletion, part.score, *part.over.values())
        for name, part in faiths.items()
    ]
    columns = (
        Column("map"),
        *(Column(name, "", "interval", 2) for name in ("insertion", "deletion")),
        Column("score", "insertion - deletion", "interval", 2),
        *(Column(f"over_{name}", "", "interval", 2) for name in (RANDOM, EDGES)),
    )
    title = f"Area under the curves, {count} images"
    return TEST.result(
        verdict,
        sentence,
        statistic_of(score, "score", f"insertion - deletion, {method}", chance=by_chance),
        values={"score": score, "over": first.over},
        tables=[AuditTable("areas", title, columns, tuple(rows))],
    )
