"""``MODEL_CARD.md`` and ``DATA_CARD.md``, filled from a run's results without a blank.

After Mitchell et al. 2019, Model cards for model reporting, and Gebru et al. 2021, Datasheets
for datasets.
"""

from collections.abc import Iterable
from typing import Any

from cxr.evaluation.confidence import referral_sentences, sets_table
from cxr.evaluation.metrics import PER_CLASS
from cxr.evaluation.set_coverage import sets_sentences
from cxr.evaluation.tables import (
    INTERVALS,
    Table,
    class_table,
    difference_table,
    few_note,
    show_interval,
    summary_table,
)
from cxr.labels import list_words
from cxr.models.ensemble import WEIGHTED
from cxr.report.facts import (
    data_rows,
    licence_table,
    limits,
    own_sources,
    source_table,
    training_table,
)
from cxr.report.outside import outside_sentences
from cxr.report.parts import experiment_table, rows_table, templates
from cxr.report.results import Results
from cxr.report.sections import verdict_rows
from cxr.report.wording import markdown_table, one_line

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
ERRORS = {"nll": "NLL", "brier": "Brier", "ece": "ECE", "ece_debiased": "ECE, debiased"}


class Markdown(str):
    """Text that is Markdown already."""


def model_card(results: Results) -> str:
    """Return ``MODEL_CARD.md``; what was not measured is named with the command that does."""
    return _fill(
        "MODEL_CARD.md.j2",
        results,
        labels=list_words(results.labels),
        facts=data_rows(results),
        training=training_table(results),
        limits=limits(results),
        intervals=INTERVALS,
        scores=lambda: _score_tables(results),
        few=lambda: few_note((results.metrics or {})["patients"]),
        confidence=lambda: _confidence_tables(results),
        sentences=lambda: [
            f"{text[:1].upper()}{text[1:]}."
            for show in (sets_sentences, referral_sentences)
            for text in show(results.calibration or {})
        ],
        verdicts=lambda: rows_table(
            "Verdicts",
            [
                {"test": title, "verdict": words, "statistic that decides": statistic}
                for title, _, words, statistic in verdict_rows(results)
            ],
        ),
        made=_made(results),
    )


def data_card(results: Results) -> str:
    """Return ``DATA_CARD.md`` of the data that a run was made on."""
    rows = [row for row in data_rows(results) if not row[0].startswith(("member", "test "))]
    return _fill(
        "DATA_CARD.md.j2",
        results,
        sources=source_table(results.table),
        own_sources=own_sources(results.table),
        licences=licence_table(results.table),
        prepared=rows,
        fractions=", ".join(f"{share:g}" for share in results.prepared["settings"]["fractions"]),
        unknown=_unknown(results),
    )


def _fill(template: str, results: Results, **values: Any) -> str:
    """Fill a template; every value becomes one line that cannot turn into Markdown or HTML."""
    environment = templates(
        finalize=lambda value: value if isinstance(value, Markdown) else one_line(value)
    )
    environment.filters |= {
        "table": _table,
        "pairs": lambda rows: _lines(f"- {one_line(k)}: {one_line(value)}" for k, value in rows),
        "bullets": lambda texts: _lines(f"- {one_line(text)}" for text in texts),
        "lines": lambda texts: _lines(map(one_line, texts)),
        "interval": show_interval,
        "experiment": experiment_table,
    }
    text = environment.get_template(template).render(
        results=results,
        story=outside_sentences(results),
        sentence_of=lambda test: _sentence_of(results, test),
        **values,
    )
    return text.rstrip() + "\n"


def _score_tables(results: Results) -> list[Table]:
    metrics = results.metrics or {}
    rows = {
        "Members and ensemble": summary_table(metrics),
        "Paired differences on the same images": difference_table(metrics),
    }
    classes = [class_table(metrics, columns=part) for part in (PER_CLASS[:4], PER_CLASS[4:])]
    return [
        *(rows_table(title, table) for title, table in rows.items()),
        *(rows_table("Ensemble, each class against the rest", table) for table in classes),
    ]


def _confidence_tables(results: Results) -> list[Table]:
    values = results.calibration or {}
    scores = values["calibration"][WEIGHTED]
    rows = [
        {"ensemble": f"{stage} temperature"}
        | {name: show_interval(scores[stage][key]) for key, name in ERRORS.items()}
        for stage in ("before", "after")
    ]
    title = "Prediction sets on test; the bundle serves those per class"
    return [rows_table("Calibration on test", rows), rows_table(title, sets_table(values))]


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


def _made(results: Results) -> list[tuple[str, str]]:
    """Return each stage with its command, commit and time."""
    files: dict[str, Any] = {
        "prepare": results.prepared,
        "ensemble": results.ensemble,
        "evaluate": results.metrics,
        "audit": results.audit,
    }
    files |= {f"train {name}": card for name, card in results.members.items()}
    rows = []
    for name, values in files.items():
        what = results.not_measured(name) if name in results.commands else "not recorded"
        if made := (values or {}).get("environment"):
            what = f"{made['command']}, commit {made['git_commit']}, {made['time_utc']}"
        rows.append((name, what))
    return rows


def _lines(lines: Iterable[str]) -> Markdown:
    return Markdown("\n".join(lines))


def _table(table: Table) -> Markdown:
    rows = markdown_table(table.columns, table.rows)
    return _lines([f"*{one_line(table.title)}*", "", *rows, ""])
