"""What must go with time: old results, orphaned files, expired sessions and counters."""

import logging
import time
from datetime import timedelta

from flask import current_app
from sqlalchemy.exc import SQLAlchemyError

from cxr.serve.serving import read, serving, utc_now, write
from cxr.serve.store.counters import count_hit, drop_expired
from cxr.serve.store.predictions import delete_older, known_stems
from cxr.serve.store.users import drop_old_sessions

log = logging.getLogger(__name__)

EVERY_S = 3600
LOOK_EVERY_S = 60.0
"""A process asks the database at most this often whether tidying is due."""
LOOKED = "cxr_tidy_looked"


def tidy() -> tuple[int, int]:
    """Delete what is over.

    Returns:
        Results older than the retention, and folders without a row.
    """
    here, now = serving(), utc_now()
    old: list[str] = []
    with here.database.write() as store:
        drop_expired(store, now)
        drop_old_sessions(store, now - timedelta(hours=here.settings.session_hours))
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
        if write(count_hit, "tidy", limit=1, window_s=EVERY_S, now=utc_now()).allowed:
            tidy()
    except (SQLAlchemyError, OSError):
        log.exception("tidying failed; it is tried again in an hour")
