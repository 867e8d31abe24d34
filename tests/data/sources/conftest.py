"""A local HTTP server that misbehaves on request."""

import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest


@dataclass
class Site:
    """What the server serves and how; every request's headers are kept."""

    files: dict[str, bytes] = field(default_factory=dict)
    etag: str = '"one"'
    ranges: bool = True
    obeys_if_range: bool = True
    names_length: bool = True
    drop_after: list[int] = field(default_factory=list)
    requests: list[tuple[str, str | None, str | None]] = field(default_factory=list)
    url: str = ""


def handler_of(site: Site) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, format, *args):
            pass

        def do_GET(self):
            asked, condition = self.headers.get("Range"), self.headers.get("If-Range")
            site.requests.append((self.path, asked, condition))
            body = site.files.get(self.path)
            if body is None:
                self.send_error(404)
                return
            same = condition in (None, site.etag) or not site.obeys_if_range
            start = int(asked[6:-1]) if asked and site.ranges and same else None
            if start is not None and start >= len(body):
                self.send_error(416)
                return
            self.send_response(200 if start is None else 206)
            if start is not None:
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            part = body[start or 0 :]
            if site.names_length:
                self.send_header("Content-Length", str(len(part)))
            if site.etag:
                self.send_header("ETag", site.etag)
            self.end_headers()
            cut = site.drop_after.pop(0) if site.drop_after else len(part)
            self.wfile.write(part[:cut])

    return Handler


@pytest.fixture
def site(monkeypatch) -> Iterator[Site]:
    # A proxy of the machine must not stand between the test and its server.
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    site = Site()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler_of(site)) as server:
        site.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield site
        server.shutdown()
        thread.join()
