"""The client of one memcached server: its options, attributes and life.

`Client` puts the commands (`commands.Commands`) on a pool of connections, by way of the hooks in
`calls.Calls`, so that any number of threads may share it.  Nothing in here knows the protocol.
"""

from __future__ import annotations

import time
from functools import partial

from . import options as _options
from .addresses import normalize_server_spec
from .calls import Calls
from .commands import Commands, refuse_copy
from .connection import Dialler
from .core import PlainCalls, PlainExchange, Requests
from .core.replies import DECODE_STOCK
from .counters import Tally
from .extending import extension_of
from .failures import Failures
from .limited import LimitedPool, as_a_visit
from .options import LiveOption, ReadOnlyOption
from .pool import ConnectionPool
from .serde import LegacyWrappingSerde, serialize_of, stock_kind
from .subscripts import Subscripts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType
    from typing import Any, Self, Unpack

    from .commands import SyncCommands
    from .counters import Counters
    from .exchange import Exchange
else:
    SyncCommands = Commands


class Client(PlainCalls, Calls, SyncCommands, Subscripts):
    """A client for one memcached server, to be shared by any number of threads.

    `server` is ``(host, port)``, ``"host:port"``, ``"unix:/path"`` or ``"/path"``.  Connections are
    made when they are first needed: one for each command that is under way at the same time, and
    for each thread that runs and whose noreply commands are not acknowledged yet.  `close` (or a
    ``with`` block) closes them; a command after that connects anew.  A forked child makes its own.

    Options:
    """

    __module__ = "cymemcache"

    # Every command reads it, and a slot is read faster than what is in a dict.
    __slots__ = ("_requests",)

    #: gives UNIX time, by which items expire
    _clock: Callable[[], float] = staticmethod(lambda: time.time())  # which tests may replace

    serde: Any = ReadOnlyOption()
    connect_timeout: Any = ReadOnlyOption()
    timeout: Any = ReadOnlyOption()
    no_delay: Any = ReadOnlyOption()
    socket_module: Any = ReadOnlyOption()
    socket_keepalive: Any = ReadOnlyOption()
    key_prefix: Any = ReadOnlyOption()
    encoding: Any = ReadOnlyOption()
    tls_context: Any = ReadOnlyOption()
    allow_unicode_keys: Any = LiveOption()

    def __init__(
        self, server: tuple[str, int] | str, *args: Any, **given: Unpack[_options.ClientOptions]
    ) -> None:
        self._set_up(server, _options.CLIENT, args, dict(given))

    __signature__ = _options.ConstructorSignature(_options.CLIENT, "server")

    def _set_up(
        self, server: Any, options: _options.OptionSet, args: Sequence[Any], given: dict[str, Any]
    ) -> None:
        bound = options.bind(type(self).__name__, args, given)
        serde = bound["serde"]
        if serde is None:
            serde = LegacyWrappingSerde(bound["serializer"], bound["deserializer"])
            bound["serde"] = serde
        self.ignore_exc: bool = bound["ignore_exc"]
        self.default_noreply: bool = bound["default_noreply"]
        self._options = bound
        address = normalize_server_spec(server)
        self._tally = Tally(_shown(address))
        self._renew_requests()
        self._failures = Failures(self._tally, address, bound["tls_context"] is not None)
        self._dialler = Dialler(address, bound, self._requests, stock_kind(serde), self._tally)
        self._pool = self._pool_of(self._dialler.dial, bound)
        self._adopt = self._dialler.adopt
        self._dial_steps = self._dialler.steps
        # The dialler has the credentials; nothing else keeps them.
        bound["username"] = bound["password"] = None

    def _renew_requests(self) -> None:
        options = self._options
        serialize = _counted(serialize_of(options["serde"]), self._tally)
        extend = extension_of(options["serde"], serialize)
        requests = partial(
            Requests,
            options["key_prefix"],
            options["encoding"],
            options["allow_unicode_keys"],
            options["max_value_size"],
            options["max_request_size"],
            stock=stock_kind(options["serde"]) == DECODE_STOCK,
            clock=self._clock,
        )
        self._requests = requests(serialize=serialize)
        self._extending = self._requests if extend is serialize else requests(serialize=extend)

    def _option_changed(self, name: str, value: Any) -> None:
        self._renew_requests()

    def _pool_of(self, dial: Callable[[], Exchange], options: dict[str, Any]) -> ConnectionPool:
        return ConnectionPool(dial)

    __reduce__ = refuse_copy

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {_shown(self.server)}>"

    # -- connections -----------------------------------------------------------------------------

    @property
    def server(self) -> tuple[str, int] | str:
        """The server's address: ``(host, port)`` or the path of its UNIX socket.

        Assigning another one closes the connections, as `close` does; the next command connects to
        that one.
        """
        return self._dialler.server

    @server.setter
    def server(self, server: tuple[str, int] | str) -> None:
        address = normalize_server_spec(server)
        self._dialler.aim(address)
        self._tally.server = _shown(address)
        self._failures.server = address
        self._pool.close()
        self._knows_version = None

    def close(self) -> None:
        """Close the idle connections now, and each one in use as soon as its command is done.

        The calling thread's own noreply commands are waited for, at most for `timeout`.  The next
        command connects anew.
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
            self._knows_version = True  # what is put there by hand is asked nothing of ours

    @property
    def counters(self) -> Counters:
        """What this client has counted so far: commands, hits, misses, errors and more."""
        return self._tally.snapshot()

    @property
    def noreply_errors(self) -> int:
        """How many noreply commands the server has answered with an error."""
        return self._tally.snapshot().noreply_errors

    @property
    def noreply_lost(self) -> int:
        """How many noreply commands were not acknowledged when their connection failed."""
        return self._tally.snapshot().noreply_lost

    # -- beyond the commands ---------------------------------------------------------------------

    def check_key(self, key: str | bytes, key_prefix: bytes | None = None) -> bytes:
        """The key as it is sent, with the client's prefix (or `key_prefix`), as bytes.

        Raises `MemcacheIllegalInputError` where it is not legal.
        """
        if key_prefix is None or key_prefix == self.key_prefix:
            return self._requests.key(key)
        return Requests(key_prefix, self.encoding, self.allow_unicode_keys).key(key)


def _counted(serialize: Callable[..., Any] | None, tally: Tally) -> Callable[..., Any] | None:
    """`serialize`, whose errors are counted: they end a command that has not begun."""
    if serialize is None:
        return None

    def counted(key: Any, value: Any) -> Any:
        try:
            return serialize(key, value)
        except BaseException as error:
            tally.error(error)
            raise

    return counted


def _shown(address: tuple[str, int] | str) -> str:
    if isinstance(address, str):
        return address
    host, port = address
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"


def check_key_helper(key: str | bytes, allow_unicode_keys: bool, key_prefix: bytes = b"") -> bytes:
    """The key as a client with these options would send it, as bytes.

    Raises `MemcacheIllegalInputError` where it is not legal.  The empty key, which no client sends,
    is let pass.
    """
    if isinstance(key, (str, bytes)) and not key and not key_prefix:
        return b""
    return Requests(key_prefix, "ascii", allow_unicode_keys).key(key)


Client.__doc__ = f"{Client.__doc__}\n{_options.CLIENT.documentation()}\n"


class OtherName:
    """Descriptor for another name of a method: whoever wraps or overrides that, has this as well.

    An instance's and a class's attribute are those of the method, as though it had been asked for.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type) -> Any:
        return getattr(owner if instance is None else instance, self._name)


