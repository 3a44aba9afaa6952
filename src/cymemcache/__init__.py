"""cymemcache: a memcached client whose hot code is compiled.

The public names; everything else is found from here.  Importing this module must stay cheap: it
loads ssl, logging, pickle and typing only when they are first needed.
"""

from __future__ import annotations

from . import core as _core  # first: it chooses the modules that the others share
from .client import Client, PooledClient
from .exceptions import (
    MemcacheClientError,
    MemcacheDecompressionError,
    MemcacheError,
    MemcacheIllegalInputError,
    MemcacheNodeDownError,
    MemcacheServerError,
    MemcacheUnexpectedCloseError,
    MemcacheUnknownCommandError,
    MemcacheUnknownError,
    MemcacheValueTooLargeError,
)
from .hashing import RendezvousHash
from .ketama import KetamaHash
from .options import KeepaliveOpts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .as_pymemcache import install_as_pymemcache
    from .cluster import HashClient
    from .counters import ClusterCounters, Counters
    from .discovery import AWSElastiCacheHashClient
    from .fallback import FallbackClient
    from .retrying import ExponentialBackoff, RetryingClient
else:
    # Imported when they are first asked for: not every program has need of them.
    _LATER = {
        "AWSElastiCacheHashClient": "discovery",
        "ClusterCounters": "counters",
        "Counters": "counters",
        "ExponentialBackoff": "retrying",
        "FallbackClient": "fallback",
        "HashClient": "cluster",
        "RetryingClient": "retrying",
        "install_as_pymemcache": "as_pymemcache",
    }

    def __getattr__(name):
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        thing = getattr(import_module(f".{_LATER[name]}", __name__), name)
        globals()[name] = thing
        return thing

    def __dir__():
        return sorted({*globals(), *__all__})


if _core.refusal is not None:
    from .log import warn

    warn("the compiled core %s; the pure one is used", _core.refusal)

__version__ = "0.1.0"

#: "c" or "python": the implementation that this process runs on.
__impl__ = _core.impl

__all__ = [
    "AWSElastiCacheHashClient",
    "Client",
    "ClusterCounters",
    "Counters",
    "ExponentialBackoff",
    "FallbackClient",
    "HashClient",
    "KeepaliveOpts",
    "KetamaHash",
    "MemcacheClientError",
    "MemcacheDecompressionError",
    "MemcacheError",
    "MemcacheIllegalInputError",
    "MemcacheNodeDownError",
    "MemcacheServerError",
    "MemcacheUnexpectedCloseError",
    "MemcacheUnknownCommandError",
    "MemcacheUnknownError",
    "MemcacheValueTooLargeError",
    "PooledClient",
    "RendezvousHash",
    "RetryingClient",
    "__impl__",
    "__version__",
    "install_as_pymemcache",
]
