"""The one road of a film, for pages and API alike: checked, predicted, kept.

Whatever fails on the way leaves neither a row nor files behind.
"""

import io
import warnings
from datetime import datetime, timedelta
from typing import Any

from PIL import Image

from cxr.bundle.format import set_coverage
from cxr.bundle.maps import HeatMaps
from cxr.errors import InputError
from cxr.imaging.raster import FORMATS
from cxr.serve import queue
from cxr.serve.live import PredictorLike
from cxr.serve.map_overlay import DEFAULT_OPACITY, captioned, compose
from cxr.serve.serving import serving, utc_now
from cxr.serve.settings import RESEARCH_USE
from cxr.serve.store.counters import count_hit
from cxr.serve.store.predictions import (
    clean_file_name,
    delete_all_predictions,
    delete_prediction,
    new_id,
    save_prediction,
)
from cxr.serve.store.rows import PredictionRow
from cxr.serve.uploads import png_bytes

HIDDEN_WHEN_REFUSED = ("label", "probs", "member_probs", "prediction_set", "refer", "level")
"""A refused film gets no class, nowhere."""


class TooLargeError(InputError):
    """The file has more bytes than allowed."""


class RateLimitedError(Exception):
    """The user has had as many films predicted as a minute allows.

    Attributes:
        retry_after_s: seconds until one more is allowed.
    """

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


def predict_and_keep(data: bytes, *, name: str, user_id: int, origin: str) -> PredictionRow:
    """Predict an uploaded film and add it to its user's history.

    Args:
        data: the file.
        name: what the user calls it; never trusted, kept for the user's own eyes.
        user_id: whose it is.
        origin: ``page`` or ``api``.

    Returns:
        The row, stored.

    Raises:
        TooLargeError: too many bytes.
        InputError: not a film that can be read, or too many pixels.
        RateLimitedError: too many films in a minute.
        StorageError: the film could not be written.
        queue.Busy: no place is free, or there is no model.
    """
    here = serving()
    check_size(len(data), here.settings.upload_bytes)
    with queue.place():
        _check_header(data, here.settings.max_pixels)
        _check_rate(user_id)
        prediction, predictor = queue.submit(data, level=here.settings.level, maps=True)
        _check_pixels(prediction.image.shape, here.settings.max_pixels)
        row = _row(prediction, predictor, name=clean_file_name(name))
        row.user_id, row.origin = user_id, origin
        row.stem = here.films.save(prediction.image, _maps_to_keep(prediction))
        try:
            with here.database.write() as session:
                save_prediction(session, row)
        except BaseException:
            here.films.remove(row.stem)
            raise
    return row


def check_size(size: int, allowed: int) -> None:
    """Check the number of bytes.

    Raises:
        TooLargeError: more than allowed.
        InputError: none at all.
    """
    if size == 0:
        raise InputError("the file is empty: choose another one")
    if size > allowed:
        raise TooLargeError(
            f"the file has {size / 2**20:.1f} MB: at most {allowed / 2**20:g} MB are taken"
        )


def forget(user_id: int, prediction_id: str) -> bool:
    """Delete a user's own result, row first and then files; return whether there was one."""
    here = serving()
    with here.database.write() as session:
        stem = delete_prediction(session, user_id, prediction_id)
    if stem is not None:
        here.films.remove(stem)
    return stem is not None


def forget_all(user_id: int) -> int:
    """Delete a user's history; return how many results went."""
    here = serving()
    with here.database.write() as session:
        stems = delete_all_predictions(session, user_id)
    for stem in stems:
        here.films.remove(stem)
    return len(stems)


def expires_at(row: PredictionRow) -> datetime | None:
    """Return when a result is deleted by itself, or None: never."""
    days = serving().settings.retention_days
    return row.created_at + timedelta(days=days) if days else None


def overlay_png(
    row: PredictionRow,
    label: str | None = None,
    member: str | None = None,
    opacity: float = DEFAULT_OPACITY,
) -> bytes:
    """Draw a kept film under one of its maps, with what it is below it.

    Args:
        row: of the film.
        label: class whose map is drawn; the predicted one by default.
        member: whose map; the ensemble's by default.
        opacity: 0 to 1.

    Returns:
        PNG at the film's own size and a strip of words; a refused film without map and class.

    Raises:
        KeyError: an unknown class or member.
        FileNotFoundError: the files were deleted.
    """
    films = serving().films
    film, maps = films.load_film(row.stem), films.load_maps(row.stem)
    if row.refused or maps is None:
        return png_bytes(captioned(film, ["Refused: not like the films the model knows"]))
    label = label or row.label
    drawn = compose(film, maps.of(label, member), opacity)
    probability = row.result["probs"][row.label]
    lines = [
        f"Predicted: {row.label} ({percent(probability)})",
        f"Colours: activation for {label}, {member or 'ensemble'}",
    ]
    return png_bytes(captioned(drawn, lines))


def percent(share: float) -> str:
    """Return a share as people read it: whole percents, never a false 0 or 100."""
    if share > 0.995:
        return ">99 %"
    if share < 0.005:
        return "<1 %"
    return f"{100 * share:.0f} %"


def public_result(prediction: Any) -> dict[str, Any]:
    """Return what may be shown of a prediction; of a refused one no class."""
    values: dict[str, Any] = dict(prediction.to_dict())
    for key in HIDDEN_WHEN_REFUSED if prediction.refused else ():
        values.pop(key, None)
    values.pop("name", None)
    return values | {"note": prediction.note, "notice": RESEARCH_USE}


def _row(prediction: Any, predictor: PredictorLike, *, name: str) -> PredictionRow:
    height, width = prediction.image.shape
    refused, fingerprint = bool(prediction.refused), str(predictor.fingerprint)[:64]
    result = public_result(prediction) | {
        "labels": list(predictor.labels),
        "members": list(predictor.members),
        "fingerprint": fingerprint,
    }
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


def _maps_to_keep(prediction: Any) -> HeatMaps | None:
    if prediction.refused or prediction.maps is None:
        return None
    maps: HeatMaps = prediction.maps
    return maps


def _check_rate(user_id: int) -> None:
    here = serving()
    with here.database.write() as session:
        rate = count_hit(
            session,
            f"predict:{user_id}",
            limit=here.settings.rate_per_minute,
            window_s=60,
            now=utc_now(),
        )
    if not rate.allowed:
        raise RateLimitedError(
            f"{rate.limit} films a minute are allowed: wait {rate.retry_after_s} s",
            rate.retry_after_s,
        )


def _check_header(data: bytes, allowed: int) -> None:
    """Refuse what says itself that it is too large, before its pixels are unpacked."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                shape = (image.height, image.width)
    except Image.DecompressionBombError:
        raise InputError(f"the film has over {allowed / 1e6:g} megapixels: scale it down") from None
    except Exception:
        return  # DICOM or nothing: the reader says which, and why
    _check_pixels(shape, allowed)


def _check_pixels(shape: tuple[int, ...], allowed: int) -> None:
    if shape[0] * shape[1] > allowed:
        raise InputError(
            f"the film is {shape[1]} x {shape[0]} pixels: at most "
            f"{allowed / 1e6:g} megapixels are taken; scale it down"
        )
