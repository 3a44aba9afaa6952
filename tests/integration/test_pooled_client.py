"""A client whose connections are limited, against real servers: no more of them than it may have,
callers that wait for one, and threads that read what they wrote, noreply or not.
"""

from __future__ import annotations

import ctypes
import gc
import os
import random
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest

from cymemcache import Client, PooledClient
from cymemcache.testing import Delay, EmbeddedServer
from cymemcache.testing.process import free_port
from exchanges import MODULES
from wire import PATIENCE, Server, wait_until

SECONDS = 1.0


@pytest.fixture(params=sorted(MODULES))
def connect(request: pytest.FixtureRequest) -> Iterator[Callable[..., PooledClient]]:
    """Makes clients over one of the two exchanges, closed with the test."""
    clients = []

    def make(address: Any, **options: Any) -> PooledClient:
        options = {
            "timeout": PATIENCE,
            "socket_module": MODULES[request.param],
            "max_pool_size": 1,
            **options,
        }
        clients.append(PooledClient(address, **options))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


def run_all(actions: list[Callable[[], None]]) -> None:
    """Each in a thread; what one raises is raised here."""
    failures: list[BaseException] = []

    def run(action: Callable[[], None]) -> None:
        try:
            action()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(3 * PATIENCE)
        assert not thread.is_alive()
    if failures:
        raise failures[0]


# -- how many --------------------------------------------------------------------------------------


def test_32_threads_share_4_connections(
    running_memcached: Server, connect: Callable[..., PooledClient]
) -> None:
    running_memcached.flush()
    client = connect(running_memcached.address, max_pool_size=4, pool_wait_timeout=PATIENCE)
    witness = Client(running_memcached.address, timeout=PATIENCE)
    before = witness.stats()[b"curr_connections"]
    stop = time.monotonic() + SECONDS
    most = 0

    def use(number: int) -> Callable[[], None]:
        def work() -> None:
            choice = random.Random(number)
            key = f"key-{number}"
            count = 0
            while time.monotonic() < stop:
                count += 1
                value = b"%d:%d" % (number, count)
                assert client.set(key, value, noreply=choice.random() < 0.3) is True
                assert client.get(key) == value
                assert client.get_many([key, key + "-absent"]) == {key: value}

        return work

    def watch() -> None:
        nonlocal most
        while time.monotonic() < stop:
            most = max(most, witness.stats()[b"curr_connections"] - before)

    run_all([watch, *(use(number) for number in range(32))])
    witness.close()
    assert 1 <= most <= 4
    pool = client.client_pool
    assert (pool.max_size, len(pool.used)) == (4, 0)
    assert 1 <= len(pool.free) <= 4


def test_threads_that_come_first_are_served_first(
    embedded: EmbeddedServer, connect: Callable[..., PooledClient]
) -> None:
    client = connect(embedded.address, pool_wait_timeout=PATIENCE)
    client.set("key", b"value", noreply=False)
    pool = client._pool
    connection = pool.take()
    threads = []
    for number in range(6):
        threads.append(threading.Thread(target=client.get, args=(f"key-{number}",)))
        before = len(pool._waiting)
        threads[-1].start()
        wait_until(lambda before=before: len(pool._waiting) > before)  # type: ignore[misc]
    pool.give(connection)
    for thread in threads:
        thread.join(PATIENCE)
    asked = [request for _, request in embedded.requests if request.startswith(b"get")]
    assert asked == [b"get key-%d" % number for number in range(6)]


@pytest.mark.parametrize("wait", [0, 0.05])
def test_a_command_that_gets_no_connection_raises_and_sends_nothing(
    embedded: EmbeddedServer, connect: Callable[..., PooledClient], wait: float
) -> None:
    client = connect(embedded.address, pool_wait_timeout=wait)
    connection = client._pool.take()
    sent = len(embedded.requests)
    for command in (
        lambda: client.get("key"),
        lambda: client.set("key", b"value"),
        lambda: client.delete_many(["key"]),
    ):
        with pytest.raises(RuntimeError, match=r"Too many objects, 1 >= 1.*max_pool_size"):
            command()
    client.ignore_exc = True
    assert client.get("key", "miss") == "miss"
    assert len(embedded.requests) == sent
    client._pool.give(connection)
    client.ignore_exc = False
    assert client.get("key") is None


def test_the_time_for_a_command_begins_when_it_has_its_connection(
    embedded: EmbeddedServer, connect: Callable[..., PooledClient]
) -> None:
    client = connect(embedded.address, timeout=0.5, pool_wait_timeout=PATIENCE)
    connection = client._pool.take()
    threading.Timer(0.7, client._pool.give, [connection]).start()
    assert client.get("key") is None


