"""What pickled tables name: no implementation, so that each process loads its own twin."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from . import KetamaTable, RendezvousTable


def rendezvous_table(nodes: Iterable[str]) -> RendezvousTable:
    """A `RendezvousTable` of the implementation that this process runs on."""
    from . import RendezvousTable

    return RendezvousTable(nodes)


def ketama_table(nodes: Iterable[str], points: Iterable[tuple[int, int]], md5: bool) -> KetamaTable:
    """A `KetamaTable` of the implementation that this process runs on."""
    from . import KetamaTable

    return KetamaTable(nodes, points, md5)
