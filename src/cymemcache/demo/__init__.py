"""The demo of the command line: the main job on real values, then the core against its twin.

`show.show` is the whole of it: `servers` finds a server, `walk` takes the records of `records` to
it and back, `timing` has a `worker` process of each core measured, and `screen` prints.  It must be
harmless on somebody's live server: every key has a prefix of this run alone, expires soon, and is
deleted at the end; nothing that reaches beyond these keys is ever sent.
"""

from __future__ import annotations

#: Seconds after which the demo's keys are gone, where it was interrupted before it deleted them.
EXPIRE = 120
#: Seconds for a connection, and for a command.
PATIENCE = 5.0


class DemoError(Exception):
    """Something was not as it has to be; the message says what, in one line."""
