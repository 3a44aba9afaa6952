"""One connection: how it is dialled, and how it ends.

What travels over it is the business of the two exchanges (`exchange.AnyExchange` and the compiled
`core.PlainExchange`); here is decided which of them a socket gets.  Only the holder of a connection
closes it: a descriptor closed under somebody who reads from it can be reused for a stranger's
stream.  Nothing in here may let a half-made connection escape, whatever interrupts the dialling.
"""

from __future__ import annotations

import _socket
import codecs
import errno
import os
import sys
from math import inf
from struct import pack
from time import monotonic

from . import forks
from .core import PlainExchange, ReplyParser, Requests
from .core.replies import NEED_DATA, STORE, fork_error
from .descriptors import prepare, remember, wrapped
from .exceptions import MemcacheClientError, MemcacheError
from .exchange import AnyExchange
from .interruptions import is_interruption, own
from .plain import can_be_polled, can_connect_in_steps, is_plain
from .trouble import is_unreachable
from .waiting import READABLE, WRITABLE, bounded, wait, would_block

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Any, TypeAlias, TypeVar

    from .counters import Tally
    from .exchange import Exchange

    R = TypeVar("R")
    Steps: TypeAlias = Generator[tuple[Any, int, float | None], int, R]


# Seconds until a UNIX socket whose server's queue is full is tried again.
_FIRST_PAUSE = 0.001
_LONGEST_PAUSE = 0.016


