"""Serializers: how Python values become the bytes and flags that memcached stores, and back.

A serde is an object with ``serialize(key, value) -> (data, flags)`` and
``deserialize(key, data, flags) -> value``, which may give `MISS` for what is to count as missing:
`get` then gives its default, and `get_many` leaves the key out.  The flags of the stock ones say
what a value was; they and the bytes are those of pymemcache, so that either library reads what the
other wrote.  None of these objects keeps anything between two calls: they may be shared by threads.

Nobody pays for what they do not use: importing this module must never import pickle, zlib, json or
logging.  What needs one of them to exist at all (`pickle_serde`, `DEFAULT_PICKLE_VERSION` ...) is
made when it is first asked for.
"""

from __future__ import annotations

from functools import cache

from .core.replies import (
    DECODE_LATER,
    DECODE_RAW,
    DECODE_STOCK,
    FLAG_BYTES,
    FLAG_COMPRESSED,
    FLAG_INTEGER,
    FLAG_LONG,
    FLAG_PICKLE,
    FLAG_TEXT,
    MISS,
)
from .exceptions import MemcacheDecompressionError, MemcacheIllegalInputError
from .undecodable import checked_on_error, undecodable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from functools import partial
    from json import JSONDecoder
    from typing import Any, Literal, Protocol

    class Serde(Protocol):
        """What the `serde` option of a client takes."""

        def serialize(self, key: Any, value: Any, /) -> tuple[Any, int]:
            """The bytes (or str, int, buffer) to store for `value`, and its flags (0..2**32-1)."""

        def deserialize(self, key: Any, value: bytes, flags: int, /) -> Any:
            """The value that was stored as the bytes `value` with `flags`; `MISS` for none."""

    from .signing import SignedSerde

    # Made by __getattr__ below.
    DEFAULT_PICKLE_VERSION: int
    python_memcache_serializer: partial[tuple[bytes | str, int]]
    pickle_serde: PickleSerde
    compressed_serde: CompressedSerde

__all__ = [
    "DEFAULT_PICKLE_VERSION",
    "FLAG_BYTES",
    "FLAG_COMPRESSED",
    "FLAG_INTEGER",
    "FLAG_JSON",
    "FLAG_LONG",
    "FLAG_PICKLE",
    "FLAG_TEXT",
    "MISS",
    "CompressedSerde",
    "JSONSerde",
    "LegacyWrappingSerde",
    "PickleSerde",
    "SignedSerde",
    "compressed_serde",
    "get_python_memcache_serializer",
    "pickle_serde",
    "python_memcache_deserializer",
    "python_memcache_serializer",
    "serialize_of",
    "stock_kind",
]

#: The value is JSON (`JSONSerde`): the flag by which Couchbase's clients mark it.  pymemcache has
#: no such flag and gives the bytes.
FLAG_JSON = 1 << 25
# What earlier versions marked JSON with, and Java's clients mark text with.
_FLAG_JSON_BEFORE = 1 << 5

_STOCK_FLAGS = FLAG_PICKLE | FLAG_INTEGER | FLAG_LONG | FLAG_COMPRESSED | FLAG_TEXT
_HIGHEST = -1  # pickle's own way to ask for its highest protocol
_INFLATE_INPUT = 1 << 16  # compressed bytes that are given to zlib at once
_INFLATE_OUTPUT = 1 << 20  # bytes that are taken from it at once


def __getattr__(name: str) -> Any:
    made: Any
    if name == "DEFAULT_PICKLE_VERSION":
        import pickle

        made = pickle.HIGHEST_PROTOCOL
    elif name == "python_memcache_serializer":
        made = get_python_memcache_serializer()
    elif name == "pickle_serde":
        made = PickleSerde()
    elif name == "compressed_serde":
        made = CompressedSerde()
    elif name == "SignedSerde":
        from .signing import SignedSerde

        made = SignedSerde
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Of two threads that are first, both get the object of one.
    return globals().setdefault(name, made)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _encode_stock(value: Any) -> tuple[bytes | str, int] | None:
    """`value` as bytes, str and int are stored; None where it is of another type.

    Types count exactly: an instance of a subclass has to come back as one.
    """
    kind = type(value)
    if kind is bytes:
        return value, FLAG_BYTES
    if kind is str:
        return _utf8(value), FLAG_TEXT
    if kind is int:
        try:
            return str(value), FLAG_INTEGER
        except ValueError as error:  # more digits than Python converts
            raise MemcacheIllegalInputError(f"value cannot be stored: {error}") from error
    return None


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise MemcacheIllegalInputError(f"value cannot be encoded as UTF-8: {error}") from error


