"""A client that needs no server: `MockMemcacheClient`, for unit tests of code that uses a cache.

It is the real `Client` on sockets that lead to an embedded cache in the same object, so keys,
serializers, noreply, expiry, cas and errors behave as they do with a server, by construction.
Nothing in here opens a descriptor or starts a thread.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..client import Client
from ..options import MOCK_CLIENT
from .service import Service
from .store import Cache
from .strict import new_session

if TYPE_CHECKING:
    from typing import Unpack

    from ..options import ClientOptions

_VERSION = "MockMemcacheClient"

_UNUSED = ("socket_keepalive", "tls_context", "username", "password")


class MockMemcacheClient(Client):
    """A `Client` that keeps its items in memory, where no other client sees them.

    It takes the options of `Client` by name, and those that `pymemcache.test.utils` has for its
    mock by position too.  Nothing is done with `server`, nor with the options about the network.
    `clock` is a function that gives UNIX time, by which items expire (`time.time`, looked up at
    each use, so that tests may replace it; see `ManualClock`).
    """

    def __init__(
        self,
        server: Any = None,
        *args: Any,
        clock: Callable[[], float] | None = None,
        **given: Unpack[ClientOptions],
    ) -> None:
        bound = MOCK_CLIENT.bind(type(self).__name__, args, dict(given))
        if server is None:
            server = "localhost"
        if clock is not None:
            self._clock = clock
        self._memory = bound["socket_module"] = _Memory(self._clock)
        Client(server, **bound)  # what that refuses is refused here
        for option in _UNUSED:
            bound.pop(option)
        super().__init__(server, **bound)

    def clear(self) -> None:
        """Remove all items."""
        self._memory.clear()


class _Memory:
    """What stands for the socket module: its sockets lead to one cache."""

    AF_UNIX = getattr(socket, "AF_UNIX", None)
    AF_UNSPEC = socket.AF_UNSPEC
    SOCK_STREAM = socket.SOCK_STREAM
    IPPROTO_TCP = socket.IPPROTO_TCP

    def __init__(self, clock: Callable[[], float]) -> None:
        self._service = Service(Cache(clock=clock), version=_VERSION)
        self._lock = threading.Lock()

    def socket(self, family: Any, kind: Any, protocol: Any) -> _MemorySocket:
        return _MemorySocket(self._service, self._lock)

    def getaddrinfo(self, host: str, port: int, *_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port))]

    def clear(self) -> None:
        with self._lock:
            self._service.cache.flush()


class _MemorySocket:
    """A connection to the cache: what is sent is answered at once."""

    def __init__(self, service: Service, lock: threading.Lock) -> None:
        self._session = new_session(service)
        self._lock = lock
        self._replies = bytearray()

    def connect(self, address: Any) -> None:
        pass

    def setsockopt(self, *_: Any) -> None:
        pass

    def settimeout(self, seconds: float | None) -> None:
        pass

    def sendall(self, data: bytes) -> None:
        session = self._session
        with self._lock:
            session.receive(data)
            more = True
            while more:
                more = session.process()
                for entry in session.output:
                    if isinstance(entry, bytes):
                        self._replies += entry
                session.output.clear()

    def recv(self, size: int) -> bytes:
        data = bytes(self._replies[:size])
        del self._replies[:size]
        return data

    def close(self) -> None:
        pass
