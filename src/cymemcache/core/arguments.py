"""What is said of an argument that is refused, and the limits of the protocol.

Each error is made in one place.  Of a good request nothing but the lists of `listed` and
`listed_items` comes by here.
"""

from __future__ import annotations

from ..exceptions import MemcacheIllegalInputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

MAX_KEY_LENGTH = 250
INT32_MIN, INT32_MAX = -(1 << 31), (1 << 31) - 1
UINT32_MAX = (1 << 32) - 1
UINT64_MAX = (1 << 64) - 1


def shown(thing: Any) -> str:
    """The repr of `thing`, shortened for an error message."""
    text = repr(thing)
    return text if len(text) <= 100 else text[:97] + "..."


def refuse_text(things: Any, name: str) -> None:
    """Raise `TypeError` for text in the place of a list: it would count as a list of letters."""
    if isinstance(things, (str, bytes, bytearray)):
        kind = type(things).__name__
        raise TypeError(f"{name} must be a list, not {kind}; write [{shown(things)}]")


def listed(things: Iterable[Any], name: str = "keys") -> list[Any]:
    """The argument `name` as a list of one's own; raises `TypeError` where it is none."""
    refuse_text(things, name)
    try:
        return list(things)
    except TypeError:
        if hasattr(things, "__iter__") or hasattr(things, "__getitem__"):
            raise
        kind = type(things).__name__
        raise TypeError(f"{name} must be a list, or another iterable, not {kind}") from None


def listed_items(values: Mapping[Any, Any]) -> list[tuple[Any, Any]]:
    """The items of the argument `values` as a list of one's own."""
    try:
        return list(values.items())
    except AttributeError:
        if hasattr(values, "items"):
            raise
        raise TypeError(f"values must be a mapping, not {type(values).__name__}") from None


def require_client(thing: Any, name: str) -> None:
    """Raise `TypeError` for what is easily given in the place of a client, and is none."""
    if thing is None or isinstance(thing, (type, str, bytes, tuple, list)):
        raise TypeError(f"{name} must be a client, not {shown(thing)}")


def key_type_error(key: Any) -> TypeError:
    return TypeError(f"key must be str or bytes, not {type(key).__name__}")


def key_encoding_error(key: Any, unicode: bool) -> MemcacheIllegalInputError:
    if unicode:
        return MemcacheIllegalInputError(f"key cannot be encoded as UTF-8: {shown(key)}")
    return MemcacheIllegalInputError(
        f"key is not ASCII (allow_unicode_keys permits that): {shown(key)}"
    )


def key_error(key: Any, wire: bytes) -> MemcacheIllegalInputError:
    """The error for a key that is illegal as `wire`, its bytes with the prefix."""
    if not wire:
        return MemcacheIllegalInputError("key is empty")
    if b"\x00" in wire:
        return MemcacheIllegalInputError(f"key contains a NUL: {shown(key)}")
    if len(wire.split()) != 1 or wire.strip() != wire:
        return MemcacheIllegalInputError(f"key contains whitespace: {shown(key)}")
    return MemcacheIllegalInputError(
        f"key is too long, {len(wire)} bytes with its prefix where {MAX_KEY_LENGTH} are allowed "
        f"(use a hash of it): {shown(key)}"
    )


def integer_error(name: str, value: Any) -> MemcacheIllegalInputError:
    return MemcacheIllegalInputError(f"{name} must be an integer, got {shown(value)}")


def expire_error(name: str, value: Any) -> MemcacheIllegalInputError:
    return MemcacheIllegalInputError(
        f"{name} must be an integer, a timedelta or an aware datetime, got {shown(value)}"
    )


def naive_error(name: str, value: Any) -> TypeError:
    return TypeError(
        f"{name} must be a datetime with a time zone, got {shown(value)} "
        "(datetime.now(timezone.utc) has one)"
    )


def range_error(name: str, least: int, most: int) -> MemcacheIllegalInputError:
    return MemcacheIllegalInputError(f"{name} must be from {least} to {most}")


def cas_error(cas: Any) -> MemcacheIllegalInputError:
    return MemcacheIllegalInputError(
        f"cas must be an int or the digits of one, of 64 bits, got {shown(cas)}"
    )


