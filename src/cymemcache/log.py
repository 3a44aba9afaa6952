"""Where the package says what happens to it: the logger "cymemcache".

To ask logging for a logger takes a lock of its, which an interruption (a signal handler that
raises, an exception from another thread) can leave locked for good: from then on every thread would
hang that has to say something.  So it is asked once.  Nothing in here may import logging before
there is something to say.
"""

from __future__ import annotations

from functools import cache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from logging import Logger


@cache
def logger() -> Logger:
    from logging import getLogger

    return getLogger("cymemcache")
