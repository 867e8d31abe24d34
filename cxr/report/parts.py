"""What a section of the report is made of, and the templates that it is put into."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from cxr.evaluation.tables import Cell, Table, show_interval

UNDEFINED = "n/a"


@dataclass(frozen=True)
class Picture:
    """A figure inside the report.

    Attributes:
        png: the file's bytes.
        alt: what it shows, for who cannot see it.
        caption: below it.
    """

    png: bytes
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Section:
    """A part of the report.

    Attributes:
        title: its heading.
        parts: sentences, tables and pictures in order; a list of pictures stands side by
            side; ``Section`` inside is a lower heading.
        verdict: of an audit test, else "".
    """

    title: str
    parts: tuple["str | Table | Picture | list[Picture] | Section", ...]
    verdict: str = ""


Part = str | Table | Picture | list[Picture] | Section
Pictures = Mapping[str, Sequence[Picture]]
"""Place in the report ("roc", "audit/lungs", "mistakes") to what stands there."""


def templates(**options: Any) -> Environment:
    """Return the templates of this folder; a name that is not filled is an error."""
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        **options,
    )


def rows_table(title: str, rows: Sequence[Mapping[str, Cell]]) -> Table:
    """Turn rows of equal heads into a table."""
    heads = tuple(rows[0]) if rows else ()
    return Table(title, heads, tuple(tuple(row.values()) for row in rows))


def experiment_table(shown: Mapping[str, Any]) -> Table:
    """Return the table that an experiment beside the package wrote to be shown."""
    table = shown["table"]
    return Table(table["title"], tuple(table["columns"]), tuple(map(tuple, table["rows"])))


def pictures_at(pictures: Pictures, *places: str) -> list[Picture]:
    """Return the pictures of places, in order; none where there is none."""
    return [picture for place in places for picture in pictures.get(place, ())]


def show_cell(value: Any, kind: str, digits: int = 3) -> Cell:
    """Write a typed cell of the audit's tables.

    Args:
        value: of ``cxr.audit.result.Cell``; text and None stay, whatever the kind.
        kind: see ``cxr.audit.result.Kind``.
        digits: of numbers and intervals, behind the point.
    """
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
    rows = tuple(
        tuple(show_cell(cell, *kind) for cell, kind in zip(row, kinds, strict=True))
        for row in table["rows"]
    )
    return Table(table["title"], tuple(column["heading"] for column in table["columns"]), rows)
