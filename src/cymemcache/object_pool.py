"""A pool of objects of any kind, for whoever wants one beside the clients' own.

No lock is held while its user's functions run.  An object that its holder lost (an interruption
between two statements is enough) gives its place back when it is collected; only of those that
cannot be referred to weakly, such as tuples, the pool cannot know.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from itertools import count
from time import monotonic
from weakref import ref

from . import forks
from .limits import Line, Slot, Slots, exhausted_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any, Generic, TypeVar

    T = TypeVar("T")

    class _Generic(Generic[T]):
        pass

else:
    T = None

    class _Generic:
        """Stands for typing's Generic, which is not loaded at run time."""

        __slots__ = ()

        def __class_getitem__(cls, parameters):
            return cls


UNLIMITED = 2**31  # what `max_size` says where there is no limit


class ObjectPool(_Generic[T]):
    """At most `max_size` objects, made by `obj_creator` when none is free.

    `after_remove`: function to be called with each object that the pool has done with;
    `max_size`: None or 0 for no limit;
    `idle_timeout`: seconds after which a free object is not used any more, 0 for no limit;
    `lock_generator`: makes the locks that callers wait on (``gevent.lock.BoundedSemaphore``);
    `wait_timeout`: seconds that `get` waits for an object where all are in use, 0 for not at all.

    A forked child starts with an empty pool; what its parent had is not given to `after_remove`.
    """

    def __init__(
        self,
        obj_creator: Callable[[], T],
        after_remove: Callable[[T], Any] | None = None,
        max_size: int | None = None,
        idle_timeout: float = 0,
        lock_generator: Callable[[], Any] | None = None,
        wait_timeout: float = 5.0,
    ) -> None:
        max_size = max_size or UNLIMITED
        if not isinstance(max_size, int) or max_size < 0:
            raise ValueError(f"max_size must be a positive integer or None, not {max_size!r}")
        self.max_size: int = max_size
        self.idle_timeout = idle_timeout
        self.wait_timeout = wait_timeout
        self._obj_creator = obj_creator
        self._after_remove = after_remove
        self._line = Line(lock_generator, self._is_available)
        self._slots = Slots(max_size, self._line.hint)
        # (object, its slot, when it became free); the one that was free longest is taken first.
        self._free: deque[tuple[T, Slot, float]] = deque()
        # What gives an object that is in use, and its slot, under a number never used again.
        self._used: dict[int, tuple[Callable[[], T | None], Slot]] = {}
        self._numbers = count()
        forks.renew_in_children(self, forks.POOLS)

    @property
    def used(self) -> tuple[T, ...]:
        """The objects that are in use."""
        found = [give() for give, _ in list(self._used.values())]
        return tuple(obj for obj in found if obj is not None)

    @property
    def free(self) -> tuple[T, ...]:
        """The objects that are there to be taken."""
        return tuple(obj for obj, _, _ in list(self._free))

    def get(self) -> T:
        """An object for the caller alone.  Follow with `release` or `destroy`.

        Raises `RuntimeError` where all stay in use for `wait_timeout`, and whatever `obj_creator`
        and `after_remove` raise.
        """
        forks.count()  # so that what the parent has in use does not count
        found = None if self._line.waiting else self._look()
        if found is None and self.wait_timeout:
            found = self._line.wait(self._look, self.wait_timeout)
        if found is None:
            raise exhausted_error(self.max_size, self.wait_timeout, "max_size or wait_timeout")
        try:
            if isinstance(found, Slot):
                return self._handed_out(self._obj_creator(), found)
            return self._handed_out(found[0], found[1])
        finally:
            del found  # a traceback may keep this frame

    def release(self, obj: T, silent: bool = True) -> None:
        """`obj` is free again.  One that is not in use is ignored, or a `ValueError`."""
        slot = self._no_longer_used(obj, silent)
        if slot is not None:
            self._free.append((obj, slot, monotonic()))
            self._line.hint()

    def destroy(self, obj: T, silent: bool = True) -> None:
        """Have done with `obj`.  One that is not in use is ignored, or a `ValueError`."""
        if self._no_longer_used(obj, silent) is not None and self._after_remove is not None:
            self._after_remove(obj)

    def get_and_release(self, destroy_on_fail: bool = False) -> Borrowed[T]:
        """An object for a ``with`` block: taken at its beginning, released at its end.

        Where the block raises an `Exception` it is released or, with `destroy_on_fail`, destroyed;
        destroyed after any other interruption, which may have left it in the middle of something.
        """
        return Borrowed(self, destroy_on_fail)

    def clear(self) -> None:
        """Have done with all objects, those in use included."""
        gone: list[T | None] = []
        for number in list(self._used):
            used = self._used.pop(number, None)
            if used is not None:
                gone.append(used[0]())
        while self._free:
            try:
                gone.append(self._free.popleft()[0])
            except IndexError:
                break
        used = None
        if self._after_remove is not None:
            for obj in gone:
                if obj is not None:
                    self._after_remove(obj)

    def reset_after_fork(self) -> None:
        """In a child process: what the parent has is not ours."""
        self._free.clear()
        self._used = {}
        self._slots.reset()
        self._line.reset()

    def _is_available(self) -> bool:
        return bool(self._free) or len(self._slots.taken) < self.max_size

    def _look(self) -> tuple[T, Slot, float] | Slot | None:
        while True:
            try:
                found = self._free.popleft()
            except IndexError:
                return self._slots.take()
            if not self.idle_timeout or monotonic() - found[2] <= self.idle_timeout:
                return found
            obj = found[0]
            del found  # its slot is free now
            if self._after_remove is not None:
                self._after_remove(obj)

    def _handed_out(self, obj: T, slot: Slot) -> T:
        give: Callable[[], T | None]
        number = next(self._numbers)
        try:
            give = ref(obj, partial(self._used.pop, number))
        except TypeError:
            give = lambda: obj  # noqa: E731
        self._used[number] = (give, slot)
        return obj

    def _no_longer_used(self, obj: T, silent: bool) -> Slot | None:
        for number, (give, _) in list(self._used.items()):
            if give() is obj:
                entry = self._used.pop(number, None)
                if entry is not None:
                    return entry[1]
        if not silent:
            raise ValueError(f"{obj!r} is not in use")
        return None


class Borrowed(_Generic[T]):
    """What `get_and_release` gives."""

    def __init__(self, pool: ObjectPool[T], destroy_on_fail: bool) -> None:
        self._pool = pool
        self._destroy_on_fail = destroy_on_fail

    def __enter__(self) -> T:
        self._obj = self._pool.get()
        return self._obj

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        obj = self._obj
        del self._obj
        if error is None or (isinstance(error, Exception) and not self._destroy_on_fail):
            self._pool.release(obj)
        else:
            self._pool.destroy(obj)
