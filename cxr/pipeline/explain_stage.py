"""Stage 5: Grad-CAM plots, and on images with known lesions the pointing game."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxr.console import log, print_table
from cxr.errors import InputError
from cxr.evaluation.evaluate import fully_known
from cxr.evaluation.intervals import share_interval
from cxr.evaluation.tables import few_note, show_patients
from cxr.explain.gradcam import Maps, check_method, layer_cells
from cxr.explain.map_plots import draw_examples
from cxr.explain.pointing import pointing_game
from cxr.explain.selection import select_images
from cxr.files import environment, write_json
from cxr.labels import label_indices, partly_known
from cxr.pipeline.config import ExplainConfig
from cxr.pipeline.report_stage import write_report
from cxr.pipeline.run_folder import relative
from cxr.pipeline.trained_run import TrainedRun
from cxr.plotting import RESEARCH_USE, save_figure
from cxr.training.thread_count import THREADS

FORMULA = "sum over members of weight x (map / its maximum), enlarged bilinearly; not rescaled"
PER_CHANNEL = ("AblationCAM", "ScoreCAM", "SESS")
"""Run the network over a thousand times an image, too often for every image of a split."""
HEADS = {"inside": "inside", "half_cell": "within half a cell"}


def explain_stage(config: ExplainConfig) -> Path:
    """Draw each class's right and wrong examples, play the pointing game, write all of it.

    Raises:
        InputError: nothing trained, no ensemble fitted, an unknown method or layer.
    """
    THREADS.fix(config.threads)
    check_method(config.method, config.layer)
    if config.per_class < 1:
        raise InputError(f"per_class is {config.per_class}: at least 1 image is needed")
    run = TrainedRun(config)
    out = run.folder / "explain"
    values: dict[str, Any] = {
        "note": run.note,
        "use": RESEARCH_USE,
        "state": run.state,
        "method": config.method,
        "layer": config.layer,
        "feature_modules": {
            name: member.spec.feature_module for name, member in run.members.items()
        },
        "split": run.split,
        "images": len(run.rows),
        "ensemble_map": FORMULA,
        "weights": run.ensemble.weights,
        "examples": _draw(run, config, out / "figures"),
    }
    values["pointing"], values["pointing_skipped"] = _point(run, config)
    write_json(out / "explain.json", values | {"seed": config.seed, "environment": environment()})
    _show(values, run, out)
    write_report(run)
    return out


def _draw(run: TrainedRun, config: ExplainConfig, folder: Path) -> list[dict[str, Any]]:
    rng = np.random.default_rng(config.seed)
    listed: list[dict[str, Any]] = []
    for label in dict.fromkeys(fully_known(run.predictions)["label"]):
        parts = [
            select_images(
                run.predictions, label=label, right=right, count=config.per_class, rng=rng
            )
            for right in (True, False)
        ]
        chosen = np.concatenate(parts)
        maps = _maps(run, config, chosen, run.predictions["prediction"].iloc[chosen].tolist())
        examples = run.examples(chosen, maps, run.masks("lesion_mask", chosen))
        where = config.method + (f" at {config.layer}" if config.layer else "")
        title = f"{label}, {run.split} split, images drawn at random · {where}"
        save_figure(draw_examples(examples, title=title, note=run.note), folder / f"{label}.png")
        listed += [
            {"image": example.name, "label": label, "prediction": example.prediction}
            | {"right": example.right, "probs": example.probs, "figure": f"figures/{label}.png"}
            for example in examples
        ]
    return listed


def _maps(
    run: TrainedRun, config: ExplainConfig, chosen: NDArray[np.int64], classes: list[str]
) -> dict[str, Maps]:
    return run.maps(
        chosen,
        np.asarray(label_indices(classes, run.labels), np.int64),
        method=config.method,
        layer=config.layer,
        batch_size=config.batch_size,
    )


def _point(run: TrainedRun, config: ExplainConfig) -> tuple[dict[str, Any] | None, str | None]:
    chosen = np.arange(len(run.rows))
    lesions = run.masks("lesion_mask", chosen)
    if lesions is None:
        return None, "no true lesions are known of these images"
    if config.method in PER_CHANNEL:
        return None, f"{config.method} would take hours on {len(chosen)} images"
    known = ~partly_known(run.predictions["label"])
    with_lesion = np.flatnonzero(lesions.any(axis=(1, 2)) & known)
    truth = run.predictions["label"].iloc[with_lesion].tolist()
    maps = _maps(run, config, with_lesion, truth)
    # Of the members' grids the finest, which forgives the least.
    cells = max(layer_cells(member, config.layer) for member in run.members.values())
    found = pointing_game(
        maps,
        lesions[with_lesion],
        truth,
        run.predictions["group"].iloc[with_lesion].tolist(),
        cell_px=lesions.shape[-1] / cells,
        interval=share_interval,
        lungs=run.masks("mask", with_lesion),
    )
    return found, None


def _show(values: dict[str, Any], run: TrainedRun, out: Path) -> None:
    reason = "" if run.split == "test" else ", since test was not evaluated yet"
    log.info("explained on the %s split%s", run.split, reason)
    if pointing := values["pointing"]:
        groups = {"all lesions": pointing["all"], **pointing["per_class"]}
        rows = [
            {"class": name, "map": model, "images": str(group["images"])}
            | {"patients": show_patients(group["patients"])}
            | {head: _percent(group["models"][model][key]) for key, head in HEADS.items()}
            | {
                f"chance, {area}": f"{part['inside']:.0%} / {part['half_cell']:.0%}"
                for area, part in group["chance"].items()
            }
            for name, group in groups.items()
            for model in group["models"]
        ]
        title = f"Pointing game: does the map's maximum lie in the true lesion? · {run.note}"
        print_table(title, rows)
        if few := few_note({name: group["patients"] for name, group in groups.items()}):
            log.info("%s", few)
        log.info(
            "half a cell is %.0f of %d pixels; chance is a random point (inside / within half a "
            "cell)",
            *(pointing["cell_px"] / 2, run.prepared.pixels.shape[-1]),
        )
    else:
        log.info("no pointing game: %s", values["pointing_skipped"])
    log.info("plots: %s", relative(out / "figures"))


def _percent(share: dict[str, Any]) -> str:
    return f"{share['rate']:.0%} [{share['low']:.0%}, {share['high']:.0%}]"
