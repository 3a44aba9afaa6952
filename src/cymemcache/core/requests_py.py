"""The request encoder, pure: arguments in, the finished bytes of one request out.

One call per command validates the key, puts the prefix before it, checks the integers and frames
the command.  Whatever it returns is read by a server as exactly the commands that were meant: no
key, number, value or token can end a line early, and no request announces what the server would
refuse after its header (it would then read the value as commands).  An instance keeps nothing
between two calls: threads share it.
"""

from __future__ import annotations

from time import time

from . import arguments
from .arguments import MAX_KEY_LENGTH, UINT32_MAX, UINT64_MAX
from .expiry import LONGEST_SPAN, delay, exptime
from .replies import (
    DEFAULT_MAX_REQUEST_SIZE,
    DEFAULT_MAX_VALUE_SIZE,
    FLAG_BYTES,
    FLAG_INTEGER,
    FLAG_TEXT,
    MAX_VALUE_SIZE,
    STORAGE_VERBS,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

_exact = arguments.exact
_BUILT_IN = {bytes, str, int}  # types of values that no serde is asked about
_BLANKS = b"\t\n\x0b\x0c\r \x00"


class Requests:
    """Encodes the requests of one client.

    `serialize(key, value) -> (data, flags)` makes bytes of values, where one is given; `stock` says
    that it is the stock serde's, whose work on bytes, str and int is then done here.  `clock` gives
    UNIX time, which an expire above 30 days is counted from.
    """

    def __init__(
        self,
        key_prefix: bytes = b"",
        encoding: str = "ascii",
        allow_unicode_keys: bool = False,
        max_value_size: int = DEFAULT_MAX_VALUE_SIZE,
        max_request_size: int = DEFAULT_MAX_REQUEST_SIZE,
        serialize: Callable[[Any, Any], tuple[Any, int]] | None = None,
        stock: bool = False,
        clock: Callable[[], float] = time,
    ) -> None:
        if not 0 <= max_value_size <= MAX_VALUE_SIZE:
            raise ValueError(f"max_value_size must be from 0 to {MAX_VALUE_SIZE} bytes")
        if max_request_size < 1:
            raise ValueError("max_request_size must be positive")
        self._prefix = bytes(key_prefix)
        self._encoding = encoding
        self._unicode = bool(allow_unicode_keys)
        self._max_value_size = max_value_size
        self._max_request_size = max_request_size
        self._serialize = serialize
        self._stock = bool(stock)
        self._clock = clock
        self._stores_bytes = serialize is None or self._stock  # as they are, with flags 0

    # -- keys ----------------------------------------------------------------------------------

    def key(self, key: Any) -> bytes:
        """The key as it is sent: with the prefix, encoded, validated."""
        if type(key) is str and key.isascii():
            wire = key.encode()
        elif isinstance(key, str):
            try:
                wire = str.encode(key, "utf-8" if self._unicode else "ascii")
            except UnicodeEncodeError:
                raise arguments.key_encoding_error(key, self._unicode) from None
        elif isinstance(key, bytes):
            wire = _exact(key)
        else:
            raise arguments.key_type_error(key)
        wire = self._prefix + wire
        if wire.translate(None, _BLANKS) != wire or not 0 < len(wire) <= MAX_KEY_LENGTH:
            raise arguments.key_error(key, wire)
        return wire

    def _joined(self, keys: Sequence[Any]) -> bytes:
        """All `keys` as they are sent, with a space between two.

        Empty where there is anything unusual about them, which `key` looks at one by one.
        """
        prefix = self._prefix
        try:
            line = " ".join(keys).encode("utf-8" if self._unicode else "ascii")
        except (TypeError, UnicodeEncodeError):
            return b""  # there are bytes among them, or what is no key
        if prefix:
            line = prefix + line.replace(b" ", b" " + prefix)
        wires = line.split()
        # Nothing blank but one space between each two.
        if (
            len(wires) == len(keys)
            and line.split(b" ") == wires
            and b"\x00" not in line
            and max(map(len, wires)) <= MAX_KEY_LENGTH
        ):
            return line
        return b""

    # -- retrieval -----------------------------------------------------------------------------

    def get(self, key: Any) -> bytes:
        return b"get %b\r\n" % self.key(key)

    def gets(self, key: Any) -> bytes:
        return b"gets %b\r\n" % self.key(key)

    def gat(self, key: Any, expire: Any) -> bytes:
        wire = self.key(key)
        return b"gat %d %b\r\n" % (self._exptime(expire), wire)

    def gats(self, key: Any, expire: Any) -> bytes:
        wire = self.key(key)
        return b"gats %d %b\r\n" % (self._exptime(expire), wire)

    def get_many(self, keys: Sequence[Any]) -> bytes:
        return self._fetch_many(b"get ", keys)

    def gets_many(self, keys: Sequence[Any]) -> bytes:
        return self._fetch_many(b"gets ", keys)

    def _fetch_many(self, verb: bytes, keys: Sequence[Any]) -> bytes:
        if not keys:
            raise ValueError("keys must not be empty")
        if len(keys) == 1:
            return b"%b%b\r\n" % (verb, self.key(keys[0]))
        joined = self._joined(keys) or b" ".join(map(self.key, keys))
        line = b"%b%b\r\n" % (verb, joined)
        if len(line) <= self._max_request_size:
            return line
        wires = joined.split(b" ")
        lines: list[bytes] = []
        start = 0
        size = len(verb) + 1
        for index, wire in enumerate(wires):
            size += len(wire) + 1
            if size > self._max_request_size and index > start:
                lines.append(verb + b" ".join(wires[start:index]) + b"\r\n")
                start = index
                size = len(verb) + 1 + len(wire) + 1
        lines.append(verb + b" ".join(wires[start:]) + b"\r\n")
        return b"".join(lines)

    # -- storage -------------------------------------------------------------------------------

    def store(
        self,
        verb: bytes,
        key: Any,
        value: Any,
        expire: Any,
        noreply: bool,
        flags: int | None = None,
    ) -> bytes:
        wire = self.key(key)
        if type(expire) is not int or expire:
            expire = self._exptime(expire)
        data, flags = self._data(key, value, flags)
        tail = b" noreply" if noreply else b""
        header = b"%b %b %d %d %d%b\r\n" % (verb, wire, flags, expire, len(data), tail)
        return b"".join((header, data, b"\r\n"))

    def cas(
        self,
        key: Any,
        value: Any,
        cas: int | str | bytes,
        expire: Any,
        noreply: bool,
        flags: int | None = None,
    ) -> bytes:
        wire = self.key(key)
        token = _cas(cas)
        if type(expire) is not int or expire:
            expire = self._exptime(expire)
        data, flags = self._data(key, value, flags)
        tail = b" noreply" if noreply else b""
        header = b"cas %b %d %d %d %b%b\r\n" % (wire, flags, expire, len(data), token, tail)
        return b"".join((header, data, b"\r\n"))

    def store_many(
        self,
        verb: bytes,
        items: Iterable[tuple[Any, Any]],
        expire: Any,
        noreply: bool,
        flags: int | None = None,
    ) -> bytes:
        expire = self._exptime(expire)
        given = None if flags is None else _uint(flags, "flags", UINT32_MAX)
        tail = b" noreply\r\n" if noreply else b"\r\n"
        if type(items) is not list:
            items = list(items)
        if len(items) == 1:
            key, value = items[0]
            return self.store(verb, key, value, expire, noreply, flags)
        joined = b""
        # A serde may change the list: with that, each item is looked at when it is its turn.
        if self._stores_bytes and _BUILT_IN.issuperset([type(value) for _, value in items]):
            joined = self._joined([key for key, _ in items])
        wires = iter(joined.split(b" ")) if joined else None
        parts = []
        for key, value in items:
            wire = next(wires) if wires else self.key(key)
            data, own = self._data(key, value, given)
            parts.append(b"%b %b %d %d %d%b" % (verb, wire, own, expire, len(data), tail))
            parts.append(data)
            parts.append(b"\r\n")
        return b"".join(parts)

    def _exptime(self, expire: Any) -> int:
        if type(expire) is int and 0 <= expire <= LONGEST_SPAN:
            return expire
        return exptime(expire, self._clock)

    def _data(self, key: Any, value: Any, flags: int | None) -> tuple[bytes, int]:
        """The bytes to store for `value`, and their flags."""
        if (
            flags is None
            and self._stores_bytes
            and type(value) is bytes
            and len(value) <= self._max_value_size
        ):
            return value, FLAG_BYTES
        if flags is not None:
            flags = _uint(flags, "flags", UINT32_MAX)
        own = FLAG_BYTES
        serialize = self._serialize
        if serialize is None:
            data = self._encoded(value, None)
        elif self._stock and type(value) is bytes:  # too large, or with flags of the caller's
            data = value
        elif self._stock and type(value) is str:
            try:
                data = value.encode("utf-8")
            except UnicodeEncodeError as error:
                raise arguments.value_encoding_error("UTF-8", error) from error
            own = FLAG_TEXT
        elif self._stock and type(value) is int:
            data = _decimal(value)
            own = FLAG_INTEGER
        else:
            serialized = serialize(key, value)
            if not isinstance(serialized, tuple) or tuple.__len__(serialized) != 2:
                raise arguments.serde_result_error(serialized)
            value, own = tuple.__iter__(serialized)
            own = _uint(own, "flags", UINT32_MAX)
            data = self._encoded(value, serialize)
        if len(data) > self._max_value_size:
            raise arguments.value_size_error(len(data), self._max_value_size)
        return data, own if flags is None else flags

    def _encoded(self, value: Any, serialize: Any) -> bytes:
        if isinstance(value, bytes):
            return _exact(value)
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, int) and not isinstance(value, bool):
            return _decimal(value)
        try:
            view = memoryview(value)
        except TypeError:
            pass
        else:
            with view:
                return view.tobytes()
        if serialize is not None:
            raise arguments.serde_data_error(value)
        return self._text(str(value))

    def _text(self, text: str) -> bytes:
        try:
            return str.encode(text, self._encoding)
        except UnicodeEncodeError as error:
            raise arguments.value_encoding_error(self._encoding, error) from error

    def with_replies(self, request: bytes, least: int) -> bytes | None:
        """The noreply commands in `request` without their noreply.

        None where none of them has a value of at least `least` bytes; 0 is for all of them.
        """
        parts = []
        largest = position = 0
        while position < len(request):
            end = request.index(b" noreply\r\n", position)
            words = request[position:end].split(b" ")
            after = end + 10
            if words[0] in STORAGE_VERBS:
                size = int(words[4])
                largest = max(largest, size)
                after += size + 2
            parts.append(request[position:end])
            if words == [b"delete", b"noreply"]:
                parts.append(_delete_tail(words[1]))
            parts.append(request[end + 8 : after])
            position = after
        return b"".join(parts) if largest >= least else None

    # -- the rest ------------------------------------------------------------------------------

    def delete(self, key: Any, noreply: bool) -> bytes:
        wire = self.key(key)
        return b"delete %b%b\r\n" % (wire, b" noreply" if noreply else _delete_tail(wire))

    def delete_many(self, keys: Sequence[Any], noreply: bool) -> bytes:
        tail = b" noreply\r\n" if noreply else b"\r\n"
        if not keys:
            return b""
        if len(keys) == 1:
            return self.delete(keys[0], noreply)
        joined = self._joined(keys) or b" ".join(map(self.key, keys))
        if b"noreply" in joined and not noreply:
            wires = joined.split(b" ")
            return b"".join([b"delete %b%b\r\n" % (w, _delete_tail(w)) for w in wires])
        return b"delete %b%b" % (joined.replace(b" ", tail + b"delete "), tail)

    def incr(self, key: Any, delta: int, noreply: bool) -> bytes:
        wire = self.key(key)
        tail = b" noreply" if noreply else b""
        return b"incr %b %d%b\r\n" % (wire, _uint(delta, "value", UINT64_MAX), tail)

    def decr(self, key: Any, delta: int, noreply: bool) -> bytes:
        wire = self.key(key)
        tail = b" noreply" if noreply else b""
        return b"decr %b %d%b\r\n" % (wire, _uint(delta, "value", UINT64_MAX), tail)

    def touch(self, key: Any, expire: Any, noreply: bool) -> bytes:
        wire = self.key(key)
        return b"touch %b %d%b\r\n" % (wire, self._exptime(expire), b" noreply" if noreply else b"")

    def stats(self, *args: Any) -> bytes:
        return arguments.tokens(b"stats", args)

    def version(self) -> bytes:
        return b"version\r\n"

    def verbosity(self, level: int, noreply: bool) -> bytes:
        number = _uint(level, "level", UINT32_MAX)
        return b"verbosity %d%b\r\n" % (number, b" noreply" if noreply else b"")

    def flush_all(self, after: Any, noreply: bool) -> bytes:
        number = delay(after, self._clock)
        return b"flush_all %d%b\r\n" % (number, b" noreply" if noreply else b"")

    def cache_memlimit(self, megabytes: int, noreply: bool = False) -> bytes:
        number = _uint(megabytes, "memlimit", UINT32_MAX)
        return b"cache_memlimit %d%b\r\n" % (number, b" noreply" if noreply else b"")

    def shutdown(self, graceful: bool) -> bytes:
        return b"shutdown graceful\r\n" if graceful else b"shutdown\r\n"

    def slabs(self, *args: Any) -> bytes:
        return arguments.tokens(b"slabs", args)

    def lru_crawler(self, *args: Any) -> bytes:
        return arguments.tokens(b"lru_crawler", args)

    def config_get(self, name: Any) -> bytes:
        return arguments.tokens(b"config get", (name,))

    def quit(self) -> bytes:
        return b"quit\r\n"

    def authenticate(self, username: str | bytes, password: str | bytes) -> bytes:
        return arguments.authentication(username, password)

    def raw(self, command: str | bytes) -> bytes:
        return arguments.raw(command, self._unicode)


