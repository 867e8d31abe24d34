"""The report's sections behind its first page: text, tables, pictures, in reading order."""

from collections.abc import Mapping
from typing import Any

from cxr.evaluation.adults import adult_rows
from cxr.evaluation.cross_validation import fold_table
from cxr.evaluation.tables import (
    Cell,
    Table,
    few_note,
    partly_known_note,
    show_interval,
    show_patients,
)
from cxr.models.ensemble import WEIGHTED
from cxr.report.cells import show_table
from cxr.report.facts import data_rows, licence_table, source_table, training_table
from cxr.report.parts import Part, Pictures, Section, pictures_at, rows_table
from cxr.report.results import Results
from cxr.report.score_tables import confidence_sections, mistakes_section, scores_section
from cxr.report.wording import VERDICTS, count


def build_sections(results: Results, pictures: Pictures) -> list[Section]:
    """Return every section for which something was measured.

    Args:
        results: of the run.
        pictures: those at hand; a place without one is left out.
    """
    found = [
        scores_section(results, pictures),
        *confidence_sections(results, pictures),
        mistakes_section(pictures),
        _audit(results, pictures),
        _experiment("What a leak is worth", results.leak, pictures, "leak"),
        _experiment("Against published results", results.published, pictures, "published"),
        _elsewhere(results),
        _folds(results),
        _pointing(results),
        _data(results),
        _training(results, pictures),
        _missing(results),
        _made(results),
    ]
    return [section for section in found if section is not None and section.parts]


def _audit(results: Results, pictures: Pictures) -> Section | None:
    audit = results.audit
    if audit is None:
        return None
    tests = [_test(result, pictures) for result in audit["results"]]
    return Section(
        "Shortcut audit",
        (
            audit["headline"],
            "Clear: nothing found. Suspicious: more than chance explains. Shortcut: the value "
            "cannot be had from the disease alone. Skipped: not done, with the reason.",
            *tests,
        ),
    )


def _test(result: Mapping[str, Any], pictures: Pictures) -> Section:
    parts: list[Part] = [result["what"], result["sentence"]]
    if statistic := result["statistic"]:
        guess = statistic["chance"]
        parts.append(
            f"The statistic that decides: {statistic['metric']}, {show_interval(statistic)}"
            + ("." if guess is None else f"; chance is {guess:.3g}.")
        )
    if result["reason"] and result["verdict"] != "skipped":
        parts.append(f"Skipped in part: {result['reason']}.")
    tables = [show_table(table) for table in result["tables"]]
    shown = pictures_at(pictures, f"audit/{result['id']}")
    return Section(result["title"], (*parts, *shown, *tables), result["verdict"])


def _experiment(
    title: str, values: Mapping[str, Any] | None, pictures: Pictures, place: str
) -> Section | None:
    """Return what an experiment beside the package wrote to be shown."""
    if values is None:
        return None
    shown = values["shown"]
    table = shown["table"]
    rows = tuple(map(tuple, table["rows"]))
    return Section(
        title,
        (
            *shown["sentences"],
            *pictures_at(pictures, place),
            Table(table["title"], tuple(table["columns"]), rows),
        ),
    )


def _elsewhere(results: Results) -> Section | None:
    rows: list[tuple[Cell, ...]] = []
    for name, found in results.elsewhere.items():
        scores = found["models"][WEIGHTED]
        alone = found.get("present_alone", {}).get("models", {}).get(WEIGHTED)
        rows.append(
            (
                name,
                found["n"],
                ", ".join(found.get("absent", [])) or "none",
                show_interval(scores["accuracy"]),
                show_interval(scores["macro_auroc"]),
                show_interval(alone["accuracy"]) if alone else None,
            )
        )
    heads = (
        "measured on",
        "images",
        "classes without images",
        "accuracy",
        "macro AUROC",
        "accuracy, classes present alone",
    )
    table = Table("The ensemble on other data sets", heads, tuple(rows))
    text = "Images that the run learnt from were left out."
    return Section("On images from elsewhere", (text, table)) if rows else None


