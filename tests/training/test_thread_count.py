"""As many threads as there are processors free."""

import time

import pytest
import torch

from cxr.training import thread_count
from cxr.training.thread_count import ThreadCount, _Reading, free_threads


@pytest.fixture
def threads(monkeypatch):
    """Return a count that begins at two, whatever was in force, and give that back."""
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(thread_count, "EVERY_S", 0.0)
    torch.set_num_threads(2)
    yield ThreadCount()
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("times", "threads", "most", "expected"),
    [
        ({"ran": 20, "waited": 0}, 2, 2, 2),
        ({"ran": 19, "waited": 1}, 2, 2, 2),
        ({"ran": 13, "waited": 7}, 2, 2, 1),  # beside one busy program
        ({"ran": 6, "waited": 14}, 2, 2, 1),  # beside two
        ({"ran": 1, "waited": 99}, 1, 2, 1),  # at least one
        ({"ran": 150, "waited": 10}, 16, 16, 15),  # all wait for the one that shares
        ({"ran": 10, "waited": 0, "idle": 10}, 1, 2, 2),  # free again
        ({"ran": 10, "waited": 0, "idle": 4}, 1, 2, 1),
        ({"ran": 10, "waited": 0, "idle": 150}, 1, 4, 4),  # never more than it began with
        ({"ran": -3, "waited": 1}, 2, 2, 2),  # a thread ended
    ],
)
def test_threads_follow_what_the_machine_gives(times, threads, most, expected):
    before, after = _Reading(now=0.0), _Reading(now=10.0, **times)

    assert free_threads(before, after, threads, most) == expected


def test_a_busy_machine_takes_a_thread_away_and_gives_it_back(threads, monkeypatch, caplog):
    readings = [
        _Reading(now=0.0),
        _Reading(now=3.0, ran=2.0, waited=4.0),
        _Reading(now=6.0, ran=4.9, waited=4.1, idle=3.0),
    ]
    monkeypatch.setattr(thread_count, "_read", lambda: readings.pop(0))

    counts = []
    for _ in range(3):
        threads.adapt()
        counts.append(torch.get_num_threads())

    assert counts == [2, 1, 2]
    assert threads.used == [2, 1]


def test_a_count_that_was_given_stays(threads, monkeypatch):
    monkeypatch.setattr(thread_count, "_read", lambda: pytest.fail("it looked at the machine"))
    threads.fix(1)
    threads.adapt()
    assert (torch.get_num_threads(), threads.used) == (1, [1])

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    threads.fix(0)
    threads.adapt()


def test_the_next_stage_may_use_all_again(threads, monkeypatch):
    readings = [_Reading(now=0.0), _Reading(now=3.0, ran=2.0, waited=4.0)] * 2
    monkeypatch.setattr(thread_count, "_read", lambda: readings.pop(0))
    threads.adapt()
    threads.adapt()
    assert torch.get_num_threads() == 1

    threads.fix(0)

    assert threads._most == 2
    torch.set_num_threads(1)  # by the caller, between stages: this is what it wants
    assert threads.used == [1]


def test_where_the_system_does_not_tell_the_count_stays(threads, monkeypatch, tmp_path):
    monkeypatch.setattr(thread_count, "OWN_TIMES", tmp_path / "none")
    monkeypatch.setattr(thread_count, "PROCESSOR_TIMES", tmp_path / "stat")

    for _ in range(3):
        threads.adapt()

    assert torch.get_num_threads() == 2


@pytest.mark.skipif(not thread_count.PROCESSOR_TIMES.exists(), reason="/proc is Linux's")
def test_the_times_of_this_process_are_read():
    before = thread_count._read()
    began = time.process_time()
    while time.process_time() - began < 0.2:
        pass
    after = thread_count._read()

    assert after.ran - before.ran > 0.1
    assert after.waited >= before.waited
    assert after.idle >= before.idle
