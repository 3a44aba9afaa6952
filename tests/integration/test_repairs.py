"""Known faults of pymemcache that `Client` does not inherit, one test each.

A test's docstring names the fault as it is in pymemcache 4.0.0, some of them in its other clients:
`Client` must not have those either.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from cymemcache import Client, MemcacheIllegalInputError, MemcacheServerError
from cymemcache.testing import Delay, EmbeddedServer, Trickle
from cymemcache.testing.process import free_port
from wire import MEBIBYTE, PATIENCE, Server


class Interruption(BaseException):
    """What no `except Exception` catches."""


def test_an_interrupted_command_leaves_no_reply_to_the_next_one(
    embedded: EmbeddedServer, connect: Callable[..., Client]
) -> None:
    """An interruption leaves the socket open: the next call reads the previous reply."""

    def interrupt(*signal: Any) -> None:
        raise Interruption

    client = connect(embedded.address)
    client.set_many({"a": b"A", "b": b"B"}, noreply=False)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for _ in range(3):
            sock = client.sock
            embedded.inject(Delay(5), verb="get", key="a")
            with pytest.raises(Interruption):  # noqa: PT012 - the clock starts within
                signal.setitimer(signal.ITIMER_REAL, 0.1)
                client.get("a")
            assert sock.fileno() == -1
            assert client.get("b") == b"B"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_an_error_in_answer_to_noreply_is_not_the_next_ones_and_does_not_go_unnoticed(
    server: Server, connect: Callable[..., Client], caplog: pytest.LogCaptureFixture
) -> None:
    """noreply errors desync the stream; `set` of a too-large value "succeeds"."""
    with EmbeddedServer(answer_noreply=True) as talkative:
        for address in (server.address, talkative.address):
            caplog.clear()
            client = connect(address)
            client.set("key", b"value", noreply=False)
            with caplog.at_level(logging.WARNING, "cymemcache"):
                client.set("large", b"x" * (2 * MEBIBYTE), noreply=True)
                assert client.get("key") == b"value"
            assert client.get_many(["large", "key"]) == {"key": b"value"}
            assert client.noreply_errors == 1
            assert caplog.text.count("object too large") == 1
            with pytest.raises(MemcacheServerError, match="object too large"):
                client.set("large", b"x" * (2 * MEBIBYTE), noreply=False)


def test_every_address_of_a_name_is_tried(
    embedded: EmbeddedServer, connect: Callable[..., Client]
) -> None:
    """Only the first address of a name is ever tried."""
    dead, alive = ("127.0.0.1", free_port()), embedded.address

    def module_for(*addresses: Any) -> Any:
        real = connect("localhost").socket_module
        names = ("socket", "AF_INET", "AF_INET6", "AF_UNIX", "AF_UNSPEC", "SOCK_STREAM")
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]
        return SimpleNamespace(
            getaddrinfo=lambda *arguments: found,
            IPPROTO_TCP=socket.IPPROTO_TCP,
            **{name: getattr(real, name) for name in names},
        )

    client = connect("many.example", socket_module=module_for(dead, dead, alive))
    assert client.set("key", b"value", noreply=False) is True
    assert client.get("key") == b"value"
    nobody = connect("many.example", socket_module=module_for(dead, dead))
    with pytest.raises(ConnectionRefusedError) as caught:
        nobody.get("key")
    assert str(dead) in "".join(caught.value.__notes__)


def test_a_raw_reply_is_whole_however_it_arrives(
    embedded: EmbeddedServer, connect: Callable[..., Client]
) -> None:
    """`raw_command` loses data that spans more than one recv."""
    client = connect(embedded.address)
    value = b"".join(b"%04d" % number for number in range(25))
    client.set("key", value, noreply=False)
    expected = b"VALUE key 0 100\r\n" + value
    for size in (1, 7, 50):
        embedded.inject(Trickle(0.001, size=size), verb="get")
        assert client.raw_command("get key", "\r\nEND\r\n") == expected
    assert client.get("key") == value


def test_gat_takes_its_arguments_for_what_they_are(
    server: Server, connect: Callable[..., Client]
) -> None:
    """`HashClient.gat` mistakes its arguments: `gat("key", 60)` gives 60 on a miss."""
    client = connect(server.address)
    assert client.gat("none", 60) is None
    assert client.gats("none", 60) == (None, None)
    client.set("key", b"value", noreply=False)
    assert client.gat("key", 60, 5) == b"value"
    assert client.gats("key", 60, 5)[0] == b"value"


def test_the_encoding_is_used(server: Server, connect: Callable[..., Client]) -> None:
    """`PooledClient` ignores `encoding`."""
    client = connect(server.address, encoding="utf-8")
    client.set("key", "grün", noreply=False)
    assert client.get("key") == b"gr\xc3\xbcn"


def test_keys_may_come_from_a_generator(server: Server, connect: Callable[..., Client]) -> None:
    """`get_many(generator)` raises KeyError."""
    client = connect(server.address)
    client.set_many({"a": b"1", "b": b"2"}, noreply=False)
    assert client.get_many(key for key in ["a", "none", "b"]) == {"a": b"1", "b": b"2"}
    assert client.gets_many(iter("ab")).keys() == {"a", "b"}
    assert client.delete_many((key for key in "ab"), noreply=False) is True
    assert client.get_many(["a", "b"]) == {}


def test_a_server_that_is_full_says_so(connect: Callable[..., Client]) -> None:
    """A server's `ERROR Too many open connections` becomes "unknown command", its text is lost."""
    with EmbeddedServer(max_connections=1) as server:
        first, second = connect(server.address), connect(server.address)
        first.set("key", b"value", noreply=False)
        for _ in range(20):
            with pytest.raises(MemcacheServerError, match="Too many open connections") as caught:
                second.get("key")
            assert type(caught.value) is MemcacheServerError
        assert first.get("key") == b"value"
        first.close()
        deadline = time.monotonic() + PATIENCE
        while server.open_connections:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        assert second.get("key") == b"value"


