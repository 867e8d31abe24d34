"""What a prediction is, and what may be given to predict.

H W pixels of an image as read.
"""

import copy
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxr.bundle.maps import HeatMaps
from cxr.errors import InputError
from cxr.imaging.raster import MAX_PIXELS, MIN_SIDE_PX, eight_bits
from cxr.imaging.read import DecodedImage, read_image
from cxr.lungs.find import Lungs

Image = Path | str | bytes | NDArray[Any] | DecodedImage
"""A path, a file's bytes, gray pixels (H, W) uint8 or uint16, or what ``read_image`` returned."""
BYTES = bytes | bytearray | memoryview
PLAIN = (
    *("name", "label", "probs", "member_probs", "level", "prediction_set", "refer", "ood_score"),
    *("refused", "refusals", "lungs", "warnings", "note"),
)
"""What of a prediction goes to JSON, in this order."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """What the model says about one image.

    Attributes:
        label: the most probable class. Not to be shown where ``refused``.
        probs: the ensemble's calibrated probability of each class.
        member_probs: each member's, calibrated.
        level: coverage in each class that the prediction set was fitted for.
        prediction_set: classes that the set holds, in the labels' order.
        refer: whether a human should decide: the largest probability is below the threshold.
        ood_score: how far the image lies from the training images; NaN where the bundle has no
            reference.
        refused: whether a test found that the model was not trained for such an image.
        refusals: a sentence for each test that failed.
        image: (H, W) uint8, as read.
        maps: heat maps, where they were asked for.
        name: what the image is called.
        note: what the bundle says about itself; to be shown with the prediction.
        warnings: what was odd about the file.
        lungs: what was found of them; None where the bundle does not look for them.
    """

    label: str
    probs: dict[str, float]
    member_probs: dict[str, dict[str, float]]
    level: float
    prediction_set: tuple[str, ...]
    refer: bool
    ood_score: float
    refused: bool
    refusals: tuple[str, ...]
    image: NDArray[np.uint8]
    maps: HeatMaps | None
    name: str
    note: str
    warnings: tuple[str, ...] = ()
    lungs: Lungs | None = None

    @property
    def film(self) -> NDArray[np.uint8]:
        """Return ``image`` under the name that version 0.1 gave it."""
        warnings.warn("Prediction.film is now Prediction.image", DeprecationWarning, stacklevel=2)
        return self.image

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, without pixels; an undefined score is None."""
        values = {key: copy.deepcopy(getattr(self, key)) for key in PLAIN}
        lungs = self.lungs
        return {key: list(v) if isinstance(v, tuple) else v for key, v in values.items()} | {
            "ood_score": self.ood_score if np.isfinite(self.ood_score) else None,
            "lungs": lungs and {"count": lungs.count, "score": lungs.score, "box": lungs.box},
        }


def is_single(images: Any) -> bool:
    """Tell one image from a sequence of them."""
    return isinstance(images, str | Path | np.ndarray | DecodedImage | BYTES)


def prepare_input(
    image: Any, name: str | None, original: tuple[int, int] | None = None
) -> DecodedImage | InputError:
    """Read a path, bytes or gray pixels, if they are not yet, or return what is wrong with them.

    ``name`` is what results and errors call the image, a path by default; ``original`` are (H, W)
    of its original, where that is known.
    """
    try:
        if isinstance(image, str | Path):
            name = name or str(image)
            read = read_image(Path(image), name=name)
        elif isinstance(image, BYTES):
            read = read_image(bytes(image), name=name)
        elif isinstance(image, DecodedImage):
            read = image
        else:
            read = _gray_array(image, name or "the array")
        return replace(read, name=name or "", original=original)
    except InputError as error:
        return error


def _gray_array(image: Any, shown: str) -> DecodedImage:
    """Check pixels that the caller decoded; 16 bits become 8 as in files."""
    if not isinstance(image, np.ndarray) or image.dtype not in (np.uint8, np.uint16):
        what = f"{image.dtype} values" if isinstance(image, np.ndarray) else type(image).__name__
        raise InputError(
            f"{shown} holds {what}: allowed are a path, bytes, and gray pixels (H, W) uint8 or "
            "uint16"
        )
    if image.ndim != 2 or min(image.shape) < MIN_SIDE_PX or image.size > MAX_PIXELS:
        raise InputError(
            f"{shown} has shape {image.shape}: allowed are gray pixels (H, W), at least "
            f"{MIN_SIDE_PX} on a side and at most {MAX_PIXELS // 1_000_000} megapixels; give "
            "several images as a list"
        )
    if image.dtype == np.uint16:
        return DecodedImage(*eight_bits(image, shown))
    return DecodedImage(np.ascontiguousarray(image))
