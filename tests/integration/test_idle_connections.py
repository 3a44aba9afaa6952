"""A server may close a connection that nobody uses: the next command finds out, and dials anew.

What cannot be found out beforehand is tried once more only where that does no harm.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from cymemcache import Client, MemcacheUnexpectedCloseError
from cymemcache.testing import Close, Cut, Delay, EmbeddedServer, MemcachedProcess
from cymemcache.testing.process import free_port
from exchanges import open_sockets
from wire import wait_until

IDLE = 3.2  # seconds after which memcached has closed a connection at idle_timeout=1


def test_reads_and_writes_after_the_server_closed_idle_connections(
    memcached_factory: Callable[..., MemcachedProcess], connect: Callable[..., Client]
) -> None:
    address = memcached_factory("-o", "idle_timeout=1").address
    commands: list[tuple[Callable[[Client], Any], Any]] = [
        (lambda client: client.get("k"), b"value"),
        (lambda client: client.get_many(["k"]), {"k": b"value"}),
        (lambda client: client.set("k", b"value", noreply=False), True),
        (lambda client: client.incr("n", 1), 2),
        (lambda client: client.set("k", b"value", noreply=True), True),
        (lambda client: client.version(), connect(address).version()),
    ]
    clients = [connect(address) for _ in commands]
    for client in clients:
        client.set_many({"k": b"value", "n": b"1"}, noreply=False)
    time.sleep(IDLE)
    for client, (command, expected) in zip(clients, commands, strict=True):
        assert command(client) == expected
        assert client.get("k") == b"value"
        assert client.noreply_lost == 0


def test_a_server_that_was_restarted_is_dialled_anew(connect: Callable[..., Client]) -> None:
    port = free_port()
    with MemcachedProcess(port=port) as first:
        client = connect(first.address)
        assert client.set("k", b"value", noreply=False) is True
    with MemcachedProcess(port=port):
        time.sleep(1.05)  # idle for long enough that the connection is looked at first
        assert client.set("k", b"other", noreply=False) is True
        assert client.get("k") == b"other"


RETRIED: dict[str, Callable[[Client], Any]] = {
    "get": lambda client: client.get("k"),
    "gets": lambda client: client.gets("k")[0],
    "get_many": lambda client: client.get_many(["k"]).get("k"),
    "version": lambda client: client.version(),
    "stats": lambda client: client.stats(),
    "gat": lambda client: client.gat("k", 0),  # done twice it does the same
}
NOT_RETRIED: dict[str, Callable[[Client], Any]] = {
    "set": lambda client: client.set("k", b"new", noreply=False),
    "set_many": lambda client: client.set_many({"k": b"new"}, noreply=False),
    "incr": lambda client: client.incr("n", 1),
    "delete": lambda client: client.delete("k", noreply=False),
    "touch": lambda client: client.touch("k", 0, noreply=False),
}


def requests(server: EmbeddedServer, verb: bytes) -> int:
    return sum(line.split()[0] == verb for _, line in server.requests)


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("command", list(RETRIED))
def test_what_does_no_harm_is_tried_once_more_where_the_connection_was_closed(
    embedded: EmbeddedServer, connect: Callable[..., Client], command: str, reset: bool
) -> None:
    client = connect(embedded.address)
    client.set("k", b"value", noreply=False)
    expected = RETRIED[command](client)
    with embedded.inject(Close(reset=reset)):
        found = RETRIED[command](client)
    if command == "stats":
        assert found.keys() == expected.keys()
    else:
        assert found == expected
    failures = pytest.raises((MemcacheUnexpectedCloseError, ConnectionError))
    with embedded.inject(Close(reset=reset), times=2), failures:
        RETRIED[command](client)
    assert client.get("k") == b"value"


@pytest.mark.parametrize("command", list(NOT_RETRIED))
def test_what_changes_something_is_not_tried_again(
    embedded: EmbeddedServer, connect: Callable[..., Client], command: str
) -> None:
    client = connect(embedded.address)
    client.set_many({"k": b"value", "n": b"1"}, noreply=False)
    failures = pytest.raises((MemcacheUnexpectedCloseError, ConnectionError))
    with embedded.inject(Close("executed")), failures:
        NOT_RETRIED[command](client)
    if command == "incr":
        assert client.get("n") == b"2"
    assert client.get("absent") is None


def test_nothing_is_tried_again_once_something_of_the_reply_has_come(
    embedded: EmbeddedServer, connect: Callable[..., Client]
) -> None:
    client = connect(embedded.address)
    client.set("k", b"value", noreply=False)
    embedded.clear()
    with embedded.inject(Cut(1)), pytest.raises(MemcacheUnexpectedCloseError):
        client.get("k")
    assert requests(embedded, b"get") == 1


def test_nothing_is_tried_again_after_a_timeout(
    embedded: EmbeddedServer, connect: Callable[..., Client]
) -> None:
    client = connect(embedded.address, timeout=0.1)
    client.get("k")
    embedded.clear()
    with embedded.inject(Delay(0.3)), pytest.raises(TimeoutError):
        client.get("k")
    assert requests(embedded, b"get") == 1


def test_bytes_that_nobody_asked_for_make_an_idle_connection_useless(
    connect: Callable[..., Client],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = connect(listener.getsockname())

        def reply(sock: socket.socket, data: bytes) -> None:
            received = b""
            while not received.endswith(b"\r\n"):
                received += sock.recv(1 << 16)
            sock.sendall(data)

        answers: list[socket.socket] = []

        def serve() -> None:
            first, _ = listener.accept()
            answers.append(first)
            reply(first, b"VALUE k 0 1\r\n1\r\nEND\r\n")
            time.sleep(0.2)
            first.sendall(b"VALUE k 0 5\r\nwrong\r\nEND\r\n")
            second, _ = listener.accept()
            answers.append(second)
            reply(second, b"VALUE k 0 1\r\n2\r\nEND\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        assert client.get("k") == b"1"
        time.sleep(1.2)
        assert client.get("k") == b"2"
        thread.join()
        for sock in answers:
            sock.close()


def test_a_socket_that_was_closed_by_hand_is_not_used_again(
    embedded: EmbeddedServer, connect: Callable[..., Client]
) -> None:
    client = connect(embedded.address)
    client.set("k", b"value", noreply=False)
    used = client.sock
    number = used.fileno()
    used.close()
    # Its number now belongs to somebody else, whose bytes are not ours.
    ours, theirs = socket.socketpair()
    with ours, theirs:
        if ours.fileno() != number:
            os.dup2(ours.fileno(), number)
        theirs.sendall(b"VALUE k 0 5\r\nwrong\r\nEND\r\n")
        try:
            assert client.get("k") == b"value"
            theirs.setblocking(False)
            with pytest.raises(BlockingIOError):
                theirs.recv(100)
        finally:
            if ours.fileno() != number:
                os.close(number)


def test_no_descriptor_is_left_by_connections_that_went_stale(
    embedded: EmbeddedServer, connect: Callable[..., Client]
) -> None:
    client = connect(embedded.address)
    client.get("k")
    before = len(open_sockets())
    for _ in range(20):
        embedded.close_connections()
        client.get("k")
    wait_until(lambda: embedded.open_connections == 1)  # they are this process's, too
    assert len(open_sockets()) <= before
