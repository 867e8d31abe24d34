"""What Prometheus reads. Counts and durations only: no user, no image, no file name.

With several processes each writes its own files below ``PROMETHEUS_MULTIPROC_DIR``, which must
be set before this module is imported (``gunicorn_conf`` does); a scrape adds them up.
"""

import os

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)

REGISTRY = CollectorRegistry()
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

REQUESTS = Counter(
    "cxr_requests", "Requests answered", ["method", "route", "status"], registry=REGISTRY
)
REQUEST_SECONDS = Histogram(
    "cxr_request_seconds", "Time to answer", ["route"], buckets=SECONDS, registry=REGISTRY
)
PREDICTIONS = Counter(
    "cxr_predictions",
    "Images by what was answered: answered, referred, refused",
    ["outcome"],
    registry=REGISTRY,
)
TURNED_AWAY = Counter(
    "cxr_turned_away",
    "Images not predicted: full, deadline, gone, no_model, rate, unreadable, disk, error",
    ["reason"],
    registry=REGISTRY,
)
IN_WORK = Gauge(
    "cxr_images_in_work",
    "Images admitted and not yet answered",
    registry=REGISTRY,
    multiprocess_mode="livesum",
)
MODEL_SECONDS = Histogram(
    "cxr_model_seconds", "Time of one call of the model", buckets=SECONDS, registry=REGISTRY
)
BATCH_IMAGES = Histogram(
    "cxr_batch_images",
    "Images in one call of the model",
    buckets=(1, 2, 4, 8, 16, 32),
    registry=REGISTRY,
)
RELOADS = Counter(
    "cxr_bundle_loads", "Bundle loads: loaded, refused", ["outcome"], registry=REGISTRY
)
MODEL_LOADED = Gauge(
    "cxr_model_loaded",
    "Processes that hold a model",
    registry=REGISTRY,
    multiprocess_mode="livesum",
)


OLD_NAMES = {"cxr_images_in_work": "cxr_films_in_work", "cxr_batch_images": "cxr_batch_films"}
"""Series of version 0.1, which are shown beside their new names for one version."""


def exposition() -> bytes:
    """Return every series in Prometheus' text format, summed over the processes."""
    registry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    text = generate_latest(registry).decode()
    lines = text.splitlines(keepends=True)
    for name, old in OLD_NAMES.items():
        text += "".join(line.replace(name, old) for line in lines if name in line)
    return text.encode()
