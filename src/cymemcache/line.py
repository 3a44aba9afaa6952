"""The line of those who wait for something, first come first served.

Who waits sleeps on a lock of his own.  Whoever brings something back wakes the first; that is only
a hint, and what counts is what he finds.

To hand each thing to the first would cost two changes of threads for every command of a busy pool,
while the thread that has just brought it back could go on with it at once.  So those who come may
take what is there, too, for `OPEN` seconds from the time on at which somebody became the first.
Then it is `reserved`: who comes later waits, and the next thing is his.  Nobody in the line is ever
overtaken by one behind him, and the first for `OPEN` seconds at most.

A hint can be lost, since an interruption can come between two statements of him who gives it.  So
the first looks by himself every `LOOK_AGAIN` seconds, and all others together about as often, by
turns: they see to it that the first knows that he is it.  One who does not look any more, since his
thread runs a signal handler in the middle of its sleep, is passed over until he does.  What the
handler itself asks for has the place of its thread in the line, before it.
"""

from __future__ import annotations

import sys
import threading
from time import monotonic

from . import forks
from .interruptions import is_interruption
from .visits import caller

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

LOOK_AGAIN = 0.05  # seconds after which the first looks although nobody woke him
OPEN = 0.001  # seconds for which the first can be overtaken by those who come


class Waiter:
    """Somebody who waits, as long as `here` is locked, and the lock on which he sleeps."""

    __slots__ = (
        "_lock",
        "_wakable",
        "caller",
        "here",
        "is_absent",
        "looks",
        "open_until",
        "outer",
        "thread",
    )

    def __init__(self, make_lock: Callable[[], Any]) -> None:
        self.here = threading.Lock()
        self.thread = threading.get_ident()
        self.caller = caller()
        #: does something else, in a signal handler: others pass him over
        self.is_absent = False
        #: how often he has looked, as the first
        self.looks = 0
        #: until when he can be overtaken, None where he is not known to be the first
        self.open_until: float | None = None
        #: the waiter in whose sleep this one began, in a signal handler
        self.outer: Waiter | None = None
        self._lock = _taken_lock(make_lock)
        self._wakable = [None]  # empty between a wake and the end of the sleep

    def wake(self) -> None:
        """Let him look; before he sleeps as well as while he does, and from anywhere."""
        try:
            self._wakable.pop()
        except IndexError as error:
            if is_interruption(error):
                raise
            return  # that was done already
        self._lock.release()

    def sleep(self, seconds: float) -> None:
        """Until somebody wakes him, at most for so long."""
        if self._lock.acquire(True, min(seconds, threading.TIMEOUT_MAX)):
            self._wakable.append(None)

    def has_gone(self) -> bool:
        """Whether he waits no longer, however that ended."""
        return not self.here.locked()


