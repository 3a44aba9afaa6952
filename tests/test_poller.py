"""The thread that polls: when it does, when it ends, and that it keeps nothing alive."""

from __future__ import annotations

import gc
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any

import pytest

from cymemcache import poller as poller_module
from cymemcache.poller import Poller
from interrupting import Interrupted, interrupted_at
from wire import PATIENCE, wait_until

LONG = 3600.0  # seconds; no test waits for that


class Owner:
    """Something that is polled, by a poller of its own."""

    def __init__(self, interval: float) -> None:
        self.polls: SimpleQueue[str] = SimpleQueue()
        self.poller = Poller(interval)
        self.before = set(threading.enumerate())

    def poll(self) -> bool:
        self.polls.put(threading.current_thread().name)
        return True

    def start(self) -> None:
        self.poller.start(self)

    def threads(self) -> list[threading.Thread]:
        return [
            thread
            for thread in set(threading.enumerate()) - self.before
            if thread.name == "cymemcache discovery"
        ]


@pytest.fixture
def owner_of(request: pytest.FixtureRequest) -> Callable[[float], Owner]:
    def make(interval: float) -> Owner:
        owner = Owner(interval)
        stop = owner.poller.stop
        request.addfinalizer(stop)
        return owner

    return make


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Woken twice, a poller waits longer than a test does."""
    monkeypatch.setattr(poller_module, "LEAST_SECONDS", LONG)


def test_it_polls_again_and_again(owner_of: Callable[[float], Owner]) -> None:
    owner = owner_of(0.001)
    owner.start()
    for _ in range(5):
        assert owner.polls.get(timeout=PATIENCE) == "cymemcache discovery"


def test_it_does_not_poll_before_it_is_time(owner_of: Callable[[float], Owner]) -> None:
    owner = owner_of(LONG)
    owner.start()
    (thread,) = owner.threads()
    thread.join(0.2)
    assert thread.is_alive()
    assert owner.polls.empty()


def test_woken_it_polls_at_once(owner_of: Callable[[float], Owner]) -> None:
    owner = owner_of(LONG)
    owner.start()
    owner.poller.wake()
    owner.polls.get(timeout=PATIENCE)


@pytest.mark.usefixtures("patient")
def test_woken_often_it_does_not_poll_all_the_time(owner_of: Callable[[float], Owner]) -> None:
    owner = owner_of(LONG)
    owner.start()
    owner.poller.wake()
    owner.polls.get(timeout=PATIENCE)
    for _ in range(100):
        owner.poller.wake()
    (thread,) = owner.threads()
    thread.join(0.2)
    assert owner.polls.empty()
    owner.poller.stop()  # it listens all the same
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_a_wake_during_a_poll_is_not_lost(
    owner_of: Callable[[float], Owner], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poller_module, "LEAST_SECONDS", 0.01)
    owner = owner_of(LONG)
    once: list[Any] = []

    class Waking(Owner):
        def poll(self) -> bool:
            if not once:
                once.append(self.poller.wake())
            return super().poll()

    owner.__class__ = Waking
    owner.start()
    owner.poller.wake()
    owner.polls.get(timeout=PATIENCE)
    owner.polls.get(timeout=PATIENCE)


def test_without_a_thread_a_wake_is_nothing() -> None:
    owner = Owner(LONG)
    owner.poller.wake()
    assert owner.threads() == []


def test_started_twice_it_has_one_thread(owner_of: Callable[[float], Owner]) -> None:
    owner = owner_of(LONG)
    starters = [threading.Thread(target=owner.start) for _ in range(8)]
    for starter in starters:
        starter.start()
    for starter in starters:
        starter.join(PATIENCE)
    owner.start()
    wait_until(lambda: len(owner.threads()) == 1)
    assert owner.threads()[0].daemon


def test_stopped_it_ends_and_started_again_it_goes_on(owner_of: Callable[[float], Owner]) -> None:
    owner = owner_of(LONG)
    owner.start()
    assert not owner.poller.is_idle
    owner.poller.stop()
    assert owner.poller.is_idle
    wait_until(lambda: not owner.threads())
    owner.start()
    owner.poller.wake()
    owner.polls.get(timeout=PATIENCE)
    owner.poller.stop()
    owner.poller.stop()
    wait_until(lambda: not owner.threads())


class Blocked(Owner):
    """One whose polls last as long as the test wants."""

    def __init__(self, interval: float) -> None:
        super().__init__(interval)
        self.goes_on = threading.Event()

    def poll(self) -> bool:
        super().poll()
        assert self.goes_on.wait(PATIENCE)
        self.polls.put(f"called off: {self.poller.is_called_off()}")
        return True


@pytest.fixture
def blocked() -> Iterator[Blocked]:
    """In the middle of a poll."""
    owner = Blocked(LONG)
    owner.start()
    owner.poller.wake()
    owner.polls.get(timeout=PATIENCE)
    yield owner
    owner.poller.stop()
    owner.goes_on.set()
    wait_until(lambda: not owner.threads())


def test_stopped_and_started_during_a_poll_it_has_one_thread(blocked: Blocked) -> None:
    threads = blocked.threads()
    for _ in range(10):
        blocked.poller.stop()
        blocked.start()
    assert blocked.threads() == threads
    blocked.goes_on.set()
    assert blocked.polls.get(timeout=PATIENCE) == "called off: False"


def test_stopped_during_a_poll_it_calls_that_off(blocked: Blocked) -> None:
    blocked.poller.stop()
    assert not blocked.poller.is_called_off()  # nothing that other threads do
    blocked.goes_on.set()
    assert blocked.polls.get(timeout=PATIENCE) == "called off: True"
    wait_until(lambda: not blocked.threads())


def test_a_poll_that_was_called_off_is_done_soon_after_the_next_start(
    owner_of: Callable[[float], Owner], monkeypatch: pytest.MonkeyPatch
) -> None:
    class CalledOff(Owner):
        def poll(self) -> bool:
            super().poll()
            self.poller.stop()
            return False

    monkeypatch.setattr(poller_module, "LEAST_SECONDS", 0.001)
    owner = owner_of(LONG)
    owner.__class__ = CalledOff
    owner.start()
    owner.poller.wake()
    owner.polls.get(timeout=PATIENCE)
    wait_until(lambda: not owner.threads())
    owner.start()
    owner.polls.get(timeout=PATIENCE)


def test_stopping_and_starting_is_no_reason_to_poll(owner_of: Callable[[float], Owner]) -> None:
    owner = owner_of(LONG)
    for _ in range(20):
        owner.start()
        owner.poller.stop()
    wait_until(lambda: not owner.threads())
    assert owner.polls.empty()


def test_an_owner_is_not_kept_alive_and_its_thread_ends() -> None:
    owner = Owner(LONG)
    owner.start()
    owner.poller.wake()
    owner.polls.get(timeout=PATIENCE)
    threads = owner.threads()
    assert len(threads) == 1
    reference = weakref.ref(owner)
    del owner
    wait_until(lambda: reference() is None)  # the poll has just ended, or is about to
    threads[0].join(PATIENCE)
    assert not threads[0].is_alive()


def test_the_thread_of_an_owner_in_a_cycle_ends_once_that_is_collected() -> None:
    owner = Owner(LONG)
    owner.itself = owner  # type: ignore[attr-defined]
    owner.start()
    (thread,) = owner.threads()
    del owner
    gc.collect()
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_where_no_thread_can_be_had_it_stays_idle(
    owner_of: Callable[[float], Owner], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    owner = owner_of(LONG)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start"):
            owner.start()
    assert owner.poller.is_idle
    owner.start()
    assert len(owner.threads()) == 1


def test_interrupted_at_any_line_of_its_start_it_is_started_with_the_next() -> None:
    interruptions = 0
    while True:
        owner = Owner(LONG)
        try:
            with interrupted_at(interruptions + 1, poller_module.__file__):
                owner.start()
        except Interrupted:
            pass
        else:
            break
        finally:
            if owner.poller.is_idle:
                owner.start()
            owner.poller.wake()
            owner.polls.get(timeout=PATIENCE)
            owner.poller.stop()
        interruptions += 1
    assert interruptions > 5


def test_a_poll_that_raises_is_reported_and_is_not_the_last_one(
    owner_of: Callable[[float], Owner], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(Owner):
        def poll(self) -> bool:
            super().poll()
            raise ValueError(self.polls.qsize())

    reported: SimpleQueue[threading.ExceptHookArgs] = SimpleQueue()
    monkeypatch.setattr(threading, "excepthook", reported.put)
    monkeypatch.setattr(poller_module, "LEAST_SECONDS", 0.001)
    owner = owner_of(0.001)
    owner.__class__ = Failing
    owner.start()
    for _ in range(2):
        assert reported.get(timeout=PATIENCE).exc_type is ValueError
    assert not owner.poller.is_idle
    assert len(owner.threads()) == 1


def test_a_thread_that_was_ended_from_outside_is_replaced_by_the_next_start(
    owner_of: Callable[[float], Owner], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ending(Owner):
        def poll(self) -> bool:
            super().poll()
            raise SystemExit

    monkeypatch.setattr(threading, "excepthook", lambda arguments: None)
    owner = owner_of(LONG)
    owner.__class__ = Ending
    for _ in range(2):
        owner.start()
        owner.poller.wake()
        owner.polls.get(timeout=PATIENCE)
        wait_until(lambda: owner.poller.is_idle)


def test_a_forked_child_has_no_thread_until_it_starts_one(
    owner_of: Callable[[float], Owner],
) -> None:
    owner = owner_of(LONG)
    owner.start()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            told = b"%d" % owner.poller.is_idle
            owner.polls = SimpleQueue()
            owner.start()
            owner.poller.wake()
            owner.polls.get(timeout=PATIENCE)
            os.write(writer, told)
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        assert pipe.read() == b"1"
    os.waitpid(pid, 0)
    assert not owner.poller.is_idle
