"""Help for test suites and demos: servers to run in tests, faults to inject, a client without one.

`EmbeddedServer` is a memcached inside the process, on a real socket, that can be told to misbehave;
`MemcachedProcess` starts the real one where it is installed; `MockMemcacheClient` is a client that
needs no server.  pytest fixtures are in `cymemcache.testing.fixtures`.  Nothing of the package
itself may import this one, which takes no care to be cheap to import.
"""

from __future__ import annotations

from .faults import Answer, Close, Cut, Delay, Extra, Fault, Hang, Injection, Refuse, Trickle
from .mock import MockMemcacheClient
from .process import MemcachedProcess
from .server import EmbeddedServer
from .store import ManualClock

__all__ = [
    "Answer",
    "Close",
    "Cut",
    "Delay",
    "EmbeddedServer",
    "Extra",
    "Fault",
    "Hang",
    "Injection",
    "ManualClock",
    "MemcachedProcess",
    "MockMemcacheClient",
    "Refuse",
    "Trickle",
]
