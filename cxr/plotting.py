"""One look for every figure: colours, type, a footer that says what the figure is of.

Figures are made as objects, without pyplot, so nothing global changes and a server's
threads may draw side by side.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cxr.files import atomic_write
from cxr.labels import CANONICAL

RESEARCH_USE = "Research use only, not a medical device."
"""Stands wherever a prediction is shown."""
OKABE_ITO = ("#009E73", "#D55E00", "#0072B2", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")
"""Colours that people with any common colour blindness tell apart; Okabe and Ito 2008,
https://jfly.uni-koeln.de/color/. The first four are the four classes'."""
GRAYS = ("#404040", "#6E6E6E", "#909090", "#555555")
"""For what a colour should stand out from: members beside their ensemble."""
DASHES = ((0, (5, 2)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)), (0, (3, 1, 1, 1, 1, 1)))
"""Line patterns that go with ``GRAYS``, so that the grays need not carry the meaning alone."""
HEAT = "Blues"
"""Colour map of counts and shares."""
INK = "#222222"
DPI = 150
_FOOTER_IN = 0.28


def class_colours(labels: Sequence[str]) -> dict[str, str]:
    """Give each class its colour; the project's four keep theirs whatever stands beside them.

    Beyond eight classes colours repeat.
    """
    colours = {name: OKABE_ITO[CANONICAL.index(name)] for name in labels if name in CANONICAL}
    others = [name for name in labels if name not in CANONICAL]
    free = [colour for colour in OKABE_ITO if colour not in colours.values()]
    return colours | {name: free[index % len(free)] for index, name in enumerate(others)}


def footer_text(note: str) -> str:
    """Return the footer: the note, and that the figure is for research use only."""
    if "research use only" in note.lower():
        return note
    return f"{note} · {RESEARCH_USE}" if note else RESEARCH_USE


def new_figure(width_in: float, height_in: float, *, title: str, note: str) -> Figure:
    """Open a figure with its title and footer; axes added to it keep clear of both.

    ``note`` says what it was made from, such as "synthetic phantom", and stands at the foot
    beside the words on research use. Nothing global knows the figure's Agg canvas.
    """
    figure = Figure(figsize=(width_in, height_in), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    foot = _FOOTER_IN / height_in
    figure.set_layout_engine("constrained", rect=(0.0, foot, 1.0, 1 - foot), w_pad=0.08, h_pad=0.08)
    figure.suptitle(title, fontsize=12, fontweight="bold", color=INK)
    look: dict[str, Any] = {"fontsize": 7.5, "color": "#555555", "ha": "left", "va": "center"}
    figure.text(0.08 / width_in, foot / 2, footer_text(note), **look)
    return figure


def style_axes(axes: Axes, *, title: str = "", x_label: str = "", y_label: str = "") -> None:
    """Label axes and give them the project's frame and grid."""
    axes.set_title(title, fontsize=10, color=INK)
    axes.set_xlabel(x_label, fontsize=9, color=INK)
    axes.set_ylabel(y_label, fontsize=9, color=INK)
    axes.tick_params(labelsize=8, colors=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, color="#E5E5E5", linewidth=0.6)
    axes.set_axisbelow(True)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, as ``atomic_write`` does; the same figure gives the same bytes."""
    with atomic_write(path) as file:
        # ``savefig`` would lay everything out once more before it draws.
        canvas: Any = FigureCanvasAgg(figure)  # matplotlib does not type what follows
        canvas.print_png(file, metadata={"Software": None})


def save_figures(figures: Mapping[str, Figure], folder: Path) -> list[Path]:
    """Write figures as ``<name>.png`` into a folder and return the files."""
    paths = [folder / f"{name}.png" for name in figures]
    for figure, path in zip(figures.values(), paths, strict=True):
        save_figure(figure, path)
    return paths
