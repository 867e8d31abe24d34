"""Figures of the tests of maps: where they look, and whether they tell the truth."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cxr.audit.heat_inside import Cascade, Inside
from cxr.models.ensemble import WEIGHTED
from cxr.plotting import DASHES, GRAYS, INK, OKABE_ITO, class_colours, new_figure, style_axes

Interval = Mapping[str, float]
Floats = NDArray[np.float64]
EDGE = "#777777"


def draw_attention(
    inside: Mapping[tuple[str, str], Inside],
    cascades: Mapping[str, Cascade],
    *,
    labels: Sequence[str],
    note: str,
) -> Figure:
    """Draw the heat inside the lungs per class, and the maps' likeness while weights go.

    Args:
        inside: per model and class; empty where there are no masks.
        cascades: per member.
        labels: the classes.
        note: what the images are.
    """
    panels = 1 + bool(inside)
    figure = new_figure(
        5.0 * panels,
        4.4,
        title="Where the maps look, and whether they show what was learned",
        note=note,
    )
    if inside:
        _draw_inside(figure.add_subplot(1, panels, 1), inside, labels)
    _draw_cascades(figure.add_subplot(1, panels, panels), cascades)
    return figure


def _draw_inside(
    axes: Axes, inside: Mapping[tuple[str, str], Inside], labels: Sequence[str]
) -> None:
    style_axes(axes, title="heat of the true class's map", y_label="share inside the lungs [95 %]")
    colours = class_colours(labels)
    shown = [label for label in labels if (WEIGHTED, label) in inside]
    models = list(dict.fromkeys(model for model, _ in inside))
    for place, label in enumerate(shown):
        for order, model in enumerate(models):
            part = inside[model, label]
            x = place + (order - (len(models) - 1) / 2) * 0.2
            value = part.energy["value"]
            error = [[abs(value - part.energy["low"])], [abs(part.energy["high"] - value)]]
            whole = model == WEIGHTED
            axes.errorbar(
                x,
                value,
                yerr=error,
                fmt="os^DvP"[order % 6],
                markersize=6 if whole else 4.5,
                color=colours[label] if whole else GRAYS[order % len(GRAYS)],
                linewidth=1.4,
                label=model if place == 0 else "_",
            )
        part = inside[WEIGHTED, label]
        for value, style, name in (
            (part.area["value"], "-", "lungs' share of the image (an even map)"),
            (part.ceiling["value"], ":", "a map of the lungs themselves"),
        ):
            axes.hlines(
                value,
                place - 0.38,
                place + 0.38,
                color=INK,
                linestyle=style,
                linewidth=1.3,
                label=name if place == 0 else "_",
            )
    axes.set_xticks(
        range(len(shown)), [f"{label}\n(n = {inside[WEIGHTED, label].images})" for label in shown]
    )
    axes.set(xlim=(-0.6, len(shown) - 0.4), ylim=(0, 1))
    axes.legend(fontsize=7, loc="upper left", framealpha=0.9, edgecolor="none", ncols=2)


def _draw_cascades(axes: Axes, cascades: Mapping[str, Cascade]) -> None:
    style_axes(
        axes,
        title="weights at random, from the head down",
        x_label="share of the steps done (0: as trained, 1: nothing learned is left)",
        y_label="rank correlation with the trained map [95 %]",
    )
    axes.axhline(0, color=EDGE, linewidth=0.8)
    for order, (name, part) in enumerate(cascades.items()):
        values, low, high = (
            np.array([found[key] for found in part.similarity]) for key in ("value", "low", "high")
        )
        steps = np.linspace(0, 1, len(values))
        colour = OKABE_ITO[2 + order % 4]
        axes.plot(steps, values, color=colour, marker="os^D"[order % 4], markersize=4, label=name)
        axes.fill_between(steps, low, high, color=colour, alpha=0.18, linewidth=0)
        axes.axhline(
            part.other_image["value"],
            color=colour,
            linewidth=1.0,
            linestyle=DASHES[order % 4],
            label=f"{name}, another image of the class",
        )
    axes.set_ylim(-0.45, 1.05)
    axes.legend(fontsize=7, loc="upper right", framealpha=0.9, edgecolor="none")


def draw_faithfulness(
    curves: Mapping[str, Mapping[str, Floats]],
    scores: Mapping[str, Interval],
    fractions: Sequence[float],
    *,
    baselines: Sequence[str],
    images: int,
    note: str,
) -> Figure:
    """Draw the probability against the share of the image shown or covered, and the scores.

    Args:
        curves: per map, and mode of perturbation, the mean probabilities (L,).
        scores: per map insertion - deletion.
        fractions: L shares of the image.
        baselines: those of the maps that no network had a part in.
        images: how many.
        note: what they are.
    """
    figure = new_figure(
        11.5,
        3.9,
        title=f"Does the prediction hang on what the maps mark? ({images} test images)",
        note=note,
    )
    panels = figure.subplots(1, 3, width_ratios=[1, 1, 0.8])
    methods = [name for name in curves if name not in baselines]
    style = {
        name: {"color": OKABE_ITO[(2, 4, 3, 5)[order % 4]], "linewidth": 1.8}
        for order, name in enumerate(methods)
    } | {
        name: {"color": GRAYS[order % 4], "linestyle": DASHES[order % 4], "linewidth": 1.5}
        for order, name in enumerate(baselines)
    }
    words = {"insertion": "shown on the blurred image", "deletion": "covered with gray"}
    for axes, (mode, done) in zip(panels, words.items(), strict=False):
        better = "higher is better" if mode == "insertion" else "lower is better"
        style_axes(
            axes,
            title=f"{mode} ({better})",
            x_label=f"share of the image {done}",
            y_label="probability of the class",
        )
        for name, by_mode in curves.items():
            axes.plot(fractions, by_mode[mode], label=name, marker=".", **style[name])
        axes.set(xlim=(0, 1), ylim=(0, 1))
    panels[0].legend(fontsize=7.5, loc="lower right", framealpha=0.9, edgecolor="none")
    axes = panels[2]
    style_axes(axes, title="insertion - deletion", x_label="[95 %], more is better")
    for place, (name, found) in enumerate(scores.items()):
        error = [[abs(found["value"] - found["low"])], [abs(found["high"] - found["value"])]]
        axes.errorbar(found["value"], place, xerr=error, fmt="o", color=style[name]["color"])
    axes.set_yticks(range(len(scores)), list(scores))
    axes.set_ylim(len(scores) - 0.5, -0.5)
    return figure
