"""noreply commands are never a blind spot: whatever a server answers to them is theirs alone, is
counted and logged, and a thread always reads what it has written itself.  Each test runs over the
compiled exchange and over the generic one.
"""

from __future__ import annotations

import logging
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from cymemcache import Client, MemcacheUnexpectedCloseError, MemcacheUnknownError
from cymemcache.testing import Answer, Close, EmbeddedServer
from exchanges import WrappedSocket, module_with, open_sockets
from wire import MEBIBYTE, PATIENCE, Server, wait_until

ERRORS = [
    b"SERVER_ERROR out of memory storing object\r\n",
    b"CLIENT_ERROR bad data chunk\r\n",
    b"ERROR\r\n",
]


@pytest.fixture
def talkative() -> Iterator[EmbeddedServer]:
    """A server that answers noreply commands all the same."""
    with EmbeddedServer(answer_noreply=True, recording=True) as server:
        yield server


class Recorder:
    """Takes one connection, and keeps what each receive from it gave; `replies` follow each."""

    def __init__(self, *replies: bytes) -> None:
        self.received: list[bytes] = []
        self._replies = replies
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = self._listener.getsockname()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        sock, _ = self._listener.accept()
        sock.settimeout(PATIENCE)
        with sock:
            for reply in self._replies:
                self.received.append(sock.recv(1 << 16))
                sock.sendall(reply)
            while sock.recv(1 << 16):
                pass

    def __enter__(self) -> Recorder:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._thread.join(PATIENCE)
        self._listener.close()
        assert not self._thread.is_alive()


def lines(server: EmbeddedServer) -> list[bytes]:
    return [line for _, line in server.requests]


# -- what a server answers belongs to nobody else --------------------------------------------------


def test_a_too_large_set_does_not_disturb_the_next_get(
    server: Server, connect: Callable[..., Client]
) -> None:
    client = connect(server.address)
    client.set("small", b"value", noreply=False)
    for _ in range(20):
        client.set("large", b"x" * (2 * MEBIBYTE), noreply=True)
        assert client.get("small") == b"value"
        assert client.get("large") is None
        client.set("large", b"x" * (2 * MEBIBYTE), noreply=True)
        assert client.incr("absent", 1) is None


def test_too_large_items_within_a_batch_leave_the_rest_stored_and_the_connection_in_step(
    server: Server, connect: Callable[..., Client]
) -> None:
    client = connect(server.address)
    items = {f"k{n}": b"%d" % n for n in range(40)}
    items["k7"] = items["k31"] = b"x" * (2 * MEBIBYTE)
    assert client.set_many(items, noreply=True) == []
    expected = {key: value for key, value in items.items() if len(value) < MEBIBYTE}
    assert client.get_many(items) == expected


@pytest.mark.parametrize("line", ERRORS, ids=lambda line: line.split()[0].decode())
def test_an_error_is_counted_and_logged_and_not_taken_for_another_reply(
    embedded: EmbeddedServer,
    connect: Callable[..., Client],
    caplog: pytest.LogCaptureFixture,
    line: bytes,
) -> None:
    client = connect(embedded.address)
    client.set("k", b"value", noreply=False)
    commands: list[tuple[str, Callable[[], Any]]] = [
        ("delete", lambda: client.delete("k", noreply=True)),
        ("incr", lambda: client.incr("k", 1, noreply=True)),
        ("touch", lambda: client.touch("k", 5, noreply=True)),
        ("flush_all", lambda: client.flush_all(noreply=True)),
    ]
    if line.startswith(b"SERVER_ERROR"):
        commands += [
            ("set", lambda: client.set("k", b"other", noreply=True)),
            ("cas", lambda: client.cas("k", b"other", 1, noreply=True)),
        ]
    for number, (verb, command) in enumerate(commands, 1):
        with embedded.inject(Answer(line), verb=verb), caplog.at_level(logging.WARNING):
            caplog.clear()
            command()
            assert client.get("k") == b"value"
        assert client.noreply_errors == number
        (record,) = caplog.records
        assert record.name == "cymemcache"
        assert "1 of 1 noreply commands failed" in record.getMessage()
        reason = line.decode().strip().partition(" ")[2]
        assert reason in record.getMessage()
    assert client.noreply_lost == 0


