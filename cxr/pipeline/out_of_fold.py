"""The out-of-fold predictions of ``make cv``, as images to fit an ensemble of the same run on.

Each image's logits are those of members that never saw its patient: ten times the images of
validation, none of which chose an epoch.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cxr.console import log
from cxr.data.prepared import Prepared
from cxr.errors import InputError, MissingInputError, command
from cxr.evaluation.evaluate import read_predictions
from cxr.files import read_json
from cxr.models.aligned_logits import AlignedLogits, align_predictions

AGAIN = f"cross-validate again ({command('cv')}) under this run"


def out_of_fold_predictions(
    folder: Path, members: Sequence[str], prepared: Prepared
) -> AlignedLogits:
    """Read the members' out-of-fold logits of a run's cross-validation, test patients left out.

    An image is left out where the run's test split holds it or its patient. What remains is still
    not wholly apart from test: a fold's members were trained on test images of the other folds,
    which the run's own members never saw.

    Args:
        folder: of the run; ``cv-<folds>`` lies in it, the one with most folds is taken.
        members: of the ensemble.
        prepared: the run's prepared set.

    Raises:
        MissingInputError: the run was not cross-validated.
        InputError: that was of other images, members or settings, or test leaves no image.
    """
    cv = _cross_validation(folder)
    found = read_json(cv / "cv.json", hint=AGAIN)
    if found["fingerprint"] != prepared.info["fingerprint"]:
        raise InputError(
            f"{cv} is of another prepared set than the run (fingerprint "
            f"{found['fingerprint'][:12]}, the run's {prepared.info['fingerprint'][:12]}): {AGAIN}"
        )
    if missing := [name for name in members if name not in found["members"]]:
        raise InputError(
            f"{cv} lacks the member {missing[0]!r}, it has {', '.join(found['members'])}: "
            f"cross-validate it too ({command('cv')} with model=NAME), or name members="
        )
    for name in members:
        _check_settings(folder, cv, name)
    pooled = read_predictions(cv / "predictions.csv")
    table, labels = prepared.table, prepared.labels
    tested = set(table.loc[table["split"] == "test", "group"])
    kept = pooled[~pooled["group"].isin(tested)]
    if kept.empty:
        raise InputError(f"every image of {cv} is of a test patient of this run: nothing to fit on")
    log.info(
        "%d out-of-fold images of %s to fit on; %d of patients in this run's test split left out",
        len(kept),
        cv.name,
        len(pooled) - len(kept),
    )
    tables = {name: _member_table(kept, name, labels) for name in members}
    return align_predictions(tables, labels, split="val")


def _cross_validation(folder: Path) -> Path:
    found = sorted(
        (path.parent for path in folder.glob("cv-[0-9]*/cv.json")),
        key=lambda path: int(path.name.removeprefix("cv-")),
    )
    if not found:
        raise MissingInputError(
            f"{folder} has no finished cross-validation to fit on: first run "
            f"{command('cv')} with the same data= and run=, or fit with fitted_on=validation"
        )
    return found[-1]


def _check_settings(folder: Path, cv: Path, name: str) -> None:
    """Refuse folds that trained a member with another network or trainer than the run."""
    own, fold = (
        read_json(root / "members" / name / "settings.json", hint=AGAIN)["settings"]
        for root in (folder, cv / "fold-1")
    )
    for part in ("model", "trainer"):
        differing = sorted(key for key in own[part] if own[part][key] != fold[part].get(key))
        if differing:
            key = differing[0]
            raise InputError(
                f"{cv.name} trained {name} with {part}.{key}={fold[part].get(key)}, the run with "
                f"{own[part][key]}: its temperatures would not fit; {AGAIN} with the same settings"
            )


def _member_table(kept: pd.DataFrame, name: str, labels: Sequence[str]) -> pd.DataFrame:
    """Return one member's part of the pooled table, as its own predictions table has it."""
    values: dict[str, Any] = {f"logit_{label}": kept[f"logit_{name}_{label}"] for label in labels}
    return kept[["image", "label"]].assign(split="val", **values)
