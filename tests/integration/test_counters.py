"""What a client counts: each number exactly right, whatever way a command goes, in any thread."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from weakref import ref

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cymemcache import (
    Client,
    FallbackClient,
    HashClient,
    MemcacheClientError,
    MemcacheError,
    MemcacheIllegalInputError,
    MemcacheNodeDownError,
    MemcacheServerError,
    PooledClient,
)
from cymemcache.serde import MISS
from cymemcache.testing import Answer, Close, Delay, EmbeddedServer, MemcachedProcess, Refuse
from exchanges import MODULES
from wire import PATIENCE, Server

Connect = Callable[..., Client]


class Choosy:
    """A serde that refuses, by its text, what is stored: as a miss, or with an error."""

    def serialize(self, key: Any, value: Any) -> tuple[bytes, int]:
        return value, 0

    def deserialize(self, key: Any, value: bytes, flags: int) -> Any:
        if value.startswith(b"refused"):
            return MISS
        if value.startswith(b"broken"):
            raise pickle.UnpicklingError("broken")
        return value


@pytest.fixture
def client(connect: Connect, running_memcached: Server) -> Client:
    running_memcached.flush()
    return connect(running_memcached.address, default_noreply=False)


def changes(client: Any, command: Callable[[], Any]) -> dict[str, Any]:
    """What `command` adds to the counters, apart from connections."""
    before = client.counters.as_dict()
    command()
    after = client.counters.as_dict()
    errors = dict(Counter(after.pop("errors")) - Counter(before.pop("errors")))
    found = {name: after[name] - before[name] for name in after if after[name] != before[name]}
    return {**found, "errors": errors} if errors else found


def test_a_new_client_has_counted_nothing(client: Client) -> None:
    assert set(client.counters.as_dict()) == {
        *("commands", "hits", "misses", "errors", "retries", "reconnects", "evicted"),
        *("noreply_errors", "noreply_lost"),
    }
    assert not any(client.counters.as_dict().values())


def test_every_fetch_is_a_hit_or_a_miss(client: Client) -> None:
    client.set("k", b"v")
    hit, miss = {"commands": 1, "hits": 1}, {"commands": 1, "misses": 1}
    fetches: list[Callable[[str], Any]] = [
        *(client.get, client.gets, client.gat, client.gats),
        lambda key: client.get_many([key]),
        lambda key: client.gets_many([key]),
        lambda key: client.get(key, default=b"default"),
    ]
    for fetch in fetches:
        assert changes(client, lambda fetch=fetch: fetch("k")) == hit
        assert changes(client, lambda fetch=fetch: fetch("absent")) == miss
    assert changes(client, lambda: client["k"]) == hit

    def absent() -> None:
        with pytest.raises(KeyError):
            _ = client["absent"]

    assert changes(client, absent) == miss


@pytest.mark.parametrize("value", [b"", b"v", b"value"])
def test_a_value_that_equals_the_default_is_a_hit_and_a_default_like_a_value_a_miss(
    client: Client, value: bytes
) -> None:
    client.set("k", value)
    found = client.get("k")
    assert changes(client, lambda: client.get("k", default=found)) == {"commands": 1, "hits": 1}
    assert changes(client, lambda: client.get("absent", found)) == {"commands": 1, "misses": 1}


@pytest.mark.parametrize("default", [MemcacheServerError("given"), MISS, {}, b""])
def test_a_default_of_any_kind_comes_back_and_counts_as_a_miss(
    client: Client, default: Any
) -> None:
    given: list[Any] = []
    counted = changes(client, lambda: given.append(client.get("absent", default)))
    assert given[0] is default
    assert counted == {"commands": 1, "misses": 1}


def test_keys_of_one_fetch_count_each_as_often_as_they_are_asked_for(client: Client) -> None:
    client.set_many({"a": b"1", "b": b"2"})
    for fetch in (client.get_many, client.gets_many):

        def counted(keys: list[Any], fetch: Any = fetch) -> dict[str, Any]:
            return changes(client, lambda: fetch(keys))

        assert counted(["a", "b"]) == {"commands": 1, "hits": 2}
        assert counted(["a", "a", b"a", "b"]) == {"commands": 1, "hits": 4}
        assert counted(["x", "a", "x", "a"]) == {"commands": 1, "hits": 2, "misses": 2}
        assert counted(["x", "y"]) == {"commands": 1, "misses": 2}
        assert counted([]) == {}


def test_a_value_that_the_serde_refuses_is_a_miss(connect: Connect, server: Server) -> None:
    client = connect(server.address, serde=Choosy(), default_noreply=False)
    client.set_many({"r": b"refused", "v": b"value"})
    miss = {"commands": 1, "misses": 1}
    assert changes(client, lambda: client.get("r")) == miss
    assert changes(client, lambda: client.gets("r")) == miss
    assert changes(client, lambda: client.get("v")) == {"commands": 1, "hits": 1}
    for fetch in (client.get_many, client.gets_many):
        counted = changes(client, lambda fetch=fetch: fetch(["r", "v", "r", "absent"]))
        assert counted == {"commands": 1, "hits": 1, "misses": 3}


def test_a_serde_that_fails_counts_an_error_and_a_miss_only_where_it_is_ignored(
    connect: Connect, server: Server
) -> None:
    client = connect(server.address, serde=Choosy(), default_noreply=False)
    client.set_many({"b": b"broken", "v": b"value"})

    def fails() -> None:
        with pytest.raises(pickle.UnpicklingError):
            client.get_many(["b", "v"])

    assert changes(client, fails) == {"commands": 1, "errors": {"UnpicklingError": 1}}
    client.ignore_exc = True
    assert changes(client, lambda: client.get_many(["b", "v"])) == {
        "commands": 1,
        "hits": 1,
        "misses": 1,
        "errors": {"UnpicklingError": 1},
    }


def test_every_other_command_counts_once_with_noreply_or_without(client: Client) -> None:
    commands: list[Callable[[], Any]] = [
        lambda: client.set("k", b"1"),
        lambda: client.set("k", b"1", noreply=True),
        lambda: client.set_many({"k": b"1", "l": b"2"}),
        lambda: client.set_many({"k": b"1", "l": b"2"}, noreply=True),
        lambda: client.incr("k", 1),
        lambda: client.incr("absent", 1),
        lambda: client.cas("k", b"1", b"1"),
        lambda: client.delete_many(["k", "l"]),
        lambda: client.delete("absent", noreply=True),
        lambda: client.touch("k"),
        client.version,
        client.stats,
        lambda: client.raw_command("version"),
        lambda: client.raw_command("mn", "MN\r\n"),
        client.quit,
    ]
    for command in commands:
        assert changes(client, command)["commands"] == 1


def test_what_is_refused_before_it_is_sent_is_no_command(client: Client) -> None:
    def refused() -> None:
        with pytest.raises(MemcacheIllegalInputError):
            client.get("a b")

    assert changes(client, refused) == {}


def test_errors_are_counted_by_kind(client: Client) -> None:
    client.set("k", b"text")

    def fails() -> None:
        with pytest.raises(MemcacheClientError):
            client.incr("k", 1)

    assert changes(client, fails) == {"commands": 1, "errors": {"MemcacheClientError": 1}}


def test_errors_that_are_ignored_are_counted_all_the_same(connect: Connect) -> None:
    with EmbeddedServer() as server:
        client = connect(server.address, ignore_exc=True, default_noreply=False)
        server.inject(Answer(b"SERVER_ERROR busy\r\n"), times=None)
        for command in (
            lambda: client.get("k"),
            lambda: client.get_many(["k", "l"]),
            lambda: client.stats(),
            lambda: client.set_many({"k": b"1"}),
        ):
            counted = changes(client, command)
            counted.pop("reconnects", None)
            assert counted == {"commands": 1, "errors": {"MemcacheServerError": 1}}


def test_a_timeout_and_a_refused_connection_are_errors(connect: Connect) -> None:
    with EmbeddedServer() as server:
        client = connect(server.address, timeout=0.05, default_noreply=False)
        server.inject(Delay(1.0), verb="get")
        with pytest.raises(TimeoutError):
            client.get("k")
        with server.inject(Refuse()), pytest.raises(ConnectionRefusedError):
            client.get("k")
        assert client.counters.errors == {"TimeoutError": 1, "ConnectionRefusedError": 1}
        assert client.counters.commands == 2
        assert client.counters.misses == 0


def test_a_connection_in_the_place_of_one_that_failed_is_a_reconnect(connect: Connect) -> None:
    with EmbeddedServer() as server:
        client = connect(server.address, default_noreply=False)
        client.set("k", b"v")
        client.close()
        client.get("k")
        assert client.counters.reconnects == 0  # nothing was wrong with the first
        server.inject(Close(when="before"), verb="set")
        with pytest.raises((MemcacheError, OSError)):
            client.set("k", b"v")
        assert client.counters.reconnects == 0
        client.get("k")
        assert client.counters.reconnects == 1
        client.raw_command("mn", "MN\r\n")  # which closes its connection
        client.get("k")
        assert client.counters.reconnects == 1


def test_a_fetch_that_is_sent_once_more_is_a_retry(connect: Connect) -> None:
    with EmbeddedServer() as server:
        client = connect(server.address, default_noreply=False)
        client.set("k", b"v")
        server.close_connections()
        counted = changes(client, lambda: client.get("k"))
        assert counted == {"commands": 1, "hits": 1, "retries": 1, "reconnects": 1}


def test_connections_that_nobody_used_for_long_are_counted(client: Client) -> None:
    pool = client._pool
    pool.give(pool.take())
    client.set("k", b"v", noreply=True)
    most, pool.idle_seconds = pool.idle_seconds, 0.0
    pool._close_unused([])
    pool.idle_seconds = most
    assert client.counters.evicted == 1
    client.get("k")
    client.close()
    assert client.counters.evicted == 1  # close is another thing


def test_a_connection_that_is_too_old_for_a_pool_is_evicted(running_memcached: Server) -> None:
    with PooledClient(
        running_memcached.address, timeout=PATIENCE, pool_idle_timeout=0.01
    ) as client:
        client.get("k")
        time.sleep(0.05)
        client.get("k")
        assert client.counters.evicted == 1


def test_what_became_of_noreply_commands_is_counted(connect: Connect) -> None:
    with EmbeddedServer() as server:
        client = connect(server.address)
        server.inject(Answer(b"SERVER_ERROR out of memory\r\n"), verb="set")
        client.set("k", b"v")
        client.get("k")
        assert client.counters.noreply_errors == client.noreply_errors == 1
        client.set("k", b"v")
        server.inject(Close(when="before"), verb="version")
        with pytest.raises((MemcacheError, OSError)):
            client.get("k")
        assert client.counters.noreply_lost == client.noreply_lost == 1


@pytest.mark.parametrize("make", [Client, PooledClient])
@pytest.mark.parametrize("exchange", sorted(MODULES))
def test_no_count_is_lost_among_threads(
    running_memcached: Server, make: type[Client], exchange: str
) -> None:
    options = {"timeout": PATIENCE, "socket_module": MODULES[exchange]}
    threads, rounds = 8, 60
    with make(running_memcached.address, **options) as client:
        client.set("k", b"v", noreply=False)
        start = client.counters

        def work() -> None:
            for _ in range(rounds):
                client.get("k")
                client.get("absent")
                client.set("l", b"v")
                client.get_many(["k", "absent", "k"])
                try:
                    client.incr("k", 1)
                except MemcacheClientError:
                    pass

        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            workers = [threading.Thread(target=work) for _ in range(threads)]
            for worker in workers:
                worker.start()
            previous = start
            while any(worker.is_alive() for worker in workers):  # readable meanwhile
                now = client.counters
                assert now.commands >= previous.commands
                previous = now
                time.sleep(0.001)
            for worker in workers:
                worker.join()
        finally:
            sys.setswitchinterval(interval)
        total = threads * rounds
        found = client.counters
        assert found.commands - start.commands == 5 * total
        assert found.hits == 3 * total
        assert found.misses == 2 * total
        assert found.errors == {"MemcacheClientError": total}


def test_a_snapshot_cannot_be_changed_and_does_not_change(client: Client) -> None:
    counters = client.counters
    client.get("k")
    assert counters.commands == 0
    assert client.counters.commands == 1
    with pytest.raises(AttributeError):
        counters.commands = 5
    with pytest.raises(AttributeError):
        del counters.commands
    with pytest.raises(TypeError):
        counters.errors["Error"] = 1  # type: ignore[index]
    assert counters == type(counters)({}, {})
    assert counters != client.counters
    assert repr(client.counters).startswith("Counters(commands=1, hits=0, misses=1,")


def in_a_child(action: Callable[[], bool]) -> None:
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if action() else 1)
        except BaseException:
            os._exit(2)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_a_forked_child_starts_at_zero_and_its_parent_goes_on(client: Client) -> None:
    client.set("k", b"v")
    before = client.counters

    def counts() -> bool:
        if any(client.counters.as_dict().values()):
            return False
        client.get("k")
        client.get("absent")
        found = client.counters
        return (found.commands, found.hits, found.misses, found.reconnects) == (2, 1, 1, 0)

    in_a_child(counts)
    in_a_child(lambda: client.get("k") == b"v" and client.counters.commands == 1)
    assert client.counters == before


def test_counting_keeps_no_client_alive(running_memcached: Server) -> None:
    client = Client(running_memcached.address, timeout=PATIENCE)
    client.get("k")
    counters = client.counters
    gone = ref(client)
    gc.disable()
    try:
        del client
        assert gone() is None
    finally:
        gc.enable()
    assert counters.commands == 1


# -- clusters --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[MemcachedProcess]]:
    with MemcachedProcess() as first, MemcachedProcess() as second, MemcachedProcess() as third:
        yield [first, second, third]


@pytest.fixture(params=[*sorted(MODULES), "pooled"])
def cluster(request: pytest.FixtureRequest, nodes: list[MemcachedProcess]) -> Iterator[HashClient]:
    options = {"socket_module": MODULES.get(request.param, socket), "default_noreply": False}
    with HashClient(
        [node.address for node in nodes],
        timeout=PATIENCE,
        use_pooling=request.param == "pooled",
        **options,
    ) as client:
        client.flush_all()
        yield client


KEYS = [f"key-{number}" for number in range(60)]


def test_a_cluster_counts_the_sum_of_its_nodes(cluster: HashClient) -> None:
    start = cluster.counters
    cluster.set_many(dict.fromkeys(KEYS, b"v"))
    cluster.get("key-1")
    cluster.get("absent")
    cluster.get_many([*KEYS, "absent", "key-1"])
    cluster.version()
    found = cluster.counters
    # Each of the commands on several keys, and on all nodes, is one on every node.
    assert found.commands - start.commands == 3 + 1 + 1 + 3 + 3
    assert (found.hits, found.misses) == (1 + 61, 1 + 1)
    assert len(found.nodes) == 3
    assert set(found.nodes) == set(cluster.clients)
    for name in ("commands", "hits", "misses"):
        parts = [getattr(node, name) for node in found.nodes.values()]
        assert sum(parts) == getattr(found, name)
        assert name == "misses" or all(parts)
    for name, client in cluster.clients.items():
        assert client.counters == found.nodes[name]


def test_noreply_parts_and_batches_count_once_a_node(cluster: HashClient) -> None:
    commands: list[Callable[[], Any]] = [
        lambda: cluster.set_many(dict.fromkeys(KEYS, b"v"), noreply=True),
        lambda: cluster.delete_many(KEYS),
        lambda: cluster.delete_many(KEYS, noreply=True),
        lambda: cluster.gets_many(KEYS),
        lambda: cluster.flush_all(),
        lambda: cluster.raw_command("version"),
    ]
    for command in commands:
        assert changes(cluster, command)["commands"] == 3


def test_a_node_that_is_down_is_counted_as_an_error_of_its_own(nodes: Any) -> None:
    with (
        EmbeddedServer() as there,
        EmbeddedServer() as gone,
        HashClient([there.address, gone.address], timeout=PATIENCE, retry_timeout=1000) as cluster,
    ):
        name = f"{gone.address[0]}:{gone.address[1]}"
        key = next(key for key in KEYS if cluster.hasher.get_node(key) == name)
        with gone.inject(Refuse()):
            with pytest.raises(ConnectionRefusedError):
                cluster.get(key)
            with pytest.raises(MemcacheNodeDownError):
                cluster.get(key)
            with pytest.raises(MemcacheNodeDownError):
                cluster.get_many(KEYS)
            cluster.ignore_exc = True
            cluster.get(key)
        errors = {"ConnectionRefusedError": 1, "MemcacheNodeDownError": 3}
        assert cluster.counters.errors == errors
        assert cluster.counters.nodes[name].errors == errors
        assert cluster.counters.nodes[name].commands == 1  # what is not sent is no command


def test_the_counts_of_a_removed_node_stay_and_go_on_when_it_is_added_again(
    cluster: HashClient,
) -> None:
    cluster.get_many(KEYS)
    before = cluster.counters
    name = next(iter(cluster.clients))
    host, _, port = name.rpartition(":")
    cluster.remove_server((host, int(port)))
    assert cluster.counters.commands == before.commands
    assert cluster.counters.misses == before.misses
    assert cluster.counters.nodes[name] == before.nodes[name]
    gc.collect()  # the client that has counted is gone
    cluster.add_server((host, int(port)))
    assert cluster.counters.nodes[name] == before.nodes[name]
    cluster.get_many(KEYS)
    assert cluster.counters.nodes[name].commands == before.nodes[name].commands + 1
    assert cluster.counters.misses == before.misses + len(KEYS)


@pytest.mark.parametrize("noreply", [False, True])
@pytest.mark.parametrize("pooling", [None, False, True])
def test_what_a_serde_raises_while_it_stores_is_an_error_and_no_command(
    pooling: bool | None, noreply: bool
) -> None:
    class Refusing(Choosy):
        def serialize(self, key: Any, value: Any) -> tuple[bytes, int]:
            raise LookupError(key)

    client: Any
    if pooling is None:
        client = Client("localhost", serde=Refusing())
    else:
        client = HashClient(["localhost"], serde=Refusing(), use_pooling=pooling)
    for store in (
        lambda: client.set("key", "value", noreply=noreply),
        lambda: client.cas("key", "value", 1, noreply=noreply),
        lambda: client.append("key", "value", noreply=noreply),
        lambda: client.set_many({"key": "value"}, noreply=noreply),
    ):
        with pytest.raises(LookupError):
            store()
    assert client.counters.errors == {"LookupError": 4}
    assert client.counters.commands == 0


def test_a_client_of_several_caches_counts_what_they_count() -> None:
    with (
        EmbeddedServer() as server,
        Client(server.address, key_prefix="new", default_noreply=False) as first,
        Client(server.address, key_prefix="old", default_noreply=False) as second,
    ):
        second.set("key", "value")
        caches = FallbackClient([first, second])
        assert caches.get("key") == b"value"
        assert (caches.counters.hits, caches.counters.misses, caches.counters.commands) == (1, 1, 3)


def test_nodes_may_come_and_go_without_end() -> None:
    with EmbeddedServer() as server, HashClient([], default_noreply=False) as cluster:
        former = []
        for _ in range(50):
            cluster.add_server(server.address)
            cluster.set("key", "value")
            cluster.get_many(["key", "absent"])
            with server.inject(Close(when="before"), verb="touch"), pytest.raises(MemcacheError):
                cluster.touch("key")
            former.append(ref(next(iter(cluster.clients.values()))))
            cluster.remove_server(server.address)
        counters = cluster.counters
        assert (counters.commands, counters.hits, counters.misses) == (150, 50, 50)
        (of_the_node,) = counters.nodes.values()
        assert of_the_node.as_dict() == counters.as_dict()
        assert counters.errors == {"MemcacheUnexpectedCloseError": 50}
        gc.collect()
        assert [client() for client in former] == [None] * 50
        assert len(cluster._former) == 1


def test_an_interrupted_command_of_a_cluster_is_an_error(nodes: Any) -> None:
    class Interrupted(BaseException):
        pass

    def interrupt(*_: object) -> None:
        raise Interrupted

    with (
        EmbeddedServer() as server,
        EmbeddedServer() as other,
        HashClient([server.address, other.address], timeout=PATIENCE) as cluster,
    ):
        held = server.inject(Delay(2.0), verb="get", times=None)
        before = signal.signal(signal.SIGALRM, interrupt)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with held, pytest.raises(Interrupted):
                cluster.get_many(KEYS)
        finally:
            signal.signal(signal.SIGALRM, before)
        assert cluster.counters.commands == 2
        assert cluster.counters.errors == {"Interrupted": 2}


# -- the same on all ways --------------------------------------------------------------------------

NAMES = ["a", "b", "c", "d"]
VALUES = [b"", b"v", b"7", b"refused", b"broken"]
names = st.sampled_from(NAMES)
asked = st.lists(st.sampled_from([*NAMES, b"a", "absent"]), max_size=6)
COMMANDS = st.one_of(
    st.tuples(st.sampled_from(["get", "gets", "gat", "gats"]), names),
    st.tuples(st.just("get"), names, st.sampled_from([*VALUES, None, MISS])),
    st.tuples(st.sampled_from(["get_many", "gets_many"]), asked),
    st.tuples(st.sampled_from(["set", "add", "append"]), names, st.sampled_from(VALUES)),
    st.tuples(st.just("set_many"), st.dictionaries(names, st.sampled_from(VALUES))),
    st.tuples(st.just("incr"), names, st.just(1)),
    st.tuples(st.sampled_from(["delete", "touch"]), names),
    st.tuples(st.just("delete_many"), asked),
    st.tuples(st.sampled_from(["version", "stats"])),
)


def outcome(client: Any, command: tuple[Any, ...]) -> Any:
    name, *arguments = command
    try:
        return getattr(client, name)(*arguments)
    except (MemcacheError, pickle.UnpicklingError) as error:
        return error


@settings(max_examples=60, deadline=None, suppress_health_check=[*HealthCheck])
@given(commands=st.lists(COMMANDS, max_size=25), ignore_exc=st.booleans())
def test_what_is_counted_follows_from_the_results_on_every_way(
    running_memcached: Server, commands: list[Any], ignore_exc: bool
) -> None:
    counted = []
    for make, module in [(Client, "plain"), (Client, "any"), (PooledClient, "plain")]:
        running_memcached.flush()
        options = {"timeout": PATIENCE, "default_noreply": False, "serde": Choosy()}
        with make(
            running_memcached.address,
            socket_module=MODULES[module],
            ignore_exc=ignore_exc,
            **options,
        ) as client:
            expected = Counter({"commands": 0, "hits": 0, "misses": 0})
            errors: Counter[str] = Counter()
            for command in commands:
                name, *arguments = command
                before = client.counters
                result = outcome(client, command)
                if name.endswith("_many") and not arguments[0]:
                    continue
                expected["commands"] += 1
                if isinstance(result, Exception):
                    errors[type(result).__name__] += 1
                elif name in ("get_many", "gets_many"):
                    hits = sum(key in result for key in arguments[0])
                    expected["hits"] += hits
                    expected["misses"] += len(arguments[0]) - hits
                elif name.startswith("g"):
                    # What is told apart from a default only by asking for another one.
                    hit = client.counters.hits - before.hits
                    default = object()
                    value = outcome(client, ("get", arguments[0], default))
                    assert hit == (value is not default)
                    expected["hits"] += 2 * hit
                    expected["misses"] += 2 * (not hit)
                    expected["commands"] += 1
            found = client.counters
            assert {name: getattr(found, name) for name in expected} == expected
            if not ignore_exc:
                assert found.errors == errors
            counted.append((found.commands, found.hits, found.misses, dict(found.errors)))
    assert counted[0] == counted[1] == counted[2]
