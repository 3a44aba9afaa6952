"""Forks: the one count of them, and the one list of what is renewed in a child process.

A fork is noticed by the handler that Python runs in a child, or by the first call of `count`,
whichever comes first.  The second way is for handlers that were registered before ours and use a
client, and for forks made in C, of which Python does not know.  Either way everything is renewed
once, in a fixed order, before the caller of `count` goes on.  So code that is about to take a
connection, a lock or a place in a line calls `count` first.

Nothing in here may need what a child may not have: another thread, a lock that another thread of
the parent holds, a free descriptor, a module that is not loaded yet.
"""

from __future__ import annotations

import os
import threading
from weakref import WeakSet

from .core import fork_count

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    class Renewed(Protocol):
        def reset_after_fork(self) -> None: ...


# The order in which things are renewed: first the parent's sockets are out of reach.
DESCRIPTORS, POOLS = range(2)

_renewed: tuple[WeakSet[Any], ...] = (WeakSet(), WeakSet())


def _never() -> int:
    return 0


#: A number that differs between a process and its child, for those who compare it in each command.
#: The compiled one counts.  The pure one is the process id, which is another one after forks made
#: in C, too.
mark: Callable[[], int] = fork_count or (os.getpid if hasattr(os, "fork") else _never)

_seen = mark()  # when everything was renewed last
_count = 0
_is_noticed = True  # the last fork that Python has told of
_renewing = -1  # the mark of the process in which everything is being renewed
_locks: dict[int, Any] = {}  # by mark, for the threads of a child that notice at the same time


def count() -> int:
    """How many forks lie between this process and the first one in which we were imported.

    In a child everything is renewed when this returns.  (Forks of which nothing in here was told
    or asked before the next one count as one.)
    """
    now = mark()
    if now != _seen:
        _notice(now)
    return _count


def renew_in_children(owner: Renewed, rank: int) -> None:
    """Have `reset_after_fork` of `owner` called in every child process, while `owner` exists.

    `rank` is `DESCRIPTORS` or `POOLS`.
    """
    _renewed[rank].add(owner)


class Lock:
    """An attribute of a class that is an RLock for each object of it, and in a child another one.

    The thread that holds the parent's may not be in the child.  A thread that forks while it holds
    one releases that one: ``with`` has looked it up before.
    """

    def __set_name__(self, kind: type, name: str) -> None:
        self._name = f"{name}s"

    def __get__(self, owner: Any, kind: type | None = None) -> Any:
        if owner is None:
            return self
        forks = count()
        locks = owner.__dict__.get(self._name)
        if locks is None:
            locks = owner.__dict__.setdefault(self._name, {})
        lock = locks.get(forks)
        # Signal handlers come in between, so it must be possible to lock it twice.
        return locks.setdefault(forks, threading.RLock()) if lock is None else lock


def _notice(now: int) -> None:
    """This process, whose mark is `now`, is a child: renew everything, once."""
    global _seen, _count, _is_noticed, _renewing
    error: BaseException | None = None
    # Of a thread of this process: its mark makes it another one than any lock of the parent's.
    with _locks.setdefault(now, threading.RLock()):
        if now in (_seen, _renewing):
            return  # by another thread meanwhile, or by this one, which has asked again
        _renewing = now
        _count += 1
        try:
            for owners in _renewed:
                for owner in list(owners):
                    try:
                        owner.reset_after_fork()
                    except BaseException as raised:  # the others must be renewed all the same
                        error = error or raised
        finally:
            _seen, _renewing, _is_noticed = now, -1, True
            _locks.pop(now, None)
    if error is not None:
        try:
            raise error
        finally:
            del error


def _before() -> None:
    global _is_noticed
    _is_noticed = False


def _in_child() -> None:
    global _seen
    if not _is_noticed:
        _seen = -1  # in another namespace a child can have the process id of its parent
    count()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_child=_in_child)
