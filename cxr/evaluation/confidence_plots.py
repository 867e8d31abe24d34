"""Reliability, risk against coverage, and the coverage of prediction sets, as figures.

``found`` is the content of calibration.json, ``predictions`` the table that it was measured on.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cxr.evaluation.confidence import TOP
from cxr.evaluation.evaluate import columns_of
from cxr.evaluation.plots import (
    LEGEND,
    PALE_LINE,
    PRECISION_RECALL,
    ROC,
    draw_confusions,
    draw_curves,
    error_bars,
    model_style,
)
from cxr.evaluation.selective import risk_curve
from cxr.evaluation.set_coverage import KINDS
from cxr.evaluation.tables import show_interval, show_number
from cxr.labels import label_indices
from cxr.models.ensemble import WEIGHTED
from cxr.plotting import DASHES, INK, class_colours, new_figure, save_figures, style_axes

PALE, BLUE = "#9A9A9A", "#0072B2"
MARKERS = "osD^vPX*"
"""A form per class beside its colour, so that the colour need not carry the meaning alone."""
KIND_NAMES = {"plain": "one threshold for all", "per_class": "a threshold per class"}


def draw_reliability(found: Mapping[str, Any]) -> Figure:
    """Draw how often a class came true against its probability, before and after temperature."""
    curves, scores = found["reliability"], found["calibration"][WEIGHTED]
    names = list(curves["after"])
    columns = min(3, len(names) + 1)
    rows = math.ceil((len(names) + 1) / columns)
    title = f"Reliability of the ensemble's probabilities on {found['n']} test images"
    figure = new_figure(3.7 * columns, 3.75 * rows + 0.6, note=found["note"], title=title)
    colours = class_colours(found["labels"]) | {TOP: INK}
    for index, name in enumerate(names):
        axes = figure.add_subplot(rows, columns, index + 1)
        own = scores["after"] if name == TOP else scores["after"]["per_class"][name]
        title = "the class it names" if name == TOP else name
        error = f"{show_number(own['ece']['value'])}, debiased {show_interval(own['ece_debiased'])}"
        style_axes(
            axes,
            title=f"{title}\nerror {error}",
            x_label="predicted probability",
            y_label="share that was so" if name != TOP else "share that was right",
        )
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
        axes.plot([0, 1], [0, 1], color=PALE_LINE, linewidth=1)
        _draw_curve(axes, curves["before"][name], colour=PALE, filled=False)
        _draw_curve(axes, curves["after"][name], colour=colours[name], filled=True)
    _draw_key(figure.add_subplot(rows, columns, len(names) + 1), found)
    return figure


def draw_risk_coverage(predictions: pd.DataFrame, found: Mapping[str, Any]) -> Figure:
    """Draw the error among the images that are answered against their share."""
    title = f"Error when the least confident of {found['n']} images go to a human"
    figure = new_figure(6.6, 4.9, note=found["note"], title=title)
    axes = figure.add_subplot()
    x_label, y_label = "share of images that the model answers", "error among those it answers"
    style_axes(axes, x_label=x_label, y_label=y_label)
    labels = found["labels"]
    targets = np.asarray(label_indices(predictions["label"], labels), np.int64)
    for order, name in enumerate((*found["members"], WEIGHTED)):
        probs = columns_of(predictions, "prob", name, labels)
        curve = risk_curve(probs.max(axis=1), probs.argmax(axis=1) != targets)
        area = show_interval(found["referral"][name]["aurc"])
        style = model_style(name, order, BLUE, thin=1.4, thick=2.2)
        axes.plot(*curve, label=f"{name}, area {area}", zorder=3 + order, **style)
    referral = found["referral"][WEIGHTED]
    points = referral["curve"]
    at, low, high = ([row[key] for row in points] for key in ("coverage", "low", "high"))
    look: dict[str, Any] = {"color": BLUE, "alpha": 0.15, "linewidth": 0}
    axes.fill_between(at, low, high, label="ensemble, 95 % interval", **look)
    everyone, text = 1 - referral["accuracy_all"]["value"], "referring images at random"
    axes.axhline(everyone, color=PALE, linewidth=1, linestyle=DASHES[1], label=text)
    _mark_referral(axes, referral)
    # The few most confident images swing between extremes and would set the scale.
    top = max(row["high"] for row in points if row["coverage"] >= 0.2)
    axes.set(xlim=(0, 1.01), ylim=(0, max(1.25 * top, 0.02)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.yaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g}%")
    axes.legend(loc="upper left", fontsize=7.5, **LEGEND)
    return figure


def draw_coverage(found: Mapping[str, Any]) -> Figure:
    """Draw how often prediction sets hold the true class, and how large they are."""
    sets = found["prediction_sets"]
    levels = list(sets)
    title = "Prediction sets on test: do they hold the true class as often as promised?"
    figure = new_figure(10.6, 4.5, note=found["note"], title=title)
    panels = [figure.add_subplot(1, 3, place) for place in (1, 2, 3)]
    y_label = "share of images whose set holds the true class"
    lowest = 1.0
    for axes, kind in zip(panels, KINDS, strict=False):
        style_axes(axes, title=KIND_NAMES[kind], x_label="promised coverage", y_label=y_label)
        lowest = min(lowest, _draw_coverages(axes, sets, kind, class_colours(found["labels"])))
        axes.set_xticks(range(len(levels)), [f"{float(level):.0%}" for level in levels])
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    for axes in panels[:2]:
        axes.set(ylim=(max(0.0, lowest - 0.05), 1.01), xlim=(-0.5, len(levels) - 0.5))
    panels[0].legend(loc="lower right", fontsize=7.5, **LEGEND)
    _draw_sizes(panels[2], sets, len(found["labels"]))
    return figure


def save_plots(
    predictions: pd.DataFrame, metrics: Mapping[str, Any], found: Mapping[str, Any], folder: Path
) -> list[Path]:
    """Draw every plot of an evaluation and write it into a folder.

    Raises:
        InputError: the folder cannot be written.
    """
    figures = {
        "confusion": draw_confusions(metrics),
        "roc": draw_curves(predictions, metrics, ROC),
        "precision_recall": draw_curves(predictions, metrics, PRECISION_RECALL),
        "reliability": draw_reliability(found),
        "risk_coverage": draw_risk_coverage(predictions, found),
        "coverage": draw_coverage(found),
    }
    return save_figures(figures, folder)


def _draw_curve(axes: Axes, rows: list[dict[str, float]], *, colour: str, filled: bool) -> None:
    """Draw a curve's points, their area by the number of images; intervals only when filled."""
    said, came = [row["mean_prob"] for row in rows], [row["frequency"] for row in rows]
    images = np.array([row["images"] for row in rows], float)
    area = 12 + 110 * np.sqrt(images / max(images.max(initial=1), 1))
    if filled:
        reach = error_bars([row | {"value": row["frequency"]} for row in rows])
        look: dict[str, Any] = {"ecolor": colour, "elinewidth": 1, "alpha": 0.7, "zorder": 3}
        axes.errorbar(said, came, yerr=reach, fmt="none", **look)
        axes.plot(said, came, color=colour, linewidth=1.2, zorder=3)
        axes.scatter(said, came, s=area, color=colour, edgecolor="white", linewidth=0.6, zorder=4)
    else:
        axes.plot(said, came, color=colour, linewidth=1, linestyle=DASHES[0], zorder=2)
        axes.scatter(said, came, s=26, facecolor="white", edgecolor=colour, zorder=2)


