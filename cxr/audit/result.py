"""What an audit test found: a verdict, a sentence for anyone, a figure, tables.

Every test gives one ``AuditResult``, also where it could not be done; ``audit.json`` and the
report are made of them.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from cxr.errors import InputError
from cxr.evaluation.tables import Table

Verdict = Literal["clear", "suspicious", "shortcut", "skipped"]
"""``clear``: nothing found. ``suspicious``: more than chance explains, and worth a look.
``shortcut``: the figure cannot be had from the disease alone. ``skipped``: not done."""

SEVERITY: tuple[Verdict, ...] = ("skipped", "clear", "suspicious", "shortcut")
"""From least to worst; a test that has parts takes the verdict of the worst part."""


@dataclass(frozen=True)
class AuditResult:
    """One test's finding.

    Attributes:
        name: short and fixed, as in ``audit.json``: "leak", "baselines".
        title: for people, "Copies across splits".
        what: what was done, in one or two sentences for a layman.
        verdict: see ``Verdict``.
        sentence: the finding in plain words with its figures; where skipped, the reason.
        figure: ``value``, ``low``, ``high`` (95 % interval) and ``chance`` of the figure that
            decided, with ``metric``, its name; None where there is none.
        tables: the details.
        reason: why a test, or a part of it, was skipped; "" where nothing was.
        figures: names of PNG files beside ``audit.json``.
    """

    name: str
    title: str
    what: str
    verdict: Verdict
    sentence: str
    figure: dict[str, Any] | None = None
    tables: list[Table] = field(default_factory=list)
    reason: str = ""
    figures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        assert self.verdict in get_args(Verdict), self.verdict

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
            tables = [
                Table(table["title"], tuple(table["columns"]), tuple(map(tuple, table["rows"])))
                for table in values["tables"]
            ]
            return cls(**{**values, "tables": tables})
        except (KeyError, TypeError) as error:
            raise InputError(
                f"a result in audit.json is damaged ({error}): remove the file and audit again "
                "(make audit)"
            ) from None


def skipped(name: str, title: str, what: str, reason: str) -> AuditResult:
    """Return the result of a test that could not be done, with the reason."""
    return AuditResult(name, title, what, "skipped", f"Not done: {reason}.", reason=reason)


def figure_of(
    found: Mapping[str, float], *, metric: str, chance: float | None = None
) -> dict[str, Any]:
    """Return a figure from what ``cxr.evaluation.bootstrap.interval`` gave.

    Args:
        found: ``value``, ``low``, ``high``.
        metric: what it is, "AUROC of covid against the rest".
        chance: the value of guessing, where there is one.
    """
    return {
        "metric": metric,
        **{key: found[key] for key in ("value", "low", "high")},
        "chance": chance,
    }


def judge(low: float, *, suspicious: float, shortcut: float) -> Verdict:
    """Judge a figure by the lower end of its interval, so that few images cannot alarm alone.

    Args:
        low: lower end of the interval; NaN, an undefined figure, is ``skipped``.
        suspicious: from here on the figure is suspicious.
        shortcut: from here on it is a shortcut.
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
    words = {
        "shortcut": "found a shortcut",
        "suspicious": "suspicious",
        "clear": "clear",
        "skipped": "skipped",
    }
    parts = []
    for verdict in reversed(SEVERITY):
        names = [result.title for result in results if result.verdict == verdict]
        if names:
            parts.append(f"{len(names)} {words[verdict]} ({'; '.join(names)})")
    return f"Of {len(results)} audit tests: {', '.join(parts)}."
