"""Write a folder of synthetic images with its manifest: the phantom. H W pixels.

Shortcuts can be planted on purpose, to see whether the audit finds them. Marker and exposure are
laid on the finished image and draw nothing, so that what lies below them is the image of the same
settings without one. Framing moves the patient before the image is taken, so that masks move along;
it draws nothing either.
"""

import contextlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from cxr.data.phantom.phantom_image import Pose
from cxr.data.phantom.render import render_patient
from cxr.errors import InputError
from cxr.files import digest_of, replacing_folder
from cxr.labels import CANONICAL

SHORTCUTS = ("none", "marker", "exposure", "framing")

MARKED = "covid"
"""The class that bears the marker."""
GAMMAS = {"normal": 1.0, "covid": 0.65, "bacterial": 1.45, "viral": 0.82}
"""Exponent of the gray of each class, as if each had come from a console of its own."""
FRAMES = {
    "normal": (1.0, 0.0, 1.0),
    "covid": (0.82, -0.08, 1.0),
    "bacterial": (1.12, 0.05, 0.95),
    "viral": (0.92, 0.03, 1.08),
}
"""Zoom of each class's thorax, its shift down in half image widths, and the factor on its width
over height, as if each had come from a room of its own. Images of one class vary by 6 % in
zoom, 0.05 in shift and 3 % in aspect anyway (standard deviations of ``draw_pose``)."""


