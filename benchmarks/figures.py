"""What was measured, as it is kept in a file: all rounds of every workload and client.

A figure is ``user``, ``system``, ``wall``, ``p50`` or ``p99`` in seconds per command, or ``bytes``.
What counts is the median over the rounds.  Of CPU time the sum of user and system is exact, but how
it divides is sampled by many kernels, and one round holds few samples: so it is the sum whose
median is taken, divided as the time of all rounds together was.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

Rounds = dict[str, list[float]]  # by figure


@dataclass
class Results:
    """One run: `rounds` by workload and client; `missing` says what was not measured and why."""

    machine: dict[str, Any] = field(default_factory=dict)
    commit: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, dict[str, str]] = field(default_factory=dict)
    # [client, workload (empty: none of them), reason]
    missing: list[tuple[str, str, str]] = field(default_factory=list)
    rounds: dict[str, dict[str, Rounds]] = field(default_factory=dict)

    def add(self, workload: str, client: str, figures: dict[str, float]) -> None:
        """One more round."""
        kept = self.rounds.setdefault(workload, {}).setdefault(client, {})
        for figure, value in figures.items():
            kept.setdefault(figure, []).append(float(f"{value:.4g}"))

    def median(self, workload: str, client: str, figure: str) -> float | None:
        """None where it was not measured; ``cpu`` is ``user`` and ``system`` together."""
        rounds = self.rounds.get(workload, {}).get(client, {})
        values = rounds.get("user" if figure == "cpu" else figure)
        if not values:
            return None
        if figure not in ("user", "system", "cpu"):
            return statistics.median(values)
        both = [sum(parts) for parts in zip(rounds["user"], rounds["system"], strict=True)]
        if figure == "cpu":
            return statistics.median(both)
        return statistics.median(both) * sum(values) / sum(both) if any(both) else 0.0

    def middle_half(self, workload: str, client: str, figure: str) -> tuple[float, float] | None:
        """Between which values the middle half of the rounds lies; None for less than four."""
        values = self.rounds.get(workload, {}).get(client, {}).get(figure, [])
        if len(values) < 4:
            return None
        low, _, high = statistics.quantiles(values, n=4)
        return low, high

    def save(self, path: Path) -> None:
        """Write it as JSON, a client's figures on a line, so that two runs can be compared."""
        plain = asdict(self)
        rounds = plain.pop("rounds")
        text = json.dumps(plain, indent=1)[:-2]  # without the final brace
        lines = [
            f"  {json.dumps(workload)}: {{\n"
            + ",\n".join(
                f"   {json.dumps(client)}: {json.dumps(figures)}"
                for client, figures in clients.items()
            )
            + "\n  }"
            for workload, clients in rounds.items()
        ]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'{text},\n "rounds": {{\n' + ",\n".join(lines) + "\n }\n}\n")

    @classmethod
    def load(cls, path: Path) -> Results:
        """The run that `save` wrote."""
        plain = json.loads(path.read_text())
        plain["missing"] = [tuple(entry) for entry in plain["missing"]]
        return cls(**plain)
