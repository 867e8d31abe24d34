"""For those who run the server: is it alive, can it answer, how much does it do.

``/healthz`` the process answers; ``/readyz`` the model is loaded and the database answers;
``/metrics`` figures for Prometheus.
"""

import hmac

from flask import Blueprint, Response, json, request
from prometheus_client import CONTENT_TYPE_LATEST

from cxr.serve import monitoring
from cxr.serve.security import is_loopback
from cxr.serve.serving import serving
from cxr.serve.watched_bundle import Busy

blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
def healthz() -> Response:
    """Say that the process answers."""
    return _answer(200, status="alive")


@blueprint.get("/readyz")
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


@blueprint.get("/metrics")
def prometheus() -> Response:
    """Show the figures to those who may see them."""
    if not _may_read(serving().settings.metrics_token):
        return _answer(403, status="forbidden: set CXR_METRICS_TOKEN and send it as bearer token")
    return Response(monitoring.exposition(), content_type=CONTENT_TYPE_LATEST)


def _may_read(token: str) -> bool:
    """Return whether the token fits, or, where none is set, the request is from this machine.

    A request that a proxy passed on is not from this machine, though its address may be.
    """
    if token:
        authorization = request.headers.get("Authorization", "")
        return hmac.compare_digest(authorization.encode(), f"Bearer {token}".encode())
    if {"X-Forwarded-For", "Forwarded", "X-Real-Ip"} & set(request.headers.keys()):
        return False
    return is_loopback(request.remote_addr or "")


def _answer(code: int, **members: object) -> Response:
    return Response(json.dumps(members), code, mimetype="application/json")
