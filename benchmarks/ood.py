r"""What a bundle refuses: shares and AUROC per kind of input that is no upright chest image.

    python benchmarks/ood.py --bundle outputs/cxr4/patient/bundle \
        --prepared outputs/cxr4/prepared/NAME --photographs FOLDER [--images 100] [--seed 0]

Photographs are read from a folder; noise, blanks, text and gradients are made; turned, mirrored
and inverted images are the prepared set's test images. "refused" counts images that any test
refuses, and the columns behind it what each test alone does. AUROC is of the score (the
distance), against the test images as they are; for turned and inverted images also of the test
that is meant for them. Crops of the photographs are counted by themselves: they are not ten times
as many photographs.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from cxr.console import images_bar, print_table
from cxr.data.prepared import open_prepared
from cxr.imaging.preprocess import PreprocessSpec, to_square
from cxr.imaging.raster import colourfulness
from cxr.reliability.ood import OodReference, blocks, distance_tests

Images = NDArray[np.uint8]
SENTENCE = (
    "the image shows clear lungs and no effusion patient was seen on monday invoice total amount "
    "due date name address of report ward results normal heart size left right page table figure"
)
WAYS: dict[str, Callable[[Images], Images]] = {
    "image turned 90": lambda images: np.rot90(images, 1, axes=(1, 2)),
    "image turned 180": lambda images: np.rot90(images, 2, axes=(1, 2)),
    "image turned 270": lambda images: np.rot90(images, 3, axes=(1, 2)),
    "image upside down": lambda images: images[:, ::-1],
    "image inverted": lambda images: 255 - images,
    "image mirrored (not tested for)": lambda images: images[:, :, ::-1],
}
MEANT = {"turned": "turned", "upside": "turned", "inverted": "inverted"}


def stretch(values: NDArray[Any]) -> Images:
    """Bring (H, W) values to 0..255."""
    low, high = values.min(), values.max()
    return ((values - low) / max(high - low, 1e-9) * 255).astype(np.uint8)


def noise(rng: np.random.Generator, count: int, side: int) -> Iterator[tuple[str, Images]]:
    """Yield kinds of noise."""
    shape = (count, side, side)
    spread, middle = rng.uniform(5, 60, (count, 1, 1)), rng.uniform(60, 190, (count, 1, 1))
    yield "noise, uniform", rng.integers(0, 256, shape).astype(np.uint8)
    yield "noise, normal", np.clip(rng.normal(middle, spread, shape), 0, 255).astype(np.uint8)
    share = rng.uniform(0.02, 0.5, (count, 1, 1))
    yield "noise, binary", ((rng.random(shape) < share) * 255).astype(np.uint8)
    grain = [Image.fromarray(image) for image in rng.integers(0, 256, shape).astype(np.uint8)]
    soft = [image.filter(ImageFilter.GaussianBlur(rng.uniform(1, side / 18))) for image in grain]
    yield "noise, smooth", np.stack([stretch(np.asarray(image, float)) for image in soft])
    waves = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None])
    waves[0, 0] = 1
    clouds = [
        np.fft.ifft2(np.fft.fft2(rng.standard_normal((side, side))) / waves**power).real
        for power in rng.uniform(0.5, 2, count)
    ]
    yield "noise, 1/f^0.5 to 1/f^2", np.stack([stretch(cloud) for cloud in clouds])
    tiles = [
        rng.integers(0, 256, (cells, cells)).astype(np.uint8)
        for cells in rng.integers(4, 40, count)
    ]
    yield (
        "noise, blocks",
        np.stack(
            [
                np.asarray(Image.fromarray(tile).resize((side, side), Image.Resampling.NEAREST))
                for tile in tiles
            ]
        ),
    )


def blanks(rng: np.random.Generator, count: int, side: int) -> Iterator[tuple[str, Images]]:
    """Yield kinds of images in which nothing is to be seen."""
    grays = np.linspace(0, 255, count).astype(np.uint8)
    yield "blank, flat", np.repeat(grays, side * side).reshape(count, side, side)
    grain = rng.normal(0, 1, (count, side, side)) * rng.uniform(0.5, 4, (count, 1, 1))
    yield "blank, grain", np.clip(grays[:, None, None] + grain, 0, 255).astype(np.uint8)
    down, right = np.mgrid[0:side, 0:side] / side
    ramps = []
    for index, angle in enumerate(rng.uniform(0, 2 * np.pi, count)):
        straight = np.cos(angle) * right + np.sin(angle) * down
        ramp = stretch(straight if index % 2 else np.hypot(right - 0.5, down - 0.5)) / 255
        low, high = rng.uniform(0, 255, 2)
        ramps.append((low + (high - low) * ramp).astype(np.uint8))
    yield "blank, gradient", np.stack(ramps)


def pages(
    rng: np.random.Generator, count: int, spec: PreprocessSpec
) -> Iterator[tuple[str, Images]]:
    """Yield pages of text in the fonts that come with matplotlib."""
    fonts = sorted((Path(matplotlib.get_data_path()) / "fonts" / "ttf").glob("DejaVu*.ttf"))
    for kind, paper, ink in (("text, dark on light", 255, 0), ("text, light on dark", 0, 255)):
        found = []
        for _ in range(count):
            height = int(rng.integers(500, 1200))
            size = int(height * rng.uniform(0.6, 1.4)), height
            page = Image.new("L", size, abs(paper - int(rng.integers(0, 40))))
            draw = ImageDraw.Draw(page)
            font = ImageFont.truetype(fonts[rng.integers(len(fonts))], int(rng.integers(14, 60)))
            shade, top = abs(ink - int(rng.integers(0, 60))), height // 14
            while top < height - height // 7:
                line = ""
                while draw.textlength(line, font) < size[0] * rng.uniform(0.5, 0.85):
                    line += f"{rng.choice(SENTENCE.split())} "
                draw.text((size[0] // 14, top), line, fill=shade, font=font)
                top += int(font.size * rng.uniform(1.1, 2.5))
            found.append(to_square(np.asarray(page), spec))
        yield kind, np.stack(found)


def photographs(
    rng: np.random.Generator, folder: Path, spec: PreprocessSpec, crops: int = 10
) -> Iterator[tuple[str, Images]]:
    """Yield photographs made gray, whole and as crops and flips."""
    whole, parts = [], []
    for path in sorted(folder.iterdir()):
        with Image.open(path) as image:
            gray = np.asarray(image.convert("L"))
        whole.append(to_square(gray, spec))
        for share in rng.uniform(0.35, 0.9, crops):
            height, width = int(gray.shape[0] * share), int(gray.shape[1] * share)
            top = rng.integers(0, gray.shape[0] - height + 1)
            left = rng.integers(0, gray.shape[1] - width + 1)
            part = gray[top : top + height, left : left + width]
            flipped = part[:, ::-1] if rng.random() < 0.5 else part
            parts.append(to_square(np.ascontiguousarray(flipped), spec))
    yield "photograph, gray", np.stack(whole)
    yield "crop of a photograph, gray", np.stack(parts)


def auroc(inside: NDArray[Any], outside: NDArray[Any]) -> float:
    """Return the chance that an outside value lies above an inside one."""
    ordered = np.sort(inside)
    below = np.searchsorted(ordered, outside, "left") + np.searchsorted(ordered, outside, "right")
    return float(below.mean() / 2 / len(ordered))


def failed(reference: OodReference, values: Mapping[str, Any]) -> dict[str, NDArray[np.bool_]]:
    """Return what each test refuses, (N,) each."""
    limits = reference.limits
    return {
        "distance": reference.scores(values) > 1,
        "turned": values["turned"] > limits["turned"],
        "inverted": values["inverted"] > limits["inverted"],
        "blank": values["blank"] < limits["blank"],
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--prepared", type=Path, required=True)
    parser.add_argument("--photographs", type=Path, required=True)
    parser.add_argument("--images", type=int, default=100, help="test images of each way shown")
    parser.add_argument("--made", type=int, default=25, help="images of each kind that is made")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0)
    given = parser.parse_args()
    rng = np.random.default_rng(given.seed)
    prepared = open_prepared(given.prepared)
    spec = PreprocessSpec(**prepared.info["preprocess"])
    test = np.flatnonzero(prepared.table["split"] == "test")
    shown = prepared.pixels[np.sort(rng.permutation(test)[: given.images])]
    kinds = {"test images": np.asarray(prepared.pixels[test])}
    kinds |= {name: np.ascontiguousarray(way(shown)) for name, way in WAYS.items()}
    kinds |= dict(photographs(rng, given.photographs, spec))
    kinds |= dict(noise(rng, given.made, spec.size_px)) | dict(pages(rng, given.made, spec))
    kinds |= dict(blanks(rng, given.made, spec.size_px))
    reference, features_of = open_bundle(given.bundle, given.threads)
    values = {}
    with images_bar("features", sum(map(len, kinds.values()))) as done:
        for name, images in kinds.items():
            values[name] = reference.values(blocks(images), features_of(images, done))
    print_table(f"Refused, limits {reference.info['note']}", rows_of(reference, values))
    flat = {path.name: colour_of(path) for path in sorted(given.photographs.iterdir())}
    over = sum(value > reference.limits["colour"] for value in flat.values())
    print(f"in colour: {over} of {len(flat)} photographs, least {min(flat.values()):.1f}")
    print(f"limits: {dict(reference.limits)}")


def open_bundle(folder: Path, threads: int) -> tuple[OodReference, Any]:
    """Return a bundle's reference, and what makes features of images with its graph."""
    import onnxruntime

    reference = OodReference.load(folder / "ood.npz")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    graph = onnxruntime.InferenceSession(str(folder / "model.onnx"), options)
    members = [name.removeprefix("distance ") for name in distance_tests(reference.limits)]

    def features_of(images: Images, done: Callable[[], None]) -> dict[str, NDArray[Any]]:
        found = []
        for start in range(0, len(images), 8):
            batch = np.ascontiguousarray(images[start : start + 8, None])
            found.append(graph.run([f"features_{name}" for name in members], {"pixels": batch}))
            for _ in batch:
                done()
        return dict(zip(members, map(np.concatenate, zip(*found, strict=True)), strict=True))

    return reference, features_of


def rows_of(reference: OodReference, values: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the table's rows, one a kind."""
    inside = values["test images"]
    rows = []
    for name, found in values.items():
        tests = failed(reference, found)
        score = auroc(reference.scores(inside), reference.scores(found))
        meant = next((test for word, test in MEANT.items() if word in name), None)
        refused = np.any(list(tests.values()), axis=0)
        row = {"kind": name, "n": str(len(refused)), "refused": f"{refused.mean():.1%}"}
        row |= {test: f"{out.mean():.1%}" for test, out in tests.items()}
        row["AUROC score"] = "" if found is inside else f"{score:.4f}"
        row["AUROC of its test"] = f"{auroc(inside[meant], found[meant]):.4f}" if meant else ""
        rows.append(row)
    return rows


def colour_of(path: Path) -> float:
    """Return the colourfulness of an image file."""
    with Image.open(path) as image:
        return colourfulness(np.asarray(image.convert("RGB")))


if __name__ == "__main__":
    main()
