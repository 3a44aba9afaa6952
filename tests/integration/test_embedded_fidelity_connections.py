"""The embedded server ends, refuses and authenticates connections as memcached does."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from cymemcache.testing import EmbeddedServer, MemcachedProcess
from wire import PATIENCE, block


def ends(address: tuple[str, int], data: bytes) -> bytes:
    """What is answered to `data` before the server closes the connection, which it must."""
    with socket.create_connection(address, timeout=PATIENCE) as sock:
        received = bytearray()
        sock.sendall(data)
        try:
            while data := sock.recv(1 << 16):
                received += data
        except ConnectionError:
            pass
        return bytes(received)


@pytest.mark.parametrize(
    "data",
    [
        b"x" * 2049,
        b"gat 0 " + b"k " * 2000,
        b"set " + b"k" * 3000,
        b" " * 101 + b"get " + b"k " * 2000,
        b"mn\r\n" + b"x" * 2049,
        b"x" * 20_000 + b"\r\n",
        b"quit\r\n",
        b"mn\r\nquit\r\nmn\r\n",
    ],
    ids=repr,
)
def test_the_same_input_ends_a_connection(both: tuple[Any, Any], data: bytes) -> None:
    real, embedded = (ends(server.address, data) for server in both)

    assert embedded == real


@pytest.mark.parametrize("size", [2047, 2049, 10_000, 16_000])
def test_a_long_line_that_comes_at_once_is_only_an_error(both: tuple[Any, Any], size: int) -> None:
    real, embedded = (server.raw(b"x" * size + b"\r\nmn\r\n") for server in both)

    assert embedded == real == b"ERROR\r\nMN\r\n"


def conversation(address: tuple[str, int], steps: list[bytes]) -> list[bytes]:
    """One reply line for each step, which is sent when the reply to the one before has come.

    Empty where the connection has been closed instead.
    """
    replies = []
    with socket.create_connection(address, timeout=PATIENCE) as sock, sock.makefile("rb") as file:
        for step in steps:
            try:
                sock.sendall(step)
                replies.append(file.readline())
            except ConnectionError:
                replies.append(b"")
    return replies


@pytest.fixture(scope="module")
def distrustful(
    memcached_version: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Any, Any]]:
    """Both servers with a user and his password."""
    passwords = tmp_path_factory.mktemp("authentication") / "passwords"
    passwords.write_text("user:pass\nother:word\n")
    with (
        MemcachedProcess("-Y", str(passwords)) as real,
        EmbeddedServer(
            users={"user": "pass", "other": "word"}, version=memcached_version
        ) as embedded,
    ):
        yield real, embedded


def credentials(text: bytes) -> bytes:
    return block(b"set auth 0 0 #", text)


@pytest.mark.parametrize(
    "steps",
    [
        [b"mn\r\n", b"get a\r\n", b"quit\r\n", b"set a\r\n", b"\r\n", credentials(b"user pass")],
        [credentials(b"user pass"), b"mn\r\n", credentials(b"user bad"), b"get x\r\n"],
        [credentials(b"user bad"), b"mn\r\n", credentials(b"user pass"), b"mn\r\n"],
        [credentials(b"user"), credentials(b""), credentials(b"user "), credentials(b" pass")],
        [credentials(b"user pass x"), b"mn\r\n"],
        [credentials(b" user  pass "), b"mn\r\n"],
        [credentials(b"user pass\0"), b"mn\r\n"],
        [credentials(b"nobody pass"), b"mn\r\n"],
        [credentials(b"user" * 1000), b"mn\r\n"],
        [b"set a 0 0 9 noreply\r\nuser pass\r\n", b"mn\r\n"],
        [b"set a x y 9\nuser pass\r\n", b"mn\r\n"],
        [b"set a 0 0 9\r\nuser passxx", b"mn\r\n"],
        [b"set a 0 0 x\r\n", b"set a 0 0 -1\r\n", b"add a 0 0 9\r\n"],
        [b"set a 0 0 4294967295\r\nx", b"mn\r\n"],
    ],
    ids=repr,
)
def test_authentication(distrustful: tuple[Any, Any], steps: list[bytes]) -> None:
    real, embedded = (conversation(server.address, steps) for server in distrustful)

    assert embedded == real


def test_junk_without_authentication_ends_the_connection(distrustful: tuple[Any, Any]) -> None:
    real, embedded = (ends(server.address, b"get " + b"k " * 1100) for server in distrustful)

    assert embedded == real == b""


def test_a_cache_that_must_not_evict_is_full_at_some_time(memcached_factory: Any) -> None:
    value = b"v" * 100_000
    replies = []
    with EmbeddedServer(memory_limit=2 << 20, evictions=False) as embedded:
        for server in (memcached_factory("-M", "-m", "2"), embedded):
            fill = b"".join(block(b"set k%d 0 0 #" % i, value) for i in range(30))
            answers = conversation(server.address, [fill, *[b""] * 29])
            assert answers[0] == b"STORED\r\n"
            full = answers[-1]
            lines = [
                block(b"set k29 0 0 #", value),
                block(b"set k0 0 0 #", value),
                block(b"add k29 0 0 #", value),
                b"get k0\r\n",
                b"get k29\r\n",
            ]
            # The server deletes what it could not replace, so that there is room for one again.
            replies.append([full, *conversation(server.address, lines)])

    assert replies[1] == replies[0]
    assert replies[0][0] == b"SERVER_ERROR out of memory storing object\r\n"


def test_connections_beyond_the_limit_are_turned_away(memcached_factory: Any) -> None:
    limit = 40
    replies = []
    with EmbeddedServer(max_connections=limit) as embedded:
        for server in (memcached_factory("-c", str(limit), "-t", "1"), embedded):
            socks = [
                socket.create_connection(server.address, timeout=PATIENCE) for _ in range(limit + 1)
            ]
            with socks[-1].makefile("rb") as file:
                replies.append(file.read())
            for sock in socks:
                sock.close()

    assert replies[1] == replies[0] == b"ERROR Too many open connections\r\n"


def test_an_idle_connection_is_closed(memcached_factory: Any) -> None:
    with EmbeddedServer(idle_timeout=1) as embedded:
        for server in (memcached_factory("-o", "idle_timeout=1"), embedded):
            assert ends(server.address, b"mn\r\n") == b"MN\r\n"
