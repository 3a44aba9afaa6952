"""Consistent hashing on a ring, pure: what libmemcached's ketama works out for a key.

Every node owns points on a ring of 2**32 places; a key belongs to the owner of the first point at
or after its own place.  Which points a node owns is the caller's affair (`cymemcache.ketama`); here
are the two hash functions, and the way from a key to its node.  A table never changes, so any
number of threads may use one.  This module must never give another node than libmemcached does.
"""

from __future__ import annotations

from bisect import bisect_left
from struct import unpack

from . import restored
from .rendezvous_py import NodeTable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

_MASK = 0xFFFFFFFF
_SIGNED = [*range(0x80), *range(-0x80, 0)]  # a byte as the signed char that it is to libmemcached


def one_at_a_time(data: bytes) -> int:
    """Jenkins' one-at-a-time hash of `data`, with bytes that are signed, as for libmemcached."""
    state = 0
    for byte in data:
        state = (state + _SIGNED[byte]) * 0x401 & _MASK
        state ^= state >> 6
    state = state * 9 & _MASK
    state ^= state >> 11
    return state * 0x8001 & _MASK


def md5_words(data: bytes) -> tuple[int, int, int, int]:
    """The MD5 digest of `data` as four numbers, each read with its low byte first."""
    from hashlib import md5  # loads OpenSSL: only for those who hash with it

    words: tuple[int, int, int, int] = unpack("<4I", md5(data, usedforsecurity=False).digest())
    return words


class KetamaTable(NodeTable):
    """An immutable ring of nodes that tells which of them a key belongs to.

    `nodes` are str (`TypeError` otherwise).  `points` are pairs of a place on the ring and the
    index of the node that owns it; of those at the same place the lowest index counts.  `md5` tells
    whether a key's place is the first word of its MD5 or its one-at-a-time hash.  A str key counts
    as its UTF-8; keys that are neither str nor bytes count as Python formats them.

    Raises `ValueError` for a place or an index out of range, and for nodes without any point.
    """

    __slots__ = ("_md5", "_owners", "_places")

    def __init__(self, nodes: Iterable[str], points: Iterable[tuple[int, int]], md5: bool) -> None:
        super().__init__(nodes)
        ring = sorted(points)
        if self.nodes and not ring:
            raise ValueError("nodes need points")
        for place, owner in ring:
            if not 0 <= place <= _MASK or owner not in range(len(self.nodes)):
                raise ValueError(f"there can be no such point: {(place, owner)}")
        self._places = [place for place, _ in ring]
        self._owners = [owner for _, owner in ring]
        self._md5 = None
        if md5:
            from hashlib import md5 as function  # once for all keys

            self._md5 = function

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return restored.ketama_table, (
            self.nodes,
            tuple(zip(self._places, self._owners, strict=True)),
            self._md5 is not None,
        )

    def _best(self, key: Any) -> int:
        if not isinstance(key, bytes):
            key = str.encode(key if isinstance(key, str) else format(key), "utf-8", "surrogatepass")
        if self._md5 is None:
            place = one_at_a_time(key)
        else:
            place = int.from_bytes(self._md5(key, usedforsecurity=False).digest()[:4], "little")
        return self._owners[bisect_left(self._places, place) % len(self._places)]
