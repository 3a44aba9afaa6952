"""The hasher of a cluster: which node serves which key.

A hasher is an object with `add_node(node)`, `remove_node(node)` and `get_node(key)`, which gives
None where there is no node; a user may put one of their own in the place of `RendezvousHash`.  A
hasher need not be thread-safe and must never do I/O: a cluster asks it again for every key.
"""

from __future__ import annotations

from .core import RendezvousTable, murmur3_32

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

__all__ = ["RendezvousHash", "murmur3_32"]


class RendezvousHash:
    """Rendezvous hashing (highest random weight): when a node goes, only its own keys move.

    `nodes` are str such as ``"host:port"``; a list is kept, not copied, and may be changed from
    outside.  The node with the highest ``hash_function(f"{node}-{key}", seed)`` has the key, among
    equal ones the greater string.  With the hash function and the seed left as they are, that is
    worked out by the core; any other function is called for each node and key.
    """

    def __init__(
        self,
        nodes: Iterable[str] | None = None,
        seed: int = 0,
        hash_function: Callable[[str, int], int] = murmur3_32,
    ) -> None:
        self.nodes: list[str] = nodes if isinstance(nodes, list) else list(nodes or ())
        self.seed = seed
        self.hash_function: Callable[[str], int] = lambda text: hash_function(text, seed)
        # The function that the core can stand for, as long as `hash_function` is that one.
        core_has_it = hash_function is murmur3_32 and seed == 0
        self._core_function = self.hash_function if core_has_it else None
        self._table = RendezvousTable(())

    def add_node(self, node: str) -> None:
        """Add `node`; nothing happens where it is there already."""
        if node not in self.nodes:
            self.nodes.append(node)

    def remove_node(self, node: str) -> None:
        """Remove `node`; raises `ValueError` where there is no such node."""
        if node not in self.nodes:
            raise ValueError(f"there is no node {node!r} to remove")
        self.nodes.remove(node)

    def get_node(self, key: Any) -> str | None:
        """The node that `key` (as ``f"{key}"``) belongs to, None where there are no nodes.

        Raises `TypeError` where a node is no str.
        """
        if self.hash_function is not self._core_function:
            return self._ask_function(key)
        return self.table().choose(key)

    def table(self) -> RendezvousTable:
        nodes = tuple(self.nodes)
        table = self._table
        if table.nodes != nodes:  # `nodes` is public: whoever changed it did not tell
            table = self._table = RendezvousTable(nodes)
        return table

    def _ask_function(self, key: Any) -> str | None:
        winner = None
        best: tuple[int, str] | None = None
        for node in tuple(self.nodes):
            # repr is what formatting bytes gives, without its BytesWarning.
            text = f"{node}-{key!r}" if type(key) is bytes else f"{node}-{key}"
            score = (self.hash_function(text), str(node))
            if best is None or score > best:
                best = score
                winner = node
        return winner
