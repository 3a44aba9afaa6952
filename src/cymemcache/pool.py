"""The idle connections of one client.

Taking and giving back cost no lock: both are single operations of a list.  A connection that was
taken belongs to its holder alone; whoever fails to give it back has closed it.  Nothing in here may
close a connection that somebody holds: `close` raises the generation, and one in use is closed when
it comes back.  `limited.py` is the same with limits, and overrides what those make different.
"""

from __future__ import annotations

import threading
from math import inf
from time import monotonic
from weakref import ref

from . import forks
from .core import IdleConnections
from .core.replies import BARRIER_REQUEST, STALE, VERSION
from .interruptions import is_failure, is_interruption
from .limits import Slot, enter
from .object_pool import ObjectPool as ObjectPool
from .visits import LAST

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .exchange import Exchange
    from .limits import Entries

IDLE_SECONDS = 60.0  # after which a connection that nobody used is closed


class _Mark:
    """What a thread has as long as it runs; a greenlet of gevent's, too, where it is patched in."""

    __slots__ = ("__weakref__",)


_here = threading.local()


def _mark() -> _Mark:
    """The calling thread's.

    (To ask the interpreter which threads run, with sys._current_frames(), can stop the whole
    process: a collection in the middle of that may need a thread that it keeps waiting.)
    """
    mark: _Mark | None = getattr(_here, "mark", None)
    if mark is None:
        mark = _here.mark = _Mark()
    return mark


