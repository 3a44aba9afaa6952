"""cymemcache: a memcached client whose hot code is compiled.

The public names; everything else is found from here.  Importing this module must stay cheap: it
loads ssl, logging, pickle and typing only when they are first needed.
"""

from __future__ import annotations

from .client import Client
from .core import impl as __impl__
from .exceptions import (
    MemcacheClientError,
    MemcacheDecompressionError,
    MemcacheError,
    MemcacheIllegalInputError,
    MemcacheServerError,
    MemcacheUnexpectedCloseError,
    MemcacheUnknownCommandError,
    MemcacheUnknownError,
)
from .ketama import KetamaHash
from .options import KeepaliveOpts

__version__ = "0.1.0"

__all__ = [
    "Client",
    "KeepaliveOpts",
    "KetamaHash",
    "MemcacheClientError",
    "MemcacheDecompressionError",
    "MemcacheError",
    "MemcacheIllegalInputError",
    "MemcacheServerError",
    "MemcacheUnexpectedCloseError",
    "MemcacheUnknownCommandError",
    "MemcacheUnknownError",
    "__impl__",
    "__version__",
]
