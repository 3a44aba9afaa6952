"""Where an embedded server listens: a TCP port, or the file of a UNIX socket.

A port that the system has chosen is kept for the next time, and a socket file is there only while
the server runs.
"""

from __future__ import annotations

import socket
import sys
from typing import Any

from .socketfile import SocketFile

_BACKLOG = 1024


class Endpoint:
    """`host` and `port` (0: a free one), or the UNIX socket at `path` where that is not None."""

    def __init__(self, host: str, port: int, path: str | None) -> None:
        self.path = path
        #: ``(host, port)`` or the path, as clients need it; None before the first `listen`
        self.address: Any = None
        self._host = host
        self._port = port
        self._file = None if path is None else SocketFile(path)
        if path is not None:
            self._family = socket.AF_UNIX
        else:
            self._family = socket.AF_INET6 if ":" in host else socket.AF_INET

    def __str__(self) -> str:
        """The address as memcached writes it."""
        return f"tcp:{self._host}:{self._port}" if self.path is None else f"unix:{self.path}"

    def listen(self) -> socket.socket:
        """A listening socket that does not block; raises `OSError` where the address is in use."""
        listener = socket.socket(self._family, socket.SOCK_STREAM)
        try:
            if self._file is not None:
                self._file.claim()
                listener.bind(self._file.path)
                self._file.keep()
                self.address = self.path
            else:
                if sys.platform != "win32":
                    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind((self._host, self._port))
                self._port = listener.getsockname()[1]
                self.address = (self._host, self._port)
            listener.listen(_BACKLOG)
            listener.setblocking(False)
        except BaseException:
            if self._file is not None and listener.getsockname():
                self._file.keep()
                self._file.remove()
            listener.close()
            raise
        return listener

    def disown(self) -> None:
        """Leave the socket file, if there is one, to the parent process."""
        if self._file is not None:
            self._file.disown()

    def remove(self) -> None:
        """Remove the socket file, if there is one of ours."""
        if self._file is not None:
            self._file.remove()
