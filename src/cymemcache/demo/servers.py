"""Which server the demo talks to: the one it was given, one that is installed, or the embedded one.

A server that was started here is stopped at the end, however the demo ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..testing import EmbeddedServer, MemcachedProcess


@dataclass(frozen=True)
class Server:
    """A server, and how the demo came by it."""

    address: Any
    origin: str

    @property
    def name(self) -> str:
        """The address as people write it."""
        if isinstance(self.address, str):
            return self.address
        host, port = self.address
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@contextmanager
def find_server(address: Any = None) -> Iterator[Server]:
    """The server at `address` where there is one; else one that runs as long as the block."""
    if address is not None:
        yield Server(address, "as given by --server")
        return
    program = MemcachedProcess.find()
    why = "there is no memcached on PATH"
    if program is not None:
        process = MemcachedProcess(program=program)
        try:
            process.start()
        except (OSError, RuntimeError) as error:
            why = f"the memcached on PATH does not start: {' '.join(str(error).split())}"
        else:
            with process:
                yield Server(process.address, f"{program}, found on PATH, started for this demo")
            return
    with EmbeddedServer() as embedded:
        yield Server(embedded.address, f"the embedded server, in this process: {why}")
