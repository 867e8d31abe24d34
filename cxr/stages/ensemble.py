"""Stage 3: temperatures, weights, prediction sets and referral, from validation alone."""

from typing import Any

from cxr.config import EnsembleConfig
from cxr.console import log, print_table
from cxr.errors import InputError
from cxr.evaluation.evaluate import best_member, score_validation
from cxr.runlog import environment, read_json, write_json
from cxr.stages.run import command, find_run, relative, trained_members
from cxr.stages.uncertainty import validation_predictions, write_uncertainty
from cxr.training.ensemble import WEIGHTED, all_probs, fit_ensemble

SHOWN = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_auroc": "macro AUROC",
    "nll": "NLL",
}


def ensemble_stage(config: EnsembleConfig) -> dict[str, Any]:
    """Fit on validation, write ``ensemble.json`` and ``uncertainty.json``, show the table.

    Returns:
        The content of ``ensemble.json``.

    Raises:
        InputError: no run, no trained member, or members that do not belong together.
    """
    folder, info, prepared = find_run(config)
    names = trained_members(folder, config.members)
    labels = tuple(info["labels"])
    for name in names:
        card = read_json(folder / "members" / name / "member.json", mend="train it again")
        if card["data"]["fingerprint"] != info["fingerprint"]:
            raise InputError(
                f"member {name!r} was trained on another prepared set than this run: remove "
                f"{folder / 'members' / name} and train it again"
            )
    aligned = validation_predictions(folder, names, labels)
    ensemble = fit_ensemble(aligned.logits, aligned.targets, labels)
    validation = score_validation(aligned.logits, aligned.targets, ensemble)
    found = ensemble.to_dict() | {
        "best_member": best_member(validation, names),
        "validation": {"films": len(aligned.images), **validation},
        "fingerprint": info["fingerprint"],
        "synthetic": info["synthetic"],
        "note": info["note"],
        "environment": environment(),
    }
    write_json(folder / "ensemble.json", found)
    write_uncertainty(
        folder, ensemble, info, probs=all_probs(aligned.logits, ensemble)[WEIGHTED],
        targets=aligned.targets,
        groups=prepared.table.set_index("image").loc[list(aligned.images), "group"],
    )  # fmt: skip
    rows = [
        {"model": name}
        | {"weight": f"{ensemble.weights[name]:.2f}" if name in ensemble.weights else ""}
        | {head: f"{scores[key]:.3f}" for key, head in SHOWN.items()}
        for name, scores in validation.items()
    ]
    films = prepared.table["split"].eq("val").sum()
    print_table(f"Validation, {films} films · {info['note']}", rows)
    log.info("results: %s", relative(folder))
    log.info(
        "next: %s (opens the test split), %s (Grad-CAM), %s (weights to hand on)",
        *(command(stage, config) for stage in ("evaluate", "explain", "export")),
    )
    return found
