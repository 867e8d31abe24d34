"""Errors of the REST service as RFC 9457 problem details (application/problem+json)."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from flask import Response, g, json, request
from werkzeug.exceptions import HTTPException

from cxr.serve.settings import RESEARCH_USE

API_PREFIX = "/api/"
MEDIA_TYPE = "application/problem+json"
DETAILS = {
    401: "send 'Authorization: Bearer TOKEN'; the account page makes tokens",
    404: "nothing is here, or it is not yours",
    405: "this address does not offer that method",
    413: "the file is too large",
    500: "something went wrong here; the request id finds it in the server's log",
}
"""What is said where the error says nothing that helps."""


def is_api() -> bool:
    """Return whether the request is one of the REST service."""
    return request.path.startswith(API_PREFIX)


def problem(
    status: int, detail: str, *, headers: Mapping[str, str] | None = None, **members: Any
) -> Response:
    """Return a problem as a response.

    Args:
        status: of the answer, 4xx or 5xx.
        detail: one line for people.
        headers: further ones, such as Retry-After.
        **members: further members of the document.
    """
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "request_id": g.get("request_id"),
        "notice": RESEARCH_USE,
        **members,
    }
    response = Response(json.dumps(body), status, mimetype=MEDIA_TYPE)
    response.headers["Cache-Control"] = "no-store"
    response.headers.update(dict(headers or {}))
    return response


def busy(status: int, detail: str, retry_after_s: int) -> Response:
    """Return a 429 or 503 that says when to come back."""
    return problem(
        status, detail, headers={"Retry-After": str(retry_after_s)}, retry_after_s=retry_after_s
    )


def from_http(error: HTTPException) -> Response:
    """Return the problem of an HTTP error that Flask, Werkzeug or webargs raised."""
    status = error.code or 500
    if status < 400:
        return Response(status=status, headers=dict(error.get_headers()))
    members: dict[str, Any] = {}
    data = getattr(error, "data", None)
    if isinstance(data, dict) and (errors := data.get("errors") or data.get("messages")):
        members["errors"] = errors
    detail = DETAILS.get(status) or str(error.description or HTTPStatus(status).phrase)
    if members:
        detail = "the request does not fit the description of this address: see errors"
    headers = {
        name: value
        for name, value in error.get_headers()
        if name in ("Allow", "Retry-After", "WWW-Authenticate")
    }
    if status == 401:
        headers.setdefault("WWW-Authenticate", "Bearer")
    return problem(status, detail, headers=headers, **members)
