"""The selector loop in which an embedded server serves its connections, in a thread of its own.

What the connections say is the business of `protocol.Session`.  Like memcached the loop stops
reading from a client that does not read its replies.  Sockets are touched by its thread only (other
threads hand it a function to run), and its end must leave nothing behind: no thread, no descriptor,
no socket file.
"""

from __future__ import annotations

import heapq
import itertools
import math
import os
import selectors
import socket
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

from .endpoint import Endpoint
from .faults import Hangup, Pause
from .protocol import Session
from .service import Service
from .strict import new_session

_RECEIVE = 1 << 16  # bytes that are read at once
_SEND = 1 << 16  # bytes that are put together to be sent at once
_ROUNDS = 8  # of processing and sending for one connection before the others have their turn
_ACCEPTS = 64  # connections that are accepted in one turn
_STOP_PATIENCE = 10.0  # seconds
_OUT_OF_DESCRIPTORS_PAUSE = 0.1  # seconds
_LINGER_OFF = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
_TOO_MANY = b"ERROR Too many open connections\r\n"

_running: WeakSet[Loop] = WeakSet()


class _Connection:
    """A client's socket, and what is still to be sent to it."""

    __slots__ = ("events", "more", "number", "paused", "session", "sock", "unsent")

    def __init__(self, number: int, sock: socket.socket, session: Session) -> None:
        self.number = number
        self.sock = sock
        self.session = session
        self.events = 0
        self.paused = False
        self.more = False  # the session has stopped in the middle of its input
        self.unsent = memoryview(b"")


