"""Who has the descriptors of the sockets that were dialled, whatever interrupts and whoever forks.

A descriptor is closed by one owner, once: after that its number is a stranger's.  A number is
therefore known together with the inode that it stands for, and is left alone where that is another
one.  And a child process has none of its parent's: there each of them leads nowhere.

What leads nowhere is opened before the first socket is dialled, since a child may have no free
descriptor.
"""

from __future__ import annotations

import _socket
import os
from weakref import WeakKeyDictionary

from . import forks
from .interruptions import is_interruption

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    Identity: TypeAlias = tuple[int, int]  # a number, and the inode of what it stood for


def prepare() -> None:
    """To be called before a socket is made: there must be something to replace it with in a child.

    Raises `OSError` where there is no free descriptor.
    """
    _dialled.prepare()


def remember(sock: Any) -> None:
    """`sock` was dialled: no child process may have it."""
    _dialled.add(sock)


def wrapped(context: Any, sock: Any, host: str, **options: Any) -> Any:
    """The socket over TLS that has the descriptor of `sock` from now on.

    An interruption can fall between the two statements with which ssl takes a descriptor over.  Two
    sockets have it then, and the second one to close it would close a stranger's.  (Of two
    interruptions the other one could still fall between the two statements that prevent it.)
    """
    identity = _identity(sock)
    try:
        if identity is not None:
            _dialled.passing.add(identity)
        secured = context.wrap_socket(sock, server_hostname=host, **options)
        remember(secured)
        return secured
    except BaseException as error:
        if identity is not None:
            _end_half_made(sock, identity[0], error)
        raise
    finally:
        if identity is not None:
            _dialled.passing.discard(identity)


def _identity(sock: Any) -> Identity | None:
    try:
        return _identity_of(sock.fileno())
    except (AttributeError, OSError, TypeError, ValueError) as error:
        if is_interruption(error):
            raise
        return None  # closed, or an object of somebody's own without a descriptor


def _identity_of(number: int) -> Identity:
    return number, os.fstat(number).st_ino


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


class _Nowhere:
    """A descriptor on which sending is an error, and receiving the end of the stream."""

    def __init__(self) -> None:
        sock, other = _socket.socketpair()
        other.close()
        # The number alone: it stays open as long as the process, and Python would warn of a socket.
        self._identity = _identity_of(sock.detach())

    def is_there(self) -> bool:
        """False where somebody has closed it: daemons close all descriptors when they begin."""
        try:
            return _identity_of(self._identity[0]) == self._identity
        except OSError as error:
            if is_interruption(error):
                raise
            return False

    def replace(self, number: int) -> None:
        """Have the open descriptor `number` lead nowhere, which needs no free one."""
        os.dup2(self._identity[0], number, inheritable=False)


class _Dialled:
    """The sockets that were dialled and may be open."""

    def __init__(self) -> None:
        self._sockets: WeakKeyDictionary[Any, Identity] = WeakKeyDictionary()
        #: what passes from one socket to another just now
        self.passing: set[Identity] = set()
        self._nowhere: _Nowhere | None = None
        forks.renew_in_children(self, forks.DESCRIPTORS)

    def prepare(self) -> None:
        nowhere = self._nowhere
        if nowhere is None or not nowhere.is_there():
            self._nowhere = _Nowhere()  # the number of the old one may be a stranger's

    def add(self, sock: Any) -> None:
        identity = _identity(sock)
        if identity is not None:
            try:
                self._sockets[sock] = identity
            except TypeError:  # an object of somebody's own that cannot be referred to weakly
                pass

    def reset_after_fork(self) -> None:
        """In a child process: what the parent dialled leads nowhere from here on.

        A signal handler can fork in the middle of a call on a socket, which would go on in the
        child: send the rest of the request a second time, take the reply that the parent waits for.
        Descriptors are replaced, not closed: such a call must not find a stranger's under the
        number.
        """
        identities = [*self._sockets.values(), *self.passing]
        # This process has none of them, and `passing` was of threads that are not in it.
        self._sockets, self.passing = WeakKeyDictionary(), set()
        for number, inode in identities:
            try:
                if os.fstat(number).st_ino == inode:
                    self._cut_off(number)
            except OSError:
                pass  # closed in the meantime

    def _cut_off(self, number: int) -> None:
        try:
            self.prepare()  # it is there, unless somebody has closed it
            if self._nowhere is not None:
                self._nowhere.replace(number)
        except OSError:  # and there is no other: better a free number than the parent's socket
            os.close(number)


_dialled = _Dialled()
