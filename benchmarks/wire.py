"""Requests and replies of the text protocol, byte for byte, for what encodes and parses nothing.

The bare loops send and expect these; the instruction guard answers with them.  Values are bytes.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .workloads import Items


def request(command: str, items: Items) -> bytes | None:
    """What a client sends, None where the bytes are not the same every time."""
    if command in ("get", "get_miss", "get_many"):
        return b"get " + " ".join(items).encode() + b"\r\n"
    if command in ("set", "set_many"):
        return b"".join(
            b"set %b 0 0 %d\r\n%b\r\n" % (key.encode(), len(value), value)
            for key, value in items.items()
        )
    if command == "delete_many":
        return b"".join(b"delete %b\r\n" % key.encode() for key in items)
    return None


def reply(command: str, items: Items) -> bytes:
    """What memcached answers to `request`, where the items are there for a fetch, else not."""
    if command in ("set", "set_many"):
        return b"STORED\r\n" * len(items)
    if command == "delete_many":
        return b"NOT_FOUND\r\n" * len(items)
    values = b"".join(
        b"VALUE %b 0 %d\r\n%b\r\n" % (key.encode(), len(value), value)
        for key, value in items.items()
    )
    return (b"" if command == "get_miss" else values) + b"END\r\n"
