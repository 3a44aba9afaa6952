"""The report: a page with all figures, its plots, and the section of README.md that shows them.

Everything is made from the kept results, so that ``python -m benchmarks.report`` writes it anew
without measuring.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from .clients import OURS, PYLIBMC, PYMEMCACHE
from .figures import Results
from .tables import Table, matrix, microseconds, number, of_missing, of_targets
from .targets import verdicts

DIRECTORY = Path(__file__).parent / "results"
README = Path(__file__).resolve().parents[1] / "README.md"
FIGURES = "figures.json"
REPORT = "report.md"
# Less than this leaves the division of CPU time to chance.
ENOUGH_ROUNDS, ENOUGH_SECONDS = 9, 0.3

_MARKS = ("<!-- benchmarks: written by make bench -->", "<!-- benchmarks: end -->")
_IN_README = ("get 100 B", "get_many 100", "set_many 100", "get 1 MB", "cluster of 4, get_many 100")
_PLOTS = {
    "overview": "User CPU per command",
    "sizes": "From 10 bytes to 1 MB",
    "batches": "From 1 to 1,000 keys in one call",
    "nodes": "From 1 to 64 nodes",
    "threads": "From 1 to 64 threads",
}


def write(results: Results, directory: Path) -> None:
    """The results and all that is made from them into `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    results.save(directory / FIGURES)
    try:
        from .plots import draw
    except ImportError as error:  # matplotlib is among the needs of `make bench`, not of the tests
        drawn: list[str] = []
        print(f"no plots: {error}", file=sys.stderr)
    else:
        drawn = draw(results, directory)
    (directory / REPORT).write_text(_page(results, drawn))


def _page(results: Results, drawn: list[str]) -> str:
    parts = ["# Benchmarks: the figures", _about(results)]
    parts += [f"![{title}]({name}.svg)" for name, title in _PLOTS.items() if f"{name}.svg" in drawn]
    for table in _tables(results):
        parts.append(f"## {table.heading}")
        parts.append(table.markdown())
    return "\n\n".join(parts) + "\n"


def _tables(results: Results) -> list[Table]:
    found = [
        of_targets(verdicts(results)),
        matrix(results, "User CPU per command, us", "user"),
        matrix(results, "System CPU per command, us", "system"),
        matrix(results, "Wall time per command, us", "wall"),
        matrix(results, "Threads on one client: commands per second", "rate", "shared"),
        matrix(results, "Threads on one client: user CPU per command, us", "user", "shared"),
        matrix(results, "Threads on one client: median latency, us", "p50", "shared"),
        matrix(results, "Threads on one client: 99th percentile of latency, us", "p99", "shared"),
        matrix(results, "Processes: wall time, us", "wall", "process"),
        matrix(
            results, "Processes: bytes (of idle connections: per connection)", "bytes", "process"
        ),
        of_missing(results),
    ]
    return [table for table in found if table is not None and table.rows]


def _about(results: Results) -> str:
    machine = results.machine
    lines = [
        f"{machine['processor']}, {machine['processors']} processors, {machine['system']}; "
        f"Python {machine['python']}, memcached {machine['memcached']}. Commit {results.commit}. "
        f"{_rounds(results)} How it was measured stands in "
        "[docs/benchmarks.md](../../docs/benchmarks.md).",
        "",
        *(
            f"- {client}: {' '.join(value for what, value in about.items() if what != 'python')}"
            for client, about in results.versions.items()
            if "version" in about
        ),
    ]
    return "\n".join(lines)


def _rounds(results: Results) -> str:
    """How much was measured, and a warning where that is too little."""
    rounds, seconds = results.settings["rounds"], results.settings["seconds"]
    words = f"Medians of {rounds} rounds of {seconds:g} s."
    if rounds < ENOUGH_ROUNDS or seconds < ENOUGH_SECONDS:
        words += " **That is a quick run: its figures are too uncertain to rely on.**"
    return words


def put_into_readme(results: Results, readme: Path = README) -> None:
    """Replace what stands between the two marks in README.md."""
    text = readme.read_text()
    begin, end = map(re.escape, _MARKS)
    section = "\n".join([_MARKS[0], readme_section(results), _MARKS[1]])
    found = re.sub(f"{begin}.*{end}", lambda _: section, text, count=1, flags=re.DOTALL)
    if found == text and section not in text:
        raise ValueError(f"{readme.name} has no place for the benchmarks: {_MARKS[0]}")
    readme.write_text(found)


def readme_section(results: Results) -> str:
    """The main plot and the main numbers."""
    rows = []
    for workload in _IN_README:
        ours = results.median(workload, OURS, "user")
        if ours is None:
            continue
        row = [workload, microseconds(ours)]
        for peer in (PYMEMCACHE, PYLIBMC):
            theirs = results.median(workload, peer, "user")
            row.append(
                ""
                if not theirs or not ours
                else f"{microseconds(theirs)} ({number(theirs / ours)} times as much)"
            )
        rows.append(row)
    table = Table("", ["user CPU per command, us", OURS, PYMEMCACHE, PYLIBMC], rows)
    machine = results.machine
    return "\n\n".join(
        [
            "![User CPU per command of each client](benchmarks/results/overview.svg)",
            table.markdown(),
            f"Measured side by side on {machine['processor']}, {machine['processors']} processors, "
            f"Python {machine['python']}, at commit {results.commit}. {_rounds(results)} See "
            "[all figures](benchmarks/results/report.md), "
            "[how they were measured](docs/benchmarks.md); `make bench` does it on your machine.",
        ]
    )


def main() -> None:
    results = Results.load(DIRECTORY / FIGURES)
    write(results, DIRECTORY)
    put_into_readme(results)


if __name__ == "__main__":
    main()
