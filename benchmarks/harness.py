"""The measuring: one memcached, a worker process per client, rounds in which all take turns.

A round does one workload with one client for about `seconds`; the clients take turns in rotating
order, so that whatever else the machine does meets all of them alike.  Medians over the rounds are
what counts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from cymemcache.testing import MemcachedProcess

from .clients import CLIENTS, Address
from .workloads import KEYS, VALUE


@dataclass
class Measured:
    """What was measured: seconds per command of each round, by workload and client."""

    versions: dict[str, dict[str, str]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    rounds: dict[str, dict[str, list[dict[str, float]]]] = field(default_factory=dict)


class Worker:
    """A process with one client in it."""

    def __init__(self, name: str, address: Address, processor: int | None) -> None:
        _, environment = CLIENTS[name]
        command = [sys.executable, "-m", "benchmarks.worker", name, address[0], str(address[1])]
        self._process = subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        if processor is not None:
            os.sched_setaffinity(self._process.pid, {processor})

    def ask(self, question: dict[str, Any]) -> Any:
        """The answer to `question`.  Raises `WorkerFailed` where the worker gives none."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # its last words are read below
        return self.answer()

    def answer(self) -> Any:
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        line = self._process.stdout.readline()
        if not line:
            words = self._process.stderr.read().strip().splitlines()
            raise WorkerFailed(words[-1] if words else "its worker ended without a word")
        return json.loads(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()


class WorkerFailed(Exception):
    """A worker could not make its client, or a result was wrong; the message says why."""


def measure(
    workloads: Sequence[str],
    clients: Sequence[str],
    rounds: int,
    seconds: float,
    pinned: bool,
    progress: Callable[[str, int, int], None],
) -> Measured:
    """Measure `workloads` with `clients`; `progress` is told what is done of how much.

    With `pinned` all processes share one processor: a client's CPU time then does not depend on
    whether the scheduler happened to put it beside the server or away from it.
    """
    measured = Measured()
    processor = max(os.sched_getaffinity(0)) if pinned else None
    with ExitStack() as stack:
        memcached = stack.enter_context(MemcachedProcess("-t", "1"))
        if processor is not None:
            for thread in os.listdir(f"/proc/{memcached.pid}/task"):
                os.sched_setaffinity(int(thread), {processor})
        workers: dict[str, Worker] = {}
        for name in clients:
            worker = stack.enter_context(Worker(name, memcached.address, processor))
            try:
                measured.versions[name] = worker.answer()
                workers[name] = worker
            except WorkerFailed as error:
                measured.missing[name] = str(error)
        _fill(memcached.address)
        for number, workload in enumerate(workloads):
            _measure_one(workload, workers, rounds, seconds, measured)
            progress(workload, number + 1, len(workloads))
    return measured


def _fill(address: Address) -> None:
    from cymemcache import Client

    with Client(address) as client:
        client.set_many(dict.fromkeys(KEYS, VALUE), noreply=False)


def _measure_one(
    workload: str, workers: dict[str, Worker], rounds: int, seconds: float, measured: Measured
) -> None:
    counts = {}
    results: dict[str, list[dict[str, float]]] = {}
    for name, worker in list(workers.items()):
        try:
            if worker.ask({"workload": workload}) is not None:
                counts[name] = _calibrated(worker, workload, seconds)
                results[name] = []
        except WorkerFailed as error:
            measured.missing[name] = f"{workload}: {error}"
            del workers[name]
    names = list(counts)
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            count = counts[name]
            taken = workers[name].ask({"workload": workload, "count": count})
            results[name].append({what: taken[what] / count for what in taken})
    measured.rounds[workload] = results


def _calibrated(worker: Worker, workload: str, seconds: float) -> int:
    """How many commands take about `seconds` of wall time."""
    count = 10
    while True:
        wall = worker.ask({"workload": workload, "count": count})["wall"]
        if wall > seconds / 10 or count > 1e8:
            return max(1, round(count * seconds / wall))
        count *= 4
