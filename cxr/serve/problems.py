"""What is answered when something does not work.

A reader gets a page, a script of ours a line of JSON, and a program that uses the REST service
RFC 9457's problem details (application/problem+json).
"""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from flask import Flask, Response, g, json, jsonify, make_response, render_template, request
from flask_wtf.csrf import CSRFError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from werkzeug.exceptions import HTTPException

from cxr.serve.login import wants_json
from cxr.serve.settings import RESEARCH_USE

log = logging.getLogger(__name__)

API_PREFIX = "/api/"
MEDIA_TYPE = "application/problem+json"
WORDS = {
    400: ("The request could not be understood", "Go back and try again."),
    401: ("Sign in first", "This page opens for people who are signed in."),
    404: ("Nothing is here", "The page does not exist, or what it showed was deleted."),
    405: ("That cannot be done here", "Go back and use the page's own buttons."),
    413: ("The upload is too large", "Choose fewer or smaller files."),
    429: ("Too much at once", "Wait a moment and try again."),
    500: ("Something went wrong here", "It is not your doing. Tell who runs the server."),
    503: ("The server cannot answer now", "Nothing is lost. Try again in a moment."),
}
STALE = ("The page was open too long", "Nothing was done. Reload the page and send it again.")
DETAILS = {
    401: "send 'Authorization: Bearer TOKEN'; the account page makes tokens",
    404: "nothing is here, or it is not yours",
    405: "this address does not offer that method",
    413: "the file is too large",
    500: "something went wrong here; the request id finds it in the server's log",
}
"""What a program is told where the error says nothing that helps."""
RETRY_S = 5


def init_app(app: Flask) -> None:
    """Answer every error that no view has answered itself."""

    @app.errorhandler(HTTPException)
    def _http(error: HTTPException) -> Response:
        status = error.code or 500
        if status < 400:
            return make_response(error.get_response())
        headers = {
            name: value
            for name, value in error.get_headers()
            if name in ("Allow", "Retry-After", "WWW-Authenticate")
        }
        if request.path.startswith(API_PREFIX):
            return _problem_of(error, status, headers)
        words = STALE if isinstance(error, CSRFError) else WORDS.get(status, (error.name, ""))
        return _page(status, words, headers)

    @app.errorhandler(DBAPIError)
    @app.errorhandler(PoolTimeoutError)
    def _database(error: DBAPIError | PoolTimeoutError) -> Response:
        if isinstance(error, DBAPIError) and not error.connection_invalidated:
            log.error("database error", exc_info=error)
        else:
            log.error("the database does not answer: %s", type(error).__name__)
        if request.path.startswith(API_PREFIX):
            return problem(503, "the database does not answer: try again later", RETRY_S)
        return _page(503, WORDS[503], {"Retry-After": str(RETRY_S)})


def problem(
    status: int,
    detail: str,
    retry_after_s: int | None = None,
    *,
    headers: Mapping[str, str] | None = None,
    **members: Any,
) -> Response:
    """Return a problem, 4xx or 5xx, as a response; ``detail`` is one line for people.

    A 429 or 503 says when to come back; ``members`` are further ones of the document.
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
    response = Response(status=status, mimetype=MEDIA_TYPE)
    response.headers.update(dict(headers or {}))
    if retry_after_s is not None:
        body["retry_after_s"] = retry_after_s
        response.headers["Retry-After"] = str(retry_after_s)
    response.set_data(json.dumps(body))
    return response


def _problem_of(error: HTTPException, status: int, headers: dict[str, str]) -> Response:
    """Return the problem of an HTTP error that Flask, Werkzeug or webargs raised."""
    if status == 401:
        headers.setdefault("WWW-Authenticate", "Bearer")
    data = getattr(error, "data", None)
    if isinstance(data, dict) and (errors := data.get("errors") or data.get("messages")):
        detail = "the request does not fit the description of this address: see errors"
        return problem(status, detail, headers=headers, errors=errors)
    detail = DETAILS.get(status) or str(error.description or HTTPStatus(status).phrase)
    return problem(status, detail, headers=headers)


def _page(status: int, words: tuple[str, str], headers: Mapping[str, str]) -> Response:
    head, text = words
    if wants_json():
        return make_response(jsonify(error=f"{head}. {text}"), status, dict(headers))
    number = g.get("request_id") if status >= 500 else None
    page = render_template("error.html", head=head, text=text, number=number)
    return make_response(page, status, dict(headers))