def test_the_default_wait_is_the_timeout_or_5_seconds() -> None:
    waits = [
        PooledClient("localhost", **options)._pool.wait_seconds
        for options in ({}, {"timeout": 2}, {"timeout": 2, "pool_wait_timeout": 0})
    ]
    assert waits == [5, 2, 0]


def test_failures_cost_no_slot(connect: Callable[..., PooledClient]) -> None:
    address = ("127.0.0.1", free_port())
    client = connect(address, pool_wait_timeout=0)
    kept = []
    for _ in range(3):
        with pytest.raises(ConnectionRefusedError) as caught:
            client.get("key")
        kept.append(caught)  # with the frames of its traceback
    assert client.client_pool.used == ()
    with EmbeddedServer(port=address[1]) as server:
        assert client.get("key") is None
        server.inject(Delay(PATIENCE), verb="get", times=None)
        client.close()
        hasty = connect(address, timeout=0.05, pool_wait_timeout=0)
        for _ in range(3):
            with pytest.raises(TimeoutError) as late:
                hasty.get("key")
            kept.append(late)
        assert hasty.client_pool.used == ()


def test_closing_lets_waiters_go_on(
    embedded: EmbeddedServer, connect: Callable[..., PooledClient]
) -> None:
    client = connect(embedded.address, pool_wait_timeout=PATIENCE)
    pool = client._pool
    connection = pool.take()
    results: list[Any] = []
    threads = [threading.Thread(target=lambda: results.append(client.get("k"))) for _ in range(3)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(pool._waiting) == 3)
    client.close()
    pool.give(connection)
    for thread in threads:
        thread.join(PATIENCE)
    assert results == [None] * 3
    assert client.sock is not connection.sock


def test_connections_idle_for_too_long_are_not_used_again(
    embedded: EmbeddedServer, connect: Callable[..., PooledClient]
) -> None:
    client = connect(embedded.address, pool_idle_timeout=0.2)
    client.get("key")
    first = client.sock
    assert client.get("key") is None
    assert client.sock is first
    time.sleep(0.3)
    client.get("key")
    assert client.sock is not first
    client.set("key", b"value", noreply=True)
    time.sleep(0.3)
    assert client.get("key") == b"value"
    assert client.noreply_lost == 0
    assert len(client.client_pool.free) == 1


# -- noreply ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 3])
def test_threads_read_their_own_noreply_writes_on_few_connections(
    running_memcached: Server, connect: Callable[..., PooledClient], size: int
) -> None:
    client = connect(running_memcached.address, max_pool_size=size, pool_wait_timeout=PATIENCE)
    stop = time.monotonic() + SECONDS

    def use(number: int) -> Callable[[], None]:
        def work() -> None:
            choice = random.Random(number)
            key = f"own-{size}-{number}"
            count = 0
            while time.monotonic() < stop:
                for _ in range(choice.randrange(1, 4)):
                    count += 1
                    client.set(key, b"%d" % count, noreply=True)
                    if choice.random() < 0.3:
                        time.sleep(0)
                assert client.get(key) == b"%d" % count

        return work

    run_all([use(number) for number in range(8)])
    assert client.noreply_lost == 0
    assert client.client_pool.used == ()


class Interrupted(BaseException):
    """What another thread raises."""


def test_threads_read_their_own_noreply_writes_while_they_are_interrupted(
    running_memcached: Server,
    connect: Callable[..., PooledClient],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)  # in finalizers they are ignored
    client = connect(running_memcached.address, pool_wait_timeout=PATIENCE)
    stop = time.monotonic() + 2 * SECONDS
    landed: list[int] = []

    def use(number: int) -> Callable[[], None]:
        def step(count: int) -> None:
            # Not what was interrupted before: that may still be on its way.
            key = f"interrupted-{number}-{count}"
            client.set(key, b"%d" % count, noreply=True)
            found = client.get(key)
            assert found == b"%d" % count, (found, count)

        def work() -> None:
            count = 0
            while time.monotonic() < stop:
                count += 1
                try:
                    step(count)
                except Interrupted:
                    landed.append(number)

        def guarded() -> None:
            while time.monotonic() < stop:
                try:
                    work()
                except Interrupted:
                    pass  # between two steps

        return guarded

    def interrupt() -> None:
        raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
        choice = random.Random(0)
        while time.monotonic() < stop - 0.1:
            thread = choice.choice(threads)
            raise_in(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(Interrupted))
            time.sleep(0.001)

    failures: list[BaseException] = []

    def run(action: Callable[[], None]) -> None:
        try:
            action()
        except Interrupted:
            pass
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(use(number),)) for number in range(8)]
    for thread in threads:
        thread.start()
    interrupt()
    for thread in threads:
        thread.join(3 * PATIENCE)
        assert not thread.is_alive()
    assert failures == []
    assert len(landed) > 50
    assert client.client_pool.used == ()
    assert client.get("absent") is None


