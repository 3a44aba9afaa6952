"""A command on many keys is one round trip to all nodes at once, and a node that does not answer
delays no other node's part of it: not on an idle connection, not while it is dialled, not with a
full send buffer, not over TLS, not while its connections are all in use.

Where a node is stuck, the tests look at the others while the call is under way, and only then let
it go on: nothing here is a matter of speed.
"""

from __future__ import annotations

import os
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from certificates import Authority
from clusters import key_of, keys_of, name_of
from cymemcache import Client, HashClient
from cymemcache.testing import Delay, EmbeddedServer, MemcachedProcess
from wire import PATIENCE, wait_until

NODES = 8


class Peer:
    """A server that is one function, called with each connection in a thread of its own."""

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = self._listener.getsockname()
        self._serve = serve
        self._thread = threading.Thread(target=self._accept)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with sock:
                sock.settimeout(PATIENCE)
                self._serve(sock)

    def __enter__(self) -> Peer:
        self._thread.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(PATIENCE)


def read_until(sock: socket.socket, condition: Callable[[bytes], Any]) -> bytes:
    received = b""
    while not condition(received):
        data = sock.recv(1 << 16)
        if not data:
            break
        received += data
    return received


REPLIES = {
    "get_many": b"END\r\n",
    "gets_many": b"END\r\n",
    "set_many": b"STORED\r\n" * 2,
    "delete_many": b"DELETED\r\n" * 2,
    "version": b"VERSION 1\r\n",
    "stats": b"END\r\n",
    "flush_all": b"OK\r\n",
}


def run(cluster: HashClient, command: str, keys: list[str]) -> Any:
    if command == "set_many":
        return cluster.set_many(dict.fromkeys(keys, "v"), noreply=False)
    if command == "delete_many":
        return cluster.delete_many(keys, noreply=False)
    if command == "flush_all":
        return cluster.flush_all(noreply=False)
    return getattr(cluster, command)(*([keys] if command.endswith("many") else []))


@pytest.mark.parametrize("command", REPLIES)
def test_all_is_sent_before_the_first_reply_is_read(
    connect_all: Callable[..., Any], command: str
) -> None:
    """No peer answers before every peer has its request, on new connections nor on idle ones."""
    all_asked = threading.Barrier(NODES)
    ending = b"v\r\n" if command == "set_many" else b"\r\n"

    def serve(sock: socket.socket) -> None:
        while True:
            lines = 2 if command == "delete_many" else 1
            values = 2 if command == "set_many" else 0

            def complete(text: bytes, lines: int = lines, values: int = values) -> bool:
                return text.endswith(ending) and text.count(b"\r\n") >= max(lines, 2 * values)

            if not read_until(sock, complete):
                return
            all_asked.wait(PATIENCE)
            sock.sendall(REPLIES[command])

    with ExitStack() as stack:
        peers = [stack.enter_context(Peer(serve)) for _ in range(NODES)]
        cluster = connect_all([peer.address for peer in peers])
        keys = [key for peer in peers for key in keys_of(cluster, peer.address, 2)]
        for _ in range(2):
            run(cluster, command, keys)
        cluster.close()


@pytest.fixture
def servers() -> Iterator[list[EmbeddedServer]]:
    with ExitStack() as stack:
        yield [stack.enter_context(EmbeddedServer(recording=True)) for _ in range(NODES)]


@pytest.mark.parametrize("command", ["get_many", "gets_many"])
def test_a_fetch_is_one_request_per_node(
    connect_all: Callable[..., Any], servers: list[EmbeddedServer], command: str
) -> None:
    cluster = connect_all([server.address for server in servers])
    keys = [key for server in servers for key in keys_of(cluster, server.address, 20)]
    cluster.set_many(dict.fromkeys(keys, "v"), noreply=False)
    for server in servers:
        server.clear()
    getattr(cluster, command)(keys)
    assert [len(server.requests) for server in servers] == [1] * NODES
    assert sum(len(server.requests[0][1].split()) - 1 for server in servers) == len(keys)
    some = keys_of(cluster, servers[3].address, 5)
    getattr(cluster, command)(some)
    assert [len(server.requests) for server in servers] == [1, 1, 1, 2, 1, 1, 1, 1]


@pytest.mark.parametrize("command", REPLIES)
def test_the_time_is_that_of_the_slowest_node(
    connect_all: Callable[..., Any], servers: list[EmbeddedServer], command: str
) -> None:
    cluster = connect_all([server.address for server in servers])
    keys = [key_of(cluster, server.address) for server in servers]
    cluster.get_many(keys)
    delay = 0.25
    for server in servers:
        server.inject(Delay(delay))
    began = time.monotonic()
    run(cluster, command, keys)
    assert delay <= time.monotonic() - began < NODES * delay / 2


