"""What several nodes have found comes together in one dict: nobody's values count for another's."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from clusters import keys_of, name_of
from cymemcache import Client, HashClient, MemcacheUnexpectedCloseError
from cymemcache.hashing import RendezvousHash
from cymemcache.serde import PickleSerde
from cymemcache.testing import Cut, EmbeddedServer

Servers = list[EmbeddedServer]
Connect = Callable[..., HashClient]


@pytest.fixture
def servers() -> Iterator[Servers]:
    with ExitStack() as stack:
        yield [stack.enter_context(EmbeddedServer(recording=True)) for _ in range(3)]


@pytest.fixture
def connect(connect_all: Callable[..., Any], servers: Servers) -> Connect:
    def make(**options: Any) -> HashClient:
        cluster: HashClient = connect_all([server.address for server in servers], **options)
        return cluster

    return make


def keys_of_all(cluster: HashClient, servers: Servers, count: int) -> list[list[str]]:
    return [keys_of(cluster, server.address, count) for server in servers]


@pytest.mark.parametrize("name", ["get_many", "gets_many"])
def test_what_came_from_a_node_before_it_failed_is_not_found(
    connect: Connect, servers: Servers, name: str
) -> None:
    cluster = connect(ignore_exc=True)
    first, second, third = keys_of_all(cluster, servers, 3)
    cluster.set_many(dict.fromkeys(first + second + third, b"v"), noreply=False)
    whole = getattr(cluster, name)(first + second + third)
    assert sorted(whole) == sorted(first + second + third)
    # Sent once more on a new connection, it fails again.
    with servers[1].inject(Cut(60), verb=name[:-5], times=2):
        found = getattr(cluster, name)(first + second + third)
    assert sorted(found) == sorted(first + third)
    nodes = cluster.counters.nodes
    assert [nodes[name_of(server.address)].hits for server in servers] == [6, 3, 6]
    assert cluster.counters.misses == 0


def test_without_ignore_exc_the_error_of_the_node_is_raised(
    connect: Connect, servers: Servers
) -> None:
    cluster = connect()
    parts = keys_of_all(cluster, servers, 3)
    keys = [key for part in parts for key in part]
    cluster.set_many(dict.fromkeys(keys, b"v"), noreply=False)
    with servers[2].inject(Cut(60), verb="get"), pytest.raises(MemcacheUnexpectedCloseError):
        cluster.get_many(keys)
    assert sorted(cluster.get_many(parts[0] + parts[1])) == sorted(parts[0] + parts[1])


def test_an_idle_connection_that_the_server_has_closed_costs_nothing(
    connect: Connect, servers: Servers
) -> None:
    cluster = connect()
    keys = [key for part in keys_of_all(cluster, servers, 3) for key in part]
    items = dict.fromkeys(keys, b"v")
    cluster.set_many(items, noreply=False)
    servers[0].close_connections()
    assert cluster.get_many(keys) == items
    counters = cluster.counters
    assert (counters.hits, counters.misses, dict(counters.errors)) == (9, 0, {})


def test_misses_are_counted_where_they_belong(connect: Connect, servers: Servers) -> None:
    cluster = connect()
    first, second, third = keys_of_all(cluster, servers, 4)
    cluster.set_many(dict.fromkeys(first[:1] + second[:2] + third, b"v"), noreply=False)
    cluster.get_many(first + second + third + third[:1])  # one is asked for twice
    nodes = cluster.counters.nodes
    counted = [nodes[name_of(server.address)] for server in servers]
    assert [(node.hits, node.misses) for node in counted] == [(1, 3), (2, 2), (5, 0)]


def test_values_that_take_the_serde_come_with_those_that_do_not(
    connect: Connect, servers: Servers
) -> None:
    cluster = connect(serde=PickleSerde())
    first, second, third = keys_of_all(cluster, servers, 3)
    values: list[Any] = [{"a": 1}, "text", 7, b"bytes", [1, 2], None, "more", ("t",), -5]
    items = dict(zip(first + second + third, values, strict=True))
    cluster.set_many(items, noreply=False)
    assert cluster.get_many([*items, "absent"]) == items
    counters = cluster.counters
    assert (counters.hits, counters.misses) == (9, 1)


def test_a_connection_with_noreply_commands_stays_its_threads_where_another_node_has_none(
    connect: Connect, servers: Servers
) -> None:
    cluster = connect()
    parts = keys_of_all(cluster, servers, 2)
    keys = [key for part in parts for key in part]
    cluster.set_many(dict.fromkeys(keys, b"old"), noreply=False)
    for key in keys:
        cluster.set(key, b"new", noreply=True)
    for client in list(cluster.clients.values())[1:]:
        client.close()
    assert cluster.get_many(keys) == dict.fromkeys(keys, b"new")
    assert cluster.get_many(keys) == dict.fromkeys(keys, b"new")
    connections = [{number for number, _ in server.requests} for server in servers]
    assert [len(used) for used in connections] == [1, 2, 2]


def test_nodes_with_timeouts_of_their_own(connect: Connect, servers: Servers) -> None:
    cluster = connect(timeout=5)
    keys = [key for part in keys_of_all(cluster, servers, 2) for key in part]
    items = dict.fromkeys(keys, b"v")
    with Client(servers[1].address, timeout=7) as other:
        cluster.clients[name_of(servers[1].address)] = other
        cluster.set_many(items, noreply=False)
        for _ in range(3):
            assert cluster.get_many(keys) == items


def test_closing_after_a_node_went_leaves_no_slot_to_the_garbage_collector(
    connect: Connect, servers: Servers
) -> None:
    cluster = connect(use_pooling=True, max_pool_size=1)
    key = keys_of(cluster, servers[0].address, 1)[0]
    cluster.set(key, "v", noreply=True)
    client = cluster.clients[name_of(servers[0].address)]
    servers[0].stop()
    client.sock.close()  # so that it is seen at once that the connection is of no use
    gc.collect()
    gc.disable()
    try:
        cluster.close()
        assert client.client_pool.used == ()
    finally:
        gc.enable()


def test_a_hashers_parts_need_not_be_lists(connect: Connect, servers: Servers) -> None:
    class Table:
        def __init__(self, table: Any) -> None:
            self.nodes = table.nodes
            self.choose = table.choose
            self._table = table

        def partition(self, keys: list[Any]) -> dict[str, Any]:
            return {name: tuple(part) for name, part in self._table.partition(keys).items()}

    class Hasher(RendezvousHash):
        def table(self) -> Any:
            return Table(super().table())

    cluster = connect(hasher=Hasher)
    keys = [key for part in keys_of_all(cluster, servers, 3) for key in part]
    items = dict.fromkeys(keys, b"v")
    for key in keys:
        cluster.set(key, b"v", noreply=False)
    for _ in range(3):
        assert cluster.get_many([*keys, "absent"]) == items
