"""Figures of images with hidden lungs and of changed images."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cxr.plotting import INK, OKABE_ITO, new_figure, style_axes

Interval = Mapping[str, float]
MARKERS = ("o", "s", "D", "^")
CHANCE_GRAY = "#9A9A9A"
ONE_COLOUR = OKABE_ITO[2]
WORSE_COLOUR = OKABE_ITO[1]


def draw_lungs(
    example: Mapping[str, NDArray[np.uint8]],
    aurocs: Mapping[str, Mapping[str, Mapping[str, Interval]]],
    *,
    labels: Sequence[str],
    note: str,
) -> Figure:
    """Draw one image in every variant, and below it per class what models tell from each.

    Args:
        example: per variant an image (S, S) uint8.
        aurocs: per model, variant and class ``value``, ``low``, ``high``.
        labels: the classes, a panel each.
        note: what the images are.
    """
    variants, columns = list(example), min(2, len(labels)) if len(labels) != 3 else 3
    panel_rows = math.ceil(len(labels) / columns)
    figure = new_figure(
        9.0,
        2.8 + 2.6 * panel_rows,
        note=note,
        title="What can be told with the lungs hidden (AUROC, one class against the rest)",
    )
    halves = figure.subfigures(2, 1, squeeze=False, height_ratios=[1.7, 2.4 * panel_rows])
    strip, below = halves[:, 0]
    for axes, (variant, image) in zip(
        strip.subplots(1, len(variants)), example.items(), strict=True
    ):
        axes.imshow(image, cmap="gray", vmin=0, vmax=255)
        axes.set_title(variant, fontsize=9, color=INK)
        axes.set_axis_off()
    panels = below.subplots(panel_rows, columns, squeeze=False)
    for axes in panels.flat[len(labels) :]:
        axes.set_axis_off()
    for index, label in enumerate(labels):
        axes = panels.flat[index]
        _draw_class(axes, label, aurocs, variants)
    below.legend(
        *panels.flat[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=3,
        fontsize=8,
        edgecolor="none",
    )
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
        offset = (order - (len(aurocs) - 1) / 2) * 0.22
        found = [by_variant[variant][label] for variant in variants]
        values = np.array([part["value"] for part in found])
        low, high = (np.array([part[key] for part in found]) for key in ("low", "high"))
        lowest = min(lowest, *(value - 0.03 for value in low if not math.isnan(value)), 0.45)
        axes.errorbar(
            values,
            np.arange(len(variants)) + offset,
            xerr=np.maximum([values - low, high - values], 0),
            label=model,
            fmt=MARKERS[order % 4],
            markersize=4,
            linewidth=1.1,
            color=(*OKABE_ITO[2:4], OKABE_ITO[4], INK)[order % 4],
        )
    axes.set_yticks(range(len(variants)), variants)
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
    """Draw accuracy against severity, a panel per change.

    Args:
        clean: accuracy of the images as they are.
        curves: per change its levels: severity in words, accuracy, whether the loss is more
            than chance explains.
        units: per change what its severity counts.
        chance: accuracy of always naming the most frequent class.
        images: how many.
        note: what they are.
    """
    columns = min(5, len(curves))
    rows = math.ceil(len(curves) / columns)
    figure = new_figure(
        2.35 * columns + 0.4,
        2.5 * rows + 0.9,
        note=note,
        title=f"Accuracy of the ensemble on changed images ({images} test images)",
    )
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for axes in panels.flat[len(curves) :]:
        axes.set_axis_off()
    for index, (axes, (change, levels)) in enumerate(
        zip(panels.flat, curves.items(), strict=False)
    ):
        side = "accuracy [95 %]" if index % columns == 0 else ""
        style_axes(axes, title=change, x_label=units[change], y_label=side)
        axes.axhspan(
            clean["low"],
            clean["high"],
            color="#DDDDDD",
            linewidth=0,
            label="images as they are [95 %]",
        )
        axes.axhline(clean["value"], color=CHANCE_GRAY, linewidth=1)
        axes.axhline(
            chance, color=CHANCE_GRAY, linewidth=1, linestyle=":", label="most frequent class"
        )
        _draw_levels(axes, levels)
        axes.set_ylim(0, 1)
    first = panels.flat[0]
    first.plot([], [], "o", color=WORSE_COLOUR, label="more lost than chance explains")
    first.legend(fontsize=6.5, loc="lower left", framealpha=0.9, edgecolor="none")
    return figure


def _draw_levels(axes: Axes, levels: Sequence[tuple[str, Interval, bool]]) -> None:
    places = np.arange(len(levels))
    values = np.array([found["value"] for _, found, _ in levels])
    error = np.abs(
        [
            [found["value"] - found["low"] for _, found, _ in levels],
            [found["high"] - found["value"] for _, found, _ in levels],
        ]
    )
    axes.errorbar(places, values, yerr=error, color=ONE_COLOUR, linewidth=1.3)
    for place, (_, found, worse) in zip(places, levels, strict=True):
        axes.plot(
            place,
            found["value"],
            "o",
            markersize=5,
            markeredgecolor=ONE_COLOUR,
            color=WORSE_COLOUR if worse else "white",
            zorder=4,
        )
    axes.set_xticks(places, [words for words, _, _ in levels])
    axes.set_xlim(-0.5, max(len(levels) - 0.5, 0.5))
