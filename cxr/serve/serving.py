"""What the handlers of a request share: settings, database, files, the model's queue."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Concatenate, ParamSpec, TypeVar, cast

from flask import Flask, current_app
from sqlalchemy.orm import Session

from cxr.serve.model_queue import ModelQueue
from cxr.serve.settings import Settings
from cxr.serve.store.database import Database
from cxr.serve.uploads import ImageStore

EXTENSION = "cxr"
Params = ParamSpec("Params")
Result = TypeVar("Result")
Query = Callable[Concatenate[Session, Params], Result]


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


def read(query: Query[Params, Result], *args: Params.args, **options: Params.kwargs) -> Result:
    """Return what a function of ``store`` finds, in a session of its own."""
    with serving().database.read() as session:
        return query(session, *args, **options)


def write(query: Query[Params, Result], *args: Params.args, **options: Params.kwargs) -> Result:
    """Return what a function of ``store`` did, committed."""
    with serving().database.write() as session:
        return query(session, *args, **options)


def utc_now() -> datetime:
    """Return the present with its time zone."""
    return datetime.now(UTC)
