"""A bundle whose confidence is fitted anew on local labelled images; needs no torch."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxr.bundle.format import (
    CARD_FILE,
    INFO_FILE,
    MODEL_FILE,
    OOD_FILE,
    check_files,
    read_info,
    recalibration_words,
    write_info,
)
from cxr.bundle.runtimes import open_runtime, run_images
from cxr.console import images_bar, log, print_table
from cxr.data.prepared import Prepared, open_prepared
from cxr.errors import InputError
from cxr.evaluation.tables import show_interval
from cxr.files import atomic_write, environment, read_json, replacing_folder, run_folder
from cxr.imaging.preprocess import PreprocessSpec
from cxr.labels import label_indices, partly_known
from cxr.pipeline.config import RecalibrateConfig
from cxr.pipeline.exported import lungs_of, seen_by
from cxr.pipeline.prepare_stage import overlap_of, prepare_whole
from cxr.pipeline.run_folder import data_name, named_run, relative
from cxr.reliability.conformal import tempered
from cxr.reliability.drift import drift_reference
from cxr.reliability.ood import OodReference
from cxr.reliability.ood_fit import refit_distances
from cxr.reliability.recalibration import held_out_coverage, recalibrate
from cxr.report.wording import markdown_table, one_line

LEAST = 50
"""Fewest local images: below, most classes have no threshold at a level of 0.9."""
CARD = """{title}

## Its confidence was fitted anew
Temperature, prediction sets, referral and the distances of refusal were fitted {words}. The \
networks are the same. What stands below of calibration, sets and referral is of that bundle.

How often sets hold the true class, {measured}:

