"""Which failures of a command say something about the server, and reach whom: trouble of this
process and what comes from outside (a signal handler's exception, whatever its class) leave every
node as it is and reach the caller.
"""

from __future__ import annotations

import errno
import os
import resource
import selectors
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import pytest

from clusters import Clock, key_of, name_of
from cymemcache import (
    AWSElastiCacheHashClient,
    Client,
    FallbackClient,
    HashClient,
    MemcacheServerError,
    PooledClient,
    RetryingClient,
)
from cymemcache.testing import MemcachedProcess
from exchanges import WrappedSocket, module_with
from wire import PATIENCE

KEYS = [f"key{number}" for number in range(40)]

Address = tuple[str, int]


def states(cluster: HashClient) -> set[str]:
    return {node.state for _, _, node in cluster._members()}


def places(cluster: HashClient) -> list[Any]:
    return [cluster.hasher.get_node(key) for key in KEYS]


# -- trouble of this process -----------------------------------------------------------------------


@contextmanager
def no_descriptors() -> Iterator[None]:
    """No descriptor is left."""
    lowest = os.dup(0)
    os.close(lowest)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


ON_KEYS: dict[str, Callable[[Any], Any]] = {
    "get": lambda client: client.get("key1"),
    "set": lambda client: client.set("key1", b"v", noreply=False),
    "noreply": lambda client: client.set("key1", b"v", noreply=True),
    "get_many": lambda client: client.get_many(KEYS),
    "set_many": lambda client: client.set_many(dict.fromkeys(KEYS, b"v"), noreply=False),
    "delete_many": lambda client: client.delete_many(KEYS, noreply=False),
}
COMMANDS = {
    **ON_KEYS,
    "stats": lambda client: client.stats(),
    "raw_command": lambda client: client.raw_command("version"),
}


@pytest.mark.parametrize("command", list(COMMANDS))
@pytest.mark.parametrize("use_pooling", [False, True])
def test_without_descriptors_the_caller_is_told_and_every_node_stays_up(
    nodes: list[Address], connect_all: Callable[..., HashClient], command: str, use_pooling: bool
) -> None:
    cluster = connect_all(nodes, retry_attempts=0, use_pooling=use_pooling)
    before = places(cluster)
    with no_descriptors(), pytest.raises(OSError, match="Too many open files") as caught:
        COMMANDS[command](cluster)
    assert caught.value.errno == errno.EMFILE
    assert states(cluster) == {"up"}
    assert places(cluster) == before
    assert cluster.set("key1", b"v", noreply=False) is True


def test_a_name_that_cannot_be_looked_up_without_descriptors_is_no_unknown_one(
    nodes: list[Address], connect_all: Callable[..., HashClient]
) -> None:
    cluster = connect_all([("localhost", port) for _, port in nodes], retry_attempts=0)
    with no_descriptors(), pytest.raises(OSError, match="Too many open files") as caught:
        cluster.get("key1")
    assert caught.value.errno == errno.EMFILE
    assert states(cluster) == {"up"}


def test_without_descriptors_a_node_on_a_unix_socket_stays_up(
    tmp_path: Path, memcached_factory: Callable[..., MemcachedProcess]
) -> None:
    path = tmp_path / "socket"
    memcached_factory(unix=path)
    with HashClient([str(path)], retry_attempts=0) as cluster:
        with no_descriptors(), pytest.raises(OSError, match="Too many open files"):
            cluster.get("key1")
        assert states(cluster) == {"up"}


def test_a_unix_socket_that_may_not_be_used_says_nothing_about_its_node() -> None:
    sockets = module_of(connect=OSError(errno.EACCES, "Permission denied"))
    cluster = HashClient(["/path"], retry_attempts=0, socket_module=sockets)
    with pytest.raises(PermissionError):
        cluster.get("key1")
    assert states(cluster) == {"up"}


