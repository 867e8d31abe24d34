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
from cxr.report.facts import data_rows, licence_table, source_table, training_table
from cxr.report.parts import (
    Part,
    Pictures,
    Section,
    experiment_table,
    pictures_at,
    rows_table,
    show_table,
)
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
    own = pictures_at(pictures, place)
    return Section(title, (*shown["sentences"], *own, experiment_table(shown)))


def _elsewhere(results: Results) -> Section | None:
    rows: list[dict[str, Cell]] = []
    for name, values in results.elsewhere.items():
        scores = values["models"][WEIGHTED]
        alone = values.get("present_alone", {}).get("models", {}).get(WEIGHTED)
        rows.append(
            {
                "measured on": name,
                "images": values["n"],
                "classes without images": ", ".join(values.get("absent", [])) or "none",
                "accuracy": show_interval(scores["accuracy"]),
                "macro AUROC": show_interval(scores["macro_auroc"]),
                "accuracy, classes present alone": show_interval(alone["accuracy"])
                if alone
                else None,
            }
        )
    table = rows_table("The ensemble on other data sets", rows)
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
            *filter(None, [partly_known_note(found), found.get("one_class_each")]),
        ]
    return Section("Every image once as test image", tuple(parts)) if parts else None


def _pointing(results: Results) -> Section | None:
    pointing = (results.explain or {}).get("pointing")
    if not pointing:
        return None
    groups = {"all lesions": pointing["all"], **pointing["per_class"]}
    # Files of version 0.1 do not count patients.
    counted = {name: group["patients"] for name, group in groups.items() if "patients" in group}
    rows: list[dict[str, Cell]] = [
        {
            "class": name,
            "map": model,
            "images": group["images"],
            "patients": show_patients(counted[name]) if name in counted else None,
            "inside the lesion": show_interval(
                rates["inside"] | {"value": rates["inside"]["rate"]}
            ),
            "within half a cell": show_interval(
                rates["half_cell"] | {"value": rates["half_cell"]["rate"]}
            ),
        }
        for name, group in groups.items()
        for model, rates in group["models"].items()
    ]
    return Section(
        "Do the maps find the lesion?",
        (
            "Share of images on which the map's highest point lies in the true lesion.",
            rows_table("Pointing game", rows),
            *([few] if (few := few_note(counted)) else []),
        ),
    )


def _data(results: Results) -> Section:
    facts = Table("What was trained on what", ("what", "value"), tuple(data_rows(results)))
    return Section("The data", (facts, source_table(results.table), licence_table(results.table)))


def _training(results: Results, pictures: Pictures) -> Section:
    curves = pictures_at(pictures, "curves")
    return Section("The training", (training_table(results), *([curves] if curves else [])))


def _missing(results: Results) -> Section | None:
    rows = [{"part": part, "what to do": hint} for part, hint in results.missing.items()]
    if not rows:
        return None
    return Section("Not in this report", (rows_table("Parts not measured", rows),))


def _made(results: Results) -> Section:
    files = {
        "prepared.json": results.prepared,
        "ensemble.json": results.ensemble,
        "metrics.json": results.metrics,
        "audit.json": results.audit,
    }
    files |= {f"{name}/member.json": card for name, card in results.members.items()}
    made = {name: (values or {}).get("environment") for name, values in files.items()}
    rows = [
        {
            "file": name,
            "time": made["time_utc"],
            "command": made["command"],
            "commit": made["git_commit"],
        }
        for name, made in made.items()
        if made
    ]
    versions = (results.metrics or results.prepared).get("environment", {}).get("versions", {})
    listed = ", ".join(f"{name} {version}" for name, version in versions.items())
    table = rows_table("Files, commands and commits", rows)
    return Section("How it was made", (table, *([f"Versions: {listed}."] if listed else [])))


def verdict_rows(results: Results) -> list[tuple[str, str, str, str]]:
    """Return title, verdict, its sign and words, and the deciding figure of each audit test."""
    rows = []
    for result in (results.audit or {}).get("results", []):
        deciding = result["statistic"]
        shown = f"{show_interval(deciding, digits=2)} {deciding['metric']}" if deciding else "–"
        rows.append((result["title"], result["verdict"], VERDICTS[result["verdict"]], shown))
    return rows


def images_line(results: Results) -> str:
    """Return how many test images of how many patients the headline rests on."""
    metrics = results.metrics
    if metrics is None:
        return results.not_measured("evaluate")
    return f"{count(metrics['n'], 'test image')} of {metrics['n_groups']:,} patients or groups"
