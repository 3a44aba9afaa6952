"""The floor in Python: send and receive on Python's own socket; nothing encoded, nothing parsed.

A reply of more than a page goes into a fresh bytearray each time, since a client must give its
caller something new.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from .. import wire
from ..workloads import Items, Setup
from . import Commands

_SMALL = 4096


class Exchange:
    """A command whose request and reply are worked out before it is timed."""

    def __init__(self, sock: Any, command: str) -> None:
        self._sock = sock
        self._command = command

    def prepare(self, items: Items) -> tuple[Callable[..., bytes], bytes]:
        """What is timed, and what it must give."""
        request = wire.request(self._command, items)
        reply = wire.reply(self._command, items)
        assert request is not None
        size = len(reply)
        send = self._sock.send if len(request) < 1 << 16 else self._sock.sendall
        recv, recv_into = self._sock.recv, self._sock.recv_into

        def small(*_: Any) -> bytes:
            send(request)
            return recv(_SMALL)

        def large(*_: Any) -> bytearray:
            send(request)
            target = bytearray(size)
            received = recv_into(target)
            if received < size:
                view = memoryview(target)
                while received < size:
                    received += recv_into(view[received:])
            return target

        # Replies to a batch may come in pieces, however small.
        return (small if size <= _SMALL and len(items) == 1 else large), reply


def _connected(setup: Setup) -> Any:
    (server,) = setup.servers
    if isinstance(server, str):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(setup.timeout)
        sock.connect(server)
        return sock
    sock = socket.create_connection(server, timeout=setup.timeout)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if setup.certificate is None:
        return sock
    import ssl

    context = ssl.create_default_context(cafile=setup.certificate)
    return context.wrap_socket(sock, server_hostname=server[0])


def single(setup: Setup) -> Commands:
    if setup.pickled:  # nothing is encoded here
        return {}
    sock = _connected(setup)
    names = ("get", "get_miss", "set", "get_many", "set_many", "delete_many")
    return {name: Exchange(sock, name) for name in names}  # type: ignore[misc]


def hold(setup: Setup, count: int, key: str) -> Any:
    """`count` sockets, each of which has fetched `key`."""
    held = []
    for _ in range(count):
        sock = _connected(setup)
        sock.send(b"get %b\r\n" % key.encode())
        reply = b""
        while not reply.endswith(b"END\r\n"):
            reply += sock.recv(1 << 16)
        held.append(sock)
    return held
