"""Where the package says what happens to it: the logger "cymemcache".

Handlers and filters are other people's code, which runs here in the middle of commands: what they
raise must change nothing of what a command gives.  But what comes from outside (`interruptions`)
while they run is not theirs, and goes on to the caller.

To ask logging for a logger takes a lock of its, which an interruption (a signal handler that
raises, an exception from another thread) can leave locked for good: from then on every thread would
hang that has to say something.  So it is asked once.  Nothing in here may import logging before
there is something to say.

Nor may a forked child import it: another thread of the parent may have been importing something at
the fork, which the child would wait for without end.  Where logging is not loaded there, what would
be said goes to standard error, as it would without a configuration of logging.
"""

from __future__ import annotations

import sys

from . import forks
from .interruptions import is_interruption

TYPE_CHECKING = False
if TYPE_CHECKING:
    from logging import Logger
    from typing import Any

_WARNING = 30  # logging.WARNING

_asked: list[Logger] = []


class _StandardError:
    """What of a logger is used where there is no logging."""

    def log(self, level: int, message: str, *arguments: Any, **_: Any) -> None:
        if level >= _WARNING and sys.stderr is not None:
            sys.stderr.write(message % arguments + "\n")

    def warning(self, message: str, *arguments: Any) -> None:
        self.log(_WARNING, message, *arguments)

    def info(self, message: str, *arguments: Any) -> None:
        """As logging does without a configuration: nothing."""


# logging's numbers
_DEBUG = 10
_INFO = 20
_WARNING = 30


def debug(message: str, *arguments: object) -> None:
    """Say what only somebody who searches for something wants to know."""
    _log(_DEBUG, message, arguments)


def info(message: str, *arguments: object) -> None:
    """Say what need not worry anybody."""
    _log(_INFO, message, arguments)


def warn(message: str, *arguments: object, cause: Exception | None = None) -> None:
    """Say what somebody should look at, with the traceback of `cause`."""
    _log(_WARNING, message, arguments, cause)


def _log(
    level: int, message: str, arguments: tuple[object, ...], cause: Exception | None = None
) -> None:
    try:
        # The place to be shown is the caller of the function that calls this one.
        logger().log(level, message, *arguments, exc_info=cause, stacklevel=3)
    except Exception as error:
        if is_interruption(error):
            raise
        _show_broken(level, message, arguments)


def _show_broken(level: int, message: str, arguments: tuple[object, ...]) -> None:
    """Show the error that a handler or filter has raised as logging shows those of its own."""
    from logging import LogRecord, lastResort

    try:
        if lastResort is not None:
            record = LogRecord("cymemcache", level, __file__, 0, message, arguments, None)
            lastResort.handleError(record)
    except Exception as error:  # what is shown, and where, is other people's too
        if is_interruption(error):
            raise


def logger() -> Logger:
    if _asked:
        return _asked[0]
    logging: Any = sys.modules.get("logging")
    if forks.count():
        spec = getattr(logging, "__spec__", None)
        if logging is None or getattr(spec, "_initializing", False):
            return _StandardError()  # type: ignore[return-value]
    else:
        import logging
    _asked.append(logging.getLogger("cymemcache"))
    return _asked[0]
