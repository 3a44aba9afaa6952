"""How many there may be of something, and the line of those who wait for one.

A slot is an object: whoever has it may have one of what is limited, and it is free again when the
object is gone, however it went.  So no interruption can lose one, be it between any two bytecodes,
and none is given back twice.  A place in the line is the same: it ends with its `Waiter`.  What
must not fail when an object ends is one call of a builtin, which nothing can interrupt; what is
Python, to wake somebody, is only a hint: who missed it looks again by himself after `LOOK_AGAIN`.

There is no lock in here but the one on which each waiter sleeps, so nobody can hold one while other
people's code runs.
"""

from __future__ import annotations

import sys
import threading
from functools import partial
from itertools import chain, count
from time import monotonic
from weakref import ref

from . import forks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias, TypeVar

    T = TypeVar("T")
    Entries: TypeAlias = "dict[int, tuple[ref[Any], ref[Any]]]"

LOOK_AGAIN = 0.05  # seconds after which a waiter that nobody woke looks by itself


def enter(entries: Entries, number: int, thing: Any, hint: Callable[[Any], None]) -> bool:
    """Put `thing` among `entries` under `number`, for as long as it exists; False if that is taken.

    Afterwards `hint` is called.
    """
    # Of two callbacks the later is called first: `pop` takes the dead reference for a default.
    after = ref(thing, hint)
    entry = (ref(thing, partial(entries.pop, number)), after)
    return entries.setdefault(number, entry) is entry


class Slot:
    """Permission to have one of what is limited."""

    __slots__ = ("__weakref__", "generation", "number")

    def __init__(self, generation: int = 0) -> None:
        #: of the pool, when the permission was given
        self.generation = generation
        #: which of the slots it is, from 0; None where they are not limited
        self.number: int | None = None


class Slots:
    """So many slots, of which `taken` are in use."""

    def __init__(self, most: int, hint: Callable[[Any], None]) -> None:
        self.most = most
        self.taken: Entries = {}
        self._hint = hint

    def take(self, generation: int = 0) -> Slot | None:
        """A slot, None where all are in use."""
        slot = Slot(generation)
        while len(self.taken) < self.most:
            used = len(self.taken)
            for number in chain(range(used, self.most), range(used)):
                if enter(self.taken, number, slot, self._hint):
                    slot.number = number
                    return slot
        return None

    def reset(self) -> None:
        """All are free again, whoever has one."""
        self.taken = {}


class Waiter:
    """Somebody who waits, and the lock on which he sleeps."""

    __slots__ = ("__weakref__", "_lock", "_wakable", "thread")

    def __init__(self, make_lock: Callable[[], Any]) -> None:
        self.thread = threading.get_ident()
        self._lock = _taken_lock(make_lock)
        self._wakable = [None]  # empty between a wake and the end of the sleep

    def wake(self) -> None:
        """Let him look; before he sleeps as well as while he does, and from anywhere."""
        try:
            self._wakable.pop()
        except IndexError:
            return  # that was done already
        self._lock.release()

    def sleep(self, seconds: float) -> None:
        """Until somebody wakes him, or it is time to look all the same."""
        if self._lock.acquire(True, min(seconds, LOOK_AGAIN)):
            self._wakable.append(None)


class Line:
    """Those who wait for something, first come first served."""

    def __init__(
        self,
        make_lock: Callable[[], Any] | None,
        available: Callable[[], Any],
        barred: Callable[[int], bool] | None = None,
    ) -> None:
        """`available` tells whether it is worth to wake somebody; a thread that is `barred` is
        passed over."""
        self.waiting: Entries = {}
        self._make_lock = make_lock
        self._available = available
        self._barred = barred
        self._numbers = count()

    def wait(self, look: Callable[[], T], seconds: float) -> T | None:
        """What `look` gives when it is the caller's turn; None where `seconds` were not enough.

        Whoever comes while somebody is `waiting` must wait as well, or would overtake him.
        """
        until = monotonic() + seconds
        waiter: Waiter | None = None
        try:
            number = next(self._numbers)
            waiter = Waiter(self._make_lock or threading.Lock)
            while True:
                # Now, so that no hint is missed between a look and the sleep; in a forked child,
                # where the line is another one, again.
                forks.count()
                if number not in self.waiting:
                    enter(self.waiting, number, waiter, self.hint)
                if self._first() is waiter:
                    found = look()
                    if found is not None:
                        return found
                left = until - monotonic()
                if left <= 0:
                    return None
                waiter.sleep(left)
        finally:
            # He leaves the line here, even if a traceback keeps this frame.
            waiter = None

    def hint(self, _: Any = None) -> None:
        """Something may be available: wake the first."""
        if self.waiting and self._available():
            first = self._first()
            if first is not None:
                first.wake()

    def _first(self) -> Waiter | None:
        for reference, _ in list(self.waiting.values()):
            waiter: Waiter | None = reference()
            if waiter is not None and not (self._barred and self._barred(waiter.thread)):
                return waiter
        return None

    def reset(self) -> None:
        """Nobody waits any more."""
        self.waiting = {}


def exhausted_error(most: int, waited: float, advice: str) -> RuntimeError:
    """For a caller who got none of `most`, although he waited for so many seconds."""
    return RuntimeError(
        f"Too many objects, {most} >= {most}: none became free within {waited:g} s; raise {advice}"
    )


def _taken_lock(make_lock: Callable[[], Any]) -> Any:
    """A lock that is taken, so that taking it once more waits until it is released."""
    lock = make_lock()
    lock.acquire()
    if lock.acquire(False):
        # One that its holder can take again, or that several can have: none to wait on.  Those who
        # make such locks (gevent.lock, threading) have an ordinary one beside it.
        module = sys.modules.get(type(lock).__module__)
        lock = getattr(module, "BoundedSemaphore", threading.Lock)()
        lock.acquire()
    return lock