def _folds(results: Results) -> Section | None:
    parts: list[Part] = []
    for found in results.folds.values():
        pooled, by_source = found["models"][WEIGHTED], found.get("split") == "source"
        how = (
            f"Each of {found['folds']} sources left out in turn, and tested by members that never "
            f"saw it; the ensemble's predictions of their {found['n']:,} images pooled"
            if by_source
            else f"{found['folds']} folds, no group in two; the ensemble's out-of-fold predictions "
            f"of all {found['n']:,} images pooled"
        )
        parts += [
            f"{how}: accuracy {show_interval(pooled['accuracy'])}, "
            f"balanced accuracy {show_interval(pooled['balanced_accuracy'])}, macro AUROC "
            f"{show_interval(pooled['macro_auroc'])}.",
            rows_table(
                "Leave one source out" if by_source else f"{found['folds']}-fold cross-validation",
                fold_table(found),
            ),
            *(
                rows_table(f"Covid against normal among adults, by {head}", adult_rows(part, head))
                for head, part in found.get("adults", {}).items()
            ),
            *filter(None, [partly_known_note(found)]),
        ]
    return Section("Every image once as test image", tuple(parts)) if parts else None


def _pointing(results: Results) -> Section | None:
    pointing = (results.explain or {}).get("pointing")
    if not pointing:
        return None
    rows: list[tuple[Cell, ...]] = [
        (
            name,
            model,
            group["images"],
            _patients(group),
            *(_share(group["models"][model][key]) for key in ("inside", "half_cell")),
        )
        for name, group in {"all lesions": pointing["all"], **pointing["per_class"]}.items()
        for model in group["models"]
    ]
    heads = ("class", "map", "images", "patients", "inside the lesion", "within half a cell")
    return Section(
        "Do the maps find the lesion?",
        (
            "Share of images on which the map's highest point lies in the true lesion.",
            Table("Pointing game", heads, tuple(rows)),
            *([few] if (few := few_note(_counted(pointing))) else []),
        ),
    )


def _counted(pointing: Mapping[str, Any]) -> dict[str, int]:
    groups = {"all lesions": pointing["all"], **pointing["per_class"]}
    return {name: group["patients"] for name, group in groups.items() if "patients" in group}


def _patients(group: Mapping[str, Any]) -> str | None:
    """Return the patients behind a share; None in files of version 0.1."""
    return show_patients(group["patients"]) if "patients" in group else None


def _share(found: Mapping[str, Any]) -> str:
    return show_interval({"value": found["rate"], "low": found["low"], "high": found["high"]})


def _data(results: Results) -> Section:
    facts = Table("What was trained on what", ("what", "value"), tuple(data_rows(results)))
    return Section("The data", (facts, source_table(results.table), licence_table(results.table)))


def _training(results: Results, pictures: Pictures) -> Section:
    curves = pictures_at(pictures, "curves")
    return Section("The training", (training_table(results), *([curves] if curves else [])))


def _missing(results: Results) -> Section | None:
    rows = tuple(results.missing.items())
    return (
        Section("Not in this report", (Table("Parts not measured", ("part", "what to do"), rows),))
        if rows
        else None
    )


def _made(results: Results) -> Section:
    rows: list[tuple[Cell, ...]] = []
    files = {
        "prepared.json": results.prepared,
        "ensemble.json": results.ensemble,
        "metrics.json": results.metrics,
        "audit.json": results.audit,
    }
    files |= {f"{name}/member.json": card for name, card in results.members.items()}
    for name, found in files.items():
        if made := (found or {}).get("environment"):
            rows.append((name, made["time_utc"], made["command"], made["git_commit"]))
    versions = (results.metrics or results.prepared).get("environment", {}).get("versions", {})
    told = ", ".join(f"{name} {version}" for name, version in versions.items())
    return Section(
        "How it was made",
        (
            Table(
                "Files, commands and commits", ("file", "time", "command", "commit"), tuple(rows)
            ),
            *([f"Versions: {told}."] if told else []),
        ),
    )


def verdict_rows(results: Results) -> list[tuple[str, str, str, str]]:
    """Return title, verdict, its sign and words, and the deciding figure of each audit test."""
    rows = []
    for result in (results.audit or {}).get("results", []):
        deciding = result["statistic"]
        told = f"{show_interval(deciding, digits=2)} {deciding['metric']}" if deciding else "–"
        rows.append((result["title"], result["verdict"], VERDICTS[result["verdict"]], told))
    return rows


def images_line(results: Results) -> str:
    """Return how many test images of how many patients the headline rests on."""
    metrics = results.metrics
    if metrics is None:
        return results.not_measured("evaluate")
    return f"{count(metrics['n'], 'test image')} of {metrics['n_groups']:,} patients or groups"
