"""In what the versions of memcached differ that the embedded server plays.

One row a difference, with the version it came with.  Those of 1.6.9, 1.6.14, 1.6.18, 1.6.24, 1.6.38
and 1.6.45 were compared with the real ones.  Faults of 1.6.40 to 1.6.42 alone are not played.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from . import integers

DEFAULT: Final = "1.6.18-embedded"


class Dialect:
    """What the memcached of a version does otherwise than older ones.

    `version` begins with its three numbers; one that does not is taken for `DEFAULT`.
    """

    def __init__(self, version: str = DEFAULT) -> None:
        numbers = _numbers(version) or _numbers(DEFAULT)
        #: the settings show `shutdown_command`
        self.shutdown_setting = numbers >= (1, 6, 10)
        #: the statistics count refused stores, and watchers of the log
        self.refused_stores = numbers >= (1, 6, 13)
        #: ``lru_crawler mgdump`` is known
        self.mgdump = numbers >= (1, 6, 19)
        #: what `client_flags_size` in the settings says
        self.flags_size_setting = numbers >= (1, 6, 22)
        #: a dump shows flags
        self.flags_in_dumps = numbers >= (1, 6, 24)
        #: ``stats sizes_enable`` and ``sizes_disable`` are known
        self.sizes_switches = numbers < (1, 6, 25)
        #: the statistics of a slab mover that is a thread of its own
        self.slab_mover = numbers >= (1, 6, 34)
        #: ``slabs reassign`` takes any class number
        self.any_class = (1, 6, 34) <= numbers < (1, 6, 43)
        #: a blank ends the lines of a dump
        self.blank_in_dumps = numbers >= (1, 6, 39)
        #: lines are read as `strict` has it, and the slab mover shows its last busy state
        self.strict = strict = numbers >= (1, 6, 40)
        #: how numbers are read, but for the flags and the exptime of an item that is stored
        self.signed32: Callable[[bytes], int | None] = (
            integers.strict_signed32 if strict else integers.signed32
        )
        self.unsigned32: Callable[[bytes], int | None] = (
            integers.strict_unsigned32 if strict else integers.unsigned32
        )
        self.unsigned64: Callable[[bytes], int | None] = (
            integers.strict_unsigned64 if strict else integers.unsigned64
        )
        #: a line OK comes before a dump
        self.ok_before_dumps = numbers >= (1, 6, 43)


def _numbers(version: str) -> tuple[int, ...]:
    match = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    return tuple(map(int, match.groups())) if match else ()