def _delete_tail(wire: bytes) -> bytes:
    """What follows the key where a reply is wanted.

    Servers take the last word of a line for "noreply" even where it is the key.  A time of 0 after
    the key is allowed, and means the same as none.
    """
    return b" 0" if wire == b"noreply" else b""


def _integer(value: Any, name: str, least: int, most: int) -> int:
    if not isinstance(value, int):
        raise arguments.integer_error(name, value)
    number = int.__index__(value)  # whatever a subclass says that it is
    if not least <= number <= most:
        raise arguments.range_error(name, least, most)
    return number


def _uint(value: Any, name: str, most: int) -> int:
    if type(value) is int and 0 <= value <= most:
        return value
    return _integer(value, name, 0, most)


def _cas(cas: Any) -> bytes:
    if isinstance(cas, int):
        return b"%d" % _uint(cas, "cas", UINT64_MAX)
    if isinstance(cas, str) and cas.isascii():
        token = str.encode(cas, "ascii")
    elif isinstance(cas, bytes):
        token = _exact(cas)
    else:
        raise arguments.cas_error(cas)
    if not token.isdigit() or len(token) > 20 or int(token) > UINT64_MAX:
        raise arguments.cas_error(cas)
    return token


def _decimal(value: int) -> bytes:
    try:
        return b"%d" % value
    except ValueError as error:
        raise arguments.digits_error(error) from error
