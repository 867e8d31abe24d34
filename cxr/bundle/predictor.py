"""Predict images with a bundle: probabilities, sets, referral, refusal, heat maps. No torch.

B batch, M members, K classes, H W pixels of an image as read, S side of the prepared square.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, compress, islice, repeat
from pathlib import Path
from typing import Any, cast, overload

import numpy as np
from numpy.typing import NDArray

from cxr.bundle.format import MODEL_FILE, OOD_FILE, check_files, read_info
from cxr.bundle.maps import HeatMaps
from cxr.bundle.prediction import Image, Prediction, is_single, prepare_input
from cxr.bundle.runtimes import Arrays, open_runtime
from cxr.errors import InputError
from cxr.imaging.preprocess import LUNGS_FILE, PreprocessSpec
from cxr.imaging.read import DecodedImage
from cxr.lungs.crop import to_model_input
from cxr.lungs.find import Lungs, find_lungs
from cxr.reliability.conformal import (
    Threshold,
    prediction_sets,
    refer,
    referral_threshold,
    tempered,
    thresholds_of,
)
from cxr.reliability.ood import OodReference, Refusal

__all__ = ["Prediction", "Predictor"]

BATCH = 8
"""Images in one run of the graph; larger batches are no faster on a processor."""


class Predictor:
    """A bundle, ready to predict from any number of threads.

    Args:
        bundle: folder that ``scripts/export.py`` wrote.
        runtime: ``onnxruntime``, or ``openvino`` where it is installed.
        threads: processor threads of one prediction; 0 takes every processor.
        variant: of version 0.1; only ``float32`` is left of it.

    Attributes:
        labels: the K class names.
        members: names of the M members.
        info: content of ``bundle.json``.
        fingerprint: digest of the whole bundle.
        note: stands wherever a prediction is shown.

    Raises:
        MissingInputError: no bundle, or a file of it is missing.
        InputError: a bundle that was changed or is of a newer format, an unknown runtime, or
            another variant.
    """

    def __init__(
        self,
        bundle: Path | str,
        *,
        runtime: str = "onnxruntime",
        threads: int = 0,
        variant: str = "float32",
    ) -> None:
        folder = Path(bundle)
        refuse_variant(variant)
        self.info: dict[str, Any] = read_info(folder)
        check_files(folder, self.info)
        self.labels: tuple[str, ...] = tuple(self.info["labels"])
        self.members: tuple[str, ...] = tuple(self.info["members"])
        self.fingerprint: str = self.info["fingerprint"]
        self.note: str = self.info["note"]
        self._spec = PreprocessSpec(**self.info["preprocess"])
        # Too few training images give no reference; bundle.json then says so.
        self._ood = OodReference.load(folder / OOD_FILE) if OOD_FILE in self.info["files"] else None
        self._finder = folder / LUNGS_FILE
        # Refusal looks for the lungs, so they are found in whole images too.
        self._asks = self._ood is not None and "lungs" in self._ood.limits
        if self._spec.lungs != "none" or self._asks:
            check_files(folder, self.info, [LUNGS_FILE])
        # A bundle that was recalibrated on local images has one more temperature.
        self._temperature = float(self.info.get("recalibration", {}).get("temperature", 1))
        self._referral = referral_threshold(self.info["uncertainty"])
        self._runtime = open_runtime(folder / MODEL_FILE, runtime=runtime, threads=threads)

    # A str is a sequence of str too; it is taken for a path.
    @overload
    def predict(  # type: ignore[overload-overlap]
        self, images: Image, *, level: float = ..., maps: bool = ..., names: str | None = ...
    ) -> Prediction: ...

    @overload
    def predict(
        self,
        images: Iterable[Image],
        *,
        level: float = ...,
        maps: bool = ...,
        names: Iterable[str] | None = ...,
    ) -> list[Prediction]: ...

    def predict(
        self,
        images: Image | Iterable[Image],
        *,
        level: float = 0.9,
        maps: bool = False,
        names: Iterable[str] | str | None = None,
    ) -> Prediction | list[Prediction]:
        """Predict one image, or several.

        Args:
            images: a path, bytes or gray pixels (H, W) uint8 or uint16; or a sequence of them.
            level: coverage of the prediction set in each class; one of those that the bundle was
                fitted for.
            maps: whether to offer heat maps.
            names: what images are called in results and errors; paths by default.

        Returns:
            A ``Prediction``, or a list of them where a sequence was given.

        Raises:
            InputError: an image that cannot be read, or a level that was not fitted.
        """
        single = is_single(images)
        several = cast(Iterable[Image], [images] if single else images)
        named = [names] if isinstance(names, str) else names
        predictions: list[Prediction] = []
        for answer in self.predict_each(several, level=level, maps=maps, names=named):
            if isinstance(answer, InputError):
                raise answer
            predictions.append(answer)
        return predictions[0] if single else predictions

    def predict_each(
        self,
        images: Iterable[Image],
        *,
        level: float = 0.9,
        maps: bool = False,
        names: Iterable[str] | None = None,
        originals: Iterable[tuple[int, int] | None] | None = None,
    ) -> Iterator[Prediction | InputError]:
        """Predict images one after the other; a bad one yields its error and stops nothing.

        Images are pulled and predicted a few at a time, so any number takes constant memory.
        ``originals`` are (H, W) of each image's original, where the file was stretched; they count
        where images are cropped to their lungs and letterboxed. The rest is as in ``predict``.

        Yields:
            A prediction, or the error of an image that cannot be read, in order.

        Raises:
            InputError: a level that was not fitted.
        """
        thresholds = thresholds_of(self.info["uncertainty"], level)
        named = chain(names or (), repeat(None))
        each = zip(images, named, chain(originals or (), repeat(None)), strict=False)
        while batch := list(islice(each, BATCH)):
            read = [prepare_input(*one) for one in batch]
            good = [image for image in read if isinstance(image, DecodedImage)]
            answers = iter(self._predict(good, level, thresholds, maps) if good else [])
            for image in read:
                yield image if isinstance(image, InputError) else next(answers)

    def _predict(
        self,
        images: Sequence[DecodedImage],
        level: float,
        thresholds: Sequence[Threshold],
        maps: bool,
    ) -> list[Prediction]:
        # What the graph sees of an image, as ``prepare`` makes it.
        inputs = [
            to_model_input(each.pixels, self._spec, original=each.original, finder=self._finder)
            for each in images
        ]
        squares = np.stack([each.pixels for each in inputs])[:, None]
        outputs = ["probs", "member_probs"]
        outputs += [f"map_{name}" for name in self.members] if maps else []
        outputs += [f"features_{name}" for name in self.members] if self._ood else []
        arrays = self._runtime.run(squares, outputs)
        probs = tempered(arrays["probs"], self._temperature)
        sets = prediction_sets(probs, thresholds)
        referred = refer(probs, self._referral)
        lungs = [each.lungs for each in inputs]
        if self._asks:
            pairs = zip(images, lungs, strict=True)
            lungs = [known or find_lungs(image.pixels, self._finder) for image, known in pairs]
        checks = self._checks(images, lungs, squares, arrays)

        def named(values: NDArray[Any]) -> dict[str, float]:
            return dict(zip(self.labels, map(float, values), strict=True))

        def heat_maps(row: int) -> HeatMaps:
            cells = {name: np.array(arrays[f"map_{name}"][row]) for name in self.members}
            shown, placement, found = images[row].pixels, inputs[row].placement, lungs[row]
            outlined = found.mask if found else None
            return HeatMaps(self.labels, cells, self.info["weights"], shown, placement, outlined)

        return [
            Prediction(
                label=self.labels[int(probs[row].argmax())],
                probs=named(probs[row]),
                member_probs=dict(
                    zip(self.members, map(named, arrays["member_probs"][row]), strict=True)
                ),
                level=level,
                prediction_set=tuple(compress(self.labels, sets[row])),
                refer=bool(referred[row]),
                ood_score=checks[row][0],
                refused=bool(checks[row][1]),
                refusals=tuple(refusal.sentence for refusal in checks[row][1]),
                image=image.pixels,
                maps=heat_maps(row) if maps else None,
                name=image.name,
                note=self.note,
                warnings=image.warnings,
                lungs=lungs[row],
            )
            for row, image in enumerate(images)
        ]

    def _checks(
        self,
        images: Sequence[DecodedImage],
        lungs: Sequence[Lungs | None],
        squares: NDArray[np.uint8],
        arrays: Arrays,
    ) -> list[tuple[float, list[Refusal]]]:
        """Test whether the model was trained for such images."""
        if self._ood is None:
            return [(float("nan"), [])] * len(images)
        features = {name: arrays[f"features_{name}"] for name in self.members}
        colours = [image.colour for image in images]
        seen = [found for found in lungs if found] if self._asks else None
        return self._ood.check(squares[:, 0], features, colours=colours, lungs=seen)


def refuse_variant(variant: str) -> None:
    """Raise InputError for a variant of version 0.1 that no bundle has any more."""
    if variant != "float32":
        raise InputError(
            f"variant is {variant!r}: variants of 8 bits and bfloat16 are gone; leave it out"
        )