def test_without_descriptors_ignore_exc_forgives_and_every_node_stays_up(
    nodes: list[Address], connect_all: Callable[..., HashClient]
) -> None:
    cluster = connect_all(nodes, retry_attempts=0, ignore_exc=True)
    before = places(cluster)
    with no_descriptors():
        assert cluster.get("key1", "default") == "default"
        assert cluster.set("key1", b"v", noreply=False) is False
        assert sorted(cluster.set_many(dict.fromkeys(KEYS, b"v"), noreply=False)) == sorted(KEYS)
    assert states(cluster) == {"up"}
    assert places(cluster) == before
    assert cluster.counters.errors["OSError"] >= 3


def test_a_probe_without_descriptors_leaves_a_dead_node_dead(
    nodes: list[Address], connect_all: Callable[..., HashClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    cluster = connect_all(nodes, retry_attempts=0, dead_timeout=10)
    key, node = key_of(cluster, nodes[0]), cluster._member(name_of(nodes[0]))[1]
    node.failed(ConnectionResetError("gone"))
    assert node.state == "dead"
    failures = node.failures
    clock.advance(11)
    with no_descriptors(), pytest.raises(OSError, match="Too many open files"):
        cluster.get(key)
    assert (node.state, node.failures) == ("dead", failures)
    clock.advance(11)
    assert cluster.get(key) is None
    assert node.state == "up"


def test_without_descriptors_the_nodes_of_a_configuration_stay(
    nodes: list[Address], memcached_factory: Callable[..., MemcachedProcess]
) -> None:
    endpoint = memcached_factory().address
    told = "1\n" + " ".join(f"localhost|{host}|{port}" for host, port in nodes) + "\n"
    with Client(endpoint) as writer:
        writer.set("AmazonElastiCache:cluster", told, noreply=False)
    with AWSElastiCacheHashClient(endpoint, discovery_interval=None, retry_attempts=0) as cluster:
        before = set(cluster.clients)
        assert len(before) == len(nodes)
        with no_descriptors():
            with pytest.raises(OSError, match="Too many open files"):
                cluster.reconfigure_nodes()
            with pytest.raises(OSError, match="Too many open files"):
                cluster.get("key1")
        assert set(cluster.clients) == before
        assert states(cluster) == {"up"}


def module_of(**failing: Exception) -> SimpleNamespace:
    """A socket module whose sockets raise these errors in these methods, and connect nowhere."""

    class Socket:
        def __getattr__(self, name: str) -> Any:
            def method(*arguments: Any) -> Any:
                if name in failing:
                    raise failing[name]
                return 0

            return method

    module = module_with(lambda *_: Socket())  # type: ignore[arg-type]
    module.getaddrinfo = lambda host, port, *_: [
        (socket.AF_INET, socket.SOCK_STREAM, 0, "", (host, port))
    ]
    return module


LOCAL = (
    *("EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "EADDRNOTAVAIL", "EACCES", "EPERM", "EINVAL"),
    *("EBADF", "EAFNOSUPPORT", "EAGAIN", "EMSGSIZE"),
)
REMOTE = (
    *("ECONNREFUSED", "ECONNRESET", "ECONNABORTED", "EPIPE", "ETIMEDOUT", "EHOSTUNREACH"),
    *("ENETUNREACH", "ENOENT"),
)


@pytest.mark.parametrize("method", ["connect", "sendall", "recv"])
@pytest.mark.parametrize("name", [*LOCAL, *REMOTE])
def test_only_what_says_something_about_the_server_counts_against_its_node(
    method: str, name: str
) -> None:
    failure = OSError(getattr(errno, name), "failure")
    sockets = module_of(**{method: failure})
    cluster = HashClient([("node", 1)], retry_attempts=0, socket_module=sockets)
    with pytest.raises(OSError, match="failure") as caught:
        cluster.delete("key1", noreply=False)
    assert caught.value is failure
    assert states(cluster) == {"up" if name in LOCAL else "dead"}


@pytest.mark.parametrize("name", ["EAI_MEMORY", "EAI_NONAME"])
def test_a_lookup_that_fails_for_this_machine_says_nothing_about_the_server(name: str) -> None:
    sockets = module_of()

    def getaddrinfo(*_: Any) -> Any:
        raise socket.gaierror(getattr(socket, name), "failure")

    sockets.getaddrinfo = getaddrinfo
    cluster = HashClient([("node", 1)], retry_attempts=0, socket_module=sockets)
    with pytest.raises(socket.gaierror):
        cluster.get("key1")
    assert states(cluster) == {"up" if name == "EAI_MEMORY" else "dead"}


def test_of_several_addresses_the_one_that_is_about_the_server_tells() -> None:
    refused = OSError(errno.ECONNREFUSED, "refused")
    local = OSError(errno.EADDRNOTAVAIL, "no address of that family")

    class Socket(WrappedSocket):
        def connect(self, address: Any) -> None:
            raise refused if address[0] == "one" else local

    sockets = module_with(Socket)
    sockets.getaddrinfo = lambda host, port, *_: [
        (socket.AF_INET, socket.SOCK_STREAM, 0, "", (name, port)) for name in ("one", "other")
    ]
    cluster = HashClient([("node", 1)], retry_attempts=0, socket_module=sockets)
    with pytest.raises(ConnectionRefusedError) as caught:
        cluster.get("key1")
    assert caught.value is refused
    assert "no address of that family" in caught.value.__notes__[0]
    assert states(cluster) == {"dead"}


# -- what comes from outside -----------------------------------------------------------------------


class SoftLimit(Exception):
    """As soft time limits of task queues are."""


MINE: list[Exception] = [
    SoftLimit("mine"),
    TimeoutError("mine"),
    ConnectionResetError(errno.ECONNRESET, "mine"),
    BlockingIOError(errno.EAGAIN, "mine"),
    OSError(errno.EMFILE, "mine"),
    RuntimeError("mine"),
    ValueError("mine"),
    MemcacheServerError("mine"),
]
mine = pytest.mark.parametrize("error", MINE, ids=lambda error: type(error).__name__)


@pytest.fixture(autouse=True)
def let_go() -> Iterator[None]:
    """Let go of the frames, and the connections in them, that the errors keep.

    Outside of the commands that are interrupted nothing is: what is closed then is closed.
    """
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGUSR1, before)
    for error in MINE:
        error.__traceback__ = error.__context__ = None


@contextmanager
def raising(error: Exception) -> Iterator[None]:
    """A handler of SIGUSR1 raises `error`."""

    def handler(number: int, frame: FrameType | None) -> None:
        raise error

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


def outcome(call: Callable[..., Any], *arguments: Any) -> Any:
    """What `call` raises, or else what it gives."""
    try:
        return call(*arguments)
    except Exception as error:
        return error


class Interrupter:
    """A server that never answers: what it is sent has this process get a signal.

    So the signal comes while a command waits, and nothing else is done.
    """

    def __init__(self, listener: socket.socket) -> None:
        self.address: Address = listener.getsockname()
        self._listener = listener
        self._caller = threading.get_ident()
        self._armed = False
        self._is_over = False
        self._call = 0  # the number of the one that is interrupted
        self._error: BaseException = AssertionError()

    def interrupt(self, error: BaseException, call: Callable[..., Any], *arguments: Any) -> Any:
        """What `call` raises, or else what it gives, where a handler raises `error` meanwhile."""
        self._error = error
        before = signal.signal(signal.SIGUSR1, self._handle)
        hook, sys.unraisablehook = sys.unraisablehook, self._again
        try:
            self._armed = True
            return outcome(call, *arguments)
        finally:
            self._armed = False
            self._call += 1
            sys.unraisablehook = hook
            signal.signal(signal.SIGUSR1, before)

    def _again(self, lost: Any) -> None:
        """Python itself lets go of what is raised in a finalizer: once more."""
        self._armed = True

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._armed:
            self._armed = False
            raise self._error

    def serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            try:
                while True:
                    for key, _ in selector.select():
                        connection: Any = key.fileobj
                        if connection is self._listener:
                            selector.register(connection.accept()[0], selectors.EVENT_READ)
                        elif connection.recv(65536):
                            self._send_signals()
                        else:
                            selector.unregister(connection)
                            connection.close()
            except OSError:  # the listener is shut down
                for key in list(selector.get_map().values()):
                    key.fileobj.close()  # type: ignore[union-attr]

    def _send_signals(self) -> None:
        # One that comes just before a system call does not end it.
        number = self._call
        while number == self._call and not self._is_over:
            if self._armed:
                signal.pthread_kill(self._caller, signal.SIGUSR1)
            time.sleep(0.002)


@pytest.fixture
def silent() -> Iterator[Interrupter]:
    listener = socket.create_server(("127.0.0.1", 0))
    server = Interrupter(listener)
    thread = threading.Thread(target=server.serve)
    thread.start()
    yield server
    server._is_over = True
    listener.shutdown(socket.SHUT_RDWR)
    thread.join()
    listener.close()


@mine
@pytest.mark.parametrize("ignore_exc", [False, True])
@pytest.mark.parametrize("command", ["get", "gets", "set", "delete", "get_many", "stats"])
def test_what_a_handler_raises_while_a_command_waits_reaches_the_caller(
    silent: Interrupter,
    connect_all: Callable[..., HashClient],
    command: str,
    ignore_exc: bool,
    error: Exception,
) -> None:
    commands: dict[str, Callable[[Any], Any]] = {
        **COMMANDS,
        "gets": lambda client: client.gets("key1"),
        "delete": lambda client: client.delete("key1", noreply=False),
    }
    cluster = connect_all([silent.address], retry_attempts=0, ignore_exc=ignore_exc)
    for client in (cluster, cluster.clients[name_of(silent.address)]):
        assert silent.interrupt(error, commands[command], client) is error
    assert states(cluster) == {"up"}


@mine
@pytest.mark.parametrize("kind", [Client, PooledClient])
@pytest.mark.parametrize("ignore_exc", [False, True])
def test_what_a_handler_raises_while_a_dial_waits_reaches_the_caller(
    silent: Interrupter, kind: Any, ignore_exc: bool, error: Exception
) -> None:
    context = ssl.create_default_context()
    options: Any = {"tls_context": context, "ignore_exc": ignore_exc, "connect_timeout": PATIENCE}
    with kind(silent.address, **options) as client:
        assert silent.interrupt(error, client.get, "key1") is error
    with HashClient([silent.address], retry_attempts=0, **options) as cluster:
        for command in ("get", "get_many"):
            assert silent.interrupt(error, COMMANDS[command], cluster) is error
        assert states(cluster) == {"up"}


@mine
def test_what_a_handler_raises_at_one_address_ends_the_dial(error: Exception) -> None:
    tried: list[Any] = []

    class Socket(WrappedSocket):
        def connect(self, address: Any) -> None:
            tried.append(address)
            signal.raise_signal(signal.SIGUSR1)

    sockets = module_with(Socket)
    sockets.getaddrinfo = lambda host, port, *_: [
        (socket.AF_INET, socket.SOCK_STREAM, 0, "", (name, port)) for name in ("one", "other")
    ]
    cluster = HashClient([("node", 1)], retry_attempts=0, socket_module=sockets, ignore_exc=True)
    with raising(error):
        assert outcome(cluster.get, "key1") is error
    assert tried == [("one", 1)]
    assert states(cluster) == {"up"}


class InterruptedClose(socket.socket):
    """A plain socket in the close of which a signal comes."""

    def close(self) -> None:
        was_open = self.fileno() >= 0
        super().close()
        # Not a second time, in a finalizer, nor when the test is over.
        if was_open and callable(signal.getsignal(signal.SIGUSR1)):
            signal.raise_signal(signal.SIGUSR1)


class InterruptedCloseOfAnyKind(InterruptedClose, WrappedSocket):
    """The same for the other exchange."""


@pytest.fixture(params=[InterruptedClose, InterruptedCloseOfAnyKind])
def interrupted_close(request: pytest.FixtureRequest) -> SimpleNamespace:
    return module_with(request.param)


@mine
@pytest.mark.parametrize("kind", [Client, PooledClient])
def test_what_a_handler_raises_while_a_client_closes_reaches_the_caller(
    nodes: list[Address], interrupted_close: SimpleNamespace, kind: Any, error: Exception
) -> None:
    def leave(client: Any) -> None:
        with client:
            pass

    def settle(client: Any) -> None:
        client.set("key1", b"v", noreply=True)
        client.close()

    ends: list[Callable[[Any], Any]] = [
        *(leave, settle, lambda client: client.close(), lambda client: client.quit()),
        lambda client: setattr(client, "sock", None),
    ]
    for end in ends:
        client = kind(nodes[0], socket_module=interrupted_close, ignore_exc=True)
        with raising(error):
            client.get("key1")
            assert outcome(end, client) is error
        client.close()


@mine
def test_what_a_handler_raises_while_a_cluster_closes_reaches_the_caller(
    nodes: list[Address], interrupted_close: SimpleNamespace, error: Exception
) -> None:
    def leave(client: Any) -> None:
        with client:
            pass

    ends: list[Callable[[Any], Any]] = [
        *(leave, lambda client: client.close(), lambda client: client.quit()),
        lambda client: client.remove_server(nodes[0]),
    ]
    for end in ends:
        cluster = HashClient(nodes, socket_module=interrupted_close, ignore_exc=True)
        with raising(error):
            cluster.version()
            assert outcome(end, cluster) is error
        cluster.close()


@mine
def test_what_a_handler_raises_while_a_connection_is_settled_reaches_the_caller(
    silent: Interrupter, connect: Callable[..., Client], error: Exception
) -> None:
    client = connect(silent.address)
    client._learn(True)  # that there is a barrier to wait for
    client.set("key1", b"v", noreply=True)
    assert silent.interrupt(error, client.close) is error


@mine
def test_what_a_handler_raises_in_a_serde_reaches_the_caller(
    nodes: list[Address], connect: Callable[..., Client], error: Exception
) -> None:
    def deserialize(key: Any, value: bytes, flags: int) -> None:
        signal.raise_signal(signal.SIGUSR1)

    client = connect(nodes[0], ignore_exc=True, deserializer=deserialize)
    client.set("key1", b"v", noreply=False)
    with raising(error):
        assert outcome(client.get, "key1") is error
        assert outcome(client.get_many, ["key1"]) is error


@mine
def test_what_a_handler_raises_is_not_tried_again(silent: Interrupter, error: Exception) -> None:
    with Client(silent.address, timeout=PATIENCE) as inner:
        client = RetryingClient(inner, attempts=3)
        assert silent.interrupt(error, client.get, "key1") is error


@mine
def test_what_a_handler_raises_in_the_close_of_a_later_cache_is_not_hidden_by_an_earlier_one(
    nodes: list[Address], error: Exception
) -> None:
    class Broken:
        def close(self) -> None:
            raise OSError("broken")

    later = Client(nodes[0], socket_module=module_with(InterruptedClose))
    later.get("key1")
    with raising(error):
        assert outcome(FallbackClient([Broken(), later]).close) is error


def test_the_error_of_another_client_in_a_handler_is_the_handlers(
    silent: Interrupter, connect_all: Callable[..., HashClient]
) -> None:
    """It names another server, and says nothing about the one whose command it interrupts."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nobody = listener.getsockname()

    class Interrupted(Interrupter):
        def _handle(self, number: int, frame: FrameType | None) -> None:
            if self._armed:
                self._armed = False
                Client(nobody).get("key1")

    silent.__class__ = Interrupted
    cluster = connect_all([silent.address], retry_attempts=0, ignore_exc=True)
    for command in ("get", "set", "get_many"):
        error = silent.interrupt(AssertionError(), COMMANDS[command], cluster)
        assert isinstance(error, ConnectionRefusedError)
        assert vars(error)["server"] == nobody
    assert states(cluster) == {"up"}


def test_a_connection_that_was_closed_is_not_closed_again_by_its_finalizer(
    nodes: list[Address], connect: Callable[..., Client]
) -> None:
    """There what a handler raises would reach nobody."""
    closed = []

    class Socket(WrappedSocket):
        def close(self) -> None:
            closed.append(self.fileno() >= 0)
            super().close()

    client = connect(nodes[0], socket_module=module_with(Socket))
    client.get("key1")
    client.close()
    assert closed == [True]


def test_an_error_of_a_sockets_close_is_forgiven(
    nodes: list[Address], connect: Callable[..., Client]
) -> None:
    class Socket(WrappedSocket):
        def close(self) -> None:
            super().close()
            raise OSError(errno.EIO, "it cannot be closed")

    client = Client(nodes[0], socket_module=module_with(Socket))
    client.get("key1")
    client.close()
    with suppress(OSError):
        client.get("key1")


class OfManyClasses(TimeoutError, KeyError, IndexError, ValueError, TypeError, RuntimeError):
    """What any clause for a particular class would catch."""


@contextmanager
def raised_in(function: str, number: int) -> Iterator[OfManyClasses]:
    """Have a handler raise what is given here at that line of those that `function` runs."""
    lines = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal lines
        if frame.f_code.co_qualname != function:
            return None
        lines += event == "line"
        if event == "line" and lines == number:
            signal.raise_signal(signal.SIGUSR1)
        return trace

    before = sys.gettrace()
    error = OfManyClasses("mine")
    with raising(error):
        sys.settrace(trace)
        try:
            yield error
        finally:
            sys.settrace(before)
    assert lines >= number


@pytest.mark.parametrize(
    ("function", "number"),
    [
        *(("ConnectionPool._find_unused", 3), ("_identity", 2), ("_Nowhere.is_there", 2)),
        *(("convert_stats", 4), ("_identity_of", 1)),
    ],
)
def test_what_a_handler_raises_within_a_try_of_ours_reaches_the_caller(
    nodes: list[Address], connect: Callable[..., Client], function: str, number: int
) -> None:
    connect(nodes[1]).get("key1")  # there is a socket that leads nowhere now
    client = connect(nodes[0], ignore_exc=True)
    with raised_in(function, number) as error:
        assert outcome(client.stats) is error


def test_what_a_handler_raises_while_discovery_begins_reaches_the_caller() -> None:
    class Poller:
        def start(self, owner: object) -> None:
            signal.raise_signal(signal.SIGUSR1)

    error = RuntimeError("mine")
    start: Any = AWSElastiCacheHashClient._start
    with raising(error):
        assert outcome(start, None, Poller()) is error


def test_a_certificate_that_is_refused_is_forgiven_in_a_method_of_somebodys_own(
    nodes: list[Address], connect_all: Callable[..., HashClient]
) -> None:
    class Refused(Client):
        def get_many(self, keys: Any) -> Any:
            error: Any = ssl.SSLCertVerificationError(1, "refused")
            error.server = self.server
            raise error

    cluster = connect_all(nodes, ignore_exc=True, retry_attempts=0)
    name = name_of(nodes[0])
    cluster.set_many(dict.fromkeys(KEYS, b"v"), noreply=False)
    cluster.clients[name] = Refused(nodes[0])
    lost = [key for key in KEYS if cluster.hasher.get_node(key) == name]
    assert set(cluster.get_many(KEYS)) == set(KEYS) - set(lost)
