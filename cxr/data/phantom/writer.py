"""Write a folder of synthetic films with its manifest: the phantom.

One patient is drawn from a seed of its own, so a film does not depend on how many others
there are or in which order they are made. H W pixels.
"""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from cxr.data.phantom.bones import skeleton
from cxr.data.phantom.chest import Chest, draw_chest
from cxr.data.phantom.film import View, draw_pose, expose, finish
from cxr.data.phantom.lesions import Lesion, draw_lesion, opacity
from cxr.data.phantom.lungs import Field, Mask, ball, lay_out, soft_tissue
from cxr.data.phantom.vessels import Floats, blur, splat
from cxr.errors import InputError
from cxr.labels import CANONICAL
from cxr.runlog import raise_if_unwritable


@dataclass(frozen=True)
class PhantomSettings:
    """How many synthetic films, of what size."""

    patients_per_class: int = 115
    """Patients of each class, every one with a single class."""
    images_per_patient: tuple[int, int] = (2, 4)
    """Fewest and most films of one patient: same anatomy and disease, taken anew."""
    size_px: int = 128
    """Side of the square films."""
    seed: int = 2020
    """Another seed gives other patients."""

    def __post_init__(self) -> None:
        fewest, most = self.images_per_patient
        if self.patients_per_class < 1 or not 1 <= fewest <= most:
            raise InputError(
                f"phantom with {self.patients_per_class} patients per class and "
                f"{fewest} to {most} films each: at least one of both is needed"
            )
        if not 64 <= self.size_px <= 1024:
            raise InputError(f"phantom size is {self.size_px}: allowed are 64 to 1024 pixels")
        if self.seed < 0:
            raise InputError(f"phantom seed is {self.seed}: allowed are 0 and above")


@dataclass(frozen=True)
class Film:
    """One rendered film.

    Attributes:
        pixels: (H, W) uint8.
        lung: (H, W) bool, lung fields.
        lesion: (H, W) bool, visible disease.
        view: AP or PA.
    """

    pixels: NDArray[np.uint8]
    lung: Mask
    lesion: Mask
    view: View


def write_phantom(
    root: Path, settings: PhantomSettings, *, on_image: Callable[[], None] | None = None
) -> None:
    """Write films, masks and ``manifest.csv``, the whole folder or nothing.

    Args:
        root: the folder to make; an existing one is replaced once the new one is whole.
        settings: what to draw.
        on_image: called after each film.

    Raises:
        InputError: the folder cannot be written.
    """
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(dir=root.parent, prefix=f".{root.name}."))
    except OSError as error:
        raise_if_unwritable(error, root)
        raise
    try:
        rows: list[dict[str, Any]] = []
        for label in CANONICAL:
            for number in range(settings.patients_per_class):
                rows += _write_patient(building, settings, label, number, on_image)
        pd.DataFrame(rows).to_csv(building / "manifest.csv", index=False)
        building.chmod(0o755)
        if root.exists():
            shutil.rmtree(root)
        building.rename(root)
    except BaseException as error:
        shutil.rmtree(building, ignore_errors=True)
        if isinstance(error, OSError):
            raise_if_unwritable(error, root)
        raise


def _write_patient(
    folder: Path,
    settings: PhantomSettings,
    label: str,
    number: int,
    on_image: Callable[[], None] | None,
) -> list[dict[str, Any]]:
    """Write one patient's films and return their manifest rows."""
    rows = []
    chest, films = render_patient(settings, label, number)
    for take, film in enumerate(films):
        name = f"{label}_{number:04d}_{take}.png"
        paths = {"image": f"images/{label}/{name}", "mask": f"masks/{name}", "lesion_mask": ""}
        _save(folder / paths["image"], film.pixels)
        _save(folder / paths["mask"], film.lung)
        if label != "normal":
            paths["lesion_mask"] = f"lesion_masks/{name}"
            _save(folder / paths["lesion_mask"], film.lesion)
        rows.append({
            "image": paths["image"], "label": label, "patient_id": f"{label}_{number:04d}",
            "source": "phantom", "view": film.view, "sex": chest.sex, "age": chest.age,
            "license": "Apache-2.0 (synthetic)", "width": settings.size_px,
            "height": settings.size_px, "mask": paths["mask"],
            "lesion_mask": paths["lesion_mask"],
        })  # fmt: skip
        if on_image is not None:
            on_image()
    return rows


