"""What an error of a socket says: something about the server, or about this process and machine.

No descriptors or memory, no local port, no permission, an argument that makes no sense: a server
that is as well as ever must not be given up for that.  Nothing in here may do anything but look.
"""

from __future__ import annotations

import _socket
import errno

from .exceptions import MemcacheUnexpectedCloseError


def _numbers(module: object, *names: str) -> frozenset[int]:
    """Those that there are on this platform."""
    return frozenset(getattr(module, name) for name in names if hasattr(module, name))


_LOCAL = _numbers(
    errno,
    # descriptors, buffers and memory
    *("EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "ENOSR", "EUSERS", "EAGAIN"),
    # ports and addresses of our own
    *("EADDRNOTAVAIL", "EADDRINUSE"),
    # permissions: a firewall's here, those of a UNIX socket's file
    *("EACCES", "EPERM"),
    # arguments
    *("EINVAL", "EFAULT", "EBADF", "ENOTSOCK", "EDOM", "ENAMETOOLONG", "ELOOP", "EMSGSIZE"),
    *("EAFNOSUPPORT", "EPFNOSUPPORT", "EPROTONOSUPPORT", "EPROTOTYPE", "ESOCKTNOSUPPORT"),
    *("EOPNOTSUPP", "ENOPROTOOPT", "EISCONN", "EALREADY", "EDESTADDRREQ", "EINTR", "ENOSYS"),
)
# The same of getaddrinfo, whose numbers are others.
_LOCAL_OF_NAMES = _numbers(
    _socket,
    *("EAI_MEMORY", "EAI_SYSTEM", "EAI_OVERFLOW"),
    *("EAI_BADFLAGS", "EAI_FAMILY", "EAI_SERVICE", "EAI_SOCKTYPE"),
)


def is_unreachable(error: BaseException) -> bool:
    """Whether `error` says that the server cannot be reached, or has ended the connection."""
    if not isinstance(error, OSError):
        return isinstance(error, MemcacheUnexpectedCloseError)
    if isinstance(error, _socket.gaierror):
        return error.errno not in _LOCAL_OF_NAMES
    # ssl has numbers of its own, among them those of EPERM and EINTR.
    return error.errno not in _LOCAL or type(error).__module__ == "ssl"
