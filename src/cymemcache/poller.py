"""A daemon thread that calls a method of an object every so often, or when it is asked to.

The thread keeps the object no longer than a call takes: it ends when the object is gone.  It is
not there in a forked child.  There is one poll at a time, however often it is stopped and started.
`start`, `stop` and `wake` may be called at any time, from signal handlers and finalizers too, and
wait for nothing but the start of a thread: there is no lock.

Whether it runs is asked of the thread itself, and written down nowhere else, since an interruption
can fall between any two lines of `start`, and an error can end the thread.
"""

from __future__ import annotations

import threading
import weakref
from queue import Empty, SimpleQueue
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Polled(Protocol):
        """What a `Poller` calls."""

        def poll(self) -> bool:
            """False where it ended early, since `is_called_off`."""
            ...


LEAST_SECONDS = 1.0  # between two polls, however often it is woken

_POLL = True
_LOOK = False  # whether it is over


class Poller:
    """Calls `poll` of an object every `interval` seconds, and at once when it is woken."""

    def __init__(self, interval: float) -> None:
        self.interval = interval
        self._is_stopped = True
        # The one that polls; any other that runs ends.
        self._thread: _Thread | None = None
        # When the next poll is due, and before when none may be; over stops and starts, which are
        # no reason to poll.
        self._earliest = monotonic()
        self._due = self._earliest + interval

    @property
    def is_idle(self) -> bool:
        """Whether nothing will be polled until `start` is called."""
        thread = self._thread
        return self._is_stopped or thread is None or not thread.is_alive()

    def start(self, owner: Polled) -> None:
        """Poll `owner` from now on; nothing happens where that is so already.

        Raises `RuntimeError` where there can be no thread.
        """
        self._is_stopped = False
        # One that was stopped in the middle of a poll, and has not ended yet, goes on.
        if self._thread is None or not self._thread.is_alive():
            self._thread = thread = _Thread(self, owner)
            thread.start()

    def stop(self) -> None:
        """End the thread, once a poll that is under way is done or called off."""
        self._is_stopped = True
        self._tell(_LOOK)

    def wake(self) -> None:
        """Poll at once, where the last poll is a while ago; nothing happens without a thread."""
        self._tell(_POLL)

    def _tell(self, order: bool) -> None:
        thread = self._thread
        if thread is not None and thread.is_alive():
            thread.orders.put(order)

    # -- in the thread -----------------------------------------------------------------------------

    def is_called_off(self) -> bool:
        """Whether the poll that the calling thread is at should end; false in any other thread."""
        return self._is_stopped and threading.current_thread() is self._thread

    def run(self, thread: _Thread) -> None:
        """What `thread` does."""
        while self._wait(thread):
            owner = thread.owner()
            if owner is None:
                return
            is_done = True
            try:
                is_done = owner.poll()
            except Exception as error:
                # It must go on, and has no caller to tell.
                hook = threading.excepthook
                hook(threading.ExceptHookArgs((type(error), error, error.__traceback__, thread)))
            del owner
            self._earliest = monotonic() + LEAST_SECONDS
            self._due = monotonic() + self.interval if is_done else self._earliest

    def _wait(self, thread: _Thread) -> bool:
        """Wait until it is time to poll; false where it is time to end."""
        due = self._due
        while not self._is_over(thread):
            try:
                order = thread.orders.get(timeout=max(0, due - monotonic()))
            except Empty:
                return True
            if order is _POLL:
                due = min(due, self._earliest)
        return False

    def _is_over(self, thread: _Thread) -> bool:
        if thread.owner() is None:
            return True
        if self._is_stopped and self._thread is thread:
            self._thread = None
            # `start` says first that it is not stopped, and then looks for a thread.
            if not self._is_stopped and self._thread is None:
                self._thread = thread
        return self._thread is not thread


class _Thread(threading.Thread):
    def __init__(self, poller: Poller, owner: Polled) -> None:
        super().__init__(name="cymemcache discovery", daemon=True)
        self.poller = poller
        #: `_POLL` or `_LOOK`, as they come
        self.orders: SimpleQueue[bool] = SimpleQueue()
        orders = self.orders
        # It is the thread that has the reference: one that is garbage together with what it
        # refers to would not be called.
        self.owner = weakref.ref(owner, lambda _: orders.put(_LOOK))

    def run(self) -> None:
        self.poller.run(self)
