"""Signal handlers that run while their thread waits for a connection: they may use the client, and
they keep nobody else from a connection that is there.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cymemcache import PooledClient
from cymemcache.pool import ObjectPool
from stand_ins import in_a_thread
from wire import PATIENCE, Server, wait_until


@pytest.fixture
def client(running_memcached: Server) -> Iterator[PooledClient]:
    client = PooledClient(
        running_memcached.address,
        timeout=PATIENCE,
        max_pool_size=1,
        pool_wait_timeout=PATIENCE,
    )
    yield client
    client.close()


@pytest.fixture
def while_it_waits() -> Iterator[Callable[..., None]]:
    """Has an action done by a signal handler once the main thread waits in a line."""
    before = signal.getsignal(signal.SIGALRM)

    def set_up(waiting: list[Any], action: Callable[[], None]) -> None:
        def handler(number: int, frame: object) -> None:
            if not waiting:
                signal.setitimer(signal.ITIMER_REAL, 0.001)
            else:
                action()

        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.001)

    yield set_up
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_a_handler_that_uses_the_client_does_not_wait_behind_its_own_thread(
    client: PooledClient, while_it_waits: Callable[..., None]
) -> None:
    pool = client._pool
    taken = in_a_thread(pool.take)
    answers: list[Any] = []

    def use() -> None:
        pool.give(taken)
        answers.append(client.get("handler", "miss"))

    while_it_waits(pool._waiting, use)
    assert client.get("thread", "miss") == "miss"
    assert answers == ["miss"]


def test_a_handler_waits_at_its_threads_place(
    client: PooledClient, while_it_waits: Callable[..., None]
) -> None:
    pool = client._pool
    taken = in_a_thread(pool.take)
    served: list[str] = []

    def wait_behind() -> None:
        wait_until(lambda: pool._waiting)
        client.get("behind")
        served.append("behind")

    behind = threading.Thread(target=wait_behind)

    def use() -> None:
        wait_until(lambda: len(pool._waiting) == 2)
        giver = threading.Thread(target=give_when_all_wait)
        giver.start()
        client.get("handler")
        served.append("handler")
        giver.join()

    def give_when_all_wait() -> None:
        wait_until(lambda: len(pool._waiting) == 3)
        pool.give(taken)

    while_it_waits(pool._waiting, use)
    behind.start()
    client.get("thread")
    behind.join(PATIENCE)
    assert served == ["handler", "behind"]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_handler_that_does_something_else_keeps_nobody_from_a_connection(
    client: PooledClient,
    while_it_waits: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    when: str,
) -> None:
    monkeypatch.setattr("cymemcache.line.OPEN", 0)
    pool = client._pool
    taken = in_a_thread(pool.take)
    answered = threading.Event()
    seen: list[bool] = []

    def get() -> None:
        if when == "before":
            wait_until(lambda: pool._waiting)
        client.get("other")
        answered.set()

    other = threading.Thread(target=get)

    def do_something_else() -> None:
        if when == "before":
            wait_until(lambda: len(pool._waiting) == 2)
        pool.give(taken)
        if when == "after":
            other.start()
        seen.append(answered.wait(PATIENCE / 2))

    if when == "before":
        other.start()
    while_it_waits(pool._reserved, do_something_else)
    client.get("thread")
    other.join(PATIENCE)
    assert seen == [True]


def test_a_handler_that_uses_an_object_pool_does_not_wait_behind_its_own_thread(
    while_it_waits: Callable[..., None],
) -> None:
    pool = ObjectPool(threading.Event, max_size=1, wait_timeout=PATIENCE)
    taken = pool.get()
    got: list[Any] = []

    def use() -> None:
        pool.release(taken)
        got.append(pool.get())
        pool.release(got[0])

    while_it_waits(pool._line.waiting, use)
    assert pool.get() is taken
    assert got == [taken]
