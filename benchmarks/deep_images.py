"""Tell how many images keep their class when they are saved in more bits than 8.

Validation images are stored in 9 to 16 bits of 16, shifted up, as they are, with one and with
20 hot pixels, read as files are, and given to a trained member.

Run: python benchmarks/deep_images.py RUN_FOLDER MEMBER [IMAGES]
"""

import io
import json
import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from cxr.data.prepared import open_prepared
from cxr.errors import InputError
from cxr.imaging.preprocess import PreprocessSpec, to_square
from cxr.imaging.read import read_gray
from cxr.models.build import Member, load_member
from cxr.training.inference import predict_logits

HOT = (0, 1, 20)


def main() -> None:
    """Print a row a depth: share that keeps its class, and mean gray difference."""
    torch.set_num_threads(1)
    run = Path(sys.argv[1])
    member = load_member(run / "members" / sys.argv[2])
    prepared = open_prepared(run / json.loads((run / "run.json").read_text())["prepared"])
    spec = PreprocessSpec(**prepared.info["preprocess"])
    names = prepared.table.query("split == 'val'")["image"]
    names = names.sample(int(sys.argv[3]) if len(sys.argv) > 3 else 100, random_state=0)
    images = [read_gray(Path(prepared.info["root"]) / name) for name in names]
    wanted = classes(member, images, spec)
    for hot in HOT:
        for bits in range(9, 17):
            found = [saved(image, bits, hot) for image in images]
            kept = (classes(member, found, spec) == wanted).mean()
            away = [np.abs(a.astype(int) - b).mean() for a, b in zip(found, images, strict=True)]
            print(
                f"{hot:2d} hot pixels, {bits:2d} bits: {kept:.2f} keep their class, "
                f"mean difference {np.mean(away):5.1f} gray levels",
                flush=True,
            )


def classes(
    member: Member, images: list[NDArray[np.uint8]], spec: PreprocessSpec
) -> NDArray[np.int64]:
    """Return the member's class of each image."""
    pixels = np.stack([to_square(image, spec) for image in images])
    return predict_logits(member, pixels, np.arange(len(pixels))).argmax(axis=1)


def saved(image: NDArray[np.uint8], bits: int, hot: int) -> NDArray[np.uint8]:
    """Save an image as a PNG of more bits and read it; an image that is refused is black."""
    deep = image.astype(np.uint16) << (bits - 8)
    deep.flat[np.random.default_rng(0).choice(deep.size, hot, replace=False)] = 65535
    stream = io.BytesIO()
    Image.fromarray(deep).save(stream, "PNG", compress_level=1)
    try:
        return read_gray(stream.getvalue())
    except InputError:
        return np.zeros_like(image)


if __name__ == "__main__":
    main()
