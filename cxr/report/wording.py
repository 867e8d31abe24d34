"""How numbers and names are written in the report and the cards."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from cxr.evaluation.tables import Cell, show_number

VERDICTS = {
    "clear": "✓ clear",
    "suspicious": "? suspicious",
    "shortcut": "✗ shortcut",
    "skipped": "– skipped",
}
"""A sign beside the word, so that no colour carries the meaning."""

_WITH_INTERVAL = re.compile(r"^([+-]?[\d.]+%?|n/a) (\[[^\]]*\])$")

_ESCAPED = {
    "&": "&amp;",
    "<": "&lt;",
    ">": "&gt;",
    "|": "&#124;",
    "`": "'",
    "\\": "\\\\",
    "*": "\\*",
    "](": "]\\(",
}
"""What could end a cell, or turn text into HTML, emphasis, code or a link."""


def percent(found: Mapping[str, float | None], *, digits: int = 1) -> str:
    """Write ``84.6 % [82.0, 87.0]``; undefined is ``n/a``."""
    numbers = (found[key] for key in ("value", "low", "high"))
    value, low, high = (show_number(x if x is None else 100 * x, digits) for x in numbers)
    return value if value == "n/a" else f"{value} % [{low}, {high}]"


def split_interval(cell: Cell) -> tuple[str, str]:
    """Part a cell into its value and its interval, which a page shows smaller."""
    if cell is None:
        return "–", ""
    if isinstance(cell, int | float):
        return (f"{cell:,}" if isinstance(cell, int) else f"{cell:g}"), ""
    found = _WITH_INTERVAL.match(cell)
    return (found[1], found[2]) if found else (cell, "")


def count(number: int, word: str) -> str:
    """Write ``1 image``, ``2 images``, ``1,237 images``."""
    return f"{number:,} {word}" + ("" if number == 1 else "s")


def one_line(text: Any) -> str:
    """Return text that cannot leave its line or cell of a Markdown table, nor turn into HTML."""
    plain = " ".join(str(text).split())
    for sign, written in _ESCAPED.items():
        plain = plain.replace(sign, written)
    return plain


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> list[str]:
    """Return the lines of a Markdown table."""
    lines = [_row(columns), _row(["---"] * len(columns))]
    return [*lines, *(_row(["".join(_spaced(cell)) for cell in row]) for row in rows)]


def _spaced(cell: Cell) -> tuple[str, str]:
    value, interval = split_interval(cell)
    return value, f" {interval}" if interval else ""


def _row(cells: Sequence[str]) -> str:
    written = [cell if cell == "---" else one_line(cell) for cell in cells]
    return f"| {' | '.join(written)} |"
