"""Test 7: does the prediction hang on what the maps mark? N images, L fractions of the image."""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxr.audit.attention_plots import draw_faithfulness
from cxr.audit.context import Floats, Images, Rows, draw_per_class, mean_intervals
from cxr.audit.result import AuditResult, Verdict, figure_of, skipped
from cxr.data.decode import ShowProgress, no_progress
from cxr.evaluation.tables import Cell, Table, show_interval
from cxr.explain.faithfulness import (
    FRACTIONS,
    Maps,
    Mode,
    Predict,
    area_under,
    edge_maps,
    end_points,
    perturbation_curve,
    to_cells,
)
from cxr.explain.gradcam import ensemble_cam, member_maps
from cxr.explain.library import CLOSED_FORM
from cxr.models.build import Member
from cxr.models.ensemble import WEIGHTED, Ensemble, all_probs
from cxr.plotting import save_figure
from cxr.training.inference import predict_logits

NAME, TITLE = "faithfulness", "Do the maps tell what the prediction hangs on"
WHAT = (
    "The places that a map marks most are covered first (deletion), or shown first on a blurred "
    "image (insertion), and the probability of the predicted class is followed. A map that tells "
    "what the prediction hangs on makes it fall, or rise, sooner than a random map does, and "
    "than the mere edges of the image."
)
METHODS = (CLOSED_FORM, "LayerCAM", "GradCAMPlusPlus")
RANDOM, EDGES = "random", "edges"
IMAGES = 48
"""Test images, as many of each class. Each passes through the networks 75 times."""
FEWEST = 16
"""Images below which the interval would be too wide to say anything."""
RESAMPLES = 2000
MODES: tuple[Mode, ...] = ("insertion", "deletion")
Interval = dict[str, float]


@dataclass(frozen=True)
class Faith:
    """One method's scores.

    Attributes:
        insertion: area under the curve, the more the better.
        deletion: likewise, the less the better.
        score: insertion - deletion.
        over: paired, by how much the score exceeds that of each baseline.
        curves: per mode (L,), the mean probability.
    """

    insertion: Interval
    deletion: Interval
    score: Interval
    over: dict[str, Interval]
    curves: dict[str, Floats]


