"""A process that runs commands on one implementation of the core and counts their CPU time.

The parent chooses the implementation in the environment, sends one JSON request per line and gets
one JSON answer per line; the end of its input ends the worker, whose keys are deleted before.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable
from itertools import cycle, islice
from typing import Any, NamedTuple

from .. import Client, __impl__
from . import EXPIRE, PATIENCE

MANY = 100  # keys of a get_many and a set_many
VALUE_SIZE = 100  # bytes


class Job(NamedTuple):
    """What is timed."""

    run: Callable[[int], None]  # so many commands
    keys: int  # of a command
    most: int  # commands between two looks at the clock


class Jobs:
    """The jobs, under their names; each checks what came back last."""

    def __init__(self, client: Client, prefix: str) -> None:
        self._client = client
        self._items = {
            f"{prefix}item:{number}": f"{number:0{VALUE_SIZE}}".encode() for number in range(MANY)
        }
        self._keys = list(self._items)
        self._value = b"v" * VALUE_SIZE
        self._next = cycle(self._keys)
        self._written = f"{prefix}written"
        self.jobs = {
            "get": Job(self.get, 1, 64),
            "set": Job(self.set, 1, 64),
            "set, noreply": Job(self.set_noreply, 1, 512),
            f"get_many, {MANY} keys": Job(self.get_many, MANY, 8),
            f"set_many, {MANY} keys": Job(self.set_many, MANY, 8),
        }
        self.set_many(1)

    def get(self, count: int) -> None:
        get, key = self._client.get, ""
        for key in islice(self._next, count):
            value = get(key)
        self._check(value, self._items[key])

    def set(self, count: int) -> None:
        set_, key, value = self._client.set, self._written, self._value
        for _ in range(count):
            stored = set_(key, value, EXPIRE, False)
        self._check(stored, True)

    def set_noreply(self, count: int) -> None:
        set_, key, value = self._client.set, self._written, self._value
        for _ in range(count):
            set_(key, value, EXPIRE, True)
        # One that is answered: it comes back when the server has done the others.
        self._check(self._client.get(key), value)

    def get_many(self, count: int) -> None:
        get_many, keys = self._client.get_many, self._keys
        for _ in range(count):
            found = get_many(keys)
        self._check(found, self._items)

    def set_many(self, count: int) -> None:
        set_many, items = self._client.set_many, self._items
        for _ in range(count):
            failed = set_many(items, EXPIRE, False)
        self._check(failed, [])

    def clean(self) -> None:
        self._client.delete_many([*self._keys, self._written], noreply=False)

    def _check(self, got: Any, wanted: Any) -> None:
        if got != wanted:
            raise ValueError(f"expected {wanted!r:.60}, got {got!r:.60}")


def cpu_clock() -> tuple[str, Callable[[], float]]:
    """What is counted, and the function that gives this process's seconds of it so far."""
    try:
        from resource import RUSAGE_SELF, getrusage
    except ImportError:
        return "CPU", time.process_time
    return "user CPU", lambda: getrusage(RUSAGE_SELF).ru_utime


def measure(job: Job, seconds: float, clock: Callable[[], float]) -> dict[str, float]:
    """Run commands for about `seconds`: how many, the CPU seconds they took, and the seconds.

    The first look at the clock comes after one command: a server that is slow or far away must not
    turn a part of a second into many.
    """
    commands, batch = 0, 1
    cpu, started = clock(), time.perf_counter()
    while True:
        job.run(batch)
        commands += batch
        elapsed = time.perf_counter() - started
        if elapsed >= seconds:
            return {"commands": commands, "cpu": clock() - cpu, "seconds": elapsed}
        batch = min(batch * 2, job.most)


def main() -> None:
    # Ctrl-C is the parent's business, which then closes the input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    counted, clock = cpu_clock()

    def answer(**what: Any) -> None:
        print(json.dumps(what), flush=True)

    answer(impl=__impl__)
    given = json.loads(sys.stdin.readline())
    with Client(given["server"], connect_timeout=PATIENCE, timeout=PATIENCE) as client:
        try:
            jobs = Jobs(client, given["prefix"])
            answer(counted=counted, jobs={name: job.keys for name, job in jobs.jobs.items()})
            for line in sys.stdin:
                request = json.loads(line)
                answer(**measure(jobs.jobs[request["job"]], request["seconds"], clock))
            jobs.clean()
        except Exception as error:
            answer(error=str(error) or type(error).__name__)


if __name__ == "__main__":
    main()
