"""What the clients do: each workload is one command with fixed arguments, done over and over.

A workload says what is asked of a client and of which servers, never how a client does it.  Its
check runs once per client before anything is timed: a client that gives a wrong result is no peer
to compare with.  Nothing in here may touch a socket.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

TIMEOUT = 1.0  # seconds, for everything
IDLE_CONNECTIONS = 1000
# Bytes of the values that a process fetches when it is measured as a whole: see footprint.py.
PROCESS_VALUES = {"import": 0, "peak": 1_000_000, "idle": 10_000}

Items = dict[str, Any]


@dataclass(frozen=True)
class Command:
    """A client's command by its name here: its arguments, and how it is known to have worked."""

    arguments: Callable[[Items], tuple[Any, ...]]
    is_right: Callable[[Any, Items], bool]
    stored: bool = True  # the items are there beforehand
    leaves: bool | None = None  # the items are there afterwards; None: not looked at


def _first(items: Items) -> tuple[str, Any]:
    return next(iter(items.items()))


def _is_success(result: Any, items: Items) -> bool:
    # An empty list: of keys that failed.
    return not isinstance(result, Exception) and (result is None or result in (True, 1, []))


def _as_str(fetched: Any) -> Items:
    # meta-memcache's keys are objects of its own.
    return {getattr(key, "key", key): value for key, value in fetched.items()}


_KEY = Command(lambda items: (_first(items)[0],), lambda result, items: result == _first(items)[1])
_SET = Command(_first, _is_success, stored=False, leaves=True)

COMMANDS = {
    "get": _KEY,
    "get_miss": Command(_KEY.arguments, lambda result, items: result is None, stored=False),
    "set": _SET,
    "set_noreply": _SET,
    "get_many": Command(
        lambda items: (list(items),), lambda result, items: _as_str(result) == items
    ),
    "set_many": Command(lambda items: (items,), _is_success, stored=False, leaves=True),
    "delete_many": Command(lambda items: (list(items),), _is_success, leaves=False),
    "incr": Command(
        lambda items: (_first(items)[0], 1),
        lambda result, items: type(result) is int and result > int(_first(items)[1]),
    ),
    "cas_loop": Command(_first, _is_success, leaves=True),
    "get_node": Command(_KEY.arguments, lambda result, items: type(result) is str, stored=False),
    # These three are whole processes: see footprint.py.
    "import": Command(lambda items: (), lambda result, items: True, stored=False),
    "peak": Command(lambda items: (), lambda result, items: True, stored=False),
    "idle": Command(lambda items: (), lambda result, items: True, stored=False),
}


@dataclass(frozen=True)
class Workload:
    """`command` with `count` items of the value `value` (or what it makes of the item's number).

    `shape` is the kind of client: ``"single"`` for one server, ``"shared"`` by several threads,
    ``"cluster"`` for several nodes, ``"hasher"`` for the choice of a node alone, ``"process"`` for
    what is measured on a whole process.
    """

    command: str
    count: int = 1
    value: Any = b"x" * 100
    shape: str = "single"
    transport: str = "tcp"  # or "unix", "tls"
    timed: bool = True  # clients have a time limit
    pickled: bool = False  # the stock pickle serde, which stores str and int without pickle
    nodes: int = 1
    threads: int = 1

    def items(self, namespace: str) -> Items:
        """The keys, which begin with `namespace`, and their values."""
        value = self.value
        # Keys that no other workload leaves behind.
        word = "not" if self.command in ("get_miss", "delete_many") else "key"
        return {
            f"{namespace}:{word}:{number:03}": value(number) if callable(value) else value
            for number in range(self.count)
        }

    @property
    def largest(self) -> int:
        """About how many bytes of values come in one reply."""
        if self.shape == "process":
            return PROCESS_VALUES[self.command]
        return sum(len(v) if isinstance(v, bytes) else 100 for v in self.items("c0").values())


@dataclass(frozen=True)
class Setup:
    """What a client is made for; how it is made is the business of `benchmarks.clients`."""

    servers: tuple[Any, ...]  # (host, port), or the path of a UNIX socket
    command: str = "get"  # what will be asked of it
    largest: int = 100  # bytes of values in one reply
    timeout: float | None = TIMEOUT
    pickled: bool = False
    certificate: str | None = None  # of the authority that TLS servers are verified against
    threads: int = 1


def _text(number: int) -> str:
    return f"the value of item {number:04}, about a hundred characters of text, as names are: " + (
        "Ada" * 10
    )


def _number(number: int) -> int:
    return 1_000_000_007 * (number + 1)


def _record(number: int) -> dict[str, Any]:
    return {"id": number, "name": f"user {number}", "tags": ["a", "b"], "score": number / 3}


_SIZES = {
    "10 B": 10,
    "100 B": 100,
    "1 KB": 1000,
    "10 KB": 10_000,
    "100 KB": 100_000,
    "1 MB": 1_000_000,
}
SIZES = {f"get {name}": size for name, size in _SIZES.items()}  # for the plot over sizes
BATCHES = (1, 10, 100, 1000)
NODES = (1, 4, 16, 64)
THREADS = (1, 2, 4, 8, 16, 32, 64)

WORKLOADS: dict[str, Workload] = {
    **{f"get {name}": Workload("get", value=b"x" * size) for name, size in _SIZES.items()},
    "get, a miss": Workload("get_miss"),
    "get, no timeout": Workload("get", timed=False),
    "get, UNIX socket": Workload("get", transport="unix"),
    "get, TLS": Workload("get", transport="tls"),
    **{f"set {name}": Workload("set", value=b"x" * size) for name, size in _SIZES.items()},
    "set, noreply": Workload("set_noreply"),
    **{f"get_many {count}": Workload("get_many", count) for count in BATCHES},
    "get_many 100, no timeout": Workload("get_many", 100, timed=False),
    "get_many 100, UNIX socket": Workload("get_many", 100, transport="unix"),
    "get_many 100, TLS": Workload("get_many", 100, transport="tls"),
    **{f"set_many {count}": Workload("set_many", count) for count in BATCHES},
    "delete_many 100": Workload("delete_many", 100),
    "incr": Workload("incr", value=b"1"),
    "cas loop": Workload("cas_loop"),
    **{
        f"{command} 100 {kind}, pickle serde": Workload(command, 100, value, pickled=True)
        for command in ("get_many", "set_many")
        for kind, value in (("str", _text), ("int", _number), ("dict", _record))
    },
    **{f"cluster of {n}, get": Workload("get", shape="cluster", nodes=n) for n in NODES},
    **{
        f"cluster of {n}, {command} 100": Workload(command, 100, shape="cluster", nodes=n)
        for command in ("get_many", "set_many", "delete_many")
        for n in NODES
    },
    **{
        f"rendezvous choice, {n} nodes": Workload("get_node", shape="hasher", nodes=n)
        for n in (4, 64)
    },
    **{f"get, {n} threads": Workload("get", shape="shared", threads=n) for n in THREADS},
    "import": Workload("import", shape="process"),
    "peak memory": Workload("peak", shape="process"),
    f"{IDLE_CONNECTIONS:,} idle connections": Workload("idle", shape="process"),
}
