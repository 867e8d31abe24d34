"""Cross-validation by group: each predicted once, by members that never saw the patient."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr.console import log, print_table
from cxr.data.folds import check_folds, deal_folds, fold_split, with_split
from cxr.data.loader import rows_of
from cxr.data.manifest import patients_unknown
from cxr.data.prepared import Prepared
from cxr.data.splits import check_disjoint
from cxr.errors import InputError
from cxr.evaluation.cross_validation import FoldResult, cross_validation, fold_table
from cxr.evaluation.evaluate import build_predictions, read_predictions, score_validation
from cxr.evaluation.tables import INTERVALS, summary_table
from cxr.files import digest_of, environment, read_json, run_folder, write_csv, write_json
from cxr.models.build import load_member
from cxr.models.ensemble_fit import fit_ensemble
from cxr.pipeline.config import CrossValidateConfig
from cxr.pipeline.fit_uncertainty import validation_predictions
from cxr.pipeline.prepare_stage import prepare_stage
from cxr.pipeline.report_stage import refresh_report
from cxr.pipeline.run_folder import fingerprint_of, note_of, relative
from cxr.pipeline.train_stage import check_name, train_member
from cxr.pipeline.trained_run import predict_rows

AGAIN = "give the same command again"


def cv_stage(config: CrossValidateConfig) -> dict[str, Any] | None:
    """Train one member in every fold; once all members are trained, pool what they predict.

    Folds are dealt over all images of the prepared set, whatever split it has; its pixels are
    shared. What is finished is not done again, and a training that was killed goes on.

    Returns:
        The content of ``cv.json``, or None while a member is still to be trained.

    Raises:
        InputError: fewer than two folds, a class with too few groups for them, or folds that
            were trained on other images or with other settings.
    """
    check_folds(config.folds)
    check_name(config)
    names = config.members or [config.model.name]
    if config.model.name not in names:
        raise InputError(
            f"members is {', '.join(names)} and lacks {config.model.name!r}, which is to be "
            "trained: name it too"
        )
    prepared = prepare_stage(config)
    folder = run_folder(Path(config.output_root), config.data.name, config.run)
    folder /= f"cv-{config.folds}"
    sets = split_images(prepared, config.folds, config.data.fractions, config.data.split_seed)
    for number, images in enumerate(sets, start=1):
        fold = folder / f"fold-{number}"
        _claim_fold(fold, images, prepared, number, config)
        counts = images.table["split"].value_counts()
        log.info(
            "fold %d of %d: train %d, val %d, test %d",
            number,
            config.folds,
            *(counts.get(name, 0) for name in ("train", "val", "test")),
        )
        train_member(config, images, fold)
    for name in names:
        cards = [
            folder / f"fold-{n}" / "members" / name / "member.json"
            for n in range(1, config.folds + 1)
        ]
        if not all(card.exists() for card in cards):
            log.info("%s is still to be trained in every fold, then the folds are pooled", name)
            return None
    results = [
        _fold_result(folder / f"fold-{number}", images, names, config)
        for number, images in enumerate(sets, start=1)
    ]
    return _pool(folder, prepared, results, config)


def split_images(
    prepared: Prepared, folds: int, fractions: list[float], seed: int
) -> list[Prepared]:
    """Return the images once per fold, that fold being test; the pixels are the same memory map.

    Args:
        prepared: N images; their own split does not count.
        folds: how many.
        fractions: shares of train, val and test; validation gets its share of train and
            validation together.
        seed: of the order in which groups are dealt.

    Raises:
        InputError: see cxr.data.folds.deal_folds and fold_split.
    """
    table = prepared.table
    dealt = deal_folds(table, folds=folds, seed=seed)
    share = fractions[1] / (fractions[0] + fractions[1])
    sets = []
    for fold in range(1, folds + 1):
        images = with_split(prepared, fold_split(table, dealt, fold, val_share=share, seed=seed))
        check_disjoint(images.table, forced=False)
        sets.append(images)
    return sets


def _claim_fold(
    fold: Path, images: Prepared, prepared: Prepared, number: int, config: CrossValidateConfig
) -> None:
    """Make a fold's folder this split's, or refuse if it was trained on another."""
    path, fingerprint = fold / "fold.json", images.info["fingerprint"]
    if before := fingerprint_of(fold, path):
        if before != fingerprint:
            raise InputError(
                f"{fold} was made on other images or another split (fingerprint {before[:12]}, now "
                f"{fingerprint[:12]}): give another run=NAME, or remove {fold.parent}"
            )
        return
    write_json(
        path,
        {
            "data": config.data.name,
            "run": config.run,
            "fold": number,
            "folds": config.folds,
            "prepared": os.path.relpath(prepared.folder, fold),
            "fingerprint": fingerprint,
            "prepared_fingerprint": prepared.info["fingerprint"],
            "labels": list(prepared.labels),
            "synthetic": bool(prepared.info.get("synthetic")),
            "note": note_of(prepared),
            "counts": images.table["split"].value_counts().to_dict(),
            "environment": environment(),
        },
    )


def _fold_result(
    fold: Path, fold_images: Prepared, names: list[str], config: CrossValidateConfig
) -> FoldResult:
    """Fit a fold's ensemble on its validation and predict its test images, or read that back."""
    aligned = validation_predictions(fold, names, fold_images.labels)
    ensemble = fit_ensemble(
        aligned.logits,
        aligned.targets,
        fold_images.labels,
        pool=config.pool,
        weight_prior=config.weight_prior,
    )
    validation = score_validation(aligned.logits, aligned.targets, ensemble)
    cards = {name: read_json(fold / "members" / name / "member.json", hint=AGAIN) for name in names}
    key = digest_of([ensemble.to_dict(), cards])
    path, table = fold / "ensemble.json", fold / "predictions.csv"
    done = path.exists() and table.exists() and read_json(path, hint=AGAIN).get("key") == key
    if not done:
        rows = rows_of(fold_images.table["split"].tolist(), "test")
        members = {name: load_member(fold / "members" / name) for name in names}
        logits = predict_rows(members, fold_images, rows, batch_size=config.trainer.batch_size)
        predictions = build_predictions(fold_images.table.iloc[rows], logits, ensemble)
        write_csv(table, predictions)
        write_json(
            path,
            ensemble.to_dict()
            | {
                "key": key,
                "validation": {"images": len(aligned.images), **validation},
                "note": note_of(fold_images),
            },
        )
    return FoldResult(read_predictions(table), ensemble, validation, _sizes(fold_images.table))


