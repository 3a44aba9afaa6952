"""The loops that are timed, and the clocks around them; nothing else may happen in between."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable
from itertools import repeat
from threading import Event, Thread
from typing import Any

Figures = dict[str, float]


class Stopwatch:
    """User CPU, system CPU and wall time since it was made."""

    def __init__(self) -> None:
        self._usage = resource.getrusage(resource.RUSAGE_SELF)
        self._began = time.perf_counter()

    def seconds(self) -> Figures:
        ended = time.perf_counter()
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "user": usage.ru_utime - self._usage.ru_utime,
            "system": usage.ru_stime - self._usage.ru_stime,
            "wall": ended - self._began,
        }


def alone(
    command: Callable[..., Any],
    arguments: tuple[Any, ...],
    count: int,
    settle: Callable[[], Any] | None,
) -> Figures:
    """Seconds per command of `count` in a row, and one `settle` (which waits for noreply)."""
    watch = Stopwatch()
    if len(arguments) == 1:
        (argument,) = arguments
        for _ in repeat(None, count):
            command(argument)
    else:
        first, second = arguments
        for _ in repeat(None, count):
            command(first, second)
    if settle is not None:
        settle()
    return {what: seconds / count for what, seconds in watch.seconds().items()}


def together(
    command: Callable[[Any], Any],
    argument: Any,
    count: int,
    threads: int,
    leave: Callable[[], Any] | None,
) -> Figures:
    """Seconds per command of about `count` shared out to `threads`, and percentiles of each."""
    each = max(1, count // threads)
    begin = Event()
    ready = [Event() for _ in range(threads)]
    latencies: list[list[int]] = [[] for _ in range(threads)]
    failures: list[BaseException] = []

    def work(number: int) -> None:
        clock, append = time.perf_counter_ns, latencies[number].append
        try:
            command(argument)  # dials
            ready[number].set()
            begin.wait()
            for _ in repeat(None, each):
                began = clock()
                command(argument)
                append(clock() - began)
            if leave is not None:
                leave()
        except BaseException as error:
            failures.append(error)
            ready[number].set()

    workers = [Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for event in ready:
        event.wait()
    watch = Stopwatch()
    begin.set()
    for worker in workers:
        worker.join()
    seconds = watch.seconds()
    if failures:
        raise failures[0]
    found = {what: value / (each * threads) for what, value in seconds.items()}
    nanoseconds = [one for many in latencies for one in many]
    if len(nanoseconds) > 1:
        percentiles = statistics.quantiles(nanoseconds, n=100, method="inclusive")
        found |= {"p50": percentiles[49] / 1e9, "p99": percentiles[98] / 1e9}
    return found
