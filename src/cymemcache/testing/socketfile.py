"""The file of a UNIX socket: free to be listened on, or somebody's.

A server that has ended without removing its file has left it to the next one.  Nothing in here may
remove the file of a server that runs, or what is no socket.
"""

from __future__ import annotations

import errno
import os
import socket
import stat

# As long as it is the same file: another one can get the same number.
_Identity = tuple[int, int, int]


class SocketFile:
    """The file at `path`, which a server of ours listens on."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._mine: _Identity | None = None

    def claim(self) -> None:
        """Make way for a server of ours; raises `OSError` where another one listens."""
        if _is_listened_on(self.path):
            raise OSError(errno.EADDRINUSE, "a running server listens there", self.path)
        if _identity(self.path) is not None:
            os.unlink(self.path)

    def keep(self) -> None:
        """The file that is there now is ours."""
        self._mine = _identity(self.path)

    def disown(self) -> None:
        """The file is not ours any more."""
        self._mine = None

    def remove(self) -> None:
        """Remove the file, unless it is another's by now."""
        mine, self._mine = self._mine, None
        if mine is not None and mine == _identity(self.path):
            os.unlink(self.path)


def _identity(path: str) -> _Identity | None:
    """What tells the socket at `path` from others; None where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    if not stat.S_ISSOCK(found.st_mode):
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns


def _is_listened_on(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.setblocking(False)
        # EAGAIN: somebody listens, and is busy.
        return sock.connect_ex(path) in (0, errno.EAGAIN, errno.EINPROGRESS)
