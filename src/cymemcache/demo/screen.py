"""What the demo prints: lines, and the table with its bars, with rich or without.

Without rich the same text is laid out here, as plain lines.  No escape codes may reach anything but
a terminal, nor one whose user has set NO_COLOR; and no character that the output cannot encode.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console

_MOST = 100  # columns of a line, on a terminal of any width
_SHORTEST_BAR, _LONGEST_BAR = 8, 40
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_TIMES, _MICRO, _RULE = "\N{MULTIPLICATION SIGN}", "µ", "─"
_GAP = "  "


class OutputClosed(Exception):
    """Nobody reads the output any more."""


@dataclass(frozen=True)
class Row:
    """One line of the table: its cells, and the part (0 to 1) of the longest bar that it gets."""

    cells: Sequence[str]
    part: float
    style: str


class Screen:
    """The output."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._width = min(shutil.get_terminal_size().columns, _MOST)
        try:
            (_EIGHTHS + _TIMES + _MICRO + _RULE).encode(stream.encoding or "ascii")
            self._unicode = True
        except (UnicodeEncodeError, LookupError):
            self._unicode = False
        self.times = _TIMES if self._unicode else "x"
        self.micro = _MICRO if self._unicode else "u"
        self._console = self._rich_console()

    def _rich_console(self) -> Console | None:
        try:
            from rich.console import Console
        except ImportError:
            return None

        class Strict(Console):
            def on_broken_pipe(self) -> None:  # rich would end the process here
                raise BrokenPipeError

        colours = self._stream.isatty() and not os.environ.get("NO_COLOR")
        return Strict(
            file=self._stream,
            color_system="auto" if colours else None,
            force_terminal=colours,
            highlight=False,
            markup=False,
            emoji=False,
            width=self._width,
        )

    def say(self, text: str = "", style: str = "") -> None:
        """Print a line; `style` is one of rich's."""
        self._print([(text, style)])

    def step(self, name: str, text: str, seconds: float) -> None:
        """Print what a step has done, and how long it took."""
        time = f"{seconds * 1e3:8,.1f} ms"
        room = max(self._width - len(name.ljust(12)) - len(time) - 4, 0)
        self._print([(f"  {name:12}", "bold"), (f"{text:{room}}", ""), (f"  {time}", "cyan")])

    def table(self, headings: Sequence[str], bars: str, rows: Sequence[Row]) -> None:
        """Print `rows` under `headings`, and a column of bars; the first two columns are names."""
        widths = [
            max(len(heading), *(len(row.cells[column]) for row in rows))
            for column, heading in enumerate(headings)
        ]
        room = self._width - sum(widths) - len(_GAP) * (len(widths) + 1)
        room = max(min(room, _LONGEST_BAR), _SHORTEST_BAR, len(bars))

        def line(cells: Iterable[str]) -> str:
            placed = (
                f"{cell:{'<' if column < 2 else '>'}{width}}"
                for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
            )
            return _GAP + _GAP.join(placed) + _GAP

        total = sum(widths) + len(_GAP) * len(widths) + room
        self._print([((line(headings) + bars).rstrip(), "bold")])
        self._print([(_GAP + (_RULE if self._unicode else "-") * total, "dim")])
        for row in rows:
            self._print([(line(row.cells), ""), (self._bar(row.part, room), row.style)])

    def _bar(self, part: float, room: int) -> str:
        if not self._unicode:
            return "#" * max(round(part * room), 1)
        full, eighths = divmod(max(round(part * room * 8), 1), 8)
        return "█" * full + _EIGHTHS[eighths].rstrip()

    def _print(self, pieces: Sequence[tuple[str, str]]) -> None:
        try:
            if self._console is None:
                self._stream.write("".join(text for text, _ in pieces).rstrip() + "\n")
            else:
                from rich.text import Text

                self._console.print(Text.assemble(*pieces), soft_wrap=True)
            self._stream.flush()
        except BrokenPipeError:
            raise OutputClosed from None
