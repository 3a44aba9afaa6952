"""The command line of the benchmarks; docs/benchmarks.md says how they measure."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from .clients import CLIENTS
from .harness import measure
from .report import machine, save, show
from .workloads import WORKLOADS


def main() -> int:
    """0, or 1 where a target was missed and `--strict` asks for that."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", action="append", choices=list(WORKLOADS), metavar="WORKLOAD")
    parser.add_argument("--clients", nargs="+", choices=list(CLIENTS), metavar="CLIENT")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--seconds", type=float, default=1.0, help="of one client in one round")
    parser.add_argument(
        "--free",
        action="store_true",
        help="let the scheduler place clients and server (default: all on one processor)",
    )
    parser.add_argument("--output", type=Path, help="write all figures there, as JSON")
    parser.add_argument("--strict", action="store_true", help="fail where a target is missed")
    parser.add_argument("--smoke", action="store_true", help="each for a blink: does it run?")
    options = parser.parse_args()
    rounds, seconds = (1, 0.01) if options.smoke else (options.rounds, options.seconds)
    workloads = options.only or list(WORKLOADS)
    clients = options.clients or list(CLIENTS)
    console = Console()
    minutes = len(workloads) * len(clients) * rounds * seconds / 60
    found = ", ".join(f"{what}: {value}" for what, value in machine().items())
    console.print(f"{found}\n{rounds} rounds, about {minutes:.1f} minutes", markup=False)
    measured = measure(
        workloads,
        clients,
        rounds,
        seconds,
        not options.free,
        lambda workload, done, all_: console.print(f"{done}/{all_} {workload}", markup=False),
    )
    for name, about in measured.versions.items():
        words = " ".join(value for what, value in about.items() if what != "client")
        console.print(f"{name}: {words}", markup=False, highlight=False)
    met = show(measured, console)
    if options.output is not None:
        settings = {"rounds": rounds, "seconds": seconds, "pinned": not options.free}
        save(measured, settings, options.output)
    return 0 if met or not options.strict else 1


if __name__ == "__main__":
    raise SystemExit(main())
