"""The plots, as SVG without a background, in colours that can be read on white and on black.

Each is drawn from the results alone, and the same results give the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from .clients import BARE, BARE_C, CLIENTS, OURS, POOLED, PURE, PYLIBMC, PYMEMCACHE
from .figures import Results
from .tables import number
from .workloads import BATCHES, NODES, SIZES, THREADS

_GREY = "#7d8590"  # 4:1 against white and against GitHub's black alike
_COLOURS = {
    OURS: "#2f81f7",
    POOLED: "#1b9aaa",
    PURE: "#6f9fe0",
    PYMEMCACHE: "#d4762c",
    PYLIBMC: "#2da44e",
    "python-memcached": "#a371f7",
    "python-binary-memcached": "#d2568f",
    "meta-memcache": "#b8912a",
    BARE: "#8b949e",
    BARE_C: "#6e7681",
}
_OVERVIEW = {
    "get 100 B": "get",
    "get_many 100": "get_many, 100 keys",
    "set_many 100": "set_many, 100 keys, with replies",
    "get_many 100 str, pickle serde": "get_many, 100 str, pickle serde",
    "cluster of 4, get_many 100": "get_many, 100 keys over 4 nodes",
    "get, TLS": "get over TLS",
}
_STYLE = {
    "svg.hashsalt": "cymemcache",
    "svg.fonttype": "none",
    "font.size": 9,
    "text.color": _GREY,
    "axes.labelcolor": _GREY,
    "axes.edgecolor": _GREY,
    "axes.titlecolor": _GREY,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _GREY,
    "ytick.color": _GREY,
    "grid.color": _GREY,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "legend.labelcolor": _GREY,
}


def draw(results: Results, directory: Path) -> list[str]:
    """Write every plot that the results have something for; gives the names of the files."""
    drawn = []
    with mpl.rc_context(_STYLE):
        for name, make in _PLOTS.items():
            figure = make(results)
            if figure is not None:
                path = directory / f"{name}.svg"
                figure.savefig(path, transparent=True, bbox_inches="tight", metadata={"Date": None})
                # matplotlib leaves blanks at the ends of lines.
                lines = [line.rstrip() for line in path.read_text().splitlines()]
                path.write_text("\n".join(lines) + "\n")
                drawn.append(path.name)
    return drawn


def _overview(results: Results) -> Figure | None:
    workloads = [workload for workload in _OVERVIEW if workload in results.rounds]
    if not workloads:
        return None
    # The same rows in every panel, so that a client is found where it was.
    clients = [
        client
        for client in CLIENTS
        if any(results.median(workload, client, "user") is not None for workload in workloads)
    ]
    rows = -(-len(workloads) // 2)
    figure = Figure(figsize=(9.5, 2.6 * rows), layout="constrained")
    figure.suptitle(
        "User CPU of the client per command, in microseconds (shorter is better)",
        color=_GREY,
        fontsize=11,
    )
    for place, workload in enumerate(workloads):
        axes = figure.add_subplot(rows, 2, place + 1)
        _bars(axes, results, workload, clients, named=place % 2 == 0)
    return figure


def _bars(axes: Axes, results: Results, workload: str, clients: list[str], named: bool) -> None:
    values = [results.median(workload, client, "user") for client in clients]
    axes.set_title(_OVERVIEW[workload])
    bars = axes.barh(
        range(len(clients)),
        [(value or 0.0) * 1e6 for value in values],
        color=[_COLOURS[name] for name in clients],
    )
    labels = ["\u2013" if value is None else number(value * 1e6) for value in values]
    axes.bar_label(bars, labels, padding=3, color=_GREY)
    axes.invert_yaxis()
    axes.margins(x=0.16)
    axes.xaxis.set_visible(False)
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(left=False)
    axes.set_yticks(range(len(clients)), clients if named else [""] * len(clients))
    for label in axes.get_yticklabels():
        if label.get_text().startswith(OURS):
            label.set_fontweight("bold")


Series = dict[str, float]  # x by workload


def _lines(
    axes: Axes,
    results: Results,
    series: Series,
    value: Callable[[str, str], float | None],
    clients: Iterable[str] = CLIENTS,
) -> None:
    """A line per client, over the x of each workload."""
    for client in clients:
        points = [
            (x, y) for workload, x in series.items() if (y := value(workload, client)) is not None
        ]
        if points:
            axes.plot(
                *zip(*points, strict=True),
                label=client,
                color=_COLOURS[client],
                marker="o",
                markersize=3,
                linewidth=2.2 if client.startswith(OURS) else 1.3,
                linestyle=":" if client in (BARE, BARE_C) else "-",
                zorder=3 if client.startswith(OURS) else 2,
            )
    axes.set_xscale("log")
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    if high < 100 * low:  # powers of ten alone would leave the axis all but empty
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.grid(True)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:,g}"))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_formatter(NullFormatter())
    if len(series) < 9:
        axes.set_xticks(list(series.values()))


def _two(
    results: Results,
    left: tuple[str, Series, Callable[[str, str], float | None]],
    right: tuple[str, Series, Callable[[str, str], float | None]],
    x_label: str,
) -> Figure | None:
    """Two plots of lines side by side, with one legend."""
    if not any(workload in results.rounds for workload in [*left[1], *right[1]]):
        return None
    figure = Figure(figsize=(9.5, 4.2), layout="constrained")
    legend = {}
    for place, (title, series, value) in enumerate((left, right), 1):
        axes = figure.add_subplot(1, 2, place)
        _lines(axes, results, series, value)
        axes.set_title(title)
        axes.set_xlabel(x_label)
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            legend.setdefault(label, handle)
    figure.legend(legend.values(), legend.keys(), loc="outside lower center", ncols=4)
    return figure


def _sizes(results: Results) -> Figure | None:
    def of(figure: str) -> Callable[[str, str], float | None]:
        return lambda workload, client: _scaled(results, workload, client, figure)

    series = {name: float(size) for name, size in SIZES.items()}
    return _two(
        results,
        ("get: user CPU, us", series, of("user")),
        ("get: wall, us", series, of("wall")),
        "size of the value, bytes",
    )


def _batches(results: Results) -> Figure | None:
    def per_key(workload: str, client: str) -> float | None:
        value = _scaled(results, workload, client, "user")
        return None if value is None else value / int(workload.split()[1])

    def series(command: str) -> Series:
        return {f"{command} {count}": float(count) for count in BATCHES}

    return _two(
        results,
        ("get_many: user CPU per key, us", series("get_many"), per_key),
        ("set_many, with replies: user CPU per key, us", series("set_many"), per_key),
        "keys in one call",
    )


def _nodes(results: Results) -> Figure | None:
    def user(workload: str, client: str) -> float | None:
        return _scaled(results, workload, client, "user")

    def series(command: str) -> Series:
        return {f"cluster of {count}, {command}": float(count) for count in NODES}

    return _two(
        results,
        ("get: user CPU, us", series("get"), user),
        ("get_many, 100 keys: user CPU, us", series("get_many 100"), user),
        "nodes",
    )


def _threads(results: Results) -> Figure | None:
    def rate(workload: str, client: str) -> float | None:
        wall = results.median(workload, client, "wall")
        return 1 / wall if wall else None

    series = {f"get, {count} threads": float(count) for count in THREADS}
    return _two(
        results,
        ("get: commands per second", series, rate),
        (
            "get: 99th percentile of latency, us",
            series,
            lambda workload, client: _scaled(results, workload, client, "p99"),
        ),
        "threads that share a client",
    )


def _scaled(results: Results, workload: str, client: str, figure: str) -> float | None:
    """In microseconds; None where a logarithm has nothing to stand on."""
    value = results.median(workload, client, figure)
    return value * 1e6 if value else None


_PLOTS = {
    "overview": _overview,
    "sizes": _sizes,
    "batches": _batches,
    "nodes": _nodes,
    "threads": _threads,
}