def _decode_stock(value: bytes, flags: int) -> Any:
    """The value where `flags` say str or int, else `value` itself."""
    if flags & FLAG_TEXT:
        return value.decode("utf-8")
    if flags & (FLAG_INTEGER | FLAG_LONG):
        return int(value)  # blanks around it are fine: memcached pads a decremented number
    return value


def _described(flags: int) -> str:
    """What `flags` say of a value; text and numbers are such before they are anything else."""
    if flags & FLAG_TEXT:
        return "text"
    if flags & (FLAG_INTEGER | FLAG_LONG):
        return "number"
    if flags & FLAG_PICKLE:
        return "pickled"
    return "plain"


def _python_memcache_serializer(
    key: Any, value: Any, pickle_version: int | None = None
) -> tuple[bytes | str, int]:
    stock = _encode_stock(value)
    if stock is not None:
        return stock
    import pickle

    return pickle.dumps(value, pickle_version), FLAG_PICKLE


def get_python_memcache_serializer(
    pickle_version: int | None = _HIGHEST,
) -> partial[tuple[bytes | str, int]]:
    """A function ``(key, value) -> (data, flags)`` that pickles with protocol `pickle_version`.

    A negative `pickle_version` stands for the highest protocol, None for pickle's default one.
    bytes, str and int (exact types) are stored as what they are, anything else is pickled; what
    pickle raises (`pickle.PicklingError`, `TypeError` ...) propagates.
    """
    import pickle  # now, and not on a command's way
    from functools import partial

    if pickle_version is not None and pickle_version < 0:
        pickle_version = pickle.HIGHEST_PROTOCOL
    return partial(_python_memcache_serializer, pickle_version=pickle_version)


def python_memcache_deserializer(key: Any, value: bytes, flags: int) -> Any:
    """The value that was stored as the bytes `value` with `flags`.

    `MISS` where it cannot be decoded, which is logged.  Flags that are not known give the bytes.
    """
    return _decode_python(key, value, flags, "miss")


def _decode_python(key: Any, value: bytes, flags: int, on_error: str) -> Any:
    what = _described(flags)
    try:
        if what == "pickled":
            import pickle

            return pickle.loads(value)
        return _decode_stock(value, flags)
    except Exception as error:
        return undecodable(error, what, key, on_error)


class StockSerde:
    """A serde of this package.

    Its values are no longer what they were where something is added to their bytes, unless these
    are the value's own (`extending.extension_of`).
    """


class PickleSerde(StockSerde):
    """bytes, str and int as what they are, anything else pickled: the usual serde.

    Unpickling runs whatever code the pickle names: only for a memcached that nobody else can write
    to; otherwise see `JSONSerde`.  `pickle_version` is the pickle protocol: a negative one stands
    for the highest, None for pickle's default.

    A value that cannot be decoded (a corrupt pickle, or of a class that is gone; bytes that are not
    the text or the number that their flags tell) is logged and counts as missing: `MISS`.  With
    ``on_error="raise"`` the error is raised.
    """

    # For subclasses that do not call __init__, and for pickles of an earlier version.
    _on_error = "miss"

    def __init__(
        self,
        pickle_version: int | None = _HIGHEST,
        *,
        on_error: Literal["miss", "raise"] = "miss",
    ) -> None:
        self._serialize_func = get_python_memcache_serializer(pickle_version)
        self._on_error = checked_on_error(on_error)

    def serialize(self, key: Any, value: Any) -> tuple[bytes | str, int]:
        """The bytes to store for `value` (digits of an int as str), and its flags."""
        return self._serialize_func(key, value)

    def deserialize(self, key: Any, value: bytes, flags: int) -> Any:
        """The value that was stored as the bytes `value` with `flags`."""
        return _decode_python(key, value, flags, self._on_error)


@cache
def _json_decoder() -> JSONDecoder:
    """Reads what `JSONSerde` writes: no number that it would refuse to write."""
    from json import JSONDecoder

    def refuse(name: str) -> Any:
        raise ValueError(f"{name} is not JSON")

    def finite(text: str) -> float:
        number = float(text)
        if number - number != 0.0:
            raise ValueError("a number is too large to be read")
        return number

    return JSONDecoder(parse_float=finite, parse_constant=refuse)