def _draw_key(axes: Axes, found: Mapping[str, Any]) -> None:
    """Say in the last panel what the marks mean."""
    axes.set_axis_off()
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.scatter([0.06], [0.9], s=80, color=INK)
    axes.scatter([0.06], [0.75], s=26, facecolor="white", edgecolor=PALE)
    axes.plot([0.01, 0.11], [0.6, 0.6], color=PALE_LINE)
    scores = found["calibration"][WEIGHTED]
    lines = {
        0.9: "with temperatures; the larger, the more\nimages; bars: 95 % interval by patient",
        0.75: "without temperatures",
        0.6: "as it should be; below it the model is\ntoo sure, above it too modest",
        0.47: "error: mean distance from that line over\nbins of equal size; debiased: less what\n"
        "chance adds",
        0.3: "\n".join(
            f"{head} {show_interval(scores['before'][key])}\n  with temperatures "
            f"{show_interval(scores['after'][key])}"
            for head, key in (("NLL", "nll"), ("Brier", "brier"))
        ),
    }
    for height, text in lines.items():
        left = 0.16 if height > 0.5 else 0.01
        axes.text(left, height, text, fontsize=8, color=INK, va="center" if height > 0.5 else "top")


def _mark_referral(axes: Axes, referral: Mapping[str, Any]) -> None:
    """Mark where the threshold of validation ends up on these images."""
    fixed = referral.get("at_threshold")
    if not fixed or not fixed["accuracy"]["value"] >= 0:
        return
    share, error = fixed["coverage"]["value"], 1 - fixed["accuracy"]["value"]
    text = (
        f"threshold from validation for {fixed['wished_coverage']:.0%}: answers {share:.0%}, "
        f"error {error:.1%}"
    )
    look: dict[str, Any] = {"s": 60, "color": "#D55E00", "edgecolor": "white", "zorder": 12}
    axes.scatter([share], [error], label=text, **look)


