"""The command line of the benchmarks; docs/benchmarks.md says how they measure."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from .clients import CLIENTS
from .figures import Results
from .harness import Plan, measure
from .machine import commit, machine
from .report import DIRECTORY, ENOUGH_ROUNDS, ENOUGH_SECONDS, put_into_readme, write
from .tables import of_missing, of_targets, of_workload
from .targets import verdicts
from .workloads import TIMEOUT, WORKLOADS


def main() -> int:
    """0, or 1 where a target was missed and `--strict` asks for that."""
    options = _options()
    plan = Plan(
        workloads=[
            name
            for name in WORKLOADS
            if not options.only or any(part in name for part in options.only)
        ],
        clients=options.clients or list(CLIENTS),
        rounds=options.rounds,
        seconds=options.seconds,
        pinned=not (options.free or options.smoke),
        blink=options.smoke,
        # Where it is only to run, it may be in a crowd.
        timeout=60.0 if options.smoke else TIMEOUT,
    )
    if not plan.workloads:
        raise SystemExit(f"no workload has any of {options.only} in its name: see --list")
    if options.list:
        print("\n".join(plan.workloads))
        return 0
    console = Console()
    settings = {"rounds": plan.rounds, "seconds": plan.seconds, "pinned": plan.pinned}
    results = Results(machine=machine(), commit=commit(), settings=settings)
    console.print(*(f"{what}: {value}" for what, value in results.machine.items()), sep=", ")
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
        console=console,
    ) as progress:
        total = sum(plan.total(name) for name in plan.workloads)
        task = progress.add_task("", total=total)
        said = ""

        def tell(name: str, behind: float) -> None:
            nonlocal said
            progress.update(task, description=name, completed=behind)
            if name != said and not console.is_terminal:  # a log gets a line for each workload
                said = name
                console.print(f"{behind / total:4.0%} {name}", highlight=False)

        measure(plan, results, tell)
    _show(results, console)
    whole = not (options.only or options.clients or options.smoke)
    output = options.output or (DIRECTORY if whole else None)
    if output is not None:
        write(results, output)
        if output.resolve() == DIRECTORY:
            put_into_readme(results)
        console.print(f"written to {output}")
    reached = all(verdict.reached for verdict in verdicts(results))
    return 0 if reached or not options.strict else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--only", nargs="+", metavar="PART", help="workloads with one of these in their name"
    )
    parser.add_argument("--clients", nargs="+", choices=list(CLIENTS), metavar="CLIENT")
    parser.add_argument("--list", action="store_true", help="the names of the workloads")
    parser.add_argument("--rounds", type=int, default=ENOUGH_ROUNDS)
    parser.add_argument(
        "--seconds",
        type=float,
        default=ENOUGH_SECONDS,
        help="of one client in one round of what has targets",
    )
    parser.add_argument(
        "--free",
        action="store_true",
        help="let the scheduler place clients and servers (default: all on one processor)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIRECTORY",
        help="where the report goes (default: benchmarks/results, if all was measured)",
    )
    parser.add_argument("--strict", action="store_true", help="fail where a target is missed")
    parser.add_argument("--smoke", action="store_true", help="each for a blink: does it run?")
    return parser.parse_args()


def _show(results: Results, console: Console) -> None:
    for workload in results.rounds:
        console.print(of_workload(results, workload).printed())
    for table in (of_missing(results), of_targets(verdicts(results))):
        if table.rows:
            console.print(table.printed())


if __name__ == "__main__":
    raise SystemExit(main())
