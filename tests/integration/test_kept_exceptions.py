"""An exception that somebody keeps (a debugger, a future, an error tracker) keeps the frames
through which it was raised, with all that their variables name.  None of that may keep a
connection, a slot, a place in the line or a thread: wherever in our code it was raised, all
connections of the pool can be had again at once.
"""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from cymemcache import HashClient, PooledClient
from cymemcache.pool import ObjectPool
from cymemcache.serde import PickleSerde
from cymemcache.testing import Close, EmbeddedServer
from cymemcache.testing.process import free_port
from exchanges import MODULES
from lines import interrupted_at_each_line
from stand_ins import in_a_thread
from wire import PATIENCE, Server

NAMES = ["pool", "limited", "limits", "line", "visits", "object_pool"]
OURS = tuple(f"cymemcache/{name}.py" for name in [*NAMES, "calls", "gather", "scatter"])
SIZE = 2


@pytest.fixture(autouse=True)
def nothing_is_collected(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)  # in finalizers they are ignored
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(params=sorted(MODULES))
def options(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {
        "timeout": PATIENCE,
        "socket_module": MODULES[request.param],
        "max_pool_size": SIZE,
        "pool_wait_timeout": 0,
    }


def all_can_be_taken(pool: Any) -> bool:
    """Whether another thread gets as many connections as there may be, without waiting."""

    def take_all() -> bool:
        with suppress(RuntimeError):
            taken = [pool.take() for _ in range(SIZE)]
            for connection in taken:
                connection.close()
            return True
        return False

    wait, pool.wait_seconds = pool.wait_seconds, 0
    try:
        return bool(in_a_thread(take_all)) and pool.used == ()
    finally:
        pool.wait_seconds = wait


def check_each_line(
    pools: list[Any],
    prepare: Callable[[], Any],
    action: Callable[[], Any],
    after: Callable[[], Any] = lambda: None,
) -> int:
    """How many lines there were."""
    kept = []
    idle = []  # as the frames of earlier commands may have them, which somebody keeps, too

    def prepare_and_keep() -> None:
        prepare()
        idle.extend(pool.peek() for pool in pools)

    for error in interrupted_at_each_line(prepare_and_keep, action, OURS):
        kept.append(error)
        after()
        for pool in pools:
            assert all_can_be_taken(pool), f"after an interruption at {error}"
    return len(kept)


class Staying:
    """A thread that has done something, and stays until it is told to go."""

    def __init__(self, action: Callable[[], Any]) -> None:
        self._go = threading.Event()
        done = threading.Event()

        def work() -> None:
            action()
            done.set()
            self._go.wait()

        self._thread = threading.Thread(target=work, daemon=True)
        self._thread.start()
        assert done.wait(PATIENCE)

    def goes(self) -> None:
        self._go.set()
        self._thread.join()


def nothing(client: Any) -> None:
    pass


def get(client: Any) -> None:
    client.get("key")


def noreply(client: Any) -> None:
    client.set("key", b"value", noreply=True)


def get_as_a_new_thread(client: Any) -> None:
    client.set("key", b"value", noreply=True)  # so that it is known what the server knows
    client.get("key")
    client._pool._running.clear()


def get_and_have_it_closed(client: Any) -> None:
    client.get("key")
    client.sock.close()


def raw(client: Any) -> None:
    client.raw_command("get key", "END\r\n")


def close(client: Any) -> None:
    client.close()


@pytest.mark.parametrize(
    "prepared", [nothing, get, noreply, get_as_a_new_thread, get_and_have_it_closed]
)
@pytest.mark.parametrize("command", [get, noreply, raw, close])
def test_commands(
    running_memcached: Server,
    options: dict[str, Any],
    prepared: Callable[[Any], None],
    command: Callable[[Any], None],
) -> None:
    client = PooledClient(running_memcached.address, **options)
    lines = check_each_line([client._pool], lambda: prepared(client), lambda: command(client))
    # What is compiled cannot be interrupted at a line.
    assert lines > 5 or client._pool._idle or client._pool._held
    client.close()


def test_taking_over_what_another_thread_holds(
    running_memcached: Server, options: dict[str, Any]
) -> None:
    client = PooledClient(running_memcached.address, **options)
    staying: list[Staying] = []

    def prepare() -> None:
        staying[:] = [Staying(lambda: noreply(client)) for _ in range(SIZE)]

    def after() -> None:
        for thread in staying:
            thread.goes()

    assert check_each_line([client._pool], prepare, lambda: get(client), after) > 20
    client.close()


def test_dialling_in_vain(options: dict[str, Any]) -> None:
    client = PooledClient(("127.0.0.1", free_port()), **options)
    pool = client._pool
    kept = []
    for error in interrupted_at_each_line(lambda: None, lambda: get(client), OURS):
        kept.append(error)
        assert [pool.admit() is not None, pool.used] == [True, ()], f"after {error}"
    assert len(kept) > 5


def test_another_attempt(embedded: EmbeddedServer, options: dict[str, Any]) -> None:
    client = PooledClient(embedded.address, **options)

    def prepare() -> None:
        client.get("key")
        embedded.inject(Close(), verb="get")

    assert check_each_line([client._pool], prepare, lambda: get(client)) > 20
    client.close()


@pytest.mark.parametrize("given", [False, True])
def test_waiting(running_memcached: Server, options: dict[str, Any], given: bool) -> None:
    options["pool_wait_timeout"] = PATIENCE if given else 0.001
    client = PooledClient(running_memcached.address, **options)
    pool = client._pool
    taken: list[Any] = []
    givers: list[threading.Thread] = []

    def give() -> None:
        while taken:
            pool.give(taken.pop())

    def give_when_awaited() -> None:
        while not pool._waiting and not givers[0].done:  # type: ignore[attr-defined]
            pass
        give()

    def prepare() -> None:
        taken[:] = [in_a_thread(pool.take) for _ in range(SIZE)]
        if given:
            givers[:] = [threading.Thread(target=give_when_awaited)]
            givers[0].done = False  # type: ignore[attr-defined]
            givers[0].start()

    def after() -> None:
        for giver in givers:
            giver.done = True  # type: ignore[attr-defined]
            giver.join()
        give()

    assert check_each_line([pool], prepare, lambda: get(client), after) > 20
    after()
    client.close()


@pytest.fixture
def cluster(
    running_memcached: Server, embedded: EmbeddedServer, options: dict[str, Any]
) -> Iterator[HashClient]:
    addresses = [running_memcached.address, embedded.address]
    cluster = HashClient(
        addresses, use_pooling=True, retry_timeout=0, serde=PickleSerde(), **options
    )
    yield cluster
    cluster.close()


KEYS = [f"key-{number}" for number in range(10)]


@pytest.mark.parametrize("prepared", [nothing, get, noreply])
def test_several_nodes(cluster: HashClient, prepared: Callable[[Any], None]) -> None:
    nodes = list(cluster.clients.values())

    def prepare() -> None:
        for node in nodes:
            prepared(node)

    pools = [node._pool for node in nodes]
    assert check_each_line(pools, prepare, lambda: cluster.get_many(KEYS)) > 20


@pytest.mark.parametrize("options", ["plain"], indirect=True)
@pytest.mark.parametrize("unusual", ["values", "a node", "an end"])
def test_several_nodes_where_it_shows_late_that_something_is_not_usual(
    cluster: HashClient, embedded: EmbeddedServer, unusual: str
) -> None:
    clients = list(cluster.clients.values())
    if unusual == "values":
        cluster.set_many({key: [1] for key in KEYS}, noreply=False)

    def prepare() -> None:
        for client in clients:
            client.get("key")
        if unusual == "a node":
            cluster._members()[0][2].failed(OSError())
        elif unusual == "an end":
            embedded.inject(Close(), verb="get")

    pools = [client._pool for client in clients]
    assert check_each_line(pools, prepare, lambda: cluster.get_many(KEYS)) > 20


class Thing:
    """What is pooled."""


@pytest.mark.parametrize("prepared", ["none", "free", "old", "in use"])
def test_getting_an_object(prepared: str) -> None:
    pool = ObjectPool(Thing, lambda thing: None, SIZE, 0, wait_timeout=0.001)
    in_use: list[Thing] = []

    def prepare() -> None:
        pool.idle_timeout = -1 if prepared == "old" else 0
        if prepared != "none":
            in_use[:] = [pool.get() for _ in range(SIZE)]
        if prepared != "in use":
            after()

    def after() -> None:
        while in_use:
            pool.release(in_use.pop())

    kept = []
    for error in interrupted_at_each_line(prepare, lambda: pool.get(), OURS):
        kept.append(error)
        after()
        things = [pool.get() for _ in range(SIZE)]
        while things:
            pool.destroy(things.pop())
    assert len(kept) > 5


@pytest.mark.parametrize("method", ["release", "destroy"])
def test_an_object_that_was_not_taken_back_is_so_when_nobody_has_it(method: str) -> None:
    pool = ObjectPool(Thing, lambda thing: None, SIZE, wait_timeout=0)

    def action() -> None:
        getattr(pool, method)(pool.get())

    count = 0
    for error in interrupted_at_each_line(lambda: None, action, OURS):
        assert error is not None
        del error
        count += 1
        things = [pool.get() for _ in range(SIZE)]
        while things:
            pool.destroy(things.pop())
    assert count > 5
