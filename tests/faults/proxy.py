"""A proxy between a client and a real memcached that commits the faults of a `schedule`.

It runs in a process of its own, so that nothing that is done to the client's process (signals,
patched sockets, a tiny switch interval) is done to it:

    python -m faults.proxy HOST PORT MODE SEED TIMEOUT STREAM

It prints its port, then obeys lines: ``calm`` ends the faults, and is repeated once nobody is
refused any more; the end of the input ends the proxy, which then prints as JSON how often it
committed each.  TIMEOUT is that of the client, in seconds: what is "late" comes after that.  STREAM
is "text", or "opaque" where replies cannot be told from each other, as under TLS: there what
arrives at once passes for one, while hands are shaken included.
`FaultProxy` does all this from the side of a test.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import socket
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Coroutine, Iterator
from types import TracebackType
from typing import Any

from cymemcache.testing.process import free_port
from faults.schedule import Schedule
from wire import PATIENCE

_RECEIVE = 1 << 16
_LINGER_OFF = struct.pack("ii", 1, 0)


def take_replies(received: bytearray) -> Iterator[bytes]:
    """The complete replies at the head of `received`, which they are removed from."""
    at = 0
    while (end := received.find(b"\r\n", at)) >= 0:
        words = received[at:end].split(b" ")
        at = end + 2
        if words[0] == b"VALUE":
            at += int(words[3]) + 2
        elif words[0] != b"STAT":
            yield bytes(received[:at])
            del received[:at]
            at = 0


def take_all(received: bytearray) -> Iterator[bytes]:
    """Whatever there is in `received`, which it is removed from."""
    yield bytes(received)
    received.clear()


STREAMS = {"text": take_replies, "opaque": take_all}


class _Ended(Exception):
    """Both sides of the connection are to be closed."""

    def __init__(self, reset: bool = False) -> None:
        self.reset = reset


class _Proxy:
    def __init__(
        self, server: tuple[str, int], mode: str, seed: str, timeout: float, stream: str
    ) -> None:
        self.server = server
        self.mode = mode
        self.seed = seed
        self.timeout = timeout
        self.take = STREAMS[stream]
        self.wild = True
        self.counts: Counter[str] = Counter()
        self.numbers = itertools.count()
        self.tasks: set[asyncio.Task[None]] = set()
        self.listening = asyncio.Lock()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()

        def obey() -> None:
            line = os.read(0, 100)
            if line:
                self.wild = False
                self.start(self.say_calm())
            else:
                ended.set()

        loop.add_reader(0, obey)
        # A port that was asked for stays its socket's own while it does not listen.
        port = free_port()
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", port))
            listener.setblocking(False)
            listener.listen(100)
            print(port, flush=True)
            accepting = asyncio.create_task(self.accept(listener))
            told = asyncio.create_task(ended.wait())
            await asyncio.wait([accepting, told], return_when=asyncio.FIRST_COMPLETED)
            if accepting.done():
                accepting.result()
            for task in [accepting, *self.tasks]:
                task.cancel()
            await asyncio.gather(accepting, *self.tasks, return_exceptions=True)
        print(json.dumps(self.counts))

    async def accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            client, _ = await loop.sock_accept(listener)
            schedule = Schedule(self.mode, self.seed, next(self.numbers))
            fault = schedule.on_connect() if self.wild else ""
            self.count(fault)
            if fault == "refusal":  # of those that come next
                async with self.listening:
                    listener.shutdown(socket.SHUT_RDWR)
                    await asyncio.sleep(schedule.random.uniform(0, 0.05))
                    listener.listen(100)
            self.start(self.serve(client, schedule, fault))

    async def say_calm(self) -> None:
        async with self.listening:
            print("calm", flush=True)

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def serve(self, client: socket.socket, schedule: Schedule, fault: str) -> None:
        loop = asyncio.get_running_loop()
        upstream = socket.socket()
        for sock in (client, upstream):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        reset = fault == "reset at once"
        try:
            if reset:
                return
            await loop.sock_connect(upstream, self.server)
            ways = [
                asyncio.create_task(self.requests(client, upstream, schedule, fault == "silence")),
                asyncio.create_task(self.replies(upstream, client, schedule)),
            ]
            try:
                done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
            for way in done:
                error = way.exception()
                if isinstance(error, _Ended):
                    reset = reset or error.reset
                elif error is not None and not isinstance(error, OSError):
                    raise error
        finally:
            if reset:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_OFF)
            client.close()
            upstream.close()

    async def requests(
        self, client: socket.socket, upstream: socket.socket, schedule: Schedule, silence: bool
    ) -> None:
        """From the client to the server, until the client closes."""
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(client, _RECEIVE):
            if silence:
                continue
            fault = schedule.on_request() if self.wild else ""
            if fault == "request split" and len(data) < 2:
                fault = ""
            self.count(fault)
            part = data[: schedule.random.randrange(len(data))]
            if fault in ("request cut", "request reset"):
                await loop.sock_sendall(upstream, part)
                raise _Ended(fault == "request reset")
            if fault == "request late":
                await asyncio.sleep(2 * self.timeout)
            if fault == "request flip":
                data = schedule.flipped(data)
            if fault == "request split":
                for piece in schedule.pieces(data):
                    await loop.sock_sendall(upstream, piece)
                    await asyncio.sleep(0.001)
            else:
                await loop.sock_sendall(upstream, data)
            if fault == "request half-close":
                upstream.shutdown(socket.SHUT_WR)
                await asyncio.sleep(PATIENCE)

    async def replies(
        self, upstream: socket.socket, client: socket.socket, schedule: Schedule
    ) -> None:
        """From the server to the client, until the server closes."""
        loop = asyncio.get_running_loop()
        received = bytearray()
        while data := await loop.sock_recv(upstream, _RECEIVE):
            received += data
            for reply in self.take(received):
                fault = schedule.on_reply() if self.wild else ""
                if fault == "another key" and not reply.startswith(b"VALUE "):
                    fault = ""
                self.count(fault)
                await self.answer(client, reply, fault, schedule)

    async def answer(
        self, client: socket.socket, reply: bytes, fault: str, schedule: Schedule
    ) -> None:
        loop = asyncio.get_running_loop()
        draw = schedule.random
        part = reply[: draw.randrange(len(reply))]
        match fault:
            case "cut" | "reset" | "half-close":
                await loop.sock_sendall(client, part)
                if fault != "half-close":
                    raise _Ended(fault == "reset")
                client.shutdown(socket.SHUT_WR)
                await asyncio.sleep(PATIENCE)
            case "delay" | "late":
                late = 2 * self.timeout if fault == "late" else draw.uniform(0, 0.03)
                await asyncio.sleep(late)
                await loop.sock_sendall(client, reply)
            case "trickle":
                size = len(reply) // 50 + 1
                for start in range(0, len(reply), size):
                    await loop.sock_sendall(client, reply[start : start + size])
                    await asyncio.sleep(0.0005)
            case "split":
                for piece in schedule.pieces(reply):
                    await loop.sock_sendall(client, piece)
                    await asyncio.sleep(0.0005)
            case "drop":
                pass
            case "hang":
                await asyncio.sleep(PATIENCE)
            case "another key":
                words = reply.split(b" ", 2)
                await loop.sock_sendall(client, b"VALUE another-%b %b" % (words[1], words[2]))
            case "close when idle":
                await loop.sock_sendall(client, reply)
                await asyncio.sleep(draw.uniform(0, 0.01))
                raise _Ended
            case "duplicate":
                await loop.sock_sendall(client, reply + reply)
            case "late duplicate":
                await loop.sock_sendall(client, reply)
                await asyncio.sleep(draw.uniform(0, 0.01))
                await loop.sock_sendall(client, reply)
            case "flip":
                await loop.sock_sendall(client, schedule.flipped(reply))
            case _:
                await loop.sock_sendall(client, reply)

    def count(self, fault: str) -> None:
        if fault:
            self.counts[fault] += 1


class FaultProxy:
    """Such a proxy in front of `server`, for the time of a ``with`` block."""

    def __init__(
        self,
        server: tuple[str, int],
        mode: str,
        seed: str,
        timeout: float,
        stream: str = "text",
    ) -> None:
        host, port = server
        options = (host, str(port), mode, seed, str(timeout), stream)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "faults.proxy", *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        #: where it listens, within the block
        self.address = ("127.0.0.1", 0)
        #: how often it has committed each fault, once it has ended
        self.counts: dict[str, int] = {}

    def calm(self) -> None:
        """No more faults; those under way end as they will, but nobody is refused any more."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"calm\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == b"calm\n"

    def __enter__(self) -> FaultProxy:
        assert self._process.stdout is not None
        self.address = ("127.0.0.1", int(self._process.stdout.readline()))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            said, _ = self._process.communicate(timeout=PATIENCE)
            self.counts = json.loads(said)
        finally:
            self._process.kill()
            self._process.wait()


if __name__ == "__main__":
    _host, _port, _mode, _seed, _timeout, _stream = sys.argv[1:]
    asyncio.run(_Proxy((_host, int(_port)), _mode, _seed, float(_timeout), _stream).run())
