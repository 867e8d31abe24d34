"""The bounded queue in front of the model, the one place that admits: one model per process.

An image takes a place before anything is done with it and gives it back once it is answered and
stored. Beyond ``length`` places the answer is "come back in so many seconds", so that waiting
stays short and memory flat. Waiting images go to the model together.
"""

import contextlib
import math
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxr.bundle.predictor import Prediction, Predictor
from cxr.imaging.read import DecodedImage
from cxr.serve import monitoring
from cxr.serve.watched_bundle import Busy, WatchedBundle

NAME = "the image"
"""What errors call it: its file's name is nobody's business."""
LONGEST_RETRY_S = 30
PACE_WEIGHT = 0.2
"""Weight of the newest call in the running mean of seconds per image."""


@dataclass
class _Job:
    """An image that waits for the model."""

    image: DecodedImage | NDArray[np.uint8]
    alive: Callable[[], bool] | None
    answer: Future[Any] = field(default_factory=Future)


class ModelQueue:
    """Places, the waiting line, and the thread that calls the model that ``load`` makes.

    Threads start with the first image or with ``start``, in the process that serves. ``length``
    images are in the process at once, from upload to answer, ``batch`` in one call of the model;
    one waits at most ``deadline_s`` from joining the line to the answer. See ``WatchedBundle``.
    """

    def __init__(
        self,
        bundle: Path,
        *,
        load: Callable[[Path], Predictor],
        length: int = 6,
        batch: int = 4,
        deadline_s: float = 30.0,
        watch_s: float = 5.0,
        level: float = 0.9,
    ) -> None:
        self.model = WatchedBundle(bundle, load, level=level, watch_s=watch_s)
        self.length, self.deadline_s, self._batch, self._level = length, deadline_s, batch, level
        self._waiting: deque[_Job] = deque()
        self._state = threading.Condition()
        self.in_work, self._stopping = 0, False
        self._pace_s = 0.2
        # Its thread starts with the first image: in the process that serves, not before a fork.
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="cxr-model")

    def loaded_predictor(self) -> Predictor:
        """Return the model that answers now, or start loading it and wait where nobody has."""
        self.start()
        self.model.wait(self.deadline_s)
        return self.model.predictor

    def start(self) -> None:
        """Start to load the model, once."""
        with self._state:
            if not self._stopping:
                self.model.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Take no more images, answer those admitted, end the threads."""
        with self._state:
            self._stopping = True
            self._state.wait_for(lambda: self.in_work == 0, timeout_s)
        self.model.stop(1.0)
        self._worker.shutdown(wait=False, cancel_futures=True)

    def check_room(self) -> None:
        """Raise Busy where an image would not be admitted, before its bytes are read."""
        if self._stopping or self.in_work >= self.length:
            monitoring.TURNED_AWAY.labels("full").inc()
            words = "all places are taken: come back in a moment"
            raise Busy("full", words, self._retry_after())

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place while an image is predicted and stored, or raise Busy: none is free."""
        with self._state:
            self.check_room()
            self.in_work += 1
        monitoring.IN_WORK.inc()
        try:
            yield
        finally:
            monitoring.IN_WORK.dec()
            with self._state:
                self.in_work -= 1
                self._state.notify_all()

    def predict(
        self, image: DecodedImage | NDArray[np.uint8], *, alive: Callable[[], bool] | None = None
    ) -> tuple[Prediction, Predictor]:
        """Wait for the model's answer; hold a place meanwhile.

        ``alive`` tells whether somebody still waits; else the image is dropped when its turn comes.

        Returns:
            The Prediction, with heat maps, and the model that made it.

        Raises:
            InputError: the image cannot be read.
            Busy: the deadline passed, no usable bundle is loaded, or ``alive`` said no.
        """
        self.loaded_predictor()  # raises at once while there is none
        job = _Job(image, alive)
        self._waiting.append(job)
        self._worker.submit(self._answer_waiting)
        try:
            answer: tuple[Prediction, Predictor] = job.answer.result(self.deadline_s)
            return answer
        except TimeoutError:
            job.answer.cancel()
            words = f"no answer within {self.deadline_s:g} s: come back later"
            raise Busy("deadline", words, self._retry_after()) from None

    def _retry_after(self) -> int:
        seconds = math.ceil(self._pace_s * max(1, self.in_work))
        return min(LONGEST_RETRY_S, max(1, seconds))

    def _answer_waiting(self) -> None:
        """Answer up to a batch of those that are waited for; one call may answer for several."""
        jobs: list[_Job] = []
        while self._waiting and len(jobs) < self._batch:
            job = self._waiting.popleft()
            if not job.answer.set_running_or_notify_cancel():
                continue
            if job.alive is not None and not job.alive():
                job.answer.set_exception(Busy("gone", "the client has gone"))
            else:
                jobs.append(job)
        if not jobs:
            return
        began = time.monotonic()
        self._answer(jobs)
        took_s = time.monotonic() - began
        self._pace_s += PACE_WEIGHT * (took_s / len(jobs) - self._pace_s)
        monitoring.MODEL_SECONDS.observe(took_s)
        monitoring.BATCH_IMAGES.observe(len(jobs))

    def _answer(self, jobs: list[_Job]) -> None:
        try:
            predictor, images = self.model.predictor, [job.image for job in jobs]
            names = [NAME] * len(jobs)
            answers = predictor.predict_each(images, level=self._level, maps=True, names=names)
            for job, answer in zip(jobs, answers, strict=True):
                if isinstance(answer, BaseException):
                    job.answer.set_exception(answer)
                else:
                    job.answer.set_result((answer, predictor))
        except Exception as error:  # one batch's failure must not end the thread
            for job in jobs:
                if not job.answer.done():
                    job.answer.set_exception(error)


def client_watch(environ: dict[str, Any]) -> Callable[[], bool] | None:
    """Return what tells whether the client still holds its connection, where one can know.

    gunicorn hands its socket along: a read that finds the end means that nobody is there.
    """
    sock = environ.get("gunicorn.socket")
    if not isinstance(sock, socket.socket):
        return None

    def alive() -> bool:
        try:
            return sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False

    return alive