def _draw_coverages(
    axes: Axes, sets: Mapping[str, Any], kind: str, colours: Mapping[str, str]
) -> float:
    """Draw coverage of all images and of each class at each level; return the lowest shown."""
    lowest = 1.0
    for place, level in enumerate(sets):
        values = sets[level][kind]
        shown = {"all": values["coverage"]} | values["per_class"]
        promised: dict[str, Any] = {"color": INK, "linewidth": 1.2, "linestyle": DASHES[0]}
        text = "_" if place else "promised"
        axes.hlines(float(level), place - 0.42, place + 0.42, label=text, **promised)
        for index, (name, share) in enumerate(shown.items()):
            at = place + (index - (len(shown) - 1) / 2) * 0.7 / len(shown)
            if np.isnan([share["value"], share["low"], share["high"]]).any():
                continue
            lowest = min(lowest, share["low"], float(level))
            look: dict[str, Any] = {
                "fmt": MARKERS[index % len(MARKERS)],
                "color": INK if name == "all" else colours[name],
                "label": None if place else name,
            }
            bars: dict[str, Any] = {
                "yerr": error_bars([share]),
                "markersize": 5.5,
                "elinewidth": 1.3,
            }
            axes.errorbar([at], [share["value"]], **bars, **look)
    return lowest


def _draw_sizes(axes: Axes, sets: Mapping[str, Any], n_classes: int) -> None:
    """Draw the mean number of classes in a set."""
    titles = {"title": "size of the sets", "x_label": "promised coverage"}
    style_axes(axes, y_label="classes in a set, mean", **titles)
    looks = zip(KINDS, (BLUE, "#E69F00"), ("", "///"), strict=True)
    for offset, (kind, colour, hatch) in enumerate(looks):
        at = np.arange(len(sets)) + (offset - 0.5) * 0.36
        sizes = [sets[level][kind]["size"]["value"] for level in sets]
        look: dict[str, Any] = {"color": colour, "hatch": hatch, "edgecolor": "white"}
        axes.bar(at, sizes, 0.34, label=KIND_NAMES[kind], **look)
        for x, size in zip(at, sizes, strict=True):
            axes.text(x, size + 0.03, f"{size:.2f}", ha="center", fontsize=7.5, color=INK)
    axes.set_xticks(range(len(sets)), [f"{float(level):.0%}" for level in sets])
    tallest = max(sets[level][kind]["size"]["value"] for level in sets for kind in KINDS)
    axes.set_ylim(0, min(n_classes, tallest) * 1.3 + 0.1)
    axes.legend(loc="upper left", fontsize=7.5, **LEGEND)
