"""What the ensemble is fitted on, and what is fitted about confidence: written, and read again."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from cxr.console import log
from cxr.data.prepared import Prepared
from cxr.errors import command
from cxr.evaluation.evaluate import read_predictions
from cxr.files import digest_of, write_json
from cxr.models.aligned_logits import AlignedLogits, align_predictions
from cxr.models.ensemble import OUT_OF_FOLD, Ensemble
from cxr.pipeline.out_of_fold import out_of_fold_predictions
from cxr.reliability.conformal import fit_uncertainty

FILE = "uncertainty.json"


def validation_predictions(
    folder: Path, members: Sequence[str], labels: tuple[str, ...]
) -> AlignedLogits:
    """Read the members' validation predictions of a run.

    Raises:
        InputError: a table is missing, or the tables do not belong together.
    """
    tables = {
        name: read_predictions(
            folder / "members" / name / "predictions.csv",
            labels,
            hint=f"train the member again ({command('train')})",
        )
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
    folder: Path,
    ensemble: Ensemble,
    info: dict[str, Any],
    *,
    probs: ArrayLike,
    targets: ArrayLike,
    groups: ArrayLike,
) -> None:
    """Fit prediction sets and referral and write ``uncertainty.json``.

    Args:
        folder: of the run.
        ensemble: what was fitted.
        info: the run's ``run.json``.
        probs: (N, K) of the ensemble.
        targets: (N,) class positions.
        groups: (N,) patient or group names.
    """
    found = fit_uncertainty(
        probs, targets, ensemble.labels, groups=groups, fitted_on=ensemble.fitted_on
    ) | {
        "ensemble": digest_of(ensemble.to_dict()),
        "fingerprint": info["fingerprint"],
        "synthetic": info["synthetic"],
        "note": info["note"],
    }
    notes = [level["note"] for level in found["conformal"]["levels"].values()]
    for note in filter(None, [found["warning"], *notes]):
        log.warning("%s", note)
    write_json(folder / FILE, found)