def audit_faithfulness(
    members: Mapping[str, Member],
    ensemble: Ensemble,
    images: Images,
    *,
    rng: np.random.Generator,
    folder: Path | None = None,
    note: str = "",
    count: int = IMAGES,
    methods: tuple[str, ...] = METHODS,
    resamples: int = RESAMPLES,
    batch_size: int = 32,
    progress: ShowProgress = no_progress,
) -> AuditResult:
    """Measure insertion and deletion of the ensemble's maps against two baselines.

    What is measured is what a user sees: the ensemble's map of the predicted class and the
    ensemble's probability. The baselines, random values and the strength of edges, are laid on
    the members' cells and averaged as their maps are, so that only the places differ and not
    the size of the patches.

    Args:
        members: the trained networks.
        ensemble: their temperatures and weights.
        images: test images are drawn from these.
        rng: draws images, random maps and resamples.
        folder: receives ``faithfulness.png``; no figure without it.
        note: what the images are.
        count: test images drawn.
        methods: ``closed_form`` or a method of pytorch-grad-cam; the first decides.
        resamples: of groups, for the intervals.
        batch_size: images at once.
        progress: see ``ShowProgress``.

    Returns:
        Suspicious where the first method is not better than both baselines by more than
        chance explains. A map that fails misleads; it is no shortcut of the network.

    Raises:
        InputError: an unknown method.
    """
    rows = draw_per_class(images.test_rows, images.targets, -(-count // len(images.labels)), rng)
    if len(rows) < FEWEST:
        reason = f"{len(rows)} test images are too few, {FEWEST} are needed"
        return skipped(NAME, TITLE, WHAT, reason)
    names = (*methods, RANDOM, EDGES)
    passes = 5 + 2 * (len(FRACTIONS) - 2) * len(names)
    with progress("maps put to the test", len(rows) * len(members) * passes) as done:
        pixels, everyone = np.asarray(images.pixels[rows]), np.arange(len(rows))

        def probs(shown: NDArray[np.uint8]) -> Floats:
            logits = {
                name: predict_logits(member, shown, everyone, batch_size=batch_size, on_image=done)
                for name, member in members.items()
            }
            return np.asarray(all_probs(logits, ensemble)[WEIGHTED], np.float64)

        classes = probs(pixels).argmax(axis=1)
        maps = _maps(members, ensemble, pixels, classes, methods, rng=rng, batch_size=batch_size)
        found = _measure(
            lambda shown: probs(shown)[everyone, classes],
            pixels,
            maps,
            images.groups[rows],
            rng=rng,
            resamples=resamples,
        )
    result = _judge(found, methods[0], len(rows))
    if folder is not None:
        figure = draw_faithfulness(
            {name: part.curves for name, part in found.items()},
            {name: part.score for name, part in found.items()},
            FRACTIONS,
            baselines=(RANDOM, EDGES),
            images=len(rows),
            note=note,
        )
        save_figure(figure, folder / f"{NAME}.png")
        result.figures.append(f"{NAME}.png")
    return result


def _maps(
    members: Mapping[str, Member],
    ensemble: Ensemble,
    pixels: NDArray[np.uint8],
    classes: Rows,
    methods: tuple[str, ...],
    *,
    rng: np.random.Generator,
    batch_size: int,
) -> dict[str, Maps]:
    """Return the ensemble's maps (N, S, S) by every method and baseline."""
    everyone, side = np.arange(len(pixels)), pixels.shape[-1]
    # Weights that a pass in inference mode has moved know no gradient; copies do.
    networks = {name: copy.deepcopy(member) for name, member in members.items()}

    def by(method: str) -> dict[str, Maps]:
        return {
            name: member_maps(
                network, pixels, everyone, classes, method=method, batch_size=batch_size
            )
            for name, network in networks.items()
        }

    grids = {name: values.shape[1:] for name, values in by(CLOSED_FORM).items()}
    edges = edge_maps(pixels)
    raw = {method: by(method) for method in methods} | {
        RANDOM: {
            name: rng.random((len(pixels), *grid), dtype=np.float32) for name, grid in grids.items()
        },
        EDGES: {name: to_cells(edges, grid) for name, grid in grids.items()},
    }
    return {name: ensemble_cam(parts, ensemble.weights, side) for name, parts in raw.items()}


def _measure(
    predict: Predict,
    pixels: NDArray[np.uint8],
    maps: Mapping[str, Maps],
    groups: NDArray[np.str_],
    *,
    rng: np.random.Generator,
    resamples: int,
) -> dict[str, Faith]:
    ends = {mode: end_points(predict, pixels, mode) for mode in MODES}
    curves = {
        name: {
            mode: perturbation_curve(predict, pixels, values, mode, rng=rng, ends=ends[mode])
            for mode in MODES
        }
        for name, values in maps.items()
    }
    areas = {
        name: {mode: area_under(part[mode]) for mode in MODES} for name, part in curves.items()
    }
    score = {name: part["insertion"] - part["deletion"] for name, part in areas.items()}
    columns = [
        column
        for name in maps
        for column in (
            areas[name]["insertion"],
            areas[name]["deletion"],
            score[name],
            score[name] - score[RANDOM],
            score[name] - score[EDGES],
        )
    ]
    means = mean_intervals(np.stack(columns, axis=1), groups, rng=rng, resamples=resamples)
    found = {}
    for place, name in enumerate(maps):
        inserted, deleted, difference, over_random, over_edges = means[5 * place : 5 * place + 5]
        found[name] = Faith(
            inserted,
            deleted,
            difference,
            {RANDOM: over_random, EDGES: over_edges},
            {mode: values.mean(axis=0) for mode, values in curves[name].items()},
        )
    return found


def _judge(found: Mapping[str, Faith], method: str, count: int) -> AuditResult:
    first = found[method]
    lows = [first.over[name]["low"] for name in (RANDOM, EDGES)]
    better = [name for name, low in zip((RANDOM, EDGES), lows, strict=True) if low > 0]
    verdict: Verdict = "clear" if len(better) == 2 else "suspicious"
    if any(math.isnan(low) for low in lows):
        verdict = "skipped"
    ending = {
        2: "The maps tell what the prediction hangs on better than chance and than mere edges.",
        1: f"The maps beat the {(better or [''])[0]} baseline alone.",
        0: "The maps are no better than chance or edges: they must not be read as a reason.",
    }[len(better)]
    sentence = (
        f"Insertion minus deletion of the maps that users see is "
        f"{show_interval(first.score, digits=2)} on {count} test images; a random map has "
        f"{found[RANDOM].score['value']:.2f} (difference "
        f"{show_interval(first.over[RANDOM], digits=2)}), the image's edges "
        f"{found[EDGES].score['value']:.2f} (difference "
        f"{show_interval(first.over[EDGES], digits=2)}). {ending}"
    )
    rows: list[tuple[Cell, ...]] = [
        (
            name,
            *(
                show_interval(value, digits=2)
                for value in (
                    part.insertion,
                    part.deletion,
                    part.score,
                    part.over[RANDOM],
                    part.over[EDGES],
                )
            ),
        )
        for name, part in found.items()
    ]
    heads = ("map", "insertion", "deletion", "insertion - deletion", "over random", "over edges")
    return AuditResult(
        NAME,
        TITLE,
        WHAT,
        verdict,
        sentence,
        figure_of(
            first.score,
            metric=f"insertion - deletion, {method}",
            chance=found[RANDOM].score["value"],
        ),
        [Table(f"Area under the curves, {count} images", heads, tuple(rows))],
    )