class Line:
    """Those who wait for something."""

    def __init__(
        self,
        make_lock: Callable[[], Any] | None,
        available: Callable[[], Any],
        barred: Callable[[int], bool] | None = None,
    ) -> None:
        """`available` tells whether it is worth to wake somebody; a thread that is `barred` is
        passed over."""
        self.waiting: list[Waiter] = []
        #: the one for whom the next thing is reserved, where there is one
        self.reserved: list[Waiter] = []
        self._by_caller: dict[int, Waiter] = {}
        self._make_lock = make_lock
        self._available = available
        self._barred = barred
        self._seen: tuple[Waiter | None, int, float] = (None, 0, 0.0)
        self._resets = 0

    def is_open(self) -> bool:
        """Whether one who comes now may take what is there."""
        if self._by_caller:
            self._step_aside(self._by_caller.get(caller()))
        if not self.reserved:
            return True
        if self._first() in self.reserved:
            return False
        self.reserved.clear()  # of one who has gone, or does something else
        return True

    def wait(self, look: Callable[[], bool], seconds: float) -> bool:
        """Whether `look` finds something when it is the caller's turn, within `seconds`."""
        until = monotonic() + seconds
        waiter = Waiter(self._make_lock or threading.Lock)
        with waiter.here:
            try:
                return self._wait(waiter, look, until)
            finally:
                self._leave(waiter)

    def hint(self, _: Any = None) -> None:
        """Something may be available: wake the first."""
        first = self._first() if self.waiting else None
        if first is None or not self._available():
            return
        if not self._can_be_overtaken(first, monotonic()):
            self._reserve(first)
        elif first.looks > 1:
            return  # he was overtaken; he looks when that cannot happen any more
        first.wake()

    def reset(self) -> None:
        """Nobody waits any more, in a child process."""
        self.waiting.clear()
        self.reserved.clear()
        self._by_caller.clear()
        self._resets += 1

    def _wait(self, waiter: Waiter, look: Callable[[], bool], until: float) -> bool:
        resets = None
        while True:
            forks.count()
            if resets != self._resets:  # in a forked child the line is another one
                resets = self._resets
                self._join(waiter)
            waiter.is_absent = False
            first = self._first()
            now = monotonic()
            if first is waiter:
                seconds = self._until_next_look(waiter, now)
                waiter.looks += 1
                if look():
                    return True
            else:
                # Those that are barred are told nothing when they are not any more.
                is_barred = self._barred is not None and self._barred(waiter.thread)
                seconds = LOOK_AGAIN * (1 if is_barred else len(self.waiting))
                if first is not None:
                    self._see_to(first, now)
            if until <= now:
                return False
            waiter.sleep(min(seconds, until - now))

    def _until_next_look(self, first: Waiter, now: float) -> float:
        """Seconds that the first may sleep; what comes is reserved for him when it is time."""
        if self._can_be_overtaken(first, now):
            return min(LOOK_AGAIN, (first.open_until or now) - now)
        self._reserve(first)
        return LOOK_AGAIN

    def _can_be_overtaken(self, first: Waiter, now: float) -> bool:
        if first.open_until is None:
            first.open_until = now + OPEN
        return now < first.open_until

    def _reserve(self, first: Waiter) -> None:
        if first not in self.reserved:
            self.reserved[:] = [first]

    def _see_to(self, first: Waiter, now: float) -> None:
        """See to it that the `first` looks, or is passed over where he does not."""
        if first.looks == 0:
            first.wake()
        seen, looks, since = self._seen
        if seen is not first or looks != first.looks:
            self._seen = (first, first.looks, now)
        elif now - since >= 2 * LOOK_AGAIN and self._available():
            self._step_aside(first)

    def _step_aside(self, waiter: Waiter | None) -> None:
        """`waiter`, and those in whose sleep he began, do something else for the moment."""
        while waiter is not None:
            if not waiter.is_absent:
                waiter.is_absent = True
                self._tell_first()
            waiter = waiter.outer

    def _tell_first(self) -> None:
        first = self._first() if self.waiting else None
        if first is not None:
            first.wake()

    def _join(self, waiter: Waiter) -> None:
        outer = self._by_caller.get(waiter.caller)
        while outer is not None and (outer is waiter or outer.has_gone()):
            outer = outer.outer
        waiter.outer = outer
        self._by_caller[waiter.caller] = waiter
        try:
            place = len(self.waiting) if outer is None else self.waiting.index(outer)
        except ValueError as error:
            if is_interruption(error):
                raise
            place = len(self.waiting)
        self.waiting.insert(place, waiter)

    def _leave(self, waiter: Waiter) -> None:
        self._remove(waiter)
        if self._by_caller.get(waiter.caller) is waiter:
            if waiter.outer is None:
                self._by_caller.pop(waiter.caller, None)
            else:
                self._by_caller[waiter.caller] = waiter.outer
        if waiter in self.reserved:
            self.reserved.clear()
        self._tell_first()

    def _remove(self, waiter: Waiter) -> None:
        try:
            self.waiting.remove(waiter)
        except ValueError as error:
            if is_interruption(error):
                raise

    def _first(self) -> Waiter | None:
        """The first who can take something."""
        place = 0
        while True:
            try:
                waiter = self.waiting[place]
            except IndexError as error:
                if is_interruption(error):
                    raise
                return None
            if waiter.has_gone():  # he was interrupted before he could leave
                self._remove(waiter)
            elif waiter.is_absent or (self._barred is not None and self._barred(waiter.thread)):
                place += 1
            else:
                return waiter


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
