"""What a reader sees when something does not work; the REST service has its own words."""

import logging

from flask import Flask, Response, g, jsonify, make_response, render_template
from flask_wtf.csrf import CSRFError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from werkzeug.exceptions import HTTPException, InternalServerError

from cxr.serve import problems
from cxr.serve.login import wants_json

log = logging.getLogger(__name__)

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
RETRY_S = 5


def init_app(app: Flask) -> None:
    """Answer every error with a page, a problem document or a line of JSON."""

    @app.errorhandler(HTTPException)
    def _http(error: HTTPException) -> Response:
        if problems.is_api():
            return problems.from_http(error)
        stale = isinstance(error, CSRFError)
        status = error.code or 500
        if status < 400:
            return make_response(error.get_response())
        return _answer(status, STALE if stale else WORDS.get(status, (error.name, "")), error)

    @app.errorhandler(DBAPIError)
    @app.errorhandler(PoolTimeoutError)
    def _database(error: DBAPIError | PoolTimeoutError) -> Response:
        if isinstance(error, DBAPIError) and not error.connection_invalidated:
            log.error("database error", exc_info=error)
        else:
            log.error("the database does not answer: %s", type(error).__name__)
        if problems.is_api():
            return problems.busy(503, "the database does not answer: try again later", RETRY_S)
        answer = _answer(503, WORDS[503], None)
        answer.headers["Retry-After"] = str(RETRY_S)
        return answer

    @app.errorhandler(InternalServerError)
    def _bug(error: InternalServerError) -> Response:
        if problems.is_api():
            return problems.from_http(error)
        return _answer(500, WORDS[500], None)


def _answer(status: int, words: tuple[str, str], error: HTTPException | None) -> Response:
    head, text = words
    if wants_json():
        answer = make_response(jsonify(error=f"{head}. {text}"), status)
    else:
        number = g.get("request_id") if status >= 500 else None
        page = render_template("error.html", head=head, text=text, number=number)
        answer = make_response(page, status)
    for name, value in error.get_headers() if error is not None else ():
        if name in ("Allow", "Retry-After"):
            answer.headers[name] = value
    return answer
