"""What a caller has of a limited pool while he is in it.

An interruption can come between any two statements, also between those that would clean up after
another, and whoever keeps the exception keeps its frames, with all that their variables name.  So
no pool asks whether an object still exists.  What somebody has taken stands in his `Visit`, and a
visit has ended when the ``with`` block of its lock was left: that is one call of a builtin, before
which the interpreter does not look for interruptions.  What is left in a visit that has ended is
closed by the next caller who finds nothing else.

A thing moves between a visit and a pool in one call of a builtin as well, `list.extend` over
`map(list.pop, ...)`, so that it is in either of them and never in both.
"""

from __future__ import annotations

import sys
import threading

from .interruptions import is_interruption

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

LAST = (-1,)  # for `map(list.pop, LAST)`


class Visit:
    """A caller's stay in a pool, as long as `here` is locked: ``with visit.here:``."""

    __slots__ = ("caller", "here", "is_known", "outer", "settles", "things")

    def __init__(self, here: Any = None) -> None:
        self.here = here or threading.Lock()
        #: what he has taken and not given back: connections, slots, objects
        self.things: list[Any] = []
        #: the thread whose noreply commands he waits for, 0 where there is none
        self.settles = 0
        #: whether the pool has it among its visits
        self.is_known = False
        #: see `caller`
        self.caller = 0
        #: the visit in the middle of which this one began, in a signal handler
        self.outer: Visit | None = None

    def has_ended(self) -> bool:
        """Whether its block was left, however that went."""
        return not self.here.locked()

    def handed(self, thing: Any) -> Iterable[Any]:
        """Yields `thing`, which leaves the visit at that moment."""
        return map(self.things.pop, (self.things.index(thing),))


class Visits:
    """The visits to one pool that may have something of it."""

    def __init__(self, close: Callable[[Any], None]) -> None:
        """`close` ends a thing; where that was done before, it does nothing."""
        self._close = close
        self._with_things: list[Visit] = []
        self._by_caller: dict[int, Visit] = {}

    def begin(self, here: Any = None) -> Visit:
        """A visit of the caller's, which `current` gives from the beginning of its block on."""
        visit = Visit(here)
        visit.caller = caller()
        visit.outer = self.current(visit.caller)
        self._by_caller[visit.caller] = visit
        return visit

    def current(self, number: int | None = None) -> Visit | None:
        """The caller's visit, None where he is on none."""
        if not self._by_caller:
            return None
        visit = self._by_caller.get(caller() if number is None else number)
        while visit is not None and visit.has_ended():
            visit = visit.outer
        return visit

    def know(self, visit: Visit) -> None:
        """Remember `visit`, before it has anything."""
        if not visit.is_known:
            self._with_things.append(visit)
            visit.is_known = True

    def end(self, visit: Visit) -> None:
        """Close what is left in `visit`, the last thing that is done in its block."""
        while visit.things:
            self._close(visit.things[-1])
            visit.things.pop()
        self._forget(visit)

    def let_go(self, visit: Visit) -> Any:
        """The last of what `visit` has, not in it any more: for a caller who sees to it himself."""
        return visit.things.pop()

    def _forget(self, visit: Visit) -> None:
        if visit.is_known:
            try:
                self._with_things.remove(visit)
            except ValueError as error:
                if is_interruption(error):
                    raise
            visit.is_known = False
        if self._by_caller.get(visit.caller) is visit:
            if visit.outer is None:
                self._by_caller.pop(visit.caller, None)
            else:
                self._by_caller[visit.caller] = visit.outer

    def clean_up(self, mine: Visit) -> bool:
        """Close what is left in visits that have ended; False where there was nothing.

        It goes through `mine`, so that an interruption of this leaves it for the next one.
        """
        found = False
        for visit in self._with_things[:]:
            if not visit.has_ended():
                continue
            while visit.things:
                try:
                    mine.things.extend(map(visit.things.pop, LAST))
                except IndexError as error:
                    if is_interruption(error):
                        raise
                    break  # another caller is cleaning up
                found = True
                self._close(mine.things[-1])
                mine.things.pop()
            self._forget(visit)
        return found

    def reset(self) -> None:
        """Forget all but the caller's own, in a child process: nobody else is in it."""
        own = self.current()
        self._with_things.clear()
        self._by_caller.clear()
        while own is not None:
            self._by_caller.setdefault(own.caller, own)
            own.is_known = False
            own = own.outer


def caller() -> int:
    """A number that no other thread or greenlet has as long as this one runs."""
    greenlet = sys.modules.get("greenlet")
    if greenlet is not None:
        # The greenlets of a thread that was not patched have its number.
        try:
            return id(greenlet.getcurrent())
        except RuntimeError:
            pass  # the interpreter ends, and greenlet has ended
    return threading.get_ident()