def _sizes(table: pd.DataFrame) -> dict[str, int]:
    counts = table["split"].value_counts()
    return {name: int(counts.get(name, 0)) for name in ("train", "val", "test")}


def _pool(
    folder: Path, prepared: Prepared, results: list[FoldResult], config: CrossValidateConfig
) -> dict[str, Any]:
    """Write and show the pooled predictions and what they are worth."""
    pooled, found = cross_validation(
        results, _order(prepared), seed=config.seed, note=note_of(prepared)
    )
    write_csv(folder / "predictions.csv", pooled)
    found |= {
        "fingerprint": prepared.info["fingerprint"],
        "synthetic": bool(prepared.info.get("synthetic")),
        "split_seed": config.data.split_seed,
        "patients_unknown": patients_unknown(prepared.table),
        "environment": environment(),
    }
    write_json(folder / "cv.json", found)
    images = f"{found['n']} images of {found['n_groups']} patients or groups"
    title = (
        f"Cross-validation, {config.folds} folds by patient, each image predicted once, {images}"
    )
    print_table(f"{title} · {found['note']}", summary_table(found))
    print_table("Ensemble, fold by fold", fold_table(found))
    log.info(
        "%s, of the pooled predictions; they hold for these members as trained, the spread over "
        "folds shows what training anew changes",
        INTERVALS,
    )
    if found["patients_unknown"]:
        log.warning("%s", found["patients_unknown"])
    log.info("results: %s", relative(folder))
    refresh_report(folder.parent)
    return found


def _order(prepared: Prepared) -> NDArray[np.object_]:
    return prepared.table["image"].to_numpy(np.object_)
