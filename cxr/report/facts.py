"""What was trained on what, in rows and sentences that report and cards share."""

from typing import Any

import pandas as pd

from cxr.data.manifest import patients_unknown
from cxr.evaluation.tables import Cell, show_interval
from cxr.imaging.preprocess import PreprocessSpec
from cxr.labels import list_words
from cxr.models.ensemble import OUT_OF_FOLD, WEIGHTED, Ensemble
from cxr.report.results import Results
from cxr.report.wording import Table, count, percent, rows_table

SPLITS = ("train", "val", "test")
HEADLINE = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_auroc": "macro AUROC",
}
UNKNOWN = "unknown"
MAY_BE_EMPTY = {
    "patient_id": "who the patient is",
    "source": "the source",
    "sex": "sex",
    "age": "age",
    "view": "the view",
    "mask": "where the lungs are",
    "license": "the licence",
}
"""Columns of the table that may be empty, and what is then not known."""


def headline(results: Results) -> list[tuple[str, str]]:
    """Return name and value with interval of the figures that stand on top."""
    if results.metrics is None:
        return []
    scores = results.metrics["models"][WEIGHTED]
    return [
        (name, show_interval(scores[key]) if key == "macro_auroc" else percent(scores[key]))
        for key, name in HEADLINE.items()
    ]


def data_rows(results: Results) -> list[tuple[str, str]]:
    """Return what was trained on what: data, fingerprint, groups, drops, splits, members."""
    counts, disjoint = results.prepared["counts"], results.prepared["disjoint"]
    settings, spec = results.prepared["settings"], results.prepared["preprocess"]
    apart = "none of them in two splits"
    if crossing := disjoint["crossing_groups"]:
        apart = (
            f"{crossing:,} of them in two splits, {disjoint['test_images_in_crossing_groups']:,} "
            "test images among them"
        )
    dropped = (
        f"{counts['dropped_copies']:,} copies of other images, {counts['dropped_conflicting']:,} "
        f"with conflicting labels, {counts['dropped_unreadable']:,} unreadable"
    )
    splits = []
    for name in SPLITS:
        own = {label: part.get(name, 0) for label, part in counts["images"].items()}
        by_class = ", ".join(f"{label} {number:,}" for label, number in own.items())
        splits.append(f"{sum(own.values()):,} {name} ({by_class})")
    rows = [
        ("data", results.run["data"] + (" (synthetic phantom)" if results.synthetic else "")),
        ("fingerprint", results.run["fingerprint"]),
        ("images", f"{counts['kept']:,} of {counts['rows']:,} listed; dropped: {dropped}"),
        ("patients or groups", f"{counts['patients_or_groups']:,}, {apart}"),
        ("split", f"{settings['split']}: {', '.join(splits)}"),
        (
            "image as seen",
            f"{spec['size_px']} x {spec['size_px']} pixels, {PreprocessSpec(**spec).how()}",
        ),
    ]
    ensemble = Ensemble.from_dict(results.ensemble)
    rows += [
        (
            f"member {name}",
            f"{results.members[name].get('architecture', UNKNOWN)}, weight "
            f"{ensemble.weights[name]:.3f}, temperature {ensemble.temperatures[name]:.3f}",
        )
        for name in ensemble.members
    ]
    fitted = "out-of-fold images" if ensemble.fitted_on == OUT_OF_FOLD else "validation"
    rows.append(
        (
            "ensemble",
            f"{ensemble.pool} pool, temperature {ensemble.temperature:.3f} behind it, "
            f"fitted on {fitted}",
        )
    )
    if results.metrics:
        rows.append(("test split opened", f"{results.metrics['test_opened']} time(s) by this run"))
    return rows


def limits(results: Results) -> list[str]:
    """Return the limits of use, those that these images and figures give first."""
    found = []
    if results.synthetic:
        found.append(
            "Trained on a synthetic phantom: it has never seen a real image, and its "
            "values say nothing about patients."
        )
    found += own_sources(results.table)
    if unknown := patients_unknown(results.table):
        found.append(f"{unknown[0].upper()}{unknown[1:]}.")
    if crossing := results.prepared["disjoint"]["crossing_groups"]:
        found.append(
            f"{crossing:,} patients or groups lie on both sides of the split, so the "
            "values are not those of unseen patients."
        )
    for name, other in results.elsewhere.items():
        score = percent(other["models"][WEIGHTED]["accuracy"])
        found.append(
            f"On images of {name} the same ensemble is right on {score} "
            f"({count(other['n'], 'image')}); on other images it can be worse."
        )
    if not results.elsewhere:
        found.append(
            "Measured on images of its own sources only; on images from elsewhere it can "
            "be far worse."
        )
    found += [
        f"It knows {list_words(results.labels)} and nothing else: any other disease, view or "
        "picture gets one of these names unless it is refused.",
        "Probabilities and prediction sets hold for images like those of validation, and for the "
        "classes' shares there.",
        "It is no medical device: no diagnosis, treatment or triage may rest on it.",
    ]
    return found


