"""Nodes of a cluster that fail, die and come back: what their callers get, and that others notice
nothing.  Time, as far as the health of nodes goes, is a clock that the tests hold.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from clusters import Clock, in_threads, key_of, keys_of, name_of, raise_first
from cymemcache import (
    Client,
    HashClient,
    MemcacheError,
    MemcacheIllegalInputError,
    MemcacheNodeDownError,
    MemcacheUnexpectedCloseError,
)
from cymemcache.hashing import RendezvousHash
from cymemcache.testing import Answer, Close, EmbeddedServer, Hang, Refuse
from wire import PATIENCE

SHORT = 0.2  # seconds: a timeout that is meant to expire

Servers = list[EmbeddedServer]
Connect = Callable[..., HashClient]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def servers() -> Iterator[Servers]:
    with ExitStack() as stack:
        made = [EmbeddedServer(recording=True, version="1.6.18") for _ in range(3)]
        yield [stack.enter_context(server) for server in made]


@pytest.fixture
def connect(connect_all: Callable[..., Any], servers: Servers, clock: Clock) -> Connect:
    def make(**options: Any) -> HashClient:
        cluster: HashClient = connect_all([server.address for server in servers], **options)
        return cluster

    return make


def asked(server: EmbeddedServer) -> int:
    return len(server.requests)


def state(cluster: HashClient, server: EmbeddedServer) -> str:
    return cluster._nodes[name_of(server.address)][1].state


def kill(cluster: HashClient, server: EmbeddedServer, clock: Clock) -> None:
    """Stop `server`, and let `cluster` try it until it is dead."""
    key = key_of(cluster, server.address)
    server.stop()
    cluster.close()
    for _ in range(cluster.retry_attempts):
        with pytest.raises(ConnectionRefusedError):
            cluster.delete(key, noreply=False)
        clock.advance(cluster.retry_timeout)
    # The last try finds it dead, and its key with another node.
    assert cluster.delete(key, noreply=False) is False
    assert state(cluster, server) == "dead"


# -- the table -------------------------------------------------------------------------------------

PAGE = (Path(__file__).parents[2] / "docs" / "cluster.md").read_text("utf-8")
STATES = ("fails", "failing", "dead", "back")


def rows() -> Iterator[Any]:
    """Each cell of the tables in the documentation: ``ignore_exc, command, state, outcome``."""
    tables = re.findall(r"^\| command .*?\n\n", PAGE, re.DOTALL | re.MULTILINE)
    assert len(tables) == 2
    for ignore, table in zip((False, True), tables, strict=True):
        for line in table.splitlines()[2:]:
            command, *outcomes = (cell.strip() for cell in line.strip("| ").split(" |"))
            for name, outcome in zip(STATES, outcomes, strict=False):
                if outcome:
                    label = f"{command.strip('`')}-{name}-{'ignored' if ignore else 'raised'}"
                    yield pytest.param(ignore, command.strip("`"), name, outcome, id=label)


def test_the_table_has_every_command() -> None:
    for table in re.findall(r"^\| command .*?\n\n", PAGE, re.DOTALL | re.MULTILINE):
        commands = {name for name in vars(HashClient) if not name.startswith("_")}
        ours = ("add_server", "remove_server", "shutdown", "disconnect_all")
        callables = {name for name in commands if callable(getattr(HashClient, name))}
        missing = {
            name
            for name in callables - {*ours, "client_class"}
            if not name.endswith("_multi") and f"{name}(" not in table
        }
        assert missing == set()


@pytest.mark.parametrize(("ignore", "command", "when", "outcome"), list(rows()))
def test_what_the_table_says(
    servers: Servers, clock: Clock, ignore: bool, command: str, when: str, outcome: str
) -> None:
    with HashClient(
        [server.address for server in servers[:2]],
        ignore_exc=ignore,
        timeout=PATIENCE,
        default_noreply=False,
    ) as cluster:
        ill, well = servers[:2]
        key, other = key_of(cluster, ill.address), key_of(cluster, well.address)
        cluster.set_many({key: "5", other: "6"})
        refused = ill.inject(Refuse())
        cluster.close()
        tries = {"fails": 0, "failing": 1, "dead": 3, "back": 3}[when]
        for _ in range(tries):
            if when != "failing":
                clock.advance(cluster.retry_timeout)
            try:
                cluster.delete(key)
            except OSError:
                assert not ignore
        node = cluster._member(name_of(ill.address))[1]
        assert node.state == {"fails": "up", "failing": "failing"}.get(when, "dead")
        if when == "back":
            refused.remove()
            clock.advance(cluster.dead_timeout)
        names = {"key": key, "other": other, "node": node.name, "client": cluster}
        names |= {name: getattr(cluster, name) for name in dir(cluster) if name[0] != "_"}
        if outcome[0] == "`":
            assert eval(command, names) == eval(outcome.strip("`"), names)
        else:
            with pytest.raises(Exception) as raised:  # noqa: PT011 - its name is compared
                eval(command, names)
            assert type(raised.value).__name__ == outcome
        refused.remove()


# -- failing ---------------------------------------------------------------------------------------


def test_callers_of_other_nodes_notice_nothing(connect: Connect, servers: Servers) -> None:
    cluster = connect(timeout=SHORT)
    others = [key for server in servers[1:] for key in keys_of(cluster, server.address, 10)]
    cluster.set_many(dict.fromkeys(others, "v"), noreply=False)
    mine = key_of(cluster, servers[0].address)
    servers[0].stop()

    def use(thread: int) -> None:
        for key in others:
            assert cluster.get(key) == b"v"
            assert cluster.set(key, "v", noreply=False) is True
        assert cluster.get_many(others) == dict.fromkeys(others, b"v")
        with pytest.raises(OSError):  # noqa: PT011 - any of them
            cluster.get(mine)

    raise_first(in_threads(8, use))


def test_a_failing_node_is_not_asked_until_retry_timeout(
    connect: Connect, servers: Servers, clock: Clock
) -> None:
    cluster = connect()
    key = key_of(cluster, servers[0].address)
    servers[0].inject(Close(), verb="delete")
    with pytest.raises(MemcacheUnexpectedCloseError):
        cluster.delete(key, noreply=False)
    before = asked(servers[0])
    for _ in range(10):
        with pytest.raises(MemcacheNodeDownError, match=r"failing.*Close"):
            cluster.get(key)
        with pytest.raises(MemcacheNodeDownError):
            cluster.get_many([key])
    assert asked(servers[0]) == before
    clock.advance(cluster.retry_timeout)
    assert cluster.get(key) is None
    assert state(cluster, servers[0]) == "up"


def test_one_caller_tries_while_the_others_are_refused_at_once(
    connect: Connect, servers: Servers, clock: Clock
) -> None:
    cluster = connect(timeout=5 * SHORT)
    key = key_of(cluster, servers[0].address)
    servers[0].inject(Close(), verb="delete")
    with pytest.raises(MemcacheUnexpectedCloseError):
        cluster.delete(key, noreply=False)
    clock.advance(cluster.retry_timeout)
    servers[0].inject(Hang(), times=None)
    began = time.monotonic()
    ends: list[float] = []

    def use(_: int) -> None:
        try:
            cluster.get(key)
        finally:
            ends.append(time.monotonic() - began)

    outcomes = in_threads(16, use)
    kinds = [type(outcome) for outcome in outcomes]
    assert kinds.count(TimeoutError) == 1
    assert kinds.count(MemcacheNodeDownError) == 15
    assert sorted(ends)[14] < 5 * SHORT, "nobody waited for the one"


@pytest.mark.parametrize("how", ["get", "get_many"])
def test_a_bad_key_uses_up_no_try(
    connect: Connect, servers: Servers, clock: Clock, how: str
) -> None:
    cluster = connect()
    names = (f"bad key {number}" for number in range(1000))
    mine = name_of(servers[0].address)
    bad = next(name for name in names if cluster.hasher.get_node(name) == mine)
    key = key_of(cluster, servers[0].address)
    servers[0].inject(Close(), verb="delete")
    with pytest.raises(MemcacheUnexpectedCloseError):
        cluster.delete(key, noreply=False)
    clock.advance(cluster.retry_timeout)
    for _ in range(3):
        with pytest.raises(MemcacheIllegalInputError):
            cluster.get(bad) if how == "get" else cluster.get_many([key, bad])
    assert cluster.get(key) is None, "the try is still there"


def test_an_error_that_the_server_answers_is_no_failure(connect: Connect, servers: Servers) -> None:
    cluster = connect()
    key = key_of(cluster, servers[0].address)
    cluster.set(key, "v", noreply=False)
    for reply in (b"SERVER_ERROR out of memory\r\n", b"ERROR\r\n", b"garbage\r\n"):
        servers[0].inject(Answer(reply), times=2)
        with pytest.raises(MemcacheError):
            cluster.get(key)
        with pytest.raises(MemcacheError):
            cluster.get_many([key])
        assert cluster.get(key) == b"v"
        assert state(cluster, servers[0]) == "up"


def test_the_serdes_errors_say_nothing_about_a_node(
    connect_all: Callable[..., Any], servers: Servers, clock: Clock
) -> None:
    class Serde:
        def serialize(self, key: Any, value: Any) -> tuple[bytes, int]:
            return value, 1

        def deserialize(self, key: Any, value: bytes, flags: int) -> Any:
            raise ConnectionResetError("of something else")

    cluster = connect_all([server.address for server in servers], serde=Serde())
    key = key_of(cluster, servers[0].address)
    cluster.set(key, b"v", noreply=False)
    for _ in range(3):
        with pytest.raises(ConnectionResetError):
            cluster.get(key)
        with pytest.raises(ConnectionResetError):
            cluster.get_many([key])
    assert state(cluster, servers[0]) == "up"


# -- dead ------------------------------------------------------------------------------------------


def test_a_dead_nodes_keys_move_and_only_they(
    connect: Connect, servers: Servers, clock: Clock
) -> None:
    cluster = connect()
    mine = keys_of(cluster, servers[0].address, 20)
    others = [key for server in servers[1:] for key in keys_of(cluster, server.address, 10)]
    places = {key: cluster.hasher.get_node(key) for key in others}
    cluster.set_many(dict.fromkeys(others, "v"), noreply=False)
    kill(cluster, servers[0], clock)
    assert cluster.get_many(mine + others) == dict.fromkeys(others, b"v")
    assert cluster.set_many(dict.fromkeys(mine, "moved"), noreply=False) == []
    assert [cluster.get(key) for key in mine] == [b"moved"] * 20
    assert {key: cluster.hasher.get_node(key) for key in others} == places
    used = {cluster.hasher.get_node(key) for key in mine}
    assert used == {name_of(server.address) for server in servers[1:]}


def test_one_caller_probes_and_goes_elsewhere_where_nobody_listens(
    connect: Connect, servers: Servers, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = connect()
    key, *more = keys_of(cluster, servers[0].address, 5)
    kill(cluster, servers[0], clock)
    probes = 0
    client = cluster.clients[name_of(servers[0].address)]
    dial = client._pool._dial

    def counted() -> Any:
        nonlocal probes
        probes += 1
        return dial()

    client._pool._dial = counted
    cluster.set(key, "moved", noreply=False)
    for _ in range(3):
        clock.advance(cluster.dead_timeout)
        before = probes
        assert [cluster.get(key) for _ in range(5)] == [b"moved"] * 5
        assert cluster.get_many([key, *more]) == {key: b"moved"}
        assert probes == before + 1
    clock.advance(cluster.dead_timeout)
    assert cluster.get_many([key, *more]) == {key: b"moved"}
    assert cluster.set_many({key: "again"}, noreply=False) == []
    assert cluster[key] == b"again"
    clock.advance(cluster.dead_timeout)
    assert cluster[key] == b"again"
    clock.advance(cluster.dead_timeout)
    assert cluster.delete(key, noreply=False) is True


@pytest.mark.parametrize("how", ["get", "set", "get_many", "set_many", "[]", "version", "add"])
def test_a_node_that_is_back_has_its_keys_again(
    connect: Connect, servers: Servers, clock: Clock, how: str
) -> None:
    cluster = connect()
    key = key_of(cluster, servers[0].address)
    kill(cluster, servers[0], clock)
    servers[0].start()
    assert cluster.get(key) is None
    assert asked(servers[0]) == 0 if how != "version" else True, "others go on without it"
    clock.advance(cluster.dead_timeout)
    commands: dict[str, Callable[[], Any]] = {
        "get": lambda: cluster.get(key),
        "set": lambda: cluster.set(key, "v", noreply=True),
        "get_many": lambda: cluster.get_many([key]),
        "set_many": lambda: cluster.set_many({key: "v"}),
        "[]": lambda: cluster.__setitem__(key, "v"),
        "version": cluster.version,
        "add": lambda: cluster.add_server(servers[0].address),
    }
    commands[how]()
    assert state(cluster, servers[0]) == "up"
    cluster.set(key, "v", noreply=False)
    with Client(servers[0].address, timeout=PATIENCE) as client:
        assert client.get(key) == b"v"


def test_while_one_probes_the_others_go_on_without_it(
    connect: Connect, servers: Servers, clock: Clock
) -> None:
    cluster = connect(timeout=10 * SHORT)
    key = key_of(cluster, servers[0].address)
    kill(cluster, servers[0], clock)
    cluster.set(key, "moved", noreply=False)
    servers[0].start()
    servers[0].inject(Hang(), times=None)
    clock.advance(cluster.dead_timeout)
    began = time.monotonic()
    ends: list[float] = []

    def use(thread: int) -> Any:
        try:
            return cluster.get_many([key]) if thread % 2 else {key: cluster.get(key)}
        finally:
            ends.append(time.monotonic() - began)

    outcomes = in_threads(16, use)
    assert [type(outcome) for outcome in outcomes].count(TimeoutError) == 1
    assert outcomes.count({key: b"moved"}) == 15
    assert sorted(ends)[14] < 10 * SHORT


@pytest.mark.parametrize("ignore", [False, True])
@pytest.mark.parametrize("buried", [60, 0])
def test_all_nodes_down(
    connect: Connect, servers: Servers, clock: Clock, ignore: bool, buried: int
) -> None:
    cluster = connect(ignore_exc=ignore, retry_attempts=1, dead_timeout=buried)
    keys = [key_of(cluster, server.address) for server in servers]
    for server in servers:
        server.stop()

    def outcome(command: Callable[[], Any]) -> Any:
        try:
            return command()
        except OSError:
            assert not ignore
            return "raised"

    right = ["raised"] * 7 if not ignore else [None, False, {}, keys, False, False, (None, None)]
    for _ in range(8):
        found = [
            outcome(lambda: cluster.get(keys[0])),
            outcome(lambda: cluster.set(keys[0], "v")),
            outcome(lambda: cluster.get_many(keys)),
            outcome(lambda: sorted(cluster.set_many(dict.fromkeys(keys, 1)), key=keys.index)),
            outcome(lambda: cluster.delete_many(keys)),
            outcome(lambda: cluster.incr(keys[1], 1)),
            outcome(lambda: cluster.gets(keys[2])),
        ]
        assert found == right
        clock.advance(1)
    for server in servers:
        assert state(cluster, server) == "dead"
        server.start()
    clock.advance(60)
    assert cluster.set_many(dict.fromkeys(keys, "v"), noreply=False) == []
    assert cluster.get_many(keys) == dict.fromkeys(keys, b"v")


def test_no_call_takes_longer_than_its_timeouts_however_many_nodes_are_lost(
    connect_all: Callable[..., Any],
) -> None:
    timeout = 1.5
    with ExitStack() as stack:
        servers = [stack.enter_context(EmbeddedServer()) for _ in range(5)]
        cluster = connect_all(
            [server.address for server in servers],
            retry_attempts=0,
            timeout=timeout,
            connect_timeout=timeout,
        )
        names = [name_of(server.address) for server in servers]
        for server in servers[:3]:
            stack.enter_context(server.inject(Hang()))
        for server in servers[3:]:
            server.stop()

        def key_with_nodes(*wanted: int) -> str:
            """A key of the first of them, when that is dead of the second, and so on."""
            hasher = RendezvousHash(list(names))
            keys = [f"key-{number}" for number in range(2000)]
            for place in wanted:
                keys = [key for key in keys if hasher.get_node(key) == names[place]]
                hasher.remove_node(names[place])
            return keys[0]

        # Where no round looked at the time, each of these would wait in a round of its own.
        keys = [key_with_nodes(0), key_with_nodes(3, 1), key_with_nodes(3, 4, 2)]
        began = time.monotonic()
        with pytest.raises((TimeoutError, ConnectionRefusedError)):
            cluster.get_many(keys)
        assert time.monotonic() - began < 2 * timeout


@pytest.mark.parametrize("close", [0.1, 0.9])
def test_a_fetch_begins_anew_only_where_there_is_time_for_it(close: float) -> None:
    """`close`: the part of the timeout after which the server closes the connection."""
    timeout = 2.0
    with EmbeddedServer(recording=True) as server, Client(server.address, timeout=timeout) as one:
        one.set("key", "value", noreply=False)
        before = len(server.requests)
        with server.inject(Hang(), times=1):
            timer = threading.Timer(close * timeout, server.close_connections)
            timer.start()
            if close < 1 / 8:
                assert one.get("key") == b"value"
            else:
                with pytest.raises(MemcacheUnexpectedCloseError):
                    one.get("key")
            timer.join()
        assert len(server.requests) - before == (2 if close < 1 / 8 else 1)


def test_without_retry_attempts_a_node_dies_at_its_first_failure(
    connect: Connect, servers: Servers
) -> None:
    cluster = connect(retry_attempts=0)
    key = key_of(cluster, servers[0].address)
    servers[0].stop()
    with pytest.raises(ConnectionRefusedError):
        cluster.set(key, "v", noreply=False)
    assert cluster.set(key, "v", noreply=False) is True


def test_a_hanging_node_holds_its_callers_for_the_timeout_only(
    connect: Connect, servers: Servers, clock: Clock
) -> None:
    cluster = connect(timeout=SHORT, retry_attempts=1)
    mine, other = (key_of(cluster, server.address) for server in servers[:2])
    cluster.set(other, "v", noreply=False)
    servers[0].inject(Hang(), times=None)
    for _ in range(2):
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            cluster.get_many([mine, other])
        assert time.monotonic() - began < 10 * SHORT
        clock.advance(cluster.retry_timeout)
    assert state(cluster, servers[0]) == "dead"
    assert cluster.get_many([mine, other]) == {other: b"v"}


# -- changes from outside --------------------------------------------------------------------------


def test_a_dead_node_can_be_removed_and_stays_away(
    connect: Connect, servers: Servers, clock: Clock
) -> None:
    cluster = connect()
    keys = keys_of(cluster, servers[0].address, 10)
    kill(cluster, servers[0], clock)
    cluster.remove_server(servers[0].address)
    servers[0].start()
    for _ in range(3):
        clock.advance(cluster.dead_timeout)
        cluster.set_many(dict.fromkeys(keys, "v"), noreply=False)
        assert cluster.get_many(keys) == dict.fromkeys(keys, b"v")
    assert asked(servers[0]) == 0
    assert name_of(servers[0].address) not in cluster.version()
    cluster.add_server(servers[0].address)
    assert cluster.get_many(keys) == {}
    assert asked(servers[0]) == 1


def test_a_healthy_node_can_be_removed(connect: Connect, servers: Servers) -> None:
    """In the reference that raises KeyError."""
    cluster = connect()
    keys = keys_of(cluster, servers[0].address, 10)
    cluster.set_many(dict.fromkeys(keys, "v"), noreply=False)
    assert servers[0].open_connections == 1
    cluster.remove_server(*servers[0].address)
    assert cluster.get_many(keys) == {}
    with pytest.raises(ValueError, match="no node"):
        cluster.remove_server(*servers[0].address)


def test_a_hasher_that_is_replaced_while_a_node_is_dead(
    connect: Connect, servers: Servers, clock: Clock
) -> None:
    cluster = connect()
    keys = keys_of(cluster, servers[0].address, 10)
    kill(cluster, servers[0], clock)
    cluster.get(keys[0])
    cluster.hasher = RendezvousHash(list(cluster.clients))
    assert cluster.set_many(dict.fromkeys(keys, "moved"), noreply=False) == []
    assert [cluster.get(key) for key in keys] == [b"moved"] * 10
    cluster.hasher = RendezvousHash(list(cluster.clients))
    cluster.remove_server(servers[0].address)
    assert [cluster.get(key) for key in keys] == [b"moved"] * 10


def test_a_client_that_is_replaced_while_its_node_is_dead(
    connect: Connect, servers: Servers, clock: Clock
) -> None:
    cluster = connect()
    key = key_of(cluster, servers[0].address)
    kill(cluster, servers[0], clock)
    cluster.get(key)
    servers[0].start()
    cluster.clients[name_of(servers[0].address)] = Client(servers[0].address, timeout=PATIENCE)
    assert cluster.get(key) is None
    assert asked(servers[0]) == 1, "a new client has a new chance"
    servers[0].inject(Close(), verb="delete")
    with pytest.raises(MemcacheUnexpectedCloseError):
        cluster.delete(key, noreply=False)
    with pytest.raises(MemcacheNodeDownError, match="failing"):
        cluster.delete(key, noreply=False)


def test_a_node_taken_out_by_hand_does_not_come_back(
    connect: Connect, servers: Servers, clock: Clock
) -> None:
    cluster = connect()
    key = key_of(cluster, servers[0].address)
    name = name_of(servers[0].address)
    kill(cluster, servers[0], clock)
    assert cluster.get(key) is None
    cluster.clients.pop(name)
    clock.advance(cluster.dead_timeout)
    assert cluster.get(key) is None
    assert name not in cluster.hasher.nodes


def test_a_node_that_dies_after_it_was_taken_out_of_the_hasher(
    connect: Connect, servers: Servers, clock: Clock
) -> None:
    cluster = connect(ignore_exc=True)
    keys = [key_of(cluster, server.address) for server in servers]
    cluster.get_many(keys)
    cluster.hasher.remove_node(name_of(servers[0].address))
    servers[0].stop()
    node = cluster._nodes[name_of(servers[0].address)][1]
    for _ in range(3):
        node.failed(ConnectionResetError("a late one"))
        clock.advance(1)
        node.admits()
    assert node.state == "dead"
    for _ in range(2):
        assert cluster.set_many(dict.fromkeys(keys, "v"), noreply=False) == []
        assert cluster.get(keys[0]) == b"v"
    cluster.remove_server(servers[0].address)
    assert cluster.get(keys[0]) == b"v"


def test_a_client_of_another_kind_fails_and_comes_back(
    connect: Connect, servers: Servers, clock: Clock
) -> None:
    """It is nobody's subclass, so that only what it raises tells how its node is."""

    class Wrapper:
        def __init__(self, client: Client) -> None:
            self.inner = client

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

    cluster = connect()
    name = name_of(servers[0].address)
    key = key_of(cluster, servers[0].address)
    cluster.clients[name] = Wrapper(cluster.clients[name])
    cluster.set(key, "v", noreply=False)
    assert cluster.get_many([key]) == {key: b"v"}
    for how in (lambda: cluster.delete(key, noreply=False), lambda: cluster.get_many([key])):
        servers[0].inject(Close(), times=2)
        with pytest.raises(MemcacheUnexpectedCloseError):
            how()
        servers[0].clear_faults()
        assert state(cluster, servers[0]) == "failing"
        with pytest.raises(MemcacheNodeDownError):
            cluster.get(key)
        clock.advance(cluster.retry_timeout)
        assert cluster.get_many([key]) in ({}, {key: b"v"})
        assert state(cluster, servers[0]) == "up"


