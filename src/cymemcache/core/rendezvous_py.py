"""Rendezvous hashing, pure: which node of a cluster a key belongs to.

A node's score for a key is the MurmurHash3 (x86, 32 bits, seed 0) of ``f"{node}-{key}"``, taken
over the low 8 bits of each character; the highest score wins, and among equal scores the greater
string.  What a node's own name adds to the hash is worked out once, when the table is made.  A
table never changes, so any number of threads may use one.  This module must never give another
node than clients that share the cluster do: a key that moves is a cache miss, or a stale value.
"""

from __future__ import annotations

from struct import pack, unpack, unpack_from

from . import restored
from .arguments import text_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

_MASK = 0xFFFFFFFF
_C1 = 0xCC9E2D51
_C2 = 0x1B873593
_C3 = 0xE6546B64

# The steps of the hash below work on any number of states at once, which is several times faster
# than one after another: an int with a state in the low half of each 64 bits, a lane.  A product of
# 32 bits with 32 bits just fits into its lane, and `mask` (_MASK in each lane) cuts off what grew
# over the low half or was shifted in from the lane above.  `ones` has a 1 in each lane.  With one
# lane these are 1 and _MASK.


def _low_bytes(text: str) -> bytes:
    """The low 8 bits of each character."""
    try:
        return str.encode(text, "latin-1")
    except UnicodeEncodeError:
        return str.encode(text, "utf-32-le", "surrogatepass")[::4]


def _mix(block: int, mask: int = _MASK) -> int:
    """What a block of four bytes (fewer at the end) adds to the state; 0 stays 0."""
    block = block * _C1 & mask
    return ((block << 15 | block >> 17) & mask) * _C2 & mask


def _mixed_blocks(data: bytes, start: int) -> tuple[list[int], int]:
    """The mixed blocks of `data` from `start` on, and the mixed tail behind the last whole one."""
    count = (len(data) - start) >> 2
    blocks = [  # _mix, without a call for each block
        ((product := block * _C1 & _MASK) << 15 | product >> 17) * _C2 & _MASK
        for block in unpack_from(f"<{count}I", data, start)
    ]
    return blocks, _mix(int.from_bytes(data[start + 4 * count :], "little"))


def _absorb(state: int, mixed: Iterable[int], ones: int = 1, mask: int = _MASK) -> int:
    """The state after mixed whole blocks."""
    add = _C3 * ones
    for block in mixed:
        state ^= block * ones
        state = ((state << 13 | state >> 19) & mask) * 5 + add & mask
    return state


def _finish(state: int, mask: int = _MASK) -> int:
    """The hash, from the state with tail and length in it."""
    state ^= state >> 16 & mask
    state = state * 0x85EBCA6B & mask
    state ^= state >> 13 & mask
    state = state * 0xC2B2AE35 & mask
    return state ^ state >> 16 & mask


def murmur3_32(data: str, seed: int = 0) -> int:
    """MurmurHash3 (x86, 32 bits) of the low 8 bits of each character of `data`.

    `seed` is taken modulo 2**32.  Raises `TypeError` where `data` is no str.
    """
    if not isinstance(data, str):
        raise TypeError(f"data must be a str, got {type(data).__name__}")
    raw = _low_bytes(data)
    blocks, tail = _mixed_blocks(raw, 0)
    return _finish(_absorb(seed & _MASK, blocks) ^ tail ^ (len(raw) & _MASK))


def _lanes(numbers: Sequence[int]) -> int:
    """One int with each of `numbers` in a lane of its own."""
    return int.from_bytes(pack(f"<{len(numbers)}Q", *numbers), "little")


