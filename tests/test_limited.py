"""The connections of a client that may have only so many, without a socket: slots are never lost,
waiters are served in order, and a thread whose connection was taken over never overtakes its own
noreply commands.
"""

from __future__ import annotations

import ctypes
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cymemcache import pool as pool_module
from cymemcache.interruptions import own
from cymemcache.limited import LimitedPool
from cymemcache.object_pool import ObjectPool
from stand_ins import Connection, Dialled, in_a_thread
from wire import PATIENCE, wait_until


@pytest.fixture
def dialled() -> Dialled:
    return Dialled()


@pytest.fixture
def make(dialled: Dialled) -> Callable[..., Any]:
    def made(size: int | None = 1, wait: float = 0, idle: float = 0, locks: Any = None) -> Any:
        return LimitedPool(dialled, size, idle, wait, locks)

    return made


class Other:
    """A thread that does one thing when it is told to, and stays."""

    def __init__(self) -> None:
        self._todo: list[Callable[[], Any]] = []
        self._results: list[Any] = []
        self._wake = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while True:
            self._wake.acquire()
            try:
                self._results.append(self._todo.pop()())
            except Exception as error:
                self._results.append(error)

    def begin(self, action: Callable[[], Any]) -> None:
        self._todo.append(action)
        self._wake.release()

    def result(self) -> Any:
        wait_until(lambda: self._results)
        return self._results.pop()

    def does(self, action: Callable[[], Any]) -> Any:
        self.begin(action)
        return self.result()

    @property
    def is_busy(self) -> bool:
        return not self._results


def exhausted(pool: LimitedPool) -> bool:
    try:
        pool.take()
    except RuntimeError:
        return True
    return False


# -- how many there are ----------------------------------------------------------------------------


def test_no_more_are_dialled_than_there_may_be(make: Callable[..., Any], dialled: Dialled) -> None:
    pool = make(2)
    first, second = pool.take(), pool.take()
    with pytest.raises(RuntimeError, match=r"Too many objects, 2 >= 2.*max_pool_size"):
        pool.take()
    pool.give(first)
    assert pool.take() is first
    assert dialled.made == [first, second]


def test_used_and_free_count_the_connections(make: Callable[..., Any]) -> None:
    pool = make(3)
    assert (pool.max_size, pool.used, pool.free) == (3, (), ())
    first, second = pool.take(), pool.take()
    assert (len(pool.used), len(pool.free)) == (2, 0)
    pool.give(first)
    assert (len(pool.used), len(pool.free)) == (1, 1)
    pool.hold(second)
    assert (len(pool.used), len(pool.free)) == (0, 2)
    pool.clear()
    assert (pool.used, pool.free) == ((), ())
    assert make(None).max_size == 2**31


@pytest.mark.parametrize("how", ["close", "discard", "lost"])
def test_a_connection_that_is_gone_gives_its_slot_back(
    make: Callable[..., Any], dialled: Dialled, how: str
) -> None:
    pool = make()
    connection = pool.take()
    assert exhausted(pool)
    if how == "lost":
        dialled.made.clear()
        del connection
    else:
        getattr(connection, how)()
    assert pool.used == ()
    assert pool.take()


def test_a_dial_that_fails_gives_its_slot_back(make: Callable[..., Any], dialled: Dialled) -> None:
    pool = make()
    kept = []

    def fail() -> None:
        raise failure

    dialled.meanwhile = fail
    for failure in (OSError("refused"), KeyboardInterrupt()):
        with pytest.raises(type(failure)) as caught:
            pool.take()
        kept.append(caught.value)  # with the frames of its traceback
    dialled.meanwhile = None
    assert pool.used == ()
    assert pool.take()


def test_a_connection_that_is_replaced_or_renewed_keeps_its_slot(
    make: Callable[..., Any], dialled: Dialled
) -> None:
    pool = make()
    first = pool.take()
    dialled.meanwhile = lambda: dialled.seen.append(exhausted(pool))  # type: ignore[attr-defined]
    dialled.seen = []  # type: ignore[attr-defined]
    second = pool.replace(first)
    third = pool.renew(second)
    dialled.meanwhile = None
    assert dialled.seen == [True, True]  # type: ignore[attr-defined]
    assert [first.discarded, second.discarded, third.discarded] == [1, 1, 0]
    assert len(pool.used) == 1


