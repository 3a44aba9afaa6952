"""The embedded server: how it starts and ends, what it holds, and the faults it commits on demand.

That its replies are memcached's is shown against the real one in the integration tests.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from cymemcache import (
    Client,
    MemcacheClientError,
    MemcacheError,
    MemcacheServerError,
    MemcacheUnexpectedCloseError,
    MemcacheUnknownError,
)
from cymemcache.testing import (
    Answer,
    Close,
    Cut,
    Delay,
    EmbeddedServer,
    Extra,
    Hang,
    ManualClock,
    Refuse,
    Trickle,
)
from wire import PATIENCE, Server, wait_until

pytest_plugins = ["cymemcache.testing.fixtures"]


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer() as server:
        yield server


@pytest.fixture
def client(server: EmbeddedServer) -> Iterator[Client]:
    with Client(server.address, timeout=PATIENCE, default_noreply=False) as client:
        yield client


def raw(server: EmbeddedServer, *chunks: bytes) -> bytes:
    return Server("embedded", server.address).raw(*chunks)


# -- starting and stopping -------------------------------------------------------------------------


def test_it_runs_for_the_length_of_a_block() -> None:
    with EmbeddedServer() as server:
        assert server.running
        host, port = server.address
        assert host == "127.0.0.1"
        assert port > 0
        assert raw(server, b"mn\r\n") == b"MN\r\n"
    assert not server.running
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, port))


def test_it_starts_again_where_it_was_and_empty() -> None:
    server = EmbeddedServer().start()
    address = server.address
    with Client(address, default_noreply=False) as client:
        client.set("k", "v")
        server.stop()
        with pytest.raises(ConnectionRefusedError):
            client.get("k")
        server.start()
        assert server.address == address
        assert client.get("k") is None
    server.stop()


def test_what_is_wrong_is_said() -> None:
    server = EmbeddedServer()
    with pytest.raises(RuntimeError, match="no address before it is started"):
        _ = server.address
    server.stop()  # nothing happens
    with server:
        with pytest.raises(RuntimeError, match="has been started already"):
            server.start()
        with pytest.raises(OSError, match="in use"):
            EmbeddedServer(*server.address).start()
        assert repr(server) == f"<EmbeddedServer at {server.address}>"
    assert repr(server) == "<EmbeddedServer not running>"


def test_stopping_ends_what_waits_for_an_answer(server: EmbeddedServer, client: Client) -> None:
    with server.inject(Hang()) as hang, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.get, "k")
        wait_until(lambda: hang.hits == 1)
        server.stop()
        # The client may have asked once more, and found nobody.
        with pytest.raises((MemcacheUnexpectedCloseError, ConnectionError)):
            waiting.result(PATIENCE)


def test_a_client_may_shut_it_down() -> None:
    with EmbeddedServer(shutdown=True) as server:
        with Client(server.address) as client:
            client.shutdown()
        wait_until(lambda: not server.running)
        server.start()
        assert raw(server, b"mn\r\n") == b"MN\r\n"


def test_the_fixture_is_a_running_server(memcached_server: EmbeddedServer) -> None:
    with Client(memcached_server.address) as client:
        client.set("k", "v", noreply=False)
        assert client.get("k") == b"v"


# -- what it holds ---------------------------------------------------------------------------------


def test_items_expire_by_its_clock() -> None:
    clock = ManualClock()
    with EmbeddedServer(clock=clock) as server, Client(server.address) as client:
        client.set("k", "v", expire=60, noreply=False)
        client.set("forever", "v", noreply=False)
        clock.advance(59)
        assert client.get("k") == b"v"
        client.touch("k", 60, noreply=False)
        clock.advance(59)
        assert client.get("k") == b"v"
        clock.advance(1)
        assert client.get_many(["k", "forever"]) == {"forever": b"v"}


def test_cas_and_flags(client: Client) -> None:
    client.set("k", "v", flags=4294967295)
    value, token = client.gets("k")
    assert value == b"v"
    assert client.cas("k", "w", token) is True
    assert client.cas("k", "x", token) is False
    assert client.raw_command("set f 4294967295 0 1\r\nv") == b"STORED"
    assert client.raw_command("get f", "END\r\n").startswith(b"VALUE f 4294967295 1\r\n")


def test_noreply_commands_are_not_answered(server: EmbeddedServer) -> None:
    script = b"set k 0 0 1 noreply\r\nv\r\ndelete x noreply\r\nget k\r\n"
    assert raw(server, script) == b"VALUE k 0 1\r\nv\r\nEND\r\n"


def test_noreply_commands_may_be_answered_all_the_same() -> None:
    with EmbeddedServer(answer_noreply=True) as server:
        assert raw(server, b"set k 0 0 1 noreply\r\nv\r\nmn\r\n") == b"STORED\r\nMN\r\n"
        with Client(server.address) as client:
            client.set("k", "w")
            assert client.get("k") == b"w"


def test_an_item_has_a_limit() -> None:
    with EmbeddedServer(max_item_size=10_000) as server, Client(server.address) as client:
        assert client.set("k", bytes(9000), noreply=False) is True
        with pytest.raises(MemcacheServerError, match="too large"):
            client.set("k", bytes(10_000), noreply=False)


def test_the_least_recently_used_items_make_room() -> None:
    with EmbeddedServer(memory_limit=10_000) as server, Client(server.address) as client:
        for number in range(100):
            client.set(f"k{number}", bytes(1000), noreply=False)
            client.get("k0")
        held = client.get_many([f"k{number}" for number in range(100)])
        assert list(held) == ["k0", *(f"k{number}" for number in range(92, 100))]
        assert client.stats()[b"evictions"] == 91


def test_without_evictions_it_is_full() -> None:
    options = {"memory_limit": 10_000, "evictions": False}
    with EmbeddedServer(**options) as server, Client(server.address) as client:
        for number in range(9):
            client.set(f"k{number}", bytes(1000), noreply=False)
        with pytest.raises(MemcacheServerError, match="out of memory"):
            client.set("one-more", bytes(1000), noreply=False)
        assert len(client.get_many([f"k{number}" for number in range(9)])) == 9


def test_clients_must_authenticate() -> None:
    with EmbeddedServer(users={"user": "secret"}) as server:
        with Client(server.address, username="user", password="secret") as client:
            client.set("k", "v", noreply=False)
            assert client.get("k") == b"v"
        stranger = Client(server.address, username="user", password="wrong")
        with stranger, pytest.raises(MemcacheClientError, match="authentication"):
            stranger.get("k")
        nobody = Client(server.address)
        with nobody, pytest.raises(MemcacheClientError, match="unauthenticated"):
            nobody.get("k")


def test_a_cluster_has_a_configuration() -> None:
    config = "12\nhost|10.0.0.1|11211\n"
    with EmbeddedServer(cluster_config=config) as server:
        reply = b"CONFIG cluster 0 %d\r\n%b\r\nEND\r\n"
        assert raw(server, b"config get cluster\r\n") == reply % (len(config), config.encode())
        server.cluster_config = b"13\n\n"
        assert raw(server, b"config get cluster\r\n") == reply % (4, b"13\n\n")
        server.cluster_config = None
        assert raw(server, b"config get cluster\r\n") == b"ERROR\r\n"


def test_clear_empties_it(server: EmbeddedServer, client: Client) -> None:
    server.recording = True
    client.set("k", "v")
    server.clear()
    assert server.requests == []
    assert client.get("k") is None


def test_requests_are_recorded_by_connection() -> None:
    with EmbeddedServer(recording=True, version="9.9") as server:
        assert raw(server, b"version\r\nset k 0 0 1\r\nv\r\n") == b"VERSION 9.9\r\nSTORED\r\n"
        raw(server, b"get k\r\n")
        assert server.requests == [(1, b"version"), (1, b"set k 0 0 1"), (2, b"get k")]
        server.recording = False
        raw(server, b"get k\r\n")
        assert len(server.requests) == 3


def test_many_clients_at_once(server: EmbeddedServer) -> None:
    value = bytes(range(256)) * 40

    def use(number: int) -> None:
        with Client(server.address, timeout=PATIENCE, default_noreply=False) as client:
            for round in range(20):
                client.set(f"{number}-{round}", b"%d-%d:" % (number, round) + value)
                client.incr("n", 1)
            found = client.get_many([f"{number}-{round}" for round in range(20)])
            assert found == {
                f"{number}-{round}": b"%d-%d:" % (number, round) + value for round in range(20)
            }

    raw(server, b"set n 0 0 1\r\n0\r\n")
    with ThreadPoolExecutor(40) as pool:
        list(pool.map(use, range(40)))
    assert raw(server, b"get n\r\n") == b"VALUE n 0 3\r\n800\r\nEND\r\n"
    wait_until(lambda: server.open_connections == 0)


def test_a_client_that_does_not_read_holds_up_nobody(server: EmbeddedServer) -> None:
    with socket.create_connection(server.address, timeout=PATIENCE) as greedy:
        greedy.sendall(b"set big 0 0 1000000\r\n" + bytes(1_000_000) + b"\r\n")
        assert greedy.recv(100) == b"STORED\r\n"
        greedy.sendall(b"get big\r\n" * 100)
        assert raw(server, b"mn\r\n") == b"MN\r\n"
        received = 0
        while received < 100 * (len(b"VALUE big 0 1000000\r\n\r\nEND\r\n") + 1_000_000):
            received += len(greedy.recv(1 << 20))
        assert raw(server, b"mn\r\n") == b"MN\r\n"


# -- faults ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("when", "stored"), [("before", None), ("executed", b"new"), ("after", b"new")]
)
@pytest.mark.parametrize("reset", [False, True])
def test_close(
    server: EmbeddedServer, client: Client, when: Any, stored: bytes | None, reset: bool
) -> None:
    server.inject(Close(when, reset=reset), verb="set")
    try:
        assert client.set("k", "new") is True
        assert when == "after"
    except (MemcacheUnexpectedCloseError, ConnectionError):
        assert when != "after" or reset  # a reset may take with it what was sent before
    assert client.get("k") == stored


def test_close_has_three_moments() -> None:
    with pytest.raises(ValueError, match="'before', 'executed' or 'after', not 'now'"):
        Close("now")  # type: ignore[arg-type]


def test_delay(server: EmbeddedServer) -> None:
    with Client(server.address, timeout=0.1, default_noreply=False) as client:
        server.inject(Delay(0.3), key="k")
        with pytest.raises(TimeoutError):
            client.set("k", "v")
    with Client(server.address, timeout=PATIENCE, default_noreply=False) as client:
        assert client.get("k") == b"v"
        server.inject(Delay(0.3), verb="get")
        began = time.monotonic()
        assert client.get("k") == b"v"
        assert time.monotonic() - began > 0.29


REPLY = b"VALUE k 0 5\r\nvalue\r\nEND\r\n"


@pytest.mark.parametrize("at", range(len(REPLY) + 1))
def test_cut(server: EmbeddedServer, client: Client, at: int) -> None:
    client.set("k", "value")
    server.inject(Cut(at))
    assert raw(server, b"get k\r\nget k\r\n") == REPLY[:at]

    # A fetch of whose reply nothing at all has come is sent again.
    with server.inject(Cut(at), times=None):
        if at < len(REPLY):
            with pytest.raises(MemcacheUnexpectedCloseError):
                client.get("k")
        else:
            assert client.get("k") == b"value"
    assert client.get("k") == b"value"


def test_trickle(server: EmbeddedServer, client: Client) -> None:
    client.set("k", "value")
    server.inject(Trickle(0.002, size=2), verb="get")
    began = time.monotonic()
    assert client.get("k") == b"value"
    assert time.monotonic() - began > 0.02


def test_answer(server: EmbeddedServer, client: Client) -> None:
    server.inject(Answer())
    with pytest.raises(MemcacheUnknownError):
        client.set("k", "v")
    assert client.get("k") is None
    server.inject(Answer(b"SERVER_ERROR busy\r\n", execute=True))
    with pytest.raises(MemcacheServerError, match="busy"):
        client.set("k", "v")
    assert client.get("k") == b"v"


def test_extra(server: EmbeddedServer, client: Client) -> None:
    server.inject(Extra(b"STORED\r\n"), verb="delete")
    assert raw(server, b"delete k\r\nmn\r\n") == b"NOT_FOUND\r\nSTORED\r\nMN\r\n"


def test_hang(server: EmbeddedServer) -> None:
    server.inject(Hang())
    with Client(server.address, timeout=0.1) as client:
        with pytest.raises(TimeoutError):
            client.get("k")
        assert client.get("k") is None


def test_refuse(server: EmbeddedServer, client: Client) -> None:
    client.version()
    with server.inject(Refuse()):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(server.address)
        assert client.get("k") is None
        client.close()
        with pytest.raises(ConnectionRefusedError):
            client.get("k")
    assert client.get("k") is None


def test_a_fault_may_meet_a_connection(server: EmbeddedServer) -> None:
    server.inject(Close(), on_connect=True)
    assert raw(server, b"mn\r\n") == b""
    assert raw(server, b"mn\r\n") == b"MN\r\n"
    server.inject(Answer(b"ERROR Too many open connections\r\n"), on_connect=True)
    with Client(server.address) as client, pytest.raises(MemcacheError):
        client.get("k")


def test_a_fault_meets_what_it_is_for(server: EmbeddedServer) -> None:
    injection = server.inject(Answer(b"!"), verb="get", key="k", skip=1, times=2)
    script = b"get x\r\nget k\r\ngets k\r\nget x k\r\nmn\r\nget k\r\nget k\r\n"
    assert raw(server, script) == b"END\r\n" * 3 + b"!MN\r\n!END\r\n"
    assert injection.hits == 2


def test_a_fault_lasts_as_long_as_it_is_to(server: EmbeddedServer) -> None:
    with server.inject(Answer(b"!"), times=None) as injection:
        assert raw(server, b"mn\r\n" * 5) == b"!" * 5
        assert injection.hits == 5
    assert raw(server, b"mn\r\n") == b"MN\r\n"
    injection.remove()  # nothing happens
    server.inject(Answer(b"!"), times=None)
    server.inject(Refuse())
    server.clear_faults()
    assert raw(server, b"mn\r\n") == b"MN\r\n"


def test_faults_meet_commands_in_the_order_of_injection(server: EmbeddedServer) -> None:
    server.inject(Answer(b"1"))
    server.inject(Answer(b"2"))
    assert raw(server, b"mn\r\n" * 3) == b"12MN\r\n"


def test_faults_that_make_no_sense_are_refused(server: EmbeddedServer) -> None:
    with pytest.raises(ValueError, match="cannot meet a connection"):
        server.inject(Cut(1), on_connect=True)
    with pytest.raises(ValueError, match="for faults that meet commands"):
        server.inject(Refuse(), verb="get")
    with pytest.raises(ValueError, match="for faults that meet commands"):
        server.inject(Close(), key="k", on_connect=True)
    with pytest.raises(ValueError, match="no skip, no times"):
        server.inject(Refuse(), times=2)


@pytest.mark.parametrize("reset", [False, True])
def test_connections_may_be_closed_from_outside(
    server: EmbeddedServer, client: Client, reset: bool
) -> None:
    client.set("k", "v")
    assert server.open_connections == 1
    with socket.create_connection(server.address, timeout=PATIENCE) as sock:
        sock.sendall(b"mn\r\n")
        assert sock.recv(100) == b"MN\r\n"
        server.close_connections(reset=reset)
        assert server.open_connections == 0
        if reset:
            with pytest.raises(ConnectionResetError):
                sock.recv(100)
        else:
            assert sock.recv(100) == b""
