"""The sections on the run's own test split: scores, certainty, mistakes."""

from collections.abc import Iterable, Mapping
from typing import Any

from cxr.evaluation.adults import adult_rows
from cxr.evaluation.confidence import calibration_table, referral_sentences, sets_table
from cxr.evaluation.metrics import PER_CLASS
from cxr.evaluation.set_coverage import sets_sentences
from cxr.evaluation.tables import (
    INTERVALS,
    Table,
    class_table,
    difference_sentences,
    difference_table,
    few_note,
    partly_known_note,
    summary_table,
)
from cxr.report.parts import Pictures, Section, pictures_at, rows_table
from cxr.report.results import Results


def scores_section(results: Results, pictures: Pictures) -> Section | None:
    """Return how often members and ensemble are right; None where that was not measured."""
    metrics = results.metrics
    if metrics is None:
        return None
    told = "; ".join(difference_sentences(metrics))
    opening = (
        f"{metrics['n']:,} test images of {metrics['n_groups']:,} patients or groups. "
        f"Brackets: {INTERVALS}. equal: the members pooled with equal weights; ensemble: pooled "
        "with fitted weights; both with a temperature behind the pool. "
        f"{told[:1].upper()}{told[1:]}. {metrics['best_member']} is the member that did best on "
        "validation."
    )
    undefined = metrics["undefined"]
    note = [f"Undefined, shown as n/a: {', '.join(undefined)}."] if undefined else []
    note += [text for text in [few_note(metrics["patients"]), partly_known_note(metrics)] if text]
    tables = [
        rows_table("Ensemble, each class against the rest", class_table(metrics, columns=columns))
        for columns in (PER_CLASS[:4], PER_CLASS[4:])
    ]
    return Section(
        "How often it is right",
        (
            opening,
            rows_table("Members and ensemble on test", summary_table(metrics)),
            rows_table("Paired differences on the same images", difference_table(metrics)),
            *tables,
            *(
                [rows_table("Covid against normal among adults", adult_rows(adults, "model"))]
                if (adults := metrics.get("adults"))
                else []
            ),
            *note,
            *pictures_at(pictures, "confusion_best", "roc", "precision_recall"),
        ),
    )


def confidence_sections(results: Results, pictures: Pictures) -> Iterable[Section]:
    """Yield calibration, prediction sets and referral; nothing where not measured."""
    found = results.calibration
    if found is None:
        return
    yield Section(
        "Are its probabilities true?",
        (
            "NLL and Brier: smaller is better. ECE, the expected calibration error, is the mean "
            "distance of what it says from what is so; debiased: less what chance adds. Before and "
            "after the temperatures, which were fitted on validation.",
            *_calibration_tables(found),
            *pictures_at(pictures, "reliability"),
        ),
    )
    yield Section(
        "Answers that name several classes",
        (
            "A prediction set names every class that cannot be ruled out at the level asked. It is "
            f"fitted on {_fitted_words(found['fitted'])}: with one threshold for all, or with one "
            "per class, so that the rare class is covered too. The bundle serves those per class.",
            *[f"{text[:1].upper()}{text[1:]}." for text in sets_sentences(found)],
            rows_table("Prediction sets on test: coverage and size", sets_table(found)),
            *pictures_at(pictures, "coverage"),
        ),
    )
    sentences = [f"{text[:1].upper()}{text[1:]}." for text in referral_sentences(found)]
    skipped = [f"Left out, {part}: {why}." for part, why in found["skipped"].items()]
    yield Section(
        "When the least confident images go to a human",
        (*sentences, *skipped, *pictures_at(pictures, "risk_coverage")),
    )


def _fitted_words(fitted: Mapping[str, Any]) -> str:
    """Say what the sets were fitted on; version 0.1 counted no patients."""
    patients = f" of {fitted['n_patients']:,} patients or groups" if "n_patients" in fitted else ""
    return f"{fitted['n']:,} images ({fitted['fitted_on']}){patients}"


def _calibration_tables(found: Mapping[str, Any]) -> list[Table]:
    """Return calibration before and after, one table each, as a page is not that wide."""
    rows = calibration_table(found)
    return [
        rows_table(
            f"{stage.capitalize()} temperature",
            [
                {
                    head.removesuffix(f" {stage}"): cell
                    for head, cell in row.items()
                    if head == "model" or head.endswith(stage)
                }
                for row in rows
            ],
        )
        for stage in ("before", "after")
    ]


def mistakes_section(pictures: Pictures) -> Section | None:
    """Return the most confident mistakes; None without their figures."""
    shown = pictures_at(pictures, "mistakes")
    return (
        Section(
            "The most confident mistakes",
            (
                "The wrongly named test images with the highest probability. The maps (Grad-CAM) "
                "mark what speaks for the class that it named. One cannot read from a map why it "
                "is wrong.",
                *shown,
            ),
        )
        if shown
        else None
    )