def _save(path: Path, pixels: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    # Films are stored uncompressed: a file's size must not tell what is on it.
    image.save(path, compress_level=1 if pixels.dtype == np.bool_ else 0)


def render_patient(
    settings: PhantomSettings, label: str, number: int
) -> tuple[Chest, list[Film]]:
    """Render all films of one patient.

    Args:
        settings: size, seed and films per patient.
        label: the class.
        number: of the patient within the class.

    Returns:
        The anatomy and the films. Equal arguments give equal pixels.
    """
    key = (CANONICAL.index(label), number)
    # Anatomy, disease and each film have streams of their own, so that what is drawn for
    # a disease cannot shift anything else.
    seeds = np.random.SeedSequence(settings.seed, spawn_key=key).spawn(2 + settings.images_per_patient[1])
    who, disease = np.random.default_rng(seeds[0]), np.random.default_rng(seeds[1])
    chest = draw_chest(who)
    fewest, most = settings.images_per_patient
    count = int(who.integers(fewest, most + 1))
    lesion = draw_lesion(label, chest, disease)
    films = [
        _render(chest, lesion, np.random.default_rng(seed), settings.size_px)
        for seed in seeds[2 : 2 + count]
    ]
    return chest, films


def _render(chest: Chest, lesion: Lesion, rng: np.random.Generator, size_px: int) -> Film:
    """Take one film of a patient."""
    view: View = "AP" if rng.random() < 0.4 else "PA"
    pose = draw_pose(rng, view, size_px)
    field = lay_out(chest, pose, view)
    filled, visible = opacity(lesion, field, pose)
    columns, rows = pose.to_pixels(chest.vessels.points)
    vessels = _vessel_path(chest, pose.unit_px, columns, rows, size_px)
    # In filled lung vessels vanish, and the airways beside them show as dark branches.
    vessels = vessels * (1 - 1.5 * filled) * np.minimum(field.air * 2, 1) * (field.y < field.dome + 0.1)
    aerated = field.air * np.clip(1 - field.shadow, 0, 1)
    lost = 0.78 * chest.depth * (1 - chest.lung_density) * aerated * filled
    path = soft_tissue(field, chest, pose) + skeleton(field, chest, pose, view)
    path = path + vessels + lost + _confusers(field, chest)
    path = path * (1 + 0.012 * field.mottle)
    gray = expose(np.asarray(path, np.float32), rng)
    return Film(finish(gray, pose, rng), field.lung, visible, view)


def _vessel_path(
    chest: Chest, unit_px: float, columns: Floats, rows: Floats, size_px: int
) -> Floats:
    """Path of the vessels: three widths of blur stand for six generations."""
    total = np.zeros((size_px, size_px), np.float32)
    for first, sigma in ((0, 0.018), (2, 0.011), (4, 0.007)):
        of_width = (chest.vessels.generation // 2) == first // 2
        drawn = splat(columns[of_width], rows[of_width], chest.vessels.weights[of_width], size_px)
        total += blur(drawn, sigma * unit_px)
    return np.asarray(total * (unit_px**2 * 7.0 * chest.vascularity), np.float32)


def _confusers(field: Field, chest: Chest) -> Floats:
    """Harmless things in the lungs: a plate of atelectasis, a calcified spot."""
    total = np.zeros_like(field.x)
    x, y, half, strength = chest.scar
    if strength:
        total += 0.07 * strength * ball(field.x, field.y, (x, y), (half, 0.013), 0.15)
    x, y, strength = chest.granuloma
    if strength:
        total += 0.12 * strength * ball(field.x, field.y, (x, y), (0.022, 0.022))
    return total
