"""The nodes of a cluster change while it is used: by `add_server` and `remove_server`, by hand in
`clients` and `hasher`, and with hashers of the user's own, which know of no threads.
"""

from __future__ import annotations

import gc
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from clusters import in_threads, key_of, keys_of, name_of, raise_first
from cymemcache import Client, HashClient, MemcacheError
from cymemcache.hashing import RendezvousHash
from cymemcache.testing import Delay, EmbeddedServer
from wire import PATIENCE, wait_until

Addresses = list[tuple[str, int]]
THREADS = 32


class ModuloHash:
    """A hasher without a table, which must be called by one thread at a time."""

    def __init__(self) -> None:
        self.nodes: list[str] = []
        self.calls = 0
        self._inside: str | None = None

    def add_node(self, node: str) -> None:
        with self._alone():
            if node not in self.nodes:
                self.nodes.append(node)
                self.nodes.sort()

    def remove_node(self, node: str) -> None:
        with self._alone():
            self.nodes.remove(node)

    def get_node(self, key: Any) -> str | None:
        with self._alone():
            return self.nodes[sum(str(key).encode()) % len(self.nodes)] if self.nodes else None

    def _alone(self) -> ModuloHash:
        return self

    def __enter__(self) -> None:
        assert self._inside is None, f"called by {threading.current_thread()} and {self._inside}"
        self._inside = str(threading.current_thread())
        time.sleep(0)  # lets others in
        self.calls += 1

    def __exit__(self, *exception: Any) -> None:
        self._inside = None


