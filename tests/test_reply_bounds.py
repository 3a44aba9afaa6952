"""No reply of any kind is without end: the parser raises before it has kept more than its bound.

Each kind has a row here, with what a hostile server sends again and again, and how many bytes of it
may arrive before the parser has given up.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from itertools import count
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cymemcache.core import parser_c, parser_py, replies
from cymemcache.core.replies import NEED_DATA
from cymemcache.exceptions import MemcacheError, MemcacheUnknownError

LIMIT = 1 << 16  # of a value
STATISTICS = 1 << 18  # what they may take, in these tests
LINE = replies.MAX_LINE_LENGTH
RECEIVED = 1 << 16  # what may arrive at once: the parser has seen nothing of it before
MANY = b"gets a b c\r\n"
KEYS = ["a", "b", "c"]


class Endless(NamedTuple):
    """A reply that does not end: `begin`, and then `again` with a number in the place of "#"."""

    kind: int
    request: bytes
    keys: Any
    begin: bytes
    again: bytes
    most: int


BIG = b"x" * LIMIT
ONE_LINE = (
    *(replies.STORE, replies.CAS, replies.DELETE, replies.ARITHMETIC, replies.TOUCH, replies.OK),
    *(replies.VERSION, replies.LINE, replies.STORE_MANY, replies.DELETE_MANY, replies.GET),
    *(
        replies.STATS,
        replies.METADUMP,
        replies.CONFIG,
        replies.BARRIER,
        replies.DRAIN,
        replies.WRITES,
    ),
)
ENDLESS = [
    # A line that does not end, wherever there is a line.
    *(Endless(kind, b"get a\r\n", KEYS, b"VALUE ", b"x", LINE) for kind in ONE_LINE),
    *(Endless(kind, b"get a\r\n", KEYS, b"", b"ERROR ", LINE) for kind in ONE_LINE),
    Endless(replies.VERSION, b"version\r\n", None, b"VERSION ", b"1", LINE),
    Endless(replies.RAW, b"x\r\n", b"END\r\n", b"SERVER_ERROR ", b"x", LINE),
    # More values than were asked for.
    Endless(replies.GET, b"get a\r\n", "a", b"", b"VALUE a 0 1\r\nx\r\n", 100),
    Endless(replies.GET, b"get a\r\n", "a", b"", b"VALUE a# 0 1\r\nx\r\n", 100),
    Endless(replies.GETS, b"gets a\r\n", "a", b"", b"VALUE a 0 1 7\r\nx\r\n", 100),
    Endless(replies.GET_MANY, MANY, KEYS, b"", b"VALUE b 0 1\r\nx\r\n", 100),
    Endless(replies.GET_MANY, MANY, KEYS, b"", b"VALUE # 0 1\r\nx\r\n", 100),
    Endless(replies.GETS_MANY, MANY, KEYS, b"", b"VALUE c 0 1 7\r\nx\r\n", 100),
    Endless(replies.GET_MANY, MANY, KEYS, b"", b"VALUE a 0 %d\r\n%b\r\n" % (LIMIT, BIG), 3 * LIMIT),
    # A value that is longer than it may be.
    Endless(replies.GET, b"get a\r\n", "a", b"VALUE a 0 99999999\r\n", b"x", LIMIT),
    Endless(replies.CONFIG, b"config get x\r\n", None, b"CONFIG x 0 99999\r\n", b"x", LIMIT),
    # Any number of lines.
    Endless(replies.STATS, b"stats\r\n", None, b"", b"STAT # 1\r\n", STATISTICS),
    Endless(
        *(replies.STATS, b"stats\r\n", None, b""),
        *(b"ITEM #" + b"i" * 60_000 + b" 1\r\n", STATISTICS),
    ),
    Endless(
        *(replies.STATS, b"stats\r\n", None, b""),
        *(b"PREFIX same " + b"p" * 60_000 + b"\r\n", STATISTICS),
    ),
    Endless(replies.METADUMP, b"lru_crawler\r\n", None, b"", b"key=#\n", LIMIT),
    Endless(replies.METADUMP, b"lru_crawler\r\n", None, b"", b"mg " + b"k" * 60_000 + b"\n", LIMIT),
    Endless(replies.CONFIG, b"config get x\r\n", None, b"", b"CONFIG x 0 1\r\nx\r\n", LIMIT),
    Endless(replies.RAW, b"lru_crawler metadump all\r\n", b"END\r\n", b"", b"key=#\n", LIMIT),
]
# Answers to noreply commands: of them nothing is kept but errors, up to a number.
ANSWERS = [b"STORED\r\n", b"NOT_FOUND\r\n", b"SERVER_ERROR out of memory\r\n", b"ERROR\r\n"]


@pytest.fixture(autouse=True)
def low_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replies, "MAX_STATS_SIZE", STATISTICS)
    monkeypatch.setattr(replies, "MAX_NOREPLY_ERRORS", 200)


def arriving(endless: Endless, size: int = 4000) -> Iterator[bytes]:
    """What arrives at once, again and again: about `size` bytes."""
    yield endless.begin
    number = count()
    while True:
        times = 1 + size // len(endless.again)
        yield b"".join(endless.again.replace(b"#", b"%d" % next(number)) for _ in range(times))


@pytest.mark.parametrize("endless", ENDLESS, ids=lambda one: f"{one.kind}-{one.again[:10]!r}")
def test_a_reply_without_end_is_given_up(core: Any, endless: Endless) -> None:
    parser = core.ReplyParser(max_value_size=LIMIT)
    arrived = 0
    with pytest.raises(MemcacheError) as caught:  # noqa: PT012 - whenever it comes
        for data in arriving(endless):
            arrived += len(data)
            parser.feed(data)
            parser.parse(endless.kind, endless.request, endless.keys)
            assert arrived <= endless.most + RECEIVED + len(endless.begin)
    assert caught.type is MemcacheUnknownError


def test_every_kind_of_reply_is_tried() -> None:
    assert {endless.kind for endless in ENDLESS} == {*range(replies.GET, replies.WRITES + 1)}


@pytest.mark.parametrize("answer", ANSWERS, ids=str)
@pytest.mark.parametrize("kind", [replies.BARRIER, replies.DRAIN])
def test_endless_answers_to_noreply_commands_take_no_memory(
    core: Any, kind: int, answer: bytes
) -> None:
    parser = core.ReplyParser()
    lines = answer * 500
    for _ in range(2):  # what is kept has been kept then
        parser.feed(lines)
        parser.parse(kind, b"version\r\n")
    tracemalloc.start()
    try:
        for _ in range(20):
            parser.feed(lines)
            parser.parse(kind, b"version\r\n")
        assert tracemalloc.get_traced_memory()[0] < 10_000
    finally:
        tracemalloc.stop()
    if kind == replies.BARRIER:
        parser.feed(b"VERSION 1\r\n")
        assert len(parser.parse(kind, b"version\r\n")) in (0, 200)


_words = st.sampled_from(
    [
        *(b"STAT ", b"ITEM ", b"PREFIX ", b"key=", b"mg ", b"CONFIG x 0 9", b"VALUE a 0 3"),
        *(b"VALUE # ", b"OK", b"STORED", b"NOT_FOUND", b"ERROR", b"SERVER_ERROR ", b"#", b" "),
        *(b"x", b"x" * 9000, b"\r\n", b"\n"),
    ]
)


@settings(max_examples=150, deadline=None)
@given(
    kind=st.integers(replies.GET, replies.DRAIN - 2),
    again=st.lists(_words, min_size=1, max_size=8).map(b"".join),
    decode=st.sampled_from([replies.DECODE_RAW, replies.DECODE_STOCK, replies.DECODE_LATER]),
)
def test_no_stream_makes_a_parser_keep_more_than_its_bound(
    kind: int, again: bytes, decode: int
) -> None:
    """Of any bytes, repeated without end, both twins make a result or an error in time."""
    keys: Any = KEYS
    if kind in (replies.GET, replies.GETS):
        keys = "a"
    elif kind == replies.RAW:
        keys = b"END\r\n"
    request = MANY if keys is KEYS else b"get a\r\n"
    ends = []
    for twin in (parser_c, parser_py):
        parser = twin.ReplyParser(decode, LIMIT)
        arrived = 0
        result: Any = NEED_DATA
        try:
            for data in arriving(Endless(kind, request, keys, b"", again, 0), 30_000):
                arrived += len(data)
                parser.feed(data)
                result = parser.parse(kind, request, keys)
                if result is not NEED_DATA:
                    break
                assert arrived <= 3 * LIMIT + STATISTICS + RECEIVED
        except MemcacheError as error:
            result = error
        ends.append((type(result), str(result)))
    assert ends[0] == ends[1]
