"""One connection: how it is dialled, and how it ends.

What travels over it is the business of the two exchanges (`exchange.AnyExchange` and the compiled
`core.PlainExchange`); here is decided which of them a socket gets.  Only the holder of a connection
closes it: a descriptor closed under somebody who reads from it can be reused for a stranger's
stream.  Nothing in here may let a half-made connection escape, whatever interrupts the dialling.
"""

from __future__ import annotations

import _socket
import os
from threading import get_ident
from time import monotonic
from weakref import WeakSet

from .core import PlainExchange, ReplyParser, Requests
from .core.replies import STORE, fork_error
from .exceptions import MemcacheClientError, MemcacheError
from .exchange import AnyExchange, fork_count

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .exchange import Exchange


class NoreplyRecord:
    """What became of noreply commands that nobody waits for: counted, and logged."""

    def __init__(self, server: str) -> None:
        self._server = server
        # By thread: each adds to its own numbers only, so that none is lost and no lock is held.
        self._errors: dict[int, int] = {}
        self._lost: dict[int, int] = {}

    @property
    def errors(self) -> int:
        """Error replies to noreply commands."""
        return sum(list(self._errors.values()))

    @property
    def lost(self) -> int:
        """noreply commands whose connection failed before the server had acknowledged them."""
        return sum(list(self._lost.values()))

    def report(self, commands: int, errors: list[MemcacheError]) -> None:
        """`errors` came in answer to some of `commands` noreply commands."""
        thread = get_ident()
        self._errors[thread] = self._errors.get(thread, 0) + len(errors)
        _logger().warning(
            "%s: %d of %d noreply commands failed; the first error: %s: %s",
            self._server,
            len(errors),
            commands,
            type(errors[0]).__name__,
            errors[0],
        )

    def count_lost(self, commands: int) -> None:
        """A connection went with `commands` unacknowledged on it."""
        thread = get_ident()
        self._lost[thread] = self._lost.get(thread, 0) + commands

    def report_lost(self, commands: int) -> None:
        """Count them, and say so."""
        self.count_lost(commands)
        _logger().warning(
            "%s: the connection failed with %d noreply commands not acknowledged",
            self._server,
            commands,
        )


def _logger() -> Any:
    from logging import getLogger

    return getLogger("cymemcache")


