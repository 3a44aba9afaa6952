"""`HashClient`, as long as all of its nodes are up: it is `Client` in all but where the keys are.

Every command gives what it gives on one server; a key may come with a server key; commands without
a key are answered by every node.  What happens when nodes fail is in `test_cluster_failures.py`.
"""

from __future__ import annotations

import inspect
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from clusters import in_threads, key_of, name_of, raise_first
from cymemcache import (
    Client,
    HashClient,
    MemcacheClientError,
    MemcacheError,
    MemcacheIllegalInputError,
    MemcacheServerError,
    serde,
)
from cymemcache.commands import Commands
from cymemcache.hashing import KetamaHash, RendezvousHash
from cymemcache.testing import EmbeddedServer, MemcachedProcess, MockMemcacheClient
from wire import MEBIBYTE, PATIENCE, TOO_LONG_KEY, Server, wait_until

Addresses = list[tuple[str, int]]
MANY = [f"many-{number}" for number in range(40)]


@pytest.fixture
def cluster(connect_all: Callable[..., Any], nodes: Addresses) -> HashClient:
    made: HashClient = connect_all(nodes)
    return made


@pytest.fixture(params=["plain", "pooled"])
def pair(
    request: pytest.FixtureRequest,
    connect_all: Callable[..., Any],
    nodes: Addresses,
    running_memcached: Server,
) -> tuple[Any, Client]:
    """A cluster, with and without pooling, and a client of one server; both empty."""
    running_memcached.flush()
    pooled = {"use_pooling": True, "max_pool_size": 2} if request.param == "pooled" else {}
    return connect_all(nodes, **pooled), connect_all(running_memcached.address, Client)


def tokens_hidden(fetched: dict[Any, Any]) -> dict[Any, Any]:
    return {key: (value, type(cas)) for key, (value, cas) in fetched.items()}


def gets_then_cas(client: Any) -> list[Any]:
    client.set("k", "old", noreply=False)
    _, token = client.gets("k")
    return [client.cas("k", "new", token), client.cas("k", "newer", token), client.get("k")]


