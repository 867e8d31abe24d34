"""Cross-validation by group or by source: images predicted by members that never saw the patient.

By source each source (or ``one+other``) is left out in turn, and it is all of the fold's test.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxr.console import log, print_table
from cxr.data.loader import rows_of
from cxr.data.manifest import patients_unknown
from cxr.data.prepared import Prepared
from cxr.data.splits import (
    SPLITS,
    check_disjoint,
    check_folds,
    deal_folds,
    fold_split,
    in_sources,
    lost_classes,
    split_images,
)
from cxr.errors import InputError
from cxr.evaluation.adults import adult_covid, adult_rows, one_class_note
from cxr.evaluation.cross_validation import FoldResult, cross_validation, fold_table
from cxr.evaluation.evaluate import build_predictions, read_predictions, score_validation
from cxr.evaluation.tables import INTERVALS, partly_known_note, summary_table
from cxr.files import digest_of, environment, read_json, run_folder, write_csv, write_json
from cxr.models.build import load_member
from cxr.models.ensemble_fit import fit_ensemble
from cxr.pipeline.config import CrossValidateConfig
from cxr.pipeline.fit_uncertainty import validation_predictions
from cxr.pipeline.prepare_stage import prepare_stage
from cxr.pipeline.report_stage import refresh_report
from cxr.pipeline.run_folder import claim_folder, note_of, relative
from cxr.pipeline.train_stage import check_name, train_member
from cxr.pipeline.trained_run import predict_rows

AGAIN = "give the same command again"
TOGETHER = "+"
"""Between sources that are left out together."""


def cv_stage(config: CrossValidateConfig) -> dict[str, Any] | None:
    """Train one member in every fold; once all members are trained, pool what they predict.

    Folds are dealt over all images of the prepared set, whatever split it has, or one per source;
    its pixels are shared. What is finished is not done again, and a killed training goes on.
    Returns the content of ``cv.json``, or None while a member is still to be trained.

    Raises:
        InputError: fewer than two folds, a class with too few groups for them, a source that
            cannot be left out, or folds that were trained on other images or with other settings.
    """
    check_folds(config.folds)
    by_source = config.split == "source"
    if config.split not in ("patient", "source") or (config.sources and not by_source):
        raise InputError(
            f"split is {config.split!r} and sources {config.sources}: allowed are "
            "patient, source, and sources= beside split=source alone"
        )
    check_name(config)
    names = config.members or [config.model.name]
    if config.model.name not in names:
        raise InputError(
            f"members is {', '.join(names)} and lacks {config.model.name!r}, which is to be "
            "trained: name it too"
        )
    prepared = prepare_stage(config)
    folder = run_folder(Path(config.output_root), config.data.name, config.run)
    folder /= "cv-source" if by_source else f"cv-{config.folds}"
    fractions, seed = config.data.fractions, config.data.split_seed
    if by_source:
        sets = leave_sources_out(prepared, config.sources, fractions, seed)
    else:
        sets = leave_folds_out(prepared, config.folds, fractions, seed)
    for name, images in sets.items():
        fold = folder / f"fold-{name}"
        which = {"left_out": name} if by_source else {"fold": int(name), "folds": config.folds}
        claim_folder(
            fold / "fold.json",
            images,
            {"data": config.data.name, "run": config.run} | which,
            {
                "prepared_fingerprint": prepared.info["fingerprint"],
                "counts": images.table["split"].value_counts().to_dict(),
            },
            fault=f"{fold} was made on other images or another split",
            hint=f"give another run=NAME, or remove {folder}",
        )
        sizes = _sizes(images.table).values()
        log.info("fold %s of %d: train %d, val %d, test %d", name, len(sets), *sizes)
        train_member(config, images, fold)
    for member in names:
        cards = [folder / f"fold-{name}" / "members" / member / "member.json" for name in sets]
        if not all(card.exists() for card in cards):
            log.info("%s is still to be trained in every fold, then the folds are pooled", member)
            return None
    results = {
        name: _fold_result(folder / f"fold-{name}", images, names, config)
        for name, images in sets.items()
    }
    return _pool(folder, prepared, results, config)


def leave_folds_out(
    prepared: Prepared, folds: int, fractions: list[float], seed: int
) -> dict[str, Prepared]:
    """Return the images once per fold, by its number from 1, that fold being test.

    Validation gets its share of train and validation together; the pixels are shared. See
    ``deal_folds`` and ``fold_split`` for what is refused.
    """
    table, share = prepared.table, fractions[1] / (fractions[0] + fractions[1])
    dealt = deal_folds(table, folds=folds, seed=seed)
    sets = {}
    for fold in range(1, folds + 1):
        images = prepared.with_split(fold_split(table, dealt, fold, val_share=share, seed=seed))
        check_disjoint(images.table, forced=False)
        sets[str(fold)] = images
    return sets


def leave_sources_out(
    prepared: Prepared, sources: list[str] | None, fractions: list[float], seed: int
) -> dict[str, Prepared]:
    """Return the images once per source, that source (or ``one+other``) being test.

    ``sources`` None takes all of which the others have the classes too.

    Raises:
        InputError: no source can be left out, a name that is no folder's, and see
            ``split_images``.
    """
    table = prepared.table
    known = [name for name in dict.fromkeys(table["source"]) if name]
    chosen = sources or [name for name in known if not lost_classes(table, [name])]
    if not chosen:
        raise InputError(
            f"no source can be left out: each of {', '.join(known) or '(none is named)'} alone has "
            "a class; add images of other sources, or use split=patient"
        )
    named = TOGETHER.join(chosen).split(TOGETHER)
    if twice := [name for name in named if named.count(name) > 1]:
        raise InputError(
            f"sources is {chosen} and names {twice[0]!r} twice: each image is predicted once"
        )
    if kept := [name for name in known if name not in named]:
        log.info("never left out: %s", ", ".join(kept))
    sets = {}
    for name in chosen:
        run_folder(Path("x"), name, name)  # the name is a folder's
        left = name.split(TOGETHER)
        split = split_images(table, "source", fractions=fractions, seed=seed, leave_out=left)
        sets[name] = prepared.with_split(split)
        check_disjoint(sets[name].table, forced=False)
    return sets


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
    if not (path.exists() and table.exists() and read_json(path, hint=AGAIN).get("key") == key):
        rows = rows_of(fold_images.table["split"].tolist(), "test")
        members = {name: load_member(fold / "members" / name) for name in names}
        logits = predict_rows(members, fold_images, rows, batch_size=config.trainer.batch_size)
        write_csv(table, build_predictions(fold_images.table.iloc[rows], logits, ensemble))
        scores = {"images": len(aligned.images), **validation}
        facts = {"key": key, "validation": scores, "note": note_of(fold_images)}
        write_json(path, ensemble.to_dict() | facts)
    name = fold.name.removeprefix("fold-") if config.split == "source" else ""
    sizes = _sizes(fold_images.table)
    return FoldResult(read_predictions(table), ensemble, validation, sizes, name=name)


def _sizes(table: pd.DataFrame) -> dict[str, int]:
    counts = table["split"].value_counts()
    return {name: int(counts.get(name, 0)) for name in SPLITS}


def _pool(
    folder: Path, prepared: Prepared, results: dict[str, FoldResult], config: CrossValidateConfig
) -> dict[str, Any]:
    table, by_source = prepared.table, config.split == "source"
    named = TOGETHER.join(results).split(TOGETHER)
    order = (table[in_sources(table, named)] if by_source else table)["image"].to_numpy(np.object_)
    pooled, found = cross_validation(
        list(results.values()), order, seed=config.seed, note=note_of(prepared)
    )
    write_csv(folder / "predictions.csv", pooled)
    found |= {
        "fingerprint": prepared.info["fingerprint"],
        "synthetic": bool(prepared.info.get("synthetic")),
        "split_seed": config.data.split_seed,
        "patients_unknown": patients_unknown(prepared.table),
        "environment": environment(),
    }
    if by_source:
        each = {name: adult_covid(part.predictions, table) for name, part in results.items()}
        models = {name: adult_covid(pooled, table, model=name) for name in found["models"]}
        found |= {"split": "source", "adults": {"models": models, "sources": each}}
        found["one_class_each"] = one_class_note(each)
    write_json(folder / "cv.json", found)
    _show(found, list(results) if by_source else [], config.folds)
    log.info("results: %s", relative(folder))
    refresh_report(folder.parent)
    return found


def _show(found: dict[str, Any], left_out: list[str], folds: int) -> None:
    title = (
        f"Each source left out in turn ({', '.join(left_out)})"
        if left_out
        else f"Cross-validation, {folds} folds by patient, each image predicted once"
    )
    images = f"{found['n']} images of {found['n_groups']} patients or groups"
    print_table(f"{title}, {images} · {found['note']}", summary_table(found))
    print_table("Ensemble, fold by fold", fold_table(found))
    for head, part in found.get("adults", {}).items():
        print_table(f"Covid against normal among adults, by {head}", adult_rows(part, head))
    if sets := partly_known_note(found):
        log.info("%s", sets)
    log.info(
        "%s, of the pooled predictions; they hold for these members as trained, the spread over "
        "folds shows what training anew changes",
        INTERVALS,
    )
    for warning in (found.get("one_class_each"), found["patients_unknown"]):
        if warning:
            log.warning("%s", warning)
