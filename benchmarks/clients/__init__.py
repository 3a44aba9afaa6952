"""The clients that are compared: one module each, which says how its users make it for speed.

A module has a function per shape of client it offers (`single`, `shared`, `cluster`, `hasher`; see
`workloads.Workload`).  It takes a `Setup` and gives the client's commands by the names of
`workloads.COMMANDS`; a command that it lacks it leaves out.  Where it cannot do what the setup asks
for it raises `Unsupported`.  Everyone gets TCP_NODELAY, the setup's time limit, and results in the
form in which the library gives them: no wrapper that costs only one of them a Python call, unless
its users need that, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Commands = dict[str, Callable[..., Any]]


class Unsupported(Exception):
    """The client has no way to do this; the message says what it lacks."""


@dataclass(frozen=True)
class Client:
    """`maker` is its module here, `module` what is imported, `package` where its version stands."""

    maker: str
    module: str | None = None
    package: str | None = None
    environment: dict[str, str] = field(default_factory=dict)  # its process has this besides


OURS, PURE, POOLED = "cymemcache", "cymemcache (pure)", "cymemcache PooledClient"
PYMEMCACHE, PYLIBMC = "pymemcache", "pylibmc"
BARE, BARE_C = "bare loop (Python)", "bare loop (C)"
_C, _PYTHON = {"CYMEMCACHE_IMPL": "c"}, {"CYMEMCACHE_IMPL": "python"}

CLIENTS = {
    OURS: Client("ours", "cymemcache", "cymemcache", _C),
    PURE: Client("ours", "cymemcache", "cymemcache", _PYTHON),
    POOLED: Client("ours_pooled", "cymemcache", "cymemcache", _C),
    PYMEMCACHE: Client("peer_pymemcache", "pymemcache", "pymemcache"),
    PYLIBMC: Client("peer_pylibmc", "pylibmc", "pylibmc"),
    "python-memcached": Client("peer_python_memcached", "memcache", "python-memcached"),
    "python-binary-memcached": Client(
        "peer_binary_memcached", "bmemcached", "python-binary-memcached"
    ),
    "meta-memcache": Client("peer_meta_memcache", "meta_memcache", "meta-memcache"),
    BARE: Client("bare_python"),
    BARE_C: Client("bare_c"),
}


def addresses(servers: tuple[Any, ...], unix: str = "") -> list[str]:
    """``host:port`` of each, or the path of its UNIX socket behind `unix`."""
    return [
        unix + server if isinstance(server, str) else "{}:{}".format(*server) for server in servers
    ]
