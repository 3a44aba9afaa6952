"""The idle connections of one client.

Taking and giving back cost no lock: both are single operations of a list.  A connection that was
taken belongs to its holder alone; whoever fails to give it back has closed it.  Nothing in here may
close a connection that somebody holds: `close` raises the generation, and one in use is closed when
it comes back.
"""

from __future__ import annotations

import os
import sys
import threading
from _thread import get_ident
from time import monotonic
from weakref import WeakSet

from .core import IdleConnections
from .core.replies import BARRIER_REQUEST, STALE, VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .exchange import Exchange

IDLE_SECONDS = 60.0  # after which a connection that nobody used is closed


class ConnectionPool(IdleConnections):
    """As many connections as are in use at once; the last returned is taken first."""

    def __init__(self, dial: Callable[[], Exchange]) -> None:
        self._dial = dial
        self._generation = 0
        self._idle: list[Exchange] = []  # the last one is taken next
        # By thread: connections with noreply commands that are not acknowledged.  Their thread's
        # next command goes out on the same one, so that it never overtakes them.
        self._held: dict[int, Exchange] = {}
        self._expire_at = monotonic() + 1
        _pools.add(self)

    def take(self) -> Exchange:
        """A connection for the caller alone.  Follow with `give`, `hold` or its `discard`."""
        if not self._held:
            try:
                connection = self._idle.pop()
            except IndexError:
                pass
            else:
                if connection.generation == self._generation:
                    return connection
                connection.close()
        if self._held:
            connection = self._held.pop(threading.get_ident(), None)
            if connection is not None:
                if connection.generation == self._generation:
                    return connection
                self._settle(connection)
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                break
            if connection.generation == self._generation:
                return connection
            connection.close()
        # Not within the handler: what goes wrong in dialling has nothing to do with an empty list.
        return self._left_behind() or self.dial()

    def dial(self) -> Exchange:
        """A new connection for the caller alone."""
        generation = self._generation  # of before: a close while we dial holds for this one too
        connection = self._dial()
        connection.generation = generation
        return connection

    def give(self, connection: Exchange) -> None:
        """Take `connection` back; nothing of a reply may be outstanding on it."""
        self._idle.append(connection)
        if (
            connection.generation != self._generation
            or connection.used_at_seconds > self._expire_at
        ):
            self._tidy(connection)

    def hold(self, connection: Exchange) -> None:
        """Take back, for this thread, a connection with noreply commands on it."""
        held = self._held
        thread = threading.get_ident()  # looked up anew: gevent may have replaced it
        # A signal handler, or another greenlet of this thread, may have been here in between.
        other = held.pop(thread, None)
        held[thread] = connection
        if other is not None:
            self._idle.append(other)
        self._tidy(connection)

    def adopt(self, connection: Exchange) -> None:
        """Make `connection` the only idle one."""
        self.close()
        connection.generation = self._generation
        self._idle.append(connection)

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
        the next connection, too.
        """
        own = self._held.pop(threading.get_ident(), None)
        if own is not None:
            self._settle(own)
        self._generation += 1
        self._close_old()

    def _settle(self, connection: Exchange) -> None:
        """Close `connection` once its noreply commands are known to be done."""
        try:
            if connection.call(BARRIER_REQUEST, VERSION) is STALE:
                connection.discard()
        except BaseException as error:
            connection.discard()
            if not isinstance(error, Exception):
                raise
        connection.close()

    def _left_behind(self) -> Exchange | None:
        """A connection that a thread which has ended was holding.

        Only of threads that the interpreter knows: those of gevent are told apart by age alone.
        """
        if not self._held or threading.get_ident is not get_ident:
            return None
        alive = sys._current_frames()
        for thread in list(self._held):
            if thread not in alive:
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
            if connection.generation != self._generation:
                old = self._held.pop(thread, None)
                if old is connection:
                    connection.close()
                elif old is not None:  # its thread was quicker
                    self._idle.append(old)

    def _expire(self) -> None:
        """Close what nobody has used for `IDLE_SECONDS`."""
        now = monotonic()
        self._expire_at = now + 1
        while self._idle:
            try:
                connection = self._idle.pop(0)
            except IndexError:
                break
            if now - connection.used_at_seconds < IDLE_SECONDS:
                self._idle.insert(0, connection)
                break
            connection.close()
        for thread, connection in list(self._held.items()):
            if now - connection.used_at_seconds >= IDLE_SECONDS:
                expired = self._held.pop(thread, None)
                if expired is connection:
                    connection.close()
                elif expired is not None:  # its thread was quicker
                    self._idle.append(expired)

    def reset_after_fork(self) -> None:
        """In a child process: the parent's connections are not ours to speak on."""
        self._generation += 1
        idle, self._idle = self._idle, []
        held, self._held = self._held, {}
        for connection in [*idle, *held.values()]:
            connection.close()


_pools: WeakSet[ConnectionPool] = WeakSet()


def _reset_all() -> None:
    for pool in list(_pools):
        pool.reset_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_all)
