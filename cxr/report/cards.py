"""``MODEL_CARD.md`` and ``DATA_CARD.md``, filled from a run's results without a blank.

After Mitchell et al. 2019, Model cards for model reporting, and Gebru et al. 2021, Datasheets
for datasets.
"""

from collections.abc import Sequence
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
from cxr.report.parts import rows_table
from cxr.report.results import Results
from cxr.report.sections import verdict_rows
from cxr.report.wording import markdown_table, one_line


def model_card(results: Results) -> str:
    """Return ``MODEL_CARD.md``.

    Args:
        results: of the run; what was not measured is named with the command that measures it.
    """
    lines = [
        f"# Model card: {one_line(results.name)}",
        "",
        f"**{one_line(results.note)}**",
        "",
        "An ensemble of convolutional networks that sorts frontal chest images into "
        f"{one_line(list_words(results.labels))}.",
        "",
        "## What it is and what it was trained on",
        *_pairs(data_rows(results)),
        "",
        *_table(training_table(results)),
        "## Meant for",
        "Research and teaching: measuring how such a model is right and wrong, and on what its "
        "score rests. Not meant for any decision about a patient.",
        "",
        "## Limits of use",
        *_list(limits(results)),
        "",
        "## What was measured on the test split",
        *_test_lines(results),
        "## Are its probabilities true?",
        *_certainty_lines(results),
        "## What the score rests on (shortcut audit)",
        *_audit_lines(results),
        "## Subgroup performance",
        *_subgroup_lines(results),
    ]
    lines += [*_published_lines(results), *_elsewhere_lines(results)]
    lines += [
        "## Whom it may harm",
        "A model that recognises the hospital, the age or the exposure instead of the disease is "
        "wrong first on patients who differ from its images, and says so with a high probability. "
        "Read the audit above before you read the accuracy.",
        "",
        "## How to get these values again",
        *_made_lines(results),
    ]
    return "\n".join(lines).rstrip() + "\n"


