"""Confusion matrices, ROC and precision-recall curves. N samples, K classes."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve, roc_curve

from cxr.evaluation.tables import few_note, show_interval, show_patients
from cxr.models.ensemble import WEIGHTED
from cxr.plotting import (
    DASHES,
    GRAYS,
    HEAT,
    INK,
    class_colours,
    new_figure,
    save_figures,
    style_axes,
)

DrawCurve = Callable[[Axes, NDArray[np.bool_], NDArray[np.float64], dict[str, Any]], None]
"""Draws one class of one model: axes, truth (N,), probability (N,), line style."""
Place = Literal["lower right", "lower left"]


def draw_confusions(metrics: Mapping[str, Any]) -> Figure:
    """Draw each model's confusion matrix: counts, and shares of the true class.

    Args:
        metrics: the content of metrics.json.
    """
    models, labels = metrics["models"], metrics["labels"]
    columns = 2 if len(models) in (2, 4) else min(3, len(models))
    rows = math.ceil(len(models) / columns)
    side = 1.9 + 0.62 * len(labels)
    figure = new_figure(
        columns * side,
        rows * (side - 0.25) + 0.9,
        title="Confusion on test: images, and share of the true class",
        note=_with_few(metrics),
    )
    for index, (name, scores) in enumerate(models.items()):
        axes = figure.add_subplot(rows, columns, index + 1)
        accuracy = show_interval(scores["accuracy"])
        counts = np.asarray(scores["confusion"], np.int64)
        shown = [f"{k}\n({show_patients(metrics['patients'][k])} patients)" for k in labels]
        _draw_matrix(axes, counts, labels, shown, f"{name}\naccuracy {accuracy}")
    return figure


def draw_roc(predictions: pd.DataFrame, metrics: Mapping[str, Any]) -> Figure:
    """Draw ROC curves, a panel per class against the rest, members beside their ensemble.

    Args:
        predictions: the evaluation's predictions table.
        metrics: what ``evaluate`` gave for it.
    """

    def curve(
        axes: Axes, truth: NDArray[np.bool_], prob: NDArray[np.float64], style: dict[str, Any]
    ) -> None:
        false_rate, true_rate, _ = roc_curve(truth, prob)
        axes.plot(false_rate, true_rate, **style)

    figure, panels = _class_panels(predictions, metrics, "auroc", curve, "ROC on test")
    for axes in panels.values():
        axes.plot([0, 1], [0, 1], color="#BBBBBB", linewidth=0.8, zorder=1)
        axes.set_xlabel("1 - specificity")
        axes.set_ylabel("sensitivity")
        _add_legend(axes, "AUROC [95 %]", "lower right")
    return figure


def draw_precision_recall(predictions: pd.DataFrame, metrics: Mapping[str, Any]) -> Figure:
    """Draw precision-recall curves, a panel per class; a thin line marks chance.

    Args:
        predictions: the evaluation's predictions table.
        metrics: what ``evaluate`` gave for it.
    """

    def curve(
        axes: Axes, truth: NDArray[np.bool_], prob: NDArray[np.float64], style: dict[str, Any]
    ) -> None:
        precision, recall, _ = precision_recall_curve(truth, prob)
        axes.step(recall, precision, where="post", **style)

    figure, panels = _class_panels(
        predictions, metrics, "average_precision", curve, "Precision and recall on test"
    )
    for label, axes in panels.items():
        share = metrics["counts"][label] / metrics["n"]
        axes.axhline(share, color="#BBBBBB", linewidth=0.8, zorder=1)
        axes.set_xlabel("recall (sensitivity)")
        axes.set_ylabel("precision (PPV)")
        _add_legend(axes, "average precision [95 %]", "lower left")
    return figure


def save_plots(predictions: pd.DataFrame, metrics: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw and write every figure of the evaluation.

    Args:
        predictions: the evaluation's predictions table.
        metrics: what ``evaluate`` gave for all classes.
        folder: where the PNG files go.

    Returns:
        The files: ``confusion.png``, ``roc.png``, ``precision_recall.png``.

    Raises:
        InputError: the folder cannot be written.
    """
    return save_figures(
        {
            "confusion": draw_confusions(metrics),
            "roc": draw_roc(predictions, metrics),
            "precision_recall": draw_precision_recall(predictions, metrics),
        },
        folder,
    )


