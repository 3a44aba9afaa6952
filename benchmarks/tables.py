"""Tables of results, for the terminal and for the report: what stands in them is decided here once.

A table is a heading, column titles and rows of text; `markdown` and `printed` render one.
"""

from __future__ import annotations

from dataclasses import dataclass

from .clients import BARE, BARE_C, CLIENTS
from .figures import Results
from .targets import Verdict
from .workloads import WORKLOADS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rich.table import Table as RichTable


@dataclass(frozen=True)
class Table:
    heading: str
    columns: list[str]
    rows: list[list[str]]

    def markdown(self) -> str:
        """As GitHub renders it, the first column to the left and all others to the right."""
        rule = ["---"] + ["--:"] * (len(self.columns) - 1)
        return "\n".join("| " + " | ".join(row) + " |" for row in [self.columns, rule, *self.rows])

    def printed(self) -> RichTable:
        """As rich prints it."""
        from rich.table import Table as RichTable

        table = RichTable(title=self.heading, title_justify="left", title_style="bold")
        for number, column in enumerate(self.columns):
            table.add_column(column, justify="right" if number else "left")
        for row in self.rows:
            table.add_row(*(cell.strip("*") for cell in row))
        return table


def number(value: float) -> str:
    """Three digits, or all before the point."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def microseconds(seconds: float) -> str:
    return number(seconds * 1e6)


# What a column of a workload's own table shows: title, figure, how a value is written.
_SHOWN = (
    ("user CPU, us", "user", microseconds),
    ("system CPU, us", "system", microseconds),
    ("wall, us", "wall", microseconds),
    ("p50, us", "p50", microseconds),
    ("p99, us", "p99", microseconds),
    ("bytes", "bytes", lambda value: f"{value:,.0f}"),
)


def of_workload(results: Results, workload: str) -> Table:
    """Everything about one workload, a client in a row."""
    clients = results.rounds[workload]
    shown = [entry for entry in _SHOWN if any(entry[1] in rounds for rounds in clients.values())]
    first = shown[0][1]
    rows = []
    for client in clients:
        row = [client]
        for _, figure, written in shown:
            value = results.median(workload, client, figure)
            row.append("" if value is None else written(value))
        half = results.middle_half(workload, client, first)
        written = shown[0][2]
        row.append("" if half is None else f"{written(half[0])} to {written(half[1])}")
        rows.append(row)
    columns = ["client", *(title for title, _, _ in shown), f"middle half of {shown[0][0]}"]
    return Table(workload, columns, rows)


def matrix(results: Results, heading: str, figure: str, shape: str | None = None) -> Table | None:
    """One figure of all workloads (of that shape) and clients; the best client's is bold.

    `figure` may be ``rate``, in commands per second.  None where there is nothing to show.
    """
    clients = [
        client
        for client in CLIENTS
        if any(
            _cell(results, workload, client, figure) is not None
            for workload in _of_shape(results, shape)
        )
    ]
    rows = []
    for workload in _of_shape(results, shape):
        values = {client: _cell(results, workload, client, figure) for client in clients}
        rated = {
            client: value
            for client, value in values.items()
            if value is not None and client not in (BARE, BARE_C)
        }
        if not rated:
            continue
        best = (max if figure == "rate" else min)(rated.values())
        row = [workload]
        for client, value in values.items():
            text = "" if value is None else _written(figure, value)
            row.append(f"**{text}**" if rated.get(client) == best else text)
        rows.append(row)
    return Table(heading, ["", *clients], rows) if rows else None


def _of_shape(results: Results, shape: str | None) -> list[str]:
    """Workloads of this shape; None for all that are measured from one thread."""
    return [
        workload
        for workload in WORKLOADS
        if workload in results.rounds
        and (
            WORKLOADS[workload].shape not in ("shared", "process")
            if shape is None
            else WORKLOADS[workload].shape == shape
        )
    ]


def _cell(results: Results, workload: str, client: str, figure: str) -> float | None:
    if figure == "rate":
        wall = results.median(workload, client, "wall")
        return 1 / wall if wall else None
    return results.median(workload, client, figure)


def _written(figure: str, value: float) -> str:
    if figure in ("rate", "bytes"):
        return f"{value:,.0f}"
    return microseconds(value)


def of_targets(found: list[Verdict]) -> Table:
    """Each target with what was measured."""
    relation = {"at most": "<=", "at least": ">=", "beyond": "beyond by <="}
    rows = [
        [
            verdict.workload,
            verdict.target.client,
            verdict.target.peer,
            verdict.target.figure,
            verdict.shown,
            f"{relation[verdict.target.kind]} {verdict.target.limit:.4g}",
            ("reached" if verdict.reached else "**NOT REACHED**")
            if verdict.value is not None
            else "",
        ]
        for verdict in found
    ]
    columns = ["workload", "client", "against", "figure", "ratio", "to reach", ""]
    return Table("Targets", columns, rows)


def of_missing(results: Results) -> Table:
    """What was not measured and why, the same reason of one client in one row."""
    grouped: dict[tuple[str, str], list[str]] = {}
    for client, workload, reason in results.missing:
        grouped.setdefault((client or "all", reason), []).append(workload or "everything")
    rows = [
        [client, _shortened(workloads), reason] for (client, reason), workloads in grouped.items()
    ]
    return Table("Not measured", ["client", "workloads", "reason"], rows)


def _shortened(workloads: list[str]) -> str:
    if len(workloads) <= 3:
        return "; ".join(workloads)
    return f"{workloads[0]}; {workloads[1]}; and {len(workloads) - 2} more"
