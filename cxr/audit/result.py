"""What an audit test found: a verdict, a sentence for anyone, a statistic, typed tables.

Every test gives one ``AuditResult``, also where it could not be done; ``audit.json`` and the
report are made of them. Numbers stay numbers here; ``cxr.report.wording`` formats them.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from cxr.errors import InputError, command

AUDIT_VERSION = 3
"""Raised when a test would give other numbers, or writes them in another way, so that results of
an earlier version are measured anew. Version 3 writes typed values under stable ids."""

Verdict = Literal["clear", "suspicious", "shortcut", "skipped"]
"""``clear``: nothing found. ``suspicious``: more than chance explains, and worth a look.
``shortcut``: the statistic cannot be had from the disease alone. ``skipped``: not done."""

SEVERITY: tuple[Verdict, ...] = ("skipped", "clear", "suspicious", "shortcut")
"""From least to worst; a test that has parts takes the verdict of the worst part."""

Kind = Literal["text", "count", "counts", "number", "share", "p", "interval", "range", "flag"]
"""How the cells of a column are read: text; a whole number; a dict of whole numbers; a number;
a number from 0 to 1 shown in percent; a p-value; ``value``, ``low`` and ``high`` of a 95 %
interval; the same of a median, least and largest; true or false."""

Cell = str | float | bool | None | Mapping[str, float]
"""A typed value; None where there is none. Text may stand in any column ("too few to say")."""


@dataclass(frozen=True)
class Column:
    """A column of a table: a fixed id, a heading for people (by default the id in words), a kind.

    ``digits`` stand behind the point of numbers and intervals.
    """

    id: str
    heading: str = ""
    kind: Kind = "text"
    digits: int = 3

    def __post_init__(self) -> None:
        object.__setattr__(self, "heading", self.heading or self.id.replace("_", " "))


@dataclass(frozen=True)
class AuditTable:
    """A table of typed cells, as many in each row as there are columns."""

    id: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def __post_init__(self) -> None:
        for row in self.rows:
            assert len(row) == len(self.columns), f"{self.title}: {row} under {self.columns}"

    def records(self) -> list[dict[str, Any]]:
        """Return each row as a dict from column id to cell."""
        return [dict(zip((c.id for c in self.columns), row, strict=True)) for row in self.rows]


@dataclass(frozen=True)
class Statistic:
    """The number that decided a test, with its 95 % interval and the value of guessing, if any.

    ``id`` is short and fixed, "auroc"; ``metric`` says what it is, for people.
    """

    id: str
    metric: str
    value: float
    low: float
    high: float
    chance: float | None = None


@dataclass(frozen=True)
class AuditResult:
    """One test's finding.

    Attributes:
        id: short and fixed, as in ``audit.json``: "leak", "baselines".
        what: what was done, in one or two sentences for a layman.
        sentence: the finding in plain words with its numbers; where skipped, the reason.
        statistic: the number that decided, where there is one.
        values: typed numbers under stable ids, which the report or another stage reads.
        reason: why a test, or a part of it, was skipped; "" where nothing was.
        plots: names of PNG files beside ``audit.json``.
    """

    id: str
    title: str
    what: str
    verdict: Verdict
    sentence: str
    statistic: Statistic | None = None
    values: dict[str, Any] = field(default_factory=dict)
    tables: list[AuditTable] = field(default_factory=list)
    reason: str = ""
    plots: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        assert self.verdict in get_args(Verdict), self.verdict

    def table(self, table_id: str) -> AuditTable:
        """Return a table by its id."""
        return next(table for table in self.tables if table.id == table_id)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "AuditResult":
        """Read what ``to_dict`` gave.

        Raises:
            InputError: keys that are none of an audit result's.
        """
        try:
            tables = []
            for table in values["tables"]:
                columns = tuple(Column(**column) for column in table["columns"])
                rows = tuple(map(tuple, table["rows"]))
                tables.append(AuditTable(table["id"], table["title"], columns, rows))
            deciding = values["statistic"] and Statistic(**values["statistic"])
            return cls(**{**values, "statistic": deciding, "tables": tables})
        except (KeyError, TypeError) as error:
            raise InputError(
                f"a result in audit.json is damaged ({error}): remove the file and audit again "
                f"({command('audit')})"
            ) from None


@dataclass(frozen=True)
class AuditTest:
    """A test of the audit: its id and number, which never change, and what it does."""

    id: str
    number: int
    title: str
    what: str

    def result(
        self, verdict: Verdict, sentence: str, statistic: Statistic | None, **parts: Any
    ) -> AuditResult:
        """Return the test's result; ``parts`` are further fields of it."""
        return AuditResult(self.id, self.title, self.what, verdict, sentence, statistic, **parts)

    def skipped(self, reason: str) -> AuditResult:
        """Return the result of a test that could not be done, with the reason."""
        return self.result("skipped", f"Not done: {reason}.", None, reason=reason)


def statistic_of(
    interval: Mapping[str, float], kind: str, metric: str, *, chance: float | None = None
) -> Statistic:
    """Return a statistic from ``value``, ``low`` and ``high``; see ``Statistic``."""
    return Statistic(kind, metric, **interval, chance=chance)


def judge(low: float, *, suspicious: float, shortcut: float) -> Verdict:
    """Judge a statistic by the lower end of its interval, so that few images cannot alarm alone.

    It is ``suspicious`` and ``shortcut`` from these limits on; NaN, undefined, is ``skipped``.
    """
    if math.isnan(low):
        return "skipped"
    if low >= shortcut:
        return "shortcut"
    return "suspicious" if low >= suspicious else "clear"


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the most severe verdict; ``skipped`` where there is none."""
    return max(verdicts, key=SEVERITY.index, default="skipped")


def headline(results: Sequence[AuditResult]) -> str:
    """Return the audit in a sentence: how many tests, and which found what."""
    if not results:
        return "No audit test was done."
    words = {"shortcut": "found a shortcut"}
    parts = []
    for verdict in reversed(SEVERITY):
        titles = [result.title for result in results if result.verdict == verdict]
        if titles:
            parts.append(f"{len(titles)} {words.get(verdict, verdict)} ({'; '.join(titles)})")
    return f"Of {len(results)} audit tests: {', '.join(parts)}."