def test_errors_of_several_commands_are_reported_together(
    embedded: EmbeddedServer, connect: Callable[..., Client], caplog: pytest.LogCaptureFixture
) -> None:
    client = connect(embedded.address)
    with embedded.inject(Answer(ERRORS[0]), verb="set", times=3), caplog.at_level(logging.WARNING):
        for _ in range(3):
            client.set("k", b"value", noreply=True)
        client.delete("k", noreply=True)
        assert client.get("k") is None
    assert client.noreply_errors == 3
    (record,) = caplog.records
    assert "3 of 4 noreply commands failed" in record.getMessage()


def test_a_server_that_answers_all_the_same_is_understood(
    talkative: EmbeddedServer, connect: Callable[..., Client]
) -> None:
    client = connect(talkative.address)
    for number in range(50):
        client.set("k", b"%d" % number, noreply=True)
        assert client.get("k") == b"%d" % number
        client.incr("k", 1, noreply=True)
        assert client.incr("k", 1) == number + 2
        client.append("k", b"0", noreply=True)
        assert client.get_many(["absent", "k"]) == {"k": b"%d0" % (number + 2)}
        client.touch("k", 100, noreply=True)
        client.add("k", b"other", noreply=True)
        assert client.set("k", b"7", noreply=False) is True
        client.decr("k", 1, noreply=True)
        value, token = client.gets("k")
        assert value == b"6"
        client.cas("k", b"8", token, noreply=True)
        client.cas("k", b"9", token, noreply=True)
        assert client.version() == client.version()
        client.replace("k", b"10", noreply=True)
        assert client.stats()[b"curr_items"] == 1
        client.delete("k", noreply=True)
        assert client.delete("k", noreply=False) is False
        client.delete_many(["k", "absent"], noreply=True)
        assert client.touch("k", noreply=False) is False
        client.flush_all(noreply=True)
        assert client.get("k", "miss") == "miss"
    assert client.noreply_errors == 0
    assert talkative.open_connections == 1


def test_a_value_that_reads_like_the_barriers_answer_is_only_a_value(
    talkative: EmbeddedServer, connect: Callable[..., Client]
) -> None:
    client = connect(talkative.address)
    value = b"VERSION 1\r\nEND\r\nSTORED\r\n"
    client.set("k", value, noreply=True)
    client.prepend("k", b"version\r\n", noreply=True)
    assert client.get("k") == b"version\r\n" + value


# -- the barrier -----------------------------------------------------------------------------------


def test_the_barrier_goes_out_with_the_next_reading_command_in_one_send(
    connect: Callable[..., Client],
) -> None:
    answer = b"VERSION 1\r\nVALUE k 0 1\r\nv\r\nEND\r\n"
    with Recorder(b"VERSION 1\r\n", b"", answer, b"END\r\n") as server:
        client = connect(server.address)
        client.set("k", b"v", noreply=True)
        wait_until(lambda: len(server.received) == 2)
        assert client.get("k") == b"v"
        assert client.get("k") is None
        client.close()
    assert server.received == [
        b"version\r\n",
        b"set k 0 0 1 noreply\r\nv\r\n",
        b"version\r\nget k\r\n",
        b"get k\r\n",
    ]


@pytest.mark.parametrize("line", ERRORS[1:], ids=lambda line: line.split()[0].decode())
def test_a_value_that_a_server_took_for_commands_cannot_forge_a_reply(
    connect: Callable[..., Client], line: bytes
) -> None:
    """The header is refused, then the value is read: a fake barrier, and a fake request."""
    value = b"version\r\nget victim\r\n"
    forged = line + b"VERSION 1\r\nVALUE k 0 4\r\nevil\r\nEND\r\n"
    rest = b"VERSION 1\r\nVALUE k 0 4\r\ngood\r\nEND\r\n"
    sent = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for reply in (forged + rest, rest[11:]):
                sock, _ = listener.accept()
                if reply.startswith(forged):
                    sock.recv(1 << 16)
                    sock.sendall(b"VERSION 1\r\n")
                received = b""
                while not received.endswith(b"get k\r\n"):
                    received += sock.recv(1 << 16)
                sock.sendall(reply)
                sent.wait(PATIENCE)
                sock.close()

        thread = threading.Thread(target=serve)
        thread.start()
        client = connect(listener.getsockname())
        client.set("k", value, noreply=True)
        with pytest.raises(MemcacheUnknownError, match="noreply storage command"):
            client.get("k")
        sent.set()
        assert client.get("k") == b"good"
        client.close()
        thread.join()


