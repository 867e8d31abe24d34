"""How the typed cells of the audit's tables are written."""

from collections.abc import Mapping
from typing import Any

from cxr.evaluation.tables import Cell, Table, show_interval

UNDEFINED = "n/a"


def show_cell(value: Any, kind: str, digits: int = 3) -> Cell:
    """Write a typed cell.

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
