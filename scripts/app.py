"""app: serve a bundle on this machine; see --help, and docs/serving.md for more than that."""

import argparse
import os
import sys
from pathlib import Path

from cxr.bundle.format import read_info
from cxr.errors import InputError

HELLO = """\
{note}
model     {bundle} ({classes})
data      {data}
address   http://127.0.0.1:{port}
account   in another terminal: CXR_DATA_FOLDER={data} flask --app cxr.serve users add NAME
stop      Ctrl-C
"""


def main() -> None:
    """Check the bundle, say where to go, and become gunicorn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path, help="folder that scripts/export.py wrote")
    parser.add_argument(
        "--data", type=Path, default=Path("outputs/app"), help="folder of accounts, images, results"
    )
    parser.add_argument("--port", type=int, default=5000)
    given = parser.parse_args()
    try:
        info = read_info(given.bundle)
    except InputError as error:
        sys.exit(f"error: {error}")
    classes = ", ".join(info["labels"])
    where = {"bundle": given.bundle, "data": given.data, "port": given.port}
    print(HELLO.format(note=info["note"], classes=classes, **where), flush=True)
    environment = os.environ | {
        "CXR_BUNDLE": str(given.bundle),
        "CXR_DATA_FOLDER": str(given.data),
        "CXR_BIND": f"127.0.0.1:{given.port}",
    }
    settings = "python:cxr.serve.gunicorn_conf"
    command = ["-m", "gunicorn", "--config", settings, "cxr.serve:create_app()"]
    os.execve(sys.executable, [sys.executable, *command], environment)


if __name__ == "__main__":
    main()