def test_the_barriers_answer_may_come_in_any_pieces(connect: Callable[..., Client]) -> None:
    reply = b"SERVER_ERROR x\r\nSTORED\r\nVERSION 1\r\nVALUE k 0 2\r\nvv\r\nEND\r\n"
    for cut in range(1, len(reply)):
        ready = threading.Event()
        listener = socket.create_server(("127.0.0.1", 0))

        def serve(listener: socket.socket, cut: int, ready: threading.Event) -> None:
            sock, _ = listener.accept()
            with sock:
                sock.recv(1 << 16)
                sock.sendall(b"VERSION 1\r\n")
                received = b""
                while not received.endswith(b"get k\r\n"):
                    received += sock.recv(1 << 16)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.sendall(reply[:cut])
                time.sleep(0.001)
                sock.sendall(reply[cut:])
                ready.wait(PATIENCE)

        thread = threading.Thread(target=serve, args=(listener, cut, ready))
        thread.start()
        client = connect(listener.getsockname())
        client.set("k", b"v", noreply=True)
        client.set("k", b"vv", noreply=True)
        assert client.get("k") == b"vv"
        assert client.noreply_errors == 1
        ready.set()
        client.close()
        thread.join()
        listener.close()


def test_noreply_commands_alone_ask_for_nothing_once_the_server_knows_the_barrier(
    embedded: EmbeddedServer, connect: Callable[..., Client]
) -> None:
    client = connect(embedded.address)
    for number in range(100):
        client.set("k", b"%d" % number, noreply=True)
    assert client.get("k") == b"99"
    assert lines(embedded) == [
        b"version",
        *[b"set k 0 0 %d noreply" % len(str(number)) for number in range(100)],
        b"version",
        b"get k",
    ]


def test_a_reading_command_without_noreply_commands_before_it_needs_no_barrier(
    embedded: EmbeddedServer, connect: Callable[..., Client]
) -> None:
    client = connect(embedded.address)
    client.set("k", b"v", noreply=True)
    for _ in range(3):
        client.get("k")
    client.delete("k", noreply=False)
    assert lines(embedded)[1:].count(b"version") == 1


# -- what is lost with a connection ----------------------------------------------------------------


def test_commands_that_are_lost_with_their_connection_are_counted_and_logged(
    embedded: EmbeddedServer, connect: Callable[..., Client], caplog: pytest.LogCaptureFixture
) -> None:
    client = connect(embedded.address)
    client.get("k")
    with embedded.inject(Close(), verb="set", skip=2), caplog.at_level(logging.WARNING):
        for _ in range(3):
            client.set("k", b"v", noreply=True)
        # Not tried again: what it would read is not what the thread has written.
        with pytest.raises((MemcacheUnexpectedCloseError, ConnectionError)):
            client.get("k")
    assert client.noreply_lost == 3
    (record,) = caplog.records
    assert "3 noreply commands not acknowledged" in record.getMessage()
    assert client.get("k") == b"v"
    assert client.noreply_lost == 3


def test_commands_on_a_connection_that_went_stale_are_counted_and_the_next_one_works(
    embedded: EmbeddedServer, connect: Callable[..., Client], caplog: pytest.LogCaptureFixture
) -> None:
    client = connect(embedded.address)
    with caplog.at_level(logging.WARNING):
        client.set("k", b"v", noreply=True)
        client.delete("other", noreply=True)
        wait_until(lambda: len(embedded.requests) == 3)
        embedded.close_connections()
        time.sleep(1.05)  # idle for long enough that the connection is looked at first
        assert client.get("k") == b"v"
    assert client.noreply_lost == 2
    assert len(caplog.records) == 1


def test_closing_a_client_loses_nothing(
    embedded: EmbeddedServer, connect: Callable[..., Client], caplog: pytest.LogCaptureFixture
) -> None:
    client = connect(embedded.address)
    with caplog.at_level(logging.WARNING):
        for number in range(20):
            client.set(f"k{number}", b"v" * 1000, noreply=True)
            client.close()
        wait_until(lambda: len(client.get_many([f"k{n}" for n in range(20)])) == 20)
    assert client.noreply_lost == 0
    assert not caplog.records


# -- reading one's own writes ----------------------------------------------------------------------


