"""What the ensemble is fitted on, and what that says about certainty: read, or fitted again."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cxr.console import log
from cxr.data.prepared import Prepared, open_prepared
from cxr.runlog import digest_of, read_json, write_json
from cxr.stages.out_of_fold import out_of_fold_predictions
from cxr.training.align import AlignedLogits, align_predictions
from cxr.training.ensemble import OUT_OF_FOLD, WEIGHTED, Ensemble, all_probs
from cxr.training.inference import read_predictions
from cxr.uncertainty import fit_uncertainty

FILE = "uncertainty.json"


def validation_predictions(
    folder: Path, members: Sequence[str], labels: tuple[str, ...]
) -> AlignedLogits:
    """Read the members' validation predictions of a run.

    Raises:
        InputError: a table is missing, or the tables do not belong together.
    """
    tables = {
        name: read_predictions(folder / "members" / name / "predictions.csv", labels)
        for name in members
    }
    return align_predictions(tables, labels)


def fitting_predictions(
    folder: Path, members: Sequence[str], prepared: Prepared, fitted_on: str
) -> AlignedLogits:
    """Read what an ensemble of a run is fitted on: validation, or out-of-fold predictions.

    Raises:
        InputError: see ``validation_predictions`` and ``out_of_fold_predictions``.
    """
    if fitted_on == OUT_OF_FOLD:
        return out_of_fold_predictions(folder, members, prepared)
    return validation_predictions(folder, members, prepared.labels)


def write_uncertainty(
    folder: Path, ensemble: Ensemble, aligned: AlignedLogits, info: dict[str, Any]
) -> dict[str, Any]:
    """Fit prediction sets and referral and write ``uncertainty.json``.

    Args:
        folder: of the run.
        ensemble: what was fitted.
        aligned: the members' predictions that the ensemble was fitted on.
        info: the run's ``run.json``.

    Returns:
        What was written.
    """
    probs = all_probs(aligned.logits, ensemble)[WEIGHTED]
    found = fit_uncertainty(probs, aligned.targets, ensemble.labels) | {
        "fitted_on": ensemble.fitted_on,
        "ensemble": digest_of(ensemble.to_dict()),
        "fingerprint": info["fingerprint"],
        "synthetic": info["synthetic"],
        "note": info["note"],
    }
    for note in filter(None, [found["warning"], *_level_notes(found)]):
        log.warning("%s", note)
    write_json(folder / FILE, found)
    return found


def read_uncertainty(folder: Path, ensemble: Ensemble, info: dict[str, Any]) -> dict[str, Any]:
    """Read a run's ``uncertainty.json``; fit it where it is missing or of another ensemble.

    Raises:
        InputError: it is damaged, or the members' validation predictions are.
    """
    path = folder / FILE
    if path.exists():
        found: dict[str, Any] = read_json(path, mend="remove it, it is then fitted again")
        if found.get("ensemble") == digest_of(ensemble.to_dict()):
            return found
    log.info("prediction sets and referral are fitted on %s: %s", ensemble.fitted_on, path.name)
    prepared = open_prepared(folder / info["prepared"])
    aligned = fitting_predictions(folder, ensemble.members, prepared, ensemble.fitted_on)
    return write_uncertainty(folder, ensemble, aligned, info)


def _level_notes(found: dict[str, Any]) -> list[str]:
    return [level["note"] for level in found["conformal"]["levels"].values()]
