"""The compiled core against its pure twin: the same commands, on the same server, in turn.

A process runs one implementation only, so each has a worker process.  They work in turn, never at
the same time, in many short rounds: what disturbs the machine meanwhile meets both, and medians
leave it out.  What is compared is the client's own CPU time, which no other process adds to.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from statistics import median
from types import TracebackType
from typing import Any, Self

from .. import __impl__
from . import DemoError
from .screen import Row, Screen

NAMES = {"c": "compiled", "python": "pure"}
_STYLES = {"c": "green", "python": "yellow"}
_STOP_PATIENCE = 5.0  # seconds


@dataclass(frozen=True)
class Effort:
    """How much is measured: rounds, seconds of a job in a round, seconds after which to stop.

    Kernels that count CPU time in ticks need many of them: a job gets half a second in all.
    """

    rounds: int
    slice: float
    limit: float


THOROUGH = Effort(rounds=7, slice=0.07, limit=7.0)
QUICK = Effort(rounds=1, slice=0.005, limit=7.0)


class MissingCore(DemoError):
    """The worker's implementation of the core is not there."""


class Worker:
    """The process that runs `impl`; ends with its ``with`` block, or when this process ends."""

    def __init__(self, impl: str) -> None:
        self.impl = impl
        self._process = subprocess.Popen(
            [sys.executable, "-m", "cymemcache.demo.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            env={**os.environ, "CYMEMCACHE_IMPL": impl},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Closes its input, upon which it deletes its keys and ends.
        try:
            self._process.communicate(timeout=_STOP_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()

    def wait_until_there(self) -> None:
        """Raise `MissingCore`, with the reason, where the implementation cannot be imported."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            _, said = self._process.communicate()
            raise MissingCore((said.strip().splitlines() or ["it ended without a word"])[-1])
        assert json.loads(line) == {"impl": self.impl}

    def ask(self, **what: Any) -> dict[str, Any]:
        """The answer to a request."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(what) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        answer: dict[str, Any] = json.loads(line) if line else {"error": "the process has ended"}
        if "error" in answer:
            raise DemoError(f"timing the {NAMES[self.impl]} core: {answer['error']}")
        return answer


@contextmanager
def workers(screen: Screen) -> Iterator[list[Worker]]:
    """A worker for each implementation that is there; a note says where that is only one."""
    with ExitStack() as stack:
        found = []
        for worker in [stack.enter_context(Worker(impl)) for impl in NAMES]:
            try:
                worker.wait_until_there()
            except MissingCore:
                if worker.impl == "python" or worker.impl == __impl__:
                    raise
                screen.say("  There is no compiled core here, only the pure one. For both, install")
                screen.say("  a wheel for this platform, or build with CYMEMCACHE_BUILD_EXT=1.")
            else:
                found.append(worker)
        yield found


@dataclass(frozen=True)
class Cost:
    """What one command takes: seconds of CPU, and of the clock."""

    cpu: float
    elapsed: float


@dataclass(frozen=True)
class Result:
    """What each job costs on each implementation, and how it was found."""

    keys: dict[str, int]  # of a command
    costs: dict[str, dict[str, Cost]]
    rounds: int
    counted: str


def measure(found: Sequence[Worker], address: Any, prefix: str, effort: Effort) -> Result:
    """Have every worker run every job in turn, round after round; the medians of what they took."""
    for worker in found:
        told = worker.ask(server=address, prefix=f"{prefix}{worker.impl}:")
    jobs, counted = told["jobs"], told["counted"]
    taken: dict[tuple[str, str], list[Cost]] = {
        (job, worker.impl): [] for job in jobs for worker in found
    }
    deadline = time.monotonic() + effort.limit
    rounds = 0
    while rounds < effort.rounds and time.monotonic() < deadline:
        # Who goes first alternates.
        order = found if rounds % 2 == 0 else found[::-1]
        for job in jobs:
            for worker in order:
                took = worker.ask(job=job, seconds=effort.slice)
                commands = took["commands"]
                cost = Cost(took["cpu"] / commands, took["seconds"] / commands)
                taken[job, worker.impl].append(cost)
        rounds += 1
    costs = {
        job: {
            worker.impl: Cost(
                median(cost.cpu for cost in taken[job, worker.impl]),
                median(cost.elapsed for cost in taken[job, worker.impl]),
            )
            for worker in found
        }
        for job in jobs
    }
    return Result(jobs, costs, rounds, counted)


def show(screen: Screen, result: Result) -> None:
    """Print the table of `result`."""
    lines = [
        (job, impl, cost, cost.cpu / result.keys[job])
        for job, by_impl in result.costs.items()
        for impl, cost in by_impl.items()
    ]
    longest = max(per_key for *_, per_key in lines) or 1.0
    compared = all(len(by_impl) > 1 for by_impl in result.costs.values())
    headings = ["command", "core", f"{screen.micro}s/command", "commands/s"]
    headings += ["ratio"] * compared
    rows = []
    shown = ""
    for job, impl, cost, per_key in lines:
        cells = ["" if job == shown else job, NAMES[impl], _figures(cost.cpu * 1e6)]
        cells.append(f"{float(f'{1 / cost.elapsed:.3g}'):,.0f}")
        if compared:
            base = result.costs[job]["c"].cpu
            cells.append(f"{cost.cpu / base:.1f}{screen.times}" if base else "-")
        rows.append(Row(cells, per_key / longest, _STYLES[impl]))
        shown = job
    screen.table(headings, f"{screen.micro}s per key", rows)


def _figures(number: float) -> str:
    return f"{number:.{1 if number < 100 else 0}f}"
