"""A trained run opened once: what every stage behind training, and the notebook, works with.

N images, S side of prepared pixels.
"""

import functools
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr.bundle.maps import enlarge
from cxr.console import images_bar, log
from cxr.data.prepared import Prepared
from cxr.errors import InputError, MissingInputError
from cxr.evaluation.evaluate import build_predictions, read_predictions
from cxr.explain.gradcam import CLOSED_FORM, Maps, ensemble_cam, member_maps, resize_maps
from cxr.explain.map_plots import Example
from cxr.explain.pointing import Masks, read_masks
from cxr.files import digest, digest_of, read_json
from cxr.imaging.preprocess import PreprocessSpec, to_square
from cxr.imaging.read import read_gray
from cxr.models.aligned_logits import AlignedLogits
from cxr.models.build import WEIGHTS_FILE, Member, load_member
from cxr.models.ensemble import WEIGHTED, Ensemble
from cxr.pipeline.config import RunConfig
from cxr.pipeline.fit_uncertainty import FILE, validation_predictions
from cxr.pipeline.run_folder import command, find_run, trained_members
from cxr.training.inference import predict_logits

METRICS, CALIBRATION = "evaluation/metrics.json", "evaluation/calibration.json"
PREDICTIONS = "evaluation/predictions.csv"


