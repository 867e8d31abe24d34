"""As many threads as the machine has processors free, chosen anew every few seconds.

Threads of one operation wait for the last of them, so threads that share processors with another
program are slower than fewer with one each (benchmarks/busy_machine.py). Where the system does not
tell (elsewhere than on Linux), or OMP_NUM_THREADS is set, the count stays.
"""

import contextlib
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch

from cxr.console import log

EVERY_S = 3.0
SPARE = 0.25
"""Share of a processor that may be missing before a thread is taken away."""
PROCESSOR_TIMES = Path("/proc/stat")
OWN_TIMES = Path("/proc/self/task")


@dataclass
class _Reading:
    """Seconds since the machine or the process began."""

    now: float = field(default_factory=time.monotonic)
    ran: float = 0.0
    waited: float = 0.0
    idle: float = 0.0


class ThreadCount:
    """Torch's thread count, of one process.

    Attributes:
        used: every count that was in force, in the order in which they came first. One and two
            threads sum in another order, so the last bits of what is computed depend on it.
    """

    def __init__(self) -> None:
        self._most = self._chosen = torch.get_num_threads()
        self.fix(0)

    def fix(self, threads: int) -> None:
        """Take a count and keep it; 0 leaves it to torch, then takes as many as are free."""
        self._last: _Reading | None = None
        self._adapts = not threads and "OMP_NUM_THREADS" not in os.environ
        if threads:
            torch.set_num_threads(threads)
        if torch.get_num_threads() != self._chosen:  # by the caller, not by an earlier stage
            self._most = self._chosen = torch.get_num_threads()
        self.used = [self._chosen]

    def adapt(self) -> None:
        """Between two batches: change the count if the machine has become busier or freer."""
        if not self._adapts or (self._last and time.monotonic() - self._last.now < EVERY_S):
            return
        before, self._last = self._last, _read()
        if before is None or self._last is None:
            self._adapts = self._last is not None
            return
        wanted = free_threads(before, self._last, self._chosen, self._most)
        if wanted != self._chosen:
            state = "busy" if wanted < self._chosen else "free again"
            log.info("%d of %d threads: the machine is %s", wanted, self._most, state)
            torch.set_num_threads(wanted)
            self._chosen = wanted
            self.used += [wanted] * (wanted not in self.used)


def free_threads(before: _Reading, after: _Reading, threads: int, most: int) -> int:
    """Return how many threads there are processors for.

    Args:
        before: a reading.
        after: another, later.
        threads: in force between them.
        most: never more.
    """
    ran, waited = after.ran - before.ran, after.waited - before.waited
    if ran <= 0 or waited < 0:  # a thread has ended, and its times are gone
        return threads
    given = int(threads * ran / (ran + waited) + SPARE)
    if given < threads:
        return max(1, given)
    idle = (after.idle - before.idle) / (after.now - before.now)
    return min(most, threads + int(idle + SPARE))


def _read() -> _Reading | None:
    """Return what the process ran and waited for a processor, and the allowed processors' idle."""
    reading = _Reading()
    try:
        for times in OWN_TIMES.glob("*/schedstat"):
            with contextlib.suppress(FileNotFoundError):  # that thread has just ended
                ran, waited = times.read_text().split()[:2]
                reading.ran += int(ran) / 1e9
                reading.waited += int(waited) / 1e9
        ticks = os.sysconf("SC_CLK_TCK")
        allowed = {f"cpu{number}" for number in os.sched_getaffinity(0)}
        for line in PROCESSOR_TIMES.read_text().splitlines():
            name, *spent = line.split()
            if name in allowed:
                reading.idle += (int(spent[3]) + int(spent[4])) / ticks
    except (OSError, ValueError, AttributeError):
        return None
    return reading


THREADS = ThreadCount()
