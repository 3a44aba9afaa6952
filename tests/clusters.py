"""Clusters for tests: which key belongs to which node, and a clock for the health of nodes."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from cymemcache import HashClient
from wire import PATIENCE

_numbers = itertools.count()


def name_of(address: Any) -> str:
    """What a cluster calls the node at `address`."""
    return address if isinstance(address, str) else "{}:{}".format(*address)


def keys_of(cluster: HashClient, address: Any, count: int, prefix: str = "key") -> list[str]:
    """Keys never used before that belong to the node at `address`, as long as that is not dead."""
    name = name_of(address)
    keys = (f"{prefix}-{number}" for number in _numbers)
    mine = (key for key in keys if cluster.hasher.get_node(key) == name)
    return list(itertools.islice(mine, count))


def key_of(cluster: HashClient, address: Any, prefix: str = "key") -> str:
    return keys_of(cluster, address, 1, prefix)[0]


class Clock:
    """The time by which nodes are failing, dead and due."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("cymemcache.node.monotonic", lambda: self.now)

    def advance(self, seconds: float) -> None:
        self.now += seconds


def in_threads(count: int, function: Callable[[int], Any]) -> list[Any]:
    """What `function` returns, or raises, in each of so many threads that start together."""
    start = threading.Barrier(count)
    outcomes: list[Any] = [None] * count

    def run(number: int) -> None:
        start.wait(PATIENCE)
        try:
            outcomes[number] = function(number)
        except BaseException as error:
            outcomes[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5 * PATIENCE)
        assert not thread.is_alive(), "a thread hangs"
    return outcomes


def raise_first(outcomes: Iterable[Any]) -> None:
    """Raise what one of the threads raised."""
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