class Dialler:
    """Makes connections to one server as the client's options say."""

    def __init__(
        self,
        server: tuple[str, int] | str,
        options: dict[str, Any],
        requests: Requests,
        decode: int,
        tally: Tally,
    ) -> None:
        self._socket_module = options["socket_module"]
        self._connect_timeout: float | None = options["connect_timeout"]
        self._timeout: float | None = options["timeout"]
        self._no_delay = options["no_delay"]
        self._keepalive = options["socket_keepalive"]
        self._tls_context = options["tls_context"]
        _warn_of_blocking_tls(self._socket_module, self._tls_context)
        if not isinstance(server, str):
            # Which getaddrinfo uses for each host: nothing is imported on a command's way.
            codecs.lookup("idna")
        self._max_value_size = options["max_value_size"]
        self._decode = decode
        self._tally = tally
        self._authentication = b""
        username, password = options["username"], options["password"]
        if (username is None) != (password is None):
            raise ValueError("username and password must be given together")
        if username is not None:
            self._authentication = requests.authenticate(username, password)
        self.aim(server)

    def aim(self, server: tuple[str, int] | str) -> None:
        """Make connections to `server` from now on."""
        if isinstance(server, str):
            if self._tls_context is not None:
                raise ValueError("tls_context: a UNIX socket is not spoken to over TLS")
            if not hasattr(self._socket_module, "AF_UNIX"):
                raise ValueError(
                    f"server {server!r} is the path of a UNIX socket, and there are none here: "
                    "the socket module has no AF_UNIX"
                )
        self.server = server

    def dial(self) -> Exchange:
        """A new connection, authenticated where credentials were given.

        Raises the `OSError` of the last address that says something about the server, with a note
        for each other one that was tried.
        """
        steps = self.steps()
        try:
            awaited = next(steps)
            while True:
                awaited = steps.send(wait(*awaited))
        except StopIteration as stop:
            exchange: Exchange = stop.value
            return exchange
        finally:
            steps.close()

    def steps(self) -> Steps[Exchange]:
        """`dial` for somebody who has other sockets to wait for as well.

        Yields ``(socket, events, deadline)`` and wants what poll says: the events that have come,
        0 where the deadline has; without a socket there is only the deadline to wait for.  Sockets
        that cannot be polled are dialled in one step.
        """
        count = forks.count()
        try:
            addresses = self._addresses()
            began = monotonic()  # only now: how long the system resolves names is not ours to bound
            sock = yield from self._connected(addresses, began)
            try:
                if forks.count() != count:
                    raise fork_error()
                if self._authentication:
                    yield from self._authenticated(sock, began)
                exchange = self._exchange(sock, self._timeout)
                self._tally.connected()
                return exchange
            except BaseException:
                sock.close()
                raise
        except Exception as error:
            # Of our own errors those that say something about the server are marked already.
            if not isinstance(error, MemcacheError) and not is_interruption(error):
                own(error)
            raise

    def adopt(self, sock: Any) -> Exchange:
        """A connection over a socket-like object of the user's own, as it is."""
        self._tally.renew()
        parser = ReplyParser(self._decode, self._max_value_size)
        return AnyExchange(sock, parser, self._timeout, self._tally)

    def _exchange(self, sock: Any, timeout: float | None) -> Exchange:
        """The exchange for a socket that we dialled."""
        parser = ReplyParser(self._decode, self._max_value_size)
        if PlainExchange is not None and is_plain(sock):
            sock.settimeout(None)
            _set_timeouts(sock, timeout)
            return PlainExchange(sock, parser, timeout, self._tally)
        _call_if_there(sock, "settimeout", bounded(timeout))
        return AnyExchange(sock, parser, timeout, self._tally)

    def _authenticated(self, sock: Any, began: float) -> Steps[None]:
        """The first command to a server with ``-Y``; see "Authentication" in protocol.txt."""
        left = self._left(began)
        until = None if left is None else monotonic() + left
        exchange = self._exchange(sock, self._timeout if left is None else left)
        try:
            result = exchange.begin(self._authentication, STORE)
            while result is NEED_DATA:
                ready = READABLE
                if can_be_polled(sock):
                    ready = yield sock, exchange.events(), until
                    if not ready:
                        raise self._late()
                result = exchange.step(ready)
        except MemcacheClientError as error:
            if is_interruption(error):
                raise
            raise MemcacheClientError(f"username or password was refused: {error}") from None
        if isinstance(result, MemcacheError):
            raise result
        exchange.release()

    def _left(self, began: float) -> float | None:
        """Seconds left of connect_timeout, None where there is no limit."""
        if self._connect_timeout is None:
            return None
        left = self._connect_timeout - (monotonic() - began)
        if left <= 0:
            raise self._late()
        return left

    def _late(self) -> TimeoutError:
        return TimeoutError(f"timed out: no connection within {self._connect_timeout:g} s")

    def _connected(self, addresses: list[Any], began: float) -> Steps[Any]:
        host = self.server[0]
        failed: list[tuple[Any, Exception]] = []
        for number, (family, _, protocol, _, address) in enumerate(addresses):
            try:
                left = self._left(began)
                if left is not None:
                    # An address that swallows packets must leave some time for the next.
                    left /= len(addresses) - number
                sock = yield from self._connected_to(family, protocol, address, left)
            except Exception as error:
                if is_interruption(error):
                    raise
                failed.append((address, error))
                continue
            try:
                return (yield from self._secured(sock, host, began))
            except BaseException:
                sock.close()
                raise
        try:
            raise _most_telling(failed) if failed else OSError(f"{host!r} has no address")
        finally:
            failed.clear()  # they hold this frame

    def _addresses(self) -> list[Any]:
        """The addresses of the server, as getaddrinfo has them."""
        module = self._socket_module
        if isinstance(self.server, str):
            return [(module.AF_UNIX, module.SOCK_STREAM, 0, "", self.server)]
        host, port = self.server
        try:
            addresses: list[Any] = module.getaddrinfo(
                host, port, module.AF_UNSPEC, module.SOCK_STREAM, module.IPPROTO_TCP
            )
        except OSError:
            # Where no descriptor is left it knows no name any more; a socket says the truth.
            _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM).close()
            raise
        except ValueError as error:  # IDNA refuses the name, or there is a NUL in it
            if is_interruption(error):
                raise
            reason = f"{host!r} cannot be the name of a host: {error}"
            raise _socket.gaierror(_socket.EAI_NONAME, reason) from error
        number = int(port) if str(port).removeprefix("-").isdigit() else 0
        for *_, address in addresses:
            # Of one that is too large the last 16 bits come back: the port of somebody else.
            if number != address[1] == number & 0xFFFF:
                reason = f"the port must be from 1 to 65535, not {port!r}"
                raise _socket.gaierror(_socket.EAI_SERVICE, reason)
        return addresses

    def _connected_to(
        self, family: int, protocol: int, address: Any, left: float | None
    ) -> Steps[Any]:
        module = self._socket_module
        is_unix = family == getattr(module, "AF_UNIX", None)
        count = forks.count()
        prepare()
        sock = module.socket(family, module.SOCK_STREAM, protocol)
        try:
            remember(sock)
            if forks.count() != count:  # it may be the parent's, who goes on with it
                raise fork_error()
            if not is_unix:
                self._set_tcp_options(sock)
            if not can_connect_in_steps(sock):
                _call_if_there(sock, "settimeout", bounded(left))
                _call_if_there(sock, "connect", address)
                return sock
            sock.settimeout(0.0)
            until = None if left is None else monotonic() + left
            code = sock.connect_ex(address)
            pause = _FIRST_PAUSE
            while is_unix and code == errno.EAGAIN:
                # The server's queue is full.  No poll could tell when there is room in it.
                if until is not None and monotonic() >= until:
                    raise self._late()
                yield None, 0, min(monotonic() + pause, inf if until is None else until)
                pause = min(2 * pause, _LONGEST_PAUSE)
                code = sock.connect_ex(address)
            if code in (errno.EINPROGRESS, errno.EINTR):
                if not (yield sock, WRITABLE, until):
                    raise self._late()
                code = sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR)
            if code:
                raise OSError(code, os.strerror(code))
        except BaseException:
            sock.close()
            raise
        return sock

    def _set_tcp_options(self, sock: Any) -> None:
        if not hasattr(sock, "setsockopt"):
            return
        if self._no_delay:
            sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
        keepalive = self._keepalive
        if keepalive is None:
            return
        sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_KEEPALIVE, 1)
        # macOS has the first one under another name.
        name = "TCP_KEEPIDLE" if hasattr(_socket, "TCP_KEEPIDLE") else "TCP_KEEPALIVE"
        idle = getattr(_socket, name)
        sock.setsockopt(_socket.IPPROTO_TCP, idle, keepalive.idle)
        sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_KEEPINTVL, keepalive.intvl)
        sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_KEEPCNT, keepalive.cnt)

    def _secured(self, sock: Any, host: str, began: float) -> Steps[Any]:
        context = self._tls_context
        if context is None:
            return sock
        left = self._left(began)
        if not can_be_polled(sock) or not _is_of_ssl(context):
            _call_if_there(sock, "settimeout", bounded(left))
            return wrapped(context, sock, host)
        until = None if left is None else monotonic() + left
        secured = wrapped(context, sock, host, do_handshake_on_connect=False)
        try:
            while True:
                try:
                    secured.do_handshake()
                    return secured
                except OSError as error:
                    if not would_block(error):
                        raise
                    wants_to_write = type(error).__name__ == "SSLWantWriteError"
                if not (yield secured, WRITABLE if wants_to_write else READABLE, until):
                    raise self._late()
        except BaseException:
            secured.close()
            raise


