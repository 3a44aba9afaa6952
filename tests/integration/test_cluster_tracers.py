"""Whoever wraps the methods of `Client`, as tracing tools do, or overrides them in a `client_class`
sees every call that a cluster makes on a node, once, with the arguments that the method has.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from clusters import key_of, name_of
from cymemcache import Client, HashClient, MemcacheNodeDownError, PooledClient
from cymemcache.testing import EmbeddedServer
from wire import PATIENCE

Addresses = list[tuple[str, int]]
KEYS = [f"key-{number}" for number in range(40)]

# What is called, what is seen, and on how many of the four nodes.
CALLS: dict[str, tuple[Callable[[Any], Any], str, int]] = {
    "set": (lambda c: c.set("k", "v", 60), "set", 1),
    "add": (lambda c: c.add("k", "v"), "add", 1),
    "replace": (lambda c: c.replace("k", "v"), "replace", 1),
    "append": (lambda c: c.append("k", "v"), "append", 1),
    "prepend": (lambda c: c.prepend("k", "v"), "prepend", 1),
    "cas": (lambda c: c.cas("k", "v", b"1"), "cas", 1),
    "get": (lambda c: c.get("k", default=1), "get", 1),
    "gets": (lambda c: c.gets("k"), "gets", 1),
    "gat": (lambda c: c.gat("k", 60), "gat", 1),
    "gats": (lambda c: c.gats("k", 60), "gats", 1),
    "delete": (lambda c: c.delete("k"), "delete", 1),
    "incr": (lambda c: c.incr("k", 1), "incr", 1),
    "decr": (lambda c: c.decr("k", 1), "decr", 1),
    "touch": (lambda c: c.touch("k", 60), "touch", 1),
    "get_many": (lambda c: c.get_many(KEYS), "get_many", 4),
    "get_multi": (lambda c: c.get_multi(KEYS), "get_many", 4),
    "gets_many": (lambda c: c.gets_many(KEYS), "gets_many", 4),
    "set_many": (lambda c: c.set_many(dict.fromkeys(KEYS, 1)), "set_many", 4),
    "set_multi": (lambda c: c.set_multi(dict.fromkeys(KEYS, 1)), "set_many", 4),
    "delete_many": (lambda c: c.delete_many(KEYS), "delete_many", 4),
    "stats": (lambda c: c.stats(), "stats", 4),
    "version": (lambda c: c.version(), "version", 4),
    "flush_all": (lambda c: c.flush_all(), "flush_all", 4),
    "cache_memlimit": (lambda c: c.cache_memlimit(64), "cache_memlimit", 4),
    "raw_command": (lambda c: c.raw_command("version"), "raw_command", 4),
    "quit": (lambda c: (c.version(), c.quit()), "quit", 4),
}


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """Each call of a method of `Client`, with the server: they are wrapped on the class."""
    calls: list[tuple[str, Any]] = []
    names = {name for _, name, _ in CALLS.values()}

    def wrap(name: str, wrapped: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(wrapped)
        def traced(instance: Any, *args: Any, **kwargs: Any) -> Any:
            calls.append((name, instance.server))
            return wrapped(instance, *args, **kwargs)

        return traced

    for name in names:
        monkeypatch.setattr(Client, name, wrap(name, getattr(Client, name)))
    return calls


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("pooled", [False, True])
def test_a_tracer_sees_every_call(
    nodes: Addresses,
    seen: list[tuple[str, Any]],
    call: tuple[Callable[[Any], Any], str, int],
    pooled: bool,
) -> None:
    run, name, count = call
    with HashClient(nodes, timeout=PATIENCE, use_pooling=pooled) as cluster:
        run(cluster)
        ours = [entry for entry in seen if entry[0] == name]
        assert len(ours) == count
        assert len(set(ours)) == count, "once on each node"
        assert {server for _, server in ours} <= set(nodes)
        others = [other for other, _ in seen if other != name]
        assert others == (["version"] * 4 if name == "quit" else []), (
            "none of them is counted twice"
        )


def test_what_is_traced_gives_what_it_gives_otherwise(
    nodes: Addresses, seen: list[tuple[str, Any]]
) -> None:
    with HashClient(nodes, timeout=PATIENCE) as cluster:
        values = {key: key.encode() for key in KEYS}
        assert cluster.set_many(values, noreply=False) == []
        assert cluster.get_many(KEYS) == values
        assert {key: value for key, (value, _) in cluster.gets_many(KEYS).items()} == values
        pairs = [("s", key) for key in KEYS]
        assert cluster.set_many(dict.fromkeys(pairs, b"v"), noreply=False) == []
        assert cluster.get_many(pairs) == dict.fromkeys(KEYS, b"v")
        assert cluster.delete_many(pairs, noreply=False) is True
        assert cluster.get_many(pairs) == {}
        assert cluster.version().keys() == cluster.clients.keys()


def test_a_tracer_that_comes_and_goes_is_noticed(
    nodes: Addresses, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    with HashClient(nodes, timeout=PATIENCE) as cluster:
        cluster.get_many(KEYS)
        with monkeypatch.context() as patch:
            original = Client.get_many

            def traced(self: Client, keys: Any) -> Any:
                calls.append(self.server)
                return original(self, keys)

            patch.setattr(Client, "get_many", traced)
            cluster.get_many(KEYS)
            assert sorted(calls) == sorted(nodes)
        cluster.get_many(KEYS)
        assert len(calls) == 4


def test_a_method_wrapped_on_one_client_only(nodes: Addresses) -> None:
    calls = []
    with HashClient(nodes, timeout=PATIENCE) as cluster:
        client = cluster.clients[name_of(nodes[0])]
        original = client.get_many

        def traced(keys: Any) -> Any:
            calls.append(keys)
            return original(keys)

        client.get_many = traced
        cluster.set_many(dict.fromkeys(KEYS, "v"), noreply=False)
        assert cluster.get_many(KEYS) == dict.fromkeys(KEYS, b"v")
        assert len(calls) == 1


class Overriding(Client):
    calls: list[str] = []  # noqa: RUF012 - of all of them

    def get(self, key: Any, default: Any = None) -> Any:
        self.calls.append("get")
        return super().get(key, default)

    def get_many(self, keys: Any) -> Any:
        self.calls.append("get_many")
        return super().get_many(keys)

    def set_many(self, values: Any, *args: Any) -> Any:
        self.calls.append("set_many")
        return super().set_many(values, *args)


@pytest.fixture(autouse=True)
def nothing_called() -> Iterator[None]:
    Overriding.calls.clear()
    yield
    Overriding.calls.clear()


@pytest.mark.parametrize("pooled", [False, True])
def test_a_client_class_that_overrides_methods(nodes: Addresses, pooled: bool) -> None:
    class Cluster(HashClient):
        client_class = Overriding

    with Cluster(nodes, timeout=PATIENCE, use_pooling=pooled) as cluster:
        assert all(isinstance(client, Overriding) for client in cluster.clients.values())
        assert pooled is all(isinstance(c, PooledClient) for c in cluster.clients.values())
        assert cluster.set_many(dict.fromkeys(KEYS, "v"), noreply=False) == []
        assert cluster.get_many(KEYS) == dict.fromkeys(KEYS, b"v")
        assert cluster.get(KEYS[0]) == b"v"
        assert Overriding.calls == ["set_many"] * 4 + ["get_many"] * 4 + ["get"]
        assert cluster.gets_many(KEYS[:1])[KEYS[0]][0] == b"v"
        assert len(Overriding.calls) == 9


@pytest.mark.parametrize("ignore", [False, True])
def test_nodes_fail_and_come_back_under_a_tracer(
    nodes: Addresses, seen: list[tuple[str, Any]], ignore: bool
) -> None:
    with (
        EmbeddedServer() as server,
        HashClient(
            [*nodes, server.address], timeout=PATIENCE, ignore_exc=ignore, retry_timeout=0.05
        ) as cluster,
    ):
        mine = key_of(cluster, server.address)
        keys = [mine, *KEYS]
        cluster.set_many(dict.fromkeys(keys, "v"), noreply=False)
        others = {key: value for key, value in cluster.get_many(keys).items() if key != mine}
        others = {k: v for k, v in others.items() if cluster._get_client(k)[0].server in nodes}
        server.stop()
        cluster.close()
        if ignore:
            assert cluster.get_many(keys) == others
        else:
            with pytest.raises(OSError):  # noqa: PT011 - any of them
                cluster.get_many(keys)
        node = cluster._nodes[name_of(server.address)][1]
        assert node.state == "failing"
        if not ignore:
            with pytest.raises(MemcacheNodeDownError):
                cluster.get(mine)
        server.start()
        while node.state != "up":
            try:
                cluster.get_many([mine])
            except MemcacheNodeDownError:
                pass
        assert cluster.set_many({mine: "again"}, noreply=False) == []
        assert cluster.get_many(keys) == {**others, mine: b"again"}
