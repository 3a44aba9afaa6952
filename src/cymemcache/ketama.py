"""KetamaHash: the hasher for clusters that are shared with clients built on libmemcached.

It works out which points each node owns on the ring; the way from a key to its node is the core's
(`core/ketama_py.py`).  Whatever looks arbitrary in here is what libmemcached does, down to the
rounding: this module must never place a key elsewhere.
"""

from __future__ import annotations

from struct import pack, unpack

from .core import KetamaTable, md5_words, one_at_a_time
from .hashing import TableHasher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    from .hashing import Table

__all__ = ["KetamaHash"]

_MAX_WEIGHT = 0xFFFFFFFF
_POINTS = 100  # of each node, while all weigh the same and nobody asked for weights
_DIGESTS = 40  # of each node on the average, four points each, where weights count


class KetamaHash(TableHasher):
    """Consistent hashing that places keys where libmemcached's ketama does.

    `weighted` is libmemcached's ``MEMCACHED_BEHAVIOR_KETAMA_WEIGHTED`` (pylibmc's
    ``ketama_weighted``, PHP's ``OPT_LIBKETAMA_COMPATIBLE``); False is
    ``MEMCACHED_BEHAVIOR_KETAMA`` (pylibmc's ``ketama``, PHP's ``DISTRIBUTION_CONSISTENT``), which
    hashes otherwise.

    `nodes` are str as everywhere in a cluster, ``"host:port"`` or the path of a UNIX socket; the
    host must be spelled as the other clients spell it.  `weights` are integers from 0 to 2**32 - 1
    by node; a node that is not in it weighs 1, and so does one with 0, as it does for libmemcached.
    A node that is removed keeps its weight for when it comes back.

    A key counts as the bytes that are sent (of a str its UTF-8), without the client's `key_prefix`:
    as for libmemcached unless ``MEMCACHED_BEHAVIOR_HASH_WITH_PREFIX_KEY`` is on.

    A cluster makes its hasher itself: give it ``functools.partial(KetamaHash, weights={...})``.
    """

    __module__ = "cymemcache"

    def __init__(
        self,
        nodes: Iterable[str] | None = None,
        weighted: bool = True,
        weights: Mapping[str, int] | None = None,
    ) -> None:
        md5_words(b"")  # the pure one loads hashlib: now, and not on a command's way
        checked = {node: _checked(node, weight) for node, weight in (weights or {}).items()}
        super().__init__(nodes, checked)
        self._weighted = bool(weighted)

    @property
    def weighted(self) -> bool:
        """Which of libmemcached's behaviours it follows."""
        return self._weighted

    def add_node(self, node: str, weight: int | None = None) -> None:
        """Add `node` with `weight` (None: the one that it had, or 1).

        Where it is there already, only its weight may change.  Raises `TypeError` and `ValueError`
        for what can be no weight.
        """
        if weight is not None:
            self._rule = {**self._rule, node: _checked(node, weight)}
        super().add_node(node)

    @property
    def weights(self) -> dict[str, int]:
        """The weights that were given, as a copy."""
        return dict(self._rule)

    def _make_table(self, nodes: list[str], rule: Any) -> Table:
        # Even without `weighted`, one weight makes libmemcached lay the points of the weighted ring
        # (but not hash the keys otherwise); it counts the nodes that are down as well.
        if self._weighted or any(weight > 1 for weight in rule.values()):
            points = _weighted_points(nodes, [rule.get(node, 1) for node in nodes])
        else:
            points = _equal_points(nodes)
        return KetamaTable(nodes, points, self._weighted)


def _checked(node: str, weight: int) -> int:
    if not isinstance(weight, int):
        raise TypeError(f"the weight of {node!r} must be an int, got {type(weight).__name__}")
    if not 0 <= weight <= _MAX_WEIGHT:
        raise ValueError(f"the weight of {node!r} must be from 0 to {_MAX_WEIGHT}, got {weight}")
    return weight or 1


def _name(node: str) -> str:
    """The node as it appears in what its points are hashed from."""
    if node.startswith("/"):
        return f"{node}:0"
    host, colon, port = node.rpartition(":")
    if not colon:
        return node
    host = host.removeprefix("[").removesuffix("]")
    return host if port == "11211" else f"{host}:{port}"


def _equal_points(nodes: list[str]) -> Iterator[tuple[int, int]]:
    for index, node in enumerate(nodes):
        name = _name(node)
        for number in range(_POINTS):
            yield one_at_a_time(f"{name}-{number}".encode()), index


def _weighted_points(nodes: list[str], weights: list[int]) -> Iterator[tuple[int, int]]:
    total = _single(sum(weights))
    for index, node in enumerate(nodes):
        name = _name(node)
        share = _single(_single(weights[index]) / total)
        # All this in single precision costs a few nodes a digest: one of 25 equal nodes has 39.
        for number in range(int(_single(_single(share * _DIGESTS) * len(nodes)))):
            for place in md5_words(f"{name}-{number}".encode()):
                yield place, index


def _single(number: float) -> float:
    """`number` rounded to single precision."""
    rounded: float = unpack("f", pack("f", number))[0]
    return rounded