SCRIPTS: dict[str, Callable[[Any], Any]] = {
    "set": lambda c: [c.set("k", "v", noreply=False), c.get("k")],
    "set, by position": lambda c: [c.set("k", "v", 0, False, 7), c.get("k")],
    "set, with noreply": lambda c: [c.set("k", "v", noreply=True), c.get("k")],
    "set, by default": lambda c: [c.set("k", "v"), c.get("k")],
    "set, expired": lambda c: [c.set("k", "v", expire=-1, noreply=False), c.get("k")],
    "set, other types": lambda c: [
        c.set("k", value) and c.get("k") for value in (5, b"b", "é"[:0])
    ],
    "add": lambda c: [c.add("k", "1", noreply=False), c.add("k", "2", noreply=False), c.get("k")],
    "replace": lambda c: [c.replace("k", "1", noreply=False), c.set("k", "2"), c.replace("k", "3")],
    "append": lambda c: (
        [c.append("k", "1", noreply=False), c.set("k", "2"), c.append("k", "3"), c.get("k")]
    ),
    "prepend": lambda c: [c.set("k", "2"), c.prepend("k", "1", noreply=False), c.get("k")],
    "cas": gets_then_cas,
    "cas, of nothing": lambda c: c.cas("k", "v", b"1"),
    "get, a miss": lambda c: [c.get("k"), c.get("k", "default"), c.get("k", default=b"d")],
    "gets, a miss": lambda c: [c.gets("k"), c.gets("k", "a", "b"), c.gets("k", cas_default=0)],
    "gets": lambda c: [c.set("k", "v"), tokens_hidden({"k": c.gets("k")})],
    "gat": lambda c: [c.set("k", "v"), c.gat("k", 60), c.gat("k", expire=-1), c.get("k")],
    "gat, a miss": lambda c: [c.gat("k", 60), c.gat("k", 60, "default"), c.gat("k", default=1)],
    "gats": lambda c: [c.set("k", "v"), tokens_hidden({"k": c.gats("k", 60)})],
    "gats, a miss": lambda c: [c.gats("k", 60), c.gats("k", 60, 1, 2)],
    "delete": lambda c: (
        [c.delete("k", noreply=False), c.set("k", "v"), c.delete("k", False), c.get("k")]
    ),
    "delete, with noreply": lambda c: [c.set("k", "v"), c.delete("k"), c.get("k")],
    "incr": lambda c: (
        [c.incr("k", 1), c.set("k", "5"), c.incr("k", 2), c.incr("k", 1, True), c.get("k")]
    ),
    "decr": lambda c: [c.decr("k", 1), c.set("k", "5"), c.decr("k", 2), c.decr("k", 9)],
    "touch": lambda c: (
        [c.touch("k", 1, noreply=False), c.set("k", "v"), c.touch("k", -1, False), c.get("k")]
    ),
    "set_many": lambda c: [c.set_many(dict.fromkeys(MANY, "v"), noreply=False), c.get_many(MANY)],
    "set_many, with noreply": lambda c: [c.set_many(dict.fromkeys(MANY, 1)), c.get_many(MANY)],
    "set_many, expired": lambda c: [
        c.set_many({"a": 1, "b": 2}, -1, False),
        c.get_many(["a", "b"]),
    ],
    "set_multi": lambda c: [c.set_multi({"a": 1}, noreply=False), c.get_multi(["a"])],
    "set_many, of nothing": lambda c: [c.set_many({}), c.set_many({}, noreply=False)],
    "get_many": lambda c: [c.set_many({"a": 1, b"b": 2}), c.get_many(["a", b"b", "c"])],
    "get_many, an iterator": lambda c: [c.set_many({"a": 1}), c.get_many(iter("abc"))],
    "get_many, str and bytes": lambda c: [c.set_many({"a": 1, b"a": 2}), len(c.get_many(["a"]))],
    "get_many, twice": lambda c: [c.set("a", 1), c.get_many(["a", "a"])],
    "get_many, of nothing": lambda c: [c.get_many([]), c.gets_many([]), c.get_multi(())],
    "gets_many": lambda c: (
        [c.set_many(dict.fromkeys(MANY, "v")), tokens_hidden(c.gets_many([*MANY, "missing"]))]
    ),
    "gets_multi": lambda c: [c.set("a", 1), tokens_hidden(c.gets_multi(["a"]))],
    "delete_many": lambda c: (
        [c.set_many(dict.fromkeys(MANY, 1)), c.delete_many(MANY, False), c.get_many(MANY)]
    ),
    "delete_many, with noreply": lambda c: (
        [c.set_many(dict.fromkeys(MANY, 1)), c.delete_many(MANY), c.get_many(MANY)]
    ),
    "delete_multi, of nothing": lambda c: [c.delete_multi([]), c.delete_many([], noreply=False)],
    "[]": lambda c: [c.__setitem__("k", "v"), c["k"], c.__delitem__("k"), c.get("k")],
    "close": lambda c: [c.set("k", "v"), c.close(), c.get("k"), c.disconnect_all(), c.get("k")],
    "quit": lambda c: [c.set_many(dict.fromkeys(MANY, 1)), c.quit(), c.get_many(MANY), c.quit()],
    "with": lambda c: (
        [c.set("k", "v"), c.__enter__() is c, c.__exit__(None, None, None), c.get("k")]
    ),
}


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_what_a_client_of_one_server_gives(
    pair: tuple[Any, Client], script: Callable[[Any], Any]
) -> None:
    cluster, client = pair
    assert script(cluster) == script(client)


REFUSED: dict[str, Callable[[Any], Any]] = {
    "a key too long": lambda c: c.get(TOO_LONG_KEY),
    "a key with a space": lambda c: c.set("a b", 1),
    "no str": lambda c: c.get(1),
    "None": lambda c: c.delete(None),
    "non-ASCII": lambda c: c.get("é"),
    "no number": lambda c: c.incr("k", "x"),
    "an expire": lambda c: c.set("k", "v", expire="soon"),
    "flags": lambda c: c.set("k", "v", flags=1 << 32),
    "a cas token": lambda c: c.cas("k", "v", "x y"),
    "one of many": lambda c: c.get_many([*MANY, "a b"]),
    "one of many to set": lambda c: c.set_many({**dict.fromkeys(MANY, 1), "a b": 1}),
    "one of many to delete": lambda c: c.delete_many([*MANY, "a b"]),
    "an expire of many": lambda c: c.set_many(dict.fromkeys(MANY, 1), expire="soon"),
    "no mapping": lambda c: c.set_many([1]),
    "no keys": lambda c: c.get_many(1),
    "no such argument": lambda c: c.get("k", nodefault=1),
    "a missing argument": lambda c: c.set("k"),
    "a number of text": lambda c: [c.set("k", "x"), c.incr("k", 1)],
    "too large": lambda c: c.set("k", b"." * (2 * MEBIBYTE), noreply=False),
    "[] of nothing": lambda c: c["k"],
    "[] of a bad key": lambda c: c["a b"],
    "stats": lambda c: c.stats("a\r\nb"),
}


