"""The idle connections of one client, without a socket: which one is taken next, which belong to
whom, and which are closed when.  A stand-in for a connection records what the pool does with it;
the pool of the compiled core and that of the pure one are the same class with the same contract.
"""

from __future__ import annotations

import gc
import threading
from typing import Any
from weakref import ref

import pytest

from cymemcache import pool as pool_module
from cymemcache.interruptions import own
from cymemcache.pool import IDLE_SECONDS, ConnectionPool
from stand_ins import Connection, Dialled, in_a_thread


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pool's clock: one number, to be set."""
    now = [1000.0]
    monkeypatch.setattr(pool_module, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def dialled() -> Dialled:
    return Dialled()


@pytest.fixture
def pool(clock: list[float], dialled: Dialled) -> ConnectionPool:
    return ConnectionPool(dialled)


def test_the_first_connections_are_dialled(pool: ConnectionPool, dialled: Dialled) -> None:
    assert [pool.take(), pool.take()] == dialled.made
    assert len(dialled.made) == 2


def test_the_last_one_returned_is_taken_first(pool: ConnectionPool, dialled: Dialled) -> None:
    first, second, third = pool.take(), pool.take(), pool.take()
    for connection in (second, third, first):
        pool.give(connection)
    assert [pool.take(), pool.take(), pool.take()] == [first, third, second]
    assert len(dialled.made) == 3


def test_peek_shows_the_next_one_and_leaves_it(pool: ConnectionPool) -> None:
    assert pool.peek() is None
    connection = pool.take()
    assert pool.peek() is None
    pool.give(connection)
    assert pool.peek() is connection
    assert pool.take() is connection


def test_a_held_connection_is_its_threads_own(pool: ConnectionPool, dialled: Dialled) -> None:
    mine = pool.take()
    other = pool.take()
    pool.give(other)
    pool.hold(mine)
    assert pool.peek() is mine
    assert in_a_thread(pool.peek) is other
    taken = in_a_thread(lambda: [pool.take(), pool.take()])
    assert taken == [other, dialled.made[2]]
    assert pool.take() is mine
    assert pool.take() is dialled.made[3]


def test_holding_a_second_one_makes_the_first_idle(pool: ConnectionPool) -> None:
    first, second = pool.take(), pool.take()
    pool.hold(first)
    pool.hold(second)
    assert pool.take() is second
    assert pool.take() is first


def test_what_a_thread_that_has_ended_was_holding_is_used_again(
    pool: ConnectionPool, dialled: Dialled
) -> None:
    def hold() -> Any:
        connection = pool.take()
        pool.hold(connection)
        return connection

    left = in_a_thread(hold)
    assert pool.take() is left
    assert len(dialled.made) == 1


def test_what_a_thread_was_holding_is_idle_once_it_has_ended(pool: ConnectionPool) -> None:
    taken = [pool.take() for _ in range(3)]
    for connection in taken:
        in_a_thread(lambda connection=connection: pool.hold(connection))  # type: ignore[misc]
    assert [pool.take(), pool.take(), pool.take()] == taken[::-1]
    assert not pool._held


def test_an_old_connection_of_a_thread_that_has_ended_is_closed(pool: ConnectionPool) -> None:
    connection: Any = pool.take()

    def hold() -> None:
        pool.hold(connection)
        other: Any = in_a_thread(pool.take)
        in_a_thread(pool.close)
        assert other.closed == connection.closed == 0

    in_a_thread(hold)
    assert connection.closed == 1


def test_what_a_living_thread_holds_is_not_taken_by_another(
    pool: ConnectionPool, dialled: Dialled
) -> None:
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        pool.hold(pool.take())
        held.set()
        done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        assert pool.take() is dialled.made[1]
    finally:
        done.set()
        thread.join()


def test_close_closes_the_idle_ones_now_and_those_in_use_when_they_come_back(
    pool: ConnectionPool, dialled: Dialled
) -> None:
    used, idle = pool.take(), pool.take()
    pool.give(idle)
    pool.close()
    assert (used.closed, idle.closed) == (0, 1)
    pool.give(used)
    assert used.closed == 1
    assert pool.take() is dialled.made[2]


def test_a_held_one_in_use_while_the_pool_closes_is_settled_by_its_threads_next_command(
    pool: ConnectionPool, dialled: Dialled
) -> None:
    connection = pool.take()
    pool.close()
    pool.hold(connection)
    assert connection.closed == 0
    assert pool.take() is dialled.made[1]
    assert connection.asked == [b"version\r\n"]
    assert connection.closed == 1


def test_close_waits_for_the_noreply_commands_of_its_thread(pool: ConnectionPool) -> None:
    connection = pool.take()
    pool.hold(connection)
    pool.close()
    assert connection.asked == [b"version\r\n"]
    assert connection.closed == 1
    assert connection.discarded == 0


def test_close_passes_over_a_connection_that_fails(pool: ConnectionPool) -> None:
    connection = pool.take()
    connection.failure = own(ConnectionResetError("gone"))
    pool.hold(connection)
    pool.close()
    assert connection.discarded == 1
    assert pool.peek() is None


def test_an_interruption_while_close_waits_comes_out_and_the_connection_is_closed(
    pool: ConnectionPool,
) -> None:
    connection = pool.take()
    connection.failure = KeyboardInterrupt()
    pool.hold(connection)
    with pytest.raises(KeyboardInterrupt):
        pool.close()
    assert connection.discarded == 1


def test_a_connection_dialled_while_the_pool_closes_is_closed_when_it_comes_back(
    pool: ConnectionPool, dialled: Dialled
) -> None:
    dialled.meanwhile = pool.close
    connection = pool.take()
    dialled.meanwhile = None
    assert connection.closed == 0
    pool.give(connection)
    assert connection.closed == 1


def test_an_adopted_connection_is_the_only_idle_one(pool: ConnectionPool, dialled: Dialled) -> None:
    before, adopted = pool.take(), Connection(99)
    pool.give(before)
    pool.adopt(adopted)  # type: ignore[arg-type]
    assert before.closed == 1
    assert pool.take() is adopted
    pool.give(adopted)  # type: ignore[arg-type]
    assert adopted.closed == 0
    assert pool.take() is adopted
    assert len(dialled.made) == 1


def test_connections_that_nobody_uses_are_closed_when_another_comes_back(
    pool: ConnectionPool, clock: list[float]
) -> None:
    busy, forgotten, fresh = pool.take(), pool.take(), pool.take()
    forgotten.used_at_seconds = clock[0]
    fresh.used_at_seconds = clock[0] + IDLE_SECONDS
    pool.give(forgotten)
    pool.give(fresh)
    clock[0] += IDLE_SECONDS + 1
    busy.used_at_seconds = clock[0]
    pool.give(busy)
    assert [forgotten.closed, fresh.closed, busy.closed] == [1, 0, 0]
    assert [pool.take(), pool.take()] == [busy, fresh]


def test_held_connections_expire_too(pool: ConnectionPool, clock: list[float]) -> None:
    held = pool.take()
    held.used_at_seconds = clock[0]
    in_a_thread(lambda: pool.hold(held))
    busy = Connection(99)
    busy.generation = held.generation
    clock[0] += IDLE_SECONDS + 1
    busy.used_at_seconds = clock[0]
    pool.give(busy)  # type: ignore[arg-type]
    assert held.closed == 1
    assert busy.closed == 0


def test_a_forked_child_uses_and_keeps_none_of_its_parents_connections(
    pool: ConnectionPool, dialled: Dialled
) -> None:
    idle, held, used = pool.take(), pool.take(), pool.take()
    pool.give(idle)
    pool.hold(held)
    pool.reset_after_fork()
    assert pool.peek() is None
    assert pool.take() is dialled.made[3]
    pool.give(used)
    assert used.closed == 1
    assert [idle.asked, held.asked] == [[], []]


def test_a_pool_keeps_no_connection_that_its_holder_lost(
    pool: ConnectionPool, dialled: Dialled
) -> None:
    lost = ref(pool.take())
    dialled.made.clear()
    gc.collect()
    assert lost() is None


def test_looking_for_ended_threads_keeps_no_frame_of_those_that_run(
    pool: ConnectionPool,
) -> None:
    class Local:
        """What a running thread has in a frame."""

    known: list[ref[Local]] = []
    found, go_on = threading.Event(), threading.Event()

    def run() -> None:
        local = Local()
        known.append(ref(local))
        found.set()
        go_on.wait()

    ended = threading.Thread(target=lambda: pool.hold(pool.take()))
    ended.start()
    ended.join()
    running = threading.Thread(target=run)
    running.start()
    found.wait()
    gc.disable()
    try:
        pool.take()
        go_on.set()
        running.join()
        assert known[0]() is None
    finally:
        gc.enable()


def test_a_retired_pool_keeps_nothing_that_threads_hold(pool: ConnectionPool) -> None:
    done, go_on = threading.Event(), threading.Event()
    held: list[Any] = []

    def hold() -> None:
        held.append(pool.take())
        pool.hold(held[0])
        done.set()
        go_on.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    done.wait()
    pool.close()
    assert held[0].closed == 0
    pool.retire()
    assert held[0].closed == 1
    go_on.set()
    thread.join()


@pytest.mark.parametrize("back", ["give", "hold"])
@pytest.mark.parametrize("since", ["before", "after"])
def test_a_retired_pool_keeps_nothing_that_comes_back_later(
    pool: ConnectionPool, back: str, since: str
) -> None:
    other: Any = pool.take()
    pool.hold(other)  # so that this thread is known to run
    taken: Any = pool.take() if since == "before" else None
    pool.retire()
    taken = taken or pool.take()
    getattr(pool, back)(taken)
    assert taken.closed == 1
    assert pool.peek() is None