class Loop:
    """One run of a server: made, started and stopped once.

    What `start` has begun when it is interrupted ends with `stop`.
    """

    def __init__(self, service: Service, endpoint: Endpoint) -> None:
        self._service = service
        self._endpoint = endpoint
        self._thread: threading.Thread | None = None
        self._listener: socket.socket | None = None
        self._stopping = False
        self._calls: deque[Callable[[], None]] | None = None  # None while it does not run
        self._calls_lock = threading.Lock()
        self._connections: dict[int, _Connection] = {}
        self._ready: list[_Connection] = []
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count(1)
        self._idle_check_at = 0.0

    @property
    def running(self) -> bool:
        """Whether it has been started, and has not ended since."""
        return self._calls is not None

    @property
    def open_connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    # -- from other threads ------------------------------------------------------------------------

    def start(self) -> None:
        """Listen, unless a fault refuses connections, and begin to answer.

        Raises `OSError` where it cannot listen.
        """
        _running.add(self)
        self._selector = selectors.DefaultSelector()
        self._wakened, self._waker = socket.socketpair()
        self._waker.setblocking(False)
        self._wakened.setblocking(False)
        self._selector.register(self._wakened, selectors.EVENT_READ)
        if not self._service.faults.refusing:
            self._listen()
        self._calls = deque()
        self._thread = threading.Thread(
            target=self._run, name=f"cymemcache-embedded-{self._endpoint}", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Close everything and wait for the thread to end; nothing happens where it has ended."""
        thread = self._thread
        if thread is threading.current_thread():
            raise RuntimeError("the server's own thread cannot wait for itself")
        self._stopping = True
        if thread is not None and thread.is_alive():
            self._wake()
            thread.join(_STOP_PATIENCE)
            if thread.is_alive():
                raise RuntimeError(f"the server at {self._endpoint.address} does not stop")
        self._end()  # where it has not begun; it finds then that it has been stopped
        self._thread = None

    def call(self, function: Callable[[], None]) -> None:
        """Run `function` where nothing else touches the sockets, and wait for it."""
        if threading.current_thread() is not self._thread:
            done = threading.Event()
            errors: list[BaseException] = []

            def call() -> None:
                try:
                    function()
                except BaseException as error:
                    errors.append(error)
                done.set()

            with self._calls_lock:
                calls = self._calls
                if calls is not None:
                    calls.append(call)
            if calls is not None:
                self._wake()
                done.wait()
                if errors:
                    raise errors[0]
                return
            if self._thread is not None:
                self._thread.join(_STOP_PATIENCE)  # it is just about to end
        function()

    # -- in the loop's thread, by way of `call` ----------------------------------------------------

    def close_connections(self, reset: bool) -> None:
        """Close all connections; with `reset` the clients see them as reset."""
        for connection in list(self._connections.values()):
            self._close(connection, reset)

    def follow_faults(self) -> None:
        """Listen, or listen no more, as the faults have it."""
        refusing = self._service.faults.refusing
        if refusing:
            self._close_listener()
        elif self._listener is None and self.running:
            self._listen()

    # -- the loop ----------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stopping:
                for key, events in self._selector.select(self._patience()):
                    if key.data is not None:
                        self._attend(key.data, events)
                    elif key.fileobj is self._wakened:
                        self._answer_calls()
                    else:
                        self._accept()
                ready, self._ready = self._ready, []
                for connection in ready:
                    if connection.number in self._connections:
                        self._proceed(connection)
                self._fire_timers()
                if self._service.stopping:
                    break
        finally:
            self._end()

    def _end(self) -> None:
        """Close everything; nothing happens where that is done already."""
        with self._calls_lock:
            calls, self._calls = self._calls, None
        for call in calls or ():
            call()
        self._close_everything()
        _running.discard(self)

    def _patience(self) -> float | None:
        """How long the selector may wait, in seconds."""
        if self._ready:
            return 0
        until = self._timers[0][0] - time.monotonic() if self._timers else math.inf
        if self._service.idle_timeout and self._connections:
            until = min(until, self._idle_check_at - time.monotonic())
        return None if until == math.inf else max(until, 0)

    def _at(self, seconds: float, action: Callable[[], None]) -> None:
        if seconds != math.inf:
            when = time.monotonic() + seconds
            heapq.heappush(self._timers, (when, next(self._numbers), action))

    def _fire_timers(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2]()
        idle_timeout = self._service.idle_timeout
        if idle_timeout and now >= self._idle_check_at:
            self._idle_check_at = now + idle_timeout / 4
            for connection in list(self._connections.values()):
                if now - connection.session.active_at > idle_timeout:
                    self._service.idle_kicks += 1
                    self._close(connection)

    def _wake(self) -> None:
        try:
            self._waker.send(b"\0")
        except OSError:
            pass  # full, so it will wake up, or closed, so it runs no more

    def _answer_calls(self) -> None:
        try:
            self._wakened.recv(_RECEIVE)
        except BlockingIOError:
            pass
        while self._calls:
            self._calls.popleft()()

    # -- listening ---------------------------------------------------------------------------------

    def _listen(self) -> None:
        self._listener = listener = self._endpoint.listen()
        self._service.listening_on = str(self._endpoint)
        self._selector.register(listener, selectors.EVENT_READ)

    def _close_listener(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            self._unregister(listener)
            listener.close()

    def _accept(self) -> None:
        service = self._service
        for _ in range(_ACCEPTS):
            if self._listener is None:
                return
            try:
                sock, _ = self._listener.accept()
            except (BlockingIOError, ConnectionError):
                return
            except OSError:  # out of descriptors: some may be closed in a while
                self._unregister(self._listener)
                self._at(_OUT_OF_DESCRIPTORS_PAUSE, self._accept_again)
                return
            sock.setblocking(False)
            limit = service.max_connections
            if limit is not None and len(self._connections) >= limit:
                service.rejected_connections += 1
                _send_last(sock, _TOO_MANY)
                continue
            if self._endpoint.path is None:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._welcome(sock)

    def _accept_again(self) -> None:
        listener = self._listener
        if listener is not None and listener not in self._selector.get_map():
            self._selector.register(listener, selectors.EVENT_READ)

    def _welcome(self, sock: socket.socket) -> None:
        service = self._service
        service.total_connections += 1
        session = new_session(service, service.total_connections, _peer(sock))
        connection = _Connection(service.total_connections, sock, session)
        self._connections[connection.number] = connection
        service.connections[connection.number] = session
        fault = service.faults.on_connect()
        if fault is not None:
            session.output.extend(entry for entry in fault.entries(b"") if entry != b"")
        self._proceed(connection)

    # -- connections -------------------------------------------------------------------------------

    def _attend(self, connection: _Connection, events: int) -> None:
        if self._connections.get(connection.number) is not connection:
            return  # closed by what came before it in this turn
        if events & selectors.EVENT_READ:
            try:
                data = connection.sock.recv(_RECEIVE)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._close(connection)
                return
            self._service.bytes_read += len(data)
            connection.session.receive(data)
            connection.more = True
        self._proceed(connection)

    def _proceed(self, connection: _Connection) -> None:
        """Process and send, by turns, as far as it goes without waiting."""
        for _ in range(_ROUNDS):
            if not self._send(connection):
                return
            if not connection.more:
                self._watch(connection, selectors.EVENT_READ)
                return
            connection.more = connection.session.process()
        self._watch(connection, 0)
        self._ready.append(connection)

    def _send(self, connection: _Connection) -> bool:
        """Send the session's output; False where the rest has to wait, or there is no more."""
        output = connection.session.output
        while not connection.paused:
            if not connection.unsent:
                if not output:
                    return True
                entry = output[0]
                if isinstance(entry, Pause):
                    output.popleft()
                    self._watch(connection, 0)
                    self._pause(connection, entry.seconds)
                    return False
                if isinstance(entry, Hangup):
                    self._close(connection, entry.reset)
                    return False
                connection.unsent = memoryview(_gather(output))
            try:
                sent = connection.sock.send(connection.unsent)
            except BlockingIOError:
                self._watch(connection, selectors.EVENT_WRITE)
                return False
            except OSError:
                self._close(connection)
                return False
            self._service.bytes_written += sent
            connection.unsent = connection.unsent[sent:]
        return False

    def _pause(self, connection: _Connection, seconds: float) -> None:
        def resume() -> None:
            if self._connections.get(connection.number) is connection:
                connection.paused = False
                self._proceed(connection)

        connection.paused = True
        self._at(seconds, resume)

    def _watch(self, connection: _Connection, events: int) -> None:
        if events == connection.events:
            return
        if not connection.events:
            self._selector.register(connection.sock, events, connection)
        elif not events:
            self._unregister(connection.sock)
        else:
            self._selector.modify(connection.sock, events, connection)
        connection.events = events

    def _unregister(self, sock: socket.socket) -> None:
        try:
            self._selector.unregister(sock)
        except KeyError:
            pass

    def _close(self, connection: _Connection, reset: bool = False) -> None:
        del self._connections[connection.number]
        del self._service.connections[connection.number]
        self._watch(connection, 0)
        if reset:
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_OFF)
            connection.sock.close()
        else:
            _send_last(connection.sock)

    def _close_everything(self) -> None:
        for connection in list(self._connections.values()):
            self._close(connection)
        self._ready.clear()
        self._timers.clear()
        self._close_listener()
        self._endpoint.remove()
        self._close_own()

    def _close_own(self) -> None:
        for name in ("_selector", "_wakened", "_waker"):
            thing = getattr(self, name, None)
            if thing is not None:  # else an interruption came first
                thing.close()

    # -- fork --------------------------------------------------------------------------------------

    def _forked(self) -> None:
        """In a child: close our copies of the descriptors, and have nothing to do with the rest."""
        for connection in self._connections.values():
            connection.sock.close()
        self._connections = {}
        self._service.connections = {}
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        self._endpoint.disown()
        self._close_own()
        self._thread = None
        self._calls = None
        self._calls_lock = threading.Lock()


def _after_fork() -> None:
    for loop in list(_running):
        loop._forked()
    _running.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _peer(sock: socket.socket) -> str:
    try:
        name = sock.getpeername()
    except OSError:
        return "unknown"
    return f"tcp:{name[0]}:{name[1]}" if isinstance(name, tuple) else "unix:"


def _gather(output: deque[Any]) -> bytes:
    """The bytes at the head of `output`: small entries together, a large one as it is."""
    first = output.popleft()
    size = len(first)
    entries = [first]
    while size < _SEND and output and isinstance(output[0], bytes):
        if size + len(output[0]) > 2 * _SEND:
            break
        entries.append(output.popleft())
        size += len(entries[-1])
    return first if len(entries) == 1 else b"".join(entries)


def _send_last(sock: socket.socket, data: bytes = b"") -> None:
    """Send `data` and close, so that the client can still read what it was sent.

    A socket that is closed while there is something to read in it is reset.
    """
    try:
        if data:
            sock.send(data)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(_RECEIVE):
            pass
    except OSError:
        pass
    sock.close()