@pytest.mark.parametrize("script", REFUSED.values(), ids=REFUSED)
def test_what_a_client_of_one_server_raises(
    pair: tuple[Any, Client], script: Callable[[Any], Any]
) -> None:
    cluster, client = pair
    with pytest.raises(Exception) as one:  # noqa: PT011 - whatever it is
        script(client)
    with pytest.raises(type(one.value)) as many:
        script(cluster)
    assert type(many.value) is type(one.value)


@pytest.mark.parametrize("ignore", [False, True])
@pytest.mark.parametrize(
    "script",
    [
        lambda c, k: c.get_many([*MANY, k]),
        lambda c, k: c.set_many({**dict.fromkeys(MANY, 1), k: 1}),
        lambda c, k: c.delete_many([*MANY, k]),
    ],
    ids=["get_many", "set_many", "delete_many"],
)
def test_one_bad_key_of_many_and_nothing_is_sent(
    connect_all: Callable[..., Any], script: Callable[..., Any], ignore: bool
) -> None:
    with ExitStack() as stack:
        servers = [stack.enter_context(EmbeddedServer(recording=True)) for _ in range(3)]
        cluster = connect_all([server.address for server in servers], ignore_exc=ignore)
        for bad in ("a b", "é", TOO_LONG_KEY, 5):
            with pytest.raises((MemcacheIllegalInputError, TypeError)):
                script(cluster, bad)
        assert [server.requests for server in servers] == [[], [], []]


def test_ignore_exc_makes_misses_of_what_servers_refuse(
    connect_all: Callable[..., Any], nodes: Addresses
) -> None:
    cluster = connect_all(nodes, ignore_exc=True)
    assert cluster.set("k", b"." * (2 * MEBIBYTE), noreply=False) is False
    large = dict.fromkeys(MANY, b"small") | {"large": b"." * (2 * MEBIBYTE)}
    assert cluster.set_many(large, noreply=False) == ["large"]
    cluster.set("k", "text")
    assert cluster.incr("k", 1) is False
    assert cluster.get("k") == b"text"


def test_one_refused_item_of_many_raises_after_the_others_are_stored(cluster: HashClient) -> None:
    items = dict.fromkeys(MANY, b"small") | {"large": b"." * (2 * MEBIBYTE)}
    with pytest.raises(MemcacheServerError, match="too large"):
        cluster.set_many(items, noreply=False)
    assert cluster.get_many([*MANY, "large"]) == dict.fromkeys(MANY, b"small")


# -- where the keys are ----------------------------------------------------------------------------


def test_keys_are_spread_over_the_nodes_as_the_hasher_says(
    cluster: HashClient, nodes: Addresses
) -> None:
    cluster.set_many(dict.fromkeys(MANY, "v"), noreply=False)
    found: dict[str, str] = {}
    for address in nodes:
        with Client(address, timeout=PATIENCE) as client:
            found |= dict.fromkeys(client.get_many(MANY), name_of(address))
    assert found == {key: cluster.hasher.get_node(key) for key in MANY}
    assert len(set(found.values())) == 4


def test_the_prefix_is_no_part_of_what_is_hashed(
    connect_all: Callable[..., Any], nodes: Addresses
) -> None:
    plain, prefixed = connect_all(nodes), connect_all(nodes, key_prefix=b"p:")
    prefixed.set_many(dict.fromkeys(MANY, "v"), noreply=False)
    for key in MANY:
        client, _ = plain._get_client(key)
        assert client.get("p:" + key) == b"v"
    assert prefixed.get_many(MANY) == dict.fromkeys(MANY, b"v")


