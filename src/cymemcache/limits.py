"""How many there may be of something.

A slot is an object: whoever has it may have one of what is limited.  It is given back by its `end`,
and by the end of the object where that was not called; none is given back twice.  There is no lock
in here, so nobody can hold one while other people's code runs.
"""

from __future__ import annotations

from functools import partial
from itertools import chain
from weakref import ref

from .interruptions import own

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias

    from .visits import Visit

    Entries: TypeAlias = "dict[int, tuple[ref[Any], ref[Any]]]"


def enter(entries: Entries, number: int, thing: Any, hint: Callable[[Any], Any]) -> bool:
    """Put `thing` among `entries` under `number`, for as long as it exists; False if that is taken.

    Afterwards `hint` is called.
    """
    # Of two callbacks the later is called first: `pop` takes the dead reference for a default.
    after = ref(thing, hint)
    entry = (ref(thing, partial(entries.pop, number)), after)
    return entries.setdefault(number, entry) is entry


class Slot:
    """Permission to have one of what is limited."""

    __slots__ = ("__weakref__", "generation", "number", "slots", "visit")

    def __init__(self, generation: int = 0) -> None:
        #: of the pool, when the permission was given
        self.generation = generation
        #: which of the slots it is, from 0; None where they are not limited
        self.number: int | None = None
        #: in which it was taken last, where that was in one
        self.visit: Visit | None = None
        self.slots: Slots | None = None

    def end(self) -> None:
        """Give it back; it was given back before, or never taken, where that does nothing."""
        if self.slots is not None:
            self.slots.give(self)


class Slots:
    """So many slots, of which `taken` are in use."""

    def __init__(self, most: int, hint: Callable[[Any], Any]) -> None:
        self.most = most
        self.taken: Entries = {}
        self._hint = hint

    def take(self, slot: Slot) -> bool:
        """Whether `slot` is one of them from now on; not where all are in use."""
        slot.slots = self
        while len(self.taken) < self.most:
            used = len(self.taken)
            for number in chain(range(used, self.most), range(used)):
                slot.number = number
                if enter(self.taken, number, slot, self._hint):
                    return True
        slot.number = None
        return False

    def give(self, slot: Slot) -> None:
        """`slot` is free again, where it was taken."""
        number = slot.number
        entry = None if number is None else self.taken.get(number)
        if number is not None and entry is not None and entry[0]() is slot:
            self.taken.pop(number, None)
            self._hint(None)

    def reset(self) -> None:
        """All are free again, whoever has one."""
        self.taken = {}


def exhausted_error(most: int, waited: float, advice: str) -> RuntimeError:
    """For a caller who got none of `most`, although he waited for so many seconds."""
    return own(
        RuntimeError(
            f"Too many objects, {most} >= {most}: none became free within {waited:g} s; "
            f"raise {advice}"
        )
    )
