"""The report and the cards of a run, written from what its stages left; opens no test split."""

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxr.console import log
from cxr.errors import InputError
from cxr.errors import command as stage_command
from cxr.evaluation.plots import draw_confusions
from cxr.explain.map_plots import draw_examples
from cxr.explain.selection import select_images
from cxr.files import atomic_write
from cxr.labels import label_indices
from cxr.models.ensemble import WEIGHTED
from cxr.pipeline.audit_tests import audit_key
from cxr.pipeline.config import PrepareConfig, RunConfig
from cxr.pipeline.run_folder import relative
from cxr.pipeline.trained_run import TrainedRun
from cxr.plotting import save_figure
from cxr.report.outside import draw_outside, outside_alt, outside_bars
from cxr.report.page import Picture, data_card, model_card, render_report
from cxr.report.results import Results, read_results

REPORT, MODEL_CARD, DATA_CARD = "report.html", "MODEL_CARD.md", "DATA_CARD.md"
MISTAKES, A_PLOT = 6, 3
"""Images shown, and how many stand in one plot, so that it fits on a page."""
PLOTS = {
    "confusion_best": "Confusion of best member and ensemble: true class by predicted class.",
    "roc": "ROC curves, a panel per class: sensitivity against 1 - specificity.",
    "precision_recall": "Precision against recall, a panel per class.",
    "reliability": "Reliability: how often a class was so against its probability.",
    "coverage": "Prediction sets: coverage against the promised level, and their mean size.",
    "risk_coverage": "Error among the answered images against the share answered.",
}
"""Plots of evaluation and what they show; the tables beside them give the numbers."""


def report_stage(config: PrepareConfig) -> Path:
    """Write the report and both cards of a run as it stands; see ``write_report``."""
    return write_report(TrainedRun(config))


def write_report(run: TrainedRun) -> Path:
    """Write ``report.html``, ``MODEL_CARD.md`` and ``DATA_CARD.md`` into the run's folder.

    Raises:
        InputError: nothing trained, no ensemble fitted, a damaged file.
    """
    results = gather(run)
    texts = {
        REPORT: render_report(results, _pictures(results, run)),
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


def refresh_report(folder: Path) -> None:
    """Write the report of a run's folder anew where the run can have one, else do nothing."""
    if (folder / "run.json").exists() and (folder / "ensemble.json").exists():
        root = folder.parent.parent
        write_report(TrainedRun(RunConfig(folder.parent.name, folder.name, str(root))))


def refresh_reports(root: Path) -> None:
    """Write anew every report under an output folder, behind an experiment that all of them show.

    A report that cannot be written now is named and stays as it is.
    """
    for page in sorted(root.glob(f"*/*/{REPORT}")):
        try:
            refresh_report(page.parent)
        except InputError as error:
            log.warning("the report of %s stays as it was: %s", relative(page.parent), error)


def card_of(run: TrainedRun) -> str:
    """Return the model card of a run as it stands.

    Raises:
        InputError: no ensemble fitted.
    """
    return model_card(gather(run))


def gather(run: TrainedRun) -> Results:
    """Read what the stages of a run have written, without what speaks of an earlier state."""
    commands = {stage: run.command(stage) for stage in ("evaluate", "audit", "explain", "cv")}
    name = f"{run.info['data']}/{run.info['run']}"
    commands["evaluate_on"] = stage_command("evaluate_on", data="OTHER", run=name)
    commands["leak"] = stage_command("experiments.leak")
    # A report is handed on, so it names no interpreter of this machine.
    python = re.compile(r"^\S*python\S* ")
    audit, key = run.read("audit/audit.json"), None
    if audit and run.evaluated:
        key = audit_key(run, audit["seed"], audit["resamples"], audit.get("outlined_by", ""))
    return read_results(
        run.folder,
        run.prepared.info,
        run.prepared.table,
        {stage: python.sub("python ", words) for stage, words in commands.items()},
        audit_key=key,
        state=run.state,
    )


def _pictures(results: Results, run: TrainedRun) -> dict[str, list[Picture]]:
    """Return the pictures at hand by their place in the report; draws those that are its own."""
    folder = run.folder / "evaluation" / "figures"
    pictures: dict[str, list[Picture]] = {"curves": []}
    for name in run.ensemble.members:
        path = run.folder / "members" / name / "logs" / "curves.png"
        pictures["curves"] += _read(path, f"Loss and balanced accuracy of {name} by epoch.")
    for result in (results.audit or {}).get("results", []):
        alt = f"{result['title']}: {result['sentence']}"
        own = pictures[f"audit/{result['id']}"] = []
        for name in result["plots"]:
            own += _read(results.folder / "audit" / Path(name).name, alt)
    if results.leak:
        path = Path(results.leak["folder"]) / "leak.png"
        pictures["leak"] = _read(path, "Accuracy with copies in the test share and without them.")
    if results.metrics is None:
        return pictures
    # Four matrices, as confusion.png has them, fill a page.
    shown = (results.metrics["best_member"], WEIGHTED)
    models = {name: results.metrics["models"][name] for name in shown}
    confusions = draw_confusions(results.metrics | {"models": models})
    save_figure(confusions, folder / "confusion_best.png")
    pictures |= {name: _read(folder / f"{name}.png", alt) for name, alt in PLOTS.items()}
    if bars := outside_bars(results):
        path = folder / "outside.png"
        save_figure(draw_outside(bars, *_example(run), note=run.note), path)
        pictures["outside"] = _read(path, outside_alt(bars))
    pictures["mistakes"] = _mistakes(run, folder)
    return pictures


def _read(path: Path, alt: str) -> list[Picture]:
    return [Picture(path.read_bytes(), alt)] if path.is_file() else []


def _example(run: TrainedRun) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
    """Return a rightly named image, one with a lung mask where there is one."""
    chosen = select_images(run.predictions, right=True, order="most_confident", count=40)
    if not len(chosen):
        chosen = np.arange(1)
    try:
        masks: Any = run.masks("mask", chosen)
    except InputError:  # the manifest's folder has moved: the plot does without them
        masks = None
    place = 0 if masks is None else int(masks.any(axis=(1, 2)).argmax())
    image = run.images(chosen[[place]])[0]
    return image, None if masks is None else masks[place]


def _mistakes(run: TrainedRun, folder: Path) -> list[Picture]:
    """Draw the wrongly named images of the highest probability, with their maps."""
    chosen = select_images(run.predictions, right=False, order="most_confident", count=MISTAKES)
    if not len(chosen):
        return []
    predicted = run.predictions["prediction"].iloc[chosen]
    maps = run.maps(chosen, np.asarray(label_indices(predicted, run.labels), np.int64))
    examples = run.examples(chosen, maps, run.masks("lesion_mask", chosen))
    pictures = []
    for start in range(0, len(examples), A_PLOT):
        shown = examples[start : start + A_PLOT]
        path = folder / f"mistakes-{start // A_PLOT + 1}.png"
        save_figure(draw_examples(shown, title="Most confident mistakes", note=run.note), path)
        named = "; ".join(f"true {image.label}, named {image.prediction}" for image in shown)
        pictures += _read(path, f"Images with the maps of members and ensemble: {named}.")
    return pictures
