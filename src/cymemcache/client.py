"""The client of one memcached server.

`Client` puts the commands (`commands.Commands`) on a pool of connections: each command takes one,
exchanges its request for a reply, and gives it back, so that any number of threads may share the
client.  A connection on which anything went wrong is closed, never given back; deserializing, which
runs other people's code, happens after it has gone back.
"""

from __future__ import annotations

from . import options as _options
from .commands import Commands
from .connection import Dialler, NoreplyRecord
from .core import Requests
from .core.replies import (
    DECODE_STOCK,
    GET,
    GET_MANY,
    GETS,
    GETS_MANY,
    LINE,
    RAW,
    STALE,
    STATS,
    STORE_MANY,
    VERSION,
    PartialFailure,
    Undecoded,
)
from .exceptions import (
    MemcacheClientError,
    MemcacheError,
    MemcacheServerError,
    MemcacheUnexpectedCloseError,
    MemcacheUnknownCommandError,
)
from .options import ReadOnlyOption
from .pool import ConnectionPool
from .serde import LegacyWrappingSerde, serialize_of, stock_kind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any, Self, Unpack

    from .commands import Key, SyncCommands
else:
    SyncCommands = Commands

_FETCHES = frozenset((GET, GETS, GET_MANY, GETS_MANY))
# Commands that do no harm when the server executes them twice.
_RETRIED = frozenset((GET, GETS, GET_MANY, GETS_MANY, STATS, VERSION))
# Types of results that are not yet what the caller gets.
_UNFINISHED = frozenset(
    (
        Undecoded,
        PartialFailure,
        MemcacheClientError,
        MemcacheServerError,
        MemcacheUnknownCommandError,
    )
)
# Commands whose whole reply is one line, whatever it says.
_ONE_LINE = frozenset(
    (b"version", b"delete", b"incr", b"decr", b"touch", b"flush_all", b"verbosity")
)


