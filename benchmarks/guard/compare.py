"""Counts held against counts: what has grown, shrunk, come or gone.  No I/O in here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

ALLOWED_GROWTH = 0.05


@dataclass(frozen=True)
class Change:
    """One benchmark, before and now; None where it is not there."""

    name: str
    before: int | None
    now: int | None

    @property
    def growth(self) -> float:
        """As a part of what it was: 0.05 is five per cent more.  0 where there is no telling."""
        if not self.before or self.now is None:
            return 0.0
        return self.now / self.before - 1

    @property
    def failed(self) -> bool:
        """It has grown too much, or the two lists of benchmarks are not the same."""
        if self.before is None or self.now is None:
            return True
        return self.now - self.before > ALLOWED_GROWTH * self.before

    def __str__(self) -> str:
        if self.before is None:
            return f"{self.name}: {self.now:,}, which the baseline does not have"
        if self.now is None:
            return f"{self.name}: in the baseline, but there is no such benchmark"
        return f"{self.name}: {self.before:,} -> {self.now:,} ({self.growth:+.2%})"


def changes(before: Mapping[str, int], now: Mapping[str, int]) -> list[Change]:
    """Every benchmark of either side, in the order of `now`."""
    return [
        Change(name, before.get(name), now.get(name))
        for name in [*now, *sorted(before.keys() - now.keys())]
    ]
