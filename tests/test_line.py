"""The line of those who wait: first come first served, nobody forgotten, whatever kind of lock they
sleep on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import gevent.lock
import pytest

from cymemcache.line import Line
from wire import PATIENCE, wait_until

LOCKS: dict[str, Callable[[], Any] | None] = {
    "default": None,
    "lock": threading.Lock,
    "rlock": threading.RLock,
    "semaphore": threading.Semaphore,
    "bounded": threading.BoundedSemaphore,
    "many": lambda: threading.Semaphore(3),
}


class Offer:
    """Things to be had, one at a time, and the line of those who want one."""

    def __init__(self, make_lock: Callable[[], Any] | None = None) -> None:
        self.things: list[Any] = []
        self.line = Line(make_lock, lambda: self.things)
        self.got: list[tuple[str, Any]] = []
        self.threads: list[threading.Thread] = []

    def look(self, found: list[Any]) -> bool:
        if self.things:
            found.append(self.things.pop())
        return bool(found)

    def wait(self, seconds: float) -> Any:
        """What was found, None where nothing was."""
        found: list[Any] = []
        return found.pop() if self.line.wait(lambda: self.look(found), seconds) else None

    def put(self, thing: Any) -> None:
        self.things.append(thing)
        self.line.hint()

    def join_the_line(self, name: str, seconds: float = PATIENCE) -> None:
        """Start a thread that waits, and see it stand in the line."""

        def wait() -> None:
            self.got.append((name, self.wait(seconds)))

        before = len(self.line.waiting)
        self.threads.append(threading.Thread(target=wait))
        self.threads[-1].start()
        wait_until(lambda: len(self.line.waiting) > before or (name, None) in self.got)

    def everybody_went(self) -> None:
        for thread in self.threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
        assert not self.line.waiting


@pytest.mark.parametrize("kind", LOCKS)
def test_who_came_first_is_served_first(kind: str) -> None:
    offer = Offer(LOCKS[kind])
    names = [f"n{number}" for number in range(8)]
    for name in names:
        offer.join_the_line(name)
    for number, _ in enumerate(names):
        offer.put(number + 1)
        wait_until(lambda number=number: len(offer.got) == number + 1)  # type: ignore[misc]
    offer.everybody_went()
    assert offer.got == [(name, number + 1) for number, name in enumerate(names)]


def test_several_things_at_once_serve_as_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cymemcache.line.LOOK_AGAIN", PATIENCE)  # by being woken alone
    offer = Offer()
    for name in "abcd":
        offer.join_the_line(name)
    offer.things += [1, 2, 3, 4]
    offer.line.hint()  # for all of them
    offer.everybody_went()
    assert sorted(offer.got) == [("a", 4), ("b", 3), ("c", 2), ("d", 1)]


def test_a_waiter_that_nobody_woke_looks_by_itself() -> None:
    offer = Offer()
    offer.join_the_line("a")
    offer.things.append(1)
    offer.everybody_went()
    assert offer.got == [("a", 1)]


def test_who_gets_nothing_in_time_goes_and_those_behind_stay() -> None:
    offer = Offer()
    offer.join_the_line("hasty", 0.01)
    offer.join_the_line("patient")
    wait_until(lambda: offer.got)
    offer.put(1)
    offer.everybody_went()
    assert offer.got == [("hasty", None), ("patient", 1)]


def test_one_that_is_there_when_the_time_is_up_is_taken() -> None:
    offer = Offer()
    offer.things.append(1)
    assert offer.wait(0) == 1
    assert offer.wait(0) is None


def test_a_look_that_raises_ends_the_wait_and_not_that_of_others() -> None:
    offer = Offer()
    kept: list[BaseException] = []

    def look() -> bool:
        raise KeyboardInterrupt

    def interrupted() -> None:
        try:
            offer.line.wait(look, PATIENCE)
        except KeyboardInterrupt as error:
            kept.append(error)  # with the frames of its traceback

    thread = threading.Thread(target=interrupted)
    thread.start()
    thread.join()
    assert kept
    assert not offer.line.waiting


def test_a_thread_that_is_barred_is_passed_over_until_it_is_not() -> None:
    offer = Offer()
    barred: set[int | None] = set()
    offer.line = Line(None, lambda: offer.things, barred.__contains__)
    offer.join_the_line("first")
    barred.add(offer.threads[0].ident)
    offer.join_the_line("second")
    offer.put(1)
    wait_until(lambda: offer.got)
    assert offer.got == [("second", 1)]
    barred.clear()
    offer.put(2)
    offer.everybody_went()
    assert offer.got[1:] == [("first", 2)]


@pytest.mark.parametrize("make_lock", [gevent.lock.BoundedSemaphore, gevent.lock.RLock])
def test_greenlets_wait_without_stopping_their_thread(make_lock: Callable[[], Any]) -> None:
    offer = Offer(make_lock)
    got: list[int] = []
    waiting = [gevent.spawn(lambda: got.append(offer.wait(PATIENCE))) for _ in range(3)]
    gevent.sleep(0)
    assert len(offer.line.waiting) == 3
    for number in range(3):
        offer.put(number + 1)
        waiting[number].join(PATIENCE)
        assert got == [1, 2, 3][: number + 1]
