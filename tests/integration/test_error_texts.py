"""What an error tells its reader: which server it is about, and what to do where that is known.  It
stays what it is otherwise, class and errno included.
"""

from __future__ import annotations

import copy
import errno
import logging
import pickle
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import cymemcache
from certificates import Authority, memcached_arguments
from clusters import key_of, keys_of, name_of
from cymemcache import (
    Client,
    HashClient,
    MemcacheError,
    MemcacheNodeDownError,
    MemcacheServerError,
    MemcacheUnexpectedCloseError,
    MemcacheValueTooLargeError,
    PooledClient,
    exceptions,
)
from cymemcache.testing import (
    Close,
    EmbeddedServer,
    Hang,
    MemcachedProcess,
    MockMemcacheClient,
)
from cymemcache.testing.process import free_port
from exchanges import MODULES
from wire import MEBIBYTE, Server

Address = tuple[str, int]

KINDS: dict[str, Callable[..., Any]] = {
    "client": Client,
    "pooled": PooledClient,
    "any": partial(Client, socket_module=MODULES["any"]),
    "cluster": lambda server, **options: HashClient([server], **options),
}


@pytest.fixture(params=list(KINDS))
def make(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """Makes clients of each kind in turn of one server, closed with the test."""
    with ExitStack() as stack:
        yield lambda server, **options: stack.enter_context(KINDS[request.param](server, **options))


COMMANDS: list[Callable[[Any], Any]] = [
    lambda client: client.get("key"),
    lambda client: client.set("key", b"v", noreply=True),
    lambda client: client.get_many(["key", "other"]),
    lambda client: client.stats(),
]


def raised(call: Callable[..., Any], *arguments: Any) -> Any:
    """The error of `call`, after a look at what each of them is alike in."""
    with pytest.raises((OSError, MemcacheError)) as caught:
        call(*arguments)
    error = caught.value
    for other in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(other) is type(error)
        assert str(other) == str(error)
        assert vars(other) == vars(error)
        assert getattr(other, "errno", None) == getattr(error, "errno", None)
    return error


def test_a_refused_connection(make: Callable[..., Any]) -> None:
    address = ("127.0.0.1", free_port())
    for command in COMMANDS:
        error = raised(command, make(address))
        assert type(error) is ConnectionRefusedError
        assert error.errno == errno.ECONNREFUSED
        assert error.server == address
        assert str(error) == f"[Errno 111] Connection refused (server {name_of(address)})"


def test_a_unix_socket_that_is_not_there(make: Callable[..., Any], tmp_path: Path) -> None:
    path = str(tmp_path / "none")
    error = raised(COMMANDS[0], make(path))
    assert type(error) is FileNotFoundError
    assert error.server == path
    assert str(error) == f"[Errno 2] No such file or directory (server {path})"


def test_a_host_that_there_is_not(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def getaddrinfo(*_: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    for module in MODULES.values():
        monkeypatch.setattr(module, "getaddrinfo", getaddrinfo)
    error = raised(COMMANDS[0], make(("no.such.host", 11211)))
    assert type(error) is socket.gaierror
    assert error.errno == socket.EAI_NONAME
    assert error.server == ("no.such.host", 11211)
    assert str(error).endswith("Name or service not known (server no.such.host:11211)")


def test_a_server_that_hangs(make: Callable[..., Any], embedded: EmbeddedServer) -> None:
    embedded.inject(Hang(), times=None)
    error = raised(COMMANDS[0], make(embedded.address, timeout=0.02))
    assert type(error) is TimeoutError
    assert error.server == embedded.address
    name = name_of(embedded.address)
    assert str(error).startswith("timed out")
    assert str(error).endswith(f" (server {name})")


def test_a_server_that_closes(make: Callable[..., Any], embedded: EmbeddedServer) -> None:
    for command in COMMANDS[::2]:
        client = make(embedded.address)
        client.set("key", b"v", noreply=False)
        with embedded.inject(Close(), times=2):
            error = raised(command, client)
        assert type(error) is MemcacheUnexpectedCloseError
        assert error.server == embedded.address
        assert f"server {name_of(embedded.address)}" in str(error)


def test_a_server_that_resets(make: Callable[..., Any], embedded: EmbeddedServer) -> None:
    client = make(embedded.address)
    client.set("key", b"v", noreply=False)
    with embedded.inject(Close(reset=True), times=1):
        error = raised(lambda: client.delete("key", noreply=False))
    assert type(error) is ConnectionResetError
    assert error.errno == errno.ECONNRESET
    assert error.server == embedded.address
    assert str(error).endswith(f"(server {name_of(embedded.address)})")


def test_an_error_of_one_node_of_several_names_that_one(nodes: list[Address]) -> None:
    address = ("127.0.0.1", free_port())
    with HashClient([*nodes, address]) as cluster:
        keys = keys_of(cluster, address, 1) + keys_of(cluster, nodes[0], 1)
        assert raised(cluster.get_many, keys).server == address
        error = raised(cluster.get_many, keys)
        assert type(error) is MemcacheNodeDownError
        assert error.server == address
        assert name_of(address) in str(error)


def test_what_the_server_has_answered_keeps_its_text_and_tells_the_server(
    server: Server, connect: Callable[..., Client]
) -> None:
    client = connect(server.address)
    client.set("text", b"text", noreply=False)
    error = raised(client.incr, "text", 1)
    assert str(error) == "cannot increment or decrement non-numeric value"
    assert error.server == server.address


def test_a_pool_that_is_used_up_tells_the_server(nodes: list[Address]) -> None:
    client = PooledClient(nodes[0], max_pool_size=1, pool_wait_timeout=0)
    with client:
        connection = client._pool.take()
        with pytest.raises(RuntimeError, match=r"Too many objects.*server 127"):
            client.get("key")
        connection.discard()


def test_the_error_of_a_users_socket_is_the_same_object_and_named_once(
    connect: Callable[..., Client], nodes: list[Address]
) -> None:
    failure = OSError("mine")

    class Socket:
        def sendall(self, data: bytes) -> None:
            pass

        def recv(self, size: int) -> bytes:
            raise failure

        def settimeout(self, seconds: float | None) -> None:
            pass

        def close(self) -> None:
            pass

    client = connect(nodes[0])
    for _ in range(2):
        client.sock = Socket()
        with pytest.raises(OSError, match="mine") as caught:
            client.get("key")
        assert caught.value is failure
    assert str(failure) == f"mine (server {name_of(nodes[0])})"


# -- TLS -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def test_tls_spoken_to_a_plain_port(make: Callable[..., Any], nodes: list[Address]) -> None:
    client = make(nodes[0], tls_context=ssl.create_default_context())
    error = raised(COMMANDS[0], client)
    assert type(error) is ssl.SSLError
    name = name_of(nodes[0])
    assert f"(server {name}: it does not speak TLS there, tls_context must be left out)" in str(
        error
    )


@pytest.fixture(scope="module")
def tls_address(authority: Authority) -> Iterator[Address]:
    with MemcachedProcess(*memcached_arguments(*authority.issue("127.0.0.1"))) as process:
        yield process.address


def test_plain_spoken_to_a_tls_port(make: Callable[..., Any], tls_address: Address) -> None:
    for command in (COMMANDS[0], COMMANDS[2]):
        error = raised(command, make(tls_address))
        assert "it may speak TLS there, which needs tls_context)" in str(error)


def test_a_connection_that_has_answered_is_not_taken_for_one_to_a_tls_port(
    connect: Callable[..., Client], embedded: EmbeddedServer
) -> None:
    client = connect(embedded.address)
    client.set("key", b"v", noreply=False)
    with embedded.inject(Close(), times=1):
        assert "TLS" not in str(raised(lambda: client.delete("key", noreply=False)))


# -- a value that is too large for the server ------------------------------------------------------

LARGE = b"x" * (2 * MEBIBYTE)


def test_the_error_for_too_large_a_value_is_exported() -> None:
    assert cymemcache.MemcacheValueTooLargeError is exceptions.MemcacheValueTooLargeError
    assert issubclass(MemcacheValueTooLargeError, MemcacheServerError)


@pytest.mark.parametrize("prefix", [b"", b"prefix:"])
def test_a_value_too_large_for_the_server(
    make: Callable[..., Any], server: Server, prefix: bytes
) -> None:
    client = make(server.address, key_prefix=prefix)
    calls: list[Callable[[], Any]] = [
        lambda: client.set("key", LARGE, noreply=False),
        lambda: client.add("key", LARGE, noreply=False),
        lambda: client.cas("key", LARGE, "1"),
        lambda: client.set_many({"small": b"v", "key": LARGE, "more": LARGE}, noreply=False),
    ]
    for call in calls:
        error = raised(call)
        assert type(error) is MemcacheValueTooLargeError
        assert (error.key, error.size) == ("key", len(LARGE))
        assert error.server == server.address
        assert str(error).startswith("object too large for cache")
    assert client.get("small") == b"v"


def test_a_value_too_large_for_one_node_of_several(nodes: list[Address]) -> None:
    with HashClient(nodes) as cluster:
        key = key_of(cluster, nodes[2])
        items = dict.fromkeys(keys_of(cluster, nodes[0], 5), b"v")
        error = raised(lambda: cluster.set_many({**items, key: LARGE}, noreply=False))
        assert (error.key, error.size, error.server) == (key, len(LARGE), nodes[2])
        error = raised(lambda: cluster.set(("server", "key"), LARGE, noreply=False))
        assert (error.key, error.size) == ("key", len(LARGE))
        assert cluster.get_many(items) == items


def test_a_value_too_large_in_a_raw_command_and_for_the_mock(server: Server) -> None:
    with Client(server.address) as client:
        command = b"set key 0 0 %d\r\n%b" % (len(LARGE), LARGE)
        error = raised(client.raw_command, command)
        assert (error.key, error.size) == (b"key", len(LARGE))
    error = raised(lambda: MockMemcacheClient().set("key", LARGE, noreply=False))
    assert (error.key, error.size) == ("key", len(LARGE))


# -- other people's code in the log ----------------------------------------------------------------


class Broken(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def handle(self, record: logging.LogRecord) -> bool:
        self.seen += 1
        raise ZeroDivisionError("in a handler")


@pytest.fixture
def broken() -> Iterator[Broken]:
    """A handler of the package's logger that raises."""
    handler, log = Broken(), logging.getLogger("cymemcache")
    before = log.level
    log.setLevel(logging.DEBUG)
    log.addHandler(handler)
    yield handler
    log.removeHandler(handler)
    log.setLevel(before)


def test_a_log_handler_that_raises_changes_nothing_of_what_a_cluster_gives(
    broken: Broken, nodes: list[Address], capsys: pytest.CaptureFixture[str]
) -> None:
    address = ("127.0.0.1", free_port())
    with HashClient([*nodes, address], retry_attempts=0) as cluster:
        key = key_of(cluster, address)
        # It dies, and another node takes what is stored.
        error = raised(lambda: cluster.delete(key, noreply=False))
        assert type(error) is ConnectionRefusedError
        assert cluster.set(key, b"v", noreply=False) is True
        assert cluster.get_many([key]) == {key: b"v"}
    assert broken.seen == 1
    assert "in a handler" in capsys.readouterr().err


def test_a_log_handler_that_raises_changes_nothing_of_what_a_client_gives(
    broken: Broken, make: Callable[..., Any], embedded: EmbeddedServer
) -> None:
    client = make(embedded.address, ignore_exc=True)
    client.set("key", b"v", noreply=True)
    with embedded.inject(Close(), times=None):
        assert client.get("key", "default") == "default"
    client = make(embedded.address, serde=cymemcache.serde.pickle_serde)
    client.set("key", b"not a pickle", noreply=False, flags=1)
    assert client.get("key", "default") == "default"
    assert broken.seen >= 2


def test_what_a_signal_handler_raises_in_a_log_handler_reaches_the_caller(
    make: Callable[..., Any], embedded: EmbeddedServer
) -> None:
    class Soft(Exception):
        pass

    class Interrupted(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            signal.raise_signal(signal.SIGUSR1)

    def handler(number: int, frame: FrameType | None) -> None:
        raise Soft

    log, logged = logging.getLogger("cymemcache"), Interrupted()
    before = signal.signal(signal.SIGUSR1, handler)
    log.addHandler(logged)
    try:
        client = make(embedded.address, ignore_exc=True)
        client.set("key", b"v", noreply=True)
        with embedded.inject(Close(), times=None), pytest.raises(Soft):
            client.get("key")
    finally:
        log.removeHandler(logged)
        signal.signal(signal.SIGUSR1, before)
