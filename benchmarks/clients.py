"""The clients that are compared: how each is made, and how it does the commands.

Every client is given what its users would give it for speed: TCP_NODELAY, the text protocol, raw
bytes, a time limit of one second for everything.  A client is a function that takes the server's
address and gives its commands by name; the names are those of `workloads.WORKLOADS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Commands = dict[str, Callable[..., Any]]
Address = tuple[str, int]

TIMEOUT = 1.0  # seconds


def cymemcache(address: Address) -> Commands:
    """Ours; which implementation the environment says (see `CLIENTS`)."""
    from cymemcache import Client

    client = Client(address, connect_timeout=TIMEOUT, timeout=TIMEOUT)
    return {
        "get": client.get,
        "get_many": client.get_many,
        "set": lambda key, value: client.set(key, value, noreply=False),
        "set_many": lambda values: client.set_many(values, noreply=False),
    }


def pymemcache(address: Address) -> Commands:
    from pymemcache.client.base import Client

    # Nagle's algorithm is on unless asked otherwise.
    client = Client(address, connect_timeout=TIMEOUT, timeout=TIMEOUT, no_delay=True)
    return {
        "get": client.get,
        "get_many": client.get_many,
        "set": lambda key, value: client.set(key, value, noreply=False),
        "set_many": lambda values: client.set_many(values, noreply=False),
    }


def pylibmc(address: Address) -> Commands:
    from pylibmc import Client

    milliseconds = int(TIMEOUT * 1e3)
    behaviors = {
        "tcp_nodelay": True,
        "connect_timeout": milliseconds,
        "send_timeout": milliseconds * 1000,  # these two are in microseconds
        "receive_timeout": milliseconds * 1000,
    }
    client = Client(["{}:{}".format(*address)], binary=False, behaviors=behaviors)
    return {
        "get": client.get,
        "get_many": client.get_multi,
        "set": client.set,
        "set_many": client.set_multi,
    }


def bare(address: Address) -> Commands:
    """What Python's own socket costs: a send and a receive, nothing encoded and nothing parsed."""
    import socket

    sock = socket.create_connection(address, timeout=TIMEOUT)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    send, recv = sock.send, sock.recv

    def get(key: str) -> bytes:
        send(b"get key:0\r\n")
        return recv(4096)

    return {"get": get}


# By the name that the report shows: the function, and what its worker's environment has besides.
CLIENTS: dict[str, tuple[Callable[[Address], Commands], dict[str, str]]] = {
    "cymemcache": (cymemcache, {"CYMEMCACHE_IMPL": "c"}),
    "cymemcache (pure)": (cymemcache, {"CYMEMCACHE_IMPL": "python"}),
    "pymemcache": (pymemcache, {}),
    "pylibmc": (pylibmc, {}),
    "bare send and recv": (bare, {}),
}
