"""The error hierarchy of cymemcache.

Three families meet a caller: errors of this module, `OSError`s of the socket (a refused or reset
connection, `TimeoutError`), which stay what they are, and `TypeError`/`ValueError` for arguments
that no server was asked about.  Nothing in here may import anything of ours.
"""

from __future__ import annotations


class MemcacheError(Exception):
    """Base class of every error that this package defines."""

    __module__ = "cymemcache"


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
