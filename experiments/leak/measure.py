"""What a leak is worth: the same network measured on a leaky test and on images never seen.

N images, K classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cxr.evaluation.intervals import CONFIDENCE, Interval, cluster_interval
from cxr.evaluation.summary import METHOD, summarise
from cxr.evaluation.tables import NAMES, show_interval
from cxr.labels import label_indices
from cxr.plotting import INK, OKABE_ITO, RESEARCH_USE, new_figure, style_axes

COPIES_FIRST, SPLIT_FIRST = "copies_first", "split_first"
OWN_TEST, OTHER_IMAGES = "own_test", "other_images"
SHOWN = ("accuracy", "balanced_accuracy", "macro_auroc")
WORDS = {
    COPIES_FIRST: "copies made first, then split at random",
    SPLIT_FIRST: "split first by image, nothing copied across",
}
TESTS = {OWN_TEST: "its own test", OTHER_IMAGES: "images never seen"}
GAPS = {COPIES_FIRST: "claimed_minus_honest", SPLIT_FIRST: "clean_minus_honest"}
COLOURS = {COPIES_FIRST: OKABE_ITO[1], SPLIT_FIRST: OKABE_ITO[2]}


def measure_leak(predictions: pd.DataFrame, *, labels: Sequence[str], note: str) -> dict[str, Any]:
    """Measure both models, and how far apart they are.

    Args:
        predictions: rows of both models, with ``model`` (copies_first, split_first), ``tested_on``
            (own_test, other_images), ``label``, ``group`` and ``prob_<class>``. On the other images
            both models have the same rows in the same order.
        labels: K class names.
        note: what the images are.

    Returns:
        ``models``: per model and test ``n``, ``n_groups`` and each of ``SHOWN`` as value, low and
        high. ``differences`` in accuracy: ``worth_of_the_leak`` (the two own tests),
        ``claimed_minus_honest`` (copies_first on its own test less on the other images),
        ``clean_minus_honest`` (the same of split_first), ``overstated`` (how much more the first
        of these is than the second), and ``on_the_same_images`` (copies_first less split_first on
        the other images). A group, that is an image with its copies, counts as one in all tests.
    """
    models: dict[str, dict[str, Any]] = {COPIES_FIRST: {}, SPLIT_FIRST: {}}
    right: dict[tuple[str, str], tuple[NDArray[np.bool_], NDArray[np.str_]]] = {}
    for name, test in ((name, test) for test in TESTS for name in models):
        rows = predictions[(predictions["model"] == name) & (predictions["tested_on"] == test)]
        targets = np.asarray(label_indices(rows["label"], tuple(labels)), np.int64)
        probs = rows[[f"prob_{label}" for label in labels]].to_numpy(np.float64)
        groups = rows["group"].to_numpy(str)
        right[name, test] = probs.argmax(axis=1) == targets, groups
        scores = summarise(targets, probs, groups, labels)
        models[name][test] = {
            "n": len(rows),
            "n_groups": int(rows["group"].nunique()),
            "counts": {label: int((rows["label"] == label).sum()) for label in labels},
        } | {key: scores[key] for key in SHOWN}

    claimed, clean, first, second = (
        right[name, test] for test in TESTS for name in (COPIES_FIRST, SPLIT_FIRST)
    )
    return {
        "note": note,
        "use": RESEARCH_USE,
        "labels": list(labels),
        "models": models,
        "differences": {
            "worth_of_the_leak": _contrast([claimed], [clean]),
            "claimed_minus_honest": _contrast([claimed], [first]),
            "clean_minus_honest": _contrast([clean], [second]),
            "overstated": _contrast([claimed, second], [first, clean]),
            "on_the_same_images": _contrast([first], [second]),
        },
        "interval": {"level": CONFIDENCE, "method": METHOD},
    }


def _contrast(
    plus: Sequence[tuple[NDArray[np.bool_], NDArray[np.str_]]],
    minus: Sequence[tuple[NDArray[np.bool_], NDArray[np.str_]]],
) -> Interval:
    """Return a sum of accuracies less another; a group in several of the tests is one group."""
    value, parts, groups = 0.0, [], []
    for sign, terms in ((1, plus), (-1, minus)):
        for right, names in terms:
            value += sign * float(right.mean())
            parts.append(sign * (right - right.mean()) / len(right))
            groups.append(names)
    return cluster_interval(value, np.concatenate(parts), np.concatenate(groups))


def leak_sentences(result: Mapping[str, Any]) -> list[str]:
    """Say in plain words what was found.

    Args:
        result: what ``measure_leak`` gave.
    """
    models, gaps = result["models"], result["differences"]
    claimed, clean = models[COPIES_FIRST][OWN_TEST], models[SPLIT_FIRST][OWN_TEST]
    first, second = models[COPIES_FIRST][OTHER_IMAGES], models[SPLIT_FIRST][OTHER_IMAGES]
    return [
        f"Copies first, then a random split: right on {percent(claimed['accuracy'])} of "
        f"{claimed['n']} test images. Split first, by image: {percent(clean['accuracy'])} of "
        f"{clean['n']}. Difference {points(gaps['worth_of_the_leak'])} points"
        + _doubt(gaps["worth_of_the_leak"])
        + ".",
        f"On {first['n']} other images, which neither model has seen, they are right on "
        f"{percent(first['accuracy'])} and {percent(second['accuracy'])}.",
        f"So the test with copies promised {points(gaps['claimed_minus_honest'])} points more than "
        f"new images give, the one without {points(gaps['clean_minus_honest'])}: overstated by "
        f"{points(gaps['overstated'])} points" + _doubt(gaps["overstated"]) + ".",
        *(
            f"{leaks['with_a_copy_in_train']} of the {leaks['test_images']} images of the leaky "
            "test have a copy in its training."
            for leaks in [result.get("leaks")]
            if leaks
        ),
    ]


def leak_table(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return title, columns and rows of both models on both tests, as the report shows them.

    Args:
        result: what ``measure_leak`` gave, and ``leaks``: how many of the leaky test have a copy.
    """
    rows = [
        [WORDS[name], TESTS[test], str(scores["n"]), *(show_interval(scores[key]) for key in SHOWN)]
        for test in TESTS
        for name, tests in result["models"].items()
        for scores in [tests[test]]
    ]
    columns = ["model", "measured on", "images", *(NAMES.get(key, key) for key in SHOWN)]
    return {"title": f"Two ways to split, {result['note']}", "columns": columns, "rows": rows}


