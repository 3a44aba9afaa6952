"""Who has the descriptors of the sockets that were dialled, whatever interrupts and whoever forks.

A descriptor is closed by one owner, once: after that its number is a stranger's.  And a child
process has none of its parent's.
"""

from __future__ import annotations

import _socket
import os
from weakref import WeakSet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    Identity: TypeAlias = tuple[int, int]  # a number, and the inode of what it stood for

_sockets: WeakSet[Any] = WeakSet()  # that were dialled and may be open
_passing: set[Identity] = set()  # what passes from one socket to another just now


def remember(sock: Any) -> None:
    """`sock` was dialled: no child process may have it."""
    try:
        _sockets.add(sock)
    except TypeError:  # an object of somebody's own that cannot be referred to weakly
        pass


def wrapped(context: Any, sock: Any, host: str, **options: Any) -> Any:
    """The socket over TLS that has the descriptor of `sock` from now on.

    An interruption can fall between the two statements with which ssl takes a descriptor over.  Two
    sockets have it then, and the second one to close it would close a stranger's.  (Of two
    interruptions the other one could still fall between the two statements that prevent it.)
    """
    identity = _identity(sock)
    try:
        if identity is not None:
            _passing.add(identity)
        secured = context.wrap_socket(sock, server_hostname=host, **options)
        remember(secured)
        return secured
    except BaseException as error:
        if identity is not None:
            _end_half_made(sock, identity[0], error)
        raise
    finally:
        if identity is not None:
            _passing.discard(identity)


def _identity(sock: Any) -> Identity | None:
    try:
        number: int = sock.fileno()
        return number, os.fstat(number).st_ino
    except (AttributeError, OSError, TypeError, ValueError):
        return None  # an object of somebody's own without a descriptor


def _end_half_made(sock: Any, number: int, error: BaseException) -> None:
    """Leave `number` to nobody but `sock`, or to nobody where another socket has it as well."""
    mine = _innermost(sock)
    trace = error.__traceback__
    while trace is not None:
        other = _innermost(trace.tb_frame.f_locals.get("self"))
        if isinstance(other, _socket.socket) and other is not mine and other.fileno() == number:
            sock.detach()
            # Python's own `close` may need what is not there yet.
            _socket.socket.close(other)
        trace = trace.tb_next


def _innermost(sock: Any) -> Any:
    """`sock`, or what a socket of gevent's has its descriptor in."""
    try:
        # Not through `__getattr__`: gevent's has no end where the attribute is not there yet.
        return object.__getattribute__(sock, "_sock")
    except AttributeError:
        return sock


def _cut_off() -> None:
    """In a child process: what the parent dialled leads nowhere from here on.

    A signal handler can fork in the middle of a call on a socket, which would go on in the child:
    send the rest of the request a second time, take the reply that the parent waits for.
    Descriptors are replaced, not closed: such a call must not find a stranger's under the number.
    """
    nowhere, other = _socket.socketpair()
    other.close()
    for sock in list(_sockets):
        try:
            number = sock.fileno()
            if number >= 0:
                os.dup2(nowhere.fileno(), number, inheritable=False)
        except (OSError, ValueError):
            pass  # closed in the meantime
    for number, inode in list(_passing):
        try:
            if os.fstat(number).st_ino == inode:
                os.dup2(nowhere.fileno(), number, inheritable=False)
        except OSError:
            pass  # closed in the meantime
    _passing.clear()  # of threads that are not in the child
    nowhere.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_cut_off)
