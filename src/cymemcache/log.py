"""Where the package says what happens to it: the logger "cymemcache".

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
