"""How gunicorn runs the application.

    gunicorn --config python:cxr.serve.gunicorn_conf 'cxr.serve:create_app()'

Threads answer requests; each process holds one model and is made before it loads one, so the
application is not preloaded. SIGHUP to the master makes every process load its bundle again: a
bad bundle changes nothing, whereas gunicorn's own reload would end the server with it.
"""

import functools
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

# Before anything imports numpy: its few small products wake a pool of threads that then spin, 10 ms
# of processor time an image, which the model could use.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Read before anything imports prometheus_client: it looks at the environment only once.
FIGURES = "PROMETHEUS_MULTIPROC_DIR"
_OWN = FIGURES not in os.environ
os.environ.setdefault(FIGURES, f"{tempfile.gettempdir()}/cxr-metrics-{os.getpid()}")
_FIGURES = Path(os.environ[FIGURES])

from cxr.errors import InputError  # noqa: E402
from cxr.serve import logs  # noqa: E402
from cxr.serve.settings import Settings  # noqa: E402

try:
    _settings = Settings.load()
except InputError as _error:
    sys.exit(f"error: {_error}")

bind = os.environ.get("CXR_BIND", "127.0.0.1:5000")
workers = _settings.processes
worker_class = "gthread"
threads = _settings.request_threads
preload_app = False
# An image may wait deadline_s and is then written; a process silent for longer is stuck.
timeout = int(_settings.deadline_s) + 30
graceful_timeout = int(os.environ.get("CXR_GRACEFUL_S", "12"))
keepalive = 5
worker_connections = 200
# The heartbeat file must not lie on a disk that can stall or be full.
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
limit_request_line = 4094
limit_request_fields = 64
limit_request_field_size = 8190
# Which proxies are believed is the application's setting (trusted_proxies), and its alone.
forwarded_allow_ips = ""
control_socket_disable = True
logconfig_dict = logs.config(os.environ.get("CXR_LOG_LEVEL", "INFO"))


def on_starting(server: Any) -> None:
    """Begin with empty figures; those of a former start would be added to the new ones."""
    _FIGURES.mkdir(parents=True, exist_ok=True)
    for left in _FIGURES.glob("*.db"):
        left.unlink()


def when_ready(server: Any) -> None:
    """Take SIGHUP from gunicorn: it means the bundle, not the workers."""
    server.handle_hup = functools.partial(server.kill_workers, signal.SIGHUP)


def post_worker_init(worker: Any) -> None:
    """Load the model in the process that will use it, and again at SIGHUP."""
    queue = worker.wsgi.extensions["cxr"].queue
    signal.signal(signal.SIGHUP, lambda *_: queue.model.ask_reload())
    queue.start()


def worker_exit(server: Any, worker: Any) -> None:
    """Answer the images that were admitted; gunicorn has closed the door already."""
    application = getattr(worker, "wsgi", None)
    if application is not None:
        application.extensions["cxr"].queue.stop(2.0)


def child_exit(server: Any, worker: Any) -> None:
    """Take a process that ended out of the figures that only the living have."""
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def on_exit(server: Any) -> None:
    """Leave nothing behind."""
    if _OWN:
        shutil.rmtree(_FIGURES, ignore_errors=True)
