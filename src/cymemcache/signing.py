"""`SignedSerde`: values that only holders of a key can have written.

Whoever can write to a memcached can put any bytes there, and unpickling runs what a pickle names.
A signed value is looked at by nothing (no decompressor, no pickle) before its signature has been
found right; one that is not right is a miss, and must never be an error or a value.
"""

from __future__ import annotations

from _thread import get_ident

from . import serde as _serde
from .core.replies import MISS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

_SIGNATURE_SIZE = 32  # of HMAC-SHA256, in bytes, before the value
_LEAST_KEY_SIZE = 16  # bytes


class SignedSerde(_serde.StockSerde):
    """Signs what another serde made, and lets that read only what is signed.

    For a memcached that others can write to, or be made to: above all with values that are
    pickled.  `keys` are secrets of at least 16 random bytes (``secrets.token_bytes(32)``), one or
    several: the first signs, all of them verify, so that a new one is first added behind the
    others everywhere, then moved to the front, and the old one dropped when what it signed has
    expired.  `serde` is the other one (`pickle_serde`).

    A value is stored behind its HMAC-SHA256, 32 bytes, over the item's key, flags and value.  One
    whose signature is not right (forged, moved from another item, signed with a key that was
    dropped, or not signed at all) is a miss, and counted in `rejected`.

    The key that is signed is the one that was given to the command, str as UTF-8, without the
    client's `key_prefix`: b"k" and "k" are the same item, and clients that use different prefixes
    must have different secrets if they are not to accept each other's values.  What changes an item
    on the server, or its flags, breaks its signature: `append`, `prepend`, `incr`, `decr` and the
    argument `flags`.  An older value of the same item is signed as well: that somebody puts it back
    cannot be noticed.
    """

    def __init__(self, keys: bytes | Iterable[bytes], serde: _serde.Serde | None = None) -> None:
        import hmac  # noqa: F401  # now, and not on a command's way

        listed = [keys] if isinstance(keys, bytes) else list(keys)
        if not listed:
            raise ValueError("keys must hold at least one key")
        for number, key in enumerate(listed):
            # Of a key itself nothing is shown.
            if not isinstance(key, bytes):
                raise TypeError(f"keys must be bytes; number {number} is {type(key).__name__}")
            if len(key) < _LEAST_KEY_SIZE:
                raise ValueError(
                    f"keys must have at least {_LEAST_KEY_SIZE} bytes; number {number} has "
                    f"{len(key)} (secrets.token_bytes(32) makes a good one)"
                )
        self._keys = listed
        self._serde = _serde.pickle_serde if serde is None else serde
        # By thread: each adds to its own number only, so that none is lost and no lock is held.
        self._rejected: dict[int, int] = {}

    @property
    def rejected(self) -> int:
        """How many values were misses because their signature was not right."""
        return sum(list(self._rejected.values()))

    def serialize(self, key: Any, value: Any) -> tuple[bytes, int]:
        """The bytes to store for `value`, its signature among them, and its flags."""
        data: Any
        data, flags = self._serde.serialize(key, value)
        if isinstance(data, str):
            data = data.encode("utf-8")
        elif isinstance(data, int) and not isinstance(data, bool):
            data = b"%d" % data
        else:
            data = bytes(memoryview(data))
        return _signature(self._keys[0], key, flags, data) + data, flags

    def deserialize(self, key: Any, value: bytes, flags: int) -> Any:
        """The value that was stored as the bytes `value` with `flags`, `MISS` without signature."""
        from hmac import compare_digest

        signature, data = value[:_SIGNATURE_SIZE], value[_SIGNATURE_SIZE:]
        for secret in self._keys:
            if compare_digest(signature, _signature(secret, key, flags, data)):
                return self._serde.deserialize(key, data, flags)
        thread = get_ident()
        self._rejected[thread] = self._rejected.get(thread, 0) + 1
        return MISS


def _signature(secret: bytes, key: str | bytes, flags: int, data: bytes) -> bytes:
    import hmac

    wire = key.encode("utf-8") if isinstance(key, str) else key
    # The key's length tells where it ends, so no other key and value make the same message.
    header = b"cymemcache signed value %d %d %b" % (len(wire), flags, wire)
    return hmac.digest(secret, header + data, "sha256")
