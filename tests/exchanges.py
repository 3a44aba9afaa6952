"""The two ways a request can travel, as `socket_module`s that make a client take one or the other.

A stdlib socket gets the compiled exchange where there is one; a subclass that overrides `recv_into`
is no plain socket any more, and gets the generic one.
"""

from __future__ import annotations

import os
import socket
import stat
from types import SimpleNamespace
from typing import Any


class WrappedSocket(socket.socket):
    """A stdlib socket in all but the type that the compiled exchange asks for."""

    def recv_into(self, *args: Any) -> int:
        return super().recv_into(*args)


def module_with(socket_class: type) -> SimpleNamespace:
    """A socket module whose sockets are of `socket_class`."""
    names = ("AF_INET", "AF_INET6", "AF_UNIX", "AF_UNSPEC", "SOCK_STREAM", "IPPROTO_TCP")
    constants = {name: getattr(socket, name) for name in names}
    return SimpleNamespace(socket=socket_class, getaddrinfo=socket.getaddrinfo, **constants)


MODULES = {"plain": socket, "any": module_with(WrappedSocket)}


def open_sockets() -> dict[int, str]:
    """This process's descriptors that are sockets, with the names that the kernel gives them."""
    found = {}
    for name in os.listdir("/dev/fd"):
        try:
            state = os.fstat(int(name))
        except OSError:
            continue  # the one that the directory was read through
        if stat.S_ISSOCK(state.st_mode):
            found[int(name)] = f"socket:[{state.st_ino}]"
    return found
