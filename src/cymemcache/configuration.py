"""The configuration of a cluster, as a discovery endpoint writes it, and which answer counts.

ElastiCache and Memorystore answer ``config get cluster`` with two lines: a version number, and the
nodes, each as ``host|ip|port``.  `parse_configuration` reads that whole or raises; it must never
give a part of the nodes.  `LatestConfiguration` tells an answer that is newer from one that a
lagging node still gives.  Nothing in here may send, sleep, lock or log; the time is passed in.
"""

from __future__ import annotations

import socket

from .exceptions import MemcacheUnknownError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

MAX_SIZE = 1 << 20  # bytes; the largest clusters need some ten thousand
OLDER_SECONDS = 60.0  # after which an older configuration that keeps coming is believed

_MAX_VERSION = (1 << 64) - 1
_HOST_CHARACTERS = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._")
_ADDRESS_CHARACTERS = frozenset(b"0123456789.")


class Configuration:
    """The nodes of a cluster under one version number.

    `nodes` holds ``(host, ip, port)`` of each, in the order given; one of `host` and `ip` may be
    empty.
    """

    __slots__ = ("nodes", "version")

    def __init__(self, version: int, nodes: tuple[tuple[str, str, int], ...]) -> None:
        self.version = version
        self.nodes = nodes

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Configuration):
            return NotImplemented
        return (self.version, self.nodes) == (other.version, other.nodes)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        nodes = " ".join(f"{host}|{ip}|{port}" for host, ip, port in self.nodes)
        return f"<{type(self).__name__} {self.version}: {nodes}>"

    def addresses(self, use_ip: bool) -> list[tuple[str, int]]:
        """Where to connect to: the nodes' IP addresses, or their host names.

        The other one is taken for a node that has only that.  Each address comes once.
        """
        addresses = [
            ((ip or host) if use_ip else (host or ip), port) for host, ip, port in self.nodes
        ]
        return list(dict.fromkeys(addresses))


def parse_configuration(data: bytes) -> Configuration:
    """The configuration that an endpoint has answered, without the reply's own framing.

    Lines end with LF or CR LF.  Raises `MemcacheUnknownError` where anything is not as it should
    be, a configuration without nodes included.
    """
    if len(data) > MAX_SIZE:
        _refuse(f"it is longer than {MAX_SIZE} bytes", data)
    version, *lines = data.replace(b"\r\n", b"\n").rstrip(b"\n").split(b"\n")
    if not version.isdigit() or len(version) > 20 or int(version) > _MAX_VERSION:
        _refuse("its first line is no version number", data)
    if len(lines) != 1:
        _refuse("a version number and one line of nodes are expected", data)
    nodes = tuple(_node(field) for field in lines[0].split(b" ") if field)
    if not nodes:
        _refuse("it names no nodes", data)
    return Configuration(int(version), nodes)


def _node(field: bytes) -> tuple[str, str, int]:
    host, *ip, port = field.split(b"|") if field.count(b"|") in (1, 2) else (b"", b"", b"")
    address = ip[0] if ip else b""
    if not (host or address) or not port.isdigit() or len(port) > 5 or not 0 < int(port) < 65536:
        _refuse("a node is host|ip|port", field)
    return _host(host, field), _host(address, field), int(port)


def _host(text: bytes, field: bytes) -> str:
    """A host name or an IP address; an IPv6 one may be in brackets.  Empty where there is none."""
    if b":" in text:
        inside = text[1:-1] if text.startswith(b"[") and text.endswith(b"]") else text
        if _is_address(socket.AF_INET6, inside):
            return inside.decode("ascii")
    elif _ADDRESS_CHARACTERS.issuperset(text):
        if not text or _is_address(socket.AF_INET, text):
            return text.decode("ascii")
    elif len(text) <= 255 and _HOST_CHARACTERS.issuperset(text):
        return text.decode("ascii")
    _refuse(f"{text[:80]!r} is neither a host name nor an IP address", field)


def _is_address(family: int, text: bytes) -> bool:
    try:
        socket.inet_pton(family, text.decode("ascii"))
    except (OSError, ValueError):
        return False
    return True


def _refuse(reason: str, what: bytes) -> NoReturn:
    raise MemcacheUnknownError(f"not a cluster configuration: {reason}: {what[:80]!r}")


class LatestConfiguration:
    """The configuration that counts, out of all that were answered.

    Every node of a cluster answers for it, and learns of changes at its own time, so a lower
    version number than the last one says that a node lags behind.  Where the endpoint gives
    nothing else for `OLDER_SECONDS`, it is another cluster's, which counts anew.
    """

    def __init__(self) -> None:
        self.value: Configuration | None = None
        #: the older one that is waiting to be believed
        self.older: Configuration | None = None
        self._older_since = 0.0

    def take(self, answer: Configuration, now: float) -> bool:
        """Whether `answer` counts from now on; `now` is in seconds, on any clock.

        One under the same number does: nodes can get other addresses.
        """
        if self.value is not None and answer.version < self.value.version:
            if self.older is None:
                self._older_since = now
            self.older = answer
            if now - self._older_since < OLDER_SECONDS:
                return False
        self.older = None
        self.value = answer
        return True
