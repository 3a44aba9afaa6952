"""The connections of a client that may have only so many of them.

A connection carries its `Slot`, which is free again when the connection is closed.  Whoever finds
neither an idle connection nor a free slot waits in a `Line`.  Waiting happens before a command
begins: its own timeout starts when it has its connection.  What a command has of the pool is in its
`Visit`, so that it comes back however the command ends.

Threads keep connections while the server has not acknowledged their noreply commands.  Where no
other is left, the one kept longest is taken over.  Its thread must not find its own writes undone,
so they are settled first: a barrier is answered before anybody uses the connection, and until then
its thread is given no other one, but waits.  What must hold in every interleaving is that a thread
which misses its connection can see why: that it is settled is entered before the connection is
taken away, and looked for after the connection was.
"""

from __future__ import annotations

import threading
from functools import wraps
from math import inf
from time import monotonic
from weakref import ref

from . import forks
from .limits import Slot, Slots, exhausted_error
from .line import Line
from .object_pool import UNLIMITED
from .pool import ConnectionPool
from .visits import Visit, Visits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from .exchange import Exchange


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
        self._visits = Visits(_close)
        # Who waits, for whom the next connection is reserved, and the visits that settle: as the
        # compiled way looks at them.
        self._waiting = self._line.waiting
        self._reserved = self._line.reserved
        self._settling: list[Visit] = []

    @property
    def used(self) -> tuple[int, ...]:
        """The numbers of the connections that are in use, or being made."""
        self._in_a_visit(self._visits.clean_up)
        return tuple(sorted(set(self._slots.taken).difference(self.free)))

    @property
    def free(self) -> tuple[int, ...]:
        """The numbers of the connections that are idle."""
        slots: list[Slot | None] = [connection.slot for connection in self._resting()]
        numbers = [slot.number for slot in slots if slot is not None]
        return tuple(number for number in numbers if number is not None)

    # -- taken and given back ----------------------------------------------------------------------

    def visit(self, here: Any = None) -> Visit:
        """The caller's visit, from the beginning of the block ``with visit.here:`` to its end.

        What he takes meanwhile, and has not given back, is closed afterwards.  `here`: a lock that
        is taken already, for a visit that is as long as its block.
        """
        return self._visits.begin(here)

    def leave(self, visit: Visit) -> None:
        """The last thing in the block of `visit`."""
        self._visits.end(visit)

    def bring(self, connection: Exchange) -> None:
        """`connection`, which the caller took without one, is part of his visit now."""
        visit, slot = self._visits.current(), connection.slot
        if visit is None or slot is None:
            return
        if slot.visit is None or connection not in slot.visit.things:
            self._visits.know(visit)
            visit.things.append(connection)
            slot.visit = visit

    def take(self, until: float = inf) -> Exchange:
        """A connection for the caller alone.  Follow with `give`, `hold` or its `discard`.

        Raises `RuntimeError` where none became free within `wait_seconds`, or `until` then.
        """
        found: Exchange | None = self._taken(lambda visit: self._take(visit, until))
        assert found is not None
        return found

    def take_idle(self) -> Exchange | None:
        """Like `take`, but None where that would have to dial or to wait."""
        found: Exchange | None = self._taken(self._find_idle)
        return found

    def admit(self) -> Slot | None:
        """Permission to dial a connection now, None where that has to be waited for."""
        found: Slot | None = self._taken(self._find_slot)
        return found

    def admitted(self, connection: Exchange, slot: Slot) -> Exchange:
        """Make `connection`, which was dialled with the permission `slot`, one of this pool."""
        connection.idle_seconds = self.idle_seconds
        if slot.visit is not None and slot in slot.visit.things:
            slot.visit.things.append(connection)
            super().admitted(connection, slot)
            slot.visit.things.remove(slot)
        else:
            super().admitted(connection, slot)
        return connection

    def reclaim(self, connection: Exchange) -> Slot:
        """The slot that `connection` had; it is discarded."""
        slot = connection.slot
        visit = None if slot is None else slot.visit
        if slot is None or visit is None or connection not in visit.things:
            return super().reclaim(connection)
        visit.things.append(slot)
        slot = super().reclaim(connection)
        visit.things.remove(connection)
        return slot

    def give(self, connection: Exchange) -> None:
        """Take `connection` back; nothing of a reply may be outstanding on it."""
        self._idle.extend(_from_its_visit(connection))
        self._came_back(connection)

    def hold(self, connection: Exchange) -> None:
        """Take back, for this thread, a connection with noreply commands on it."""
        thread = self._ready_to_hold()
        self._held.update(zip((thread,), _from_its_visit(connection), strict=True))
        self._came_back(connection)

    def adopt(self, connection: Exchange) -> None:
        """Make `connection` the only idle one."""

        def adopted(visit: Visit) -> None:
            self._close(visit.things)
            connection.generation = self._generation
            # Without a slot where all are in use: it is there all the same.
            if self._find_free_slot(visit):
                self.admitted(connection, visit.things[-1])
            self._idle.extend(_from_its_visit(connection))

        self._in_a_visit(adopted)
        self._tidy(connection)

    # -- closed ------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close all idle connections now, and those in use when they come back."""
        self._in_a_visit(lambda visit: self._close(visit.things))

    clear = close

    def reset_after_fork(self) -> None:
        """In a child process: all slots are free, and nobody waits."""
        super().reset_after_fork()
        self._settling.clear()
        self._visits.reset()
        self._slots.reset()
        self._line.reset()

    # -- the inside --------------------------------------------------------------------------------

    def _taken(self, find: Callable[[Visit], bool]) -> Any:
        """What `find` has found for the caller's visit, None where it has found nothing."""
        forks.count()  # so that what the parent has in use does not count
        visit = self._visits.current()
        if visit is not None:
            return visit.things[-1] if find(visit) else None
        return self._in_a_visit(lambda own: self._visits.let_go(own) if find(own) else None)

    def _in_a_visit(self, action: Callable[[Visit], Any]) -> Any:
        """What `action` gives, with a visit that lasts as long as it does."""
        visit = self.visit()
        with visit.here:
            try:
                self._visits.know(visit)
                return action(visit)
            finally:
                self.leave(visit)

    def _take(self, visit: Visit, until: float) -> bool:
        """Have a connection in `visit`, as the last of what it has."""
        while True:
            if not (self._line.is_open() and self._look(visit)):
                seconds = min(self.wait_seconds, until - monotonic())
                if not (self.wait_seconds and self._line.wait(lambda: self._look(visit), seconds)):
                    raise exhausted_error(
                        self.max_size, self.wait_seconds, "max_pool_size or pool_wait_timeout"
                    )
            if isinstance(visit.things[-1], Slot):
                self.dial(visit.things[-1])
                return True
            if not visit.settles or self._is_settled(visit):
                return True

    def _find_idle(self, visit: Visit) -> bool:
        """Whether there is now a connection in `visit` that need be neither dialled nor settled."""
        if not self._line.is_open():
            return False
        self._visits.know(visit)
        if self._find_own(visit.things):
            return self._is_taken(visit)
        if self._is_being_settled(threading.get_ident()) or not self._find_unused(visit.things):
            return False
        return self._is_taken(visit)

    def _find_slot(self, visit: Visit) -> bool:
        """Whether there is now a slot in `visit`, with which one may be dialled."""
        if not self._line.is_open() or self._is_being_settled(threading.get_ident()):
            return False
        self._visits.know(visit)
        return self._find_free_slot(visit) or (
            self._visits.clean_up(visit) and self._find_free_slot(visit)
        )

    def _look(self, visit: Visit) -> bool:
        """Whether there is now something for the caller in `visit`; it is his turn.

        A connection, a slot to dial one, or a connection that has to be settled.
        """
        self._visits.know(visit)
        if self._find_own(visit.things):
            return self._is_taken(visit)
        if self._is_being_settled(threading.get_ident()):
            return False
        return self._find_any(visit) or (self._visits.clean_up(visit) and self._find_any(visit))

    def _find_any(self, visit: Visit) -> bool:
        if self._find_unused(visit.things):
            return self._is_taken(visit)
        return self._find_free_slot(visit) or self._take_over(visit)

    def _find_free_slot(self, visit: Visit) -> bool:
        slot = Slot(self._generation)
        slot.visit = visit
        visit.things.append(slot)
        if self._slots.take(slot):
            return True
        visit.things.pop()
        return False

    def _is_taken(self, visit: Visit) -> bool:
        """The last of what `visit` has is known to be part of it."""
        slot = visit.things[-1].slot
        if slot is not None:
            slot.visit = visit
        return True

    def _take_over(self, visit: Visit) -> bool:
        for thread in list(self._held):  # the one that has held longest comes first
            visit.settles = thread
            self._settling.append(visit)
            if self._moved(thread, visit.things):
                return self._is_taken(visit)
            self._end_settling(visit)
        return False

    def _is_settled(self, visit: Visit) -> bool:
        """Whether the connection that `visit` took over is of use now; else it is closed."""
        try:
            if self._is_acknowledged(visit.things[-1]):
                return True
            visit.things.pop()
            return False
        finally:
            self._end_settling(visit)

    def _end_settling(self, visit: Visit) -> None:
        visit.settles = 0
        if visit in self._settling:
            self._settling.remove(visit)
            self._line.hint()

    def _is_being_settled(self, thread: int) -> bool:
        if not self._settling:
            return False
        for visit in list(self._settling):
            if visit.has_ended():
                self._end_settling(visit)
            elif visit.settles == thread:
                return True
        return False

    def _is_available(self) -> bool:
        return bool(self._idle or self._held) or len(self._slots.taken) < self.max_size

    def _tidy(self, connection: Exchange) -> None:
        super()._tidy(connection)
        self._line.hint()

    def _close_old(self, found: list[Any]) -> None:
        self._in_a_visit(lambda visit: super(LimitedPool, self)._close_old(visit.things))

    def _close_unused(self, found: list[Any]) -> None:
        self._in_a_visit(lambda visit: super(LimitedPool, self)._close_unused(visit.things))


def as_a_visit(method: Callable[..., Any], brings: bool = False) -> Callable[..., Any]:
    """`method` of a client with a `LimitedPool`, as one visit to that.

    `brings`: its first argument is a connection (or None) that the compiled way has taken.
    """

    def visiting(client: Any, *arguments: Any) -> Any:
        pool = client._pool
        visit = pool.visit()
        with visit.here:
            try:
                if brings and arguments[0] is not None:
                    pool.bring(arguments[0])
                return method(client, *arguments)
            finally:
                pool.leave(visit)
                del arguments  # an error among them would hold this frame

    return wraps(method)(visiting)


def _close(thing: Slot | Exchange) -> None:
    """Close what was left in a visit, unless that was done."""
    if isinstance(thing, Slot):
        thing.end()
    elif thing.slot is not None:
        thing.discard()


def _from_its_visit(connection: Exchange) -> Iterable[Exchange]:
    """Yields `connection`, which is not part of a visit any more from then on."""
    visit = None if connection.slot is None else connection.slot.visit
    if visit is None or connection not in visit.things:
        return (connection,)
    return visit.handed(connection)