def _doubt(result: Mapping[str, float]) -> str:
    return "" if result["low"] > 0 or result["high"] < 0 else ", whose interval holds 0"


def percent(result: Mapping[str, float]) -> str:
    """Write ``84 % [79, 89]``."""
    value, low, high = (100 * result[key] for key in ("value", "low", "high"))
    return f"{value:.0f} % [{low:.0f}, {high:.0f}]"


def points(result: Mapping[str, float]) -> str:
    """Write ``+11 [+6, +16]``, in hundredths."""
    value, low, high = (100 * result[key] for key in ("value", "low", "high"))
    return f"{value:+.0f} [{low:+.0f}, {high:+.0f}]"


def draw_leak(
    result: Mapping[str, Any], tested: NDArray[np.uint8], trained: Sequence[NDArray[np.uint8]]
) -> Figure:
    """Draw a test image beside its copies in training, and what both models promise and keep.

    Args:
        result: what ``measure_leak`` gave.
        tested: (S, S) uint8, an image of the leaky test.
        trained: (S, S) uint8 each, copies of it that the model was trained on; at most three
            are drawn.
    """
    leaky, clean = (
        max(0.0, 100 * result["differences"][key]["value"])
        for key in ("claimed_minus_honest", "clean_minus_honest")
    )
    title = (
        f"A test with copies of its training images promised {leaky:.0f} points too much, "
        f"one without {clean:.0f}"
    )
    figure = new_figure(10.5, 4.8, title=title, note=result["note"])
    grid = figure.add_gridspec(2, 4, width_ratios=[1, 1, 1, 4.6])
    _image(figure.add_subplot(grid[0, 1]), tested, "an image of the leaky test …", OKABE_ITO[1])
    shown = list(trained[:3])
    first = (3 - len(shown)) // 2
    for place, image in enumerate(shown):
        head = "… and its copies in training" if place == len(shown) // 2 else ""
        _image(figure.add_subplot(grid[1, first + place]), image, head, "#6E6E6E")
    _bars(figure.add_subplot(grid[:, 3]), result)
    return figure


def _image(axes: Axes, image: NDArray[np.uint8], head: str, colour: str) -> None:
    axes.imshow(image, cmap="gray", vmin=0, vmax=255)
    # A head is wider than its image, which the layout must not make room for.
    axes.set_title(head, fontsize=10, color=colour, fontweight="bold").set_in_layout(False)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(edgecolor=colour, linewidth=2)


def _bars(axes: Axes, result: Mapping[str, Any]) -> None:
    """Draw each model's two accuracies, and between them what was promised too much."""
    ticks = {}
    for start, name in ((0.0, COPIES_FIRST), (2.7, SPLIT_FIRST)):
        scores, colour = result["models"][name], COLOURS[name]
        axes.text(
            0, start - 0.5, WORDS[name], fontsize=10, color=colour, va="bottom", fontweight="bold"
        )
        promised, kept = (100 * scores[test]["accuracy"]["value"] for test in TESTS)
        if promised > kept:
            axes.barh(
                start + 0.85,
                promised - kept,
                left=kept,
                height=0.72,
                facecolor="white",
                edgecolor=colour,
                hatch="////",
                zorder=1.5,
            )
        for step, (test, head) in enumerate(TESTS.items()):
            y = start + step * 0.85
            _bar(axes, y, scores[test]["accuracy"], colour)
            ticks[y] = f"{head}\n({scores[test]['n']} images)"
        gap = result["differences"][GAPS[name]]
        right = max(promised, 100 * scores[OTHER_IMAGES]["accuracy"]["high"])
        axes.text(
            right + 1.5,
            start + 0.85,
            f"promised\n{points(gap)}",
            fontsize=9,
            color=colour,
            va="center",
            fontweight="bold",
        )
    style_axes(axes, x_label="accuracy in %, with 95 % interval")
    axes.set(xlim=(0, 128), ylim=(4.1, -1.1), xticks=range(0, 101, 20))
    axes.set_yticks(list(ticks), list(ticks.values()), fontsize=10)
    axes.tick_params(axis="y", length=0)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.grid(visible=False, axis="y")


def _bar(axes: Axes, y: float, score: Mapping[str, float], colour: str) -> None:
    """Draw an accuracy as a bar that bears its figure, and its interval."""
    value, low, high = (100 * score[key] for key in ("value", "low", "high"))
    axes.barh(y, value, height=0.72, color=colour)
    axes.errorbar(
        value,
        y,
        xerr=[[max(0.0, value - low)], [max(0.0, high - value)]],
        color=INK,
        capsize=3,
        linewidth=1.2,
    )
    # Inside where no whisker crosses it, else behind the bar.
    inside = min(low, value) > 18
    axes.text(
        1.5 if inside else max(value, high) + 1.5,
        y,
        f"{value:.0f} %",
        va="center",
        color="white" if inside else INK,
        fontsize=14,
        fontweight="bold",
    )
