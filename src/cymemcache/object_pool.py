"""A pool of objects of any kind, for whoever wants one beside the clients' own.

No lock is held while its user's functions run.  An interruption inside `get`, `release` or
`destroy` loses no place: see `visits`.  An object that its holder lost gives its place back when it
is collected; only of those that cannot be referred to weakly, such as tuples, the pool cannot know.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from itertools import count
from time import monotonic
from weakref import ref

from . import forks
from .interruptions import is_interruption
from .limits import Slot, Slots, exhausted_error
from .line import Line
from .visits import Visit, Visits

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


class Place(Slot):
    """The slot of one object."""

    __slots__ = ("free_since", "objects", "use")

    def __init__(self) -> None:
        super().__init__()
        #: the object, while the pool has it; none, while it is in use
        self.objects: list[Any] = []
        #: when it became free, on the clock of `time.monotonic`
        self.free_since = 0.0
        #: under which number it is in use, -1 for none
        self.use = -1


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
        self._visits = Visits(self._lost)
        self._free: deque[Place] = deque()  # the one that was free longest is taken first
        # What gives an object that is in use, and its place, under a number never used again.
        self._used: dict[int, tuple[Callable[[], T | None], Place]] = {}
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
        return tuple(obj for place in list(self._free) for obj in place.objects)

    def get(self) -> T:
        """An object for the caller alone.  Follow with `release` or `destroy`.

        Raises `RuntimeError` where all stay in use for `wait_timeout`, and whatever `obj_creator`
        and `after_remove` raise.
        """
        forks.count()  # so that what the parent has in use does not count
        visit = self._visits.begin()
        with visit.here:
            try:
                self._find(visit)
                self._note_use(visit.things[-1])
                # The object first, which would keep its place in use; and no variable has it.
                return (visit.things[-1].objects.pop(), visit.things.pop())[0]  # type: ignore[no-any-return]
            finally:
                self._visits.end(visit)

    def release(self, obj: T, silent: bool = True) -> None:
        """`obj` is free again.  One that is not in use is ignored, or a `ValueError`."""
        visit = self._visits.begin()
        with visit.here:
            try:
                if self._is_found(visit, obj, silent):
                    place: Place = visit.things[-1]
                    place.objects.append(obj)
                    place.free_since = monotonic()
                    self._free.extend(visit.handed(place))
            finally:
                self._visits.end(visit)
        self._line.hint()

    def destroy(self, obj: T, silent: bool = True) -> None:
        """Have done with `obj`.  One that is not in use is ignored, or a `ValueError`."""
        visit = self._visits.begin()
        with visit.here:
            try:
                if self._is_found(visit, obj, silent):
                    visit.things[-1].objects.append(obj)
                    self._remove_last(visit)
            finally:
                self._visits.end(visit)

    def get_and_release(self, destroy_on_fail: bool = False) -> Borrowed[T]:
        """An object for a ``with`` block: taken at its beginning, released at its end.

        Where the block raises an `Exception` it is released or, with `destroy_on_fail`, destroyed;
        destroyed after any other interruption, which may have left it in the middle of something.
        """
        return Borrowed(self, destroy_on_fail)

    def clear(self) -> None:
        """Have done with all objects, those in use included."""
        visit = self._visits.begin()
        with visit.here:
            try:
                self._visits.know(visit)
                for number in list(self._used):
                    used = self._used.get(number)
                    obj = None if used is None else used[0]()
                    if obj is not None and self._is_taken_back(visit, number):
                        visit.things[-1].objects.append(obj)
                        self._remove_last(visit)
                while self._find_free(visit):
                    self._remove_last(visit)
            finally:
                self._visits.end(visit)

    def reset_after_fork(self) -> None:
        """In a child process: what the parent has is not ours."""
        self._free.clear()
        self._used = {}
        self._visits.reset()
        self._slots.reset()
        self._line.reset()

    def _is_available(self) -> bool:
        return bool(self._free) or len(self._slots.taken) < self.max_size

    def _find(self, visit: Visit) -> None:
        """Have a place in `visit`, as the last of what it has, and an object in it."""
        if not (self._line.is_open() and self._look(visit)):
            seconds = self.wait_timeout
            if not (seconds and self._line.wait(lambda: self._look(visit), seconds)):
                raise exhausted_error(self.max_size, seconds, "max_size or wait_timeout")
        if not visit.things[-1].objects:
            visit.things[-1].objects.append(self._obj_creator())

    def _look(self, visit: Visit) -> bool:
        """Whether there is now a place in `visit`, with an object or free for one."""
        self._visits.know(visit)
        return self._find_any(visit) or (self._visits.clean_up(visit) and self._find_any(visit))

    def _find_any(self, visit: Visit) -> bool:
        while self._find_free(visit):
            age = monotonic() - visit.things[-1].free_since
            if not self.idle_timeout or age <= self.idle_timeout:
                return True
            self._remove_last(visit)
        visit.things.append(Place())
        if self._slots.take(visit.things[-1]):
            return True
        visit.things.pop()
        return False

    def _find_free(self, visit: Visit) -> bool:
        try:
            visit.things.append(self._free.popleft())
        except IndexError as error:
            if is_interruption(error):
                raise
            return False
        return True

    def _note_use(self, place: Place) -> None:
        """The object of `place` is in use from now on."""
        give: Callable[[], T | None]
        obj: T = place.objects[0]
        place.use = next(self._numbers)
        try:
            give = ref(obj, partial(self._used.pop, place.use))
        except TypeError as error:
            if is_interruption(error):
                raise
            give = lambda: obj  # noqa: E731
        self._used[place.use] = (give, place)

    def _is_found(self, visit: Visit, obj: T, silent: bool) -> bool:
        """Whether `obj` was in use; its place is in `visit` now."""
        self._visits.know(visit)
        for number, (give, _) in list(self._used.items()):
            if give() is obj and self._is_taken_back(visit, number):
                return True
        if not silent:
            raise ValueError(f"{obj!r} is not in use")
        return False

    def _is_taken_back(self, visit: Visit, number: int) -> bool:
        try:
            visit.things.append(self._used.pop(number)[1])
        except KeyError as error:
            if is_interruption(error):
                raise
            return False
        return True

    def _remove_last(self, visit: Visit) -> None:
        """Have done with the object of the last place in `visit`."""
        place: Place = visit.things[-1]
        objects, place.objects = place.objects, []
        place.end()
        visit.things.pop()
        if self._after_remove is not None:
            for obj in objects:
                self._after_remove(obj)

    def _lost(self, place: Place) -> None:
        """Have done with what was interrupted on its way from the pool or to it."""
        self._used.pop(place.use, None)
        place.end()
        if self._after_remove is not None:
            while place.objects:
                self._after_remove(place.objects.pop())


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
