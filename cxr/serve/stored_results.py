"""Stored results: found, drawn, deleted by whoever asks; and tidied, for retention has an end.

Another user's result does not exist.
"""

import logging
import time
from datetime import timedelta

import numpy as np
from flask import current_app, g
from PIL import Image
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import NotFound

from cxr.bundle.maps import OPACITY, captioned, outline_layer, overlay
from cxr.serve.phrases import percent
from cxr.serve.serving import read, serving, utc_now, write
from cxr.serve.settings import RESEARCH_USE
from cxr.serve.store.counters import count_hit, drop_expired
from cxr.serve.store.predictions import delete_older, delete_own, known_stems, own_prediction
from cxr.serve.store.rows import LoginSession, PredictionRow
from cxr.serve.store.users import end_sessions
from cxr.serve.uploads import gray_map, png_bytes

log = logging.getLogger(__name__)

EVERY_S = 3600
LOOK_EVERY_S = 60.0
"""A process asks the database at most this often whether tidying is due."""
LOOKED = "cxr_tidy_looked"


def own_row(prediction_id: str) -> PredictionRow:
    """Return a result of whoever asks, or raise NotFound: there is none, or it is another's."""
    row = read(own_prediction, g.user_id, prediction_id)
    if row is None:
        raise NotFound
    return row


def forget(prediction_id: str | None) -> int:
    """Delete an own result, or the own history, rows first and then files; return how many went.

    A result that is not there, or is another user's, is NotFound.
    """
    stems = write(delete_own, g.user_id, prediction_id)
    if prediction_id is not None and not stems:
        raise NotFound
    for stem in stems:
        serving().images.remove(stem)
    return len(stems)


def overlay_png(
    row: PredictionRow,
    label: str | None = None,
    member: str | None = None,
    opacity: float = OPACITY,
    *,
    caption: bool = True,
) -> bytes:
    """Draw a stored image under the map of a class, or of a member for it; by default as predicted.

    ``opacity`` is 0 to 1; the caption is a strip below that says what is shown.

    Returns:
        PNG at the image's own size, and the strip; a refused image without map and class.

    Raises:
        InputError: an unknown class or member.
        NotFound: the files were deleted.
    """
    images = serving().images
    try:
        pixels, maps = images.load_image(row.stem), images.load_maps(row.stem)
    except FileNotFoundError:
        raise NotFound from None
    if row.refused:
        lines = ["Refused: not like the images the model knows", RESEARCH_USE]
        return png_bytes(captioned(pixels, lines))
    if maps is None:
        raise NotFound
    label = label or row.label
    grid = Image.fromarray(gray_map(maps, label, member)).resize(
        (pixels.shape[1], pixels.shape[0]), Image.Resampling.BILINEAR
    )
    drawn = overlay(pixels, np.asarray(grid, np.float32) / np.float32(255), opacity)
    if not caption:
        return png_bytes(drawn)
    lines = [
        f"Predicted: {row.label} ({percent(row.result['probs'][row.label])})",
        f"Colours: activation for {label}, {member or 'ensemble'}",
    ]
    sheet = Image.fromarray(drawn)
    if maps.lungs is not None:
        layer = Image.fromarray(outline_layer(maps.lungs, sheet.size[::-1]))
        sheet.paste(layer, mask=layer)
        lines.append("White line: the lungs, as a second network finds them")
    return png_bytes(captioned(np.asarray(sheet), [*lines, RESEARCH_USE]))


def tidy() -> tuple[int, int]:
    """Delete what is over; return how many results past the retention, and folders without row."""
    here, now = serving(), utc_now()
    lifetime = timedelta(hours=here.settings.session_hours)
    old: list[str] = []
    with here.database.write() as store:
        drop_expired(store, now)
        end_sessions(store, LoginSession.created_at < now - lifetime)
        if here.settings.retention_days:
            old = delete_older(store, now - timedelta(days=here.settings.retention_days))
    for stem in old:
        here.images.remove(stem)
    orphans = here.images.tidy(lambda stems: read(known_stems, stems))
    if old:
        log.info("deleted %d results older than %d days", len(old), here.settings.retention_days)
    return len(old), orphans


def tidy_sometimes() -> None:
    """Tidy where an hour has passed; of all processes and threads one does it."""
    present = time.monotonic()
    if present - current_app.extensions.get(LOOKED, -LOOK_EVERY_S) < LOOK_EVERY_S:
        return
    current_app.extensions[LOOKED] = present
    try:
        if not write(count_hit, "tidy", limit=1, window_s=EVERY_S, now=utc_now()):
            tidy()
    except (SQLAlchemyError, OSError):
        log.exception("tidying failed; it is tried again in an hour")