class JSONSerde(StockSerde):
    """bytes, str and int as `PickleSerde` has them, anything else as JSON with `FLAG_JSON`.

    It runs no code of the cache's, so it is safe where others can write to memcached.  Values come
    back as JSON knows them: tuples as lists, dict keys as str.  What JSON has no form for raises
    `TypeError` or `ValueError` (NaN and the infinities among it).  A value that cannot be decoded
    is logged and counts as missing: `MISS`; so do a pickled one, and one with NaN or a number that
    only infinity could stand for.  With ``on_error="raise"`` it raises `ValueError`
    (`RecursionError` for JSON nested too deep).

    `flag` marks the values that are JSON.  Earlier versions used ``1 << 5``, which is text to
    clients of Java: such a value is a miss here, and ``JSONSerde(flag=1 << 5)`` goes on with it.
    """

    # For pickles of an earlier version.
    _on_error = "miss"
    _flag = FLAG_JSON

    def __init__(
        self, *, flag: int = FLAG_JSON, on_error: Literal["miss", "raise"] = "miss"
    ) -> None:
        import json  # noqa: F401  # now, and not on a command's way

        if not isinstance(flag, int) or not 0 < flag < 1 << 32 or flag & _STOCK_FLAGS:
            raise ValueError(
                f"flag must be a number of 32 bits without those of the FLAG_* of others ({flag!r})"
            )
        self._flag = flag
        self._on_error = checked_on_error(on_error)

    def serialize(self, key: Any, value: Any) -> tuple[bytes | str, int]:
        """The bytes to store for `value` (digits of an int as str), and its flags."""
        stock = _encode_stock(value)
        if stock is not None:
            return stock
        import json

        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return _utf8(text), self._flag

    def deserialize(self, key: Any, value: bytes, flags: int) -> Any:
        """The value that was stored as the bytes `value` with `flags`."""
        what = _described(flags)
        marked = flags & ~FLAG_COMPRESSED
        try:
            if what == "pickled":
                raise ValueError("JSONSerde reads no pickles")
            if marked == self._flag:
                what = "JSON"
                return _json_decoder().decode(value.decode("utf-8"))
            if marked in (FLAG_JSON, _FLAG_JSON_BEFORE):
                raise ValueError(f"JSONSerde reads JSON of the flag {self._flag}, not {marked}")
            return _decode_stock(value, flags)
        except (ValueError, RecursionError) as error:
            return undecodable(error, what, key, self._on_error)


def _inflate(data: bytes, limit: int) -> bytes:
    """What `zlib.decompress` gives; it stops, and raises, where that is more than `limit` bytes."""
    import zlib

    inflater = zlib.decompressobj()
    parts = []
    room = limit
    for start in range(0, len(data), _INFLATE_INPUT):
        pending = data[start : start + _INFLATE_INPUT]
        while True:
            step = min(room + 1, _INFLATE_OUTPUT)
            part = inflater.decompress(pending, step)
            room -= len(part)
            if room < 0:
                raise _too_large(limit)
            parts.append(part)
            if inflater.eof:
                return part if len(parts) == 1 else b"".join(parts)
            pending = inflater.unconsumed_tail
            if not pending and len(part) < step:
                break
    raise zlib.error("Error -5 while decompressing data: incomplete or truncated stream")


def _too_large(limit: int) -> MemcacheDecompressionError:
    return MemcacheDecompressionError(
        f"the value is more than {limit} bytes when decompressed "
        "(raise max_decompressed_size if that is meant to be)"
    )