def plant(
    pixels: NDArray[np.uint8], label: str, shortcut: str, *, strength: float = 1.0
) -> NDArray[np.uint8]:
    """Lay a shortcut on an image (H, W): none, or what ``MARKED`` and ``GAMMAS`` say of its class.

    ``strength``, 0 to 1, is the marker's contrast, from the image to white, and the power to which
    the exponents are raised.
    """
    assert label in CANONICAL, label
    if shortcut == "exposure":
        curve = 255 * (np.arange(256) / 255) ** (GAMMAS[label] ** strength)
        return np.asarray(np.round(curve).astype(np.uint8)[pixels])
    if shortcut == "marker" and label == MARKED:
        height, width = pixels.shape
        marked = pixels.copy()
        bar = marked[height // 32 : height // 12, width // 32 : width // 6]
        bar[:] = np.round(bar + strength * (255.0 - bar))
        return marked
    return pixels


def frame(pose: Pose, label: str, shortcut: str, *, strength: float = 1.0) -> Pose:
    """Place the patient as images of the class are framed, if ``shortcut`` is ``framing``.

    ``strength``, 0 to 1, is the power of zoom and aspect of ``FRAMES``, the factor on the shift.
    """
    assert label in CANONICAL, label
    if shortcut != "framing":
        return pose
    zoom, down, aspect = FRAMES[label]
    return replace(
        pose,
        scale=pose.scale * zoom**strength,
        stretch=pose.stretch * aspect**strength,
        shift=(pose.shift[0], pose.shift[1] + strength * down),
    )


PHANTOM_VERSION = 2
"""Raised whenever equal settings give other pixels, so that kept images are made anew."""


@dataclass
class PhantomSettings:
    """Synthetic radiographs, made where no data is at hand."""

    patients_per_class: int = 100
    """Synthetic patients of each class, every one with a single class."""
    images_per_patient: list[int] = field(default_factory=lambda: [2, 4])
    """Fewest and most images of one patient: same anatomy and disease, taken anew."""
    size_px: int = 128
    """Side of the square images."""
    seed: int = 0
    """Of everything drawn; another one gives other patients."""
    shortcut: str = "none"
    """none, or what is planted for the audit to find: marker (in a corner, one class), exposure or
    framing (of its own for each class)."""
    shortcut_strength: float = 1.0
    """Of what is planted: 0 is nothing, 1 plain to see."""

    def __post_init__(self) -> None:
        if len(self.images_per_patient) != 2:
            raise InputError(
                f"data.phantom.images_per_patient is {list(self.images_per_patient)}: fewest and "
                "most are needed, [1, 4]"
            )
        fewest, most = self.images_per_patient
        if self.patients_per_class < 1 or not 1 <= fewest <= most:
            raise InputError(
                f"phantom with {self.patients_per_class} patients per class and "
                f"{fewest} to {most} images each: at least one of both is needed"
            )
        if not 64 <= self.size_px <= 1024:
            raise InputError(f"phantom size is {self.size_px}: allowed are 64 to 1024 pixels")
        if self.seed < 0:
            raise InputError(f"phantom seed is {self.seed}: allowed are 0 and above")
        if self.shortcut not in SHORTCUTS:
            raise InputError(
                f"phantom shortcut is {self.shortcut!r}: allowed are {', '.join(SHORTCUTS)}"
            )
        if not 0 <= self.shortcut_strength <= 1:
            raise InputError(
                f"phantom shortcut_strength is {self.shortcut_strength}: allowed are 0 to 1"
            )

    @property
    def digest(self) -> str:
        """What tells one phantom from another: the settings and the version of what draws."""
        stated = asdict(self)
        # As before there was the choice, so that images made then are found.
        if self.shortcut == "none" or self.shortcut_strength == 1:
            del stated["shortcut_strength"]
        if self.shortcut == "none":
            del stated["shortcut"]
        return digest_of({**stated, "version": PHANTOM_VERSION})


def write_phantom(
    root: Path, settings: PhantomSettings, *, on_image: Callable[[], None] | None = None
) -> None:
    """Write images, masks and ``manifest.csv``, the whole folder or nothing.

    An earlier phantom at ``root`` is replaced once the new one is whole.

    Raises:
        InputError: the folder cannot be written, or holds anything but a phantom.
    """
    _check_replaceable(root)
    with replacing_folder(root) as folder:
        rows: list[dict[str, Any]] = []
        for label in CANONICAL:
            for number in range(settings.patients_per_class):
                rows += _write_patient(folder, settings, label, number, on_image)
        pd.DataFrame(rows).to_csv(folder / "manifest.csv", index=False)


def _check_replaceable(root: Path) -> None:
    """Refuse to replace a file, or a folder that holds anything but a phantom."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return
    sources: set[str] = set()
    # Whatever is no table is no phantom either.
    with contextlib.suppress(OSError, ValueError):
        sources = set(pd.read_csv(root / "manifest.csv", dtype=str).get("source", []))
    if sources != {"phantom"}:
        raise InputError(
            f"{root} exists and holds something other than a phantom: "
            "name a new folder, or move that one away"
        )


def _write_patient(
    folder: Path,
    settings: PhantomSettings,
    label: str,
    number: int,
    on_image: Callable[[], None] | None,
) -> list[dict[str, Any]]:
    rows, strength = [], settings.shortcut_strength
    chest, radiographs = render_patient(
        label,
        number,
        seed=settings.seed,
        size_px=settings.size_px,
        images=settings.images_per_patient,
        place=partial(frame, label=label, shortcut=settings.shortcut, strength=strength),
    )
    for take, radiograph in enumerate(radiographs):
        name = f"{label}_{number:04d}_{take}.png"
        paths = {"image": f"images/{label}/{name}", "mask": f"masks/{name}", "lesion_mask": ""}
        planted = plant(radiograph.pixels, label, settings.shortcut, strength=strength)
        _save(folder / paths["image"], planted)
        _save(folder / paths["mask"], radiograph.lung)
        if label != "normal":
            paths["lesion_mask"] = f"lesion_masks/{name}"
            _save(folder / paths["lesion_mask"], radiograph.lesion)
        rows.append(
            {
                "image": paths["image"],
                "label": label,
                "patient_id": f"{label}_{number:04d}",
                "source": "phantom",
                "view": radiograph.view,
                "sex": chest.sex,
                "age": chest.age,
                "license": "Apache-2.0 (synthetic)",
                "width": settings.size_px,
                "height": settings.size_px,
                "mask": paths["mask"],
                "lesion_mask": paths["lesion_mask"],
            }
        )
        if on_image is not None:
            on_image()
    return rows


def _save(path: Path, pixels: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    # Images are stored uncompressed: a file's size must not tell what is on it.
    image.save(path, compress_level=1 if pixels.dtype == np.bool_ else 0)
