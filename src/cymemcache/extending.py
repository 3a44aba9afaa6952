"""What append and prepend may add to an item, which is the bytes of a value and nothing else.

The server puts bytes beside bytes and knows nothing of what they stand for: behind a text a pickle
makes no value of either, and whatever is added to a compressed or signed item makes it unreadable.
So nothing may be sent that a serde of ours would store as anything but the value's own bytes.
"""

from __future__ import annotations

from .exceptions import MemcacheIllegalInputError
from .serde import StockSerde, _encode_stock, _python_memcache_serializer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def extension_of(
    serde: Any, serialize: Callable[[Any, Any], tuple[Any, int]] | None
) -> Callable[[Any, Any], tuple[Any, int]] | None:
    """What takes the place of `serialize`, which is that of `serde`, for append and prepend.

    With a serde of ours it raises `MemcacheIllegalInputError` for a value that would not go as the
    bytes that it is.  Of what a user's own serde makes, its author knows whether it can be added:
    for that it is `serialize` itself.
    """
    if serialize is None or not _is_ours(serde):
        return serialize

    def extend(key: Any, value: Any) -> tuple[Any, int]:
        own = _encode_stock(value)
        if own is not None and _as_bytes(serialize(key, value)[0]) == _as_bytes(own[0]):
            return own
        raise MemcacheIllegalInputError(
            "append and prepend take values that go as they are (bytes, str, int): "
            f"{type(serde).__name__} would pickle, compress or sign this {type(value).__name__}"
        )

    return extend


def _is_ours(serde: Any) -> bool:
    if isinstance(serde, StockSerde):
        return True
    return getattr(serde.serialize, "func", None) is _python_memcache_serializer


def _as_bytes(data: Any) -> bytes:
    return data.encode("utf-8") if isinstance(data, str) else bytes(data)