def test_a_thread_reads_its_own_writes_whatever_command_they_were(
    server: Server, connect: Callable[..., Client]
) -> None:
    client = connect(server.address)
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    choice = random.Random(seed)
    number: int | None = None
    for _ in range(1500):
        verb = choice.choice(["set", "delete", "incr", "decr", "read"])
        if verb == "set":
            number = choice.randrange(1000, 1 << 40)
            client.set("k", b"%d" % number, noreply=True)
        elif verb == "delete":
            number = None
            client.delete("k", noreply=True)
        elif verb == "read" or number is None:
            value = client.get("k")
            assert (None if value is None else int(value)) == number
        else:
            change = choice.randrange(1, 9)
            number = number + change if verb == "incr" else max(0, number - change)
            getattr(client, verb)("k", change, noreply=True)


def test_eight_threads_read_their_own_large_writes(
    server: Server, connect: Callable[..., Client]
) -> None:
    client = connect(server.address)
    rounds = 100
    failures: list[str] = []
    start = threading.Barrier(8)

    def work(thread: int) -> None:
        try:
            start.wait(PATIENCE)
            for number in range(rounds):
                value = b"%d-%d." % (thread, number) * 50_000
                client.set(f"k{thread}", value[:200_000], noreply=True)
                found = client.get(f"k{thread}")
                if found != value[:200_000]:
                    failures.append(f"thread {thread}, round {number}: {found and found[:20]!r}")
        except BaseException as error:
            failures.append(f"thread {thread}: {error!r}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert client.noreply_errors == client.noreply_lost == 0


def test_a_thread_reads_after_close_what_it_wrote_before(
    server: Server, connect: Callable[..., Client]
) -> None:
    client = connect(server.address)
    value = b"v" * 900_000
    for number in range(60):
        client.set("k", b"%d" % number + value, noreply=True)
        client.close()
        assert client.get("k") == b"%d" % number + value
    assert client.noreply_lost == 0


def test_connections_of_ended_threads_are_used_again(
    server: Server, connect: Callable[..., Client]
) -> None:
    client = connect(server.address)
    barrier = threading.Barrier(8)

    def write() -> None:
        client.set("k", b"v", noreply=True)
        barrier.wait(PATIENCE)

    for _ in range(2):
        threads = [threading.Thread(target=write) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    before = len(open_sockets())
    barrier = threading.Barrier(4)
    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(open_sockets()) <= before


def test_a_batch_of_refusals_is_logged_once(
    talkative: EmbeddedServer, connect: Callable[..., Client], caplog: pytest.LogCaptureFixture
) -> None:
    client = connect(talkative.address)
    refused = Answer(b"SERVER_ERROR out of memory\r\n")
    with talkative.inject(refused, verb="set", times=3000), caplog.at_level(logging.WARNING):
        client.set_many({f"k{number}": b"v" for number in range(3000)}, noreply=True)
        assert client.get("k") is None
    assert client.noreply_errors == 3000
    assert len(caplog.records) <= 2


@pytest.mark.parametrize("base", [socket.socket, WrappedSocket], ids=["plain", "any"])
def test_commands_lost_are_counted_though_closing_is_interrupted(
    running_memcached: Server, base: type[socket.socket]
) -> None:
    class Interrupted(base):  # type: ignore[misc,valid-type]
        def close(self) -> None:
            super().close()
            raise KeyboardInterrupt

    client = Client(running_memcached.address, socket_module=module_with(Interrupted))
    client.set("k", "v", noreply=True)
    connection = client._pool.take()
    with pytest.raises(KeyboardInterrupt):
        connection.discard()
    assert client.noreply_lost == 1
    connection.release()


def test_a_close_by_another_thread_lets_no_thread_overtake_its_own_writes(
    embedded: EmbeddedServer, connect: Callable[..., Client]
) -> None:
    client = connect(embedded.address)
    with ThreadPoolExecutor(1) as writer:
        writer.submit(client.set, "k", b"v", noreply=True).result()
        client.close()
        # In the same send as a barrier, which only the connection with the write can answer.
        assert writer.submit(client.get, "k").result() == b"v"
        wait_until(lambda: embedded.open_connections == 1)
    connections = {number for number, line in embedded.requests if line.startswith(b"version")}
    writes = {number for number, line in embedded.requests if line.startswith(b"set")}
    assert connections == writes
