"""What Prometheus reads. Counts and durations only: no user, no image, no file name.

With several processes each writes its own files below ``PROMETHEUS_MULTIPROC_DIR``, which must
be set before this module is imported (``gunicorn_conf`` does); a scrape adds them up.
"""

import logging
import os
import threading
from functools import partial

from prometheus_client import CollectorRegistry, generate_latest, multiprocess
from prometheus_client import Counter as AnyCounter
from prometheus_client import Gauge as AnyGauge
from prometheus_client import Histogram as AnyHistogram

from cxr.bundle.predictor import Prediction, Predictor
from cxr.reliability.drift import DriftWindow

log = logging.getLogger(__name__)

REGISTRY = CollectorRegistry()
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
Counter = partial(AnyCounter, registry=REGISTRY)
Gauge = partial(AnyGauge, registry=REGISTRY, multiprocess_mode="livesum")
Histogram = partial(AnyHistogram, registry=REGISTRY)

REQUESTS = Counter("cxr_requests", "Requests answered", ["method", "route", "status"])
REQUEST_SECONDS = Histogram("cxr_request_seconds", "Time to answer", ["route"], buckets=SECONDS)
PREDICTIONS = Counter(
    "cxr_predictions", "Images by what was answered: answered, referred, refused", ["outcome"]
)
TURNED_AWAY = Counter(
    "cxr_turned_away",
    "Images not predicted: full, deadline, gone, no_model, rate, unreadable, disk, error",
    ["reason"],
)
IN_WORK = Gauge("cxr_images_in_work", "Images admitted and not yet answered")
MODEL_SECONDS = Histogram("cxr_model_seconds", "Time of one call of the model", buckets=SECONDS)
BATCH_IMAGES = Histogram(
    "cxr_batch_images", "Images in one call of the model", buckets=(1, 2, 4, 8, 16, 32)
)
RELOADS = Counter("cxr_bundle_loads", "Bundle loads: loaded, refused", ["outcome"])
MODEL_LOADED = Gauge("cxr_model_loaded", "Processes that hold a model")
DRIFT = Gauge(
    "cxr_drift",
    "1 where the last full window of images of a process was unlike validation, else 0",
    multiprocess_mode="livemax",
)
DRIFT_PSI = Gauge(
    "cxr_drift_psi",
    "Population stability index of the last full window: score, confidence, refused",
    ["quantity"],
    multiprocess_mode="livemax",
)

OLD_NAMES = {"cxr_images_in_work": "cxr_films_in_work", "cxr_batch_images": "cxr_batch_films"}
"""Series of version 0.1, which are shown beside their new names for one version."""
_WINDOWS: dict[str, DriftWindow] = {}
_LOCK = threading.Lock()


def watch_drift(prediction: Prediction, predictor: Predictor) -> None:
    """Add an image to this process's window, and show what a full one says."""
    with _LOCK:
        if predictor.fingerprint not in _WINDOWS:
            _WINDOWS.clear()
            _WINDOWS[predictor.fingerprint] = DriftWindow(predictor.info.get("drift"))
        window = _WINDOWS[predictor.fingerprint]
        window.add(
            score=prediction.ood_score,
            confidence=max(prediction.probs.values(), default=float("nan")),
            refused=bool(prediction.refused),
        )
        found = window.full()
    if found:
        DRIFT.set(found.alarm)
        for name, value in found.psi.items():
            DRIFT_PSI.labels(name).set(value)
        log.log(logging.WARNING if found.alarm else logging.INFO, "%s", found.sentence)


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
