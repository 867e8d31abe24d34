"""What every answer carries: headers that bind the browser, and a cookie that stays at home."""

import ipaddress
from pathlib import Path

from flask import Flask, Response, current_app, request
from flask.sessions import SecureCookieSessionInterface

from cxr.files import digest
from cxr.serve.login import REFERENCE
from cxr.serve.serving import serving

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""Nothing from elsewhere and nothing inline; ``blob:`` is the preview of a chosen file."""
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), interest-cohort=()",
}
HSTS = "max-age=31536000"
STATIC_AGE = "public, max-age=31536000, immutable"


class CookieRules(SecureCookieSessionInterface):
    """Flask's signed cookie; whether it is for https alone depends on ``secure_cookies``."""

    def get_cookie_secure(self, app: Flask) -> bool:
        """Spare plain http only where the settings or this very machine allow it."""
        rule = serving(app).settings.secure_cookies
        host = request.host.rsplit(":", 1)[0].strip("[]")
        is_local = host == "localhost" or is_loopback(host)
        return rule == "always" or (rule == "auto" and (request.is_secure or not is_local))


def is_loopback(address: str) -> bool:
    """Return whether an address is this very machine's own; what is no address is not."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def loses_cookie() -> bool:
    """Return whether a browser would drop the cookie: it is for https and this is plain http."""
    return not request.is_secure and CookieRules().get_cookie_secure(current_app)


def init_app(app: Flask) -> None:
    """Add the cookie's rules and the headers."""
    app.session_interface = CookieRules()
    app.config.update(
        SESSION_COOKIE_NAME="cxr", SESSION_COOKIE_HTTPONLY=True, SESSION_COOKIE_SAMESITE="Lax"
    )
    app.after_request(_add_headers)
    files = sorted(path for path in Path(app.static_folder or "").rglob("*") if path.is_file())
    version = digest(*(path.read_bytes() for path in files))[:10]

    @app.url_defaults
    def _add_version(endpoint: str, values: dict[str, object]) -> None:
        """Give static files a new address when they change, so that they may be kept."""
        if endpoint == "static":
            values.setdefault("v", version)


def _add_headers(response: Response) -> Response:
    if request.endpoint == REFERENCE:
        # The small pictures of Swagger UI stand in its style sheet.
        pictures = POLICY.replace("blob:", "blob: data:")
        response.headers["Content-Security-Policy"] = pictures
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    if request.is_secure:
        response.headers.setdefault("Strict-Transport-Security", HSTS)
    if request.endpoint in ("static", "viewer"):
        response.headers["Cache-Control"] = STATIC_AGE
    else:
        response.headers.setdefault("Cache-Control", "no-store")
    return response
