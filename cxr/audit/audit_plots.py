"""Plots of the audit: occluded lungs, perturbed images, where maps look, whether they are faithful.

``note`` says what the images are. S side of prepared pixels, L levels or fractions.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cxr.audit.context import Floats, Pixels
from cxr.audit.heat_inside import Cascade, Inside
from cxr.evaluation.plots import LEGEND, error_bars
from cxr.explain.faithfulness import Mode
from cxr.models.ensemble import WEIGHTED
from cxr.plotting import DASHES, GRAYS, INK, OKABE_ITO, class_colours, new_figure, style_axes

Interval = Mapping[str, float]
CHANCE_GRAY, EDGE = "#9A9A9A", "#777777"
ONE_COLOUR, WORSE_COLOUR = OKABE_ITO[2], OKABE_ITO[1]


def draw_lungs(
    example: Mapping[str, Pixels],
    aurocs: Mapping[str, Mapping[str, Mapping[str, Interval]]],
    *,
    labels: Sequence[str],
    note: str,
) -> Figure:
    """Draw one image (S, S) in every variant, and below it per class what models tell from each.

    AUROCs are per model, variant and class.
    """
    variants, columns = list(example), min(2, len(labels)) if len(labels) != 3 else 3
    panel_rows = math.ceil(len(labels) / columns)
    title = "What can be told with the lungs occluded (AUROC, one class against the rest)"
    figure = new_figure(9.0, 2.8 + 2.6 * panel_rows, title=title, note=note)
    halves = figure.subfigures(2, 1, squeeze=False, height_ratios=[1.7, 2.4 * panel_rows])
    strip, below = halves[:, 0]
    above = strip.subplots(1, len(variants))
    for axes, (variant, image) in zip(above, example.items(), strict=True):
        axes.imshow(image, cmap="gray", vmin=0, vmax=255)
        axes.set_title(variant.replace("_", " "), fontsize=9, color=INK)
        axes.set_axis_off()
    panels = below.subplots(panel_rows, columns, squeeze=False)
    for axes in panels.flat[len(labels) :]:
        axes.set_axis_off()
    for axes, label in zip(panels.flat, labels, strict=False):
        _draw_class(axes, label, aurocs, variants)
    names = panels.flat[0].get_legend_handles_labels()
    below.legend(*names, loc="outside lower center", ncols=3, fontsize=8, edgecolor="none")
    return figure


def _draw_class(
    axes: Axes,
    label: str,
    aurocs: Mapping[str, Mapping[str, Mapping[str, Interval]]],
    variants: Sequence[str],
) -> None:
    """Draw a class: a row per variant, a marker and an interval per model."""
    style_axes(axes, title=label, x_label="AUROC [95 %]")
    axes.axvline(0.5, color=CHANCE_GRAY, linewidth=1, label="guessing")
    lowest = 0.45
    for order, (model, by_variant) in enumerate(aurocs.items()):
        parts = [by_variant[variant][label] for variant in variants]
        lows = [part["low"] - 0.03 for part in parts if not math.isnan(part["low"])]
        lowest = min(lowest, *lows, 0.45)
        places = np.arange(len(variants)) + (order - (len(aurocs) - 1) / 2) * 0.22
        colour = (*OKABE_ITO[2:5], INK)[order % 4]
        look: dict[str, Any] = {"label": model, "fmt": "osD^"[order % 4], "color": colour}
        values, reach = [part["value"] for part in parts], error_bars(parts)
        axes.errorbar(values, places, xerr=reach, markersize=4, linewidth=1.1, **look)
    axes.set_yticks(range(len(variants)), [name.replace("_", " ") for name in variants])
    axes.set(xlim=(max(lowest, 0), 1.01), ylim=(len(variants) - 0.4, -0.6))


def draw_robustness(
    clean: Interval,
    curves: Mapping[str, Sequence[tuple[str, Interval, bool]]],
    *,
    units: Mapping[str, str],
    chance: float,
    images: int,
    note: str,
) -> Figure:
    """Draw accuracy against severity, a panel per change, beside that of the images as they are.

    A change's levels have the severity in words, the accuracy, and whether the loss is more than
    chance explains; its unit is what the severity counts.
    """
    columns = min(5, len(curves))
    rows = math.ceil(len(curves) / columns)
    title = f"Accuracy of the ensemble on perturbed images ({images} test images)"
    figure = new_figure(2.35 * columns + 0.4, 2.5 * rows + 0.9, title=title, note=note)
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for axes in panels.flat[len(curves) :]:
        axes.set_axis_off()
    for index, (change, levels) in enumerate(curves.items()):
        axes, side = panels.flat[index], "accuracy [95 %]" if index % columns == 0 else ""
        style_axes(axes, title=change, x_label=units[change], y_label=side)
        ends, as_they_are = (clean["low"], clean["high"]), "images as they are [95 %]"
        axes.axhspan(*ends, color="#DDDDDD", linewidth=0, label=as_they_are)
        line = {"color": CHANCE_GRAY, "linewidth": 1}
        axes.axhline(clean["value"], **line)
        axes.axhline(chance, linestyle=":", label="most frequent class", **line)
        _draw_levels(axes, levels)
        axes.set_ylim(0, 1)
    first = panels.flat[0]
    first.plot([], [], "o", color=WORSE_COLOUR, label="more lost than chance explains")
    first.legend(fontsize=6.5, loc="lower left", **LEGEND)
    return figure


def _draw_levels(axes: Axes, levels: Sequence[tuple[str, Interval, bool]]) -> None:
    places = np.arange(len(levels))
    words, parts, worse = zip(*levels, strict=True)
    values = [part["value"] for part in parts]
    axes.errorbar(places, values, yerr=error_bars(parts), color=ONE_COLOUR, linewidth=1.3)
    look: dict[str, Any] = {"markersize": 5, "markeredgecolor": ONE_COLOUR, "zorder": 4}
    for place, value, lost in zip(places, values, worse, strict=True):
        axes.plot(place, value, "o", color=WORSE_COLOUR if lost else "white", **look)
    axes.set_xticks(places, words)
    axes.set_xlim(-0.5, max(len(levels) - 0.5, 0.5))


def draw_attention(
    inside: Mapping[tuple[str, str], Inside],
    cascades: Mapping[str, Cascade],
    *,
    labels: Sequence[str],
    note: str,
) -> Figure:
    """Draw the heat inside the lungs per model and class, and the maps' likeness as weights go.

    ``inside`` is empty where there are no masks; cascades are per member.
    """
    panels = 1 + bool(inside)
    title = "Where the maps look, and whether they show what was learned"
    figure = new_figure(5.0 * panels, 4.4, title=title, note=note)
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
            whole, energy = model == WEIGHTED, inside[model, label].energy
            look: dict[str, Any] = {
                "fmt": "os^DvP"[order % 6],
                "markersize": 6 if whole else 4.5,
                "color": colours[label] if whole else GRAYS[order % len(GRAYS)],
                "label": model if place == 0 else "_",
            }
            x, reach = place + (order - (len(models) - 1) / 2) * 0.2, error_bars([energy])
            axes.errorbar(x, energy["value"], yerr=reach, linewidth=1.4, **look)
        part = inside[WEIGHTED, label]
        for value, style, name in (
            (part.area["value"], "-", "lungs' share of the image (an even map)"),
            (part.ceiling["value"], ":", "a map of the lungs themselves"),
        ):
            ends, name = (place - 0.38, place + 0.38), name if place == 0 else "_"
            axes.hlines(value, *ends, color=INK, linestyle=style, linewidth=1.3, label=name)
    names = [f"{label}\n(n = {inside[WEIGHTED, label].images})" for label in shown]
    axes.set_xticks(range(len(shown)), names)
    axes.set(xlim=(-0.6, len(shown) - 0.4), ylim=(0, 1))
    axes.legend(fontsize=7, loc="upper left", **LEGEND, ncols=2)


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
            np.array([stage[key] for stage in part.similarity]) for key in ("value", "low", "high")
        )
        steps, colour = np.linspace(0, 1, len(values)), OKABE_ITO[2 + order % 4]
        axes.plot(steps, values, color=colour, marker="os^D"[order % 4], markersize=4, label=name)
        axes.fill_between(steps, low, high, color=colour, alpha=0.18, linewidth=0)
        other, dash = f"{name}, another image of the class", DASHES[order % 4]
        value = part.other_image["value"]
        axes.axhline(value, color=colour, linewidth=1.0, linestyle=dash, label=other)
    axes.set_ylim(-0.45, 1.05)
    axes.legend(fontsize=7, loc="upper right", **LEGEND)


def draw_faithfulness(
    curves: Mapping[str, Mapping[Mode, Floats]],
    scores: Mapping[str, Interval],
    fractions: Sequence[float],
    *,
    baselines: Sequence[str],
    images: int,
    note: str,
) -> Figure:
    """Draw the probability, (L,) per map and mode, against the shares of the image, and the scores.

    ``baselines`` are those of the maps that no network had a part in.
    """
    title = f"Does the prediction hang on what the maps mark? ({images} test images)"
    figure = new_figure(11.5, 3.9, title=title, note=note)
    panels = figure.subplots(1, 3, width_ratios=[1, 1, 0.8])
    methods = [name for name in curves if name not in baselines]
    style = {
        name: {"color": OKABE_ITO[(2, 4, 3, 5)[order % 4]], "linewidth": 1.8}
        for order, name in enumerate(methods)
    } | {
        name: {"color": GRAYS[order % 4], "linestyle": DASHES[order % 4], "linewidth": 1.5}
        for order, name in enumerate(baselines)
    }
    modes: tuple[tuple[Mode, str, str], ...] = (
        ("insertion", "shown on the blurred image", "higher is better"),
        ("deletion", "covered with gray", "lower is better"),
    )
    for axes, (mode, done, better) in zip(panels, modes, strict=False):
        titles = {"title": f"{mode} ({better})", "x_label": f"share of the image {done}"}
        style_axes(axes, y_label="probability of the class", **titles)
        for name, by_mode in curves.items():
            axes.plot(fractions, by_mode[mode], label=name, marker=".", **style[name])
        axes.set(xlim=(0, 1), ylim=(0, 1))
    panels[0].legend(fontsize=7.5, loc="lower right", **LEGEND)
    axes = panels[2]
    style_axes(axes, title="insertion - deletion", x_label="[95 %], more is better")
    for place, (name, score) in enumerate(scores.items()):
        error, colour = error_bars([score]), style[name]["color"]
        axes.errorbar(score["value"], place, xerr=error, fmt="o", color=colour)
    axes.set_yticks(range(len(scores)), list(scores))
    axes.set_ylim(len(scores) - 0.5, -0.5)
    return figure
