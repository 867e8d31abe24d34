"""The one way of an image, for pages and API alike: admitted, checked, predicted, stored.

Whatever fails on the way leaves neither a row nor files behind.
"""

import io
import logging
import warnings
from typing import Any

from flask import request
from PIL import Image
from werkzeug.datastructures import FileStorage

from cxr.bundle.format import set_coverage
from cxr.bundle.predictor import Prediction, Predictor
from cxr.errors import InputError
from cxr.imaging.raster import FORMATS
from cxr.imaging.read import read_image
from cxr.serve import monitoring
from cxr.serve.model_queue import NAME, client_watch
from cxr.serve.serving import serving, utc_now, write
from cxr.serve.settings import RESEARCH_USE
from cxr.serve.store.counters import count_hit
from cxr.serve.store.predictions import clean_file_name, new_id, save_prediction
from cxr.serve.store.rows import PredictionRow
from cxr.serve.uploads import StorageError
from cxr.serve.watched_bundle import Busy, RetryError

log = logging.getLogger(__name__)

OLD_FIELDS = ("film", "file")
"""What version 0.1 called the field ``image``, on the page and in REST."""
LEFT_OUT_WHEN_REFUSED = ("label", "probs", "member_probs", "prediction_set", "refer", "level")
"""A refused image gets no class, nowhere."""


class TooLargeError(InputError):
    """The file has more bytes than allowed."""


class RateLimitedError(RetryError):
    """The user has had as many images predicted as a minute allows."""


STATUSES: dict[type[Exception], int] = {
    TooLargeError: 413,
    InputError: 422,
    RateLimitedError: 429,
    Busy: 503,
    StorageError: 507,
}
"""What may go wrong with an image, and the status that says so."""
FAILURES = tuple(STATUSES)


def status_of(error: Exception) -> tuple[int, int | None]:
    """Return the status of one of ``FAILURES``, and in how many seconds to come back if known."""
    status = next(status for kind, status in STATUSES.items() if isinstance(error, kind))
    return status, getattr(error, "retry_after_s", None)


def predict_and_store(data: bytes, *, name: str, user_id: int, origin: str) -> PredictionRow:
    """Predict an uploaded file and add it to its user's history; return the stored row.

    ``name`` is what the user calls the file: never trusted, kept for the user's own eyes.
    ``origin`` is ``page`` or ``api``.

    Raises:
        TooLargeError: too many bytes.
        InputError: not an image that can be read, or too many pixels.
        RateLimitedError: too many images in a minute.
        StorageError: the image could not be written.
        Busy: no place is free, or there is no model.
    """
    here = serving()
    check_size(len(data), here.settings.upload_bytes)
    with here.queue.place():
        _check_header(data, here.settings.max_pixels)
        limit, now = here.settings.rate_per_minute, utc_now()
        if wait_s := write(count_hit, f"predict:{user_id}", limit=limit, window_s=60, now=now):
            raise RateLimitedError(f"{limit} images a minute are allowed: wait {wait_s} s", wait_s)
        prediction, predictor = _predict(data)
        _check_pixels(prediction.image.shape, here.settings.max_pixels)
        row = _row(prediction, predictor, name=clean_file_name(name))
        row.user_id, row.origin = user_id, origin
        maps = None if prediction.refused else prediction.maps
        row.stem = here.images.save(prediction.image, maps)
        try:
            write(save_prediction, row)
        except BaseException:
            here.images.remove(row.stem)
            raise
    return row


def uploaded_files() -> list[FileStorage]:
    """Return the files of the form's field ``image``, or of a field that version 0.1 took."""
    files = request.files.getlist("image")
    for field in OLD_FIELDS:
        if named_so := request.files.getlist(field):
            log.warning("form field %r is 'image' now; the old name works for one version", field)
            files += named_so
    return files


def check_size(size: int, allowed: int) -> None:
    """Raise TooLargeError for more bytes than allowed, InputError for none at all."""
    if size == 0:
        raise InputError("the file is empty: choose another one")
    if size > allowed:
        raise TooLargeError(
            f"the file has {size / 2**20:.1f} MB: at most {allowed / 2**20:g} MB are taken"
        )


def _predict(data: bytes) -> tuple[Prediction, Predictor]:
    """Decode an image here and let the model's thread predict it; count what became of it."""
    try:
        image = read_image(data, name=NAME)
        alive = client_watch(request.environ)
        prediction, predictor = serving().queue.predict(image, alive=alive)
    except (InputError, Busy) as error:
        reason = error.reason if isinstance(error, Busy) else "unreadable"
        monitoring.TURNED_AWAY.labels(reason).inc()
        raise
    outcome = "refused" if prediction.refused else "referred" if prediction.refer else "answered"
    monitoring.PREDICTIONS.labels(outcome).inc()
    monitoring.watch_drift(prediction, predictor)
    return prediction, predictor


def _row(prediction: Prediction, predictor: Predictor, *, name: str) -> PredictionRow:
    height, width = prediction.image.shape
    refused, fingerprint = bool(prediction.refused), str(predictor.fingerprint)[:64]
    result: dict[str, Any] = prediction.to_dict() | {
        "note": prediction.note,
        "notice": RESEARCH_USE,
        "labels": list(predictor.labels),
        "members": list(predictor.members),
        "fingerprint": fingerprint,
    }
    for key in ("name", *(LEFT_OUT_WHEN_REFUSED if refused else ())):
        result.pop(key, None)
    if not refused:
        result["set_coverage"] = set_coverage(predictor.info, prediction.level)
    return PredictionRow(
        id=new_id(),
        created_at=utc_now(),
        name=name,
        refused=refused,
        label="" if refused else prediction.label,
        refer=not refused and bool(prediction.refer),
        width_px=width,
        height_px=height,
        fingerprint=fingerprint,
        result=result,
    )


def _check_header(data: bytes, allowed: int) -> None:
    """Refuse what says itself that it is too large, before its pixels are unpacked."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                shape = (image.height, image.width)
    except Image.DecompressionBombError:
        raise InputError(
            f"the image has over {allowed / 1e6:g} megapixels: scale it down"
        ) from None
    except Exception:
        return  # DICOM or nothing: the reader says which, and why
    _check_pixels(shape, allowed)


def _check_pixels(shape: tuple[int, ...], allowed: int) -> None:
    if shape[0] * shape[1] > allowed:
        raise InputError(
            f"the image is {shape[1]} x {shape[0]} pixels: at most "
            f"{allowed / 1e6:g} megapixels are taken; scale it down"
        )
