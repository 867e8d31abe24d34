"""``report.html``, ``MODEL_CARD.md`` and ``DATA_CARD.md``, filled from a run's results.

The report is one file with everything inside it, for screen, paper and screen reader. The cards are
after Mitchell et al. 2019, Model cards for model reporting, and Gebru et al. 2021, Datasheets for
datasets.
"""

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from cxr.evaluation import confidence, cross_validation, set_coverage, tables
from cxr.evaluation.adults import adult_rows
from cxr.labels import list_words
from cxr.report import facts
from cxr.report.outside import outside_sentences
from cxr.report.results import Results
from cxr.report.wording import (
    VERDICTS,
    Table,
    count,
    markdown_table,
    one_line,
    show_table,
    split_interval,
    templates,
)

SHORT = 12
"""Digits of the fingerprint on the first page; the whole stands under the data."""
WIDE = 7
"""Columns from which a table is set smaller."""


class Picture(NamedTuple):
    """A plot inside the report: the PNG file's bytes, and what it shows for who cannot see it."""

    png: bytes
    alt: str


Pictures = Mapping[str, Sequence[Picture]]
"""Place in the report ("roc", "audit/lungs", "mistakes") to what stands there."""


class Markdown(str):
    """Text that is Markdown already."""


def render_report(results: Results, pictures: Pictures) -> str:
    """Return the report as one HTML document without external references.

    Args:
        results: of the run; a section for which nothing was measured is left out.
        pictures: those at hand; "outside" stands on the first page.
    """
    filters = {"cell": split_interval, "uri": data_uri, "css": css_string}
    text = _fill(
        "report.html.j2",
        results,
        filters,
        {"autoescape": True},
        pictures=pictures,
        titles=[],
        short=SHORT,
        wide=WIDE,
    )
    return re.sub(r"\n\s*\n+", "\n", text)


def model_card(results: Results) -> str:
    """Return ``MODEL_CARD.md``; what was not measured is named with the command that does."""
    return _card("MODEL_CARD.md.j2", results)


def data_card(results: Results) -> str:
    """Return ``DATA_CARD.md`` of the data that a run was made on."""
    return _card("DATA_CARD.md.j2", results)


def data_uri(png: bytes) -> str:
    """Return a PNG as a data URI."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def css_string(text: str) -> str:
    """Return text that cannot leave a quoted CSS string, nor the style element around it."""
    return "".join(
        sign if re.match(r"[A-Za-z0-9 ,.:;/-]", sign) else f"\\{ord(sign):x} " for sign in text
    )


def _card(template: str, results: Results) -> str:
    """Fill a card; every value becomes one line that cannot turn into Markdown or HTML."""
    filters = {
        "table": _table,
        "pairs": lambda rows: _lines(f"- {one_line(k)}: {one_line(value)}" for k, value in rows),
        "bullets": lambda texts: _lines(f"- {one_line(text)}" for text in texts),
        "lines": lambda texts: _lines(map(one_line, texts)),
        "experiment": lambda shown: Table(**shown["table"]),
    }
    finalize = {"finalize": lambda value: value if isinstance(value, Markdown) else one_line(value)}
    return _fill(template, results, filters, finalize).rstrip() + "\n"


def _fill(
    template: str,
    results: Results,
    filters: Mapping[str, Any],
    options: Mapping[str, Any],
    **values: Any,
) -> str:
    """Fill a template, which asks the modules that make rows and sentences for them by name."""
    environment = templates(**options)
    environment.filters |= filters
    makers = (confidence, cross_validation, facts, set_coverage, tables)
    functions = (adult_rows, count, list_words, outside_sentences, show_table)
    environment.globals |= {
        part.__name__.rpartition(".")[2]: part for part in (*makers, *functions)
    }
    return environment.get_template(template).render(results=results, signs=VERDICTS, **values)


def _lines(lines: Iterable[str]) -> Markdown:
    return Markdown("\n".join(lines))


def _table(table: Table) -> Markdown:
    rows = markdown_table(table.columns, table.rows)
    return _lines([f"*{one_line(table.title)}*", "", *rows, ""])