def test_every_kind_of_node_works(tmp_path: Path) -> None:
    with (
        MemcachedProcess() as ordinary,
        MemcachedProcess(host="::1") as six,
        MemcachedProcess(unix_path=tmp_path / "one.sock") as local,
        EmbeddedServer(unix_path=tmp_path / "two.sock") as other,
    ):
        paths = [f"unix:{local.address}", other.address]
        servers = ["{}:{}".format(*ordinary.address), f"[::1]:{six.address[1]}", *paths]
        with HashClient(servers, timeout=PATIENCE) as cluster:
            six_name = f"::1:{six.address[1]}"
            assert list(cluster.clients) == [
                name_of(ordinary.address),
                six_name,
                local.address,
                other.address,
            ]
            assert cluster.set_many(dict.fromkeys(MANY, "v"), noreply=False) == []
            assert cluster.get_many(MANY) == dict.fromkeys(MANY, b"v")
            assert all(cluster.get(key) == b"v" for key in MANY)
            assert {cluster.hasher.get_node(key) for key in MANY} == set(cluster.clients)
            assert set(cluster.version()) == set(cluster.clients)
            cluster.remove_server(("::1", six.address[1]))
            cluster.remove_server(f"unix:{local.address}")
            cluster.remove_server(*ordinary.address)
            assert list(cluster.clients) == [other.address]


# -- server keys -----------------------------------------------------------------------------------

WITH_SERVER_KEY: dict[str, Callable[[Any, Any], Any]] = {
    "set": lambda c, k: c.set(k, "v", noreply=False),
    "add": lambda c, k: c.add(k, "v", noreply=False),
    "replace": lambda c, k: c.replace(k, "v", noreply=False),
    "append": lambda c, k: c.append(k, "v", noreply=False),
    "prepend": lambda c, k: c.prepend(k, "v", noreply=False),
    "cas": lambda c, k: c.cas(k, "v", "1"),
    "get": lambda c, k: c.get(k),
    "gets": lambda c, k: c.gets(k),
    "gat": lambda c, k: c.gat(k, 60),
    "gats": lambda c, k: c.gats(k, 60),
    "delete": lambda c, k: c.delete(k, noreply=False),
    "incr": lambda c, k: c.incr(k, 1),
    "decr": lambda c, k: c.decr(k, 1),
    "touch": lambda c, k: c.touch(k, 60, noreply=False),
    "[]": lambda c, k: c[k],
    "[] to set": lambda c, k: (c.__setitem__(k, "v"), c.close()),
    "[] to delete": lambda c, k: (c.__delitem__(k), c.close()),
    "get_many": lambda c, k: c.get_many([k]),
    "gets_many": lambda c, k: c.gets_many([k]),
    "set_many": lambda c, k: c.set_many({k: "v"}, noreply=False),
    "delete_many": lambda c, k: c.delete_many([k], noreply=False),
}


@pytest.mark.parametrize("command", WITH_SERVER_KEY.values(), ids=WITH_SERVER_KEY)
def test_the_server_key_alone_tells_the_node(
    connect_all: Callable[..., Any], command: Callable[..., Any]
) -> None:
    with ExitStack() as stack:
        servers = [stack.enter_context(EmbeddedServer(recording=True)) for _ in range(3)]
        cluster = connect_all([server.address for server in servers])
        for server in servers:
            place = key_of(cluster, server.address, "owner")
            key = key_of(cluster, servers[servers.index(server) - 1].address)
            try:
                command(cluster, (place, key))
            except KeyError:
                pass  # what [] raises on a miss
            asked = {key.encode() in line.split() for _, line in server.requests}
            assert True in asked, "the key goes out as it is, to the node of the server key"
            assert all(b"owner" not in line for _, line in server.requests)
            for other in servers:
                assert other is server or other.requests == []
                other.clear()