def test_get_client_tells_whose_key_it_is_and_uses_up_no_try(
    connect: Connect, servers: Servers, clock: Clock
) -> None:
    cluster = connect()
    key = key_of(cluster, servers[0].address)
    client = cluster.clients[name_of(servers[0].address)]
    assert cluster._get_client(key) == (client, key)
    servers[0].inject(Close(), verb="delete")
    with pytest.raises(MemcacheUnexpectedCloseError):
        cluster.delete(key, noreply=False)
    assert cluster._get_client(key) == (client, key)
    clock.advance(cluster.retry_timeout)
    assert cluster._get_client(key) == (client, key)
    assert cluster.get(key) is None
    kill(cluster, servers[0], clock)
    assert cluster._get_client(key)[0] in cluster.clients.values()
    assert cluster._get_client(key)[0] is not client


# -- what is logged --------------------------------------------------------------------------------


def test_each_change_is_logged_once_with_node_and_cause(
    connect: Connect, servers: Servers, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "cymemcache")
    cluster = connect(ignore_exc=True)
    name = name_of(servers[0].address)
    keys = keys_of(cluster, servers[0].address, 8)
    cluster.get_many(keys)
    servers[0].stop()

    def use(thread: int) -> None:
        for key in keys:
            cluster.get(key)
            cluster.set(key, "v", noreply=False)
            cluster.get_many(keys)

    def records() -> list[tuple[str, str]]:
        found = [(record.levelname, record.getMessage()) for record in caplog.records]
        caplog.clear()
        return found

    raise_first(in_threads(32, use))
    ((level, message),) = records()
    assert level == "WARNING"
    assert re.match(f"node {name} is failing: .*(refused|closed)", message)
    clock.advance(1)
    raise_first(in_threads(32, use))
    assert records() == []
    clock.advance(1)
    raise_first(in_threads(32, use))
    ((level, message),) = records()
    assert level == "WARNING"
    assert re.match(f"node {name} is dead, others have its keys: .*refused", message)
    clock.advance(60)
    raise_first(in_threads(32, use))
    assert records() == []
    servers[0].start()
    clock.advance(60)
    raise_first(in_threads(32, use))
    assert records() == [("INFO", f"node {name} is up again")]
