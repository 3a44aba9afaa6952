"""An in-process memcached on a real socket: for demos, for test suites, for fault injection.

`EmbeddedServer` runs every connection in the selector loop of one daemon thread; what they say to
each other is the business of `protocol.Session`.  Like memcached it stops reading from a client
that does not read its replies.  Sockets are touched by that thread only (other threads hand it a
function to run), and `stop` must leave nothing behind: no thread, no descriptor, no socket file.
"""

from __future__ import annotations

import heapq
import itertools
import math
import os
import selectors
import socket
import stat
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Self
from weakref import WeakSet

from .faults import Fault, Hangup, Injection, Pause, Refuse
from .protocol import Session
from .service import VERSION, Service
from .store import MEBIBYTE, Cache

_RECEIVE = 1 << 16  # bytes that are read at once
_SEND = 1 << 16  # bytes that are put together to be sent at once
_ROUNDS = 8  # of processing and sending for one connection before the others have their turn
_ACCEPTS = 64  # connections that are accepted in one turn
_BACKLOG = 1024
_STOP_PATIENCE = 10.0  # seconds
_OUT_OF_DESCRIPTORS_PAUSE = 0.1  # seconds
_LINGER_OFF = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
_TOO_MANY = b"ERROR Too many open connections\r\n"

_running: WeakSet[EmbeddedServer] = WeakSet()


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