def test_a_fetch_beyond_max_request_size_is_several_lines_and_one_round_trip(
    connect_all: Callable[..., Any],
) -> None:
    keys = [f"{number:020}" for number in range(200)]
    lines: list[int] = []

    def serve(sock: socket.socket) -> None:
        text = read_until(sock, lambda text: sum(key.encode() in text for key in keys) == 200)
        lines.append(text.count(b"\r\n"))
        sock.sendall(b"END\r\n" * text.count(b"\r\n"))

    with Peer(serve) as peer:
        cluster = connect_all([peer.address], max_request_size=1000)
        assert cluster.get_many(keys) == {}
        assert lines[0] >= 4
        cluster.close()


def test_requests_are_cut_for_each_node(
    connect_all: Callable[..., Any], servers: list[EmbeddedServer]
) -> None:
    cluster = connect_all([server.address for server in servers], max_request_size=500)
    keys = [key for server in servers for key in keys_of(cluster, server.address, 100)]
    values = {key: key.encode() for key in keys}
    assert cluster.set_many(values, noreply=False) == []
    assert cluster.get_many(keys) == values
    for server in servers:
        fetches = [line for _, line in server.requests if line.startswith(b"get ")]
        assert len(fetches) > 1
        assert all(len(line) <= 500 for line in fetches)


# -- a node that does not answer -------------------------------------------------------------------


@contextmanager
def stopped(process: MemcachedProcess) -> Iterator[Callable[[], None]]:
    """`process` neither reads nor accepts, until the function is called or the block left."""
    os.kill(process.pid, signal.SIGSTOP)
    # A thread of it that runs on another processor may go on for a moment.
    threads = list(Path(f"/proc/{process.pid}/task").iterdir())
    wait_until(lambda: all("\nState:\tT" in (thread / "status").read_text() for thread in threads))

    def go_on() -> None:
        os.kill(process.pid, signal.SIGCONT)

    try:
        yield go_on
    finally:
        go_on()


@contextmanager
def under_way(function: Callable[[], Any]) -> Iterator[list[Any]]:
    """`function` runs in a thread; its outcome is in the list after the block."""
    outcome: list[Any] = []

    def work() -> None:
        try:
            outcome.append(function())
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield outcome
    finally:
        thread.join(3 * PATIENCE)
        assert not thread.is_alive()


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "pooled": {"use_pooling": True, "max_pool_size": 2},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("connected", [False, True], ids=["dialled", "idle"])
def test_a_stopped_node_delays_no_other_nodes_keys(
    memcached_factory: Callable[..., MemcachedProcess],
    nodes: list[tuple[str, int]],
    connected: bool,
    options: dict[str, Any],
) -> None:
    stuck = memcached_factory()
    with HashClient([*nodes, stuck.address], timeout=PATIENCE, **options) as cluster:
        mine = keys_of(cluster, stuck.address, 3)
        others = [key for address in nodes for key in keys_of(cluster, address, 3)]
        if connected:
            cluster.set_many(dict.fromkeys(mine + others, "before"), noreply=False)
        looks = [Client(address, timeout=PATIENCE) for address in nodes]

        def all_have(value: bytes) -> bool:
            found = [look.get_many(others) for look in looks]
            return sum(list(part.values()).count(value) for part in found) == len(others)

        with stopped(stuck) as go_on:
            values = dict.fromkeys(mine + others, "after")
            with under_way(lambda: cluster.set_many(values, noreply=False)) as outcome:
                wait_until(lambda: all_have(b"after"))
                assert cluster.get_many(others) == dict.fromkeys(others, b"after")
                assert outcome == [], "the stopped node is waited for"
                go_on()
            assert outcome == [[]]
        assert cluster.get_many(mine) == dict.fromkeys(mine, b"after")
        for look in looks:
            look.close()


