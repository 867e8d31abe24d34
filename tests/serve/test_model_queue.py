"""The queue in front of the model: places, batches, deadlines, those who left, the end."""

import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from cxr.errors import InputError
from cxr.serve.model_queue import ModelQueue
from cxr.serve.watched_bundle import Busy

IMAGE = np.full((64, 48), 7, np.uint8)


@dataclass
class Answer:
    probs: dict[str, float]
    level: float
    value: int


class Slow:
    """A model that can be held, and writes down its batches."""

    labels, members = ("a", "b"), ("m",)
    fingerprint, note = "f", ""

    def __init__(self) -> None:
        self.go, self.called = threading.Event(), threading.Event()
        self.info: dict[str, object] = {}
        self.batches: list[list[int]] = []

    def predict_each(self, images, *, level, maps, names):
        if names != ["trial"]:
            self.batches.append([int(image[0, 0]) for image in images])
            self.called.set()
            assert self.go.wait(10)
        for image in images:
            if names == ["trial"]:
                yield Answer({"a": 0.5, "b": 0.5}, level, 0)
            elif image[0, 0] == 0:
                yield InputError("a bad image")
            elif image[0, 0] == 1:
                raise RuntimeError("the model failed")
            else:
                yield Answer({"a": 0.5, "b": 0.5}, level, int(image[0, 0]))


@pytest.fixture
def model() -> Slow:
    return Slow()


@pytest.fixture
def queue(model):
    made = ModelQueue(Path("nowhere"), load=lambda _: model, length=6, batch=4, deadline_s=5)
    yield made
    model.go.set()
    made.stop(2)


def ask(queue: ModelQueue, count: int, **options: object) -> list[threading.Thread]:
    """Start threads that each hold a place and ask; their answers gather in ``answers``."""

    def one(value: int) -> None:
        try:
            with queue.place():
                answers.append(queue.predict(IMAGE + np.uint8(value), **options)[0])
        except Exception as error:
            answers.append(error)

    answers: list[object] = []
    threads = [threading.Thread(target=one, args=(value,)) for value in range(count)]
    for thread in threads:
        thread.start()
        thread.answers = answers
    return threads


def wait_until(said, seconds: float = 5.0) -> None:
    until = time.monotonic() + seconds
    while not said():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.005)


def test_waiting_images_go_together_and_each_gets_its_own_answer(queue, model):
    first = ask(queue, 1)
    assert model.called.wait(5)
    others = ask(queue, 5)
    wait_until(lambda: len(queue._waiting) == 5)
    model.go.set()
    for thread in first + others:
        thread.join()
    assert [len(batch) for batch in model.batches] == [1, 4, 1]
    assert sorted(answer.value for answer in others[0].answers) == [7, 8, 9, 10, 11]


def test_beyond_its_places_it_says_when_to_come_back_and_does_not_wait(queue, model):
    threads = ask(queue, 6)
    wait_until(lambda: queue.in_work == 6)
    with pytest.raises(Busy, match="all places are taken") as caught, queue.place():
        pass
    assert caught.value.reason == "full"
    assert 1 <= caught.value.retry_after_s <= 30
    model.go.set()
    for thread in threads:
        thread.join()
    assert queue.in_work == 0
    with queue.place():
        assert queue.in_work == 1


def test_one_bad_image_spoils_no_other(queue, model):
    model.go.set()
    with pytest.raises(InputError, match="a bad image"):
        queue.predict(np.zeros((64, 64), np.uint8))
    assert queue.predict(IMAGE)[0].value == 7


def test_a_failing_model_fails_the_image_and_not_the_queue(queue, model):
    model.go.set()
    with pytest.raises(RuntimeError, match="the model failed"):
        queue.predict(np.ones((64, 64), np.uint8))
    assert queue.predict(IMAGE)[0].value == 7


def test_a_image_that_waited_too_long_is_given_up_and_never_predicted(model):
    queue = ModelQueue(Path("nowhere"), load=lambda _: model, deadline_s=0.3)
    first = ask(queue, 1)
    assert model.called.wait(5)
    with pytest.raises(Busy, match="no answer within"):
        queue.predict(IMAGE + np.uint8(1))
    model.go.set()
    first[0].join()
    assert queue.predict(IMAGE + np.uint8(2))[0].value == 9
    assert model.batches == [[7], [9]]
    queue.stop(2)


def test_a_image_nobody_waits_for_is_dropped_when_its_turn_comes(queue, model):
    first = ask(queue, 1)
    assert model.called.wait(5)
    gone = ask(queue, 1, alive=lambda: False)
    wait_until(lambda: len(queue._waiting) == 1)
    model.go.set()
    for thread in first + gone:
        thread.join()
    assert gone[0].answers[0].reason == "gone"
    assert model.batches == [[7]]


def test_the_end_answers_who_was_admitted_and_admits_nobody(queue, model):
    threads = ask(queue, 3)
    wait_until(lambda: queue.in_work == 3)
    ending = threading.Thread(target=queue.stop, args=(5,))
    ending.start()
    wait_until(lambda: queue._stopping)
    with pytest.raises(Busy, match="all places are taken"), queue.place():
        pass
    model.go.set()
    ending.join()
    for thread in threads:
        thread.join()
    assert [type(answer).__name__ for answer in threads[0].answers] == ["Answer"] * 3


def test_without_a_bundle_it_says_so_at_once():
    def load(_: Path) -> Slow:
        raise InputError("bundle.json is missing")

    queue = ModelQueue(Path("nowhere"), load=load, deadline_s=5)
    with pytest.raises(Busy, match=r"bundle\.json is missing"):
        queue.predict(IMAGE)
    queue.stop(1)
