"""What `connect_timeout` bounds and what it does not: full queues, long times, looking up names."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clusters import name_of
from cymemcache import Client, HashClient, MemcacheNodeDownError
from cymemcache.testing import EmbeddedServer
from cymemcache.testing.process import free_port
from exchanges import MODULES, module_with
from wire import PATIENCE, Server, wait_until

MONTH = 30 * 86400.0  # seconds, more milliseconds than an int of C has


class Full:
    """A UNIX socket on which nobody is accepted until `accept`; its queue is full."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(0)
        self._queued: list[socket.socket] = []
        self._thread = threading.Thread(target=self._run)
        while True:
            sock = socket.socket(socket.AF_UNIX)
            sock.setblocking(False)
            self._queued.append(sock)
            try:
                sock.connect(self.path)
            except BlockingIOError:
                return

    def accept(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        for _ in range(len(self._queued)):  # the last one was not let in, a client is
            sock, _ = self._listener.accept()
            with sock:
                sock.settimeout(PATIENCE)
                while line := sock.recv(1 << 16):
                    sock.sendall(b"VERSION 1\r\n" if line == b"version\r\n" else b"END\r\n")

    def close(self) -> None:
        for sock in self._queued:
            sock.close()
        self._listener.close()
        if self._thread.ident is not None:
            self._thread.join(PATIENCE)
            assert not self._thread.is_alive()


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Full]:
    server = Full(tmp_path / "socket")
    yield server
    server.close()


@pytest.mark.parametrize("connect_timeout", [None, PATIENCE])
@pytest.mark.parametrize("kind", [Client, HashClient])
def test_a_unix_socket_whose_queue_is_full_is_waited_for(
    full: Full, kind: Any, connect_timeout: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[float] = []  # at the clock, of which each try takes one or two

    def now() -> float:
        looks.append(time.monotonic())
        return looks[-1]

    monkeypatch.setattr("cymemcache.connection.monotonic", now)
    client = kind(full.path if kind is Client else [full.path], connect_timeout=connect_timeout)
    found: list[Any] = []
    caller = threading.Thread(target=lambda: found.append(client.get_many(["k"])))
    caller.start()
    wait_until(lambda: len(looks) > 12)
    for sock in full._queued:
        sock.close()
    full.accept()
    caller.join(PATIENCE)
    client.close()
    assert found == [{}]


def test_a_unix_socket_whose_queue_stays_full_is_no_longer_waited_for_than_allowed(
    full: Full,
) -> None:
    with (
        Client(full.path, connect_timeout=0.01) as client,
        pytest.raises(TimeoutError, match=r"no connection within 0\.01 s"),
    ):
        client.get("k")


def test_a_full_queue_holds_up_no_other_node(full: Full, embedded: EmbeddedServer) -> None:
    with HashClient([full.path, embedded.address], connect_timeout=0.01) as cluster:
        cluster.ignore_exc = True
        versions = cluster.version()
    assert versions[full.path] is None
    assert versions[name_of(embedded.address)] is not None


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_time_may_be_longer_than_an_int_of_milliseconds(
    running_memcached: Server, running_embedded: Server, tmp_path: Path, module: str
) -> None:
    options = {
        "connect_timeout": MONTH,
        "timeout": MONTH,
        "socket_module": MODULES[module],
    }
    with EmbeddedServer(unix_path=tmp_path / "socket") as server:
        addresses = [running_memcached.address, running_embedded.address, str(tmp_path / "socket")]
        for address in addresses:
            with Client(address, **options) as client:
                client.set_many({f"k{number}": b"x" * 1000 for number in range(50)}, noreply=True)
                assert len(client.get_many([f"k{number}" for number in range(50)])) == 50
        with HashClient(addresses, use_pooling=True, pool_wait_timeout=MONTH, **options) as cluster:
            assert cluster.set_many(dict.fromkeys("abcdefgh", b"v"), noreply=False) == []
            assert cluster.get_many(list("abcdefgh")) == dict.fromkeys("abcdefgh", b"v")
        del server


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Any, list[str]]]:
    """``resolver(*addresses)``: a socket module, and the names that it was asked for.

    Each look-up takes ten seconds of the dialler's clock.
    """
    clock = [1000.0]
    monkeypatch.setattr("cymemcache.connection.monotonic", lambda: clock[0])

    def make(*addresses: tuple[str, int]) -> tuple[Any, list[str]]:
        asked: list[str] = []
        module = module_with(socket.socket)

        def getaddrinfo(host: str, *arguments: Any) -> list[Any]:
            asked.append(host)
            clock[0] += 10
            kind = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
            return [(*kind, address) for address in addresses]

        module.getaddrinfo = getaddrinfo
        return module, asked

    return make


def test_looking_up_a_name_is_not_part_of_connect_timeout(
    embedded: EmbeddedServer, resolver: Callable[..., tuple[Any, list[str]]]
) -> None:
    module, asked = resolver(embedded.address)
    address = ("cache", embedded.address[1])
    with Client(address, socket_module=module, connect_timeout=1) as client:
        assert client.get("k") is None
    assert asked == ["cache"]


def test_a_name_is_looked_up_once_for_each_dial(
    resolver: Callable[..., tuple[Any, list[str]]],
) -> None:
    port = free_port()
    module, asked = resolver(("127.0.0.1", port), ("127.0.0.2", port), ("127.0.0.3", port))
    with Client(("cache", port), socket_module=module) as client:
        for number in (1, 2):
            with pytest.raises(ConnectionRefusedError):
                client.get("k")
            assert len(asked) == number
    with (
        HashClient([("cache", port)], socket_module=module, retry_attempts=0) as cluster,
        pytest.raises((ConnectionRefusedError, MemcacheNodeDownError)),
    ):
        cluster.get_many(["k"])
    assert len(asked) == 3