def digits_error(error: ValueError) -> MemcacheIllegalInputError:
    """More digits than Python converts."""
    return MemcacheIllegalInputError(f"value cannot be stored: {error}")


def value_encoding_error(encoding: str, error: Exception) -> MemcacheIllegalInputError:
    return MemcacheIllegalInputError(f"value cannot be encoded as {encoding}: {error}")


def value_size_error(size: int, limit: int) -> MemcacheIllegalInputError:
    return MemcacheIllegalInputError(
        f"value is too large, {size} bytes where max_value_size is {limit}: compress it, or raise "
        "max_value_size and memcached's -I"
    )


def serde_result_error(result: Any) -> TypeError:
    return TypeError(f"serde.serialize must return (data, flags), not {shown(result)}")


def serde_data_error(data: Any) -> TypeError:
    return TypeError(
        "serde.serialize must return bytes, str, int or a buffer as data, "
        f"not {type(data).__name__}"
    )


def text_of(key: Any) -> str:
    """The text by which `key` is placed where formatted keys count: of a str what is sent of it."""
    if isinstance(key, str):
        return str.__str__(key)
    # What formatting plain bytes gives, without its BytesWarning.
    return bytes.__repr__(key) if isinstance(key, bytes) else format(key)


def exact(data: bytes) -> bytes:
    """The bytes themselves, where a subclass may say other things of them than they are."""
    return data if type(data) is bytes else b"".join((data,))


def tokens(verb: bytes, args: tuple[Any, ...]) -> bytes:
    """A request of `verb` and words, for the commands that nobody is in a hurry for."""
    parts = [verb]
    for arg in args:
        if isinstance(arg, bool) or not isinstance(arg, (str, bytes, int)):
            raise TypeError(f"argument must be str, bytes or int, not {type(arg).__name__}")
        try:
            text = exact(arg) if isinstance(arg, bytes) else str.encode(str(arg), "utf-8")
        except UnicodeEncodeError:
            raise MemcacheIllegalInputError(
                f"argument cannot be encoded as UTF-8: {shown(arg)}"
            ) from None
        if b"\x00" in text or len(text.split()) != 1 or text.strip() != text:
            raise MemcacheIllegalInputError(f"argument must be one word, got {shown(arg)}")
        parts.append(text)
    if parts[-1] == b"noreply":  # the caller would wait for an answer that does not come
        raise MemcacheIllegalInputError("the last argument must not be noreply")
    if len(args) == 0 and verb != b"stats":
        raise MemcacheIllegalInputError(f"{verb.decode()} needs an argument")
    return b" ".join(parts) + b"\r\n"


def raw(command: Any, unicode: bool) -> bytes:
    """The request of a raw command: as it is, with its line end."""
    if isinstance(command, str):
        try:
            command = command.encode("utf-8" if unicode else "ascii")
        except UnicodeEncodeError as error:
            raise MemcacheIllegalInputError(f"command cannot be encoded: {error}") from error
    elif not isinstance(command, bytes):
        raise TypeError(f"command must be str or bytes, not {type(command).__name__}")
    if not command:
        raise MemcacheIllegalInputError("command must not be empty")
    return bytes(command) + b"\r\n"


def authentication(username: Any, password: Any) -> bytes:
    """The request of ASCII authentication: a set whose value the server takes as credentials."""
    credentials = []
    for name, value in (("username", username), ("password", password)):
        if isinstance(value, str):
            try:
                value = str.encode(value, "utf-8")
            except UnicodeEncodeError:  # its text would show what must stay secret
                raise MemcacheIllegalInputError(f"{name} cannot be encoded as UTF-8") from None
        elif not isinstance(value, bytes):
            raise TypeError(f"{name} must be str or bytes, not {type(value).__name__}")
        credentials.append(exact(value))
    user, secret = credentials
    if b"\x00" in user or len(user.split()) != 1 or user.strip() != user:
        raise MemcacheIllegalInputError("username must be one word")
    if secret.translate(None, b"\r\n\x00") != secret:
        raise MemcacheIllegalInputError("password must hold no line break and no NUL")
    return b"set auth 0 0 %d\r\n%b %b\r\n" % (len(user) + 1 + len(secret), user, secret)
