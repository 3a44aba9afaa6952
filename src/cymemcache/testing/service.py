"""What all connections of one embedded server share: the cache, the options, the bookkeeping.

No sockets and no protocol in here: sessions, reports and the server itself read and write it, all
of them in the server's one thread.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from .faults import Fault, FaultBook
from .store import Cache
from .versions import DEFAULT, Dialect


class Peer(Protocol):
    """A connection as `stats conns` tells of it."""

    #: the client's address as memcached writes it
    peer: str
    #: when the last command came, on the clock of `time.monotonic`
    active_at: float


@dataclass
class Service:
    """The state of one server; see `EmbeddedServer` for what the options mean."""

    cache: Cache
    version: str = DEFAULT
    #: passwords by user name, in bytes; None where nobody has to authenticate
    users: Mapping[bytes, bytes] | None = None
    shutdown_enabled: bool = False
    idle_timeout: float = 0
    cluster_config: bytes | None = None
    answer_noreply: bool = False
    new_dumps: bool = False
    max_connections: int | None = None
    recording: bool = False

    #: how that version answers
    dialect: Dialect = field(init=False)
    faults: FaultBook = field(default_factory=FaultBook)
    #: (connection, line) of every command line that came while `recording`
    requests: list[tuple[int, bytes]] = field(default_factory=list)
    #: set by the shutdown command
    stopping: bool = False
    verbosity: int = 0
    crawler_enabled: bool = True
    slab_automove: int = 1
    listening_on: str = ""
    connections: dict[int, Peer] = field(default_factory=dict)
    started_at: float = field(default_factory=time.monotonic)

    total_connections: int = 0
    rejected_connections: int = 0
    idle_kicks: int = 0
    auth_cmds: int = 0
    auth_errors: int = 0
    bytes_read: int = 0
    bytes_written: int = 0

    def __post_init__(self) -> None:
        self.dialect = Dialect(self.version)

    def observe(
        self, connection: int, line: bytes, verb: bytes, keys: Sequence[bytes]
    ) -> Fault | None:
        """Note a command line; the fault that it meets."""
        if self.recording:
            self.requests.append((connection, line))
        return self.faults.on_command(verb, keys)

    def reset_counters(self) -> None:
        """Set the statistics to 0, as ``stats reset`` does."""
        self.cache.reset_counters()
        self.total_connections = self.rejected_connections = self.idle_kicks = 0
        self.auth_cmds = self.auth_errors = self.bytes_read = self.bytes_written = 0