def test_an_owner_waits_for_its_writes_when_they_are_being_settled(
    embedded: EmbeddedServer, connect: Callable[..., PooledClient]
) -> None:
    client = connect(embedded.address, pool_wait_timeout=PATIENCE)
    client.set("key", b"old", noreply=True)  # learns that there is a barrier
    assert client.get("key") == b"old"
    embedded.clear()
    embedded.inject(Delay(0.3), verb="version")
    client.set("key", b"new", noreply=True)
    other = threading.Thread(target=client.get, args=("other",))
    other.start()
    wait_until(lambda: client._pool._settling)
    assert client.get("key") == b"new"
    other.join(PATIENCE)
    texts = [request for _, request in embedded.requests]
    assert texts.index(b"get key") > texts.index(b"version")


# -- forks -----------------------------------------------------------------------------------------


def test_a_child_of_an_exhausted_client_has_connections_of_its_own(
    running_memcached: Server, connect: Callable[..., PooledClient]
) -> None:
    client = connect(running_memcached.address, max_pool_size=2, pool_wait_timeout=0)
    client.set("forked", b"value", noreply=False)
    taken = [client._pool.take(), client._pool.take()]
    child = os.fork()
    if child == 0:
        fine = client.get("forked") == b"value" and len(client.client_pool.free) == 1
        os._exit(0 if fine else 1)
    assert os.waitpid(child, 0)[1] == 0
    with pytest.raises(RuntimeError):
        client.get("forked")
    for connection in taken:
        client._pool.give(connection)
    assert client.get("forked") == b"value"


# -- gevent ----------------------------------------------------------------------------------------

GREENLETS = """
    import sys

    if sys.argv[2] == "patched":
        from gevent import monkey

        monkey.patch_all()
        options = {}
    else:
        from gevent import lock, socket

        options = {"socket_module": socket, "lock_generator": getattr(lock, sys.argv[2])}
    import gevent

    from cymemcache import PooledClient

    client = PooledClient(
        sys.argv[1], timeout=20, pool_wait_timeout=20, max_pool_size=2, **options
    )

    def work(number):
        key = f"greenlet-{number}"
        for count in range(20):
            value = b"%d" % count
            # Without patching the greenlets of a thread are one to us, which reads its own writes.
            client.set(key, value, noreply=not options and count % 2 == 0)
            assert client.get(key) == value
        return True

    jobs = [gevent.spawn(work, number) for number in range(50)]
    gevent.joinall(jobs, raise_error=True)
    assert all(job.value for job in jobs)
    assert len(client.client_pool.used) == 0
    assert 1 <= len(client.client_pool.free) <= 2
"""


@pytest.mark.parametrize("locks", ["BoundedSemaphore", "RLock", "patched"])
def test_50_greenlets_share_2_connections(running_memcached: Server, locks: str) -> None:
    command = [sys.executable, "-c", textwrap.dedent(GREENLETS)]
    address = "{}:{}".format(*running_memcached.address)
    done = subprocess.run(
        [*command, address, locks],
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr


# -- what can be overridden ------------------------------------------------------------------------


def test_the_methods_of_client_class_are_used(running_memcached: Server) -> None:
    class Loud(Client):
        asked: ClassVar[list[Any]] = []

        def get(self, key: Any, default: Any = None) -> Any:
            self.asked.append(key)
            return super().get(key, default)

    class Pooled(PooledClient):
        client_class = Loud

    client = Pooled(running_memcached.address, timeout=PATIENCE, max_pool_size=1)
    assert client.get("client-class") is None
    assert Loud.asked == ["client-class"]
    assert isinstance(client, Pooled)
    assert client.client_pool.max_size == 1
    assert PooledClient.client_class is Client
    client.close()


def test_an_assigned_socket_is_used(running_memcached: Server) -> None:
    client = PooledClient(running_memcached.address, timeout=PATIENCE, max_pool_size=1)
    with socket.create_connection(running_memcached.address) as mine:
        client.sock = mine
        assert client.get("assigned") is None
        assert client.sock is mine
        client.close()


def test_a_client_that_nobody_has_any_more_ends_with_its_connections(
    running_memcached: Server,
) -> None:
    client = PooledClient(running_memcached.address, timeout=PATIENCE)
    gc.disable()  # it must not take the collector
    try:
        client.set("k", "v", noreply=False)
        sock = client.sock
        del client
        assert sock.fileno() == -1
    finally:
        gc.enable()