class _Group:
    """The nodes whose prefix leaves over the same number of bytes after its last whole block.

    The blocks of a key are cut, and therefore mixed, in the same way for all of them.
    """

    __slots__ = ("indices", "lefts", "lengths", "mask", "ones", "over", "states")

    def __init__(self, over: int, prefixes: Sequence[bytes], indices: Sequence[int]) -> None:
        self.over = over
        self.indices = indices
        self.ones = _lanes([1] * len(indices))
        self.mask = _MASK * self.ones
        self.states = _lanes([_absorb(0, _mixed_blocks(prefix, 0)[0]) for prefix in prefixes])
        self.lefts = _lanes([int.from_bytes(p[len(p) - over :], "little") for p in prefixes])
        self.lengths = _lanes([len(prefix) for prefix in prefixes])

    def scores(self, data: bytes) -> tuple[int, ...]:
        """The score of each node for the key with the low bytes `data`."""
        ones = self.ones
        mask = self.mask
        start = 4 - self.over  # of the first block that holds nothing of the prefix
        first = int.from_bytes(data[:start], "little") << 8 * self.over
        state = self.states ^ _mix(self.lefts | first * ones, mask)
        if len(data) >= start:
            blocks, tail = _mixed_blocks(data, start)
            # The first block is in it already: what remains of that one is the rotation.
            state = _absorb(state, [0, *blocks], ones, mask) ^ tail * ones
        state = _finish(state ^ (self.lengths + len(data) * ones & mask), mask)
        count = len(self.indices)
        scores: tuple[int, ...] = unpack(f"<{count}Q", state.to_bytes(8 * count, "little"))
        return scores


class NodeTable:
    """An immutable set of nodes; what tells which of them a key belongs to is a subclass's `_best`.

    `nodes` are str (`TypeError` otherwise).
    """

    __slots__ = ("nodes",)

    def __init__(self, nodes: Iterable[str]) -> None:
        self.nodes = tuple(nodes)
        for node in self.nodes:
            if not isinstance(node, str):
                raise TypeError(f"nodes must be str, got {type(node).__name__}")

    def choose(self, key: Any) -> str | None:
        """The node that `key` belongs to (the object that was given), None where there is none."""
        return self.nodes[self._best(key)] if self.nodes else None

    def partition(self, keys: Iterable[Any]) -> dict[str, list[Any]] | None:
        """`keys` by their nodes: both the nodes and each node's keys as they come in `keys`.

        None where a key is a pair with a server key, which a table does not take apart.  Raises
        `ValueError` where there are keys but no nodes.
        """
        nodes = self.nodes
        result: dict[str, list[Any]] = {}
        for key in keys:
            if type(key) is tuple:
                return None
            if not nodes:
                raise ValueError("there are no nodes that keys could belong to")
            result.setdefault(nodes[self._best(key)], []).append(key)
        return result

    def _best(self, key: Any) -> int:
        """The index of the node that `key` belongs to; there is at least one node."""
        raise NotImplementedError


class RendezvousTable(NodeTable):
    """An immutable set of nodes that tells which of them a key belongs to.

    `nodes` are str (`TypeError` otherwise).  A str counts as the text that it is, whatever its
    class makes of it, since that text is sent.  Other keys may be anything: they count as Python
    formats them, so that ``b"k"`` is placed as ``"b'k'"``.
    """

    __slots__ = ("_groups", "_names")

    def __init__(self, nodes: Iterable[str]) -> None:
        super().__init__(nodes)
        self._names = tuple(str(node) for node in self.nodes)
        prefixes = [_low_bytes(f"{node}-") for node in self.nodes]
        groups = []
        for over in range(4):
            indices = [i for i, prefix in enumerate(prefixes) if len(prefix) & 3 == over]
            if indices:
                groups.append(_Group(over, [prefixes[i] for i in indices], indices))
        self._groups = tuple(groups)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[tuple[str, ...]]]:
        return restored.rendezvous_table, (self.nodes,)

    def _best(self, key: Any) -> int:
        data = _low_bytes(key if type(key) is str else text_of(key))
        names = self._names
        best = high = -1
        for group in self._groups:
            scores = group.scores(data)
            top = max(scores)
            if top < high:
                continue
            place = -1
            for _ in range(scores.count(top)):
                place = scores.index(top, place + 1)
                index = group.indices[place]
                if top > high or names[index] > names[best]:
                    high = top
                    best = index
        return best
