"""Predict any number of images in constant memory, and go on where a stopped run was.

A few small chunks are in work at once, each in its own thread: while one is in the network,
another is decoded. An image's pixels and maps are gone before its chunk's rows are written.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from cxr.bundle.inputs import ImageFile
from cxr.bundle.maps import captioned
from cxr.bundle.predictor import Prediction, Predictor
from cxr.bundle.result_files import KEY, Results
from cxr.errors import InputError
from cxr.files import atomic_write
from cxr.reliability.drift import DriftWindow

log = logging.getLogger(__name__)

CHUNK = 8
"""Images of a chunk: an image of 10 megapixels takes 10 MB, and the network gains nothing
beyond."""
WORKERS = 2
"""Chunks in work at once; one more waits for each."""
SETS = "per class"
"""Whose thresholds the sets of a table have; in version 0.1 one was for all classes."""

Row = dict[str, str]


@dataclass
class Summary:
    """What a run did: images by outcome, those that an earlier run had done, and its time."""

    predicted: int = 0
    refused: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0

    def sentence(self) -> str:
        """Say it in one line."""
        done = self.predicted + self.refused + self.failed
        rate = f", {done / self.seconds:.1f} images/s" if self.seconds and done else ""
        parts = [f"{done} images in {self.seconds:.1f} s{rate}: {self.predicted} predicted"]
        parts += [f"{self.refused} refused as not like the training images"] if self.refused else []
        parts += [f"{self.failed} could not be read"] if self.failed else []
        parts += [f"{self.skipped} were done before"] if self.skipped else []
        return ", ".join(parts)


def column_types(labels: Sequence[str], members: Sequence[str], *, maps: bool) -> dict[str, str]:
    """Return the columns of the table in order, each with ``number``, ``truth`` or ``text``."""
    probs = [f"prob_{label}" for label in labels]
    probs += [f"prob_{member}_{label}" for member in members for label in labels]
    outcome = ("set", "refer", "ood_score", "refused", "reason", "warning", "error")
    origin = ("level", "set_thresholds", "bundle", "runtime", KEY, "note")
    columns = ("image", "label", *probs, *outcome, *(["map"] if maps else []), *origin)
    kinds = dict.fromkeys((*probs, "ood_score", "level"), "number")
    kinds |= dict.fromkeys(("refer", "refused"), "truth")
    return {name: kinds.get(name, "text") for name in columns}


def predict_images(
    predictor: Predictor,
    images: Iterable[ImageFile],
    table: Path,
    *,
    level: float = 0.9,
    maps: Path | None = None,
    runtime: str = "onnxruntime float32",
    workers: int = WORKERS,
    on_image: Callable[[], None] = lambda: None,
    drift: DriftWindow | None = None,
) -> Summary:
    """Append a row per image to a table; images that it holds already are left out.

    An image that cannot be read is a row with its error. A refused image has no prediction in
    its row, and the reason why. Rows come in the order of the images, which are pulled one at a
    time, and ``on_image`` is called once an image, both from this thread. ``workers`` chunks are in
    work at once; ``maps`` is a folder that receives an overlay per predicted image; ``runtime``
    stands in the table; ``drift`` receives what the model made of each image.

    Raises:
        InputError: a level that the bundle does not have, a table that is another run's, or
            a full disk.
    """
    begun, summary = time.perf_counter(), Summary()
    columns = list(column_types(predictor.labels, predictor.members, maps=maps is not None))
    constant = {
        "level": f"{level:g}",
        "set_thresholds": SETS,
        "bundle": predictor.fingerprint,
        "runtime": runtime,
        "note": predictor.note or "Research use only, not a medical device",
    }
    list(predictor.predict_each([], level=level, maps=maps is not None, names=[]))
    with Results(table, columns, constant) as results:

        def take(part: Future[list[Row]]) -> None:
            rows = part.result()
            results.append(constant | row for row in rows)
            for row in rows:
                summary.failed += bool(row["error"])
                summary.refused += row.get("refused") == "true"
                summary.predicted += not row["error"] and row["refused"] == "false"
                if drift is not None and not row["error"]:
                    probs = [float(row.get(f"prob_{label}", "nan")) for label in predictor.labels]
                    drift.add(
                        score=float(row["ood_score"] or "nan"),
                        confidence=max(probs),
                        refused=row["refused"] == "true",
                    )
                on_image()

        waiting: deque[Future[list[Row]]] = deque()
        pool = ThreadPoolExecutor(max(1, workers))
        try:
            rest = _not_done(images, results, summary, on_image)
            # By key: an image that is named twice in a row counts once.
            while chunk := dict(islice(rest, CHUNK)):
                waiting.append(pool.submit(_chunk_rows, predictor, chunk, level, maps))
                if len(waiting) > 2 * workers:
                    take(waiting.popleft())
            while waiting:
                take(waiting.popleft())
        finally:
            pool.shutdown(cancel_futures=True)
            summary.seconds = time.perf_counter() - begun
    return summary


def _not_done(
    images: Iterable[ImageFile], results: Results, summary: Summary, on_image: Callable[[], None]
) -> Iterator[tuple[int, ImageFile]]:
    for image in images:
        key = image.key()
        if results.has(key):
            summary.skipped += 1
            on_image()
        else:
            yield key, image


def _chunk_rows(
    predictor: Predictor, chunk: Mapping[int, ImageFile], level: float, maps: Path | None
) -> list[Row]:
    readable = [image for image in chunk.values() if not image.error]
    answers = _answers(predictor, readable, level, maps is not None)
    rows = []
    for key, image in chunk.items():
        answer = InputError(image.error) if image.error else next(answers)
        rows.append(_row(image, answer, maps) | {KEY: f"{key:016x}"})
    return rows


def _answers(
    predictor: Predictor, images: Sequence[ImageFile], level: float, maps: bool
) -> Iterator[Prediction | InputError]:
    """Yield a prediction or an error for each image, whatever one of them does."""
    paths, names = [image.path for image in images], [image.name for image in images]
    stated = [image.original for image in images]
    try:
        yield from list(
            predictor.predict_each(paths, names=names, level=level, maps=maps, originals=stated)
        )
        return
    except InputError:
        raise
    except Exception as error:  # a defect that one image brings out must not cost the others
        if len(images) == 1:
            log.debug("%s", images[0].name, exc_info=True)
            yield InputError(
                f"{images[0].name} could not be predicted, by a defect of cxr and not of yours "
                f"({type(error).__name__}: {error})"
            )
            return
    for image in images:
        yield from _answers(predictor, [image], level, maps)


def _row(image: ImageFile, answer: Prediction | InputError, maps: Path | None) -> Row:
    if isinstance(answer, InputError):
        return {"image": image.name, "error": str(answer)}
    row = {
        "image": image.name,
        "error": "",
        "ood_score": _number(answer.ood_score),
        "refused": str(bool(answer.refused)).lower(),
        "reason": " ".join(answer.refusals),
        "warning": "; ".join(answer.warnings),
    }
    if answer.refused:
        return row
    row |= {
        "label": answer.label,
        "set": "|".join(answer.prediction_set),
        "refer": str(bool(answer.refer)).lower(),
    }
    row |= {f"prob_{label}": _number(p) for label, p in answer.probs.items()}
    for member, probs in answer.member_probs.items():
        row |= {f"prob_{member}_{label}": _number(p) for label, p in probs.items()}
    if maps is not None:
        row["map"] = _save_overlay(answer, overlay_path(maps, image.name)).as_posix()
    return row


def overlay_path(folder: Path, name: str) -> Path:
    """Return where an image's overlay lies: the image's own path below ``folder``, and ``.png``."""
    parts = [part.replace(":", "_") for part in PurePosixPath(name).parts]
    parts = [part for part in parts if part not in ("/", "..")]
    return folder.joinpath(*parts[:-1], f"{parts[-1]}.png")


def _save_overlay(prediction: Prediction, path: Path) -> Path:
    """Write an image under the heat map of its predicted class, with what it is below it."""
    lines = (f"{prediction.label} {prediction.probs[prediction.label]:.3f}", prediction.note)
    assert prediction.maps is not None
    sheet = captioned(prediction.maps.overlay(prediction.label), lines)
    with atomic_write(path) as file:
        Image.fromarray(sheet).save(file, format="PNG", compress_level=3)
    return path


def _number(value: float) -> str:
    """Return a number as text, and nothing where there is none."""
    return f"{value:.7g}" if np.isfinite(value) else ""
