"""What the clients do: each workload is one command with fixed arguments, done over and over.

Its check runs once per client before anything is timed: a client that gives a wrong result is no
peer to compare with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

VALUE = b"x" * 100
KEYS = [f"key:{number}" for number in range(100)]
ITEMS = dict.fromkeys(KEYS, VALUE)


@dataclass(frozen=True)
class Workload:
    """`arguments` for the client's `command`; `is_right` tells whether its result is."""

    command: str
    arguments: tuple[Any, ...]
    is_right: Callable[[Any], bool]


def _is_value(result: Any) -> bool:
    # The bare loop gives the whole reply.
    return bytes(result) in (VALUE, b"VALUE key:0 0 100\r\n" + VALUE + b"\r\nEND\r\n")


WORKLOADS = {
    "get": Workload("get", (KEYS[0],), _is_value),
    "get_many, 100 keys": Workload("get_many", (KEYS,), lambda result: result == ITEMS),
    "set, with reply": Workload("set", (KEYS[0], VALUE), lambda result: result is True),
    "set_many, 100 keys, with replies": Workload(
        "set_many", (ITEMS,), lambda result: list(result) == []
    ),
}


@dataclass(frozen=True)
class Target:
    """`client` is to need at most `ratio` of the CPU time of `peer`."""

    workload: str
    client: str
    peer: str
    ratio: float


TARGETS = [
    Target("get", "cymemcache", "pymemcache", 0.25),
    Target("get", "cymemcache", "pylibmc", 1.0),
    Target("get_many, 100 keys", "cymemcache", "pymemcache", 1 / 12),
    Target("get_many, 100 keys", "cymemcache", "pylibmc", 0.5),
    Target("set_many, 100 keys, with replies", "cymemcache", "pymemcache", 1 / 6),
    Target("get", "cymemcache (pure)", "pymemcache", 0.8),
]
