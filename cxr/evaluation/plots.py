"""Confusion matrices, ROC and precision-recall curves. N samples, K classes."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import precision_recall_curve, roc_curve

from cxr.evaluation.tables import few_note, show_interval, show_patients
from cxr.models.ensemble import WEIGHTED
from cxr.plotting import DASHES, GRAYS, HEAT, INK, class_colours, new_figure, style_axes

LEGEND: dict[str, Any] = {"framealpha": 0.9, "edgecolor": "none"}
PALE_LINE = "#BBBBBB"


class Curve(NamedTuple):
    """A curve of one class against the rest: its points and what stands around them."""

    metric: str
    title: str
    points: Callable[[NDArray[np.bool_], NDArray[np.float64]], tuple[ArrayLike, ArrayLike]]
    x_label: str
    y_label: str
    legend: str
    place: Literal["lower right", "lower left"]
    drawstyle: Literal["default", "steps-post"]


ROC = Curve(
    "auroc",
    "ROC on test",
    lambda truth, prob: roc_curve(truth, prob)[:2],
    x_label="1 - specificity",
    y_label="sensitivity",
    legend="AUROC [95 %]",
    place="lower right",
    drawstyle="default",
)
PRECISION_RECALL = Curve(
    "average_precision",
    "Precision and recall on test",
    lambda truth, prob: precision_recall_curve(truth, prob)[1::-1],
    x_label="recall (sensitivity)",
    y_label="precision (PPV)",
    legend="average precision [95 %]",
    place="lower left",
    drawstyle="steps-post",
)


def error_bars(intervals: Sequence[Mapping[str, float]]) -> NDArray[np.float64]:
    """Return (2, n), how far intervals reach below and above their values, never negative."""
    ends = [[part["value"] - part["low"], part["high"] - part["value"]] for part in intervals]
    return np.asarray(np.maximum(np.array(ends).T, 0))


def model_style(name: str, order: int, colour: str, *, thin: float, thick: float) -> dict[str, Any]:
    """Return the look of a model's line: gray and dashed a member, in colour the ensemble."""
    if name == WEIGHTED:
        return {"color": colour, "linewidth": thick}
    dash = DASHES[order % len(DASHES)]
    return {"color": GRAYS[order % len(GRAYS)], "linewidth": thin, "linestyle": dash}


def draw_confusions(metrics: Mapping[str, Any]) -> Figure:
    """Draw each model's confusion matrix of metrics.json: counts, and shares of the true class."""
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


def draw_curves(predictions: pd.DataFrame, metrics: Mapping[str, Any], curve: Curve) -> Figure:
    """Draw a panel per class with a curve per member and, above them, the ensemble's.

    A thin line marks chance. Metrics are what ``evaluate`` gave for the predictions.
    """
    labels = metrics["labels"]
    columns = min(2, len(labels)) if len(labels) != 3 else 3
    rows = math.ceil(len(labels) / columns)
    title, colours = f"{curve.title}, one class against the rest", class_colours(labels)
    figure = new_figure(4.3 * columns, 4.1 * rows + 0.6, title=title, note=_with_few(metrics))
    for index, label in enumerate(labels):
        axes = figure.add_subplot(rows, columns, index + 1)
        count = metrics["counts"][label]
        patients = show_patients(metrics["patients"][label])
        style_axes(
            axes,
            title=f"{label} ({count} of {metrics['n']} images, {patients} patients)",
            x_label=curve.x_label,
            y_label=curve.y_label,
        )
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
        if 0 < count < metrics["n"]:
            _draw_models(axes, predictions, metrics, curve, label, colours[label])
        else:
            reason = "no image of this class" if count == 0 else "no image of another class"
            axes.text(0.5, 0.5, reason, ha="center", va="center", fontsize=9, color=INK)
        chance: dict[str, Any] = {"color": PALE_LINE, "linewidth": 0.8, "zorder": 1}
        if curve is ROC:
            axes.plot([0, 1], [0, 1], **chance)
        else:
            axes.axhline(count / metrics["n"], **chance)
        if axes.get_legend_handles_labels()[0]:
            sizes = {"fontsize": 7.5, "title_fontsize": 7.5}
            axes.legend(title=curve.legend, loc=curve.place, **sizes, **LEGEND).set_zorder(20)
    return figure


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
        colour, text = (
            "white" if share[row, column] > 0.55 else INK,
            f"{counts[row, column]}\n{percent}",
        )
        axes.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
    style_axes(axes, title=title, x_label="predicted", y_label="true")
    axes.grid(False)
    axes.set_xticks(range(len(labels)), labels)
    names = [f"{label}\n(n = {total})" for label, total in zip(shown, totals[:, 0], strict=True)]
    axes.set_yticks(range(len(labels)), names)


def _draw_models(
    axes: Axes,
    predictions: pd.DataFrame,
    metrics: Mapping[str, Any],
    curve: Curve,
    label: str,
    colour: str,
) -> None:
    truth = (predictions["label"] == label).to_numpy(bool)
    for order, name in enumerate((*metrics["members"], WEIGHTED)):
        found = show_interval(metrics["models"][name]["per_class"][label][curve.metric])
        points = curve.points(truth, predictions[f"prob_{name}_{label}"].to_numpy(np.float64))
        look = model_style(name, order, colour, thin=1.5, thick=2.0)
        text, height = f"{name} {found}", 2 + order
        axes.plot(*points, label=text, zorder=height, drawstyle=curve.drawstyle, **look)


def _with_few(metrics: Mapping[str, Any]) -> str:
    """Return the figure's note, and what a dagger means where a class bears one."""
    few = few_note(metrics["patients"]).partition(" (")[0]
    return f"{few} · {metrics['note']}" if few else str(metrics["note"])
