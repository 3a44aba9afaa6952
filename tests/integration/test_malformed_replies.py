"""Whatever a server answers, a value comes under the key that was asked for or not at all.

Each malformed reply is an error, closes its connection, and leaves the client usable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
from cymemcache.testing import Answer, Close, EmbeddedServer, Fault
from cymemcache.testing.faults import Entry, Hangup
from exchanges import MODULES
from wire import PATIENCE

GET = {
    "length too short": b"VALUE k 0 3\r\nvalue\r\nEND\r\n",
    "an empty value without its line end": b"VALUE k 0 0\r\nEND\r\n",
    "length of 20 digits": b"VALUE k 0 12345678901234567890\r\nvalue\r\nEND\r\n",
    "length negative": b"VALUE k 0 -5\r\nvalue\r\nEND\r\n",
    "length no number": b"VALUE k 0 five\r\nvalue\r\nEND\r\n",
    "length missing": b"VALUE k 0\r\nvalue\r\nEND\r\n",
    "flags beyond 32 bits": b"VALUE k 4294967296 5\r\nvalue\r\nEND\r\n",
    "another key": b"VALUE other 0 5\r\nvalue\r\nEND\r\n",
    "a longer key": b"VALUE kk 0 5\r\nvalue\r\nEND\r\n",
    "no key": b"VALUE  0 5\r\nvalue\r\nEND\r\n",
    "the key twice": b"VALUE k 0 5\r\nvalue\r\nVALUE k 0 5\r\nother\r\nEND\r\n",
    "bytes behind the end": b"VALUE k 0 5\r\nvalue\r\nEND\r\nEND\r\n",
    "a cas token": b"VALUE k 0 5 1\r\nvalue\r\nEND\r\n",
    "two blanks": b"VALUE k  0 5\r\nvalue\r\nEND\r\n",
    "a bare newline": b"VALUE k 0 5\nvalue\r\nEND\r\n",
    "a storage reply": b"STORED\r\n",
    "a number": b"5\r\n",
    "an empty line": b"\r\n",
    "garbage": b"\x00\xff\x80 garbage\r\n",
    "a line without end": b"x" * 100_000,
}

# Commands, and for each replies of another kind or none.
OTHERS: dict[str, tuple[Callable[[Client], Any], list[bytes]]] = {
    "get_many": (
        lambda client: client.get_many(["k", "l"]),
        [
            b"VALUE k 0 5\r\nvalue\r\nVALUE k 0 5\r\nvalue\r\nEND\r\n",
            b"VALUE l 0 5\r\nvalue\r\nVALUE k 0 5\r\nvalue\r\nVALUE l 0 5\r\nvalue\r\nEND\r\n",
            b"VALUE m 0 5\r\nvalue\r\nEND\r\n",
            b"VALUE k 0 5\r\nvalue\r\nSTORED\r\nEND\r\n",
            b"END\r\nEND\r\n",
        ],
    ),
    "gets_many": (
        lambda client: client.gets_many(["k", "l"]),
        [b"VALUE k 0 5\r\nvalue\r\nEND\r\n", b"VALUE k 0 5 x\r\nvalue\r\nEND\r\n"],
    ),
    "set": (
        lambda client: client.set("k", b"v", noreply=False),
        [b"DELETED\r\n", b"END\r\n", b"STORED\r\nSTORED\r\n", b"STORED\n", b"stored\r\n"],
    ),
    "set_many": (
        lambda client: client.set_many({"x": b"v", "y": b"v"}, noreply=False),
        [b"STORED\r\nDELETED\r\n", b"STORED\r\nSTORED\r\nSTORED\r\n", b"VERSION 1\r\n"],
    ),
    "incr": (
        lambda client: client.incr("k", 1),
        [b"18446744073709551616\r\n", b"-1\r\n", b"1 \r\n", b"\r\n", b"STORED\r\n", b"1\r\n2\r\n"],
    ),
    "delete": (lambda client: client.delete("k", noreply=False), [b"STORED\r\n", b"1\r\n"]),
    "touch": (lambda client: client.touch("k", 1, noreply=False), [b"STORED\r\n", b"END\r\n"]),
    "version": (lambda client: client.version(), [b"1.6.18\r\n", b"VERSION\r\n", b"OK\r\n"]),
    "stats": (lambda client: client.stats(), [b"STORED\r\n", b"STAT a 1\r\nVALUE\r\nEND\r\n"]),
    "flush_all": (lambda client: client.flush_all(noreply=False), [b"END\r\n", b"STORED\r\n"]),
}


@pytest.fixture(scope="module")
def running() -> Iterator[EmbeddedServer]:
    with EmbeddedServer() as server:
        yield server


@pytest.fixture(params=sorted(MODULES))
def client(request: pytest.FixtureRequest, running: EmbeddedServer) -> Iterator[Client]:
    with Client(running.address, timeout=PATIENCE, socket_module=MODULES[request.param]) as client:
        client.set_many({"k": b"value", "l": b"other"}, noreply=False)
        yield client


def wrong(client: Client, server: EmbeddedServer, reply: bytes, call: Callable[[], Any]) -> None:
    """Assert that `reply` to `call` is a protocol error and ends the connection."""
    with server.inject(Answer(reply)):
        used = client.sock
        with pytest.raises(MemcacheUnknownError):
            call()
        assert client.sock is None
        assert used is not None
        assert used.fileno() == -1
    assert client.get("l") == b"other"


@pytest.mark.parametrize("reply", GET.values(), ids=list(GET))
def test_a_malformed_reply_to_get(client: Client, running: EmbeddedServer, reply: bytes) -> None:
    wrong(client, running, reply, lambda: client.get("k"))


@pytest.mark.parametrize("command", list(OTHERS))
def test_a_malformed_reply_to_another_command(
    client: Client, running: EmbeddedServer, command: str
) -> None:
    call, replies = OTHERS[command]
    for reply in replies:
        wrong(client, running, reply, lambda: call(client))


def test_a_length_that_is_too_long_waits_for_bytes_that_never_come(running: EmbeddedServer) -> None:
    reply = Answer(b"VALUE k 0 9999\r\nvalue\r\nEND\r\n")
    for module in MODULES.values():
        with Client(running.address, timeout=0.1, socket_module=module) as client:
            with running.inject(reply), pytest.raises(TimeoutError):
                client.get("k")
            assert client.sock is None
            assert client.get("absent") is None


class AnswerAndClose(Fault):
    """Sends `data` in the place of the reply, then closes the connection."""

    executes = False

    def __init__(self, data: bytes) -> None:
        self.data = data

    def entries(self, reply: bytes) -> list[Entry]:
        return [self.data, Hangup()]


# What each command is answered with, whole.
CUT: dict[str, tuple[Callable[[Client], Any], bytes]] = {
    "get": (lambda client: client.get("k"), b"VALUE k 0 5\r\nvalue\r\nEND\r\n"),
    "get, a miss": (lambda client: client.get("absent"), b"END\r\n"),
    "gets": (lambda client: client.gets("k"), b"VALUE k 0 5 77\r\nvalue\r\nEND\r\n"),
    "gat": (lambda client: client.gat("k", 0), b"VALUE k 0 5\r\nvalue\r\nEND\r\n"),
    "gats": (lambda client: client.gats("k", 0), b"VALUE k 0 5 77\r\nvalue\r\nEND\r\n"),
    "get_many": (
        lambda client: client.get_many(["k", "absent", "l"]),
        b"VALUE k 0 5\r\nvalue\r\nVALUE l 0 0\r\n\r\nEND\r\n",
    ),
    "get_many, out of order": (
        lambda client: client.get_many(["k", "l"]),
        b"VALUE l 0 5\r\nother\r\nVALUE k 0 5\r\nEND\r\n\r\nEND\r\n",
    ),
    "gets_many": (
        lambda client: client.gets_many(["k", "l"]),
        b"VALUE k 0 5 77\r\nvalue\r\nVALUE l 0 5 78\r\nother\r\nEND\r\n",
    ),
    "set": (lambda client: client.set("x", b"value", noreply=False), b"STORED\r\n"),
    "add": (lambda client: client.add("x", b"value", noreply=False), b"NOT_STORED\r\n"),
    "cas": (lambda client: client.cas("x", b"value", 1), b"EXISTS\r\n"),
    "cas, a miss": (lambda client: client.cas("x", b"value", 1), b"NOT_FOUND\r\n"),
    "set_many": (lambda client: client.set_many({"x": b"value"}, noreply=False), b"STORED\r\n"),
    "delete": (lambda client: client.delete("x", noreply=False), b"DELETED\r\n"),
    "delete_many": (lambda client: client.delete_many(["x"], noreply=False), b"NOT_FOUND\r\n"),
    "incr": (lambda client: client.incr("x", 1), b"18446744073709551615\r\n"),
    "decr": (lambda client: client.decr("x", 1), b"NOT_FOUND\r\n"),
    "touch": (lambda client: client.touch("x", noreply=False), b"TOUCHED\r\n"),
    "flush_all": (lambda client: client.flush_all(noreply=False), b"OK\r\n"),
    "cache_memlimit": (lambda client: client.cache_memlimit(64), b"OK\r\n"),
    "version": (lambda client: client.version(), b"VERSION 1.6.18\r\n"),
    "stats": (lambda client: client.stats(), b"STAT pid 1\r\nSTAT uptime 2\r\nEND\r\n"),
    "stats reset": (lambda client: client.stats("reset"), b"RESET\r\n"),
    "stats cachedump": (
        lambda client: client.stats("cachedump", 1, 0),
        b"ITEM k [1 b; 0 s]\r\nEND\r\n",
    ),
    "raw_command": (lambda client: client.raw_command("version"), b"VERSION 1.6.18\r\n"),
    "raw_command to END": (
        lambda client: client.raw_command("get k", "END\r\n"),
        b"VALUE k 0 5\r\nvalue\r\nEND\r\n",
    ),
    "an error": (lambda client: client.incr("x", 1), b"CLIENT_ERROR not a number\r\n"),
    "an error in a fetch": (lambda client: client.get("k"), b"SERVER_ERROR out of memory\r\n"),
}


@pytest.mark.parametrize("command", list(CUT))
def test_a_reply_that_is_cut_anywhere(
    client: Client, running: EmbeddedServer, command: str
) -> None:
    call, reply = CUT[command]
    for at in range(len(reply)):
        # Twice: those that may be repeated are, where not a byte has come.
        with running.inject(AnswerAndClose(reply[:at]), times=2):
            with pytest.raises((MemcacheUnexpectedCloseError, ConnectionError)):
                call(client)
            assert client.sock is None
    assert client.get("l") == b"other"
    # The whole of it is a reply, or an error of the server's.
    error: type[Exception] | None = None
    with running.inject(Answer(reply)):
        try:
            call(client)
        except MemcacheError as problem:
            error = type(problem)
    expected = {"an error": MemcacheClientError, "an error in a fetch": MemcacheServerError}
    assert error is expected.get(command)
    assert client.get("l") == b"other"


def test_errors_of_the_server_in_a_fetch_are_raised_and_end_the_connection(
    client: Client, running: EmbeddedServer
) -> None:
    for reply in (
        b"SERVER_ERROR out of memory\r\n",
        b"VALUE k 0 5\r\nvalue\r\nSERVER_ERROR out of memory\r\n",
    ):
        with running.inject(Answer(reply)):
            with pytest.raises(MemcacheServerError, match="out of memory"):
                client.get_many(["k", "l"])
            assert client.sock is None
        assert client.get("k") == b"value"


def test_an_answer_and_then_the_end_is_an_answer(client: Client, running: EmbeddedServer) -> None:
    with running.inject(Close("after")):
        assert client.get("k") == b"value"
    assert client.get("k") == b"value"
