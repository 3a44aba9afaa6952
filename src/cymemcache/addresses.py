"""The address of a server, in all the ways in which it may be written.

Nothing in here may look up a name or open a socket.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def normalize_server_spec(server: Any) -> tuple[str, int] | str:
    """The address of a server: ``(host, port)``, or the path of a UNIX socket.

    Takes ``(host, port)``, ``"host"``, ``"host:port"``, ``"[ipv6]"``, ``"[ipv6]:port"``,
    ``"unix:/path"`` and ``"/path"``; the port is 11211 where none is given.  Raises `ValueError`
    for anything else.
    """
    if isinstance(server, (tuple, list)):
        if len(server) != 2 or not isinstance(server[0], str) or not server[0]:
            raise ValueError(f"server must be a (host, port) pair, not {server!r}")
        return _host(server[0], server), _port(server[1], server)
    if not isinstance(server, str) or not server:
        raise ValueError(f"server must be a (host, port) pair or an address, not {server!r}")
    if server.startswith("unix:"):
        path = server[5:]
    elif server.startswith("/"):
        path = server
    else:
        if server.startswith("["):
            host, bracket, rest = server[1:].partition("]")
            colon, port = rest[:1], rest[1:]
            if not bracket or colon not in ("", ":"):
                raise ValueError(f"server address {server!r} is not of the form [ipv6]:port")
        else:
            host, colon, port = server.partition(":")
            if ":" in port:
                raise ValueError(
                    f"server address {server!r} has more than one colon; "
                    "an IPv6 address goes in brackets: [::1]:11211"
                )
        if colon and not port:
            raise ValueError(f"server address {server!r} ends where its port should be")
        return _host(host, server), _port(port, server) if port else 11211
    if not path or "\0" in path:
        raise ValueError(f"server address {server!r} has no usable socket path")
    return path


def _host(host: str, server: Any) -> str:
    if not host:
        raise ValueError(f"server address {server!r} has no host")
    if "\0" in host or host.split() != [host]:
        raise ValueError(f"server address {server!r}: the host must hold no whitespace and no NUL")
    return host


def _port(port: Any, server: Any) -> int:
    digits = isinstance(port, str) and port.isascii() and port.removeprefix("-").isdigit()
    if not digits and (isinstance(port, bool) or not isinstance(port, int)):
        raise ValueError(f"server address {server!r}: the port must be a number")
    number = int(port)
    if not 0 < number < 65536:
        raise ValueError(f"server address {server!r}: the port must be from 1 to 65535")
    return number
