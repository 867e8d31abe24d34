"""The application, made from its settings, and what those ask who run it.

``/healthz`` the process answers; ``/readyz`` the model is loaded and the database answers;
``/metrics`` figures for Prometheus.
"""

import hmac
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from flask import Blueprint, Flask, Response, json, request
from flask_wtf.csrf import CSRFProtect
from prometheus_client import CONTENT_TYPE_LATEST
from werkzeug.middleware.proxy_fix import ProxyFix

from cxr.bundle.predictor import Predictor
from cxr.serve import api, auth, commands, logs, pages, problems, result_pages, security
from cxr.serve.login import guard
from cxr.serve.model_queue import ModelQueue
from cxr.serve.monitoring import exposition
from cxr.serve.phrases import add_filters
from cxr.serve.serving import EXTENSION, Serving, serving
from cxr.serve.settings import Settings, read_secret_key
from cxr.serve.store.database import Database
from cxr.serve.uploads import FOLDER, ImageStore
from cxr.serve.watched_bundle import Busy

health = Blueprint("health", __name__)


def create_app(
    config: Settings | Mapping[str, Any] | None = None,
    *,
    load: Callable[[Path], Predictor] | None = None,
) -> Flask:
    """Make the application; the model is loaded with the first image, not here.

    ``config`` are settings, or some of them; the rest comes from the environment. ``load`` makes
    the predictor of a bundle; ``cxr.Predictor`` by default.

    Raises:
        InputError: a setting that cannot be used, or a database that does not answer.
    """
    settings = config if isinstance(config, Settings) else Settings.load(config)
    app = Flask(__name__)
    app.config.update(
        SECRET_KEY=read_secret_key(settings),
        # A full upload's form needs a little more than its files.
        MAX_CONTENT_LENGTH=min(settings.upload_files * settings.upload_bytes, 2**29) + 2**16,
        WTF_CSRF_TIME_LIMIT=settings.session_hours * 3600,
    )
    if hops := settings.trusted_proxies:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=hops, x_proto=hops, x_host=hops)  # type: ignore[method-assign]
    queue = ModelQueue(
        settings.bundle,
        load=load or partial(Predictor, threads=settings.threads, runtime=settings.runtime),
        length=settings.queue_length,
        batch=settings.batch,
        deadline_s=settings.deadline_s,
        watch_s=settings.watch_s,
        level=settings.level,
    )
    images = ImageStore(settings.data_folder / FOLDER, spare_bytes=settings.spare_bytes)
    database = Database(settings.database, threads=settings.request_threads + 4)
    database.wait(0 if database.is_sqlite else settings.database_wait_seconds)
    if settings.automatic_upgrade:
        database.upgrade()
    app.extensions[EXTENSION] = Serving(settings, database, images, queue)
    _add_parts(app)
    return app


def _add_parts(app: Flask) -> None:
    """Add everything that answers; the rule of being signed in stands before the forms' one."""
    add_filters(app)
    logs.init_app(app)
    security.init_app(app)
    app.before_request(guard)
    csrf = CSRFProtect(app)
    api.init_app(app)
    for blueprint in (health, auth.blueprint, pages.blueprint, result_pages.blueprint):
        app.register_blueprint(blueprint)
    for blueprint in (api.blueprint, health):
        csrf.exempt(blueprint)
    problems.init_app(app)
    commands.init_app(app)


@health.get("/healthz")
def healthz() -> Response:
    """Say that the process answers."""
    return _answer(200, status="alive")


@health.get("/readyz")
def readyz() -> Response:
    """Say whether an image would be predicted now, and what is missing where not."""
    queue = serving().queue
    queue.start()
    checks = {"model": "ok", "database": "ok"}
    try:
        _ = queue.model.predictor
    except Busy as error:
        checks["model"] = str(error)
    try:
        serving().database.ping()
    except Exception as error:  # whatever the driver raises, the answer is "not ready"
        checks["database"] = type(error).__name__
    ready = set(checks.values()) == {"ok"}
    return _answer(200 if ready else 503, status="ready" if ready else "not ready", checks=checks)


@health.get("/metrics")
def prometheus() -> Response:
    """Show the figures to those who may see them."""
    if not _may_read(serving().settings.metrics_token):
        return _answer(403, status="forbidden: set CXR_METRICS_TOKEN and send it as bearer token")
    return Response(exposition(), content_type=CONTENT_TYPE_LATEST)


def _may_read(token: str) -> bool:
    """Return whether the token fits, or, where none is set, the request is from this machine.

    A request that a proxy passed on is not from this machine, though its address may be.
    """
    if token:
        authorization = request.headers.get("Authorization", "")
        return hmac.compare_digest(authorization.encode(), f"Bearer {token}".encode())
    if {"X-Forwarded-For", "Forwarded", "X-Real-Ip"} & set(request.headers.keys()):
        return False
    return security.is_loopback(request.remote_addr or "")


def _answer(code: int, **members: object) -> Response:
    return Response(json.dumps(members), code, mimetype="application/json")