@pytest.mark.parametrize("noreply", [False, True])
def test_a_full_send_buffer_delays_no_other_nodes_keys(
    memcached_factory: Callable[..., MemcachedProcess],
    nodes: list[tuple[str, int]],
    noreply: bool,
) -> None:
    stuck = memcached_factory("-m", "200")
    with HashClient([stuck.address, *nodes], timeout=PATIENCE) as cluster:
        mine = keys_of(cluster, stuck.address, 40)
        others = [key_of(cluster, address) for address in nodes]
        value = b"." * 900_000
        looks = [Client(address, timeout=PATIENCE) for address in nodes]
        items = {**dict.fromkeys(mine, value), **dict.fromkeys(others, b"small")}
        with stopped(stuck) as go_on:
            with under_way(lambda: cluster.set_many(items, noreply=noreply)) as outcome:
                wait_until(lambda: sum(len(look.get_many(others)) for look in looks) == len(nodes))
                assert outcome == []
                go_on()
            assert outcome == [[]]
        assert cluster.get_many(items) == items
        for look in looks:
            look.close()


@pytest.mark.parametrize(
    "ask",
    [
        lambda cluster: cluster.raw_command("get k", b"END\r\n"),
        lambda cluster: cluster.raw_command("version"),
        lambda cluster: cluster.version(),
        lambda cluster: cluster.stats(),
        lambda cluster: cluster.flush_all(noreply=False),
        lambda cluster: cluster.cache_memlimit(64),
    ],
    ids=["raw_command", "raw_command-line", "version", "stats", "flush_all", "cache_memlimit"],
)
def test_all_nodes_are_asked_before_any_answer_is_waited_for(
    connect_all: Callable[..., Any], ask: Callable[[Any], Any]
) -> None:
    """Each server answers only once all have been asked."""
    asked = threading.Barrier(3)
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]

        def serve(listener: socket.socket) -> None:
            sock, _ = listener.accept()
            with sock:
                verb = sock.recv(1 << 16).split()[0]
                asked.wait(PATIENCE)
                answers = {b"get": b"END\r\n", b"version": b"VERSION 1\r\n", b"stats": b"END\r\n"}
                sock.sendall(answers.get(verb, b"OK\r\n"))

        threads = [threading.Thread(target=serve, args=(listener,)) for listener in listeners]
        for thread in threads:
            thread.start()
        cluster = connect_all([listener.getsockname() for listener in listeners])
        answers = ask(cluster)
        for thread in threads:
            thread.join(PATIENCE)
    assert len(answers) == 3
    assert None not in answers.values()


def test_a_raw_commands_connections_are_closed_where_more_may_come(
    connect_all: Callable[..., Any], nodes: list[tuple[str, int]]
) -> None:
    cluster = connect_all(nodes)
    for _ in range(3):
        assert set(cluster.raw_command("get k\r\nget k", "END\r\n").values()) == {b""}
        assert cluster.get_many(["a", "b", "c", "d", "e"]) == {}


