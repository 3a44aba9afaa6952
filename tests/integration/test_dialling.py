"""How a connection is made: every address is tried, all within one time limit, and none leaks."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cymemcache import Client, HashClient, KeepaliveOpts
from cymemcache.testing import EmbeddedServer, MemcachedProcess
from cymemcache.testing.process import free_port
from exchanges import MODULES, WrappedSocket, module_with, open_sockets
from wire import PATIENCE, Server, wait_until

SOCKETS = {"plain": socket.socket, "any": WrappedSocket}


@pytest.fixture(params=sorted(SOCKETS))
def socket_class(request: pytest.FixtureRequest) -> Any:
    return SOCKETS[request.param]


def resolving(socket_class: type, *addresses: tuple[str, int]) -> SimpleNamespace:
    """A socket module to which every name has these IPv4 addresses."""
    module = module_with(socket_class)
    kind = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
    module.getaddrinfo = lambda *arguments: [(*kind, address) for address in addresses]
    return module


@pytest.fixture
def embedded() -> Iterator[EmbeddedServer]:
    with EmbeddedServer() as server:
        yield server


def test_the_second_address_is_used_where_only_that_one_listens(
    embedded: EmbeddedServer, socket_class: type
) -> None:
    module = resolving(socket_class, ("127.0.0.2", embedded.address[1]), embedded.address)
    with Client("cache", socket_module=module, timeout=PATIENCE) as client:
        assert client.set("k", b"value", noreply=False) is True
        assert client.get("k") == b"value"
        assert client.sock.getpeername() == embedded.address


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_localhost_is_reached_on_whichever_of_its_addresses_listens(host: str) -> None:
    found = {address[0] for *_, address in socket.getaddrinfo("localhost", 1, type=1)}
    if host not in found:
        # A machine whose localhost has one address only has no second one to be tried.
        host = found.pop()
    with (
        EmbeddedServer(host=host) as server,
        Client(("localhost", server.address[1]), connect_timeout=PATIENCE) as client,
    ):
        assert client.set("k", b"value", noreply=False) is True
        assert client.sock.getpeername()[0] == host


def test_the_last_error_is_raised_with_the_others_in_its_notes(socket_class: type) -> None:
    port = free_port()
    module = resolving(socket_class, *((f"127.0.0.{number}", port) for number in (1, 2, 3)))
    before = open_sockets()
    client = Client("cache", socket_module=module)
    with pytest.raises(ConnectionRefusedError) as caught:
        client.get("k")
    assert caught.value.errno == errno.ECONNREFUSED
    notes = caught.value.__notes__
    assert len(notes) == 2
    assert "127.0.0.1" in notes[0]
    assert "127.0.0.2" in notes[1]
    assert open_sockets().keys() == before.keys()


def test_a_name_without_address_is_an_error() -> None:
    module = resolving(socket.socket)
    with pytest.raises(OSError, match="'cache' has no address"):
        Client("cache", socket_module=module).get("k")


class Deaf(socket.socket):
    """Connects to nobody, within the time that it is given."""

    def connect(self, address: Any) -> None:
        timeout = self.gettimeout()
        assert timeout is not None
        time.sleep(timeout)
        raise TimeoutError("timed out")


def test_connect_timeout_bounds_all_addresses_together() -> None:
    module = resolving(Deaf, *((f"127.0.0.{number}", 1) for number in range(1, 6)))
    client = Client("cache", socket_module=module, connect_timeout=0.3)
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        client.get("k")
    assert 0.25 < time.monotonic() - began < 3


def test_an_address_that_swallows_packets_leaves_time_for_the_next(
    embedded: EmbeddedServer,
) -> None:
    class DeafAtFirst(socket.socket):
        def connect(self, address: Any) -> None:
            if address[0] == "127.0.0.9":
                return Deaf.connect(self, address)  # type: ignore[arg-type]
            return super().connect(address)

    module = resolving(DeafAtFirst, ("127.0.0.9", 1), embedded.address)
    with Client("cache", socket_module=module, connect_timeout=0.4) as client:
        assert client.set("k", b"value", noreply=False) is True


def test_an_interrupted_dial_leaves_no_descriptor_and_a_usable_client(
    embedded: EmbeddedServer,
) -> None:
    class Stop(BaseException):
        pass

    interrupted = True

    class Interrupted(socket.socket):
        def connect(self, address: Any) -> None:
            super().connect(address)
            if interrupted:
                raise Stop

    wait_until(lambda: embedded.open_connections == 0)  # those of other tests
    before = open_sockets()
    client = Client(embedded.address, socket_module=module_with(Interrupted))
    for _ in range(3):
        with pytest.raises(Stop):
            client.get("k")
    wait_until(lambda: embedded.open_connections == 0)  # they are this process's, too
    assert open_sockets().keys() == before.keys()
    interrupted = False
    with client:
        assert client.set("k", b"value", noreply=False) is True


def test_a_refused_connection_does_no_harm_to_the_client(socket_class: type) -> None:
    port = free_port()
    module = module_with(socket_class)
    client = Client(("127.0.0.1", port), socket_module=module, connect_timeout=PATIENCE)
    for _ in range(3):
        with pytest.raises(ConnectionRefusedError):
            client.set("k", b"value")
    with MemcachedProcess(port=port), client:
        assert client.set("k", b"value", noreply=False) is True
        assert client.get("k") == b"value"


def test_unix_sockets(
    memcached_factory: Callable[..., MemcachedProcess], tmp_path: Path, socket_class: type
) -> None:
    path = tmp_path / "memcached.sock"
    memcached_factory(unix=path)
    module = module_with(socket_class)
    for server in (str(path), f"unix:{path}"):
        with Client(server, socket_module=module, timeout=PATIENCE) as client:
            assert client.server == str(path)
            assert client.set("k", b"value", noreply=False) is True
            assert client.get("k") == b"value"
            assert client.sock.family == socket.AF_UNIX
    with pytest.raises(FileNotFoundError):
        Client(str(tmp_path / "none.sock")).get("k")


def test_ipv6(socket_class: type) -> None:
    with EmbeddedServer(host="::1") as server:
        port = server.address[1]
        for address in (("::1", port), f"[::1]:{port}"):
            with Client(address, socket_module=module_with(socket_class)) as client:
                assert client.set("k", b"value", noreply=False) is True
                assert client.sock.family == socket.AF_INET6


def test_nagles_algorithm_is_off_unless_it_is_asked_for(running_memcached: Server) -> None:
    for options, expected in (({}, True), ({"no_delay": True}, True), ({"no_delay": False}, False)):
        with Client(running_memcached.address, **options) as client:  # type: ignore[arg-type]
            client.version()
            found = client.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert bool(found) is expected


def test_keepalive_is_set_as_it_was_asked_for(running_memcached: Server) -> None:
    with Client(running_memcached.address) as client:
        client.version()
        assert client.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
    options = KeepaliveOpts(idle=30, intvl=7, cnt=4)
    with Client(running_memcached.address, socket_keepalive=options) as client:
        client.version()
        sock = client.sock
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        names = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")
        found = [sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in names]
        assert found == [30, 7, 4]


# -- sockets that are assigned ---------------------------------------------------------------------


class Scripted:
    """All that an assigned socket must know."""

    def __init__(self, *received: Any) -> None:
        self.received = list(received)
        self.sent = b""
        self.closed = False

    def sendall(self, data: bytes) -> None:
        self.sent += data

    def recv(self, size: int) -> bytes:
        found = self.received.pop(0) if self.received else b""
        if isinstance(found, BaseException):
            raise found
        return found  # type: ignore[no-any-return]

    def settimeout(self, timeout: float | None) -> None:
        pass

    def close(self) -> None:
        self.closed = True


def test_an_assigned_socket_is_used_and_stays_what_it_is() -> None:
    client = Client("nowhere.invalid", timeout=1)
    sock = Scripted(b"STORED\r\n", b"VALUE k 0 5\r\nva", b"lue\r\n", b"END\r\n")
    client.sock = sock
    assert client.sock is sock
    assert client.set("k", b"value", noreply=False) is True
    assert client.get("k") == b"value"
    assert client.sock is sock
    assert sock.sent == b"set k 0 0 5\r\nvalue\r\nget k\r\n"
    client.close()
    assert sock.closed
    assert client.sock is None


def test_assigning_none_closes() -> None:
    client = Client("nowhere.invalid")
    client.sock = sock = Scripted()
    client.sock = None
    assert sock.closed
    assert client.sock is None


@pytest.mark.parametrize(
    "server", [("localhost", 65536 + 80), ("localhost", -1), ("a" * 64, 1), ("a..b", 1), ("\0", 1)]
)
def test_a_pair_that_leads_nowhere_is_an_error_of_looking_it_up(server: tuple[str, int]) -> None:
    with pytest.raises(socket.gaierror):
        Client(server).get("k")


def test_a_node_whose_name_cannot_be_looked_up_dies_like_any_other(
    embedded: EmbeddedServer,
) -> None:
    cluster = HashClient(
        [embedded.address, ("a..b", 11211)], retry_attempts=0, ignore_exc=True, timeout=PATIENCE
    )
    keys = [f"key{number}" for number in range(20)]
    with cluster:
        cluster.get_many(keys)
        assert cluster.set_many(dict.fromkeys(keys, b"v"), noreply=False) == []
        assert cluster.get_many(keys) == dict.fromkeys(keys, b"v")


@pytest.mark.parametrize("error", [OSError(5, "x"), KeyboardInterrupt(), RuntimeError("mine")])
def test_what_recv_raises_comes_out_as_it_is_and_ends_the_connection(error: BaseException) -> None:
    client = Client("nowhere.invalid", timeout=1)
    client.sock = sock = Scripted(error)
    with pytest.raises(type(error)) as caught:
        client.set("k", b"value", noreply=False)
    assert caught.value is error
    assert sock.closed
    assert client.sock is None


def test_a_socket_module_may_offer_little_more_than_sockets(embedded: EmbeddedServer) -> None:
    with Client(embedded.address, socket_module=MODULES["any"], timeout=PATIENCE) as client:
        assert client.set("k", b"value", noreply=False) is True
        assert client.get("k") == b"value"