def data_card(results: Results) -> str:
    """Return ``DATA_CARD.md``.

    Args:
        results: of a run on the data.
    """
    prepared, counts = results.prepared, results.prepared["counts"]
    settings = prepared["settings"]
    made = (
        "A synthetic phantom: drawn by a program, no patient behind any image."
        if (results.synthetic)
        else "Radiographs collected from the sources below."
    )
    lines = [
        f"# Data card: {one_line(results.run['data'])}",
        "",
        f"**{one_line(results.note)}**",
        "",
        "## What the images are",
        made,
        "",
        *_table(source_table(results.table)),
        *_list(own_sources(results.table)),
        "",
        "## Licences",
        *_table(licence_table(results.table)),
        "## How they were prepared",
        *_pairs([row for row in data_rows(results) if not row[0].startswith(("member", "test "))]),
        *_pairs(
            [
                ("identical copies dropped", f"{counts['dropped_identical']:,}"),
                ("near-identical copies dropped", f"{counts['dropped_near']:,}"),
                ("images with conflicting labels dropped", f"{counts['dropped_conflicting']:,}"),
                ("unreadable images dropped", f"{counts['dropped_unreadable']:,}"),
                (
                    "near-identical images looked for",
                    "yes" if settings["near_duplicates"] else "no",
                ),
                ("seed of the split", str(settings["seed"])),
                (
                    "fractions asked for (train, val, test)",
                    ", ".join(f"{share:g}" for share in settings["fractions"]),
                ),
            ]
        ),
        "",
        "## Are the splits apart?",
        *_leak_lines(results),
        "## What can be told without a lung",
        *_story(results),
        "",
        "## What is not known",
        *_list(_unknown(results)),
        "",
        "## Not for",
        "Diagnosis, treatment or triage, nor any claim about how a disease looks: "
        "the label is the source's, and no radiologist has read these images again for this set.",
        "",
        "## How to get this again",
        *_pairs(
            [
                (name, str(prepared["environment"][key]))
                for key, name in {
                    "command": "command",
                    "git_commit": "commit",
                    "time_utc": "time (UTC)",
                }.items()
            ]
        ),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _test_lines(results: Results) -> list[str]:
    metrics = results.metrics
    if metrics is None:
        return [f"{results.not_measured('evaluate')}.", ""]
    lines = [
        f"{metrics['n']:,} test images of {metrics['n_groups']:,} patients or groups; brackets: "
        f"{INTERVALS}.",
        "",
        *_table(rows_table("Members and ensemble", summary_table(metrics))),
        *_table(rows_table("Paired differences on the same images", difference_table(metrics))),
    ]
    for columns in (PER_CLASS[:4], PER_CLASS[4:]):
        title = "Ensemble, each class against the rest"
        lines += _table(rows_table(title, class_table(metrics, columns=columns)))
    note = one_line(few_note(metrics["patients"]))
    return [*lines, note, ""] if note else lines


def _certainty_lines(results: Results) -> list[str]:
    found = results.calibration
    if found is None:
        return [f"{results.not_measured('evaluate')}.", ""]
    scores = found["calibration"][WEIGHTED]
    rows = [
        {"ensemble": f"{stage} temperature"}
        | {
            name: show_interval(scores[stage][key])
            for key, name in (
                ("nll", "NLL"),
                ("brier", "Brier"),
                ("ece", "ECE"),
                ("ece_debiased", "ECE, debiased"),
            )
        }
        for stage in ("before", "after")
    ]
    return [
        *_table(rows_table("Calibration on test", rows)),
        *_table(
            rows_table(
                "Prediction sets on test; the bundle serves those per class", sets_table(found)
            )
        ),
        *_list(
            [
                f"{text[:1].upper()}{text[1:]}."
                for text in (*sets_sentences(found), *referral_sentences(found))
            ]
        ),
        "",
    ]


def _audit_lines(results: Results) -> list[str]:
    lines = [*_story(results), ""]
    if results.audit is None:
        return lines
    rows = tuple((title, words, told) for title, _, words, told in verdict_rows(results))
    lines += _table(Table("Verdicts", ("test", "verdict", "statistic that decides"), rows))
    if not results.audit["complete"]:
        lines += [f"Some tests are not done yet: run {results.commands['audit']}.", ""]
    return lines


def _subgroup_lines(results: Results) -> list[str]:
    return [_sentence_of(results, "subgroups"), ""]


def _leak_lines(results: Results) -> list[str]:
    disjoint = results.prepared["disjoint"]
    return [
        f"By what `prepare` stored, {disjoint['crossing_groups']:,} of {disjoint['groups']:,} "
        "patients or groups lie in two splits.",
        f"Counted again from the pixels: {_sentence_of(results, 'leak')}",
        "",
    ]


def _sentence_of(results: Results, test: str) -> str:
    """Return what a test of the audit found, or that it was not done."""
    for result in (results.audit or {}).get("results", []):
        if result["id"] == test:
            return one_line(result["sentence"])
    return f"{results.not_measured('audit')}."


def _story(results: Results) -> list[str]:
    return [one_line(sentence) for sentence in outside_sentences(results)]


def _published_lines(results: Results) -> list[str]:
    if results.published is None:
        return []
    shown = results.published["shown"]
    table = shown["table"]
    rows = tuple(map(tuple, table["rows"]))
    return [
        "## Against published results",
        *_table(Table(table["title"], tuple(table["columns"]), rows)),
        *_list(shown["sentences"]),
        "",
    ]


def _elsewhere_lines(results: Results) -> list[str]:
    lines = ["## On images from elsewhere"]
    for name, found in results.elsewhere.items():
        accuracy = show_interval(found["models"][WEIGHTED]["accuracy"])
        lines.append(f"- {one_line(name)}, {found['n']:,} images: accuracy {accuracy}")
    if not results.elsewhere:
        lines.append(f"{results.not_measured('evaluate_on')}.")
    return [*lines, ""]


def _unknown(results: Results) -> list[str]:
    """Say which columns of the table are empty, and for how many images."""
    table, found = results.table, []
    for column, name in {
        "patient_id": "who the patient is",
        "source": "the source",
        "sex": "sex",
        "age": "age",
        "view": "the view",
        "mask": "where the lungs are",
        "license": "the licence",
    }.items():
        blank = int((table[column] == "").sum()) if column in table else len(table)
        if blank:
            found.append(f"{name}: unknown of {blank:,} of {len(table):,} images")
    return [*found, "who was imaged, why, and who was left out: the sources do not tell"]


def _made_lines(results: Results) -> list[str]:
    files: dict[str, Any] = {
        "prepare": results.prepared,
        "ensemble": results.ensemble,
        "evaluate": results.metrics,
        "audit": results.audit,
    }
    files |= {f"train {name}": card for name, card in results.members.items()}
    lines = []
    for name, found in files.items():
        made = (found or {}).get("environment")
        what = (
            f"{made['command']}, commit {made['git_commit']}, {made['time_utc']}"
            if made
            else (results.not_measured(name) if name in results.commands else "not recorded")
        )
        lines.append(f"- {one_line(name)}: {one_line(what)}")
    return lines


def _pairs(rows: Sequence[tuple[str, str]]) -> list[str]:
    return [f"- {one_line(name)}: {one_line(value)}" for name, value in rows]


def _list(sentences: Sequence[str]) -> list[str]:
    return [f"- {one_line(sentence)}" for sentence in sentences]


def _table(table: Table) -> list[str]:
    return [f"*{one_line(table.title)}*", "", *markdown_table(table.columns, table.rows), ""]
