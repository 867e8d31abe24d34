"""The report and the cards of a run, written anew whenever one of its figures was."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxr.console import log
from cxr.data.prepared import Prepared
from cxr.errors import InputError
from cxr.evaluation.plots import draw_confusions
from cxr.explain.map_plots import draw_examples
from cxr.explain.selection import select_images
from cxr.files import atomic_write, read_json
from cxr.labels import label_indices
from cxr.models.ensemble import WEIGHTED
from cxr.pipeline.audit_tests import audit_key
from cxr.pipeline.config import RunConfig
from cxr.pipeline.run_folder import command, relative
from cxr.pipeline.trained_run import Explainer, open_explainer
from cxr.plotting import save_figure
from cxr.report.cards import data_card, model_card
from cxr.report.outside import draw_outside, outside_alt, outside_bars
from cxr.report.page import render_report
from cxr.report.parts import Picture
from cxr.report.results import COMMANDS, Results, read_results

REPORT, MODEL_CARD, DATA_CARD = "report.html", "MODEL_CARD.md", "DATA_CARD.md"
MISTAKES, A_FIGURE = 6, 3
"""Images shown, and how many stand in one figure, so that it fits on a page."""
FIGURES = {
    "confusion_best": "Confusion of best member and ensemble: true class by predicted class.",
    "roc": "ROC curves, a panel per class: sensitivity against 1 - specificity.",
    "precision_recall": "Precision against recall, a panel per class.",
    "reliability": "Reliability: how often a class was so against its probability.",
    "coverage": "Prediction sets: coverage against the promised level, and their mean size.",
    "risk_coverage": "Error among the answered images against the share answered.",
}
"""Figures of evaluation and what they show; the tables beside them give the numbers."""


def write_report(config: RunConfig, run: Explainer | None = None) -> Path:
    """Write ``report.html``, ``MODEL_CARD.md`` and ``DATA_CARD.md`` into the run's folder.

    Args:
        config: names the run.
        run: it, where it is open already.

    Returns:
        The report.

    Raises:
        InputError: nothing trained, no ensemble fitted, a damaged file.
    """
    run = run or open_explainer(config)
    results = gather(config, run.folder, run.prepared, _key_now(run))
    figures = run.folder / "evaluation" / "figures"
    if results.metrics:
        # Four matrices, as confusion.png has them, fill a page.
        both = {
            name: results.metrics["models"][name]
            for name in (results.metrics["best_member"], WEIGHTED)
        }
        few = draw_confusions(results.metrics | {"models": both})
        save_figure(few, figures / "confusion_best.png")
    pictures = {
        name: _read(figures / f"{name}.png", alt)
        for name, alt in FIGURES.items()
        if results.metrics
    }
    pictures |= _audit_pictures(results) | _first_picture(results, run)
    pictures["curves"] = [
        picture
        for name in run.members
        for picture in _read(
            run.folder / "members" / name / "logs" / "curves.png",
            f"Loss and balanced accuracy of {name} by epoch.",
        )
    ]
    if results.leak:
        path = Path(results.leak["folder"]) / "leak.png"
        pictures["leak"] = _read(path, "Accuracy with copies in the test share and without them.")
    if results.metrics and run.split == "test":
        pictures["mistakes"] = _mistakes(run)
    texts = {
        REPORT: render_report(results, pictures),
        MODEL_CARD: model_card(results),
        DATA_CARD: data_card(results),
    }
    for name, text in texts.items():
        with atomic_write(run.folder / name) as file:
            file.write(text.encode())
    log.info("report: %s (with %s and %s)", relative(run.folder / REPORT), MODEL_CARD, DATA_CARD)
    for part, why in results.missing.items():
        log.info("not in the report, %s: %s", part, why)
    return run.folder / REPORT


def card_of(config: RunConfig) -> str:
    """Return the model card of a run as it stands.

    Raises:
        InputError: nothing trained, no ensemble fitted.
    """
    run = open_explainer(config)
    return model_card(gather(config, run.folder, run.prepared, _key_now(run)))


def gather(config: RunConfig, folder: Path, prepared: Prepared, key: str | None = None) -> Results:
    """Read what is known of a run, for the report and the cards.

    Args:
        config: names the run.
        folder: of the run.
        prepared: its prepared set.
        key: see ``read_results``.
    """
    commands = COMMANDS | {
        stage: command(stage, config) for stage in ("evaluate", "audit", "explain")
    }
    return read_results(folder, prepared.info, prepared.table, commands=commands, audit_key=key)


def _key_now(run: Explainer) -> str | None:
    """Return the key that an audit of the run's present state has; None without audit."""
    path = run.folder / "audit" / "audit.json"
    if not path.exists() or run.split != "test":
        return None
    before = read_json(path, mend="remove it and audit again (make audit)")
    return audit_key(run, before["seed"], before["resamples"])


def _read(path: Path, alt: str) -> list[Picture]:
    return [Picture(path.read_bytes(), alt)] if path.is_file() else []


def _audit_pictures(results: Results) -> dict[str, list[Picture]]:
    found = {}
    for result in (results.audit or {}).get("results", []):
        alt = f"{result['title']}: {result['sentence']}"
        found[f"audit/{result['id']}"] = [
            picture
            for name in result["plots"]
            for picture in _read(results.folder / "audit" / Path(name).name, alt)
        ]
    return found


def _first_picture(results: Results, run: Explainer) -> dict[str, list[Picture]]:
    """Draw the first page's figure, with an image as each model sees it."""
    bars = outside_bars(results)
    if not bars:
        return {}
    path = run.folder / "evaluation" / "figures" / "outside.png"
    save_figure(draw_outside(bars, *_example(run), note=run.note), path)
    return {"outside": _read(path, outside_alt(bars))}


def _example(run: Explainer) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
    """Return a rightly named image, one with a lung mask where there is one."""
    chosen = select_images(run.predictions, right=True, order="most_confident", count=40)
    if not len(chosen):
        chosen = np.arange(1)
    try:
        masks: Any = run.masks("mask", chosen)
    except InputError:  # the manifest's folder has moved: the figure does without them
        masks = None
    place = 0 if masks is None else int(masks.any(axis=(1, 2)).argmax())
    image = run.images(chosen[[place]])[0]
    return image, None if masks is None else masks[place]


def _mistakes(run: Explainer) -> list[Picture]:
    """Draw the wrongly named images of the highest probability, with their maps."""
    chosen = select_images(run.predictions, right=False, order="most_confident", count=MISTAKES)
    if not len(chosen):
        return []
    predicted = run.predictions["prediction"].iloc[chosen]
    classes = np.asarray(label_indices(predicted, run.ensemble.labels), np.int64)
    maps = run.maps(chosen, classes)
    examples = run.examples(chosen, maps, run.masks("lesion_mask", chosen))
    found = []
    for start in range(0, len(examples), A_FIGURE):
        shown = examples[start : start + A_FIGURE]
        path = run.folder / "evaluation" / "figures" / f"mistakes-{start // A_FIGURE + 1}.png"
        save_figure(draw_examples(shown, title="Most confident mistakes", note=run.note), path)
        told = "; ".join(f"true {image.label}, named {image.prediction}" for image in shown)
        found += _read(path, f"Images with the maps of members and ensemble: {told}.")
    return found
