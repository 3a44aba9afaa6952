"""A socket class of a user's own is used through its own methods: whatever it does in one of them
happens to every byte, on either implementation.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from cymemcache import Client, HashClient, PooledClient
from cymemcache.testing import EmbeddedServer
from exchanges import module_with
from wire import PATIENCE

_SECRET = bytes(byte ^ 0x5A for byte in range(256))


def encrypted(data: Any) -> bytes:
    return bytes(data).translate(_SECRET)


class Encrypting(socket.socket):
    """What an application does that wants its traffic encrypted; it inherits `recv_into`."""

    def sendall(self, data: Any, *args: Any) -> None:
        super().sendall(encrypted(data), *args)

    def recv(self, *args: Any) -> bytes:
        return encrypted(super().recv(*args))


class Relay:
    """Decrypts what comes for the server at `target`, and encrypts what that answers."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = self._listener.getsockname()
        self.seen = b""  # between it and its clients
        self._ends: list[socket.socket] = []
        self._clients: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._target)
            self._clients.append(client)
            self._ends += [client, server]
            for pair in ((client, server), (server, client)):
                threading.Thread(target=self._pass_on, args=pair, daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(1 << 16):
                changed = encrypted(data)
                self.seen += data if source in self._clients else changed
                target.sendall(changed)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self) -> None:
        self._listener.close()
        for end in self._ends:
            end.close()


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer() as embedded:
        yield embedded


@pytest.mark.parametrize("kind", ["Client", "PooledClient", "HashClient"])
def test_what_a_class_encrypts_never_goes_out_in_the_clear(
    kind: str, server: EmbeddedServer
) -> None:
    relay = Relay(server.address)
    options: Any = {"timeout": PATIENCE, "socket_module": module_with(Encrypting)}
    client: Any
    if kind == "HashClient":
        client = HashClient([relay.address], **options)
    else:
        client = {"Client": Client, "PooledClient": PooledClient}[kind](relay.address, **options)
    with client:
        assert client.set("secret", b"value", noreply=False) is True
        assert client.get("secret") == b"value"
        client.set("secret", b"other", noreply=True)
        many = {f"secret-{number}": b"%d" % number for number in range(2000)}
        assert client.set_many(many, noreply=False) == []
        assert client.get_many(many) == many
        assert client.get("secret") == b"other"
    relay.close()
    assert encrypted(b"secret") in relay.seen
    assert b"secret" not in relay.seen


METHODS = ("fileno", "recv", "recv_into", "send", "sendall", "setsockopt", "settimeout")


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("where", ["class", "object"])
def test_a_socket_with_a_method_of_its_own_is_not_plain(
    name: str, where: str, server: EmbeddedServer
) -> None:
    def own(self: Any, *args: Any) -> Any:
        return getattr(socket.socket, name)(self, *args)

    class Socket(socket.socket):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            if where == "object":
                vars(self)[name] = lambda *given: own(self, *given)

    if where == "class":
        setattr(Socket, name, own)
    with Client(server.address, timeout=PATIENCE, socket_module=module_with(Socket)) as client:
        assert client.get("k", "miss") == "miss"
        (connection,) = client._pool._idle
        assert type(connection).__name__ == "AnyExchange"


def test_a_class_that_only_adds_to_a_socket_stays_plain(server: EmbeddedServer) -> None:
    class Socket(socket.socket):
        def shutdown(self, how: int) -> None:
            super().shutdown(how)

    options: Any = {"timeout": PATIENCE}
    with (
        Client(server.address, socket_module=module_with(Socket), **options) as client,
        Client(server.address, **options) as other,
    ):
        assert client.get("k", "miss") == other.get("k", "miss") == "miss"
        assert type(client._pool._idle[0]) is type(other._pool._idle[0])


@pytest.mark.parametrize("where", ["class", "patched"])
def test_a_guard_in_connect_is_asked(
    where: str, server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Test tools patch it to keep programs from the network.
    def guarded(self: Any, address: Any) -> None:
        raise PermissionError("no network in here")

    module: Any = socket
    if where == "patched":
        monkeypatch.setattr(socket.socket, "connect", guarded, raising=False)
    else:
        module = module_with(type("Guarded", (socket.socket,), {"connect": guarded}))
    client = Client(server.address, timeout=PATIENCE, socket_module=module)
    with pytest.raises(PermissionError, match="no network in here"):
        client.get("k")