def test_a_server_key_keeps_related_items_together(cluster: HashClient, nodes: Addresses) -> None:
    keys = [("user-5", f"{name}-5") for name in ("mail", "name", "face")]
    assert cluster.set_many(dict.fromkeys(keys, "v"), noreply=False) == []
    assert cluster.get(("user-5", "mail-5")) == b"v"
    assert cluster.get_many(keys) == {"mail-5": b"v", "name-5": b"v", "face-5": b"v"}
    _, token = cluster.gets(("user-5", "mail-5"))
    assert cluster.gets_many(keys[:1]) == {"mail-5": (b"v", token)}
    client, key = cluster._get_client(("user-5", "mail-5"))
    assert key == "mail-5"
    assert client is cluster.clients[cluster.hasher.get_node("user-5")]
    assert client.get_many(["mail-5", "name-5", "face-5"]).keys() == {k for _, k in keys}
    assert cluster.delete_many(keys, noreply=False) is True
    assert cluster.get_many(keys) == {}


def test_plain_keys_and_those_with_server_keys_mix(cluster: HashClient) -> None:
    cluster.set_many({"a": 1, ("s", "b"): 2, b"c": 3, (b"s", b"d"): 4}, noreply=False)
    found = cluster.get_many(["a", ("s", "b"), b"c", (b"s", b"d")])
    assert found == {"a": b"1", "b": b"2", b"c": b"3", b"d": b"4"}


def test_one_key_under_server_keys_of_different_nodes_is_refused(
    cluster: HashClient, nodes: Addresses
) -> None:
    here, there = key_of(cluster, nodes[0]), key_of(cluster, nodes[1])
    keys = [(here, "k"), (there, "k")]
    assert cluster.set_many({keys[0]: "here", keys[1]: "there"}, noreply=False) == []
    assert [cluster.get(key) for key in keys] == [b"here", b"there"]
    with pytest.raises(MemcacheIllegalInputError, match="two server keys"):
        cluster.get_many(keys)


@pytest.mark.parametrize("key", [(), ("k",), ("a", "b", "c")])
def test_a_tuple_that_is_no_pair_is_refused(cluster: HashClient, key: Any) -> None:
    for call in (cluster.get, cluster.delete, lambda k: cluster.get_many([k]), cluster._get_client):
        with pytest.raises(MemcacheIllegalInputError, match="pair"):
            call(key)


def test_failed_keys_come_back_as_they_were_given(
    connect_all: Callable[..., Any], nodes: Addresses
) -> None:
    cluster = connect_all(nodes, ignore_exc=True)
    items = {("s", "large"): b"." * (2 * MEBIBYTE), "fine": b"."}
    assert cluster.set_many(items, noreply=False) == [("s", "large")]


# -- commands without a key ------------------------------------------------------------------------


def test_every_node_answers(cluster: HashClient, nodes: Addresses) -> None:
    names = {name_of(address) for address in nodes}
    version = cluster.version()
    assert version.keys() == names
    assert all(text.startswith(b"1.") for text in version.values())
    stats = cluster.stats()
    assert {stats[name_of(address)][b"pid"] for address in nodes}.__len__() == 4
    assert cluster.stats("settings").keys() == names
    assert cluster.cache_memlimit(64) == dict.fromkeys(names, True)
    assert cluster.raw_command("mn", "MN\r\n") == dict.fromkeys(names, b"")
    cluster.set_many(dict.fromkeys(MANY, "v"), noreply=False)
    for noreply in (False, True):
        cluster.set_many(dict.fromkeys(MANY, "v"), noreply=False)
        assert cluster.flush_all(noreply=noreply) == dict.fromkeys(names, True)
        assert cluster.get_many(MANY) == {}


@pytest.mark.parametrize("ignore", [False, True])
def test_what_one_node_refuses(connect_all: Callable[..., Any], ignore: bool) -> None:
    with EmbeddedServer(shutdown=True) as willing, EmbeddedServer() as unwilling:
        cluster = connect_all([willing.address, unwilling.address], ignore_exc=ignore)
        if ignore:
            assert cluster.shutdown() is None
        else:
            with pytest.raises(MemcacheClientError):
                cluster.shutdown()
        assert unwilling.running
        wait_until(lambda: not willing.running)


def test_stats_with_an_unknown_word_raises(cluster: HashClient) -> None:
    with pytest.raises(MemcacheClientError):
        cluster.stats("nonsense")


