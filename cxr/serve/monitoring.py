"""What Prometheus reads. Counts and durations only: no user, no film, no file name.

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
    "Films by what was answered: answered, referred, refused",
    ["outcome"],
    registry=REGISTRY,
)
TURNED_AWAY = Counter(
    "cxr_turned_away",
    "Films not predicted: full, deadline, gone, no_model, rate, unreadable, disk, error",
    ["reason"],
    registry=REGISTRY,
)
IN_WORK = Gauge(
    "cxr_films_in_work",
    "Films admitted and not yet answered",
    registry=REGISTRY,
    multiprocess_mode="livesum",
)
MODEL_SECONDS = Histogram(
    "cxr_model_seconds", "Time of one call of the model", buckets=SECONDS, registry=REGISTRY
)
BATCH_FILMS = Histogram(
    "cxr_batch_films",
    "Films in one call of the model",
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


def exposition() -> bytes:
    """Return all figures in Prometheus' text format, summed over the processes."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)
