"""What the values of `stats` mean: bytes in, int, float, bool or bytes out.

The server sends text only.  Whatever is not known to be something else, and is no whole number,
stays bytes; nothing in here may fail on a value that a new server version invents.
"""

from __future__ import annotations

from .core.replies import protocol_error
from .interruptions import is_interruption

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def _seconds(text: bytes) -> float:
    return float(text.replace(b":", b"."))


def _is_not_zero(text: bytes) -> bool:
    return int(text) != 0


def _is_yes(text: bytes) -> bool:
    return text == b"yes"


def _octal(text: bytes) -> int:
    return int(text, 8)


_CONVERTERS: dict[bytes, Callable[[bytes], Any]] = {
    b"version": bytes,
    b"rusage_user": _seconds,
    b"rusage_system": _seconds,
    b"hash_is_expanding": _is_not_zero,
    b"slab_reassign_running": _is_not_zero,
    b"inter": bytes,
    b"growth_factor": float,
    b"stat_key_prefix": bytes,
    b"umask": _octal,
    b"detail_enabled": _is_not_zero,
    b"cas_enabled": _is_not_zero,
    b"auth_enabled_sasl": _is_yes,
    b"maxconns_fast": _is_not_zero,
    b"slab_reassign": _is_not_zero,
    b"slab_automove": _is_not_zero,
}


def convert_stats_line(line: bytes) -> dict[bytes, Any]:
    """The one ``STAT`` line that is the whole reply to some sub-commands."""
    word, _, rest = line.partition(b" ")
    name, _, text = rest.partition(b" ")
    if word != b"STAT" or not name:
        raise protocol_error(line, b"stats")
    return convert_stats({name: text})


def convert_stats(stats: dict[bytes, bytes]) -> dict[bytes, Any]:
    """`stats` with its values converted."""
    converted: dict[bytes, Any] = {}
    for name, text in stats.items():
        try:
            converted[name] = _CONVERTERS.get(name, int)(text)
        except ValueError as error:
            if is_interruption(error):
                raise
            converted[name] = text
    return converted
