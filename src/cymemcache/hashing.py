"""The hasher of a cluster: which node serves which key.

A hasher is an object with `add_node(node)`, `remove_node(node)` and `get_node(key)`, which gives
None where there is no node; a user may put one of their own in the place of `RendezvousHash`.  Such
a one need not be thread-safe.  Those of this package have `table()` as well: an object that never
changes, places keys with `choose(key)` and `partition(keys)`, and may be used without a lock.  A
hasher must never do I/O: a cluster asks it again for every key.
"""

from __future__ import annotations

from .core import RendezvousTable, murmur3_32
from .core.arguments import listed, text_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, Protocol

    from .ketama import KetamaHash as KetamaHash

    class Table(Protocol):
        """Nodes that never change, and which of them a key belongs to."""

        @property
        def nodes(self) -> tuple[str, ...]: ...

        def choose(self, key: Any) -> str | None:
            """The node that `key` belongs to, None where there is none."""

        def partition(self, keys: Iterable[Any]) -> dict[str, list[Any]] | None:
            """`keys` by their nodes, both in the order in which they come in `keys`.

            None where a key is a pair with a server key, which a table does not take apart.
            Raises `ValueError` where there are keys but no nodes.
            """


__all__ = ["KetamaHash", "RendezvousHash", "murmur3_32"]

# Where it is public: a pickled hasher must not name the implementation that this process runs on.
murmur3_32.__module__ = __name__


def __getattr__(name: str) -> Any:
    if name == "KetamaHash":  # it is built upon what is below
        from .ketama import KetamaHash

        return KetamaHash
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class TableHasher:
    """A list of nodes and the table made of it.

    `nodes` is public: it may be changed from outside, by any thread, and nobody tells.  What else a
    table is made from is a subclass's `_rule`, which is replaced and never changed.
    """

    def __init__(self, nodes: Iterable[str] | None, rule: Any) -> None:
        self.nodes = listed(nodes or (), "nodes")
        self._rule = rule
        self._forget_table()

    def _forget_table(self) -> None:
        # The table, and what it was made from: one object, so that no thread sees half of a change.
        # No hasher has this rule, so the first use makes a table.
        self._current: tuple[list[str], Any, Table] = ([], object(), RendezvousTable(()))
        self._coming: tuple[list[str], Any, Table] = self._current

    def __getstate__(self) -> dict[str, Any]:
        """All but the table, which belongs to one implementation of the core."""
        state = dict(vars(self))
        del state["_current"], state["_coming"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._forget_table()

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
        """The node that `key` belongs to, None where there are no nodes.

        Raises `TypeError` where a node is no str.
        """
        nodes, rule, table = self._current
        # What table() asks first, asked here too: a call would be a fifth of all that this takes.
        if self.nodes != nodes or self._rule is not rule:
            table = self.table()
        return table.choose(key)

    def table(self) -> Table:
        """The nodes as they are now, as an object that never changes; made anew when they change.

        Raises `TypeError` where a node is no str.
        """
        nodes, rule, table = self._current
        if self.nodes != nodes or self._rule is not rule:
            nodes, rule = list(self.nodes), self._rule
            if nodes != self._coming[0] or rule is not self._coming[1]:
                self._coming = nodes, rule, self._make_table(nodes, rule)
            self._current = self._coming
            table = self._current[2]
        return table

    def prepare(self, nodes: Iterable[str]) -> None:
        """Make the table of `nodes` now, so that no key waits for it once the nodes are these."""
        coming, rule = list(nodes), self._rule
        self._coming = coming, rule, self._make_table(coming, rule)

    def _make_table(self, nodes: list[str], rule: Any) -> Table:
        raise NotImplementedError


class RendezvousHash(TableHasher):
    """Rendezvous hashing (highest random weight): when a node goes, only its own keys move.

    `nodes` are str such as ``"host:port"``; the attribute `nodes` is a list of the hasher's own,
    which may be changed from outside.  The node with the highest
    ``hash_function(f"{node}-{key}", seed)`` has the key, among equal ones the greater string.  With
    the hash function and the seed left as they are, that is worked out by the core; any other
    function is called for each node and key, from whatever threads use the hasher or one of its
    tables.
    """

    __module__ = "cymemcache"

    def __init__(
        self,
        nodes: Iterable[str] | None = None,
        seed: int = 0,
        hash_function: Callable[[str, int], int] = murmur3_32,
    ) -> None:
        super().__init__(nodes, _Seeded(hash_function, seed))
        self.seed = seed

    @property
    def hash_function(self) -> Callable[[str], int]:
        """The score of a text; may be replaced."""
        function: Callable[[str], int] = self._rule
        return function

    @hash_function.setter
    def hash_function(self, function: Callable[[str], int]) -> None:
        self._rule = function

    def _make_table(self, nodes: list[str], rule: Any) -> Table:
        core_has_it = type(rule) is _Seeded and rule.function is murmur3_32 and rule.seed == 0
        return RendezvousTable(nodes) if core_has_it else _ScoreTable(nodes, rule)


class _Seeded:
    """A hash function with its seed: the score of a text."""

    __slots__ = ("function", "seed")

    def __init__(self, function: Callable[[str, int], int], seed: int) -> None:
        self.function = function
        self.seed = seed

    def __call__(self, text: str) -> int:
        return self.function(text, self.seed)


class _ScoreTable:
    """Rendezvous hashing by a hash function that the core does not have."""

    __slots__ = ("nodes", "score")

    def __init__(self, nodes: list[str], score: Callable[[str], int]) -> None:
        self.nodes = tuple(nodes)
        self.score = score

    def choose(self, key: Any) -> str | None:
        winner = None
        best: tuple[int, str] | None = None
        text = text_of(key)
        for node in self.nodes:
            score = (self.score(f"{node}-{text}"), str(node))
            if best is None or score > best:
                best = score
                winner = node
        return winner

    def partition(self, keys: Iterable[Any]) -> dict[str, list[Any]] | None:
        result: dict[str, list[Any]] = {}
        for key in keys:
            if type(key) is tuple:
                return None
            node = self.choose(key)
            if node is None:
                raise ValueError("there are no nodes that keys could belong to")
            result.setdefault(node, []).append(key)
        return result