def _draw_matrix(
    axes: Axes, counts: NDArray[np.int64], labels: list[str], shown: list[str], title: str
) -> None:
    """Colour cells by their share of the true class; write count and share into them."""
    totals = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    axes.imshow(share, cmap=HEAT, vmin=0, vmax=1)
    for row, column in np.ndindex(*counts.shape):
        # An absent class has no shares: 0 of 0 is not 0 %.
        percent = f"{share[row, column]:.0%}" if totals[row, 0] else "n/a"
        percent = "<1%" if percent == "0%" and counts[row, column] else percent
        axes.text(
            column,
            row,
            f"{counts[row, column]}\n{percent}",
            ha="center",
            va="center",
            fontsize=8,
            color="white" if share[row, column] > 0.55 else INK,
        )
    style_axes(axes, title=title, x_label="predicted", y_label="true")
    axes.grid(False)
    axes.set_xticks(range(len(labels)), labels)
    axes.set_yticks(
        range(len(labels)),
        [f"{label}\n(n = {total})" for label, total in zip(shown, totals[:, 0], strict=True)],
    )


def _class_panels(
    predictions: pd.DataFrame, metrics: Mapping[str, Any], metric: str, draw: DrawCurve, title: str
) -> tuple[Figure, dict[str, Axes]]:
    """Draw a panel per class with a curve per member and, above them, the ensemble's."""
    labels, models = metrics["labels"], [*metrics["members"], WEIGHTED]
    columns = min(2, len(labels)) if len(labels) != 3 else 3
    rows = math.ceil(len(labels) / columns)
    figure = new_figure(
        4.3 * columns,
        4.1 * rows + 0.6,
        title=f"{title}, one class against the rest",
        note=_with_few(metrics),
    )
    colours, panels = class_colours(labels), {}
    for index, label in enumerate(labels):
        axes = panels[label] = figure.add_subplot(rows, columns, index + 1)
        count = metrics["counts"][label]
        patients = show_patients(metrics["patients"][label])
        style_axes(axes, title=f"{label} ({count} of {metrics['n']} images, {patients} patients)")
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
        if count in (0, metrics["n"]):
            reason = "no image of this class" if count == 0 else "no image of another class"
            axes.text(0.5, 0.5, reason, ha="center", va="center", fontsize=9, color=INK)
            continue
        truth = (predictions["label"] == label).to_numpy(bool)
        for order, name in enumerate(models):
            found = show_interval(metrics["models"][name]["per_class"][label][metric])
            style: dict[str, Any] = {"label": f"{name} {found}", "zorder": 2 + order}
            if name == WEIGHTED:
                style |= {"color": colours[label], "linewidth": 2.0}
            else:
                style |= {"color": GRAYS[order % len(GRAYS)], "linewidth": 1.5}
                style["linestyle"] = DASHES[order % len(DASHES)]
            draw(axes, truth, predictions[f"prob_{name}_{label}"].to_numpy(np.float64), style)
    return figure, panels


def _with_few(metrics: Mapping[str, Any]) -> str:
    """Return the figure's note, and what a dagger means where a class bears one."""
    few = few_note(metrics["patients"]).partition(" (")[0]
    return f"{few} · {metrics['note']}" if few else str(metrics["note"])


def _add_legend(axes: Axes, title: str, place: Place) -> None:
    """Put the legend where the curves of a fair model are not."""
    if axes.get_legend_handles_labels()[0]:
        legend = axes.legend(
            title=title,
            loc=place,
            fontsize=7.5,
            title_fontsize=7.5,
            framealpha=0.9,
            edgecolor="none",
        )
        legend.set_zorder(20)