@pytest.fixture(params=[RendezvousHash, ModuloHash])
def hasher(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_a_hasher_of_ones_own_tells_the_node(
    connect_all: Callable[..., Any], nodes: Addresses
) -> None:
    cluster = connect_all(nodes, hasher=ModuloHash)
    keys = [f"key-{number}" for number in range(100)]
    assert cluster.set_many({key: key for key in keys}, noreply=False) == []
    for address in nodes:
        with Client(address, timeout=PATIENCE) as client:
            mine = {key for key in keys if cluster.hasher.get_node(key) == name_of(address)}
            assert client.get_many(keys) == {key: key.encode() for key in mine}
    assert all(cluster.get(key) == key.encode() for key in keys)
    calls = cluster.hasher.calls
    cluster.get(("server key", "k"))
    assert cluster.hasher.calls == calls + 1


def test_nodes_come_and_go_while_many_threads_use_it(
    connect_all: Callable[..., Any], nodes: Addresses, hasher: Any
) -> None:
    cluster = connect_all(nodes[:2], hasher=hasher)
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    going = True

    def change() -> None:
        choice = random.Random(seed)
        try:
            for _ in range(60):
                address = choice.choice(nodes[1:])  # the first one stays
                if name_of(address) in cluster.clients:
                    cluster.remove_server(address)
                else:
                    cluster.add_server(address)
                time.sleep(0.01)
        finally:
            nonlocal going
            going = False

    def use(thread: int) -> None:
        keys = [f"{thread}-{number}" for number in range(10)]
        turn = 0
        while going:
            turn += 1
            values = {key: f"{key}:{turn}".encode() for key in keys}
            cluster.set_many(values, noreply=bool(turn % 2))
            for key in keys[:3]:
                cluster.set(key, values[key])
            found = cluster.get_many(keys)
            found |= {(key): value for key in keys[:3] if (value := cluster.get(key)) is not None}
            for key, value in found.items():
                name, _, written = value.rpartition(b":")
                assert name == key.encode()
                assert int(written) <= turn

    raise_first(in_threads(THREADS + 1, lambda number: use(number) if number else change()))
    names = set(cluster.clients)
    assert set(cluster.hasher.nodes) == names
    keys = [f"after-{number}" for number in range(50)]
    assert cluster.set_many(dict.fromkeys(keys, "v"), noreply=False) == []
    assert cluster.get_many(keys) == dict.fromkeys(keys, b"v")


def test_threads_that_add_the_same_node_make_one(
    connect_all: Callable[..., Any], nodes: Addresses
) -> None:
    for _ in range(10):
        cluster = connect_all([])
        add_server = cluster.add_server
        raise_first(in_threads(8, lambda _, add=add_server: add(nodes[0])))
        assert cluster.hasher.nodes == [name_of(nodes[0])]
        client = cluster.clients[name_of(nodes[0])]
        cluster.add_server(nodes[0])
        assert cluster.clients == {name_of(nodes[0]): client}


@pytest.fixture
def servers() -> Iterator[list[EmbeddedServer]]:
    with ExitStack() as stack:
        yield [stack.enter_context(EmbeddedServer(recording=True)) for _ in range(3)]


def test_a_removed_nodes_connections_close_when_their_commands_are_done(
    connect_all: Callable[..., Any], servers: list[EmbeddedServer]
) -> None:
    cluster = connect_all([server.address for server in servers])
    keys = keys_of(cluster, servers[0].address, 3)
    cluster.set_many(dict.fromkeys(keys, "v"), noreply=False)
    servers[0].inject(Delay(0.3), times=3)
    outcomes: list[Any] = []

    def remove_meanwhile(number: int) -> Any:
        if number < 3:
            return cluster.get(keys[number])
        wait_until(lambda: len(servers[0].requests) == 6)
        cluster.remove_server(servers[0].address)
        return None

    outcomes = in_threads(4, remove_meanwhile)
    assert outcomes == [b"v", b"v", b"v", None]
    gc.collect()
    wait_until(lambda: servers[0].open_connections == 0)
    assert cluster.get(keys[0]) is None


def test_a_client_put_in_by_hand_is_used(
    connect_all: Callable[..., Any], servers: list[EmbeddedServer], hasher: Any
) -> None:
    cluster = connect_all([server.address for server in servers[:2]], hasher=hasher)
    cluster.get_many([f"key-{number}" for number in range(50)])
    client = Client(servers[2].address, timeout=PATIENCE)
    cluster.clients["my own name"] = client
    cluster.hasher.add_node("my own name")
    key = key_of(cluster, "my own name")
    cluster.set(key, "v", noreply=False)
    assert client.get(key) == b"v"
    assert cluster.get_many([key]) == {key: b"v"}
    assert set(cluster.version()) == set(cluster.clients)
    assert cluster._get_client(key) == (client, key)


def test_a_client_that_is_replaced_is_the_one_that_is_used(
    connect_all: Callable[..., Any], servers: list[EmbeddedServer]
) -> None:
    cluster = connect_all([servers[0].address, servers[1].address])
    key = key_of(cluster, servers[0].address)
    cluster.set(key, "v", noreply=False)
    cluster.clients[name_of(servers[0].address)] = Client(servers[2].address, timeout=PATIENCE)
    assert cluster.get(key) is None
    assert cluster.get_many([key]) == {}
    assert len(servers[2].requests) == 2


def test_a_node_without_a_client_says_so(
    connect_all: Callable[..., Any], nodes: Addresses, hasher: Any
) -> None:
    cluster = connect_all(nodes[:1], hasher=hasher)
    cluster.hasher.add_node("nobody")
    key = key_of(cluster, "nobody")
    for call in (lambda: cluster.get(key), lambda: cluster.get_many([key])):
        with pytest.raises(MemcacheError, match="'nobody', which is not among the clients"):
            call()


def test_a_hasher_may_be_replaced(connect_all: Callable[..., Any], nodes: Addresses) -> None:
    cluster = connect_all(nodes)
    cluster.get_many([f"key-{number}" for number in range(50)])
    for hasher in (ModuloHash(), RendezvousHash()):
        hasher.add_node(name_of(nodes[2]))
        cluster.hasher = hasher
        assert cluster.hasher is hasher
        for number in range(10):
            assert cluster._get_client(f"key-{number}")[0] is cluster.clients[name_of(nodes[2])]
            assert cluster.set(f"key-{number}", "v", noreply=False) is True
    with Client(nodes[2], timeout=PATIENCE) as client:
        assert len(client.get_many([f"key-{number}" for number in range(10)])) == 10


def test_a_hasher_made_by_a_function(nodes: Addresses) -> None:
    made = RendezvousHash(seed=7)
    with HashClient(nodes, hasher=lambda: made, timeout=PATIENCE) as cluster:
        assert cluster.hasher is made
        keys = [f"key-{number}" for number in range(100)]
        assert cluster.set_many(dict.fromkeys(keys, "v"), noreply=False) == []
        for key in keys:
            assert cluster.clients[made.get_node(key)].get(key) == b"v"


def test_removing_a_node_moves_only_its_keys(nodes: Addresses) -> None:
    cluster = HashClient(nodes)
    keys = [f"key-{number}" for number in range(1000)]
    before = {key: cluster._get_client(key)[0] for key in keys}
    gone = cluster.clients[name_of(nodes[1])]
    cluster.remove_server(nodes[1])
    after = {key: cluster._get_client(key)[0] for key in keys}
    assert {key for key in keys if before[key] is not after[key]} == {
        key for key in keys if before[key] is gone
    }
    cluster.add_server(nodes[1])
    assert [cluster._get_client(key)[0].server for key in keys] == [
        before[key].server for key in keys
    ]
