"""How numbers, names and tables are written in the report and the cards, and their templates."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from cxr.evaluation.metrics import PER_CLASS
from cxr.evaluation.tables import INTERVALS, Cell, show_interval, show_number

UNDEFINED = "n/a"
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


class Table(NamedTuple):
    """A table as it is shown: a title, heads, and rows of as many cells."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]


def rows_table(title: str, rows: Sequence[Mapping[str, Cell]]) -> Table:
    """Turn rows of equal heads into a table."""
    return Table(title, list(rows[0]) if rows else [], [list(row.values()) for row in rows])


def templates(**options: Any) -> Environment:
    """Return the templates of this folder; a name that is not filled is an error."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        **options,
    )
    environment.filters |= {
        "interval": show_interval,
        "grouped": "{:,}".format,
        "sentence": lambda text: f"{text[:1].upper()}{text[1:]}.",
    }
    environment.globals |= {
        "rows_table": rows_table,
        "intervals": INTERVALS,
        "per_class": (PER_CLASS[:4], PER_CLASS[4:]),
    }
    return environment


def percent(found: Mapping[str, float | None], *, digits: int = 1) -> str:
    """Write ``84.6 % [82.0, 87.0]``; undefined is ``n/a``."""
    numbers = (found[key] for key in ("value", "low", "high"))
    value, low, high = (show_number(x if x is None else 100 * x, digits) for x in numbers)
    return value if value == UNDEFINED else f"{value} % [{low}, {high}]"


def split_interval(cell: Cell) -> tuple[str, str]:
    """Part a cell into its value and its interval, which a page shows smaller."""
    if cell is None:
        return "–", ""
    if isinstance(cell, int | float):
        return (f"{cell:,}" if isinstance(cell, int) else f"{cell:g}"), ""
    found = _WITH_INTERVAL.match(cell)
    return (found[1], found[2]) if found else (cell, "")


def show_cell(value: Any, kind: str, digits: int = 3) -> Cell:
    """Write a typed cell of the audit's tables; see ``cxr.audit.result.Kind``."""
    if value is None or isinstance(value, str):
        return value
    if kind == "interval":
        return show_interval(value, digits=digits)
    if kind == "range":
        return "median {value:.0f}, {low:.0f} to {high:.0f}".format(**value)
    if kind == "counts":
        return ", ".join(f"{name} {count}" for name, count in value.items())
    if kind == "flag":
        return "yes" if value else ""
    if value != value:
        return UNDEFINED
    if kind == "share":
        return f"{value:.0%}"
    if kind in ("number", "p"):
        return f"{value:.{digits}f}"
    return int(value) if kind == "count" else str(value)


def show_table(table: Mapping[str, Any]) -> Table:
    """Return a table of ``audit.json`` with its cells written."""
    kinds = [(column["kind"], column["digits"]) for column in table["columns"]]
    rows = [
        tuple(show_cell(cell, *kind) for cell, kind in zip(row, kinds, strict=True))
        for row in table["rows"]
    ]
    return Table(table["title"], tuple(column["heading"] for column in table["columns"]), rows)


def count(number: int, word: str) -> str:
    """Write ``1 image``, ``2 images``, ``1,237 images``."""
    return f"{number:,} {word}" + ("" if number == 1 else "s")


def one_line(text: Any) -> str:
    """Return text that cannot leave its line or cell of a Markdown table, nor turn into HTML."""
    plain = " ".join(str(text).split())
    for sign, written in _ESCAPED.items():
        plain = plain.replace(sign, written)
    return plain


def markdown_table(columns: Iterable[str], rows: Iterable[Iterable[Cell]]) -> list[str]:
    """Return the lines of a Markdown table."""
    heads = [one_line(head) for head in columns]
    cells = [[one_line(" ".join(filter(None, split_interval(cell)))) for cell in r] for r in rows]
    return [f"| {' | '.join(line)} |" for line in (heads, ["---"] * len(heads), *cells)]
