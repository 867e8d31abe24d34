"""A trained run opened for explaining: what ``make explain`` and the notebook work with."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr.console import images_bar
from cxr.data.prepared import Prepared
from cxr.errors import InputError
from cxr.evaluation.evaluate import build_predictions
from cxr.evaluation.evaluate import read_predictions as read_test_predictions
from cxr.explain.gradcam import Maps, ensemble_cam, member_maps, resize_maps
from cxr.explain.library import CLOSED_FORM
from cxr.explain.map_plots import Example
from cxr.explain.pointing import Masks, read_masks
from cxr.imaging.preprocess import PreprocessSpec
from cxr.models.aligned_logits import align_predictions
from cxr.models.build import Member, load_member
from cxr.models.ensemble import WEIGHTED, Ensemble
from cxr.pipeline.config import RunConfig
from cxr.pipeline.run_folder import find_run, load_ensemble
from cxr.training.inference import read_predictions

Bar = Callable[[str, int], AbstractContextManager[Callable[[], None]]]


@dataclass(frozen=True)
class Explainer:
    """A trained run, opened for explaining.

    Attributes:
        folder: outputs/<data>/<run>.
        note: stands below every figure.
        prepared: its prepared set.
        ensemble: pool, temperatures, weights, labels.
        members: per name, in inference mode.
        predictions: the table of the images to choose from, N rows.
        rows: (N,) where they stand in the prepared set.
        split: test or val.
    """

    folder: Path
    note: str
    prepared: Prepared
    ensemble: Ensemble
    members: dict[str, Member]
    predictions: pd.DataFrame
    rows: NDArray[np.int64]
    split: str

    def images(self, chosen: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the pixels (n, S, S) of chosen rows of the predictions."""
        return np.asarray(self.prepared.pixels[self.rows[chosen]])

    def masks(self, column: str, chosen: NDArray[np.int64]) -> Masks | None:
        """Return (n, S, S) masks of ``lesion_mask`` or ``mask``; None where all are unknown."""
        table, info = self.prepared.table, self.prepared.info
        if column not in table or not any(table[column].iloc[self.rows[chosen]]):
            return None
        names = table[column].iloc[self.rows[chosen]].tolist()
        return read_masks(Path(info["root"]), names, PreprocessSpec(**info["preprocess"]))

    def maps(
        self,
        chosen: NDArray[np.int64],
        classes: NDArray[np.int64],
        *,
        method: str = CLOSED_FORM,
        layer: str | None = None,
        batch_size: int = 32,
        bar: Bar = images_bar,
    ) -> dict[str, Maps]:
        """Return each member's maps and the ensemble's, (n, S, S), 0 to 1.

        Args:
            chosen: (n,) rows of the predictions.
            classes: (n,) class explained on each.
            method: see ``cxr.explain.gradcam``.
            layer: likewise.
            batch_size: images at once.
            bar: shows progress.

        Raises:
            InputError: an unknown method or layer.
        """
        raw: dict[str, Maps] = {}
        for name, member in self.members.items():
            with bar(f"{method}, {name}", len(chosen)) as done:
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
        whole = ensemble_cam(raw, self.ensemble.weights, side)
        return {name: resize_maps(values, side) for name, values in raw.items()} | {WEIGHTED: whole}

    def examples(
        self, chosen: NDArray[np.int64], maps: dict[str, Maps], lesions: Masks | None = None
    ) -> list[Example]:
        """Put images, maps (n, S, S) and probabilities together for the figures."""
        images, found = self.images(chosen), []
        for place, row in enumerate(self.predictions.iloc[chosen].to_dict("records")):
            probs = {
                name: {label: float(row[f"prob_{name}_{label}"]) for label in self.ensemble.labels}
                for name in maps
            }
            found.append(
                Example(
                    images[place],
                    row["label"],
                    row["prediction"],
                    probs,
                    {name: values[place] for name, values in maps.items()},
                    None if lesions is None else lesions[place],
                    name=row["image"],
                )
            )
        return found


def open_explainer(config: RunConfig) -> Explainer:
    """Open a trained run: on its test split where that was evaluated, else on validation.

    Explaining never opens the test split by itself.

    Raises:
        InputError: nothing trained, no ensemble fitted, or tables of different images.
    """
    folder, info, prepared = find_run(config)
    ensemble = Ensemble.from_dict(load_ensemble(folder, config))
    members = {name: load_member(folder / "members" / name) for name in ensemble.members}
    position = pd.Series(np.arange(len(prepared.table)), index=prepared.table["image"])
    path, split = folder / "evaluation" / "predictions.csv", "val"
    if path.exists():
        split, predictions = "test", read_test_predictions(path)
    else:
        predictions = _validation_predictions(folder, prepared, ensemble)
    if unknown := set(predictions["image"]) - set(position.index):
        raise InputError(
            f"the predictions of {folder} name {min(unknown)!r}, which the prepared set lacks: "
            "evaluate the run again (make evaluate)"
        )
    rows = np.asarray(position.loc[predictions["image"]], np.int64)
    return Explainer(folder, info["note"], prepared, ensemble, members, predictions, rows, split)


def _validation_predictions(folder: Path, prepared: Prepared, ensemble: Ensemble) -> pd.DataFrame:
    tables = {
        name: read_predictions(folder / "members" / name / "predictions.csv", ensemble.labels)
        for name in ensemble.members
    }
    aligned = align_predictions(tables, ensemble.labels)
    rows = prepared.table.set_index("image", drop=False).reindex(aligned.images)
    return build_predictions(rows.reset_index(drop=True), aligned.logits, ensemble)