class CompressedSerde(StockSerde):
    """Compresses what another serde made, where that makes it smaller.

    `serde` is the other one (`pickle_serde`).  Values of more than `min_compress_len` bytes are
    compressed (with 0 none are) by ``compress(data) -> bytes``, `zlib.compress` where it is not
    given, and marked with `FLAG_COMPRESSED`.

    A value that `decompress` cannot read, or that is more than `max_decompressed_size` bytes then,
    is logged and counts as missing: `MISS`.  With ``on_error="raise"`` it raises what `decompress`
    raises (`zlib.error`), or `MemcacheDecompressionError`.  Where `on_error` is not given it is
    that of `serde`.  With zlib (`decompress` not given, or `zlib.decompress`) a size above the
    limit is noticed on the way, before more than that is in memory; with a `decompress` of your own
    only afterwards.
    """

    _on_error = "miss"  # for pickles of an earlier version

    def __init__(
        self,
        compress: Callable[[Any], bytes] | None = None,
        decompress: Callable[[Any], bytes] | None = None,
        serde: Serde | None = None,
        min_compress_len: int = 400,
        *,
        max_decompressed_size: int = 1 << 30,
        on_error: Literal["miss", "raise"] | None = None,
    ) -> None:
        import zlib
        from functools import partial

        if not isinstance(max_decompressed_size, int) or max_decompressed_size < 0:
            raise ValueError(
                "max_decompressed_size must be an integer of at least 0 (bytes), "
                f"got {max_decompressed_size!r}"
            )
        if serde is None:
            serde = (
                __getattr__("pickle_serde") if on_error is None else PickleSerde(on_error=on_error)
            )
        if decompress is None or decompress is zlib.decompress:
            decompress = partial(_inflate, limit=max_decompressed_size)
        self._serde = serde
        self._compress: Callable[[Any], bytes] = compress or zlib.compress
        self._decompress = decompress
        self._min_compress_len = min_compress_len
        self._max_decompressed_size = max_decompressed_size
        if on_error is not None:
            self._on_error = checked_on_error(on_error)
        else:
            self._on_error = getattr(serde, "_on_error", self._on_error)

    def serialize(self, key: Any, value: Any) -> tuple[Any, int]:
        """The bytes to store for `value`, and its flags."""
        data, flags = self._serde.serialize(key, value)
        if len(data) > self._min_compress_len > 0:
            # Compressors take bytes only, and the digits of an int come as str.
            plain = _utf8(data) if isinstance(data, str) else data
            compressed = self._compress(plain)
            if len(compressed) <= len(plain):
                return compressed, flags | FLAG_COMPRESSED
        return data, flags

    def deserialize(self, key: Any, value: bytes, flags: int) -> Any:
        """The value that was stored as the bytes `value` with `flags`."""
        if flags & FLAG_COMPRESSED:
            try:
                value = self._decompress(value)
                if len(value) > self._max_decompressed_size:
                    raise _too_large(self._max_decompressed_size)
            except Exception as error:
                return undecodable(error, "compressed", key, self._on_error)
        return self._serde.deserialize(key, value, flags)


class LegacyWrappingSerde:
    """A serde of two functions, as the options `serializer` and `deserializer` give them.

    ``serializer_func(key, value)`` returns the bytes and the flags, which come back unchanged in
    ``deserializer_func(key, value, flags)``.  None in the place of either passes values through.
    """

    def __init__(
        self,
        serializer_func: Callable[[Any, Any], tuple[Any, int]] | None,
        deserializer_func: Callable[[Any, bytes, int], Any] | None,
    ) -> None:
        self.serialize = serializer_func or self._default_serialize
        self.deserialize = deserializer_func or self._default_deserialize

    def _default_serialize(self, key: Any, value: Any) -> tuple[Any, int]:
        return value, 0

    def _default_deserialize(self, key: Any, value: bytes, flags: int) -> Any:
        return value


# What makes the stock serdes stock: as long as these are in place, the core may do their work.
_STOCK_METHODS: dict[type, Any] = {
    PickleSerde: (PickleSerde.serialize, PickleSerde.deserialize),
    JSONSerde: (JSONSerde.serialize, JSONSerde.deserialize),
}


def stock_kind(serde: Any) -> int:
    """How a parser is to decode values for `serde`: one of `replies.DECODE_*`.

    * `DECODE_RAW` where values are the bytes themselves (no serde, no old-style deserializer);
    * `DECODE_STOCK` for `PickleSerde` and `JSONSerde` themselves, with none of their methods
      replaced: then the core may encode and decode bytes, str and int (exact types) by itself;
    * `DECODE_LATER` for any other serde, subclasses of those two included.
    """
    if serde is None:
        return DECODE_RAW
    kind = type(serde)
    if kind is LegacyWrappingSerde and serde.deserialize == serde._default_deserialize:
        return DECODE_RAW
    methods = _STOCK_METHODS.get(kind)
    if methods is None or methods != (kind.serialize, kind.deserialize):
        return DECODE_LATER
    if not vars(serde).keys().isdisjoint(("serialize", "deserialize")):
        return DECODE_LATER
    if (
        kind is PickleSerde
        and getattr(serde._serialize_func, "func", None) is not _python_memcache_serializer
    ):
        return DECODE_LATER
    return DECODE_STOCK


def serialize_of(serde: Any) -> Callable[[Any, Any], tuple[Any, int]] | None:
    """The `serialize` of `serde`; None where values are stored as they are.

    That is without a serde, and without an old-style serializer.
    """
    if serde is None:
        return None
    if type(serde) is LegacyWrappingSerde and serde.serialize == serde._default_serialize:
        return None
    serialize: Callable[[Any, Any], tuple[Any, int]] = serde.serialize
    return serialize
