"""What a client counts about itself: always on, exact, readable at once from any thread.

`Tally` is what it counts in, one for each client of one server; `Counters` and `ClusterCounters`
are what users see of it.  Nothing in here may take a lock: it is used on every command, in
finalizers and in signal handlers.  Instead every number is changed by one `+=` with no call in it,
within which the interpreter neither switches threads nor runs handlers; the compiled way
(`core.PlainCalls`) adds in C.
"""

from __future__ import annotations

from types import MappingProxyType

from . import forks
from .core import Cells
from .log import warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from .exceptions import MemcacheError

_NUMBERS = (
    "commands",
    "hits",
    "misses",
    "retries",
    "reconnects",
    "evicted",
    "noreply_errors",
    "noreply_lost",
)


class Counters:
    """What a client has counted up to a moment; it does not change any more.

    Numbers only grow, from 0 when the client (or, after a fork, the process) began:

    * `commands`: requests that came to an end, well or not; one for each call, and in a cluster one
      for each node that a call was sent to.  What is refused before anything is sent is none.
    * `hits`, `misses`: keys that were fetched, each as often as it was asked for.  A value that the
      serde refuses is a miss.  A fetch that fails counts neither.
    * `errors`: what went wrong, by the name of the exception's class; errors that `ignore_exc`
      hides are counted all the same.
    * `retries`: fetches that were sent once more since the server had closed an idle connection.
    * `reconnects`: connections made in the place of one that had failed or was of no use any more.
    * `evicted`: connections closed since nobody had used them for a while.
    * `noreply_errors`: noreply commands that the server answered with an error, as the barrier
      before a later command has found.
    * `noreply_lost`: noreply commands whose connection failed before they were acknowledged.
    """

    __module__ = "cymemcache"

    __slots__ = (*_NUMBERS, "errors")

    commands: int
    hits: int
    misses: int
    retries: int
    reconnects: int
    evicted: int
    noreply_errors: int
    noreply_lost: int
    errors: Mapping[str, int]

    def __init__(self, numbers: Mapping[str, int], errors: dict[str, int]) -> None:
        for name in _NUMBERS:
            object.__setattr__(self, name, numbers.get(name, 0))
        object.__setattr__(self, "errors", MappingProxyType(errors))

    def __reduce__(self) -> tuple[type[Counters], tuple[Any, ...]]:
        # By name: one that was pickled when less was counted can still be loaded.
        numbers = self.as_dict()
        errors = numbers.pop("errors")
        return Counters, (numbers, errors)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__} cannot be changed")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} cannot be changed")

    def as_dict(self) -> dict[str, Any]:
        """The same as a dict of one's own."""
        return {**{name: getattr(self, name) for name in _NUMBERS}, "errors": dict(self.errors)}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Counters):
            return NotImplemented
        return self.as_dict() == other.as_dict()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.as_dict().items())
        return f"{type(self).__name__}({shown})"


class ClusterCounters(Counters):
    """The sum of what the clients of a cluster's nodes have counted, and each node's own.

    Nodes that were removed stay here, and go on from there when they are added again.  What was not
    sent since a node is down is in its `errors` alone, as MemcacheNodeDownError; where no node is
    left it is in those of no node.
    """

    __module__ = "cymemcache"

    __slots__ = ("nodes",)

    nodes: Mapping[str, Counters]

    def __init__(self, parts: list[Counters], nodes: dict[str, Counters]) -> None:
        numbers = total(parts).as_dict()
        errors = numbers.pop("errors")
        super().__init__(numbers, errors)
        object.__setattr__(self, "nodes", MappingProxyType(nodes))

    def __reduce__(self) -> tuple[type[ClusterCounters], tuple[Any, ...]]:
        numbers = self.as_dict()
        errors = numbers.pop("errors")
        return ClusterCounters, ([Counters(numbers, errors)], dict(self.nodes))


def total(parts: Iterable[Counters]) -> Counters:
    """The sum of `parts`."""
    parts = list(parts)
    errors: dict[str, int] = {}
    for part in parts:
        for kind, number in part.errors.items():
            errors[kind] = errors.get(kind, 0) + number
    sums = {name: sum(getattr(part, name) for part in parts) for name in _NUMBERS}
    return Counters(sums, errors)


class Tally(Cells):
    """What the client of one server, called `server` in the log, counts in.

    A forked child starts at zero: its parent has counted what went before.  There is no need to be
    told of a fork: nothing can be counted in a child before it has made a connection or failed to.
    """

    def __init__(self, server: str) -> None:
        self.server = server
        self._forks = -1
        self.renew()

    def snapshot(self) -> Counters:
        """What has been counted so far."""
        self.renew()
        numbers = {name: getattr(self, name) for name in _NUMBERS}
        return Counters(numbers, self._errors.copy())

    def renew(self) -> None:
        """Forget what was counted before the last fork."""
        count = forks.count()
        if self._forks != count:
            self._forks = count
            self.commands = self.hits = self.misses = self.retries = 0
            self.reconnects = self.evicted = self.noreply_errors = self.noreply_lost = 0
            self._gone = 0  # connections in whose place none has been made yet
            self._errors: dict[str, int] = {}

    def fetched(self, keys: list[Any], found: dict[Any, Any]) -> None:
        """`found` are those of `keys`, each given any number of times, that were there."""
        hits = asked = len(keys)
        if len(found) != asked:
            hits = sum(map(found.__contains__, keys))
        misses = asked - hits
        self.hits += hits
        self.misses += misses

    def failed(self, error: BaseException) -> None:
        """A command came to its end with `error`."""
        self.error(error)
        self.commands += 1

    def error(self, error: BaseException) -> None:
        """Something went wrong, which may be ignored."""
        self.renew()
        kind = type(error).__name__
        errors = self._errors
        errors.setdefault(kind, 0)
        errors[kind] += 1

    def add(self, counted: Counters) -> None:
        """`counted` was counted elsewhere; nobody but the caller may count here, save errors."""
        self.renew()
        for name in _NUMBERS:
            setattr(self, name, getattr(self, name) + getattr(counted, name))
        errors = self._errors
        for kind, number in counted.errors.items():
            errors.setdefault(kind, 0)
            errors[kind] += number

    # -- what connections tell ---------------------------------------------------------------------

    def connected(self) -> None:
        """A connection was made."""
        self.renew()
        if self._gone > 0:
            self._gone -= 1
            self.reconnects += 1

    def disconnected(self) -> None:
        """A connection failed, or was found to be of no use."""
        self.renew()
        self._gone += 1

    def expired(self) -> None:
        """A connection was of no use since nobody had used it for too long."""
        self.renew()
        self.evicted += 1

    def report(self, commands: int, errors: list[MemcacheError]) -> None:
        """`errors` came in answer to some of `commands` noreply commands."""
        number = len(errors)
        self.noreply_errors += number
        warn(
            "%s: %d of %d noreply commands failed; the first error: %s: %s",
            self.server,
            number,
            commands,
            type(errors[0]).__name__,
            errors[0],
        )

    def report_no_barrier(self) -> None:
        """The server does not know the barrier behind noreply commands."""
        warn(
            "%s: the server does not know the command 'version'; "
            "noreply commands wait for their replies from now on",
            self.server,
        )

    def count_lost(self, commands: int) -> None:
        """A connection went with `commands` noreply commands unacknowledged on it."""
        self.noreply_lost += commands

    def report_lost(self, commands: int) -> None:
        """Count them, and say so."""
        self.count_lost(commands)
        warn(
            "%s: the connection failed with %d noreply commands not acknowledged",
            self.server,
            commands,
        )
