"""Faults that the embedded server can be told to commit, for tests of what a client makes of them.

A fault says what becomes of one reply, given the reply that would have been right; an `Injection`
says which commands it meets.  Nothing in here acts: a fault gives back entries (bytes, `Pause`,
`Hangup`), and the server carries them out in order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Literal, Self, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Pause:
    """Output entry: nothing more is sent, and nothing read, for `seconds`."""

    seconds: float


@dataclass(frozen=True)
class Hangup:
    """Output entry: the connection is closed; with `reset` the client sees it as reset."""

    reset: bool = False


Entry: TypeAlias = bytes | Pause | Hangup


class Fault:
    """What goes wrong with one reply; see `EmbeddedServer.inject`."""

    #: whether it may meet a new connection instead of a command
    on_connect: ClassVar[bool] = True

    @property
    def executes(self) -> bool:
        """Whether the command is executed all the same."""
        return True

    def entries(self, reply: bytes) -> list[Entry]:
        """What is sent in the place of `reply`."""
        raise NotImplementedError


@dataclass(frozen=True)
class Close(Fault):
    """Closes the connection.

    `when` is ``"before"`` the command is executed, once it is ``"executed"`` but not answered, or
    ``"after"`` its reply.  With `reset` the client gets ECONNRESET instead of the end of the
    stream, and may lose what was sent to it before.
    """

    when: Literal["before", "executed", "after"] = "before"
    reset: bool = False

    def __post_init__(self) -> None:
        if self.when not in ("before", "executed", "after"):
            raise ValueError(f"when must be 'before', 'executed' or 'after', not {self.when!r}")

    @property
    def executes(self) -> bool:
        return self.when != "before"

    def entries(self, reply: bytes) -> list[Entry]:
        hangup = Hangup(self.reset)
        return [reply, hangup] if self.when == "after" else [hangup]


@dataclass(frozen=True)
class Delay(Fault):
    """Executes the command at once, but answers it, and reads on, only after `seconds`."""

    seconds: float

    def entries(self, reply: bytes) -> list[Entry]:
        return [Pause(self.seconds), reply]


@dataclass(frozen=True)
class Cut(Fault):
    """Sends the first `at` bytes of the reply, then closes the connection."""

    on_connect: ClassVar[bool] = False

    at: int

    def entries(self, reply: bytes) -> list[Entry]:
        return [reply[: self.at], Hangup()]


@dataclass(frozen=True)
class Trickle(Fault):
    """Sends the reply `size` bytes at a time, with `interval` seconds in between."""

    on_connect: ClassVar[bool] = False

    interval: float
    size: int = 1

    def entries(self, reply: bytes) -> list[Entry]:
        pause = Pause(self.interval)
        entries: list[Entry] = []
        for start in range(0, len(reply), self.size):
            entries += (reply[start : start + self.size], pause)
        return entries[:-1]


@dataclass(frozen=True)
class Answer(Fault):
    """Sends `data` in the place of the reply: garbage, or any reply that a test is about.

    The command is not executed, but with `execute`.  A noreply command is answered too.
    """

    data: bytes = b"\x00garbage\xff\r\n"
    execute: bool = False

    @property
    def executes(self) -> bool:
        return self.execute

    def entries(self, reply: bytes) -> list[Entry]:
        return [self.data]


@dataclass(frozen=True)
class Extra(Fault):
    """Sends `data` after the reply; after nothing where the command was a noreply one."""

    data: bytes

    def entries(self, reply: bytes) -> list[Entry]:
        return [reply, self.data]


@dataclass(frozen=True)
class Hang(Fault):
    """Never answers, and never reads from the connection again."""

    @property
    def executes(self) -> bool:
        return False

    def entries(self, reply: bytes) -> list[Entry]:
        return [Pause(math.inf)]


@dataclass(frozen=True)
class Refuse(Fault):
    """New connections are refused, those that are open go on, until the injection is removed."""

    on_connect: ClassVar[bool] = False


class Injection:
    """One fault at work, as `EmbeddedServer.inject` gives it; leaving a ``with`` block ends it."""

    def __init__(
        self,
        fault: Fault,
        verb: bytes | None,
        key: bytes | None,
        skip: int,
        times: int | None,
        on_connect: bool,
        remove: Callable[[Injection], None],
    ) -> None:
        self.fault = fault
        self.verb = verb
        self.key = key
        self.on_connect = on_connect
        #: how many commands or connections it has met so far
        self.hits = 0
        self._skip = skip
        self._left = times
        self._remove = remove

    def remove(self) -> None:
        """End it; nothing happens where it has ended."""
        self._remove(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.remove()

    def meets(self, verb: bytes, keys: Sequence[bytes]) -> bool:
        """Whether the command is one of those it is for."""
        return (
            not self.on_connect
            and not isinstance(self.fault, Refuse)
            and (self.verb is None or self.verb == verb)
            and (self.key is None or self.key in keys)
        )

    @property
    def exhausted(self) -> bool:
        """Whether it has met all the commands or connections that it was made for."""
        return self._left == 0

    def fires(self) -> bool:
        """Count a command or connection it is for; True where the fault is committed on it."""
        if self._skip:
            self._skip -= 1
            return False
        if self._left is not None:
            self._left -= 1
        self.hits += 1
        return True


class FaultBook:
    """The injections of one server, in the order in which they were made."""

    def __init__(self) -> None:
        self.injections: list[Injection] = []

    def on_command(self, verb: bytes, keys: Sequence[bytes]) -> Fault | None:
        """The fault that a command meets, None for most."""
        return self._first(i for i in self.injections if i.meets(verb, keys))

    def on_connect(self) -> Fault | None:
        """The fault that a new connection meets, None for most."""
        return self._first(i for i in self.injections if i.on_connect)

    def _first(self, met: Iterator[Injection]) -> Fault | None:
        for injection in met:
            if injection.fires():
                if injection.exhausted:
                    self.injections.remove(injection)
                return injection.fault
        return None

    @property
    def refusing(self) -> bool:
        """Whether new connections are to be refused."""
        return any(isinstance(injection.fault, Refuse) for injection in self.injections)