def _call_if_there(sock: Any, method: str, argument: Any) -> None:
    """Call what a socket-like object of the user's own may not have."""
    function = getattr(sock, method, None)
    if function is not None:
        function(argument)


def _most_telling(failed: list[tuple[Any, Exception]]) -> Exception:
    """Of the errors of several addresses the one to raise: the last that is about the server."""
    about_it = [error for _, error in failed if is_unreachable(error)]
    chosen = about_it[-1] if about_it else failed[-1][1]
    for address, error in failed:
        if error is not chosen:
            chosen.add_note(f"{address}: {error}")
    return chosen


def _is_of_ssl(context: Any) -> bool:
    ssl = sys.modules.get("ssl")  # which is loaded where there is a context of its
    return ssl is not None and isinstance(context, ssl.SSLContext)


def _set_timeouts(sock: Any, timeout: float | None) -> None:
    """Bound blocking calls in the kernel, so that the usual command needs no poll."""
    seconds, rest = divmod(timeout or 0.0, 1)
    microseconds = int(rest * 1e6)
    if timeout is not None and not seconds and not microseconds:
        microseconds = 1  # zero is no limit at all
    packed = pack("@ll", int(seconds), microseconds)
    for option in (_socket.SO_RCVTIMEO, _socket.SO_SNDTIMEO):
        sock.setsockopt(_socket.SOL_SOCKET, option, packed)


def _warn_of_blocking_tls(socket_module: Any, tls_context: Any) -> None:
    """Warn where `tls_context` makes sockets that the hub of `socket_module` knows nothing of."""
    cooperative = socket_module.socket
    made = getattr(tls_context, "sslsocket_class", None)
    if (
        made is not None
        and isinstance(cooperative, type)
        and not issubclass(cooperative, _socket.socket)
        and issubclass(made, _socket.socket)
    ):
        import warnings

        name = getattr(socket_module, "__name__", repr(socket_module))
        warnings.warn(
            f"tls_context makes sockets of the standard library, which stop all greenlets of a "
            f"thread where those of {name} stop one: give a context of its own library "
            "(gevent.ssl.SSLContext), or patch everything",
            RuntimeWarning,
            stacklevel=3,
        )
