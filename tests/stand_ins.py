"""Stand-ins for connections, for tests of the pools without a socket."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


class Connection:
    """A connection as far as a pool looks at it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.slot: Any = None
        self.idle_seconds: float | None = None
        self.generation = -1
        self.used_at_seconds = 0.0
        self.unacknowledged = 0
        self.closed = 0
        self.discarded = 0
        self.asked: list[bytes] = []
        self.failure: BaseException | None = None
        self.meanwhile: Callable[[], None] | None = None

    def __repr__(self) -> str:
        return f"<{self.number}>"

    def call(self, request: bytes, kind: int) -> bytes:
        self.asked.append(request)
        if self.meanwhile is not None:
            self.meanwhile()
        if self.failure is not None:
            raise self.failure
        return b"1.6"

    def close(self) -> None:
        self.closed += 1
        if self.slot is not None:
            self.slot.end()
            self.slot = None

    expire = close

    def discard(self) -> None:
        self.discarded += 1
        self.close()


class Dialled:
    """Dials stand-ins, numbered from 0."""

    def __init__(self) -> None:
        self.made: list[Connection] = []
        self.meanwhile: Callable[[], None] | None = None

    def __call__(self) -> Any:
        if self.meanwhile is not None:
            self.meanwhile()
        self.made.append(Connection(len(self.made)))
        return self.made[-1]


def in_a_thread(action: Callable[[], Any]) -> Any:
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(action()))
    thread.start()
    thread.join()
    return results[0]
