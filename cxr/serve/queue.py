"""The application's queue: made with it, reached from a request.

One film's road: a place, decoding in the request's thread, the line to the model's thread.
"""

import contextlib
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from flask import Flask, current_app, has_request_context, request

from cxr.errors import InputError
from cxr.imaging.read import read_image
from cxr.serve import monitoring as metrics
from cxr.serve.line import ClientGone, DeadlinePassed, ModelQueue, QueueFull
from cxr.serve.live import Busy, ModelMissing, PredictorLike
from cxr.serve.serving import serving

__all__ = [
    "Busy",
    "ClientGone",
    "DeadlinePassed",
    "ModelMissing",
    "ModelQueue",
    "QueueFull",
    "current_predictor",
    "init_app",
    "model_queue",
    "place",
    "submit",
]

EXTENSION = "cxr_queue"


def init_app(
    app: Flask,
    *,
    predictor: PredictorLike | None = None,
    load: Callable[[Path], PredictorLike] | None = None,
) -> None:
    """Give the application its queue; nothing is loaded and no thread starts yet.

    Args:
        app: with ``serving(app)`` in place.
        predictor: answers instead of the bundle's.
        load: makes the predictor of a bundle; ``cxr.Predictor`` by default.
    """
    settings = serving(app).settings
    if load is None:
        load = _loader(settings.threads, settings.runtime)
    if predictor is not None:
        load = partial(_constant, predictor)
    app.extensions[EXTENSION] = ModelQueue(
        settings.bundle,
        load=load,
        length=settings.queue_length,
        batch=settings.batch,
        deadline_s=settings.deadline_s,
        watch_s=settings.watch_s,
        level=settings.level,
    )


def _constant(predictor: PredictorLike, bundle: Path) -> PredictorLike:
    return predictor


def _loader(threads: int, runtime: str) -> Callable[[Path], PredictorLike]:
    def load(bundle: Path) -> PredictorLike:
        from cxr.bundle.predictor import Predictor  # onnxruntime, which the CLI can do without

        return Predictor(bundle, threads=threads, runtime=runtime)

    return load


def model_queue() -> ModelQueue:
    """Return the queue of the current application."""
    queue: ModelQueue = current_app.extensions[EXTENSION]
    return queue


def place() -> contextlib.AbstractContextManager[None]:
    """Hold a place of the current application's queue."""
    return model_queue().place()


def current_predictor() -> PredictorLike:
    """Return the model that answers now; start loading it where nobody has.

    Raises:
        ModelMissing: none is loaded after the longest wait.
    """
    queue = model_queue()
    queue.start(wait_s=queue.deadline_s)
    return queue.predictor


def submit(data: bytes, *, level: float, maps: bool = True) -> tuple[Any, PredictorLike]:
    """Decode a film here, let the model's thread predict it.

    Args:
        data: the file.
        level: of the prediction set.
        maps: whether heat maps come along.

    Returns:
        The Prediction and the model that made it, which may have been replaced by now.

    Raises:
        InputError: no film, or a level that is not offered.
        Busy: not now.
    """
    queue, name = model_queue(), "the film"
    with queue.place():
        try:
            film = read_image(data, name=name)
            alive = client_watch(request.environ) if has_request_context() else None
            answer, model = queue.predict(film, level=level, maps=maps, name=name, alive=alive)
        except (InputError, Busy) as error:
            reason = error.reason if isinstance(error, Busy) else "unreadable"
            metrics.TURNED_AWAY.labels(reason).inc()
            raise
    outcome = "refused" if answer.refused else "referred" if answer.refer else "answered"
    metrics.PREDICTIONS.labels(outcome).inc()
    return answer, model


def client_watch(environ: dict[str, Any]) -> Callable[[], bool] | None:
    """Return what tells whether the client still holds its connection, where one can know.

    gunicorn hands its socket along: a read that finds the end means that nobody is there.
    """
    sock = environ.get("gunicorn.socket")
    if not isinstance(sock, socket.socket):
        return None

    def alive() -> bool:
        try:
            return sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False

    return alive
