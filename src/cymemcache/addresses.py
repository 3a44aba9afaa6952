"""The address of a server, in all the ways in which it may be written.

Text is judged at once, a pair of host and port when it is dialled: programs under test give sockets
of their own and ports that no machine has.  Nothing in here may look up a name or open a socket.
"""

from __future__ import annotations

from .core.arguments import listed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def normalize_server_spec(server: Any) -> tuple[str, int] | str:
    """The address of a server: ``(host, port)``, or the path of a UNIX socket.

    Takes ``(host, port)``, which is left as it is, ``"host"``, ``"host:port"``, ``"[ipv6]"``,
    ``"[ipv6]:port"``, ``"unix:/path"`` and ``"/path"``; the port is 11211 where none is given.
    Raises `ValueError` for anything else.
    """
    if isinstance(server, (tuple, list)):
        if len(server) != 2:
            raise ValueError(f"server must be a (host, port) pair, not {server!r}")
        host, port = server
        return host, port
    if not isinstance(server, str) or not server:
        raise ValueError(f"server must be a (host, port) pair or an address, not {server!r}")
    if server.startswith("unix:"):
        path = server[5:]
    elif server.startswith("/"):
        path = server
    else:
        return _from_text(server)
    if not path or "\0" in path:
        raise ValueError(f"server address {server!r} has no usable socket path")
    return path


def server_list(servers: Any) -> list[Any]:
    """The servers of a cluster as a list of one's own.

    Raises `TypeError` where they are none, as a single address is none.
    """
    if type(servers) is tuple and list(map(type, servers)) == [str, int]:
        raise TypeError(f"servers must be a list of addresses: write [{servers!r}]")
    return listed(servers, "servers")


def _from_text(server: str) -> tuple[str, int]:
    scheme, slashes, rest = server.partition("://")
    if slashes:
        raise ValueError(f"server address {server!r}: write {rest!r}, without the {scheme}://")
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


def _host(host: str, server: str) -> str:
    if not host:
        raise ValueError(f"server address {server!r} has no host")
    if "\0" in host or host.split() != [host]:
        raise ValueError(f"server address {server!r}: the host must hold no whitespace and no NUL")
    if not _is_name(host):
        raise ValueError(f"server address {server!r}: {host!r} cannot be the name of a host")
    return host


def _is_name(host: str) -> bool:
    """Whether IDNA, by whose rules a name is looked up, takes `host`."""
    if host.isascii():  # without loading the codec
        *labels, last = host.split(".")
        return all(0 < len(label) < 64 for label in labels) and len(last) < 64
    try:
        host.encode("idna")
    except UnicodeError:
        return False
    return True


def _port(port: str, server: str) -> int:
    if not (port.isascii() and port.removeprefix("-").isdigit()):
        raise ValueError(f"server address {server!r}: the port must be a number")
    # Python converts no number of any length.
    if len(port) > 5 or not 0 < int(port) < 65536:
        raise ValueError(f"server address {server!r}: the port must be from 1 to 65535")
    return int(port)