class EmbeddedServer:
    """A memcached inside this process, speaking the classic text protocol on a real socket.

        with EmbeddedServer() as server:
            client = Client(server.address)

    It listens on `host` and `port` (0: a free one, kept over `stop` and `start`), or on the UNIX
    socket `unix_path`.  It starts empty.  Options, which follow memcached's:

    * `memory_limit`, bytes (``-m``), of items by memcached's count; beyond it the least recently
      used ones are evicted, or with ``evictions=False`` (``-M``) new ones refused;
    * `max_item_size`, bytes (``-I``);
    * `max_connections` (``-c``), None for any number: further ones get an error and are closed;
    * `users`, a mapping of names to passwords (``-Y``): a client has to authenticate;
    * `shutdown`: the shutdown command is enabled (``-A``);
    * `idle_timeout`, seconds (``-o idle_timeout``), 0 for none: idle connections are closed;
    * `cluster_config`: what ``config get cluster`` answers, as AWS ElastiCache does; str or bytes,
      for example ``"12\\nhost|10.0.0.1|11211\\n"``.  It may be assigned to later;
    * `new_dumps`: ``lru_crawler metadump`` with CR LF and ``mgdump``, as newer servers have them;
    * `answer_noreply`: noreply commands are answered all the same, as some proxies do;
    * `clock`: a function that gives UNIX time, by which items expire (see `ManualClock`);
    * `version`: what ``version`` answers;
    * `recording`: `requests` lists every command line received.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        unix_path: str | os.PathLike[str] | None = None,
        memory_limit: int = 64 * MEBIBYTE,
        max_item_size: int = MEBIBYTE,
        evictions: bool = True,
        max_connections: int | None = None,
        users: Mapping[str, str] | None = None,
        shutdown: bool = False,
        idle_timeout: float = 0,
        cluster_config: str | bytes | None = None,
        new_dumps: bool = False,
        answer_noreply: bool = False,
        clock: Callable[[], float] = time.time,
        version: str = VERSION,
        recording: bool = False,
    ) -> None:
        self._host = host
        self._port = port
        self._path = None if unix_path is None else os.fspath(unix_path)
        self._new_cache = partial(
            Cache,
            memory_limit=memory_limit,
            max_item_size=max_item_size,
            evictions=evictions,
            clock=clock,
        )
        self._service = Service(
            self._new_cache(),
            version=version,
            users=_encoded(users),
            shutdown_enabled=shutdown,
            idle_timeout=idle_timeout,
            answer_noreply=answer_noreply,
            new_dumps=new_dumps,
            max_connections=max_connections,
            recording=recording,
        )
        self.cluster_config = cluster_config
        self._family = _family(host) if self._path is None else socket.AF_UNIX
        self._address: Any = None
        self._thread: threading.Thread | None = None
        self._listener: socket.socket | None = None
        self._selector: selectors.BaseSelector
        self._waker: socket.socket
        self._wakened: socket.socket
        self._stopping = False
        self._calls: deque[Callable[[], None]] | None = None  # None while the loop does not run
        self._calls_lock = threading.Lock()
        self._connections: dict[int, _Connection] = {}
        self._ready: list[_Connection] = []
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count(1)
        self._idle_check_at = 0.0

    def __repr__(self) -> str:
        state = f"at {self._address}" if self.running else "not running"
        return f"<{type(self).__name__} {state}>"

    # -- starting and stopping ---------------------------------------------------------------------

    def start(self) -> Self:
        """Listen and answer, with an empty cache; returns the server itself.

        Raises `OSError` where the address cannot be had, `RuntimeError` where it is running.
        """
        if self.running:
            raise RuntimeError(f"{self!r} has been started already")
        self.stop()  # after a shutdown command there is still something to put away
        service = self._service
        service.cache = self._new_cache()
        service.reset_counters()
        service.stopping = self._stopping = False
        self._selector = selectors.DefaultSelector()
        self._wakened, self._waker = socket.socketpair()
        try:
            self._waker.setblocking(False)
            self._wakened.setblocking(False)
            self._selector.register(self._wakened, selectors.EVENT_READ)
            if not service.faults.refusing:
                self._listen()
        except BaseException:
            self._close_everything()
            raise
        self._calls = deque()
        self._thread = threading.Thread(
            target=self._run, name=f"cymemcache-embedded-{self._port or self._path}", daemon=True
        )
        _running.add(self)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Close all connections and the listening socket, and wait for the thread to end.

        Nothing happens where it is not running.
        """
        thread = self._thread
        if thread is None:
            return
        if thread is threading.current_thread():
            raise RuntimeError("the server's own thread cannot wait for itself")
        self._stopping = True
        self._wake()
        thread.join(_STOP_PATIENCE)
        if thread.is_alive():
            raise RuntimeError(f"{self!r} does not stop")
        self._thread = None

    def __enter__(self) -> Self:
        if not self.running:
            self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        """Whether it has been started, and not been stopped since, nor shut down by a client."""
        return self._calls is not None

    @property
    def address(self) -> Any:
        """Where it listens: ``(host, port)``, or the path of the UNIX socket.

        Raises `RuntimeError` where it was never started.
        """
        if self._address is None:
            raise RuntimeError("the server has no address before it is started")
        return self._address

    # -- what tests do to it -----------------------------------------------------------------------

    def inject(
        self,
        fault: Fault,
        *,
        verb: str | bytes | None = None,
        key: str | bytes | None = None,
        skip: int = 0,
        times: int | None = 1,
        on_connect: bool = False,
    ) -> Injection:
        """Commit `fault` on commands to come; see the classes in `cymemcache.testing`.

        It meets commands with that `verb` and that `key` (where they are given), but for the first
        `skip` of them, and `times` of the rest (None: all).  With `on_connect` it meets new
        connections instead, before their first command.  Where several would meet one command,
        the oldest does.

        The `Injection` that is returned counts its `hits`, ends with `remove()`, and is a context
        manager that ends with its block.  `Refuse` meets no command: it lasts until then.
        """
        if on_connect and not type(fault).on_connect:
            raise ValueError(f"{fault!r} cannot meet a connection")
        if (on_connect or isinstance(fault, Refuse)) and (verb is not None or key is not None):
            raise ValueError("verb and key are for faults that meet commands")
        if isinstance(fault, Refuse) and (skip or times != 1):
            raise ValueError("Refuse() lasts until it is removed: no skip, no times")
        injection = Injection(
            fault, _bytes(verb), _bytes(key), skip, times, on_connect, self._remove_injection
        )
        self._in_loop(lambda: self._inject(injection))
        return injection

    def clear_faults(self) -> None:
        """End all injections."""
        for injection in list(self._service.faults.injections):
            injection.remove()

    def close_connections(self, *, reset: bool = False) -> None:
        """Close all connections now; with `reset` the clients see them as reset."""

        def close() -> None:
            for connection in list(self._connections.values()):
                self._close(connection, reset)

        self._in_loop(close)

    def clear(self) -> None:
        """Remove all items, and forget `requests`."""

        def clear() -> None:
            self._service.cache.flush()
            self._service.requests.clear()

        self._in_loop(clear)

    @property
    def open_connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    @property
    def requests(self) -> list[tuple[int, bytes]]:
        """Every command line received while `recording`, without its line end.

        Each with the number of its connection: 1 for the first one, and so on.
        """
        return list(self._service.requests)

    @property
    def recording(self) -> bool:
        """Whether `requests` lists what is received from now on."""
        return self._service.recording

    @recording.setter
    def recording(self, recording: bool) -> None:
        self._service.recording = recording

    @property
    def cluster_config(self) -> bytes | None:
        """What ``config get cluster`` answers; None where it is no known command."""
        return self._service.cluster_config

    @cluster_config.setter
    def cluster_config(self, config: str | bytes | None) -> None:
        self._service.cluster_config = _bytes(config)

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

    def _in_loop(self, function: Callable[[], None]) -> None:
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

    def _answer_calls(self) -> None:
        try:
            self._wakened.recv(_RECEIVE)
        except BlockingIOError:
            pass
        while self._calls:
            self._calls.popleft()()

    # -- listening ---------------------------------------------------------------------------------

    def _listen(self) -> None:
        listener = socket.socket(self._family, socket.SOCK_STREAM)
        try:
            if self._path is not None:
                _remove_socket_file(self._path)
                listener.bind(self._path)
                self._address = self._path
                self._service.listening_on = f"unix:{self._path}"
            else:
                if sys.platform != "win32":
                    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind((self._host, self._port))
                self._port = listener.getsockname()[1]
                self._address = (self._host, self._port)
                self._service.listening_on = f"tcp:{self._host}:{self._port}"
            listener.listen(_BACKLOG)
            listener.setblocking(False)
            self._selector.register(listener, selectors.EVENT_READ)
        except BaseException:
            listener.close()
            raise
        self._listener = listener

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
            if self._path is None:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._welcome(sock)

    def _accept_again(self) -> None:
        listener = self._listener
        if listener is not None and listener not in self._selector.get_map():
            self._selector.register(listener, selectors.EVENT_READ)

    def _welcome(self, sock: socket.socket) -> None:
        service = self._service
        service.total_connections += 1
        session = Session(service, service.total_connections, _peer(sock))
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
        if self._path is not None:
            _remove_socket_file(self._path)
        self._selector.close()
        self._wakened.close()
        self._waker.close()

    # -- faults ------------------------------------------------------------------------------------

    def _inject(self, injection: Injection) -> None:
        self._service.faults.injections.append(injection)
        if isinstance(injection.fault, Refuse) and self.running:
            self._close_listener()

    def _remove_injection(self, injection: Injection) -> None:
        def remove() -> None:
            faults = self._service.faults
            if injection not in faults.injections:
                return
            faults.injections.remove(injection)
            if self._listener is None and self.running and not faults.refusing:
                self._listen()

        self._in_loop(remove)

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
        self._selector.close()
        self._wakened.close()
        self._waker.close()
        self._thread = None
        self._calls = None
        self._calls_lock = threading.Lock()


def _after_fork() -> None:
    for server in list(_running):
        server._forked()
    _running.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _bytes(text: str | bytes | None) -> bytes | None:
    return text.encode() if isinstance(text, str) else text


def _encoded(users: Mapping[str, str] | None) -> dict[bytes, bytes] | None:
    if users is None:
        return None
    return {name.encode(): password.encode() for name, password in users.items()}


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


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


def _remove_socket_file(path: str) -> None:
    try:
        if stat.S_ISSOCK(os.stat(path).st_mode):
            os.unlink(path)
    except OSError:
        pass
