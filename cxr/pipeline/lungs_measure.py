"""How good a lung finder is: overlap, distance of outlines, lungs missed, and what is no chest.

N images, S side of the prepared square, G side of the finder's grid.
"""

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from scipy.ndimage import binary_erosion, distance_transform_edt

from cxr.console import images_bar, print_table
from cxr.errors import InputError
from cxr.evaluation.intervals import cluster_interval, share_interval
from cxr.evaluation.tables import show_interval
from cxr.files import atomic_write
from cxr.imaging.raster import ImageError
from cxr.imaging.read import is_image_file, read_gray
from cxr.lungs.find import FINDER_FILE, Lungs, find_lungs
from cxr.training.lung_negatives import draw_negatives

Masks = NDArray[np.bool_]
EXAMPLES = 10
"""Best and worst images that are drawn with both outlines."""
SURE = 0.5
"""Score from which a pair of lungs counts as seen."""


def measure_chests(
    pixels: NDArray[np.uint8],
    rows: NDArray[np.int64],
    masks: Masks,
    sources: ArrayLike,
    groups: ArrayLike,
    *,
    folder: Path,
) -> dict[str, Any]:
    """Compare found lungs with outlined ones, and draw the ten best and the ten worst.

    ``pixels`` are prepared images, of which the rows (N,) have masks (N, S, S), sources and
    patients (N,). ``folder`` holds the finder's file and receives ``overlays/``.

    Returns:
        Per source, and as ``all``, the figures with intervals by patient.
    """
    found, values = [], np.empty((len(rows), 2))
    with images_bar("measure", len(rows)) as done:
        for place, row in enumerate(rows):
            lungs = find_lungs(np.asarray(pixels[row]), folder / FINDER_FILE.name)
            there = enlarge(lungs.mask, masks.shape[1])
            values[place] = dice(there, masks[place]), hausdorff95(there, masks[place])
            found.append(lungs)
            done()
    fewer = np.array([lungs.count < 2 for lungs in found])
    unsure = np.array([lungs.score < SURE for lungs in found])
    kinds, patients = np.asarray(sources).astype(str), np.asarray(groups)
    measured = {}
    for kind in (*sorted(set(kinds)), "all"):
        chosen = (kinds == kind) | (kind == "all")
        mine = patients[chosen]
        diagonal = masks.shape[1] * np.sqrt(2)
        distances = values[chosen, 1]
        measured[kind] = {
            "images": int(chosen.sum()),
            "patients": len(np.unique(mine)),
            "dice": _mean(values[chosen, 0], mine),
            "least_dice": float(values[chosen, 0].min()),
            "hausdorff95_px": _mean(distances, mine),
            "hausdorff95_share": _mean(distances / diagonal, mine),
            "fewer_than_two": share_interval(fewer[chosen], mine),
            "score_below_half": share_interval(unsure[chosen], mine),
        }
    worst = np.argsort(values[:, 0], kind="stable")
    for word, places in (("worst", worst[:EXAMPLES]), ("best", worst[::-1][:EXAMPLES])):
        for number, place in enumerate(places):
            path = folder / "overlays" / f"{word}{number}-{values[place, 0]:.3f}.png"
            draw_outlines(pixels[rows[place]], found[place], masks[place], path)
    return measured


def measure_negatives(
    folder: str | None, finder: Path, chests: NDArray[np.uint8]
) -> dict[str, Any]:
    """Find lungs where there are none: on drawn images, and on those of a folder.

    Half of the drawn images are made of ``chests`` (N, 2, G, G), held-out images and masks.

    Raises:
        InputError: no such folder, or no image in it.
    """
    images = draw_negatives(400, chests[:, 0], chests[:, 1], rng=np.random.default_rng(3))[0]
    sets = {"drawn": [(str(place), image) for place, image in enumerate(images)]}
    if folder:
        sets["folder"] = []
        for path in filter(is_image_file, sorted(Path(folder).expanduser().rglob("*"))):
            with contextlib.suppress(ImageError):
                sets["folder"].append((path.name, read_gray(path)))
        if not sets["folder"]:
            raise InputError(f"negatives is {folder!r}: there is no image that can be read")
    measured = {}
    for kind, named in sets.items():
        found = {name: find_lungs(image, finder) for name, image in named}.values()
        two = np.array([lungs.count == 2 for lungs in found])
        scores = np.array([lungs.score for lungs in found])
        measured[kind] = {
            "images": len(named),
            "two_lungs": int(two.sum()) / len(named),
            "score_above_half": float(np.mean(scores >= SURE)),
            "both": float(np.mean((scores >= SURE) & two)),
            "highest_score": float(scores.max()),
        }
    return measured


def _mean(values: NDArray[np.float64], groups: NDArray[Any]) -> dict[str, float]:
    mean = float(values.mean())
    return cluster_interval(mean, (values - mean) / len(values), groups)


