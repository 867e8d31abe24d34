"""How much of the score is not in the lungs: two sentences and one figure for a clinician.

N images, S side of prepared pixels.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from numpy.typing import NDArray

from cxr.audit.baseline_inputs import BORDER, RINGS, THUMBNAIL, thumbnails
from cxr.audit.occlude import Variant, occlude
from cxr.evaluation.intervals import undefined
from cxr.evaluation.tables import show_interval
from cxr.models.ensemble import WEIGHTED
from cxr.plotting import INK, new_figure, style_axes
from cxr.report.results import Results
from cxr.report.wording import percent

Image = NDArray[np.uint8]

WITHOUT_LUNGS: tuple[Variant, ...] = ("lungs_black", "box_black")
"""Rows of the lung test that are shown: the lungs covered, and a box around both."""
TOLD = 0.80
"""AUROC from which a class is said to be told by the border: four pairs of images of five."""
STYLES: dict[str, dict[str, Any]] = {
    "nothing": {"color": "#BBBBBB"},
    "outside": {"color": "#E69F00", "hatch": "//", "edgecolor": "white"},
    "all": {"color": "#0072B2"},
}
"""Grays, hatches and the Okabe-Ito orange and blue, which every eye tells apart."""


class Bar(NamedTuple):
    """What one sees of an image, and how often the class is then named rightly.

    ``kind`` says how much is seen: nothing, what lies outside the lungs, all. ``picture`` stands
    beside the bar: "border", "lungs_black", ..., or "".
    """

    text: str
    found: Mapping[str, float]
    kind: Literal["nothing", "outside", "all"]
    picture: str = ""


def outside_bars(results: Results) -> list[Bar]:
    """Return the figure's bars, from nothing to the ensemble; empty without audit.

    The audit's tests "baselines" and "lungs" give the bars between.
    """
    metrics = results.metrics
    if metrics is None:
        return []
    inputs, variants = (_values(results, test, "accuracy") for test in ("baselines", "lungs"))
    texts = {
        BORDER: (inputs, "the image's outer border alone,\nlinear model"),
        "box_black": (variants, "a box over both lungs,\n16 x 16 pixels, linear model"),
        "lungs_black": (variants, "lungs blacked out,\n16 x 16 pixels, linear model"),
        THUMBNAIL: (inputs, "whole image,\n16 x 16 pixels, linear model"),
    }
    between = [
        Bar(text, values[name], "all" if name == THUMBNAIL else "outside", name)
        for name, (values, text) in texts.items()
        if values.get(name)
    ]
    if not any(bar.kind == "outside" for bar in between):
        return []
    commonest = max(metrics["counts"], key=lambda label: metrics["counts"][label])
    share = undefined() | {"value": metrics["counts"][commonest] / metrics["n"]}
    ours = metrics["models"][WEIGHTED]["accuracy"]
    return [
        Bar(f"no image at all:\nalways say {commonest}", share, "nothing"),
        *between,
        Bar("whole image,\ntrained networks (ensemble)", ours, "all", "whole"),
    ]


def outside_sentences(results: Results) -> list[str]:
    """Say in two sentences how much of the score is not in the lungs, or that nobody knows."""
    bars = {bar.picture: bar for bar in outside_bars(results)}
    if not bars or results.metrics is None:
        return [f"How much of the score is not in the lungs was {results.not_measured('audit')}."]
    told = []
    if BORDER in bars:
        told.append(
            f"{percent(bars[BORDER].found, digits=0)} of the test images when it sees "
            "their outer border alone"
        )
    if hidden := next((name for name in WITHOUT_LUNGS if name in bars), None):
        covered = "blacked out" if hidden == "lungs_black" else "under a black box"
        told.append(
            f"{percent(bars[hidden].found, digits=0)} when it sees a thumbnail with the "
            f"lungs {covered}, which still draws where they lie"
        )
    first = (
        "Without a lung to look at, a plain linear model names the right one of "
        f"{len(results.labels)} classes on {' and on '.join(told)}; always saying the "
        f"commonest class is right on {100 * bars[''].found['value']:.0f} %, the trained ensemble, "
        f"which sees all, on {percent(bars['whole'].found, digits=0)}."
    )
    return [first, _second(results)]


def _second(results: Results) -> str:
    """Say what follows, by the verdicts of the two tests."""
    found = {result["id"]: result["verdict"] for result in (results.audit or {})["results"]}
    border = {
        label: value
        for label, value in _values(results, "baselines", "auroc").get(BORDER, {}).items()
        if value["low"] is not None and value["low"] >= TOLD
    }
    if {found.get("baselines"), found.get("lungs")} & {"shortcut", "suspicious"}:
        told = ""
        if border:
            label = max(border, key=lambda name: border[name]["value"])
            auroc = show_interval(border[label], digits=2)
            told = (
                f", and {label} is told from the rest by the border alone (AUROC {auroc}, "
                "where 0.50 is guessing)"
            )
        return (
            f"So a good part of what any network scores on these images is not in the lungs{told}: "
            "the accuracy above does not show that the networks recognise disease."
        )
    return (
        "The audit finds no shortcut in border, brightness, size or hidden lungs: by these tests "
        "the score is not explained by what lies outside the lungs."
    )


def draw_outside(
    bars: Sequence[Bar], image: Image | None, mask: NDArray[np.bool_] | None, *, note: str
) -> Figure:
    """Draw how often the class is named rightly by how much of an image is seen.

    An example (S, S) is shown as each model sees it, without a mask of its lungs, (S, S), not where
    that is needed.
    """
    pictures = {} if image is None else _pictures(image, mask)
    figure = new_figure(
        8.6, 0.56 * len(bars) + 1.0, note=note, title="How far does one get without the lungs?"
    )
    axes = figure.add_subplot()
    style_axes(axes, x_label="test images whose class is named rightly (thin line: 95 % interval)")
    for place, bar in enumerate(reversed(bars)):
        value, low, high = (100 * bar.found[key] for key in ("value", "low", "high"))
        axes.barh(place, value, height=0.6, **STYLES[bar.kind])
        end, text = value, f"{value:.0f} %"
        if low == low:
            axes.plot([low, high], [place, place], color=INK, linewidth=1.6, zorder=4)
            end, text = high, f"{text} [{low:.0f}, {high:.0f}]"
        axes.text(end + 1.2, place, text, va="center", fontsize=9, fontweight="bold", color=INK)
        if bar.picture in pictures:
            shown = OffsetImage(pictures[bar.picture], zoom=35 / 224, cmap="gray")
            at: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "frameon": False}
            axes.add_artist(AnnotationBbox(shown, (0, place), box_alignment=(1.12, 0.5), **at))
    axes.set_yticks(range(len(bars)), [bar.text for bar in reversed(bars)])
    axes.tick_params(axis="y", length=0, pad=46 if pictures else 4, labelsize=8.5)
    axes.set(xlim=(0, 108), ylim=(-0.55, len(bars) - 0.45))
    axes.set_xticks(range(0, 101, 20), [f"{tick} %" for tick in range(0, 101, 20)])
    axes.grid(False, axis="y")
    return figure


def outside_alt(bars: Sequence[Bar]) -> str:
    """Describe the figure for who cannot see it."""
    told = [f"{' '.join(bar.text.split())}: {100 * bar.found['value']:.0f} %" for bar in bars]
    return f"Bars, share of test images named rightly. {'; '.join(told)}."


def _pictures(image: Image, mask: NDArray[np.bool_] | None) -> dict[str, Image]:
    """Return the image as each model sees it, (224, 224) each."""
    small = thumbnails(image[None], np.zeros(1, np.int64))[0]
    ring = np.array(small)
    ring[RINGS:-RINGS, RINGS:-RINGS] = 255
    found = {"whole": _enlarge(image), THUMBNAIL: _enlarge(small), BORDER: _enlarge(ring)}
    if mask is not None and mask.any():
        for variant in WITHOUT_LUNGS:
            hidden = occlude(image[None], mask[None], variant)
            found[variant] = _enlarge(thumbnails(hidden, np.zeros(1, np.int64))[0])
    return found


def _enlarge(image: NDArray[Any]) -> Image:
    """Repeat pixels until the side is 224, without blur."""
    rows = np.arange(224) * image.shape[0] // 224
    return np.asarray(image, np.float32).clip(0, 255).astype(np.uint8)[np.ix_(rows, rows)]


def _values(results: Results, test: str, key: str) -> dict[str, Any]:
    """Return a test's values of a kind; empty where it was not done."""
    for result in (results.audit or {}).get("results", []):
        if result["id"] == test:
            return dict(result["values"].get(key, {}))
    return {}
