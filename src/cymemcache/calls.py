"""What a client of one server does with a command: the hooks that `commands.Commands` calls.

Each takes a connection from the pool, exchanges the request for a reply, and gives the connection
back.  One on which anything went wrong is closed, never given back; deserializing, which runs other
people's code, happens after it has gone back.  On plain sockets the usual command goes a compiled
way (`core.PlainCalls`), which leaves everything that is not usual to the methods here.
"""

from __future__ import annotations

from .core.replies import (
    BARRIER_REQUEST,
    GET,
    GET_MANY,
    GETS,
    GETS_MANY,
    LINE,
    MISS,
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

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .pool import ConnectionPool

# Commands that ignore_exc is about.
_FORGIVEN = frozenset((GET, GETS, GET_MANY, GETS_MANY, STATS))
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


class Calls:
    """The hooks of a client with a pool of connections to one server."""

    ignore_exc: bool
    serde: Any
    _pool: ConnectionPool

    def _call(
        self,
        kind: int,
        request: bytes,
        keys: Any = None,
        default: Any = None,
        convert: Callable[[Any], Any] | None = None,
    ) -> Any:
        """The result of a command that has a reply of `kind`, through `convert` where given."""
        connection = None
        try:
            while True:
                connection = self._pool.take()
                result = connection.call(request, kind, keys, default)
                if result is not STALE:
                    break
                connection.discard()
                connection = None
        except BaseException as error:
            return self._failed(connection, error, kind, request, keys, default, convert)
        self._pool.give(connection)
        if convert is None and type(result) not in _UNFINISHED:
            return result
        return self._finished(kind, result, default, convert)

    _call_any = _call  # for the compiled way, which has a `_call` of its own

    def _failed(
        self,
        connection: Any,
        error: BaseException,
        kind: int,
        request: bytes,
        keys: Any,
        default: Any,
        convert: Callable[[Any], Any] | None,
    ) -> Any:
        """A call has raised `error`: once more on a new connection, a miss, or `error` again."""
        if connection is not None:
            again = kind in _RETRIED and _went_stale(error, connection)
            connection.discard()
            if again:
                connection = None
                try:
                    connection = self._pool.dial()
                    result = connection.call(request, kind, keys, default)
                except BaseException as second:
                    if connection is not None:
                        connection.discard()
                    error = second
                else:
                    self._pool.give(connection)
                    return self._finished(kind, result, default, convert)
        if self.ignore_exc and kind in _FORGIVEN and isinstance(error, Exception):
            return default if kind in (GET, GETS) else {}
        raise error

    def _finished(
        self, kind: int, result: Any, default: Any, convert: Callable[[Any], Any] | None
    ) -> Any:
        """What the caller gets for `result`; the connection has gone back."""
        if type(result) in _UNFINISHED and result is not default:
            if isinstance(result, MemcacheError):
                if self.ignore_exc and kind == STATS:
                    return {}
                raise result
            if isinstance(result, PartialFailure):
                if not (self.ignore_exc and kind == STORE_MANY):
                    raise result.error
                result = result.result
            else:
                result = self._deserialized(kind, result, default)
        return result if convert is None else convert(result)

    def _deserialized(self, kind: int, undecoded: Undecoded, default: Any) -> Any:
        fetched = undecoded.result
        many = kind in (GET_MANY, GETS_MANY)
        cas = kind in (GETS, GETS_MANY)
        deserialize = self.serde.deserialize
        missed = False
        for key, data, flags in undecoded.items:
            try:
                value = deserialize(key, data, flags)
            except Exception:
                if not self.ignore_exc:
                    raise
                value = MISS
            if not many:
                if value is MISS:
                    return default
                return (value, fetched[1]) if cas else value
            # A key can be there twice, and its second value be better than its first.
            missed = missed or value is MISS
            fetched[key] = (value, fetched[key][1]) if cas else value
        if missed:
            for key, found in list(fetched.items()):
                if (found[0] if cas else found) is MISS:
                    del fetched[key]
        return fetched

    def _send(self, request: bytes, commands: int, result: Any) -> Any:
        """Send `commands` noreply commands, and return `result`."""
        while True:
            connection = self._pool.take()
            try:
                sent = connection.send(request, commands)
            except BaseException:
                connection.discard()
                raise
            if sent is not STALE:
                break
            connection.discard()
        self._pool.hold(connection)
        return result

    _send_any = _send

    def _call_raw(
        self, request: bytes, end_token: bytes, convert: Callable[[Any], Any] | None = None
    ) -> Any:
        words = request.split()
        if (
            end_token == b"\r\n"
            and words
            and words[0] in _ONE_LINE
            and words[-1] != b"noreply"
            and request.count(b"\n") == 1
        ):
            return self._call(LINE, request, None, None, convert)
        result = self._call_and_close(RAW, request, end_token)
        if isinstance(result, MemcacheError):
            raise result
        return result if convert is None else convert(result)

    def _leave(self, request: bytes, answered: bool) -> None:
        result = None
        try:
            if answered:
                result = self._call_and_close(LINE, request)
            else:
                connection = self._pool.take()
                try:
                    if connection.unacknowledged:  # the next connection must not overtake them
                        connection.call(BARRIER_REQUEST, VERSION)
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
        while True:
            connection = self._pool.take()
            try:
                result = connection.call(request, kind, keys)
            finally:
                connection.discard()
            if result is not STALE:
                return result

    def _done(self, result: Any) -> Any:
        return result


def _went_stale(error: BaseException, connection: Any) -> bool:
    """Whether the server seems to have closed an idle connection, so that nothing was done.

    Not after a byte of the reply, not with noreply commands that may be lost, and not after a
    timeout: the server may be at work on it.
    """
    return (
        isinstance(error, (MemcacheUnexpectedCloseError, ConnectionError))
        and not connection.received
        and not connection.unacknowledged
        and not connection.forked()
    )
