"""What an ensemble is fitted on: a run's validation, or the out-of-fold predictions of ``make cv``.

Out of fold each image's logits are those of members that never saw its patient: ten times the
images of validation, none of which chose an epoch.
"""

from collections.abc import Sequence
from pathlib import Path

from cxr.console import log
from cxr.data.prepared import Prepared
from cxr.errors import InputError, MissingInputError, command
from cxr.evaluation.evaluate import read_predictions
from cxr.files import read_json
from cxr.models.aligned_logits import AlignedLogits, align_predictions

FILE = "uncertainty.json"
AGAIN = f"cross-validate again ({command('cv')}) under this run"


def validation_predictions(
    folder: Path, members: Sequence[str], labels: tuple[str, ...]
) -> AlignedLogits:
    """Read the members' validation predictions of a run.

    Raises:
        InputError: a table is missing, or the tables do not belong together.
    """
    hint = f"train the member again ({command('train')})"
    paths = {name: folder / "members" / name / "predictions.csv" for name in members}
    tables = {name: read_predictions(path, labels, hint=hint) for name, path in paths.items()}
    return align_predictions(tables, labels)


def out_of_fold_predictions(
    folder: Path, members: Sequence[str], prepared: Prepared
) -> AlignedLogits:
    """Read the members' out-of-fold logits of a run's cross-validation, test patients left out.

    Of several cross-validations the one with most folds is taken. An image is left out where the
    run's test split holds it or its patient. What remains is still not wholly apart from test: a
    fold's members were trained on test images of the other folds, which the run's own never saw.

    Raises:
        MissingInputError: the run was not cross-validated.
        InputError: that was of other images, members or settings, or test leaves no image.
    """
    finished = [path.parent for path in folder.glob("cv-[0-9]*/cv.json")]
    if not finished:
        raise MissingInputError(
            f"{folder} has no finished cross-validation to fit on: first run "
            f"{command('cv')} with the same data= and run=, or fit with fitted_on=validation"
        )
    cv = max(finished, key=lambda path: int(path.name.removeprefix("cv-")))
    _check_settings(folder, cv, members, prepared.info["fingerprint"])
    pooled = read_predictions(cv / "predictions.csv")
    table, labels = prepared.table, prepared.labels
    tested = set(table.loc[table["split"] == "test", "group"])
    kept = pooled[~pooled["group"].isin(tested)]
    if kept.empty:
        raise InputError(f"every image of {cv} is of a test patient of this run: nothing to fit on")
    log.info(
        "%d out-of-fold images of %s to fit on; %d of patients in this run's test split left out",
        *(len(kept), cv.name, len(pooled) - len(kept)),
    )
    own = kept[["image", "label"]].assign(split="val")
    columns = {
        name: {f"logit_{label}": kept[f"logit_{name}_{label}"] for label in labels}
        for name in members
    }
    return align_predictions({name: own.assign(**columns[name]) for name in members}, labels)


def _check_settings(folder: Path, cv: Path, members: Sequence[str], fingerprint: str) -> None:
    """Refuse folds of other images, without a member, or trained otherwise than the run."""
    found = read_json(cv / "cv.json", hint=AGAIN)
    if found["fingerprint"] != fingerprint:
        raise InputError(
            f"{cv} is of another prepared set than the run (fingerprint "
            f"{found['fingerprint'][:12]}, the run's {fingerprint[:12]}): {AGAIN}"
        )
    if missing := [name for name in members if name not in found["members"]]:
        raise InputError(
            f"{cv} lacks the member {missing[0]!r}, it has {', '.join(found['members'])}: "
            f"cross-validate it too ({command('cv')} with model=NAME), or name members="
        )
    for name in members:
        own, fold = (
            read_json(root / "members" / name / "settings.json", hint=AGAIN)["settings"]
            for root in (folder, cv / "fold-1")
        )
        for part in ("model", "trainer"):
            for key in sorted(own[part]):
                if own[part][key] != fold[part].get(key):
                    raise InputError(
                        f"{cv.name} trained {name} with {part}.{key}={fold[part].get(key)}, the "
                        f"run with {own[part][key]}: its temperatures would not fit; {AGAIN} with "
                        "the same settings"
                    )
