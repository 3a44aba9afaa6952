"""The connections of a client that may have only so many of them.

A connection carries its `Slot`, which is free again when the connection is closed or lost.  Whoever
finds neither an idle connection nor a free slot waits in a `Line`, and nobody who comes later
overtakes him.  Waiting happens before a command begins: its own timeout starts when it has its
connection.

Threads keep connections while the server has not acknowledged their noreply commands.  Where no
other is left, the one kept longest is taken over.  Its thread must not find its own writes undone,
so they are settled first: a barrier is answered before anybody uses the connection, and until then
its thread is given no other one, but waits.  What must hold in every interleaving is that a thread
which misses its connection can see why: a `Settlement` is entered before the connection is taken
away, and looked for after the connection was.
"""

from __future__ import annotations

import threading
from itertools import count
from math import inf
from time import monotonic
from weakref import ref

from . import forks
from .limits import Line, Slot, Slots, enter, exhausted_error
from .object_pool import UNLIMITED
from .pool import ConnectionPool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .exchange import Exchange
    from .limits import Entries


class Settlement:
    """A connection taken over from `thread`, whose noreply commands on it are not acknowledged."""

    __slots__ = ("__weakref__", "connection", "thread")

    def __init__(self, thread: int) -> None:
        self.thread = thread
        self.connection: Exchange | None = None


class LimitedPool(ConnectionPool):
    """At most `max_size` connections (None: no limit), those in use, idle and being made together.

    `idle_seconds`: after which one that nobody used is closed, 0 for never; `wait_seconds`: that
    `take` waits at most.  What shows itself as ``client_pool``.
    """

    def __init__(
        self,
        dial: Callable[[], Exchange],
        max_size: int | None,
        idle_seconds: float,
        wait_seconds: float,
        make_lock: Callable[[], Any] | None,
    ) -> None:
        super().__init__(dial)
        self.max_size = max_size or UNLIMITED
        self.idle_seconds = idle_seconds or inf
        self.wait_seconds = wait_seconds
        # Weakly, so that it ends, and its connections with it, once nobody has the client any more.
        pool = ref(self)
        self._line = Line(
            make_lock,
            lambda: (own := pool()) is not None and own._is_available(),
            lambda thread: (own := pool()) is not None and own._is_being_settled(thread),
        )
        self._slots = Slots(self.max_size, self._line.hint)
        self._waiting = self._line.waiting
        self._settling: Entries = {}
        self._numbers = count()

    @property
    def used(self) -> tuple[int, ...]:
        """The numbers of the connections that are in use, or being made."""
        return tuple(sorted(set(self._slots.taken).difference(self.free)))

    @property
    def free(self) -> tuple[int, ...]:
        """The numbers of the connections that are idle."""
        slots: list[Slot | None] = [connection.slot for connection in self._resting()]
        numbers = [slot.number for slot in slots if slot is not None]
        return tuple(number for number in numbers if number is not None)

    clear = ConnectionPool.close

    def take(self, until: float = inf) -> Exchange:
        """A connection for the caller alone.  Follow with `give`, `hold` or its `discard`.

        Raises `RuntimeError` where none became free within `wait_seconds`, or `until` then.
        """
        while True:
            forks.count()  # so that what the parent has in use does not count
            found = None if self._waiting else self._look()
            if found is None and self.wait_seconds:
                seconds = min(self.wait_seconds, until - monotonic())
                found = self._line.wait(self._look, seconds)
            if found is None:
                raise exhausted_error(
                    self.max_size, self.wait_seconds, "max_pool_size or pool_wait_timeout"
                )
            try:
                if isinstance(found, Slot):
                    return self.dial(found)
                if not isinstance(found, Settlement):
                    return found
                connection = found.connection
                if connection is not None and self._acknowledged(connection):
                    return connection
            finally:
                # A traceback may keep this frame; what it must not keep is a slot, or a thread
                # waiting for a settlement.
                del found

    def take_idle(self) -> Exchange | None:
        """Like `take`, but None where that would have to dial or to wait."""
        forks.count()
        if self._waiting:
            return None
        connection = self._own()
        if connection is None and not self._is_being_settled(threading.get_ident()):
            connection = self._unused()
        return connection

    def admit(self) -> Slot | None:
        """Permission to dial a connection now, None where that has to be waited for."""
        forks.count()
        if self._waiting or self._is_being_settled(threading.get_ident()):
            return None
        return self._slots.take(self._generation)

    def admitted(self, connection: Exchange, slot: Slot) -> Exchange:
        """Make `connection`, which was dialled with the permission `slot`, one of this pool."""
        connection.idle_seconds = self.idle_seconds
        return super().admitted(connection, slot)

    def adopt(self, connection: Exchange) -> None:
        """Make `connection` the only idle one."""
        # Without a slot where all are in use: it is there all the same.
        connection.slot = self._slots.take(self._generation)
        super().adopt(connection)

    def reset_after_fork(self) -> None:
        """In a child process: all slots are free, and nobody waits."""
        super().reset_after_fork()
        self._settling = {}
        self._slots.reset()
        self._line.reset()
        self._waiting = self._line.waiting

    def _look(self) -> Exchange | Slot | Settlement | None:
        """What the caller may have now, None where there is nothing; it is his turn."""
        connection = self._own()
        if connection is not None:
            return connection
        if self._is_being_settled(threading.get_ident()):
            return None
        return self._unused() or self._slots.take(self._generation) or self._taken_over()

    def _taken_over(self) -> Settlement | None:
        for thread in list(self._held):  # the one that has held longest comes first
            settlement = Settlement(thread)
            enter(self._settling, next(self._numbers), settlement, self._line.hint)
            connection = self._held.pop(thread, None)
            if connection is not None:
                settlement.connection = connection
                return settlement
        return None

    def _is_being_settled(self, thread: int) -> bool:
        if not self._settling:
            return False
        settlements = [reference() for reference, _ in list(self._settling.values())]
        return any(one is not None and one.thread == thread for one in settlements)

    def _is_available(self) -> bool:
        return bool(self._idle or self._held) or len(self._slots.taken) < self.max_size

    def _tidy(self, connection: Exchange) -> None:
        super()._tidy(connection)
        self._line.hint()