def own_sources(table: pd.DataFrame) -> list[str]:
    """Say which classes come from sources that no other class has."""
    if "source" not in table or not table["source"].any():
        return [
            "The manifest names no sources, so nobody can tell whether a class stands for a "
            "hospital."
        ]
    sources = {
        str(label): {str(name) or UNKNOWN for name in part}
        for label, part in table.groupby("label", sort=False)["source"]
    }
    if len(sources) == 1:
        return []
    return [
        f"Every {label} image comes from {list_words(sorted(own))}, and no other class does: a "
        "network can tell the hospital instead of the disease."
        for label, own in sources.items()
        if own.isdisjoint(set().union(*(names for k, names in sources.items() if k != label)))
    ]


def source_table(table: pd.DataFrame) -> Table:
    """Return images, patients and what is known of them by class and source."""
    given = table.assign(source=table.get("source", ""))
    rows: list[dict[str, Cell]] = []
    for (label, source), part in given.groupby(["label", "source"], sort=False):
        patients = set(part.get("patient_id", ())) - {""}
        row: dict[str, Cell] = {
            "class": str(label),
            "source": str(source) or UNKNOWN,
            "images": len(part),
            "patient ids": len(patients) or None,
            "groups": int(part["group"].nunique()),
        }
        row |= {name: int((part["split"] == name).sum()) for name in SPLITS}
        row |= {f"{column} known": _known(part, column) for column in ("sex", "age", "view")}
        rows.append(row | {"lung mask": _known(part, "mask")})
    return rows_table("Images by class and source", rows)


def licence_table(table: pd.DataFrame) -> Table:
    """Return the licences that the manifest gives, by source."""
    given = table.assign(source=table.get("source", ""), license=table.get("license", ""))
    rows: list[dict[str, Cell]] = [
        {"source": str(source) or UNKNOWN, "licence": str(name) or UNKNOWN, "images": len(part)}
        for (source, name), part in given.groupby(["source", "license"])
    ]
    return rows_table("Licences, as the manifest gives them", rows)


def training_table(results: Results) -> Table:
    """Return how each member was trained."""
    rows: list[dict[str, Cell]] = []
    for name, card in results.members.items():
        how, trainer = card.get("training", {}), card.get("trainer", {})
        source = (card.get("pretrained") or {}).get("source")
        teacher = card.get("teacher")
        rows.append(
            {
                "member": name,
                "architecture": card.get("architecture"),
                "input px": card.get("input", {}).get("size_px"),
                "starts from": str(source or "random weights"),
                **({"learns from": f"the ensemble of {teacher['run']}"} if teacher else {}),
                "train images": card.get("data", {}).get("train_images"),
                "epoch kept": f"{how.get('best_epoch', '?')} of {how.get('epochs', '?')}",
                "batch": trainer.get("batch_size"),
                "learning rate": f"{trainer['lr']:g}" if "lr" in trainer else None,
                "seed": how.get("seed"),
                "time": f"{how['seconds'] / 60:.0f} min" if "seconds" in how else None,
            }
        )
    return rows_table("How the members were trained", rows)


def made_by(results: Results) -> list[tuple[str, str, dict[str, Any] | None]]:
    """Return each stage, the file that it left, and that one's environment."""
    files: dict[tuple[str, str], dict[str, Any] | None] = {
        ("prepare", "prepared.json"): results.prepared,
        ("ensemble", "ensemble.json"): results.ensemble,
        ("evaluate", "metrics.json"): results.metrics,
        ("audit", "audit.json"): results.audit,
    }
    files |= {(f"train {name}", f"{name}/member.json"): x for name, x in results.members.items()}
    return [(*names, (values or {}).get("environment")) for names, values in files.items()]


def _known(part: pd.DataFrame, column: str) -> str:
    known = 100 * float((part[column] != "").mean()) if column in part else 0
    return f"{known:.0f} %"


def sentence_of(results: Results, test: str) -> str:
    """Return what a test of the audit found, or that it was not done."""
    for result in (results.audit or {}).get("results", []):
        if result["id"] == test:
            return str(result["sentence"])
    return f"{results.not_measured('audit')}."


def unknown(table: pd.DataFrame) -> list[str]:
    """Say which columns of the table are empty, and for how many images."""
    lines = []
    for column, name in MAY_BE_EMPTY.items():
        blank = int((table[column] == "").sum()) if column in table else len(table)
        if blank:
            lines.append(f"{name}: unknown of {blank:,} of {len(table):,} images")
    return [*lines, "who was imaged, why, and who was left out: the sources do not tell"]