class ConnectionPool(IdleConnections):
    """As many connections as are in use at once; the last returned is taken first."""

    idle_seconds = IDLE_SECONDS
    #: that `take` waits at most: it need not
    wait_seconds = 0.0

    def __init__(self, dial: Callable[[], Exchange]) -> None:
        self._dial = dial
        self._generation = 0
        self._idle: list[Exchange] = []  # the last one is taken next
        # By thread: connections with noreply commands that are not acknowledged.  Their thread's
        # next command goes out on the same one, so that it never overtakes them.
        self._held: dict[int, Exchange] = {}
        # By thread, those that have held one and have not ended.
        self._running: Entries = {}
        # Who waits for a connection, for whom the next one is reserved, and who waits for noreply
        # commands of other threads: here nobody ever does.
        self._waiting: list[Any] = []
        self._reserved: list[Any] = []
        self._settling: list[Any] = []
        self._retired = False
        self._expire_at = monotonic() + 1
        forks.renew_in_children(self, forks.POOLS)

    # -- taken and given back ----------------------------------------------------------------------

    def take(self, until: float = inf) -> Exchange:
        """A connection for the caller alone.  Follow with `give`, `hold` or its `discard`."""
        found: list[Exchange] = []
        return found.pop() if self._find(found) else self.dial(Slot(self._current()))

    def take_idle(self) -> Exchange | None:
        """Like `take`, but None where that would have to dial or to wait for one."""
        found: list[Exchange] = []
        return found.pop() if self._find(found) else None

    def admit(self) -> Slot | None:
        """Permission to dial a connection now, None where that has to be waited for."""
        return Slot(self._current())

    def admitted(self, connection: Exchange, slot: Slot) -> Exchange:
        """Make `connection`, which was dialled with the permission `slot`, one of this pool."""
        # Of before it was dialled: a close since then holds for this one too.
        # After `retire` there is no future for any.
        connection.generation = slot.generation - self._retired
        connection.slot = slot
        return connection

    def dial(self, slot: Slot) -> Exchange:
        """A new connection for the caller alone, in `slot`."""
        return self.admitted(self._dial(), slot)

    def replace(self, connection: Exchange) -> Exchange:
        """Another connection for the holder of this one, which is of no use."""
        slot = self.reclaim(connection)
        idle = self.take_idle()
        if idle is None:
            return self.dial(slot)
        slot.end()
        return idle

    def renew(self, connection: Exchange) -> Exchange:
        """A new connection for the holder of this one, which the server has ended."""
        return self.dial(self.reclaim(connection))

    def reclaim(self, connection: Exchange) -> Slot:
        """The slot that `connection` had; it is discarded."""
        slot = connection.slot or Slot()
        connection.slot = None
        slot.generation = self._current()
        connection.discard()
        return slot

    def give(self, connection: Exchange) -> None:
        """Take `connection` back; nothing of a reply may be outstanding on it."""
        self._idle.append(connection)
        self._came_back(connection)

    def hold(self, connection: Exchange) -> None:
        """Take back, for this thread, a connection with noreply commands on it."""
        thread = self._ready_to_hold()
        self._held[thread] = connection
        self._came_back(connection)

    def adopt(self, connection: Exchange) -> None:
        """Make `connection` the only idle one."""
        self.close()
        connection.generation = self._generation
        self._idle.append(connection)
        self._tidy(connection)

    def visit(self, here: Any = None) -> Any:
        """What `limited.LimitedPool` gives to each who may have something of it: nothing here."""
        return None

    def leave(self, visit: Any) -> None:
        """`visit`, which `visit` gave, is about to end."""

    def bring(self, connection: Exchange) -> None:
        """`connection`, which somebody took without one, is part of the caller's visit now."""

    # -- looked at, and closed ---------------------------------------------------------------------

    def holds(self) -> bool:
        """Whether there are unacknowledged noreply commands of the calling thread."""
        return threading.get_ident() in self._held

    def peek(self) -> Exchange | None:
        """The connection that would be taken next, left where it is; None where there is none."""
        held = self._held.get(threading.get_ident())
        if held is not None:
            return held
        try:
            return self._idle[-1]
        except IndexError as error:
            if is_interruption(error):
                raise
            return None

    def close(self) -> None:
        """Close all idle connections now, and those in use when they come back.

        The calling thread's own noreply commands are waited for, so that it reads what it wrote on
        the next connection, too.  Those of another thread are waited for by its next command, and
        their connection is closed then.
        """
        self._close([])

    def retire(self) -> None:
        """Close for good, and what other threads hold as well: no command of theirs will follow.

        What comes back later, from commands under way or since then, is closed at once.
        """
        self._retired = True
        self.close()

    def reset_after_fork(self) -> None:
        """In a child process: the parent's connections are not ours to speak on."""
        self._generation += 1
        idle, self._idle = self._idle, []
        held, self._held = self._held, {}
        self._running = {}
        for connection in [*idle, *held.values()]:
            connection.close()

    # -- the inside --------------------------------------------------------------------------------
    # Whatever is taken out of the pool goes into a list of the caller's, `found`, and stays there
    # until it is closed or has gone back: see `visits`.

    def _current(self) -> int:
        """The generation of a connection that is dialled now, in a child too."""
        forks.count()
        return self._generation

    def _find(self, found: list[Any]) -> bool:
        """Whether there is now a connection in `found` that need not be dialled."""
        return (bool(self._held) and self._find_own(found)) or self._find_unused(found)

    def _find_own(self, found: list[Any]) -> bool:
        """The one that this thread holds."""
        if self._moved(threading.get_ident(), found):
            if found[-1].generation == self._generation:
                return True
            self._settle(found)
        return False

    def _find_unused(self, found: list[Any]) -> bool:
        """One that nobody holds."""
        while True:
            try:
                found.append(self._idle.pop())
            except IndexError as error:
                if is_interruption(error):
                    raise
                return self._find_left_behind(found)
            if found[-1].generation == self._generation:
                return True
            _close_last(found)

    def _find_left_behind(self, found: list[Any]) -> bool:
        """One that a thread which has ended was holding, and did not come back by itself."""
        for thread in list(self._held):
            if thread not in self._running and self._moved(thread, found):
                if found[-1].generation == self._generation:
                    return True
                _close_last(found)
        return False

    def _moved(self, thread: int, found: list[Any]) -> bool:
        """Whether `thread` held a connection, which is in `found` now."""
        try:
            found.append(self._held.pop(thread))
        except KeyError as error:
            if is_interruption(error):
                raise
            return False
        return True

    def _ready_to_hold(self) -> int:
        """The calling thread, which holds none now, and whose end will be known."""
        thread = threading.get_ident()  # looked up anew: gevent may have replaced it
        if thread not in self._running:
            pool = ref(self)
            enter(self._running, thread, _mark(), lambda _: _gives_back(pool(), thread))
        # A signal handler, or another greenlet of this thread, may have been here in between.
        if thread in self._held:
            self._moved(thread, self._idle)
        return thread

    def _ended(self, thread: int) -> None:
        """What `thread` was holding is anybody's."""
        connection = self._held.get(thread)
        if connection is not None and self._moved(thread, self._idle):
            self._came_back(connection)

    def _came_back(self, connection: Exchange) -> None:
        if (
            connection.generation != self._generation
            or connection.used_at_seconds > self._expire_at
            or self._waiting
        ):
            self._tidy(connection)

    def _tidy(self, connection: Exchange) -> None:
        """`connection` came back: is it an old one, or time to look for idle ones?"""
        if connection.generation != self._generation:
            self._close_old([])
        elif connection.used_at_seconds > self._expire_at:
            self._close_unused([])

    def _settle(self, found: list[Any]) -> None:
        """Close the last one of `found` once its noreply commands are known to be done."""
        if self._is_acknowledged(found[-1]):
            found[-1].close()
        found.pop()

    def _is_acknowledged(self, connection: Exchange) -> bool:
        """Wait until the noreply commands on `connection` are known to be done.

        False where that cannot be known: then it is discarded.
        """
        try:
            if connection.call(BARRIER_REQUEST, VERSION) is not STALE:
                return True
        except BaseException as error:
            connection.discard()
            if not is_failure(error):
                raise
        else:
            connection.discard()
        return False

    def _close(self, found: list[Any]) -> None:
        if self._moved(threading.get_ident(), found):
            self._settle(found)
        self._generation += 1
        self._close_old(found)

    def _close_old(self, found: list[Any]) -> None:
        for _ in range(len(self._idle)):
            try:
                found.append(self._idle.pop(0))
            except IndexError as error:
                if is_interruption(error):
                    raise
                break
            if found[-1].generation == self._generation:
                self._idle.append(found.pop())
            else:
                _close_last(found)
        for thread, connection in list(self._held.items()):
            # A thread that runs would overtake its own noreply commands: it settles them itself.
            if (
                connection.generation != self._generation
                and (thread not in self._running or self._retired)
                and self._let_go(thread, connection, found)
            ):
                _close_last(found)

    def _close_unused(self, found: list[Any]) -> None:
        """Close what nobody has used for `idle_seconds`."""
        now = monotonic()
        self._expire_at = now + 1
        while self._idle:
            try:
                found.append(self._idle.pop(0))
            except IndexError as error:
                if is_interruption(error):
                    raise
                break
            if now - found[-1].used_at_seconds < self.idle_seconds:
                self._idle.insert(0, found.pop())
                break
            found[-1].expire()
            found.pop()
        for thread, connection in list(self._held.items()):
            is_old = now - connection.used_at_seconds >= self.idle_seconds
            if is_old and self._let_go(thread, connection, found):
                found[-1].expire()
                found.pop()

    def _let_go(self, thread: int, connection: Exchange, found: list[Any]) -> bool:
        """Whether `connection` was still what `thread` held, and is in `found` now."""
        if self._held.get(thread) is not connection or not self._moved(thread, found):
            return False
        if found[-1] is connection:
            return True
        # Another one, since just now.
        if thread in self._held:
            self._idle.append(found.pop())
        else:
            self._held.update(zip((thread,), map(found.pop, LAST), strict=True))
        return False

    def _resting(self) -> list[Exchange]:
        """The connections that are not in use."""
        return [*self._idle, *self._held.values()]


def _close_last(found: list[Any]) -> None:
    found[-1].close()
    found.pop()


def _gives_back(pool: ConnectionPool | None, thread: int) -> None:
    if pool is not None:
        pool._ended(thread)