def test_a_connection_idle_for_long_is_closed_when_another_comes_back(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(pool_module, "monotonic", lambda: now)
    for idle, closed in ((10, 1), (0, 0)):
        pool = make(2, idle=idle)
        old, young = pool.take(), pool.take()
        old.used_at_seconds = now
        pool.give(old)
        now += 1000
        young.used_at_seconds = now
        pool.give(young)
        assert (old.closed, young.closed) == (closed, 0)


def test_an_adopted_connection_has_a_slot_where_there_is_one(make: Callable[..., Any]) -> None:
    pool, adopted = make(), Connection(99)
    pool.adopt(adopted)
    assert pool.take() is adopted
    assert exhausted(pool)
    over = Connection(100)
    pool.adopt(over)
    assert pool.take() is over
    pool.give(over)
    pool.give(adopted)
    assert adopted.closed == 1  # it was in use when another became the only idle one
    assert pool.take() is over


# -- for those who dial themselves -----------------------------------------------------------------


def test_who_dials_himself_asks_first(make: Callable[..., Any], dialled: Dialled) -> None:
    pool = make()
    assert pool.take_idle() is None
    slot = pool.admit()
    assert pool.admit() is None
    assert len(pool.used) == 1
    mine = Connection(50)
    pool.close()  # from here on, what was admitted before is closed when it comes back
    assert pool.admitted(mine, slot) is mine
    del slot
    assert pool.admit() is None
    pool.give(mine)
    assert mine.closed == 1
    assert pool.admit() is not None
    assert pool.take_idle() is None
    assert not dialled.made


def test_an_idle_connection_is_taken_without_dialling(make: Callable[..., Any]) -> None:
    pool = make()
    connection = pool.take()
    pool.give(connection)
    assert pool.take_idle() is connection
    pool.hold(connection)
    assert in_a_thread(pool.take_idle) is None
    assert pool.take_idle() is connection


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Where it is clear, those who wait do not come to look."""
    opened = threading.Event()
    opened.set()
    look = LimitedPool._look

    def gated(pool: LimitedPool, visit: Any) -> bool:
        assert opened.wait(PATIENCE)
        return look(pool, visit)

    monkeypatch.setattr(LimitedPool, "_look", gated)
    return opened


def test_nobody_overtakes_one_for_whom_the_next_connection_is_reserved(
    make: Callable[..., Any], gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cymemcache.line.OPEN", 0)
    pool, other = make(1, wait=PATIENCE), Other()
    connection = pool.take()
    other.begin(pool.take)
    wait_until(lambda: pool._reserved)
    gate.clear()
    pool.give(connection)
    assert pool.take_idle() is None
    assert pool.admit() is None
    gate.set()
    assert other.result() is connection
    assert not pool._reserved


def test_who_comes_may_overtake_one_who_has_not_been_the_first_for_long(
    make: Callable[..., Any], gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cymemcache.line.OPEN", PATIENCE)
    pool, other = make(1, wait=PATIENCE), Other()
    connection = pool.take()
    other.begin(pool.take)
    wait_until(lambda: pool._waiting)
    gate.clear()
    pool.give(connection)
    assert pool.take_idle() is connection
    gate.set()
    assert other.is_busy
    pool.give(connection)
    assert other.result() is connection


# -- waiting ---------------------------------------------------------------------------------------


def test_waiters_are_served_in_order(make: Callable[..., Any]) -> None:
    pool = make(1, wait=PATIENCE)
    connection = pool.take()
    served: list[int] = []
    threads = []

    def use(number: int) -> None:
        mine = pool.take()
        served.append(number)
        pool.give(mine)

    for number in range(10):
        before = len(pool._waiting)
        threads.append(threading.Thread(target=use, args=(number,)))
        threads[-1].start()
        wait_until(lambda before=before: len(pool._waiting) > before)  # type: ignore[misc]
    pool.give(connection)
    for thread in threads:
        thread.join(PATIENCE)
    assert served == list(range(10))


@pytest.mark.parametrize("how", ["give", "hold", "discard", "clear"])
def test_a_waiter_goes_on_however_the_connection_comes_back(
    make: Callable[..., Any], dialled: Dialled, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cymemcache.line.LOOK_AGAIN", PATIENCE)  # woken, not by looking again
    pool = make(1, wait=PATIENCE)
    connection = pool.take()
    other = Other()
    other.begin(pool.take)
    wait_until(lambda: pool._waiting)
    if how == "discard":
        connection.discard()
    elif how == "clear":
        pool.clear()
        pool.give(connection)
        assert connection.closed == 1
    else:
        getattr(pool, how)(connection)
    assert other.result() is dialled.made[-1]
    assert len(dialled.made) == (1 if how in ("give", "hold") else 2)
    assert not pool._waiting


def test_a_wait_ends(make: Callable[..., Any]) -> None:
    pool = make(1, wait=0.05)
    connection = pool.take()
    began = time.monotonic()
    assert exhausted(pool)
    assert 0.04 < time.monotonic() - began < PATIENCE
    pool.give(connection)
    assert pool.take() is connection


def test_locks_come_from_the_generator_and_only_for_those_who_wait(
    make: Callable[..., Any],
) -> None:
    made: list[Any] = []

    def lock() -> Any:
        made.append(threading.BoundedSemaphore())
        return made[-1]

    pool = make(1, wait=0.01, locks=lock)
    pool.give(pool.take())
    pool.take()
    assert not made
    assert exhausted(pool)
    assert len(made) == 1


def test_a_forked_child_has_all_slots_and_no_waiters(
    make: Callable[..., Any], dialled: Dialled
) -> None:
    pool = make(2, wait=PATIENCE)
    taken = [pool.take(), pool.take()]
    other = Other()
    other.begin(pool.take)
    wait_until(lambda: pool._waiting)
    child = os.fork()
    if child == 0:
        fine = pool.used == () and not pool._waiting and not pool._settling
        more = {pool.take().number, pool.take().number}
        os._exit(0 if fine and more == {2, 3} else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert other.is_busy
    pool.give(taken[0])
    assert other.result() is taken[0]


def test_a_waiter_that_forks_waits_in_the_child_as_well(
    make: Callable[..., Any], dialled: Dialled
) -> None:
    pool, other = make(1, wait=PATIENCE), Other()
    taken = pool.take()
    children: list[int] = []
    look = pool._look

    def look_and_fork(visit: Any) -> Any:
        if pool._waiting and not children:
            children.append(os.fork())
        return look(visit)

    pool._look = look_and_fork

    def take() -> Any:
        connection = pool.take()
        if children[0] == 0:
            os._exit(0 if connection is not taken else 1)
        return connection

    other.begin(take)
    wait_until(lambda: children)
    assert os.waitpid(children[0], 0)[1] == 0
    assert other.is_busy
    pool.give(taken)
    assert other.result() is taken


# -- noreply ---------------------------------------------------------------------------------------


def test_one_that_another_thread_holds_is_taken_over_after_a_barrier(
    make: Callable[..., Any],
) -> None:
    pool, other = make(), Other()
    connection = pool.take()
    pool.hold(connection)
    assert other.does(pool.take) is connection
    assert connection.asked == [b"version\r\n"]


def test_the_one_held_longest_is_taken_over(make: Callable[..., Any]) -> None:
    pool, others = make(3), [Other() for _ in range(3)]
    held = [other.does(pool.take) for other in others]
    for number in (1, 0, 2):
        others[number].does(lambda number=number: pool.hold(held[number]))  # type: ignore[misc]
    assert pool.take() is held[1]
    assert [len(connection.asked) for connection in held] == [0, 1, 0]


def test_none_is_taken_over_while_there_is_another_way(
    make: Callable[..., Any], dialled: Dialled
) -> None:
    pool, other = make(3), Other()
    mine, idle = pool.take(), pool.take()
    pool.hold(mine)
    pool.give(idle)
    assert other.does(pool.take) is idle
    assert other.does(pool.take) is dialled.made[2]
    assert mine.asked == []
    assert pool.take() is mine


def test_a_thread_waits_while_its_noreply_commands_are_settled(
    make: Callable[..., Any], dialled: Dialled
) -> None:
    pool, thief = make(2, wait=PATIENCE), Other()
    mine, second = pool.take(), pool.take()
    pool.hold(mine)
    arrived, go_on = threading.Event(), threading.Event()

    def barrier() -> None:
        arrived.set()
        go_on.wait()

    mine.meanwhile = barrier
    thief.begin(pool.take)
    assert arrived.wait(PATIENCE)
    pool.give(second)  # which is there for anybody, but not for this thread
    assert pool.take_idle() is None
    assert pool.admit() is None
    assert in_a_thread(lambda: pool.give(pool.take())) is None
    taken: list[Any] = []
    threading.Timer(0.1, lambda: (taken.append(thief.is_busy), go_on.set())).start()
    assert pool.take() is second
    assert taken == [True]
    assert thief.result() is mine


@pytest.mark.parametrize("failure", [own(OSError("reset")), KeyboardInterrupt()])
def test_a_settlement_that_fails_frees_the_slot_and_the_thread(
    make: Callable[..., Any], dialled: Dialled, failure: BaseException
) -> None:
    pool, owner = make(), Other()
    connection = owner.does(pool.take)
    owner.does(lambda: pool.hold(connection))
    connection.failure = failure
    if isinstance(failure, Exception):
        taken = pool.take()
        assert taken is dialled.made[1]
        pool.give(taken)
    else:
        with pytest.raises(KeyboardInterrupt) as kept:
            pool.take()
        assert kept
    assert connection.discarded == 1
    assert not pool._settling
    assert owner.does(pool.take) is dialled.made[1]


def test_a_thread_that_keeps_its_connection_lets_waiters_pass(make: Callable[..., Any]) -> None:
    pool, waiter = make(1, wait=PATIENCE), Other()
    mine = pool.take()
    waiter.begin(pool.take)
    wait_until(lambda: pool._waiting)
    pool.hold(mine)
    pool_taken = Other()
    pool_taken.begin(pool.take)  # came later
    assert waiter.result() is mine
    assert pool_taken.is_busy
    waiter.does(lambda: pool.give(mine))
    assert pool_taken.result() is mine


# -- interruptions ---------------------------------------------------------------------------------


class Interrupted(BaseException):
    """What is raised in the middle of anything."""


class Users:
    """Threads that use a pool and are interrupted wherever they are."""

    def __init__(self, use: Callable[[random.Random], None], count: int, seed: int) -> None:
        self.use = use
        self.choice = random.Random(seed)
        self.landed = 0
        self.failures: list[BaseException] = []
        self.going = True
        self.threads = [self.start() for _ in range(count)]

    def start(self) -> threading.Thread:
        choice = random.Random(self.choice.random())
        thread = threading.Thread(target=self.work, args=(choice,))
        thread.start()
        return thread

    def work(self, choice: random.Random) -> None:
        while True:
            try:
                while self.going:
                    self.attempt(choice)
                return
            except Interrupted:
                pass  # between two attempts

    def attempt(self, choice: random.Random) -> None:
        try:
            self.use(choice)
        except Interrupted:
            self.landed += 1
        except Exception as error:
            self.failures.append(error)

    def run(self, interruptions: int) -> None:
        raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
        deadline = time.monotonic() + 3 * PATIENCE
        while self.landed < interruptions and not self.failures and time.monotonic() < deadline:
            number = self.choice.randrange(len(self.threads))
            # What is raised at a loop's jump back can miss the handler around it, and end it all.
            if not self.threads[number].is_alive():
                self.threads[number] = self.start()
            victim = self.threads[number]
            raise_in(ctypes.c_ulong(victim.ident or 0), ctypes.py_object(Interrupted))
            for _ in range(self.choice.randrange(60)):
                pass
        self.going = False
        for thread in self.threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "forgotten"
        assert self.failures == []
        assert self.landed >= interruptions


@pytest.fixture
def many_switches(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Threads take turns as often as they can; what is raised in a finalizer, or in the last lines
    of a thread, is ignored."""
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    # A thread that sleeps is not interrupted before it wakes.
    monkeypatch.setattr("cymemcache.line.LOOK_AGAIN", 0.001)
    monkeypatch.setattr("cymemcache.line.OPEN", 0)
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(usual)


@pytest.fixture
def seed() -> int:
    number = random.randrange(1 << 32)
    print(f"seed {number}")
    return number


def test_interruptions_lose_no_connection_and_forget_no_waiter(
    many_switches: None, seed: int
) -> None:
    pool = LimitedPool(lambda: Connection(0), 2, 0, PATIENCE, None)  # type: ignore[arg-type, return-value]

    def use(choice: random.Random) -> None:
        connection = pool.take()
        for _ in range(choice.randrange(20)):
            pass
        end = choice.randrange(4)
        if end == 0:
            connection.discard()
        elif end == 1:
            pool.hold(connection)
        else:
            pool.give(connection)

    Users(use, 6, seed).run(3_000)
    assert pool.used == ()
    assert not pool._waiting
    assert not pool._settling
    pool.wait_seconds = 0
    taken = [pool.take(), pool.take()]
    assert exhausted(pool)
    assert len(taken) == 2


def test_interruptions_lose_no_object(many_switches: None, seed: int) -> None:
    pool = ObjectPool(lambda: Connection(0), max_size=2, wait_timeout=PATIENCE)

    def use(choice: random.Random) -> None:
        with pool.get_and_release(destroy_on_fail=choice.random() < 0.5):
            for _ in range(choice.randrange(20)):
                pass

    Users(use, 6, seed).run(2_000)
    assert pool.used == ()
    assert not pool._line.waiting
    pool.wait_timeout = 0
    things = [pool.get(), pool.get()]
    with pytest.raises(RuntimeError):
        pool.get()
    assert len(things) == 2