def test_a_full_backlog_delays_no_other_nodes_keys(nodes: list[tuple[str, int]]) -> None:
    """A node that cannot even be connected to: its kernel drops what comes."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        cluster = HashClient(
            [listener.getsockname(), *nodes], timeout=PATIENCE, connect_timeout=PATIENCE / 10
        )
        mine = key_of(cluster, listener.getsockname())
        others = [key_of(cluster, address) for address in nodes]
        looks = [stack.enter_context(Client(address, timeout=PATIENCE)) for address in nodes]
        items = dict.fromkeys([mine, *others], b"v")
        with under_way(lambda: cluster.set_many(items, noreply=False)) as outcome:
            wait_until(lambda: sum(len(look.get_many(others)) for look in looks) == len(nodes))
            assert outcome == []
        assert isinstance(outcome[0], TimeoutError)
        assert "no connection within" in str(outcome[0])
        cluster.close()


@pytest.mark.parametrize("connected", [False, True], ids=["handshake", "idle"])
def test_a_stopped_node_delays_no_other_nodes_keys_over_tls(
    memcached_factory: Callable[..., MemcachedProcess], tmp_path: Path, connected: bool
) -> None:
    authority = Authority(tmp_path)
    context = ssl.create_default_context(cafile=str(authority.certificate))
    certificate = authority.issue("127.0.0.1")
    processes = [memcached_factory("-m", "200", tls=certificate) for _ in range(3)]
    options: dict[str, Any] = {"tls_context": context, "timeout": PATIENCE}
    stuck, *well = processes
    with HashClient([process.address for process in processes], **options) as cluster:
        mine = keys_of(cluster, stuck.address, 20)
        others = [key_of(cluster, process.address) for process in well]
        if connected:
            cluster.set_many(dict.fromkeys(mine + others, b"v"), noreply=False)
        items = dict.fromkeys(mine, b"." * 900_000) | dict.fromkeys(others, b"small")
        with stopped(stuck) as go_on:
            looks = [Client(process.address, **options) for process in well]
            with under_way(lambda: cluster.set_many(items, noreply=False)) as outcome:
                wait_until(
                    lambda: (
                        b"small" in looks[0].get_many(others).values()
                        and b"small" in looks[1].get_many(others).values()
                    )
                )
                assert outcome == []
                go_on()
            assert outcome == [[]]
        assert cluster.get_many(items) == items
        for look in looks:
            look.close()


def test_an_exhausted_pool_holds_up_no_other_nodes_keys_nor_connections(
    memcached_factory: Callable[..., MemcachedProcess], nodes: list[tuple[str, int]]
) -> None:
    stuck = memcached_factory()
    options = {"use_pooling": True, "max_pool_size": 1, "pool_wait_timeout": PATIENCE}
    with HashClient([stuck.address, *nodes], timeout=PATIENCE, **options) as cluster:
        mine = keys_of(cluster, stuck.address, 2)
        others = [key_of(cluster, address) for address in nodes]
        pool = cluster.clients[name_of(stuck.address)].client_pool
        looks = [Client(address, timeout=PATIENCE) for address in nodes]
        with (
            stopped(stuck) as go_on,
            under_way(lambda: cluster.set(mine[0], "v", noreply=False)) as first,
        ):
            wait_until(lambda: len(pool.used) == 1)
            items = dict.fromkeys([mine[1], *others], b"v")
            with under_way(lambda: cluster.set_many(items, noreply=False)) as second:
                wait_until(lambda: sum(len(look.get_many(others)) for look in looks) == len(nodes))
                # Through the same pools, of one connection each: it has given them back.
                assert cluster.get_many(others) == dict.fromkeys(others, b"v")
                assert (first, second) == ([], [])
                go_on()
            assert second == [[]]
        assert first == [True]
        assert cluster.get_many([*mine, *others]) == dict.fromkeys([*mine, *others], b"v")
        assert [len(c.client_pool.used) for c in cluster.clients.values()] == [0] * 5
        for look in looks:
            look.close()


def test_a_stopped_node_costs_its_own_keys_only(
    memcached_factory: Callable[..., MemcachedProcess], nodes: list[tuple[str, int]]
) -> None:
    stuck = memcached_factory()
    with HashClient([stuck.address, *nodes], timeout=2, ignore_exc=True) as cluster:
        mine = keys_of(cluster, stuck.address, 3)
        others = [key for address in nodes for key in keys_of(cluster, address, 3)]
        items = dict.fromkeys(mine + others, b"v")
        assert cluster.set_many(items, noreply=False) == []
        with stopped(stuck):
            began = time.monotonic()
            assert cluster.get_many(mine + others) == dict.fromkeys(others, b"v")
            assert time.monotonic() - began < 10
            assert sorted(cluster.set_many(items, noreply=False)) == sorted(mine)


def test_waits_for_connections_of_several_nodes_do_not_add_up(
    memcached_factory: Callable[..., MemcachedProcess], nodes: list[tuple[str, int]]
) -> None:
    """Two nodes whose connections are all in use, the first for good, the second for a moment."""
    stuck, slow = memcached_factory(), memcached_factory()
    options = {"use_pooling": True, "max_pool_size": 1, "pool_wait_timeout": 2.0}
    addresses = [stuck.address, slow.address, *nodes[:2]]
    with ExitStack() as stack:
        cluster = stack.enter_context(HashClient(addresses, timeout=PATIENCE, **options))
        keys = [key_of(cluster, address) for address in addresses]
        pools = [cluster.clients[name_of(address)].client_pool for address in addresses]
        go_on = stack.enter_context(stopped(stuck))
        slow_goes_on = stack.enter_context(stopped(slow))
        for key, pool in zip(keys[:2], pools[:2], strict=True):
            stack.enter_context(under_way(lambda key=key: cluster.set(key, "v", noreply=False)))
            wait_until(lambda pool=pool: len(pool.used) == 1)
        items = dict.fromkeys(keys, b"v")
        cluster.ignore_exc = True
        began = time.monotonic()
        assert sorted(cluster.set_many(items, noreply=False)) == sorted(keys[:2])
        assert time.monotonic() - began < 3.8, "as if both had been waited for in turn"
        with under_way(lambda: cluster.set_many(items, noreply=False)) as outcome:
            slow_goes_on()
        assert outcome == [keys[:1]]
        go_on()
    with Client(slow.address, timeout=PATIENCE) as look:
        assert look.get(keys[1]) == b"v"
