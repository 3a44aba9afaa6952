"""The idle connections of one client.

Taking and giving back cost no lock: both are single operations of a list.  A connection that was
taken belongs to its holder alone; whoever fails to give it back has closed it.  Nothing in here may
close a connection that somebody holds: `close` raises the generation, and one in use is closed when
it comes back.  `limited.py` is the same with limits, and overrides what those make different.
"""

from __future__ import annotations

import threading
from functools import partial
from math import inf
from time import monotonic
from weakref import ref

from . import forks
from .core import IdleConnections
from .core.replies import BARRIER_REQUEST, STALE, VERSION
from .limits import Slot
from .object_pool import ObjectPool as ObjectPool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .exchange import Exchange
    from .limits import Entries

IDLE_SECONDS = 60.0  # after which a connection that nobody used is closed


class _Mark:
    """What a thread has as long as it runs; a greenlet of gevent's, too, where it is patched in."""

    __slots__ = ("__weakref__",)


# By thread, each that has held a connection and has not ended.  (To ask the interpreter, with
# sys._current_frames(), can stop the whole process: a collection in the middle of that may need a
# thread that it keeps waiting.)
_running: dict[int, ref[_Mark]] = {}
_here = threading.local()


def _is_running(thread: int) -> None:
    """The calling thread is `thread`, and will have ended when its mark has."""
    mark = getattr(_here, "mark", None)
    if mark is None:
        mark = _here.mark = _Mark()
    # `pop` takes the dead reference for a default.
    _running[thread] = ref(mark, partial(_running.pop, thread))


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
        # Who waits for a connection, and before whom nobody may take one: here nobody ever does.
        self._waiting: Entries = {}
        self._running = _running
        self._retired = False
        self._expire_at = monotonic() + 1
        forks.renew_in_children(self, forks.POOLS)

    def take(self, until: float = inf) -> Exchange:
        """A connection for the caller alone.  Follow with `give`, `hold` or its `discard`."""
        connection = (self._own() if self._held else None) or self._unused()
        return self.dial(Slot(self._current())) if connection is None else connection

    def take_idle(self) -> Exchange | None:
        """Like `take`, but None where that would have to dial or to wait for one."""
        return (self._own() if self._held else None) or self._unused()

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
        try:
            connection = self._dial()
            return self.admitted(connection, slot)
        finally:
            del slot  # a traceback may keep this frame

    def replace(self, connection: Exchange) -> Exchange:
        """Another connection for the holder of this one, which is of no use."""
        slot = self.reclaim(connection)
        try:
            return self.take_idle() or self.dial(slot)
        finally:
            del slot

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
        if (
            connection.generation != self._generation
            or connection.used_at_seconds > self._expire_at
            or self._waiting
        ):
            self._tidy(connection)

    def hold(self, connection: Exchange) -> None:
        """Take back, for this thread, a connection with noreply commands on it."""
        held = self._held
        thread = threading.get_ident()  # looked up anew: gevent may have replaced it
        if thread not in _running:
            _is_running(thread)
        # A signal handler, or another greenlet of this thread, may have been here in between.
        other = held.pop(thread, None)
        held[thread] = connection
        if other is not None:
            self._idle.append(other)
        if (
            connection.generation != self._generation
            or connection.used_at_seconds > self._expire_at
            or self._waiting
        ):
            self._tidy(connection)

    def adopt(self, connection: Exchange) -> None:
        """Make `connection` the only idle one."""
        self.close()
        connection.generation = self._generation
        self._idle.append(connection)
        self._tidy(connection)

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
        except IndexError:
            return None

    def close(self) -> None:
        """Close all idle connections now, and those in use when they come back.

        The calling thread's own noreply commands are waited for, so that it reads what it wrote on
        the next connection, too.  Those of another thread are waited for by its next command, and
        their connection is closed then.
        """
        own = self._held.pop(threading.get_ident(), None)
        if own is not None:
            self._settle(own)
        self._generation += 1
        self._close_old()

    def retire(self) -> None:
        """Close for good, and what other threads hold as well: no command of theirs will follow.

        What comes back later, from commands under way or since then, is closed at once.
        """
        self._retired = True
        self.close()
        for thread, connection in list(self._held.items()):
            if self._let_go(thread, connection):
                connection.close()

    def _current(self) -> int:
        """The generation of a connection that is dialled now, in a child too."""
        forks.count()
        return self._generation

    def _own(self) -> Exchange | None:
        """The connection that this thread holds."""
        connection = self._held.pop(threading.get_ident(), None)
        if connection is not None:
            if connection.generation == self._generation:
                return connection
            self._settle(connection)
        return None

    def _unused(self) -> Exchange | None:
        """A connection that nobody holds."""
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return self._left_behind()
            if connection.generation == self._generation:
                return connection
            connection.close()

    def _settle(self, connection: Exchange) -> None:
        """Close `connection` once its noreply commands are known to be done."""
        if self._acknowledged(connection):
            connection.close()

    def _acknowledged(self, connection: Exchange) -> bool:
        """Wait until the noreply commands on `connection` are known to be done.

        False where that cannot be known: then it is discarded.
        """
        try:
            if connection.call(BARRIER_REQUEST, VERSION) is not STALE:
                return True
        except BaseException as error:
            connection.discard()
            if not isinstance(error, Exception):
                raise
        else:
            connection.discard()
        return False

    def _left_behind(self) -> Exchange | None:
        """A connection that a thread which has ended was holding."""
        for thread in list(self._held):
            if thread not in _running:
                connection = self._held.pop(thread, None)
                if connection is not None:
                    if connection.generation == self._generation:
                        return connection
                    connection.close()
        return None

    def _tidy(self, connection: Exchange) -> None:
        """`connection` came back: is it an old one, or time to look for idle ones?"""
        if connection.generation != self._generation:
            self._close_old()
        elif connection.used_at_seconds > self._expire_at:
            self._expire()

    def _close_old(self) -> None:
        for _ in range(len(self._idle)):
            try:
                connection = self._idle.pop(0)
            except IndexError:
                break
            if connection.generation == self._generation:
                self._idle.append(connection)
            else:
                connection.close()
        for thread, connection in list(self._held.items()):
            # A thread that runs would overtake its own noreply commands: it settles them itself.
            if (
                connection.generation != self._generation
                and (thread not in _running or self._retired)
                and self._let_go(thread, connection)
            ):
                connection.close()

    def _expire(self) -> None:
        """Close what nobody has used for `idle_seconds`."""
        now = monotonic()
        self._expire_at = now + 1
        while self._idle:
            try:
                connection = self._idle.pop(0)
            except IndexError:
                break
            if now - connection.used_at_seconds < self.idle_seconds:
                self._idle.insert(0, connection)
                break
            connection.expire()
        for thread, connection in list(self._held.items()):
            is_old = now - connection.used_at_seconds >= self.idle_seconds
            if is_old and self._let_go(thread, connection):
                connection.expire()

    def _let_go(self, thread: int, connection: Exchange) -> bool:
        """Whether `connection` was still what `thread` holds, which it does no longer."""
        held = self._held.pop(thread, None)
        if held is connection:
            return True
        if held is not None and self._held.setdefault(thread, held) is not held:
            self._idle.append(held)
        return False

    def reset_after_fork(self) -> None:
        """In a child process: the parent's connections are not ours to speak on."""
        self._generation += 1
        idle, self._idle = self._idle, []
        held, self._held = self._held, {}
        for connection in [*idle, *held.values()]:
            connection.close()

    def _resting(self) -> list[Exchange]:
        """The connections that are not in use."""
        return [*self._idle, *self._held.values()]
