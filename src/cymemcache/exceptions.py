"""The error hierarchy of cymemcache.

Three families meet a caller: errors of this module, `OSError`s of the socket (a refused or reset
connection, `TimeoutError`), which stay what they are, and `TypeError`/`ValueError` for arguments
that no server was asked about.  An error of the first two families that has to do with a server
has its address in the attribute `server`, as `Client.server` has it: ``(host, port)`` or a path.
Nothing in here may import anything of ours.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class MemcacheError(Exception):
    """Base class of every error that this package defines."""

    __module__ = "cymemcache"

    #: the address of the server that it is about, None where it is about none
    server: tuple[str, int] | str | None = None


class MemcacheClientError(MemcacheError):
    """The server answered ``CLIENT_ERROR``: it did not accept what was sent."""

    __module__ = "cymemcache"


class MemcacheUnknownCommandError(MemcacheClientError):
    """The server answered ``ERROR``: it does not know the command, or has it turned off."""

    __module__ = "cymemcache"


class MemcacheIllegalInputError(MemcacheClientError):
    """An argument was refused before anything was sent; the message names the argument."""

    __module__ = "cymemcache"


class MemcacheServerError(MemcacheError):
    """The server answered ``SERVER_ERROR`` (or ``ERROR`` with a reason); its own text is kept."""

    __module__ = "cymemcache"


class MemcacheValueTooLargeError(MemcacheServerError):
    """The server answered that the item is too large for it: nothing was stored.

    `key` is the key as the caller gave it, `size` the number of bytes of its value as it was sent.
    Both are None where the answer belongs to a command that is not known any more.
    """

    __module__ = "cymemcache"

    def __init__(self, message: str = "", key: Any = None, size: int | None = None) -> None:
        super().__init__(message)
        self.key = key
        self.size = size


class MemcacheUnknownError(MemcacheError):
    """The server's reply is not a legal one for the command; the connection was closed."""

    __module__ = "cymemcache"


class MemcacheUnexpectedCloseError(MemcacheServerError):
    """The server closed the connection before its reply was complete."""

    __module__ = "cymemcache"


class MemcacheDecompressionError(MemcacheError):
    """A stored value decompresses to more than `max_decompressed_size`; its bytes were dropped."""

    __module__ = "cymemcache"


class MemcacheNodeDownError(MemcacheError, ConnectionError):
    """A node of a cluster is failing or dead: nothing was sent.  An `OSError` as well."""

    __module__ = "cymemcache"
