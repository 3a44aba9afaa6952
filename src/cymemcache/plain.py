"""Which sockets are the standard library's own, in all that the short ways pass over.

Compiled code works on the descriptor of a socket, and so do steps that poll.  What a class of a
user's own (or a patch) does in its methods would not happen then: encrypt, count, refuse.  So these
ways are for sockets none of whose methods that they stand for is another one than `_socket` has.
"""

from __future__ import annotations

import _socket
import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# What the compiled exchange, or one in steps, does itself or leaves out.
_EXCHANGING = ("fileno", "recv", "recv_into", "send", "sendall", "setsockopt", "settimeout")
# What a dial in steps does in the place of `connect`.
_CONNECTING = ("connect", "connect_ex", "getsockopt")


def is_plain(sock: Any) -> bool:
    """Whether requests and replies may pass over the methods of `sock`."""
    return _has(sock, _EXCHANGING)


def can_be_polled(sock: Any) -> bool:
    """Whether `sock` is the standard library's own: polling others would block their event loop."""
    module = type(sock).__module__
    return hasattr(select, "poll") and (module == "ssl" or (module == "socket" and is_plain(sock)))


def can_connect_in_steps(sock: Any) -> bool:
    """Whether `sock` can be connected without a call of its `connect`."""
    return can_be_polled(sock) and _has(sock, _CONNECTING)


def _has(sock: Any, names: tuple[str, ...]) -> bool:
    """Whether the methods `names` of `sock` are those of `_socket.socket`."""
    # By the type: an object can pass for an instance of any class.
    if not issubclass(type(sock), _socket.socket):
        return False
    for name in names:
        own = getattr(_socket.socket, name).__get__(sock)
        found = getattr(sock, name, None)  # of its class, or its own alone
        if type(found) is not type(own) or found != own:
            return False
    return True
