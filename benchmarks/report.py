"""What is shown and kept of a measurement: tables, targets met or missed, a JSON file."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from .harness import Measured
from .workloads import TARGETS

_QUANTITIES = ("user", "system", "wall")


def median(rounds: list[dict[str, float]], quantity: str) -> float:
    """In microseconds per command."""
    return statistics.median(one[quantity] for one in rounds) * 1e6


def spread(rounds: list[dict[str, float]]) -> str:
    """The middle half of the rounds' user times."""
    if len(rounds) < 4:
        return ""
    low, _, high = statistics.quantiles((one["user"] * 1e6 for one in rounds), n=4)
    return f"{low:.2f} to {high:.2f}"


def show(measured: Measured, console: Console) -> bool:
    """Print it; True where no target is missed."""
    for workload, clients in measured.rounds.items():
        table = Table(title=workload, title_justify="left", title_style="bold")
        table.add_column("client")
        for heading in ("user CPU, us", "middle half", "system CPU, us", "wall, us"):
            table.add_column(heading, justify="right")
        for name, rounds in clients.items():
            user, system, wall = (f"{median(rounds, what):.2f}" for what in _QUANTITIES)
            table.add_row(name, user, spread(rounds), system, wall)
        console.print(table)
    for name, reason in measured.missing.items():
        console.print(f"not measured: {name}: {reason}", markup=False)
    table = Table(title="user CPU against the peers", title_justify="left", title_style="bold")
    for heading in ("workload", "client", "peer", "ratio", "to reach", ""):
        table.add_column(heading)
    verdicts = ratios(measured)
    for verdict in verdicts:
        table.add_row(
            verdict["workload"],
            verdict["client"],
            verdict["peer"],
            f"{verdict['ratio']:.3f}",
            f"{verdict['target']:.3f}",
            "met" if verdict["met"] else "MISSED",
        )
    if verdicts:
        console.print(table)
    return all(verdict["met"] for verdict in verdicts)


def ratios(measured: Measured) -> list[dict[str, Any]]:
    """Each target with the ratio of the medians that was measured."""
    found = []
    for target in TARGETS:
        clients = measured.rounds.get(target.workload, {})
        if target.client in clients and target.peer in clients:
            theirs = median(clients[target.peer], "user")
            ours = median(clients[target.client], "user")
            # A round of a blink can be too short for the clock.
            ratio = ours / theirs if theirs else float("inf")
            found.append(
                {
                    "workload": target.workload,
                    "client": target.client,
                    "peer": target.peer,
                    "ratio": ratio,
                    "target": target.ratio,
                    "met": ratio <= target.ratio,
                }
            )
    return found


def save(measured: Measured, settings: dict[str, Any], path: Path) -> None:
    """Write all rounds (seconds per command), the machine and the versions as JSON."""
    report = {
        "machine": machine(),
        "commit": _commit(),
        "settings": settings,
        "versions": measured.versions,
        "missing": measured.missing,
        "ratios": ratios(measured),
        "seconds_per_command": measured.rounds,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")


def machine() -> dict[str, Any]:
    """What the figures depend on besides the clients."""
    model = ""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    return {
        "system": platform.platform(),
        "processor": model or platform.processor(),
        "processors": os.cpu_count(),
        "python": platform.python_version(),
    }


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        found = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip()
