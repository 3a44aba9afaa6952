"""The parser drives any transport: an `asyncio.BufferedProtocol` of twenty lines on top of it sends
a thousand commands down one connection before it has read a reply, and gets each reply for its own.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from conftest import Core
from cymemcache.core import replies
from wire import PATIENCE, Server


class Pipeline(asyncio.BufferedProtocol):
    """Any number of commands under way at once; replies come in the order of the requests."""

    def __init__(self, core: Core) -> None:
        self.parser = core.ReplyParser()
        self.waiting: deque[tuple[asyncio.Future[Any], int, bytes, Any, Any]] = deque()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def call(self, kind: int, request: bytes, keys: Any = None, default: Any = None) -> Any:
        future = asyncio.get_running_loop().create_future()
        self.waiting.append((future, kind, request, keys, default))
        self.transport.write(request)
        return future

    def get_buffer(self, sizehint: int) -> Any:
        return self.parser.get_buffer(sizehint)

    def buffer_updated(self, nbytes: int) -> None:
        self.parser.buffer_updated(nbytes)
        while self.waiting:
            result = self.parser.parse(*self.waiting[0][1:])
            if result is replies.NEED_DATA:
                break
            self.waiting.popleft()[0].set_result(result)


def converse(core: Core, server: Server, conversation: Any) -> Any:
    async def main() -> Any:
        loop = asyncio.get_running_loop()
        transport, pipeline = await loop.create_connection(lambda: Pipeline(core), *server.address)
        try:
            async with asyncio.timeout(PATIENCE):
                return await conversation(pipeline)
        finally:
            transport.close()
            assert not pipeline.waiting
            assert not pipeline.parser.pending

    return asyncio.run(main())


def value(number: int) -> bytes:
    return b"%d:" % number + b"x" * (number * 37 % 5000 if number % 100 else 200_000)


def test_a_thousand_pipelined_gets(core: Core, server: Server) -> None:
    requests = core.Requests()

    async def conversation(pipeline: Pipeline) -> None:
        stored = [
            pipeline.call(replies.STORE, requests.store(b"set", f"k{n}", value(n), 0, False))
            for n in range(0, 1000, 2)
        ]
        found = [
            pipeline.call(replies.GET, requests.get(f"k{n}"), f"k{n}", "miss") for n in range(1000)
        ]
        assert len(pipeline.waiting) == 1500  # nothing was read in between
        assert await asyncio.gather(*stored) == [True] * 500
        expected = [value(n) if n % 2 == 0 else "miss" for n in range(1000)]
        assert await asyncio.gather(*found) == expected

    converse(core, server, conversation)


def test_pipelined_batches_with_an_error_among_them(core: Core, server: Server) -> None:
    requests = core.Requests()
    batches = [{f"b{b}-{n}": b"%d-%d" % (b, n) for n in range(100)} for b in range(50)]
    batches[25]["b25-50"] = b"x" * (2 << 20)

    async def conversation(pipeline: Pipeline) -> None:
        stored, found = [], []
        for batch in batches:
            request = requests.store_many(b"set", list(batch.items()), 0, False)
            stored.append(pipeline.call(replies.STORE_MANY, request, list(batch)))
            keys = list(batch)[::-1]
            request = requests.get_many(keys)
            found.append(pipeline.call(replies.GET_MANY, request, keys))
        results = await asyncio.gather(*stored)
        assert isinstance(results[25], replies.PartialFailure)
        assert results[25].result == ["b25-50"]
        del results[25]
        assert results == [[]] * 49
        del batches[25]["b25-50"]
        assert await asyncio.gather(*found) == batches

    converse(core, server, conversation)


def test_pipelined_commands_of_every_kind(core: Core, server: Server) -> None:
    requests = core.Requests()

    async def conversation(pipeline: Pipeline) -> None:
        results = []
        for number in range(200):
            key = f"n{number}"
            results += [
                pipeline.call(replies.DELETE, requests.delete(key, False)),
                pipeline.call(replies.ARITHMETIC, requests.incr(key, 1, False)),
                pipeline.call(replies.STORE, requests.store(b"add", key, b"%d" % number, 0, False)),
                pipeline.call(replies.ARITHMETIC, requests.incr(key, 5, False)),
                pipeline.call(replies.TOUCH, requests.touch(key, 100, False)),
                pipeline.call(replies.GET, requests.gat(key, 100), key),
            ]
        version = await pipeline.call(replies.VERSION, requests.version())
        assert version[:1].isdigit()
        expected: list[Any] = []
        for number in range(200):
            expected += [False, None, True, number + 5, True, b"%d" % (number + 5)]
        assert await asyncio.gather(*results) == expected

    converse(core, server, conversation)
