#!/usr/bin/env python3
"""Ask a running container for all that it is for: docker_smoke.sh runs this as its PROBE.

It makes an account and a token inside the container, sends an image, reads the result, draws its
map, opens the login page, deletes the result. Standard library alone.
"""

import json
import struct
import subprocess
import sys
import urllib.error
import urllib.request
import zlib
from pathlib import Path

DOCKER = "/usr/bin/docker" if Path("/usr/bin/docker").exists() else "docker"
"""The engine's own client goes before whatever else is called so."""


def image(side: int = 128) -> bytes:
    """Return a gray PNG with a gradient."""
    rows = b"".join(b"\0" + bytes((x + y) % 256 for x in range(side)) for y in range(side))

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def inside(container: str, *words: str) -> str:
    """Run a command in the container."""
    done = subprocess.run(
        [DOCKER, "exec", container, *words], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def main(address: str) -> None:
    """Probe the container behind the address."""
    container = subprocess.run(
        [DOCKER, "ps", "--quiet", "--latest"], check=True, capture_output=True, text=True
    ).stdout.strip()
    inside(container, "flask", "users", "add", "probe", "--generate")
    token = inside(container, "flask", "tokens", "create", "probe", "probe").splitlines()[-1]

    def ask(method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        request = urllib.request.Request(address + path, body, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    bearer = {"Authorization": f"Bearer {token}"}
    status, body = ask(
        "POST", "/api/v1/predictions", image(), **bearer, **{"Content-Type": "image/png"}
    )
    assert status == 201, body
    shown = json.loads(body)
    assert shown["refused"] or abs(sum(shown["probs"].values()) - 1) < 1e-3, shown
    here = f"/api/v1/predictions/{shown['id']}"
    if not shown["refused"]:
        status, png = ask("GET", f"{here}/map.png", **bearer)
        assert (status, png[:4]) == (200, b"\x89PNG"), png[:200]
    assert ask("GET", here, **bearer)[0] == 200
    assert ask("GET", here)[0] == 401
    assert ask("DELETE", here, **bearer)[0] == 204
    assert ask("GET", "/login")[0] == 200
    assert ask("GET", "/readyz")[0] == 200
    assert ask("GET", "/api/v1/openapi.json")[0] == 200
    for path in ("/", "/static/base.css"):
        assert ask("GET", path)[0] == 200, path
    torch = inside(
        container, "python3", "-c", "import importlib.util as u; print(u.find_spec('torch'))"
    )
    assert torch == "None", "torch is in the image"
    size = inside(container, "sh", "-c", "id -u; ls -ld /data; df -h /data | tail -1")
    print(size)
    print("probe passed:", "refused" if shown["refused"] else shown["label"])


if __name__ == "__main__":
    main(sys.argv[1])