class TrainedRun:
    """A trained run; every part is opened when it is first asked for, once, and kept.

    Opening never writes, and never opens the test split: ``predictions`` are those of test where
    the run was evaluated, else those of validation. ``folder`` is outputs/<data>/<run>, ``info``
    its ``run.json``, ``prepared`` its prepared set; see ``find_run`` for what is refused.
    """

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.folder, self.info, self.prepared = find_run(config)

    @property
    def note(self) -> str:
        """What stands below every plot and table."""
        return str(self.info["note"])

    @property
    def labels(self) -> tuple[str, ...]:
        """The K classes in order."""
        return self.ensemble.labels

    @functools.cached_property
    def fitted(self) -> dict[str, Any]:
        """The content of ``ensemble.json``; refused where it was not fitted yet."""
        path, fit = self.folder / "ensemble.json", self.command("ensemble")
        if not path.exists():
            trained_members(self.folder)
            raise MissingInputError(f"{path} is missing: fit the ensemble first with {fit}")
        values: dict[str, Any] = read_json(path, hint=fit)
        return values

    @functools.cached_property
    def ensemble(self) -> Ensemble:
        """Pool, temperatures, weights, labels."""
        return Ensemble.from_dict(self.fitted)

    @functools.cached_property
    def state(self) -> str:
        """Digest of what any result of the run speaks of: its data, weights and ensemble."""
        files = [self.folder / "members" / name / WEIGHTS_FILE for name in self.ensemble.members]
        shas = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
        return digest(self.info["fingerprint"], *shas, digest_of(self.ensemble.to_dict()))

    @functools.cached_property
    def members(self) -> dict[str, Member]:
        """Each member by name, in inference mode."""
        return {name: load_member(self.folder / "members" / name) for name in self.ensemble.members}

    @functools.cached_property
    def uncertainty(self) -> dict[str, Any]:
        """The content of ``uncertainty.json``: thresholds of prediction sets and referral.

        Raises:
            InputError: it is missing, damaged, of another ensemble or of version 0.1.
        """
        fit = self.command("ensemble")
        values = self.read(FILE, hint=f"fit it again ({fit})")
        if values is None:
            raise InputError(f"the run has no {FILE}: fit it ({fit})")
        if values.get("ensemble") != digest_of(self.ensemble.to_dict()):
            raise InputError(f"{FILE} was fitted for another ensemble: fit it again ({fit})")
        if "patients" not in values:
            raise InputError(
                f"{FILE} is of version 0.1, whose thresholds count images, not patients: fit it "
                f"again ({fit})"
            )
        return values

    @functools.cached_property
    def validation(self) -> AlignedLogits:
        """The members' validation logits."""
        return validation_predictions(self.folder, self.ensemble.members, self.ensemble.labels)

    @functools.cached_property
    def evaluated(self) -> bool:
        """Whether the run's test split was opened and its predictions are there."""
        return (self.folder / PREDICTIONS).exists()

    @property
    def split(self) -> str:
        """The split of ``predictions``: test or val."""
        return "test" if self.evaluated else "val"

    @functools.cached_property
    def predictions(self) -> pd.DataFrame:
        """The predictions table of ``split``, N rows; see ``build_predictions``."""
        if self.evaluated:
            return read_predictions(self.folder / PREDICTIONS)
        rows = self.prepared.table.set_index("image", drop=False).reindex(self.validation.images)
        return build_predictions(rows.reset_index(drop=True), self.validation.logits, self.ensemble)

    @functools.cached_property
    def rows(self) -> NDArray[np.int64]:
        """Where the images of ``predictions`` stand in the prepared set, (N,).

        Raises:
            InputError: the predictions name an image that the prepared set lacks.
        """
        names = self.prepared.table["image"]
        position = pd.Series(np.arange(len(names)), index=names)
        if unknown := set(self.predictions["image"]) - set(position.index):
            raise InputError(
                f"the predictions of {self.folder} name {min(unknown)!r}, which the prepared set "
                f"lacks: evaluate the run again ({self.command('evaluate')})"
            )
        return np.asarray(position.loc[self.predictions["image"]], np.int64)

    @property
    def metrics(self) -> dict[str, Any] | None:
        """The content of ``metrics.json``; None where the run was not evaluated on its data."""
        values = self.read(METRICS)
        own = self.info["fingerprint"]
        return values if values and values.get("fingerprint", own) == own else None

    @property
    def calibration(self) -> dict[str, Any] | None:
        """The content of ``calibration.json``; None where it was not measured."""
        return self.read(CALIBRATION)

    def read(
        self, name: str, *, hint: str = "remove it and run its stage again"
    ) -> dict[str, Any] | None:
        """Return a result file of the run, None where there is none; a damaged one is refused."""
        path = self.folder / name
        values: dict[str, Any] | None = read_json(path, hint=hint) if path.exists() else None
        return values

    def command(self, stage: str) -> str:
        """Return the command that runs a stage of this run."""
        return command(stage, self.config)

    def predict(
        self, prepared: Prepared, rows: NDArray[np.int64], *, batch_size: int
    ) -> pd.DataFrame:
        """Return the predictions table of rows (N,) of a prepared set, its own or another."""
        logits = predict_rows(self.members, prepared, rows, batch_size=batch_size)
        return build_predictions(prepared.table.iloc[rows], logits, self.ensemble)

    def open_test(self, rows: NDArray[np.int64], *, batch_size: int) -> pd.DataFrame:
        """Predict the test images, rows (N,) of the prepared set, and keep the ``predictions``."""
        table = self.predict(self.prepared, rows, batch_size=batch_size)
        self.__dict__ |= {"predictions": table, "rows": rows, "evaluated": True}
        return table

    def images(self, chosen: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the pixels (n, S, S) of chosen rows of the predictions."""
        return np.asarray(self.prepared.pixels[self.rows[chosen]])

    def masks(self, column: str, chosen: NDArray[np.int64]) -> Masks | None:
        """Return (n, S, S) masks of ``lesion_mask`` or ``mask``; None where all are unknown."""
        table, info = self.prepared.table, self.prepared.info
        if column not in table or not any(table[column].iloc[self.rows[chosen]]):
            return None
        rows = self.rows[chosen]
        placements = [self.prepared.placement(int(row)) for row in rows]
        names = table[column].iloc[rows].tolist()
        return read_masks(Path(info["root"]), names, self.prepared.spec, placements)

    def maps(
        self,
        chosen: NDArray[np.int64],
        classes: NDArray[np.int64],
        *,
        method: str = CLOSED_FORM,
        layer: str | None = None,
        batch_size: int = 32,
    ) -> dict[str, Maps]:
        """Return each member's maps and the ensemble's, (n, S, S), 0 to 1.

        ``chosen`` (n,) are rows of the predictions, ``classes`` (n,) what is explained on each; see
        ``cxr.explain.gradcam`` for method and layer, and for what is refused.
        """
        raw: dict[str, Maps] = {}
        for name, member in self.members.items():
            with images_bar(f"{method}, {name}", len(chosen)) as done:
                raw[name] = member_maps(
                    member,
                    self.prepared.pixels,
                    self.rows[chosen],
                    classes,
                    method=method,
                    layer=layer,
                    batch_size=batch_size,
                    on_image=done,
                )
        side = int(self.prepared.pixels.shape[-1])
        pooled = ensemble_cam(raw, self.ensemble.weights, side)
        own = {name: resize_maps(values, side) for name, values in raw.items()}
        return own | {WEIGHTED: pooled}

    def examples(
        self, chosen: NDArray[np.int64], maps: dict[str, Maps], lesions: Masks | None = None
    ) -> list[Example]:
        """Put images, maps (n, S, S) and probabilities together for plots, on whole images."""
        examples = []
        for place, row in enumerate(self.predictions.iloc[chosen].to_dict("records")):
            number = int(self.rows[chosen[place]])
            image, on_image = self._whole_image(number)
            example = Example(
                image,
                row["label"],
                row["prediction"],
                {
                    name: {label: float(row[f"prob_{name}_{label}"]) for label in self.labels}
                    for name in maps
                },
                {name: on_image(values[place]) for name, values in maps.items()},
                None if lesions is None else on_image(lesions[place]) > 0.5,
                on_image(self.prepared.lung_mask(number)) > 0.5,
                name=row["image"],
            )
            examples.append(example)
        return examples

    def _whole_image(self, row: int) -> tuple[NDArray[np.uint8], Callable[[Any], Any]]:
        """Return a row's whole image, (S, S), and what lays an array of its square over it."""
        prepared, name = self.prepared, self.prepared.table["image"].iloc[row]
        placement, square = prepared.placement(row), np.asarray(prepared.pixels[row])
        if placement is None:
            return square, lambda values: values
        try:
            image = read_gray(Path(prepared.info["root"]) / name, name=name)
        except InputError as error:
            log.warning("maps are shown on the cropped images alone: %s", error)
            return square, lambda values: values
        whole = to_square(image, PreprocessSpec(len(square)))
        return whole, lambda values: enlarge(values.astype(np.float32), whole.shape, placement)


def predict_rows(
    members: Mapping[str, Member], prepared: Prepared, rows: NDArray[np.int64], *, batch_size: int
) -> dict[str, NDArray[np.float32]]:
    """Return each member's logits (N, K) of rows (N,) of a prepared set."""
    logits = {}
    for name, member in members.items():
        with images_bar(f"test images, {name}", len(rows)) as done:
            logits[name] = predict_logits(
                member, prepared.pixels, rows, batch_size=batch_size, on_image=done
            )
    return logits
