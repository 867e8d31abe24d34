"""``MODEL_CARD.md`` and ``DATA_CARD.md``, filled from a run's results without a blank.

After Mitchell et al. 2019, Model cards for model reporting, and Gebru et al. 2021, Datasheets
for datasets.
"""

from collections.abc import Iterable

from cxr.evaluation.confidence import referral_sentences, sets_table
from cxr.evaluation.set_coverage import sets_sentences
from cxr.evaluation.tables import class_table, difference_table, few_note, summary_table
from cxr.labels import list_words
from cxr.report.facts import (
    data_rows,
    licence_table,
    limits,
    made_by,
    own_sources,
    source_table,
    training_table,
)
from cxr.report.outside import outside_sentences
from cxr.report.results import Results
from cxr.report.wording import VERDICTS, Table, markdown_table, one_line, templates

ROWS = (
    *(class_table, difference_table, few_note, referral_sentences, sets_sentences, sets_table),
    *(data_rows, licence_table, limits, list_words, made_by, own_sources, source_table),
    *(summary_table, training_table, outside_sentences),
)
"""What the templates ask for rows and sentences, by its name."""
UNKNOWN = {
    "patient_id": "who the patient is",
    "source": "the source",
    "sex": "sex",
    "age": "age",
    "view": "the view",
    "mask": "where the lungs are",
    "license": "the licence",
}
"""Columns of the table that may be empty, and what is then not known."""


class Markdown(str):
    """Text that is Markdown already."""


def model_card(results: Results) -> str:
    """Return ``MODEL_CARD.md``; what was not measured is named with the command that does."""
    return _fill("MODEL_CARD.md.j2", results)


def data_card(results: Results) -> str:
    """Return ``DATA_CARD.md`` of the data that a run was made on."""
    return _fill("DATA_CARD.md.j2", results)


def _fill(template: str, results: Results) -> str:
    """Fill a template; every value becomes one line that cannot turn into Markdown or HTML."""
    environment = templates(
        finalize=lambda value: value if isinstance(value, Markdown) else one_line(value)
    )
    environment.filters |= {
        "table": _table,
        "pairs": lambda rows: _lines(f"- {one_line(k)}: {one_line(value)}" for k, value in rows),
        "bullets": lambda texts: _lines(f"- {one_line(text)}" for text in texts),
        "lines": lambda texts: _lines(map(one_line, texts)),
        "experiment": lambda shown: Table(**shown["table"]),
    }
    environment.globals |= {function.__name__: function for function in ROWS}
    text = environment.get_template(template).render(
        results=results,
        sentence_of=lambda test: _sentence_of(results, test),
        signs=VERDICTS,
        unknown=_unknown(results),
    )
    return text.rstrip() + "\n"


def _sentence_of(results: Results, test: str) -> str:
    """Return what a test of the audit found, or that it was not done."""
    for result in (results.audit or {}).get("results", []):
        if result["id"] == test:
            return str(result["sentence"])
    return f"{results.not_measured('audit')}."


def _unknown(results: Results) -> list[str]:
    """Say which columns of the table are empty, and for how many images."""
    table, lines = results.table, []
    for column, name in UNKNOWN.items():
        blank = int((table[column] == "").sum()) if column in table else len(table)
        if blank:
            lines.append(f"{name}: unknown of {blank:,} of {len(table):,} images")
    return [*lines, "who was imaged, why, and who was left out: the sources do not tell"]


def _lines(lines: Iterable[str]) -> Markdown:
    return Markdown("\n".join(lines))


def _table(table: Table) -> Markdown:
    rows = markdown_table(table.columns, table.rows)
    return _lines([f"*{one_line(table.title)}*", "", *rows, ""])