def test_quit_leaves_every_node_that_it_was_connected_to(connect_all: Callable[..., Any]) -> None:
    with ExitStack() as stack:
        servers = [stack.enter_context(EmbeddedServer(recording=True)) for _ in range(3)]
        cluster = connect_all([server.address for server in servers])
        cluster.set(key_of(cluster, servers[0].address), "v")
        cluster.set(key_of(cluster, servers[1].address), "v")
        cluster.quit()
        for server in servers[:2]:
            wait_until(lambda asked=server: b"quit" in [line for _, line in asked.requests])
        assert servers[2].requests == []


# -- reading what was written ----------------------------------------------------------------------


def test_a_thread_reads_what_it_wrote_with_noreply(
    connect_all: Callable[..., Any], nodes: Addresses
) -> None:
    """Whatever mixes: commands on one key and on many, and many threads."""
    cluster = connect_all(nodes)

    def work(thread: int) -> None:
        keys = [f"{thread}-{number}" for number in range(20)]
        for turn in range(20):
            values = dict.fromkeys(keys, b"%d-%d" % (thread, turn))
            if turn % 2:
                cluster.set_many(values)
            else:
                for key, value in values.items():
                    cluster.set(key, value)
            if turn % 3:
                assert cluster.get_many(keys) == values
            else:
                assert {key: cluster.get(key) for key in keys} == values
            if turn % 5 == 0:
                cluster.delete_many(keys[::2])
                assert cluster.get_many(keys) == {key: values[key] for key in keys[1::2]}
            if turn % 7 == 0:
                cluster.close()

    raise_first(in_threads(4, work))
    assert [client.noreply_lost for client in cluster.clients.values()] == [0, 0, 0, 0]


def test_close_waits_for_the_threads_own_noreply_commands(
    connect_all: Callable[..., Any], nodes: Addresses
) -> None:
    cluster, other = connect_all(nodes), connect_all(nodes)
    for turn in range(20):
        cluster.set_many(dict.fromkeys(MANY, turn))
        (cluster.quit if turn % 2 else cluster.close)()
        assert other.get_many(MANY) == dict.fromkeys(MANY, b"%d" % turn)


# -- options, attributes, life ---------------------------------------------------------------------


def test_the_options_reach_the_clients_of_the_nodes(nodes: Addresses) -> None:
    with HashClient(
        nodes,
        timeout=7,
        connect_timeout=8,
        key_prefix=b"p",
        serde=serde.pickle_serde,
        allow_unicode_keys=True,
        default_noreply=False,
        ignore_exc=True,
        max_pool_size=3,
    ) as cluster:
        assert cluster.default_kwargs["timeout"] == 7
        for name in ("hasher", "retry_attempts", "use_pooling", "max_pool_size", "lock_generator"):
            assert name not in cluster.default_kwargs
        for client in cluster.clients.values():
            assert type(client) is Client
            assert (client.timeout, client.connect_timeout) == (7, 8)
            assert (client.key_prefix, client.serde) == (b"p", serde.pickle_serde)
            assert client.ignore_exc is True
            assert client.default_noreply is False
        assert cluster.set("schlüssel", {"a": 1}) is True
        assert cluster.get("schlüssel") == {"a": 1}
        cluster.default_kwargs["timeout"] = 9
        cluster.remove_server(nodes[0])
        cluster.add_server(nodes[0])
        assert cluster.clients[name_of(nodes[0])].timeout == 9


def test_with_pooling_the_clients_are_pooled_ones(nodes: Addresses) -> None:
    with HashClient(nodes, use_pooling=True, max_pool_size=3, timeout=PATIENCE) as cluster:
        cluster.set_many(dict.fromkeys(MANY, "v"), noreply=False)
        pools = [client.client_pool for client in cluster.clients.values()]
        assert [(pool.max_size, len(pool.used)) for pool in pools] == [(3, 0)] * 4
        assert [len(pool.free) for pool in pools] == [1] * 4


def test_ignore_exc_may_be_changed(nodes: Addresses) -> None:
    with HashClient(nodes, timeout=PATIENCE) as cluster:
        cluster.set("k", "text")
        with pytest.raises(MemcacheClientError):
            cluster.incr("k", 1)
        cluster.ignore_exc = True
        assert cluster.incr("k", 1) is False
        assert all(client.ignore_exc for client in cluster.clients.values())
        cluster.ignore_exc = False
        with pytest.raises(MemcacheClientError):
            cluster.incr("k", 1)