class Dialler:
    """Makes connections to one server as the client's options say."""

    def __init__(
        self,
        server: tuple[str, int] | str,
        options: dict[str, Any],
        requests: Requests,
        decode: int,
        record: NoreplyRecord,
    ) -> None:
        self.server = server
        self._socket_module = options["socket_module"]
        self._connect_timeout: float | None = options["connect_timeout"]
        self._timeout: float | None = options["timeout"]
        self._no_delay = options["no_delay"]
        self._keepalive = options["socket_keepalive"]
        self._tls_context = options["tls_context"]
        self._max_value_size = options["max_value_size"]
        self._decode = decode
        self._record = record
        self._authentication = b""
        username, password = options["username"], options["password"]
        if (username is None) != (password is None):
            raise ValueError("username and password must be given together")
        if username is not None:
            self._authentication = requests.authenticate(username, password)
        if self._tls_context is not None and isinstance(server, str):
            raise ValueError("tls_context: a UNIX socket is not spoken to over TLS")

    def dial(self) -> Exchange:
        """A new connection, authenticated where credentials were given.

        Raises the `OSError` of the last address that was tried, with a note for each of them.
        """
        began = monotonic()
        forks = fork_count()
        sock = self._connect(began)
        try:
            if fork_count() != forks:
                raise fork_error()
            if self._authentication:
                self._authenticate(sock, self._left(began))
            return self._exchange(sock, self._timeout)
        except BaseException:
            sock.close()
            raise

    def adopt(self, sock: Any) -> Exchange:
        """A connection over a socket-like object of the user's own, as it is."""
        parser = ReplyParser(self._decode, self._max_value_size)
        return AnyExchange(sock, parser, self._timeout, self._record)

    def _exchange(self, sock: Any, timeout: float | None) -> Exchange:
        """The exchange for a socket that we dialled."""
        parser = ReplyParser(self._decode, self._max_value_size)
        # The type alone tells too much: gevent's sockets pass for it after monkey-patching.
        plain = getattr(type(sock), "recv_into", None) is _socket.socket.recv_into
        if PlainExchange is not None and plain:
            sock.settimeout(None)
            _set_receive_timeout(sock, timeout)
            return PlainExchange(sock, parser, timeout, self._record)
        sock.settimeout(timeout)
        return AnyExchange(sock, parser, timeout, self._record)

    def _authenticate(self, sock: Any, left: float | None) -> None:
        """The first command to a server with ``-Y``; see "Authentication" in protocol.txt."""
        exchange = self._exchange(sock, self._timeout if left is None else left)
        try:
            exchange.call(self._authentication, STORE)
        except MemcacheClientError as error:
            raise MemcacheClientError(f"username or password was refused: {error}") from None
        exchange.release()

    def _left(self, began: float) -> float | None:
        """Seconds left of connect_timeout, None where there is no limit."""
        if self._connect_timeout is None:
            return None
        left = self._connect_timeout - (monotonic() - began)
        if left <= 0:
            raise TimeoutError(f"timed out: no connection within {self._connect_timeout:g} s")
        return left

    def _connect(self, began: float) -> Any:
        module = self._socket_module
        if isinstance(self.server, str):
            return self._connect_to(module.AF_UNIX, 0, self.server, self._left(began))
        host, port = self.server
        addresses = module.getaddrinfo(
            host, port, module.AF_UNSPEC, module.SOCK_STREAM, module.IPPROTO_TCP
        )
        notes: list[str] = []
        for number, (family, _, protocol, _, address) in enumerate(addresses):
            try:
                left = self._left(began)
                if left is not None:
                    # An address that swallows packets must leave some time for the next.
                    left /= len(addresses) - number
                sock = self._connect_to(family, protocol, address, left)
            except Exception as error:
                if number + 1 == len(addresses):
                    for note in notes:
                        error.add_note(note)
                    raise
                notes.append(f"before that, {address}: {error}")
                continue
            try:
                return self._secured(sock, host, began)
            except BaseException:
                sock.close()
                raise
        raise OSError(f"{host!r} has no address")

    def _connect_to(self, family: int, protocol: int, address: Any, left: float | None) -> Any:
        module = self._socket_module
        sock = module.socket(family, module.SOCK_STREAM, protocol)
        try:
            _remember(sock)
            if family != getattr(module, "AF_UNIX", None):
                self._set_tcp_options(sock)
            sock.settimeout(left)
            sock.connect(address)
        except BaseException:
            sock.close()
            raise
        return sock

    def _set_tcp_options(self, sock: Any) -> None:
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

    def _secured(self, sock: Any, host: str, began: float) -> Any:
        if self._tls_context is None:
            return sock
        sock.settimeout(self._left(began))
        secured = self._tls_context.wrap_socket(sock, server_hostname=host)
        _remember(secured)
        return secured


def _set_receive_timeout(sock: Any, timeout: float | None) -> None:
    """Bound a blocking receive in the kernel, so that the usual command needs no poll."""
    from struct import pack

    seconds, rest = divmod(timeout or 0.0, 1)
    microseconds = int(rest * 1e6)
    if timeout is not None and not seconds and not microseconds:
        microseconds = 1  # zero is no limit at all
    sock.setsockopt(
        _socket.SOL_SOCKET, _socket.SO_RCVTIMEO, pack("@ll", int(seconds), microseconds)
    )


_sockets: WeakSet[Any] = WeakSet()  # that were dialled and may be open


def _remember(sock: Any) -> None:
    try:
        _sockets.add(sock)
    except TypeError:  # an object of somebody's own that cannot be referred to weakly
        pass


def _cut_off() -> None:
    """In a child process: what the parent dialled leads nowhere from here on.

    A signal handler can fork in the middle of a call on a socket, which would go on in the child:
    send the rest of the request a second time, take the reply that the parent waits for.
    Descriptors are replaced, not closed: such a call must not find a stranger's under the number.
    """
    nowhere, other = _socket.socketpair()
    other.close()
    for sock in list(_sockets):
        try:
            number = sock.fileno()
            if number >= 0:
                os.dup2(nowhere.fileno(), number, inheritable=False)
        except (OSError, ValueError):
            pass  # closed in the meantime
    nowhere.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_cut_off)
