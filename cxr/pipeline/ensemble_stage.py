"""Stage 3: temperatures, weights, prediction sets and referral, from validation or out of fold."""

from typing import Any

import pandas as pd

from cxr.console import log, print_table
from cxr.errors import InputError
from cxr.evaluation.evaluate import best_member, score_validation
from cxr.files import digest_of, environment, read_json, write_json
from cxr.models.aligned_logits import AlignedLogits
from cxr.models.ensemble import (
    OUT_OF_FOLD,
    VALIDATION,
    WEIGHTED,
    Ensemble,
    all_probs,
    check_fitted_on,
    nll,
)
from cxr.models.ensemble_fit import FOLDS, cross_fitted, fit_ensemble
from cxr.pipeline.config import EnsembleConfig
from cxr.pipeline.fit_uncertainty import FILE, out_of_fold_predictions, validation_predictions
from cxr.pipeline.run_folder import command, find_run, relative, trained_members
from cxr.reliability.conformal import fit_uncertainty

SHOWN = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_auroc": "macro AUROC",
    "nll": "NLL",
}


def ensemble_stage(config: EnsembleConfig) -> dict[str, Any]:
    """Fit the ensemble, write ``uncertainty.json`` and ``ensemble.json``, return the latter.

    Raises:
        InputError: no run, no trained member, members that do not belong together, or a
            cross-validation to fit on that is missing or another one.
    """
    check_fitted_on(config.fitted_on)
    folder, info, prepared = find_run(config)
    names = trained_members(folder, config.members)
    labels = tuple(info["labels"])
    for name in names:
        card = read_json(folder / "members" / name / "member.json", hint="train it again")
        if card["data"]["fingerprint"] != info["fingerprint"]:
            raise InputError(
                f"member {name!r} was trained on another prepared set than this run: remove "
                f"{folder / 'members' / name} and train it again"
            )
    if config.fitted_on == OUT_OF_FOLD:
        aligned = out_of_fold_predictions(folder, names, prepared)
    else:
        aligned = validation_predictions(folder, names, prepared.labels)
    ensemble = fit_ensemble(
        aligned.logits,
        aligned.targets,
        labels,
        pool=config.pool,
        weight_prior=config.weight_prior,
        fitted_on=config.fitted_on,
    )
    groups = prepared.table.set_index("image")["group"].loc[list(aligned.images)]
    scores = score_validation(aligned.logits, aligned.targets, ensemble)
    facts = {key: info[key] for key in ("fingerprint", "synthetic", "note")}
    found = ensemble.to_dict() | {
        "best_member": best_member(scores, names),
        "validation": {"images": len(aligned.images), **scores},
        "cross_fitted": _cross_fitted(aligned, ensemble, groups),
        **facts,
        "environment": environment(),
    }
    write_json(folder / "ensemble.json", found)
    uncertainty = _fit_uncertainty(aligned, ensemble, groups)
    write_json(folder / FILE, uncertainty | facts)
    _show(found)
    log.info("results: %s", relative(folder))
    log.info(
        "next: %s (opens the test split), %s (Grad-CAM), %s (weights to hand on)",
        *(command(stage, config) for stage in ("evaluate", "explain", "export")),
    )
    return found


def _fit_uncertainty(
    aligned: AlignedLogits, ensemble: Ensemble, groups: pd.Series
) -> dict[str, Any]:
    """Fit prediction sets and referral of an ensemble, and say where they are unsure."""
    probs = all_probs(aligned.logits, ensemble)[WEIGHTED]
    labels, fitted_on = ensemble.labels, ensemble.fitted_on
    found = fit_uncertainty(probs, aligned.targets, labels, groups=groups, fitted_on=fitted_on)
    notes = [level["note"] for level in found["conformal"]["levels"].values()]
    for note in filter(None, [found["warning"], *notes]):
        log.warning("%s", note)
    return found | {"ensemble": digest_of(ensemble.to_dict())}


def _cross_fitted(aligned: AlignedLogits, ensemble: Ensemble, groups: pd.Series) -> dict[str, Any]:
    """Return each model's NLL when fitted on other patients than those it is measured on."""
    try:
        probs = cross_fitted(aligned.logits, aligned.targets, groups, ensemble)
    except InputError as error:
        return {"skipped": str(error)}
    return {"folds": FOLDS, "nll": {name: nll(p, aligned.targets) for name, p in probs.items()}}


def _show(found: dict[str, Any]) -> None:
    honest = found["cross_fitted"]
    images = {name: values for name, values in found["validation"].items() if name != "images"}
    rows = [
        {"model": f"{name} (best member)" if name == found["best_member"] else name}
        | {"weight": f"{found['weights'][name]:.2f}" if name in found["weights"] else ""}
        | {head: f"{scores[key]:.3f}" for key, head in SHOWN.items()}
        | ({"NLL, cross-fitted": f"{honest['nll'][name]:.3f}"} if "nll" in honest else {})
        for name, scores in images.items()
    ]
    where = "Validation" if found["fitted_on"] == VALIDATION else "Out of fold"
    print_table(f"{where}, {found['validation']['images']} images · {found['note']}", rows)
    log.info(
        "%s pool, temperature %.3f behind it (equal weights %.3f), weight prior %g images",
        *(found[key] for key in ("pool", "temperature", "equal_temperature", "weight_prior")),
    )
    if "nll" in honest:
        log.info(
            "temperatures and weights were fitted on these images, which flatters NLL; "
            "cross-fitted: each image by what the patients of the other %d of %d folds gave",
            *(honest["folds"] - 1, honest["folds"]),
        )
    else:
        log.info(
            "no cross-fitted NLL, and NLL flatters what was fitted here: %s", honest["skipped"]
        )