def test_the_first_command_after_the_server_closed_an_idle_connection_works(
    embedded: EmbeddedServer, connect: Callable[..., Client]
) -> None:
    """The first command after the server closed an idle connection fails."""
    client = connect(embedded.address)
    client.set("key", b"value", noreply=False)
    reads: list[Callable[[], Any]] = [
        lambda: client.get("key"),
        lambda: client.gets("key")[0],
        lambda: client.get_many(["key"])["key"],
        lambda: client.gets_many(["key"])["key"][0],
        lambda: client.stats() and b"value",
        lambda: client.version() and b"value",
    ]
    for reset in (False, True):
        for read in reads:
            embedded.close_connections(reset=reset)
            assert read() == b"value"
    # What must not be done twice is not retried, but a connection idle for long is looked at.
    embedded.close_connections()
    time.sleep(1.1)
    assert client.incr("none", 1) is None
    assert client.set("key", b"new", noreply=False) is True
    embedded.close_connections()
    time.sleep(1.1)
    assert client.set("key", b"newer", noreply=True) is True
    assert client.get("key") == b"newer"
    assert client.noreply_lost == 0


def test_a_child_process_has_connections_of_its_own(
    embedded: EmbeddedServer, connect: Callable[..., Client]
) -> None:
    """A forked child shares its parent's sockets."""
    client = connect(embedded.address)
    client.set("key", b"value", noreply=False)
    sock = client.sock
    child = os.fork()
    if not child:
        status = 1
        try:
            status = 0 if client.get("key") == b"value" and client.sock is not sock else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert client.get("key") == b"value"
    assert client.sock is sock
    assert [number for number, _ in embedded.requests] == [1, 2, 1]


def test_small_packets_do_not_wait(
    embedded: EmbeddedServer, connect: Callable[..., Client]
) -> None:
    """Nagle's algorithm is on by default: a noreply write and a read can wait 40 ms."""
    client = connect(embedded.address)
    client.version()
    assert client.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    patient = connect(embedded.address, no_delay=False)
    patient.version()
    assert not patient.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_a_buffer_is_stored_as_its_bytes(
    server: Server, connect: Callable[..., Client], kind: Callable[[bytes], Any]
) -> None:
    """A bytearray or memoryview is stored as its repr."""
    client = connect(server.address)
    client.set("key", kind(b"\0value\xff"), noreply=False)
    client.set_many({"other": kind(b"")}, noreply=False)
    assert client.get_many(["key", "other"]) == {"key": b"\0value\xff", "other": b""}


def test_a_bad_key_always_raises(server: Server, connect: Callable[..., Client]) -> None:
    """With `ignore_exc`, a bad key raises in Client and is a miss in PooledClient."""
    client = connect(server.address, ignore_exc=True)
    for call in (client.get, client.gets, client.gat, client.gats):
        with pytest.raises(MemcacheIllegalInputError, match="key"):
            call("a b")
    for call in (client.get_many, client.gets_many):
        with pytest.raises(MemcacheIllegalInputError, match="key"):
            call(["good", "a b"])


def test_nothing_makes_a_second_command(
    embedded: EmbeddedServer, connect: Callable[..., Client]
) -> None:
    """`flags`, `stats` arguments and `get_many` keys let line breaks through; exptimes and lengths
    beyond what the server parses turn values into commands.
    """
    client = connect(embedded.address, max_value_size=100)
    command = "\r\nset evil 0 0 1\r\n1\r\n"
    calls: list[Callable[[], Any]] = [
        lambda: client.set("key", b"1", flags="0 0 1\r\n1" + command),
        lambda: client.set("key", command.encode(), flags=2**32),
        lambda: client.set("key", command.encode(), expire=2**64),
        lambda: client.set("key", command.encode() * 100),
        lambda: client.set_many({"key": command.encode()}, expire=-(2**63) - 1),
        lambda: client.add("key", command.encode(), expire="0 0 1\r\n1" + command),
        lambda: client.cas("key", command.encode(), cas="1" * 30),
        lambda: client.cas("key", command.encode(), cas="1" + command),
        lambda: client.stats("items" + command),
        lambda: client.stats("a", command.encode()),
        lambda: client.get_many(["key", "key" + command]),
        lambda: client.gets_many([b"key", b"key" + command.encode()]),
        lambda: client.gat("key", "0" + command),
        lambda: client.incr("key", "1" + command),
        lambda: client.touch("key", 2**31),
        lambda: client.flush_all(f"0{command}"),
        lambda: client.cache_memlimit(f"64{command}"),
    ]
    for call in calls:
        with pytest.raises(MemcacheIllegalInputError):
            call()
    assert client.get("evil") is None
    assert [line for _, line in embedded.requests] == [b"get evil"]
