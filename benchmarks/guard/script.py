"""The fixed script that is counted: ``python -m benchmarks.guard.script BENCHMARK REPEATS``.

One thread, no server, nothing that depends on time: replies are written into one end of a pair of
sockets before the command that reads them is given, so that the client goes its usual way through
system calls, which cost no instructions here.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from itertools import repeat
from typing import Any

from cymemcache import Client, serde
from cymemcache.core import ReplyParser, Requests
from cymemcache.core.replies import DECODE_RAW, FLAG_INTEGER, FLAG_TEXT, GET_MANY, STORE_MANY
from cymemcache.hashing import RendezvousHash

from .. import wire

Work = Callable[[], Any]  # one command

_ONE = {"guard:key:000": b"x" * 100}
_MANY = {f"guard:key:{number:03}": b"x" * 100 for number in range(100)}


class _Ends:
    """A `socket_module` whose sockets are dialled already: to the other end, which is ours."""

    def __init__(self) -> None:
        self.other, self._end = socket.socketpair()
        for sock in (self.other, self._end):  # room for a whole request and a whole reply
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 18)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)

    def __getattr__(self, name: str) -> Any:
        return getattr(socket, name)

    def socket(self, *_: Any) -> socket.socket:
        if self._end is None:
            raise OSError("the client dials a second time")
        end, self._end = self._end, None
        return _Dialled(fileno=end.detach())


class _Dialled(socket.socket):
    def connect(self, address: Any) -> None:
        pass


def _client(reply: bytes, call: Callable[[Client], Work], **options: Any) -> Work:
    """A command of a client that is answered with `reply`."""
    ends = _Ends()
    work = call(Client("/nowhere", timeout=60.0, socket_module=ends, **options))
    other = ends.other
    # Of the script's own calls nothing may depend on how the request came in pieces.
    request = bytearray(1 << 18)

    def exchange() -> Any:
        if reply:
            other.send(reply)
        result = work()
        other.recv_into(request)
        return result

    return exchange


def _flagged(values: dict[str, bytes], flags: int) -> bytes:
    return wire.reply("get_many", values).replace(b" 0 ", b" %d " % flags)


def _encode_set_many() -> Work:
    requests = Requests()
    return lambda: requests.store_many(b"set", _MANY.items(), 0, False)


def _parse(kind: int, reply: bytes, request: bytes, keys: list[str]) -> Work:
    parser = ReplyParser(DECODE_RAW)

    def parse() -> Any:
        view = memoryview(parser.get_buffer(len(reply)))
        view[: len(reply)] = reply
        view.release()
        parser.buffer_updated(len(reply))
        return parser.parse(kind, request, keys, None)

    return parse


def _fetch(command: str, items: dict[str, bytes], flags: int, **options: Any) -> Work:
    argument = next(iter(items)) if command.startswith("get") and len(items) == 1 else list(items)
    name = "get" if command == "get_miss" else command
    return _client(
        b"END\r\n" if command == "get_miss" else _flagged(items, flags),
        lambda client: lambda: getattr(client, name)(argument),
        **options,
    )


def _write(reply: bytes, method: str, *arguments: Any) -> Work:
    return _client(reply, lambda client: lambda: getattr(client, method)(*arguments, noreply=False))


def _choose(nodes: int) -> Work:
    table = RendezvousHash([f"10.0.0.1:{11211 + number}" for number in range(nodes)])
    return lambda: table.get_node("guard:key:000")


_NUMBERS = dict.fromkeys(_MANY, b"1000000007")

# Name: how it is made ready, and how often it is repeated, so that a run takes about a second.
BENCHMARKS: dict[str, tuple[Callable[[], Work], int]] = {
    "get": (lambda: _fetch("get", _ONE, 0), 1000),
    "get, a miss": (lambda: _fetch("get_miss", _ONE, 0), 1000),
    "get_many 100": (lambda: _fetch("get_many", _MANY, 0), 50),
    "get_many 100 str, pickle serde": (
        lambda: _fetch("get_many", _MANY, FLAG_TEXT, serde=serde.pickle_serde),
        50,
    ),
    "get_many 100 int, pickle serde": (
        lambda: _fetch("get_many", _NUMBERS, FLAG_INTEGER, serde=serde.pickle_serde),
        50,
    ),
    "set": (lambda: _write(b"STORED\r\n", "set", *next(iter(_ONE.items()))), 1000),
    "set_many 100": (lambda: _write(b"STORED\r\n" * 100, "set_many", _MANY), 50),
    "delete_many 100": (lambda: _write(b"DELETED\r\n" * 100, "delete_many", list(_MANY)), 50),
    "incr": (lambda: _write(b"17\r\n", "incr", "guard:key:000", 1), 1000),
    "encode set_many 100": (_encode_set_many, 50),
    "parse get_many 100": (
        lambda: _parse(
            GET_MANY,
            wire.reply("get_many", _MANY),
            wire.request("get_many", _MANY) or b"",
            list(_MANY),
        ),
        50,
    ),
    "parse set_many 100": (
        lambda: _parse(
            STORE_MANY,
            wire.reply("set_many", _MANY),
            wire.request("set_many", _MANY) or b"",
            list(_MANY),
        ),
        50,
    ),
    "rendezvous choice, 4 nodes": (lambda: _choose(4), 1000),
    "rendezvous choice, 64 nodes": (lambda: _choose(64), 500),
}


def main() -> None:
    name, repeats = sys.argv[1:]
    make, _ = BENCHMARKS[name]
    work = make()
    for _ in repeat(None, 20):  # past what only the first calls do
        work()
    for _ in repeat(None, int(repeats)):
        work()


if __name__ == "__main__":
    main()