class Client(SyncCommands):
    """A client for one memcached server, to be shared by any number of threads.

    `server` is ``(host, port)``, ``"host:port"``, ``"unix:/path"`` or ``"/path"``.  Connections are
    made when they are first needed: one for each command that is under way at the same time.
    `close` (or a ``with`` block) closes them; a command after that connects anew.  A forked child
    makes its own.

    Options:
    """

    serde: Any = ReadOnlyOption()
    connect_timeout: Any = ReadOnlyOption()
    timeout: Any = ReadOnlyOption()
    no_delay: Any = ReadOnlyOption()
    socket_module: Any = ReadOnlyOption()
    socket_keepalive: Any = ReadOnlyOption()
    key_prefix: Any = ReadOnlyOption()
    encoding: Any = ReadOnlyOption()
    tls_context: Any = ReadOnlyOption()

    def __init__(self, server: Any, *args: Any, **given: Unpack[_options.ClientOptions]) -> None:
        bound = _options.CLIENT.bind(type(self).__name__, args, dict(given))
        serde = bound["serde"]
        if serde is None:
            serde = LegacyWrappingSerde(bound["serializer"], bound["deserializer"])
            bound["serde"] = serde
        #: The server's address: ``(host, port)`` or the path of its UNIX socket.
        self.server = _options.normalize_server_spec(server)
        self.ignore_exc: bool = bound["ignore_exc"]
        self.default_noreply: bool = bound["default_noreply"]
        self.allow_unicode_keys: bool = bound["allow_unicode_keys"]
        decode = stock_kind(serde)
        self._requests = Requests(
            bound["key_prefix"],
            bound["encoding"],
            bound["allow_unicode_keys"],
            bound["max_value_size"],
            bound["max_request_size"],
            serialize_of(serde),
            decode == DECODE_STOCK,
        )
        self._noreply = NoreplyRecord(self._address())
        dialler = Dialler(self.server, bound, self._requests, decode, self._noreply)
        self._pool = ConnectionPool(dialler.dial)
        self._adopt = dialler.adopt
        # The dialler has the credentials; nothing else keeps them.
        bound["username"] = bound["password"] = None
        self._options = bound

    __signature__ = _options.ConstructorSignature(_options.CLIENT, "server")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._address()}>"

    def _address(self) -> str:
        if isinstance(self.server, str):
            return self.server
        host, port = self.server
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    # -- connections -----------------------------------------------------------------------------

    def close(self) -> None:
        """Close the idle connections now, and each one in use as soon as its command is done.

        The next command connects anew.
        """
        self._pool.close()

    disconnect_all = close

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._pool.close()

    @property
    def sock(self) -> Any:
        """The socket of the idle connection that the next command would use, or None.

        Assigning a connected socket, or something like one, makes it the client's only idle
        connection; assigning None closes the idle ones.
        """
        connection = self._pool.peek()
        return None if connection is None else connection.sock

    @sock.setter
    def sock(self, sock: Any) -> None:
        if sock is None:
            self._pool.close()
        else:
            self._pool.adopt(self._adopt(sock))

    @property
    def noreply_errors(self) -> int:
        """How many noreply commands the server has answered with an error."""
        return self._noreply.errors

    @property
    def noreply_lost(self) -> int:
        """How many noreply commands were not acknowledged when their connection failed."""
        return self._noreply.lost

    # -- the hooks of Commands -------------------------------------------------------------------

    def _call(
        self,
        kind: int,
        request: bytes,
        keys: Any = None,
        default: Any = None,
        convert: Callable[[Any], Any] | None = None,
    ) -> Any:
        pool = self._pool
        take = pool.take
        retried = False
        while True:
            connection = None
            try:
                connection = take()
                result = connection.call(request, kind, keys, default)
            except BaseException as error:
                if connection is not None:
                    again = not retried and kind in _RETRIED and _went_stale(error, connection)
                    connection.discard()
                    if again:
                        retried = True
                        take = pool.dial
                        continue
                if self.ignore_exc and kind in _FETCHES and isinstance(error, Exception):
                    return default if kind in (GET, GETS) else {}
                raise
            if result is not STALE:
                break
            connection.discard()
            take = pool.dial
        pool.give(connection)
        if type(result) in _UNFINISHED and result is not default:
            result = self._finish(kind, result, default)
        return result if convert is None else convert(result)

    def _finish(self, kind: int, result: Any, default: Any) -> Any:
        """What the caller gets for a result that is not final yet."""
        if isinstance(result, MemcacheError):
            raise result
        if isinstance(result, PartialFailure):
            if self.ignore_exc and kind == STORE_MANY:
                return result.result
            raise result.error
        fetched, items = result.result, result.items
        many = kind in (GET_MANY, GETS_MANY)
        cas = kind in (GETS, GETS_MANY)
        deserialize = self.serde.deserialize
        for key, data, flags in items:
            try:
                value = deserialize(key, data, flags)
            except Exception:
                if not self.ignore_exc:
                    raise
                if not many:
                    return default
                fetched.pop(key, None)
                continue
            if not many:
                return (value, fetched[1]) if cas else value
            fetched[key] = (value, fetched[key][1]) if cas else value
        return fetched

    def _send(self, request: bytes, commands: int, result: Any) -> Any:
        pool = self._pool
        take = pool.take
        while True:
            connection = take()
            try:
                sent = connection.send(request, commands)
            except BaseException:
                connection.discard()
                raise
            if sent is not STALE:
                break
            connection.discard()
            take = pool.dial
        pool.hold(connection)
        return result

    def _call_raw(self, request: bytes, end_token: bytes) -> Any:
        words = request.split()
        if (
            end_token == b"\r\n"
            and words
            and words[0] in _ONE_LINE
            and words[-1] != b"noreply"
            and request.count(b"\n") == 1
        ):
            return self._call(LINE, request)
        result = self._call_and_close(RAW, request, end_token)
        if isinstance(result, MemcacheError):
            raise result
        return result

    def _leave(self, request: bytes, answered: bool) -> None:
        result = None
        try:
            if answered:
                result = self._call_and_close(LINE, request)
            else:
                connection = self._pool.take()
                try:
                    connection.send(request, 0)
                except BaseException:
                    connection.discard()
                    raise
                connection.close()
        except (MemcacheUnexpectedCloseError, ConnectionError):
            pass  # that is what was asked for
        finally:
            self._pool.close()
        if isinstance(result, MemcacheError):
            raise result

    def _call_and_close(self, kind: int, request: bytes, keys: Any = None) -> Any:
        """Like `_call`, for a connection that is of no use afterwards."""
        take = self._pool.take
        while True:
            connection = take()
            try:
                result = connection.call(request, kind, keys)
            finally:
                connection.discard()
            if result is not STALE:
                return result
            take = self._pool.dial

    def _done(self, result: Any) -> Any:
        return result

    # -- beyond the commands ---------------------------------------------------------------------

    def __getitem__(self, key: Key) -> Any:
        value = self._call(GET, self._requests.get(key), key, _MISSING)
        if value is _MISSING or value is None:
            raise KeyError(key)
        return value

    def __setitem__(self, key: Key, value: Any) -> None:
        self._store(b"set", key, value, 0, True, None)

    def __delitem__(self, key: Key) -> None:
        self._send(self._requests.delete(key, True), 1, None)

    def check_key(self, key: Key, key_prefix: bytes | None = None) -> bytes:
        """The key as it is sent, with the client's prefix (or `key_prefix`), as bytes.

        Raises `MemcacheIllegalInputError` where it is not legal.
        """
        if key_prefix is None or key_prefix == self.key_prefix:
            requests = self._requests
        else:
            requests = Requests(key_prefix, self.encoding, self.allow_unicode_keys)
        return requests.key(key)


Client.__doc__ = f"{Client.__doc__}\n{_options.CLIENT.documentation()}\n"

_MISSING = object()


def _went_stale(error: BaseException, connection: Any) -> bool:
    """Whether the server seems to have closed an idle connection, so that nothing was done.

    Not after a byte of the reply, not with noreply commands that may be lost, and not after a
    timeout: the server may be at work on it.
    """
    exchange = connection.exchange
    return (
        isinstance(error, (MemcacheUnexpectedCloseError, ConnectionError))
        and not exchange.received
        and not exchange.unacknowledged
        and not exchange.forked()
    )