def enlarge(mask: Masks, side: int) -> Masks:
    """Stretch a (G, G) mask over a (side, side) square, bilinearly, cut at one half."""
    image = Image.fromarray(np.asarray(mask * 255, np.uint8))
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR)) > 127


def dice(found: Masks, truth: Masks) -> float:
    """Return 2 |A and B| / (|A| + |B|) of two masks; 1 where both are empty.

    Source: Dice 1945, Ecology 26:297-302.
    """
    total = int(found.sum() + truth.sum())
    return 2 * float((found & truth).sum()) / total if total else 1.0


def hausdorff95(found: Masks, truth: Masks) -> float:
    """Return the 95th percentile of the distances between two outlines, in pixels.

    Distances from each outline to the nearest point of the other, both ways together; the
    diagonal where one mask is empty, 0 where both are.

    Source: Huttenlocher et al. 1993, IEEE Trans. Pattern Anal. 15:850-863; the percentile as in
    Menze et al. 2015, IEEE Trans. Med. Imaging 34:1993-2024 (BraTS).
    """
    if not found.any() or not truth.any():
        return 0.0 if found.any() == truth.any() else float(np.hypot(*truth.shape))
    edges = [mask & ~binary_erosion(mask, border_value=0) for mask in (found, truth)]
    away = [distance_transform_edt(~edge) for edge in edges]
    return float(np.percentile(np.concatenate([away[1][edges[0]], away[0][edges[1]]]), 95))


def draw_outlines(image: NDArray[np.uint8], lungs: Lungs, truth: Masks, path: Path) -> None:
    """Write an image with the found outline in orange, the true one in green, twice its size."""
    side = truth.shape[0] * 2
    colour = np.stack([np.asarray(Image.fromarray(image).resize((side, side)))] * 3, axis=-1)
    for mask, shade in ((truth, (0, 200, 90)), (lungs.mask, (255, 140, 0))):
        large = enlarge(mask, side)
        colour[large & ~binary_erosion(large)] = shade
    with atomic_write(path) as file:
        Image.fromarray(colour).save(file, "PNG")


def show(facts: dict[str, Any]) -> None:
    """Print the figures as tables."""
    print_table("lungs found on held-out patients", figures(facts))
    print_table("where there are no two lungs", negative_figures(facts))


def figures(facts: dict[str, Any]) -> list[dict[str, str]]:
    """Return a row of cells per source."""
    return [
        {
            "source": kind,
            "images": str(part["images"]),
            "patients": str(part["patients"]),
            "Dice": show_interval(part["dice"]),
            "least": f"{part['least_dice']:.3f}",
            "Hausdorff 95, px": show_interval(part["hausdorff95_px"]),
            "of diagonal": show_interval(part["hausdorff95_share"]),
            "fewer than two": show_interval(part["fewer_than_two"]),
            "score < 0.5": show_interval(part["score_below_half"]),
        }
        for kind, part in facts["measured"].items()
    ]


def negative_figures(facts: dict[str, Any]) -> list[dict[str, str]]:
    """Return a row of cells per set of images without two lungs."""
    return [
        {
            "images of": kind,
            "images": str(part["images"]),
            "two lungs": f"{part['two_lungs']:.1%}",
            "score > 0.5": f"{part['score_above_half']:.1%}",
            "both": f"{part['both']:.1%}",
            "highest score": f"{part['highest_score']:.3f}",
        }
        for kind, part in facts["negatives"].items()
    ]


def write_card(path: Path, facts: dict[str, Any]) -> None:
    """Write what a user must know of the network, in Markdown."""
    tables = []
    for rows in (figures(facts), negative_figures(facts)):
        lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
        tables.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    counts = facts["images"]
    text = f"""# The lung finder

Research use only, not a medical device. `cxr.lungs.find_lungs(image)` runs `lungs.onnx`.

- Network: U-Net of segmentation_models_pytorch on the first five stages of MobileNetV2, 128 x 128
  pixels; weights stored as float16. Encoder from {facts["pretrained"]["source"]} (ImageNet).
- Data: {facts["data"]["name"]}, {counts["train"]} images to train on, {counts["val"]} to calibrate
  the score on, {counts["test"]} to measure; no patient in two of them. Lung masks of cxr4: V7 Labs,
  covid-19-xray-dataset, CC BY 4.0; in them the area behind the heart counts as lung. Images:
  Kermany et al. 2018 (CC BY 4.0), Hannover Medical School (CC BY 3.0), Cohen et al. (CC BY-NC-SA,
  CC BY 4.0 and authorized for everyone, by image).
- SHA-256: `{facts["sha256"]}`; a changed file is refused.

{tables[0]}

Intervals: 95 %, by patient. Hausdorff 95 in pixels of the prepared square.

{tables[1]}

The score is calibrated on held-out chests and as many drawn images without two lungs: noise,
shapes, drawn limbs, slices and breasts, chests without lungs, halves of chests. Real limbs and
lateral chests were in neither, so the score says little of them.
"""
    with atomic_write(path) as file:
        file.write(text.encode())