def test_the_names_of_nodes() -> None:
    cluster = HashClient([])
    assert cluster._make_client_key(("10.0.0.1", 11211)) == "10.0.0.1:11211"
    assert cluster._make_client_key("/run/memcached.sock") == "/run/memcached.sock"
    cluster.add_server("10.0.0.1")
    cluster.add_server("10.0.0.2:5")
    cluster.add_server(("10.0.0.3", 6))
    cluster.add_server("10.0.0.4", 7)
    cluster.add_server("unix:/run/memcached.sock")
    assert list(cluster.clients) == [
        "10.0.0.1:11211",
        "10.0.0.2:5",
        "10.0.0.3:6",
        "10.0.0.4:7",
        "/run/memcached.sock",
    ]
    assert repr(cluster) == f"<HashClient {', '.join(cluster.clients)}>"
    with pytest.raises(TypeError):
        cluster.add_server(("10.0.0.4", 7), 8)


@pytest.mark.parametrize("ignore", [False, True])
def test_a_cluster_of_no_servers(ignore: bool) -> None:
    cluster = HashClient([], ignore_exc=ignore)
    commands = [lambda: cluster.get("k", "miss"), lambda: cluster.set("k", 1)]
    commands += [lambda: cluster.get_many(["a", "b"]), lambda: cluster.set_many({"a": 1, "b": 2})]
    commands += [lambda: cluster.incr("k", 1), lambda: cluster.delete_many(["a", "b"])]
    if ignore:
        assert [command() for command in commands] == ["miss", False, {}, ["a", "b"], False, False]
        assert cluster._get_client("k") == (None, "k")
        with pytest.raises(KeyError):
            cluster["k"]
    else:
        for command in [*commands, lambda: cluster._get_client("k"), lambda: cluster["k"]]:
            with pytest.raises(MemcacheError, match="no node"):
                command()
    assert cluster.version() == cluster.stats() == cluster.flush_all() == {}
    assert cluster.get_many([]) == {}
    for command in (lambda: cluster.get("a b"), lambda: cluster.get_many(["a b"])):
        with pytest.raises(MemcacheIllegalInputError):
            command()
    cluster.quit()
    cluster.close()


PUBLIC = sorted(
    name for name, value in vars(Commands).items() if name[0] != "_" and callable(value)
)


@pytest.mark.parametrize("name", PUBLIC)
def test_a_method_looks_like_the_clients(name: str) -> None:
    method, model = getattr(HashClient, name), getattr(Client, name)
    # But for the types: a cluster takes server keys, and gives what all nodes answer.
    parameters, expected = (inspect.signature(one).parameters.values() for one in (method, model))
    assert [(one.name, one.kind, one.default) for one in parameters] == [
        (one.name, one.kind, one.default) for one in expected
    ]
    assert (
        inspect.getfullargspec(HashClient([]).__getattribute__(name)).args[1:]
        == (inspect.getfullargspec(model).args[1:])
    )
    assert method.__doc__ == model.__doc__
    assert method.__qualname__ == f"HashClient.{method.__name__}"
    assert method.__module__ == "cymemcache"
    assert not hasattr(method, "__wrapped__")


def test_a_subclass_makes_clients_of_its_own(nodes: Addresses) -> None:
    class Cluster(HashClient):
        client_class = MockMemcacheClient

    cluster = Cluster([("10.255.255.1", 11211), ("10.255.255.2", 11211)])
    assert cluster.set_many(dict.fromkeys(MANY, "v"), noreply=False) == []
    assert cluster.get_many(MANY) == dict.fromkeys(MANY, b"v")
    assert all(cluster.get(key) == b"v" for key in MANY)
    counts = [stats[b"curr_items"] for stats in cluster.stats().values()]
    assert sum(counts) == len(MANY)
    assert min(counts) > 0


# -- forks and signals -----------------------------------------------------------------------------


@pytest.fixture
def alarmed() -> Iterator[Callable[[Callable[[], Any]], None]]:
    """Sets what a signal does."""
    before = signal.getsignal(signal.SIGUSR1)

    def set_handler(function: Callable[[], Any]) -> None:
        signal.signal(signal.SIGUSR1, lambda number, frame: function())

    yield set_handler
    signal.signal(signal.SIGUSR1, before)


