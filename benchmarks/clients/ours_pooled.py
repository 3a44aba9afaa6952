"""cymemcache's PooledClient, which threads share."""

from __future__ import annotations

from ..workloads import Setup
from . import Commands
from .ours import commands, options


def shared(setup: Setup) -> Commands:
    from cymemcache import PooledClient

    pooled = PooledClient(setup.servers[0], max_pool_size=setup.threads, **options(setup))
    return commands(pooled)
