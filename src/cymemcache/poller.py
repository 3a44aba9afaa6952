"""A daemon thread that calls a method of an object every so often, or when it is asked to.

The thread keeps the object no longer than a call takes: it ends when the object is gone.  It is
not there in a forked child.  `wake` and `stop` may be called at any time, from signal handlers and
finalizers too, and never wait; nothing in here may run other code of anybody's under its lock.
"""

from __future__ import annotations

import threading
import weakref
from queue import Empty, SimpleQueue
from time import monotonic

from .node import renewed_after_fork

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol, TypeAlias

    class Polled(Protocol):
        """What a `Poller` calls."""

        def poll(self) -> None: ...

    Orders: TypeAlias = SimpleQueue[bool]

LEAST_SECONDS = 1.0  # between two polls, however often it is woken

_POLL = True
_STOP = False


class Poller:
    """Calls `poll` of an object every `interval` seconds, and at once when it is woken."""

    def __init__(self, interval: float) -> None:
        self.interval = interval
        #: whether no thread was started, or it was told to stop
        self.is_idle = True
        self._orders: Orders | None = None
        # When the next poll is due; over stops and starts, which are no reason to poll.
        self._due = monotonic() + interval
        self.renew_lock()
        renewed_after_fork(self)

    def renew_lock(self) -> None:
        self._lock = threading.RLock()
        self._orders = None  # the thread that took them is the parent's
        self.is_idle = True

    def start(self, owner: Polled) -> None:
        """Poll `owner` from now on; nothing happens where that is so already.

        Raises `RuntimeError` where there can be no thread.
        """
        with self._lock:
            if not self.is_idle:
                return
            orders: Orders = SimpleQueue()
            self._orders = orders
            self.is_idle = False
        # It is the thread that has the reference: one that is garbage together with what it
        # refers to would not be called.
        reference = weakref.ref(owner, lambda _: orders.put(_STOP))
        thread = threading.Thread(
            target=self._run, args=(reference, orders), name="cymemcache discovery", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:
            self.stop()
            raise

    def stop(self) -> None:
        """End the thread, once a poll that is under way is done."""
        with self._lock:
            orders, self._orders = self._orders, None
            self.is_idle = True
        if orders is not None:
            orders.put(_STOP)

    def wake(self) -> None:
        """Poll at once, where the last poll is a while ago; nothing happens without a thread."""
        orders = self._orders
        if orders is not None:
            orders.put(_POLL)

    def _run(self, reference: weakref.ref[Polled], orders: Orders) -> None:
        earliest = monotonic()
        while self._wait(orders, earliest):
            owner = reference()
            if owner is None:
                break
            owner.poll()
            del owner
            earliest = monotonic() + LEAST_SECONDS
            self._due = monotonic() + self.interval

    def _wait(self, orders: Orders, earliest: float) -> bool:
        """Wait until it is time to poll; false where it is time to end."""
        due = self._due
        while True:
            try:
                order = orders.get(timeout=max(0, due - monotonic()))
            except Empty:
                return True
            if order is _STOP:
                return False
            due = min(due, earliest)