def ended(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_parent_and_child_go_on_after_a_fork(cluster: HashClient) -> None:
    cluster.set_many(dict.fromkeys(MANY, "v"), noreply=False)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            if cluster.get_many(MANY) == dict.fromkeys(MANY, b"v"):
                cluster.set_many(dict.fromkeys(MANY, "of the child"), noreply=False)
                cluster.add_server(("127.0.0.1", 1))
                status = 0
        finally:
            os._exit(status)
    for _ in range(50):
        assert cluster.get_many(MANY).keys() == set(MANY)
    assert ended(pid) == 0
    assert cluster.get_many(MANY) == dict.fromkeys(MANY, b"of the child")
    assert len(cluster.clients) == 4


def test_a_fork_while_threads_use_it(cluster: HashClient) -> None:
    cluster.set_many({key: key for key in MANY}, noreply=False)
    going = True

    right = {key: key.encode() for key in MANY}

    def use(thread: int) -> None:
        while going:
            assert cluster.get(MANY[thread]) == right[MANY[thread]]
            assert cluster.get_many(MANY) == right

    def fork_and_use(_: int) -> None:
        nonlocal going
        try:
            for _ in range(5):
                pid = os.fork()
                if pid == 0:
                    status = 1
                    try:
                        status = int([cluster.get_many(MANY) for _ in range(5)] != [right] * 5)
                    finally:
                        os._exit(status)
                assert ended(pid) == 0
        finally:
            going = False

    raise_first(in_threads(4, lambda thread: (use if thread else fork_and_use)(thread)))


def test_signal_handlers_may_use_it_in_the_middle_of_a_command(
    connect_all: Callable[..., Any], nodes: Addresses, alarmed: Callable[..., None]
) -> None:
    """The handler comes while the lock is held, in the middle of a choice: the hasher raises it."""

    class Hasher:
        def __init__(self) -> None:
            self.inner = RendezvousHash()
            self.alarms = 0

        def add_node(self, node: str) -> None:
            self.alarm()
            self.inner.add_node(node)
            self.alarm()

        def remove_node(self, node: str) -> None:
            self.alarm()
            self.inner.remove_node(node)
            self.alarm()

        def get_node(self, key: Any) -> str | None:
            self.alarm()
            return self.inner.get_node(key)

        def alarm(self) -> None:
            if self.alarms:
                self.alarms -= 1
                os.kill(os.getpid(), signal.SIGUSR1)

    cluster = connect_all(nodes, hasher=Hasher)
    cluster.set_many(dict.fromkeys(MANY, "v"), noreply=False)
    seen: list[Any] = []

    def handle() -> None:
        seen.append((cluster.get(MANY[0]), cluster.get_many(MANY)))

    alarmed(handle)
    for command in (lambda: cluster.get(MANY[1]), lambda: cluster.get_many(MANY)):
        cluster.hasher.alarms = 1
        command()
    assert seen == [(b"v", dict.fromkeys(MANY, b"v"))] * 2
    cluster.hasher.alarms = 4
    cluster.remove_server(nodes[0])
    cluster.add_server(nodes[0])
    assert len(seen) == 6
    assert all(set(found.values()) == {b"v"} for _, found in seen), "or misses, of the node removed"
    assert cluster.get_many(MANY) == dict.fromkeys(MANY, b"v")


class Color(str, Enum):  # noqa: UP042 - what is formatted is not the text
    RED = "red"
    GREEN = "green"
    BLUE = "blue"
    WHITE = "white"


@pytest.mark.parametrize(
    "hasher", [RendezvousHash, KetamaHash, partial(RendezvousHash, seed=7)], ids=str
)
def test_a_key_of_a_users_class_is_on_the_node_of_its_text(
    nodes: list[tuple[str, int]], connect_all: Callable[..., Any], hasher: Any
) -> None:
    client = connect_all(nodes, hasher=hasher)
    for color in Color:
        assert client.set(color, color.value, noreply=False)
    texts = [color.value for color in Color]
    assert client.get_many(texts) == {text: text.encode() for text in texts}
    assert [client.get(text) for text in texts] == [text.encode() for text in texts]
    assert client.get_many(list(Color)) == {color: color.value.encode() for color in Color}
