"""Every constructor option: its name, default, check and documentation, once.

Each class of clients names the options it takes, in the order in which they may be given by
position, and binds them here, so that a wrong one gets the same clear error everywhere; their
signatures, as `inspect` shows them, are made from the same table.  Nothing in here may open a
socket or import ssl.
"""

from __future__ import annotations

import socket

from .core import arguments, replies
from .hashing import RendezvousHash

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from inspect import Signature
    from ssl import SSLContext
    from typing import Any, TypedDict

    class ClientOptions(TypedDict, total=False):
        """The options of `Client`, for type checkers; see `CLIENT` for what they mean."""

        serde: Any
        serializer: Callable[..., Any] | None
        deserializer: Callable[..., Any] | None
        connect_timeout: float | None
        timeout: float | None
        no_delay: bool
        ignore_exc: bool
        socket_module: Any
        socket_keepalive: KeepaliveOpts | None
        key_prefix: bytes | str
        default_noreply: bool
        allow_unicode_keys: bool
        encoding: str
        tls_context: SSLContext | None
        username: str | bytes | None
        password: str | bytes | None
        max_value_size: int
        max_request_size: int

    class PooledClientOptions(ClientOptions, total=False):
        """The options of `PooledClient`, for type checkers; see `POOLED_CLIENT`."""

        max_pool_size: int | None
        pool_idle_timeout: float | None
        lock_generator: Callable[[], Any] | None
        pool_wait_timeout: float | None

    class HashClientOptions(PooledClientOptions, total=False):
        """The options of `HashClient`, for type checkers; see `HASH_CLIENT`."""

        hasher: Callable[[], Any]
        retry_attempts: int
        retry_timeout: float
        dead_timeout: float
        use_pooling: bool

    class AWSElastiCacheHashClientOptions(HashClientOptions, total=False):
        """The options of `AWSElastiCacheHashClient`, for type checkers; see its own set."""

        use_vpc: bool
        discovery_interval: float | None


class KeepaliveOpts:
    """How the kernel probes an idle connection (TCP keepalive).

    `idle`: seconds without traffic before the first probe; `intvl`: seconds between probes;
    `cnt`: unanswered probes after which the connection is dropped.  Each at least 1.
    """

    __module__ = "cymemcache"

    __slots__ = ("cnt", "idle", "intvl")

    def __init__(self, idle: int = 1, intvl: int = 1, cnt: int = 5) -> None:
        for name, value in (("idle", idle), ("intvl", intvl), ("cnt", cnt)):
            if not isinstance(value, int):
                raise TypeError(f"{name} must be an integer, not {value!r}")
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value!r}")
        self.idle = idle
        self.intvl = intvl
        self.cnt = cnt

    def __repr__(self) -> str:
        return f"KeepaliveOpts(idle={self.idle}, intvl={self.intvl}, cnt={self.cnt})"


# -- checks: each takes the option's name and value, and returns the value to be used -------------


def _anything(name: str, value: Any) -> Any:
    return value


def _flag(name: str, value: Any) -> bool:
    return bool(value)


def _function(name: str, value: Any) -> Any:
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be a function or None, not {value!r}")
    return value


def _serde(name: str, value: Any) -> Any:
    if value is not None:
        for method in ("serialize", "deserialize"):
            if not callable(getattr(value, method, None)):
                raise TypeError(f"{name} must have a method {method}; {value!r} has none")
            if isinstance(value, type) and _needs_an_instance(value, method):
                raise TypeError(
                    f"{name} must be an object, not the class {value.__name__}: "
                    f"write {name}={value.__name__}()"
                )
    return value


def _needs_an_instance(owner: type, method: str) -> bool:
    """Whether `method` is one of the instances of `owner`, rather than of the class itself."""
    for base in owner.__mro__:
        if method in vars(base):
            return not isinstance(vars(base)[method], (staticmethod, classmethod))
    return False  # it comes from the class's own class


