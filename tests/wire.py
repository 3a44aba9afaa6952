"""Raw protocol text: what the tests send to servers, and how replies are compared."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

PATIENCE = 20.0  # seconds after which something that must happen has not happened

LONG_KEY = b"k" * 250
TOO_LONG_KEY = b"k" * 251
MEBIBYTE = 1 << 20


def wait_until(condition: Callable[[], Any]) -> None:
    """Wait for what must come true."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.001)


def block(line: bytes, value: bytes) -> bytes:
    """A storage command: `line` with its value's length for "#", and the value."""
    return line.replace(b"#", b"%d" % len(value)) + b"\r\n" + value + b"\r\n"


# Two numbers, one text with flags, one key that holds nothing.
SETUP = block(b"set n 0 0 #", b"10") + block(b"set m 7 0 #", b"18446744073709551615")
SETUP += block(b"set t 4294967295 0 #", b"text")


def normalized(reply: bytes) -> bytes:
    """`reply` without what must differ."""
    tokens: dict[bytes, bytes] = {}

    def token(match: re.Match[bytes]) -> bytes:
        return match[1] + b"cas-%b" % tokens.setdefault(match[2], b"%d" % len(tokens)) + b"\r\n"

    reply = re.sub(rb"VERSION \S+", b"VERSION *", reply)
    reply = re.sub(rb"(VALUE \S+ \d+ \d+ )(\d+)\r\n", token, reply)
    reply = re.sub(rb"( la=| cas=| exp=)\d+", rb"\1*", reply)
    if b"PREFIX" in reply or b"key=" in reply:  # in no particular order
        return b"".join(sorted(reply.splitlines(keepends=True)))
    return reply


@dataclass
class Server:
    """A server that speaks memcached's protocol: the real one or the embedded one."""

    kind: str
    address: tuple[str, int]

    def raw(self, *chunks: bytes) -> bytes:
        """Send `chunks`, each on its own, and close the sending side; all that is answered."""
        with socket.create_connection(self.address, timeout=PATIENCE) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

            def send() -> None:
                try:
                    for chunk in chunks:
                        sock.sendall(chunk)
                    sock.shutdown(socket.SHUT_WR)
                except TimeoutError:
                    raise
                except OSError:
                    pass  # the server has closed the connection (shutdown: ENOTCONN)

            sender = threading.Thread(target=send)
            sender.start()
            received = bytearray()
            try:
                while data := sock.recv(1 << 16):
                    received += data
            except ConnectionError:
                pass
            sender.join()
            return bytes(received)

    def flush(self) -> None:
        """Remove all items."""
        assert self.raw(b"flush_all\r\n") == b"OK\r\n"