{table}
{rest}"""


def recalibrate_stage(config: RecalibrateConfig) -> Path:
    """Write ``bundle-<data>`` beside a bundle: the same model, its confidence fitted anew.

    Raises:
        InputError: no bundle, one that is recalibrated already, or fewer than ``LEAST`` images
            that the run did not learn from.
    """
    source, info, trained = _opened(config)
    local, unknown = prepare_whole(config, PreprocessSpec(**info["preprocess"]), info["labels"])
    rows = _unseen(local, trained)
    # What is known in part has no place among the classes.
    partly = partly_known(local.table["label"].iloc[rows])
    rows = rows[~partly]
    if partly.any():
        log.info("%d images of which several classes are possible are left out", partly.sum())
    if len(rows) < LEAST:
        raise InputError(
            f"data={config.data.name} has {len(rows)} labelled images that the run did not learn "
            f"from: at least {LEAST} are needed, better 100 to 500; label more"
        )
    targets = np.asarray(label_indices(local.table["label"].iloc[rows], info["labels"]), np.int64)
    groups = local.table["group"].iloc[rows].to_numpy()
    has_ood = OOD_FILE in info["files"]
    outputs = ["probs", *(f"features_{name}" for name in info["members"] if has_ood)]
    runtime = open_runtime(source / MODEL_FILE, threads=config.threads)
    with images_bar("local images", len(rows)) as done:
        arrays = run_images(runtime, local.pixels, rows, outputs, on_image=done)
    fitted = arrays["probs"], targets, groups, info["uncertainty"]
    temperature, uncertainty = recalibrate(*fitted)
    part = {
        "data": config.data.name,
        "fingerprint": local.info["fingerprint"],
        "images": len(rows),
        "patients": len(np.unique(groups)),
        "left_out": {"unknown_classes": unknown, "partly_known": int(partly.sum())},
        "time_utc": environment()["time_utc"],
        "parent": info["fingerprint"],
        "temperature": temperature,
        "dealings": config.dealings,
        "coverage": held_out_coverage(*fitted, dealings=config.dealings, seed=config.seed),
    }
    values = {key: info[key] for key in info if key not in ("format", "files", "fingerprint")} | {
        "uncertainty": info["uncertainty"] | uncertainty,
        "recalibration": part,
        "note": f"{info['note']} · confidence fitted anew on {config.data.name}",
        "environment": environment(),
    }
    if isinstance(info["test"], dict):
        values["test"] = info["test"] | {"prediction_sets": "of the bundle before recalibration"}
    target = source.parent / f"bundle-{config.data.name}"
    reference = None
    if has_ood:
        features = {name: arrays[f"features_{name}"] for name in info["members"]}
        reference = refit_distances(OodReference.load(source / OOD_FILE), features)
        arrays["probs"] = tempered(arrays["probs"], temperature)
        images = np.asarray(local.pixels[rows])
        values["ood"] = {"limits": dict(reference.limits), **reference.info}
        values["drift"] = drift_reference(seen_by(reference, images, arrays, lungs_of(local, rows)))
    _write(source, target, values, reference)
    print_table(f"Prediction sets, {_measured_words(part)}", coverage_rows(part))
    for name, level in uncertainty["conformal"]["levels"].items():
        if level["note"]:
            log.warning("level %s: %s", name, level["note"])
    log.info("recalibrated, temperature %.2f: %s", temperature, relative(target))
    return target


def coverage_rows(part: dict[str, Any]) -> list[dict[str, str]]:
    """Return a row per level: coverage of all images and of each class, before and after."""
    rows = []
    for level, kinds in part["coverage"].items():
        for when in ("before", "after"):
            shares = {"all": kinds[when]["coverage"]} | kinds[when]["per_class"]
            row = {"level": level, "thresholds": when}
            for key, share in shares.items():
                row[key] = show_interval(share) if share else "no image"
            rows.append(row | {"classes in a set": f"{kinds[when]['size']['value']:.2f}"})
    return rows


def _measured_words(part: dict[str, Any]) -> str:
    return (
        f"mean over {part['dealings']} random halves of the patients, fitted on the one, measured "
        "on the other; brackets: the middle 95 % of the halves"
    )


def _opened(config: RecalibrateConfig) -> tuple[Path, dict[str, Any], Prepared | None]:
    """Return the bundle, what it says, and the prepared set of its run where a run is named."""
    if config.bundle:
        source, trained = Path(config.bundle), None
    else:
        run = named_run(config)
        folder = run_folder(Path(run.output_root), data_name(run), run.run)
        run_info = read_json(folder / "run.json", hint="train the run again")
        source, trained = folder / "bundle", open_prepared(folder / run_info["prepared"])
    info = read_info(source)
    check_files(source, info)
    if part := info.get("recalibration"):
        raise InputError(
            f"{source} is recalibrated already ({recalibration_words(part)}): name the bundle that "
            "it was made from"
        )
    return source, info, trained


def _unseen(local: Prepared, trained: Prepared | None) -> NDArray[np.int64]:
    rows = np.arange(len(local.table))
    if trained is None:
        log.warning("a bundle alone does not tell which images it learnt from: give others")
        return rows
    mine, known = overlap_of(local, trained).pairs.T
    learnt = trained.table["split"].iloc[known].isin(["train", "val"]).to_numpy()
    seen = np.unique(mine[learnt])
    if len(seen):
        log.warning("%d images are left out, since the run learnt from them", len(seen))
    return np.setdiff1d(rows, seen)


def _write(
    source: Path, target: Path, values: dict[str, Any], reference: OodReference | None
) -> None:
    """Write the new bundle, whole or not at all, its card above that of the bundle's origin."""
    with replacing_folder(target) as fresh:
        shutil.copytree(source, fresh, dirs_exist_ok=True, ignore=lambda *_: [INFO_FILE])
        if reference is not None:
            reference.save(fresh / OOD_FILE)
        title, _, rest = (source / CARD_FILE).read_text(encoding="utf-8").partition("\n")
        part = values["recalibration"]
        rows = coverage_rows(part)
        table = markdown_table(list(rows[0]), [list(row.values()) for row in rows])
        text = CARD.format(
            title=title,
            words=one_line(recalibration_words(part)),
            measured=_measured_words(part),
            table="\n".join(table),
            rest=rest,
        )
        with atomic_write(fresh / CARD_FILE) as file:
            file.write(text.encode())
        write_info(fresh, values)
