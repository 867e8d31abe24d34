"""The bundle that answers now, and how it is replaced while the server runs.

Its files are watched: a changed bundle is loaded and tried beside the old one, then swapped in;
a bad one changes nothing but a line in the log.
"""

import contextlib
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cxr.bundle.predictor import Predictor
from cxr.errors import InputError, reason_of
from cxr.serve import monitoring

log = logging.getLogger(__name__)

TRIAL_SIDE_PX = 64


class RetryError(Exception):
    """Not now, but in ``retry_after_s`` seconds."""

    def __init__(self, message: str, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Busy(RetryError):
    """The image cannot be predicted now.

    ``reason`` is a word for the metrics: ``full`` (no place is free), ``deadline`` (it waited for
    too long), ``gone`` (nobody waits any more) or ``no_model`` (no usable bundle is loaded).
    """

    def __init__(self, reason: str, message: str, retry_after_s: int = 1) -> None:
        super().__init__(message, retry_after_s)
        self.reason = reason


class WatchedBundle:
    """A bundle, the predictor that ``load`` makes of it, and the thread that watches it.

    The files are looked at every ``watch_s``; a bundle without prediction sets of ``level`` is
    refused.
    """

    def __init__(
        self,
        bundle: Path,
        load: Callable[[Path], Predictor],
        *,
        level: float = 0.9,
        watch_s: float = 5.0,
    ) -> None:
        self.bundle = bundle
        self._level, self._load, self._watch_s = level, load, watch_s
        self._predictor: Predictor | None = None
        self._fault = "the model is being loaded"
        self._seen: tuple[Any, ...] = ()
        self._loading = threading.Lock()
        self._loaded, self._wake = threading.Event(), threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None

    @property
    def predictor(self) -> Predictor:
        """Return the predictor, or raise Busy, which says why there is none."""
        if self._predictor is None:
            raise Busy("no_model", self._fault, 5)
        return self._predictor

    def start(self) -> None:
        """Start loading and watching in a thread; once is enough."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="cxr-bundle", daemon=True)
            self._thread.start()

    def wait(self, timeout_s: float) -> bool:
        """Wait until the first load is over, well or not; return whether it is."""
        return self._loaded.wait(timeout_s)

    def stop(self, timeout_s: float = 5.0) -> None:
        """End the thread."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def ask_reload(self) -> None:
        """Let the thread load the bundle again; safe in a signal handler."""
        self._wake.set()

    def reload(self) -> bool:
        """Load the bundle, try it, swap it in; return whether the new one answers now."""
        with self._loading:
            self._seen = _signature(self.bundle)
            before = self._predictor and self._predictor.fingerprint
            try:
                fresh = self._load(self.bundle)
                _try(fresh, self._level)
            except Exception as error:  # the old model goes on, whatever ails the new one
                kind, detail = type(error).__name__, reason_of(error, 1000)
                # Nothing is known of an error that is not ours: its kind is all that users see.
                reason = detail if isinstance(error, InputError) else kind
                self._fault = f"the bundle cannot be used: {reason}"
                monitoring.RELOADS.labels("refused").inc()
                fields = {"error": kind, "detail": detail, "kept": before}
                log.error("bundle refused", extra={"fields": fields})
                return False
            self._predictor = fresh
            monitoring.RELOADS.labels("loaded").inc()
            monitoring.MODEL_LOADED.set(1)
            fields = {"fingerprint": fresh.fingerprint, "before": before}
            log.info("bundle loaded", extra={"fields": fields})
            return True

    def _watch(self) -> None:
        """Load the bundle, and again whenever it has changed or somebody asks.

        A bundle that still changes from one look to the next is being copied: it can wait.
        """
        self.reload()
        self._loaded.set()
        before = self._seen
        while not self._stopping:
            requested = self._wake.wait(self._watch_s)
            self._wake.clear()
            now = _signature(self.bundle)
            settled, before = now == before, now
            if not self._stopping and (requested or (settled and now != self._seen)):
                self.reload()


def _try(predictor: Predictor, level: float) -> None:
    """Predict one image, so that a bundle that loads but cannot answer is refused."""
    image = np.linspace(0, 255, TRIAL_SIDE_PX**2).astype(np.uint8).reshape(TRIAL_SIDE_PX, -1)
    for answer in predictor.predict_each([image], level=level, maps=True, names=["trial"]):
        if isinstance(answer, BaseException):
            raise answer
        values = list(answer.probs.values())
        if len(values) != len(predictor.labels) or not np.isfinite(values).all():
            raise InputError(f"the model answers {values} for {len(predictor.labels)} classes")


def _signature(bundle: Path) -> tuple[Any, ...]:
    """Return what changes when a file of the bundle does: name, size, time, inode."""
    states = []
    with contextlib.suppress(OSError):
        for path in sorted(bundle.iterdir()):
            state = path.stat()
            states.append((path.name, state.st_size, state.st_mtime_ns, state.st_ino))
    return tuple(states)