class PooledClient(Client):
    """A `Client` whose connections are limited: `max_pool_size` at most.

    A command that finds all of them in use waits for one, first come first served, and raises
    `RuntimeError` after `pool_wait_timeout`; then it has done nothing.  Its own `timeout` starts
    when it has its connection.  `client_pool` tells of them: `max_size`, and one entry for each
    connection in `free` and in `used`.

    Options:
    """

    __module__ = "cymemcache"

    #: A subclass of `Client` whose methods are to be used; for those who override it.
    client_class: type[Client] = Client

    lock_generator: Any = ReadOnlyOption()

    if not TYPE_CHECKING:
        # Tracers that know the reference see its pool call these methods of a client.
        set_multi = OtherName("set_many")
        get_multi = OtherName("get_many")
        gets_multi = OtherName("gets_many")
        delete_multi = OtherName("delete_many")

    def __new__(cls, *args: Any, **given: Any) -> Self:
        if not issubclass(cls, cls.client_class):
            cls = type(cls.__name__, (cls.client_class, cls), {})
        return super().__new__(cls)

    def __init__(
        self,
        server: tuple[str, int] | str,
        *args: Any,
        **given: Unpack[_options.PooledClientOptions],
    ) -> None:
        self._set_up(server, _options.POOLED_CLIENT, args, dict(given))

    __signature__ = _options.ConstructorSignature(_options.POOLED_CLIENT, "server")

    def _pool_of(self, dial: Callable[[], Exchange], options: dict[str, Any]) -> ConnectionPool:
        wait = options["pool_wait_timeout"]
        if wait is None:
            wait = options["timeout"] or DEFAULT_WAIT
        self.client_pool = LimitedPool(
            dial,
            options["max_pool_size"],
            options["pool_idle_timeout"],
            wait,
            options["lock_generator"],
        )
        return self.client_pool

    # Where a command is not compiled, it is a visit to the pool as long as it lasts.
    if PlainExchange is None:
        _call = as_a_visit(Calls._call)
        _send = as_a_visit(Calls._send)
    else:
        _failed = as_a_visit(Calls._failed, brings=True)
    _call_any = as_a_visit(Calls._call_any)
    _send_any = as_a_visit(Calls._send_any)
    _call_and_close = as_a_visit(Calls._call_and_close)
    _leave = as_a_visit(Calls._leave)


PooledClient.__doc__ = f"{PooledClient.__doc__}\n{_options.POOLED_CLIENT.documentation()}\n"

DEFAULT_WAIT = 5.0  # seconds for a connection, where there is no timeout either
