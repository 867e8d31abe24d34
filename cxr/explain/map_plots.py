"""Images with class activation maps laid over them. S side of prepared pixels, M members."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cxr.labels import in_label
from cxr.models.ensemble import WEIGHTED
from cxr.plotting import INK, new_figure

HEAT_BASE = "inferno"
"""Rises in lightness throughout, so it also reads in gray and with any colour blindness."""
MAX_OPACITY = 0.65
OUTLINE = "#56B4E9"
"""Sky blue of Okabe and Ito: stands out on gray image and on every shade of the map."""
PANEL_IN = 2.15
MOST_COLUMNS = 5


@dataclass(frozen=True)
class Example:
    """One image, (H, W) uint8, explained for the class that the ensemble predicts.

    ``probs`` of each class and ``maps`` (H, W) float32, 0 to 1, are by member and "ensemble". The
    true lesion, where it is known, and the lungs, as the finder sees them, are masks (H, W).
    """

    image: NDArray[np.uint8]
    label: str
    prediction: str
    probs: Mapping[str, Mapping[str, float]]
    maps: Mapping[str, NDArray[np.float32]]
    lesion: NDArray[np.bool_] | None = None
    lungs: NDArray[np.bool_] | None = None
    name: str = field(default="", kw_only=True)

    @property
    def right(self) -> bool:
        """Whether the ensemble predicted the true class."""
        return bool(in_label([self.prediction], [self.label])[0])


def heat_map() -> ListedColormap:
    """Return the colour map of activation: transparent at 0, denser and lighter towards 1."""
    values = np.linspace(0, 1, 256)
    colours = matplotlib.colormaps[HEAT_BASE](0.15 + 0.85 * values)
    colours[:, 3] = MAX_OPACITY * values**0.7
    return ListedColormap(colours, "activation")


def draw_examples(examples: Sequence[Example], *, title: str, note: str) -> Figure:
    """Draw a row per image: the image, each member's map of the predicted class, the ensemble's.

    All examples, at least one, have the same members; the title says what else they have in
    common, the note what the images are.
    """
    names = list(examples[0].maps)
    legend = ""
    if any(example.lesion is not None and example.lesion.any() for example in examples):
        legend += " · blue outline: true lesion"
    if any(example.lungs is not None and example.lungs.any() for example in examples):
        legend += " · dotted: lungs, as found"
    width = PANEL_IN * (1 + len(names)) + 0.9
    # Titles need 0.55 inches a row; title, footer and margins 0.75.
    height = (PANEL_IN + 0.5) * len(examples) + 0.75
    subtitle = f"{title}\nmaps of the predicted class{legend}"
    figure = new_figure(width, height, title=subtitle, note=note)
    panels = figure.subplots(len(examples), 1 + len(names), squeeze=False)
    for axes_row, example in zip(panels, examples, strict=True):
        _draw_row(axes_row, example, names)
    _add_heat_bar(figure, list(panels.flat))
    return figure


def draw_maps(
    image: NDArray[np.uint8],
    maps: Mapping[str, NDArray[np.float32]],
    *,
    title: str,
    note: str,
    lesion: NDArray[np.bool_] | None = None,
) -> Figure:
    """Draw an image (S, S) and several maps of it, such as those of different methods.

    ``maps`` are heads of panels to (S, S) float32, 0 to 1; a lesion (S, S) is outlined.
    """
    columns = min(MOST_COLUMNS, 1 + len(maps))
    rows = -(-(1 + len(maps)) // columns)
    width, height = PANEL_IN * columns + 0.9, (PANEL_IN + 0.3) * rows + 0.7
    figure = new_figure(width, height, title=title, note=note)
    panels = figure.subplots(rows, columns, squeeze=False)
    flat = list(panels.flat)
    _draw_overlay(flat[0], image, None, lesion=lesion, title="image")
    for axes, (name, values) in zip(flat[1:], maps.items(), strict=False):
        _draw_overlay(axes, image, values, lesion=lesion, title=name)
    for axes in flat[1 + len(maps) :]:
        axes.set_axis_off()
    _add_heat_bar(figure, flat)
    return figure


def _draw_overlay(
    axes: Axes,
    image: NDArray[np.uint8],
    values: NDArray[np.float32] | None,
    *,
    lesion: NDArray[np.bool_] | None = None,
    lungs: NDArray[np.bool_] | None = None,
    title: str = "",
) -> None:
    """Draw an image, a map (S, S, 0 to 1) over it, and the outlines of lesion and lungs."""
    axes.imshow(image, cmap="gray", vmin=0, vmax=255)
    if values is not None:
        axes.imshow(values, cmap=heat_map(), vmin=0, vmax=1)
        if not values.any():
            text = "nothing speaks\nfor this class"
            centre: dict[str, Any] = {"ha": "center", "va": "center", "transform": axes.transAxes}
            axes.text(0.5, 0.5, text, color="white", fontsize=8, **centre)
    if lesion is not None and lesion.any():
        axes.contour(lesion, levels=[0.5], colors=OUTLINE, linewidths=1.1)
    if lungs is not None and lungs.any():
        axes.contour(lungs, levels=[0.5], colors="white", linewidths=0.8, linestyles="dotted")
    axes.set_title(title, fontsize=8, color=INK)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _add_heat_bar(figure: Figure, panels: list[Axes]) -> None:
    """Add the colour bar, drawn on the middle gray of an image."""
    bar = figure.colorbar(
        ScalarMappable(Normalize(0, 1), heat_map()), ax=panels, fraction=0.025, pad=0.01, aspect=30
    )
    bar.ax.set_facecolor("#808080")
    bar.set_label("activation, share of each member's maximum", fontsize=8, color=INK)
    bar.ax.tick_params(labelsize=7, colors=INK)
    bar.outline.set_visible(False)


def _draw_row(panels: Sequence[Axes], example: Example, names: Sequence[str]) -> None:
    outlines: dict[str, Any] = {"lesion": example.lesion, "lungs": example.lungs}
    verdict = "right" if example.right else "wrong"
    head = f"{verdict}: true {example.label}\npredicted {example.prediction}"
    _draw_overlay(panels[0], example.image, None, **outlines, title=head)
    panels[0].title.set_fontweight("bold")
    panels[0].set_xlabel(example.name, fontsize=6, color="#555555")
    for axes, name in zip(panels[1:], names, strict=True):
        probs = example.probs[name]
        text = f"{name}\n{example.prediction} {probs[example.prediction]:.2f}"
        if not example.right:
            text += f", true {example.label} {probs[example.label]:.2f}"
        _draw_overlay(axes, example.image, example.maps[name], **outlines, title=text)
        if name == WEIGHTED:
            axes.title.set_fontweight("bold")
