"""Logs as JSON lines: what was asked, by whom, how long it took, under which request id.

No patient data, no file names, no tokens: paths are logged as their route's pattern, queries and
bodies never, exceptions as kind and place without their text, and the text of other packages'
messages is withheld, because DICOM and database libraries quote what they read.
"""

import json
import logging
import re
import secrets
import time
import traceback
from datetime import UTC, datetime
from typing import Any

from flask import Flask, Response, g, has_request_context, request

from cxr.errors import InputError

log = logging.getLogger(__name__)

OURS = ("cxr", "gunicorn", "alembic")
"""Loggers whose text holds nothing of a request."""
REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{8,64}")
QUIET = ("/healthz", "/readyz", "/metrics")
"""Probes come every few seconds: they are logged only where they fail."""


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON; what may hold patient data is left out."""
        ours = record.name.split(".")[0] in OURS
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage() if ours else "text withheld",
            "process": record.process,
        }
        if has_request_context() and "request_id" in g:
            line["request_id"] = g.request_id
        line |= getattr(record, "fields", {})
        if record.exc_info and record.exc_info[1] is not None:
            line |= describe(record.exc_info[1])
        return json.dumps(line, default=str)


def describe(error: BaseException) -> dict[str, Any]:
    """Return an exception's kind and the places it went through, without its text."""
    fields: dict[str, Any] = {"error": type(error).__name__}
    if isinstance(error, InputError) and not has_request_context():
        fields["detail"] = str(error)  # of the settings or the bundle: no request is near
    frames = traceback.extract_tb(error.__traceback__)[-12:]
    return fields | {"places": [f"{at.filename}:{at.lineno} {at.name}" for at in frames]}


def config(level: str = "INFO") -> dict[str, Any]:
    """Return a ``logging.config`` dictionary that writes JSON lines to standard error."""
    sink = {"handlers": ["lines"], "propagate": False}
    handler = {"class": "logging.StreamHandler", "formatter": "json", "stream": "ext://sys.stderr"}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": JsonFormatter}},
        "handlers": {"lines": handler},
        "root": {"handlers": ["lines"], "level": "WARNING"},
        "loggers": {
            "cxr": {**sink, "level": level},
            "gunicorn.error": {**sink, "level": level},
            "gunicorn.access": {"handlers": [], "propagate": False, "level": "CRITICAL"},
        },
    }


def init_app(app: Flask) -> None:
    """Give every request an id, and a line and figures when it is answered."""
    app.logger = logging.getLogger("cxr.serve.app")
    # What failed and where, without the address, which Flask's own line quotes.
    app.log_exception = lambda exc_info: log.error("unexpected error", exc_info=exc_info)  # type: ignore[method-assign]
    app.before_request_funcs.setdefault(None, []).insert(0, _begin)
    app.after_request(_finish)


def _begin() -> None:
    number = request.headers.get("X-Request-ID", "")
    g.request_id = number if REQUEST_ID.fullmatch(number) else secrets.token_hex(8)
    g.began = time.monotonic()


def _finish(response: Response) -> Response:
    # Not above: gunicorn's master reads this module, and must not take part in the figures.
    from cxr.serve import monitoring

    route = request.url_rule.rule if request.url_rule else "unknown"
    took_s = time.monotonic() - g.get("began", time.monotonic())
    status = response.status_code
    monitoring.REQUESTS.labels(request.method, route, status).inc()
    monitoring.REQUEST_SECONDS.labels(route).observe(took_s)
    if "request_id" in g:
        response.headers["X-Request-ID"] = g.request_id
    if route not in QUIET or status >= 400:
        fields = {
            "method": request.method,
            "route": route,
            "status": status,
            "ms": round(1000 * took_s, 1),
            "user": g.get("user_id"),
            "bytes_in": request.content_length,
            "bytes_out": response.calculate_content_length(),
        }
        log.info("request", extra={"fields": fields})
    return response
