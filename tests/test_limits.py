"""How many there may be: slots are never lost, and never given back twice."""

from __future__ import annotations

import gc
import threading
import time
from typing import Any

from cymemcache.limits import Slot, Slots


def nothing(_: Any) -> None:
    pass


def take(slots: Slots) -> Slot | None:
    """One of `slots`, None where all are in use."""
    slot = Slot()
    return slot if slots.take(slot) else None


def test_a_slot_is_free_again_when_nobody_has_it() -> None:
    hints: list[Any] = []
    slots = Slots(2, hints.append)
    first, second = take(slots), take(slots)
    assert [getattr(slot, "number", None) for slot in (first, second)] == [0, 1]
    assert take(slots) is None
    assert not hints
    del first
    assert len(hints) == 1
    third = take(slots)
    assert getattr(third, "number", None) == 0
    assert take(slots) is None


def test_the_slot_is_free_before_anybody_is_told() -> None:
    seen: list[int] = []
    slots = Slots(1, lambda _: seen.append(len(slots.taken)))
    take(slots)
    assert seen == [0]


def test_a_slot_in_a_cycle_of_garbage_is_given_back() -> None:
    slots = Slots(1, nothing)
    cycle: list[Any] = [take(slots)]
    cycle.append(cycle)
    del cycle
    gc.collect()
    assert take(slots) is not None


def test_never_more_slots_than_there_are_and_all_of_them_in_the_end() -> None:
    slots = Slots(3, nothing)
    most = 0
    stop = time.monotonic() + 0.5
    failures: list[Any] = []

    def use() -> None:
        nonlocal most
        while time.monotonic() < stop:
            slot = take(slots)
            most = max(most, len(slots.taken))
            if slot is not None and slot.number not in (0, 1, 2):
                failures.append(slot.number)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert 1 <= most <= 3
    assert not slots.taken


def test_a_slot_that_is_given_back_is_free_though_somebody_keeps_it() -> None:
    hints: list[Any] = []
    slots = Slots(1, hints.append)
    kept = take(slots)
    assert kept is not None
    kept.end()
    assert len(hints) == 1
    other = take(slots)
    assert other is not None
    kept.end()
    del kept
    assert take(slots) is None, "it was given back twice"