def _seconds(name: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds or None, not {value!r}")
    if not 0 < value < 1e9:
        raise ValueError(f"{name} must be positive (or None for no limit), not {value!r}")
    return value


def _seconds_from_zero(name: str, value: Any) -> float:
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds or None, not {value!r}")
    if not 0 <= value < 1e9:
        raise ValueError(f"{name} must be 0 or more, not {value!r}")
    return value


def _interval(name: str, value: Any) -> float | None:
    return _seconds_from_zero(name, value) or None


def _wait(name: str, value: Any) -> float | None:
    return None if value is None else _seconds_from_zero(name, value)


def _pool_size(name: str, value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a number of connections or None, not {value!r}")
    if value < 0:
        raise ValueError(f"{name} must not be negative: {value!r}")
    return value or None


def _bytes_up_to(limit: int) -> Callable[[str, Any], int]:
    def check(name: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} must be a number of bytes, not {value!r}")
        if not 1 <= value <= limit:
            raise ValueError(f"{name} must be from 1 to {limit} bytes, not {value!r}")
        return value

    return check


def _key_prefix(name: str, value: Any) -> bytes:
    if isinstance(value, str):
        try:
            value = value.encode("ascii")
        except UnicodeEncodeError:
            raise ValueError(f"{name} must be bytes or an ASCII str, not {value!r}") from None
    if not isinstance(value, bytes):
        raise TypeError(f"{name} must be bytes or an ASCII str, not {value!r}")
    if value and (b"\0" in value or value.split() != [value]):
        raise ValueError(f"{name} must hold no whitespace and no NUL, not {value!r}")
    if len(value) > arguments.MAX_KEY_LENGTH:
        raise ValueError(f"{name} must be at most {arguments.MAX_KEY_LENGTH} bytes long")
    return value


def _encoding(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be the name of an encoding, not {value!r}")
    try:
        "".encode(value)
    except (LookupError, ValueError):  # codecs that do not make bytes of text are among these
        raise ValueError(f"{name}: there is no text encoding {value!r}") from None
    return value


def _hasher(name: str, value: Any) -> Any:
    if not callable(value):
        raise TypeError(f"{name} must be a class or function that makes a hasher, not {value!r}")
    return value


def _count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, not {value!r}")
    if value < 0:
        raise ValueError(f"{name} must not be negative, not {value!r}")
    return value


def _keepalive(name: str, value: Any) -> KeepaliveOpts | None:
    if value is not None and not isinstance(value, KeepaliveOpts):
        raise ValueError(f"{name} must be a KeepaliveOpts or None, not {value!r}")
    return value


def _socket_module(name: str, value: Any) -> Any:
    if not callable(getattr(value, "socket", None)):
        raise TypeError(f"{name} must offer socket() as the socket module does, not {value!r}")
    return value


def _tls_context(name: str, value: Any) -> Any:
    if value is not None and not callable(getattr(value, "wrap_socket", None)):
        raise TypeError(f"{name} must be an ssl.SSLContext or None, not {value!r}")
    return value


def _credential(name: str, value: Any) -> str | bytes | None:
    if value is not None and not isinstance(value, (str, bytes)):
        # The value itself stays out of the message: it may be the password.
        raise TypeError(f"{name} must be str, bytes or None, not {type(value).__name__}")
    return value


class _HiddenText(str):
    """A password as text, which no repr shows: not of `default_kwargs`, not in an error tracker."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


class _HiddenBytes(bytes):
    """The same as bytes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "b'***'"


def _password(name: str, value: Any) -> str | bytes | None:
    value = _credential(name, value)
    if value is None:
        return None
    return _HiddenText(value) if isinstance(value, str) else _HiddenBytes(value)


class Option:
    """One constructor option."""

    __slots__ = ("check", "default", "doc", "name")

    def __init__(self, name: str, default: Any, check: Callable[[str, Any], Any], doc: str) -> None:
        self.name = name
        self.default = default
        self.check = check
        self.doc = doc


class OptionSet:
    """The options of one class, in the order in which they may be given by position."""

    def __init__(self, *options: str | Option) -> None:
        known = [_OPTIONS[one] if isinstance(one, str) else one for one in options]
        self.options = {option.name: option for option in known}

    def bind(self, owner: str, args: Sequence[Any], given: dict[str, Any]) -> dict[str, Any]:
        """The checked value of every option; `owner` is the class, for error messages.

        Raises `TypeError` for an unknown option, naming the nearest known one.
        """
        names = list(self.options)
        if args and _is_port(args[0]):
            raise TypeError(
                f'{owner}() takes host and port as one argument: a pair, or "host:{args[0]}"'
            )
        if len(args) > len(names):
            raise TypeError(f"{owner}() takes at most {len(names) + 1} positional arguments")
        for name, value in zip(names, args, strict=False):
            if name in given:
                raise TypeError(f"{owner}() got multiple values for argument {name!r}")
            given[name] = value
        for name in given:
            if name not in self.options:
                raise TypeError(f"{owner}() has no option {name!r}{_hint(name, names)}")
        return {
            name: option.check(name, given[name]) if name in given else option.default
            for name, option in self.options.items()
        }

    def signature(self, *first: str) -> Signature:
        """The signature of a constructor that takes `first` and then these options."""
        from inspect import Parameter, Signature

        kind = Parameter.POSITIONAL_OR_KEYWORD
        return Signature(
            [Parameter(name, kind) for name in first]
            + [
                Parameter(option.name, kind, default=option.default)
                for option in self.options.values()
            ]
        )

    def documentation(self) -> str:
        """The options as the body of a docstring."""
        return "\n".join(
            f"    {option.name}: {option.doc} Default: {_shown(option.default)}."
            for option in self.options.values()
        )


def _is_port(value: Any) -> bool:
    """Whether `value` is a port, in the place of an option."""
    return type(value) is int or (type(value) is str and value.isdigit())


def _hint(name: str, names: list[str]) -> str:
    """What an error about the unknown option `name` says about those that are known, `names`."""
    takers = [owner for owner, known in _TAKERS.items() if name in known.options]
    if takers:
        return f", {' and '.join(takers)} have it"
    nearest = _nearest(name, names)
    return f"; did you mean {nearest!r}?" if nearest else ""


def _nearest(name: str, names: list[str]) -> str | None:
    """The one of `names` that `name` is most like, None where it is like none."""
    from difflib import get_close_matches

    letters = name.lower().replace("_", "")
    parts = [known for known in names if len(letters) > 2 and letters in known.replace("_", "")]
    close = get_close_matches(name.lower(), parts or names, n=1, cutoff=0.1 if parts else 0.4)
    return close[0] if close else None


def _shown(default: Any) -> str:
    if default is socket:
        return "the socket module"
    return default.__name__ if isinstance(default, type) else repr(default)


class ReadOnlyOption:
    """Descriptor for an option that has been built into what stands below its client."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type) -> Any:
        return self if instance is None else instance._options[self._name]

    def __set__(self, instance: Any, value: Any) -> None:
        raise AttributeError(
            f"{self._name} cannot be changed once the client is made: make another client"
        )


class LiveOption:
    """Descriptor for an option that may be changed: its client is told, and does what follows."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type) -> Any:
        return self if instance is None else instance._options[self._name]

    def __set__(self, instance: Any, value: Any) -> None:
        value = _OPTIONS[self._name].check(self._name, value)
        instance._options[self._name] = value
        instance._option_changed(self._name, value)


class ConstructorSignature:
    """Descriptor for ``__signature__``: built when `inspect` first asks, and only for classes
    that have not given themselves another ``__init__``."""

    def __init__(self, options: OptionSet, *first: str) -> None:
        self._options = options
        self._first = first

    def __set_name__(self, owner: type, name: str) -> None:
        self._init = owner.__dict__["__init__"]

    def __get__(self, instance: object, owner: type) -> Signature:
        nearest = next(base for base in owner.__mro__ if "__init__" in vars(base))
        if instance is not None or vars(nearest)["__init__"] is not self._init:
            raise AttributeError("__signature__")
        return self._options.signature(*self._first)


_OPTIONS = {
    option.name: option
    for option in (
        Option(
            "serde",
            None,
            _serde,
            "object with serialize(key, value) -> (data, flags) and deserialize(key, data, flags), "
            "which may give serde.MISS.",
        ),
        Option(
            "serializer",
            None,
            _function,
            "function (key, value) -> (data, flags), where there is no serde.",
        ),
        Option(
            "deserializer",
            None,
            _function,
            "function (key, data, flags) -> value, where there is no serde.",
        ),
        Option(
            "connect_timeout",
            None,
            _seconds,
            "seconds for a connection to be made, over all addresses together; a look-up of the "
            "host's name comes before that, and takes what the system allows it; None: no limit.",
        ),
        Option("timeout", None, _seconds, "seconds for one operation as a whole; None: no limit."),
        Option("no_delay", True, _flag, "set TCP_NODELAY."),
        Option(
            "ignore_exc", False, _flag, "a fetch that fails is a miss, stats that fail are empty."
        ),
        Option(
            "socket_module", socket, _socket_module, "module to take sockets from (gevent.socket)."
        ),
        Option("socket_keepalive", None, _keepalive, "KeepaliveOpts, for TCP keepalive."),
        Option("key_prefix", b"", _key_prefix, "bytes put before every key."),
        Option(
            "default_noreply",
            True,
            _flag,
            "what noreply=None means (cas, incr and decr ask for a reply in any case).",
        ),
        Option("allow_unicode_keys", False, _flag, "encode str keys as UTF-8, not only ASCII."),
        Option(
            "encoding", "ascii", _encoding, "of text to be stored that no serde has made bytes of."
        ),
        Option("tls_context", None, _tls_context, "ssl.SSLContext to speak TLS with."),
        Option("username", None, _credential, "for memcached's ASCII authentication (-Y)."),
        Option("password", None, _password, "for memcached's ASCII authentication (-Y)."),
        Option(
            "max_value_size",
            replies.DEFAULT_MAX_VALUE_SIZE,
            _bytes_up_to(replies.MAX_VALUE_SIZE),
            "bytes above which a value is refused, sent or received.",
        ),
        Option(
            "max_request_size",
            replies.DEFAULT_MAX_REQUEST_SIZE,
            _bytes_up_to(replies.MAX_VALUE_SIZE),
            "bytes at which the keys of a fetch are split over several requests.",
        ),
        Option(
            "max_pool_size",
            None,
            _pool_size,
            "connections at most; None: as many as there are commands at the same time.",
        ),
        Option(
            "pool_idle_timeout",
            0,
            _seconds_from_zero,
            "seconds after which a connection that nobody used is closed; 0: never.",
        ),
        Option(
            "lock_generator",
            None,
            _function,
            "makes the locks that callers wait on for a connection (gevent.lock.BoundedSemaphore).",
        ),
        Option(
            "pool_wait_timeout",
            None,
            _wait,
            "seconds to wait in line for a free connection; None: as `timeout`, else 5.",
        ),
        Option(
            "hasher",
            RendezvousHash,
            _hasher,
            "makes the object with add_node, remove_node and get_node that places keys.",
        ),
        Option(
            "retry_attempts",
            2,
            _count,
            "tries of a failing node before it is dead; 0: it dies at once.",
        ),
        Option("retry_timeout", 1, _seconds_from_zero, "seconds between tries of a failing node."),
        Option("dead_timeout", 60, _seconds_from_zero, "seconds between probes of a dead node."),
        Option("use_pooling", False, _flag, "make the clients of nodes PooledClients."),
        Option(
            "use_vpc",
            True,
            _flag,
            "know nodes by their IP addresses, not their host names; alike in all clients.",
        ),
        Option(
            "discovery_interval",
            60,
            _interval,
            "seconds between looks at the configuration; None or 0: only `reconfigure_nodes` does.",
        ),
    )
}

# What ours have beyond the reference comes last in each set, so that positions are the same.
_OF_OURS = ("username", "password", "max_value_size", "max_request_size")

CLIENT = OptionSet(
    "serde",
    "serializer",
    "deserializer",
    "connect_timeout",
    "timeout",
    "no_delay",
    "ignore_exc",
    "socket_module",
    "socket_keepalive",
    "key_prefix",
    "default_noreply",
    "allow_unicode_keys",
    "encoding",
    "tls_context",
    *_OF_OURS,
)

POOLED_CLIENT = OptionSet(
    "serde",
    "serializer",
    "deserializer",
    "connect_timeout",
    "timeout",
    "no_delay",
    "ignore_exc",
    "socket_module",
    "socket_keepalive",
    "key_prefix",
    "max_pool_size",
    "pool_idle_timeout",
    "lock_generator",
    "default_noreply",
    "allow_unicode_keys",
    "encoding",
    "tls_context",
    *_OF_OURS,
    "pool_wait_timeout",
)

_OF_A_CLUSTER = (
    "hasher",
    "serde",
    "serializer",
    "deserializer",
    "connect_timeout",
    "timeout",
    "no_delay",
    "socket_module",
    "socket_keepalive",
    "key_prefix",
    "max_pool_size",
    "pool_idle_timeout",
    "lock_generator",
    "retry_attempts",
    "retry_timeout",
    "dead_timeout",
    "use_pooling",
    "ignore_exc",
    "allow_unicode_keys",
    "default_noreply",
    "encoding",
    "tls_context",
)

HASH_CLIENT = OptionSet(*_OF_A_CLUSTER, *_OF_OURS, "pool_wait_timeout")

AWS_ELASTICACHE_HASH_CLIENT = OptionSet(
    *_OF_A_CLUSTER, "use_vpc", *_OF_OURS, "pool_wait_timeout", "discovery_interval"
)

# The options of `testing.MockMemcacheClient`: pymemcache's mock has fewer than its client.
MOCK_CLIENT = OptionSet(
    "serde",
    "serializer",
    "deserializer",
    "connect_timeout",
    "timeout",
    "no_delay",
    "ignore_exc",
    Option("socket_module", None, _anything, "is not used."),
    "default_noreply",
    "allow_unicode_keys",
    "encoding",
    "tls_context",
    "socket_keepalive",
    "key_prefix",
    *_OF_OURS,
)

# Who takes an option that another one has been given.
_TAKERS = {
    "Client": CLIENT,
    "PooledClient": POOLED_CLIENT,
    "HashClient": HASH_CLIENT,
    "AWSElastiCacheHashClient": AWS_ELASTICACHE_HASH_CLIENT,
}
