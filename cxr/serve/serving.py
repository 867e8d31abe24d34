"""What the handlers of a request share: settings, database, files, the model's queue."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

from flask import Flask, current_app

from cxr.serve.model_queue import ModelQueue
from cxr.serve.settings import Settings
from cxr.serve.store.database import Database
from cxr.serve.uploads import ImageStore

EXTENSION = "cxr"


@dataclass(frozen=True)
class Serving:
    """What ``create_app`` opened."""

    settings: Settings
    database: Database
    images: ImageStore
    queue: ModelQueue


def serving(app: Flask | None = None) -> Serving:
    """Return what the present application opened."""
    return cast(Serving, (app or current_app).extensions[EXTENSION])


def utc_now() -> datetime:
    """Return the present with its time zone."""
    return datetime.now(UTC)
