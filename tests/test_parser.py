"""The reply parser, both twins: results, errors, and that cuts between receives do not matter."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cymemcache.core import parser_c, parser_py, replies
from cymemcache.core.replies import NEED_DATA, PartialFailure, Undecoded
from cymemcache.exceptions import (
    MemcacheClientError,
    MemcacheError,
    MemcacheServerError,
    MemcacheUnknownCommandError,
    MemcacheUnknownError,
    MemcacheValueTooLargeError,
)

MISS = object()


def feed(parser: Any, data: bytes) -> None:
    """Hand `data` over as a socket would: never more at once than the parser has room for."""
    while data:
        with memoryview(parser.get_buffer()) as view:
            count = min(len(view), len(data))
            view[:count] = data[:count]
        parser.buffer_updated(count)
        data = data[count:]


def comparable(result: Any) -> Any:
    """`result` in a form that `==` can compare between twins."""
    if isinstance(result, MemcacheError):
        return type(result), str(result)
    if isinstance(result, Undecoded):
        return "undecoded", result.result, result.items
    if isinstance(result, PartialFailure):
        return "partial", result.result, comparable(result.error)
    if isinstance(result, dict):
        return "dict", [(type(key), key, value) for key, value in result.items()]
    if isinstance(result, list):  # of a barrier's errors, or of keys or lines
        return "list", [comparable(one) for one in result]
    return type(result), result


def run(parser: Any, chunks: list[bytes], *arguments: Any) -> Any:
    """The outcome of one reply that comes in `chunks`: its result, or the error that it raised."""
    result: Any = NEED_DATA
    try:
        for chunk in chunks:
            feed(parser, chunk)
            if result is NEED_DATA:
                result = parser.parse(*arguments)
    except (MemcacheError, ValueError) as error:
        return "raised", type(error), str(error)
    return comparable(result), parser.pending


MANY = b"get a b c\r\n"
# Kind, request, keys, reply, result.
REPLIES: list[tuple[int, bytes, Any, bytes, Any]] = [
    (replies.STORE, b"set k 0 0 1\r\nv\r\n", None, b"STORED\r\n", True),
    (replies.STORE, b"add k 0 0 1\r\nv\r\n", None, b"NOT_STORED\r\n", False),
    (replies.CAS, b"cas k 0 0 1 7\r\nv\r\n", None, b"STORED\r\n", True),
    (replies.CAS, b"cas k 0 0 1 7\r\nv\r\n", None, b"EXISTS\r\n", False),
    (replies.CAS, b"cas k 0 0 1 7\r\nv\r\n", None, b"NOT_STORED\r\n", False),
    (replies.CAS, b"cas k 0 0 1 7\r\nv\r\n", None, b"NOT_FOUND\r\n", None),
    (replies.DELETE, b"delete k\r\n", None, b"DELETED\r\n", True),
    (replies.DELETE, b"delete k\r\n", None, b"NOT_FOUND\r\n", False),
    (replies.TOUCH, b"touch k 1\r\n", None, b"TOUCHED\r\n", True),
    (replies.TOUCH, b"touch k 1\r\n", None, b"NOT_FOUND\r\n", False),
    (replies.ARITHMETIC, b"incr k 1\r\n", None, b"18446744073709551615\r\n", 2**64 - 1),
    (replies.ARITHMETIC, b"incr k 1\r\n", None, b"0\r\n", 0),
    (replies.ARITHMETIC, b"decr k 1\r\n", None, b"NOT_FOUND\r\n", None),
    (replies.OK, b"flush_all\r\n", None, b"OK\r\n", True),
    (replies.VERSION, b"version\r\n", None, b"VERSION 1.6.18\r\n", b"1.6.18"),
    (replies.LINE, b"touch k 1\r\n", None, b"ANY THING\r\n", b"ANY THING"),
    (replies.GET, b"get k\r\n", "k", b"END\r\n", MISS),
    (replies.GET, b"get k\r\n", "k", b"VALUE k 0 5\r\nhello\r\nEND\r\n", b"hello"),
    (replies.GET, b"get k\r\n", "k", b"VALUE k 0 0\r\n\r\nEND\r\n", b""),
    (replies.GET, b"get k\r\n", "k", b"VALUE k 4294967295 2\r\n\r\n\r\nEND\r\n", b"\r\n"),
    (replies.GET, b"gat 9 k\r\n", "k", b"VALUE k 0 1\r\nx\r\nEND\r\n", b"x"),
    (replies.GETS, b"gets k\r\n", "k", b"END\r\n", MISS),
    (
        replies.GETS,
        b"gets k\r\n",
        "k",
        b"VALUE k 0 1 18446744073709551615\r\nx\r\nEND\r\n",
        (b"x", b"18446744073709551615"),
    ),
    (replies.GETS, b"gats 0 k\r\n", "k", b"VALUE k 0 1 1\r\nx\r\nEND\r\n", (b"x", b"1")),
    (replies.GET_MANY, MANY, ["a", b"b", "c"], b"END\r\n", {}),
    (
        replies.GET_MANY,
        MANY,
        ["a", b"b", "c"],
        b"VALUE a 0 1\r\n1\r\nVALUE c 0 2\r\nEN\r\nEND\r\n",
        {"a": b"1", "c": b"EN"},
    ),
    (  # out of order, as twemproxy answers
        replies.GET_MANY,
        MANY,
        ["a", b"b", "c"],
        b"VALUE c 0 1\r\n3\r\nVALUE a 0 1\r\n1\r\nVALUE b 0 1\r\n2\r\nEND\r\n",
        {"c": b"3", "a": b"1", b"b": b"2"},
    ),
    (  # asked for twice, as str and as bytes
        replies.GET_MANY,
        b"get a b a\r\n",
        ["a", "b", b"a"],
        b"VALUE a 0 1\r\n1\r\nVALUE a 0 1\r\n1\r\nVALUE b 0 1\r\n2\r\nEND\r\n",
        {"a": b"1", b"a": b"1", "b": b"2"},
    ),
    (  # a request of two lines
        replies.GETS_MANY,
        b"gets a b\r\ngets c\r\n",
        ["a", "b", "c"],
        b"VALUE b 0 1 5\r\n2\r\nEND\r\nVALUE c 0 1 6\r\n3\r\nEND\r\n",
        {"b": (b"2", b"5"), "c": (b"3", b"6")},
    ),
    (replies.STORE_MANY, b"set...", ["a", "b"], b"STORED\r\nSTORED\r\n", []),
    (replies.STORE_MANY, b"set...", ["a", "b"], b"NOT_STORED\r\nSTORED\r\n", ["a"]),
    (replies.DELETE_MANY, b"delete...", ["a", "b"], b"NOT_FOUND\r\nDELETED\r\n", True),
    (replies.STATS, b"stats\r\n", None, b"END\r\n", {}),
    (replies.STATS, b"stats reset\r\n", None, b"RESET\r\n", {}),
    (replies.STATS, b"stats detail on\r\n", None, b"OK\r\n", {}),
    (
        replies.STATS,
        b"stats\r\n",
        None,
        b"STAT pid 1\r\nSTAT empty \r\nSTAT two words\there\r\nEND\r\n",
        {b"pid": b"1", b"empty": b"", b"two": b"words\there"},
    ),
    (
        replies.STATS,
        b"stats cachedump 1 1\r\n",
        None,
        b"ITEM k [1 b; 0 s]\r\nEND\r\n",
        {b"k": b"[1 b; 0 s]"},
    ),
    (
        replies.STATS,
        b"stats detail dump\r\n",
        None,
        b"PREFIX p get 1 hit 0 set 0 del 0\r\nEND\r\n",
        {b"p": b"get 1 hit 0 set 0 del 0"},
    ),
    (
        replies.METADUMP,
        b"lru_crawler metadump all\r\n",
        None,
        b"key=a exp=-1\nkey=b exp=-1\nEND\r\n",
        [b"key=a exp=-1", b"key=b exp=-1"],
    ),
    (
        replies.METADUMP,
        b"lru_crawler metadump all\r\n",
        None,
        b"key=a exp=-1\r\nEND\r\n",
        [b"key=a exp=-1"],
    ),
    (replies.METADUMP, b"lru_crawler mgdump all\r\n", None, b"mg a\r\nEN\r\n", [b"mg a"]),
    (  # as memcached 1.6.45 answers
        replies.METADUMP,
        b"lru_crawler metadump all\r\n",
        None,
        b"OK\r\nkey=a exp=-1\r\nEND\r\n",
        [b"key=a exp=-1"],
    ),
    (replies.METADUMP, b"lru_crawler metadump all\r\n", None, b"OK\r\nEND\r\n", []),
    (
        replies.CONFIG,
        b"config get cluster\r\n",
        None,
        b"CONFIG cluster 0 17\r\n12\nhost|ip|11211\n\r\nEND\r\n",
        b"12\nhost|ip|11211\n",
    ),
    (replies.CONFIG, b"config get cluster\r\n", None, b"END\r\n", None),
    (replies.RAW, b"stats\r\n", b"END\r\n", b"STAT a 1\r\nEND\r\n", b"STAT a 1\r\n"),
    (replies.RAW, b"stats\r\n", b"\r\nEND\r\n", b"STAT a 1\r\nEND\r\n", b"STAT a 1"),
    (replies.RAW, b"slabs reassign 1 1\r\n", b"\r\n", b"SAME src\r\n", b"SAME src"),
    (replies.BARRIER, b"x", None, b"STORED\r\nVERSION 1\r\n", []),
    (replies.WRITES, b"set k 0 0 1\r\n1\r\n", range(2), b"STORED\r\nNOT_STORED\r\n", []),
    (replies.WRITES, b"cas k 0 0 1 1\r\n1\r\n", range(2), b"EXISTS\r\nNOT_FOUND\r\n", []),
    (replies.WRITES, b"delete k\r\n", range(1), b"DELETED\r\n", []),
    (replies.WRITES, b"touch k 1\r\n", range(1), b"TOUCHED\r\n", []),
    (replies.WRITES, b"incr k 1\r\n", range(1), b"18446744073709551615\r\n", []),
    (replies.WRITES, b"flush_all 0\r\n", range(1), b"OK\r\n", []),
]
IDS = [f"{number}-{case[1].split()[0].decode()}" for number, case in enumerate(REPLIES)]


@pytest.mark.parametrize(("kind", "request_", "keys", "reply", "expected"), REPLIES, ids=IDS)
def test_every_reply_cut_at_every_byte(
    core: Any, kind: int, request_: bytes, keys: Any, reply: bytes, expected: Any
) -> None:
    arguments = (kind, request_, keys, MISS)
    for cut in range(len(reply) + 1):
        parser = core.ReplyParser()
        outcome = run(parser, [reply[:cut], reply[cut:]], *arguments)
        assert outcome == (comparable(expected), 0), f"cut at byte {cut}"


@pytest.mark.parametrize(("kind", "request_", "keys", "reply", "expected"), REPLIES, ids=IDS)
def test_every_reply_byte_by_byte_then_another_one(
    core: Any, kind: int, request_: bytes, keys: Any, reply: bytes, expected: Any
) -> None:
    parser = core.ReplyParser()
    chunks = [reply[at : at + 1] for at in range(len(reply))]
    assert run(parser, chunks, kind, request_, keys, MISS) == (comparable(expected), 0)
    assert run(parser, [b"VERSION 9\r\n"], replies.VERSION, b"version\r\n") == ((bytes, b"9"), 0)


@pytest.mark.parametrize(("kind", "request_", "keys", "reply", "expected"), REPLIES, ids=IDS)
def test_an_incomplete_reply_needs_data(
    core: Any, kind: int, request_: bytes, keys: Any, reply: bytes, expected: Any
) -> None:
    for cut in range(len(reply)):
        parser = core.ReplyParser()
        feed(parser, reply[:cut])
        assert parser.parse(kind, request_, keys, MISS) is NEED_DATA, f"cut at byte {cut}"


def test_what_follows_a_reply_stays_pending(core: Any) -> None:
    parser = core.ReplyParser()
    feed(parser, b"STORED\r\nEND\r\n")
    assert parser.parse(replies.STORE, b"set\r\n") is True
    assert parser.pending == 5
    assert parser.parse(replies.GET, b"get k\r\n", "k", MISS) is MISS
    assert parser.pending == 0


ONE_LINE_KINDS = [
    replies.DELETE,
    replies.TOUCH,
    replies.ARITHMETIC,
    replies.OK,
    replies.VERSION,
    replies.STATS,
    replies.METADUMP,
    replies.CONFIG,
    replies.LINE,
]


@pytest.mark.parametrize("kind", ONE_LINE_KINDS)
def test_an_error_line_in_place_of_a_reply_is_returned(core: Any, kind: int) -> None:
    for line, error_type, text in [
        (b"CLIENT_ERROR bad data\r\n", MemcacheClientError, "bad data"),
        (b"SERVER_ERROR out of memory\r\n", MemcacheServerError, "out of memory"),
        (b"ERROR\r\n", MemcacheUnknownCommandError, "'verb'"),
        # A colon behind the word, as `shutdown` is answered since memcached 1.6.40.
        (b"SERVER_ERROR: not enabled\r\n", MemcacheServerError, "not enabled"),
        (b"CLIENT_ERROR: bad data\r\n", MemcacheClientError, "bad data"),
        (b"ERROR: not enabled\r\n", MemcacheUnknownCommandError, "not enabled"),
        (b"SERVER_ERROR:\r\n", MemcacheServerError, ""),
    ]:
        parser = core.ReplyParser()
        feed(parser, line)
        error = parser.parse(kind, b"verb x\r\n")
        assert type(error) is error_type
        assert text in str(error)


@pytest.mark.parametrize("name", [b"other", b"cluste", b"clusters", b"Cluster", b""])
def test_a_configuration_under_another_name_is_no_answer(core: Any, name: bytes) -> None:
    parser = core.ReplyParser()
    feed(parser, b"CONFIG %b 0 17\r\n12\nhost|ip|11211\n\r\nEND\r\n" % name)
    with pytest.raises(MemcacheUnknownError, match="CONFIG"):
        parser.parse(replies.CONFIG, b"config get cluster\r\n")


@pytest.mark.parametrize("kind", ONE_LINE_KINDS)
def test_an_error_with_a_reason_keeps_its_text_and_ends_the_stream(core: Any, kind: int) -> None:
    parser = core.ReplyParser()
    feed(parser, b"ERROR Too many open connections\r\n")
    with pytest.raises(MemcacheServerError, match=r"^Too many open connections$"):
        parser.parse(kind, b"verb\r\n")


@pytest.mark.parametrize("kind", [replies.STORE, replies.CAS])
def test_only_a_server_error_leaves_a_storage_command_in_step(core: Any, kind: int) -> None:
    parser = core.ReplyParser()
    feed(parser, b"SERVER_ERROR object too large for cache\r\n")
    error = parser.parse(kind, b"set k 0 0 1\r\n")
    assert type(error) is MemcacheValueTooLargeError
    assert (error.key, error.size) == (b"k", 1)
    assert "-I" in str(error)
    for line in (b"CLIENT_ERROR bad data chunk\r\n", b"ERROR\r\n"):
        parser = core.ReplyParser()
        feed(parser, line)
        with pytest.raises(MemcacheClientError):
            parser.parse(kind, b"set k 0 0 1\r\n")


@pytest.mark.parametrize("kind", [replies.GET, replies.GETS, replies.GET_MANY, replies.GETS_MANY])
@pytest.mark.parametrize(
    "line", [b"SERVER_ERROR x", b"CLIENT_ERROR x", b"ERROR", b"SERVER_ERROR: x", b"CLIENT_ERROR: x"]
)
def test_an_error_line_in_a_fetch_is_raised(core: Any, kind: int, line: bytes) -> None:
    parser = core.ReplyParser()
    feed(parser, line + b"\r\n")
    keys: Any = ["k"] if kind in (replies.GET_MANY, replies.GETS_MANY) else "k"
    with pytest.raises((MemcacheServerError, MemcacheClientError)):
        parser.parse(kind, b"get k\r\n", keys, MISS)
    with pytest.raises(MemcacheUnknownError, match="given up"):
        parser.parse(kind, b"get k\r\n", keys, MISS)


# What has come of a reply, in each kind, before the server gives up on it.
BEGUN: list[tuple[int, bytes, Any, bytes]] = [
    (replies.GET, b"get k\r\n", "k", b"VALUE k 0 1\r\nx\r\n"),
    (replies.GETS, b"gets k\r\n", "k", b"VALUE k 0 1 7\r\nx\r\n"),
    (replies.GET_MANY, MANY, ["a", "b", "c"], b"VALUE a 0 1\r\nx\r\n"),
    (replies.GETS_MANY, MANY, ["a", "b", "c"], b"VALUE c 0 1 7\r\nx\r\n"),
    (replies.STATS, b"stats\r\n", None, b"STAT pid 1\r\n"),
    (replies.METADUMP, b"lru_crawler metadump all\r\n", None, b"key=a exp=-1\n"),
    (replies.CONFIG, b"config get cluster\r\n", None, b"CONFIG cluster 0 1\r\nx\r\n"),
]
ERROR_LINES = [
    (b"SERVER_ERROR out of memory\r\n", MemcacheServerError),
    (b"CLIENT_ERROR bad data\r\n", MemcacheClientError),
    (b"ERROR\r\n", MemcacheUnknownCommandError),
    (b"ERROR Too many open connections\r\n", MemcacheServerError),
]


@pytest.mark.parametrize(("line", "error"), ERROR_LINES, ids=lambda one: str(one)[:24])
@pytest.mark.parametrize(("kind", "request_", "keys", "begun"), BEGUN, ids=lambda one: str(one)[:9])
def test_an_error_in_the_middle_of_a_reply_is_raised_wherever_it_is_cut(
    core: Any, kind: int, request_: bytes, keys: Any, begun: bytes, line: bytes, error: type
) -> None:
    reply = begun + line
    for cut in range(len(reply) + 1):
        parser = core.ReplyParser()
        outcome = run(parser, [reply[:cut], reply[cut:]], kind, request_, keys, MISS)
        assert outcome[:2] == ("raised", error), f"cut at byte {cut}"


@pytest.mark.parametrize(("line", "error"), ERROR_LINES[:3], ids=lambda one: str(one)[:24])
@pytest.mark.parametrize("kind", ONE_LINE_KINDS)
def test_an_error_line_cut_at_every_byte(core: Any, kind: int, line: bytes, error: type) -> None:
    for cut in range(len(line) + 1):
        parser = core.ReplyParser()
        outcome, pending = run(parser, [line[:cut], line[cut:]], kind, b"verb\r\n")
        assert outcome[0] is error, f"cut at byte {cut}"
        assert pending == 0


@pytest.mark.parametrize("kind", [replies.STORE_MANY, replies.DELETE_MANY])
def test_a_batch_with_errors_in_it_cut_at_every_byte(core: Any, kind: int) -> None:
    done = b"STORED\r\n" if kind == replies.STORE_MANY else b"DELETED\r\n"
    reply = done + b"SERVER_ERROR first\r\n" + done + b"SERVER_ERROR second\r\n"
    failed = ["b", "d"] if kind == replies.STORE_MANY else True
    for cut in range(len(reply) + 1):
        outcome = run(
            core.ReplyParser(), [reply[:cut], reply[cut:]], kind, b"...", ["a", "b", "c", "d"]
        )
        assert outcome == (("partial", failed, (MemcacheServerError, "first")), 0), f"at byte {cut}"


@pytest.mark.parametrize(
    ("kind", "request_", "head"),
    [
        (replies.GETS, b"gets k\r\n", b"VALUE k 0 %d 7"),
        (replies.CONFIG, b"config get k\r\n", b"CONFIG k 0 %d"),
    ],
)
def test_a_large_value_cut_at_every_byte_around_its_ends(
    core: Any, kind: int, request_: bytes, head: bytes
) -> None:
    value = bytes(range(251)) * 200
    line = head % len(value) + b"\r\n"
    reply = line + value + b"\r\nEND\r\n"
    expected = (value, b"7") if kind == replies.GETS else value
    for cut in [*range(len(line) + 3), *range(len(line) + len(value) - 3, len(reply) + 1)]:
        outcome = run(core.ReplyParser(), [reply[:cut], reply[cut:]], kind, request_, "k")
        assert outcome == (comparable(expected), 0), f"cut at byte {cut}"


def test_a_failed_item_does_not_take_the_batch_with_it(core: Any) -> None:
    parser = core.ReplyParser()
    feed(parser, b"STORED\r\nSERVER_ERROR out of memory storing object\r\nNOT_STORED\r\n")
    outcome = parser.parse(replies.STORE_MANY, b"set...", ["a", "b", "c"])
    assert type(outcome) is PartialFailure
    assert outcome.result == ["b", "c"]
    assert type(outcome.error) is MemcacheServerError


def test_refusals_of_the_slab_and_lru_commands(core: Any) -> None:
    for kind in (replies.OK, replies.METADUMP):
        parser = core.ReplyParser()
        feed(parser, b"BUSY currently processing crawler request\r\n")
        error = parser.parse(kind, b"lru_crawler crawl all\r\n")
        assert type(error) is MemcacheServerError
        assert str(error).startswith("BUSY")
        feed(parser, b"NOTSTARTED no items to crawl\r\n")
        assert str(parser.parse(kind, b"lru_crawler crawl ,\r\n")) == "NOTSTARTED no items to crawl"


@pytest.mark.parametrize("word", replies.REFUSALS)
@pytest.mark.parametrize("step", [1, 100])
def test_a_refusal_is_the_whole_raw_reply(core: Any, word: bytes, step: int) -> None:
    line = word + b" for a reason\r\n"
    pieces = [line[start : start + step] for start in range(0, len(line), step)]
    for end_token in (b"END\r\n", b"\r\nEND\r\n", b"nothing of it"):
        parser = core.ReplyParser(replies.DECODE_RAW, 5)  # a limit that is for values
        outcome = run(parser, pieces, replies.RAW, b"lru_crawler metadump 999\r\n", end_token)
        assert outcome == ((MemcacheServerError, line[:-2].decode()), 0)


@pytest.mark.parametrize("step", [1 << 20, 1 << 12])
def test_what_begins_like_a_refusal_is_no_longer_than_a_line_in_pieces_and_whole(
    core: Any, step: int
) -> None:
    reply = b"UNSAFE" + b"#" * replies.MAX_LINE_LENGTH + b"end"
    pieces = [reply[start : start + step] for start in range(0, len(reply), step)]
    parser = core.ReplyParser()
    told, error, text = run(parser, pieces, replies.RAW, b"anything\r\n", b"end")
    assert (told, error) == ("raised", MemcacheUnknownError)
    assert text.startswith("not a legal reply")


def test_a_dump_that_ends_with_a_refusal_or_ok_is_no_dump(core: Any) -> None:
    for line in (b"OK\r\n", b"BUSY x\r\n"):
        parser = core.ReplyParser()
        feed(parser, b"key=a exp=-1\r\n" + line)
        with pytest.raises(MemcacheUnknownError, match="not a legal reply"):
            parser.parse(replies.METADUMP, b"lru_crawler metadump all\r\n")


def test_refused_memory_limits_keep_the_connection(core: Any) -> None:
    for text in ("MEMLIMIT_TOO_SMALL cannot set", "MEMLIMIT_ADJUST_FAILED failed to"):
        parser = core.ReplyParser()
        feed(parser, text.encode() + b"\r\nOK\r\n")
        error = parser.parse(replies.OK, b"cache_memlimit 1\r\n")
        assert type(error) is MemcacheServerError
        assert str(error) == text
        assert parser.parse(replies.OK, b"cache_memlimit 100\r\n") is True


def test_a_command_that_is_turned_off_keeps_the_connection_and_its_text(core: Any) -> None:
    parser = core.ReplyParser()
    feed(parser, b"ERROR: shutdown not enabled\r\nOK\r\n")
    error = parser.parse(replies.LINE, b"shutdown\r\n")
    assert type(error) is MemcacheUnknownCommandError
    assert str(error) == "shutdown not enabled"
    assert parser.parse(replies.OK, b"flush_all 0\r\n") is True


ILLEGAL_FETCHES = [
    b"VALUE other 0 1\r\nx\r\nEND\r\n",  # never asked for
    b"VALUE k 0 1\r\nx\r\nVALUE k 0 1\r\ny\r\nEND\r\n",  # twice
    b"VALUE k 0 1\r\nxx\r\nEND\r\n",  # longer than announced
    b"VALUE k 0 3\r\nx\r\nEND\r\n",  # shorter than announced
    b"VALUE k 0 -1\r\nx\r\nEND\r\n",
    b"VALUE k 0 99999999999999999999\r\nx\r\nEND\r\n",
    b"VALUE k 0 2147483648\r\nx\r\nEND\r\n",
    b"VALUE k 0 1_0\r\nxxxxxxxxxx\r\nEND\r\n",
    b"VALUE k 0 +1\r\nx\r\nEND\r\n",
    b"VALUE k 0  1\r\nx\r\nEND\r\n",
    b"VALUE k 0 1 \r\nx\r\nEND\r\n",
    b"VALUE k 0 1 5\r\nx\r\nEND\r\n",  # a cas token that nobody asked for
    b"VALUE k -1 1\r\nx\r\nEND\r\n",
    b"VALUE k 4294967296 1\r\nx\r\nEND\r\n",
    b"VALUE k 0\r\nx\r\nEND\r\n",
    b"VALUE  0 1\r\nx\r\nEND\r\n",
    b"VALUE \r\n",
    b"VALUE k 0 1\nx\r\nEND\r\n",
    b"END\n",
    b"end\r\n",
    b"\r\n",
    b"STORED\r\n",
    b"VALUE kk 0 1\r\nx\r\nEND\r\n",
    b"x" * 70_000,
]


@pytest.mark.parametrize("reply", ILLEGAL_FETCHES, ids=lambda reply: repr(reply[:40]))
@pytest.mark.parametrize("kind", [replies.GET, replies.GET_MANY])
def test_an_illegal_reply_to_a_fetch_is_a_protocol_error(
    core: Any, kind: int, reply: bytes
) -> None:
    keys: Any = "k" if kind == replies.GET else ["k"]
    for cut in range(min(len(reply), 60)):
        parser = core.ReplyParser()
        outcome = run(parser, [reply[:cut], reply[cut:]], kind, b"get k\r\n", keys, MISS)
        assert outcome[:2] == ("raised", MemcacheUnknownError), f"cut at byte {cut}"


@pytest.mark.parametrize(
    ("kind", "reply"),
    [
        (kind, reply)
        for kind in [*ONE_LINE_KINDS[:-1], replies.STORE, replies.CAS]
        for reply in (b"HELLO\r\n", b"\r\n", b"STOREDX\r\n", b"1x\r\n", b"HELLO\n", b"OK\n")
        if (kind, reply) != (replies.METADUMP, b"OK\n")  # a dump may have bare line ends
    ],
)
def test_an_illegal_line_is_a_protocol_error(core: Any, kind: int, reply: bytes) -> None:
    parser = core.ReplyParser()
    assert run(parser, [reply], kind, b"verb\r\n")[:2] == ("raised", MemcacheUnknownError)


def test_a_value_above_the_limit_is_a_protocol_error(core: Any) -> None:
    parser = core.ReplyParser(replies.DECODE_RAW, 10)
    feed(parser, b"VALUE k 0 10\r\n0123456789\r\nEND\r\n")
    assert parser.parse(replies.GET, b"get k\r\n", "k") == b"0123456789"
    feed(parser, b"VALUE k 0 11\r\n")
    with pytest.raises(MemcacheUnknownError, match="max_value_size"):
        parser.parse(replies.GET, b"get k\r\n", "k")


def test_a_raw_reply_without_end_stops_at_the_limit(core: Any) -> None:
    parser = core.ReplyParser(replies.DECODE_RAW, 1000)
    feed(parser, b"x" * 1004)
    assert parser.parse(replies.RAW, b"verb\r\n", b"END\r\n") is NEED_DATA
    feed(parser, b"x")
    with pytest.raises(MemcacheUnknownError, match="max_value_size"):
        parser.parse(replies.RAW, b"verb\r\n", b"END\r\n")


@pytest.mark.parametrize("size", [32_767, 32_769, 65_536, 1 << 20, (1 << 20) + 1, 5_000_000])
def test_large_values_come_whole(core: Any, size: int) -> None:
    value = bytes(range(256)) * (size // 256 + 1)
    value = value[:size]
    reply = b"VALUE k 0 %d\r\n%b\r\nEND\r\n" % (size, value)
    for step in (4096, 70_001, len(reply)):
        parser = core.ReplyParser()
        chunks = [reply[at : at + step] for at in range(0, len(reply), step)]
        result = None
        for chunk in chunks:
            feed(parser, chunk)
            result = parser.parse(replies.GET, b"get k\r\n", "k")
        assert type(result) is bytes
        assert result == value
        assert parser.pending == 0


def test_a_held_view_does_not_reach_the_value_that_was_returned(core: Any) -> None:
    """Whoever keeps the memory that get_buffer gave cannot change a bytes object with it."""
    parser = core.ReplyParser()
    size = 3_000_000
    feed(parser, b"VALUE k 0 %d\r\n" % size)
    assert parser.parse(replies.GET, b"get k\r\n", "k") is NEED_DATA
    views = []
    left = size
    while left:
        view = memoryview(parser.get_buffer())
        views.append(view)
        count = min(len(view), left)
        view[:count] = b"v" * count
        parser.buffer_updated(count)
        left -= count
    feed(parser, b"\r\nEND\r\n")
    result = parser.parse(replies.GET, b"get k\r\n", "k")
    for view in views:
        view[:] = b"!" * len(view)
    assert result == b"v" * size


def test_memory_grows_with_what_arrives_not_with_what_is_promised(core: Any) -> None:
    import tracemalloc

    parser = core.ReplyParser()
    tracemalloc.start()
    try:
        feed(parser, b"VALUE k 0 1000000000\r\n" + b"x" * 1000)
        assert parser.parse(replies.GET, b"get k\r\n", "k") is NEED_DATA
        parser.get_buffer()
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


STOCK = [
    (b"raw", 0, b"raw"),
    ("h\u00e9".encode(), 16, "h\u00e9"),
    (b"42", 2, 42),
    (b"-42", 2, -42),
    (b"9  ", 2, 9),  # memcached pads a number that it decremented
    (b"9", 4, 9),
    (b"1" * 40, 2, int("1" * 40)),
    (b"0", 2, 0),
]


@pytest.mark.parametrize(("data", "flags", "value"), STOCK)
def test_stock_values_are_decoded(core: Any, data: bytes, flags: int, value: Any) -> None:
    reply = b"VALUE k %d %d\r\n%b\r\nEND\r\n" % (flags, len(data), data)
    parser = core.ReplyParser(replies.DECODE_STOCK)
    feed(parser, reply)
    result = parser.parse(replies.GET, b"get k\r\n", "k")
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    ("data", "flags"), [(b"\x80.", 1), (b"\xff", 16), (b"nine", 2), (b"", 2), (b"x", 8), (b"x", 18)]
)
def test_what_only_the_serde_can_decode_is_left_to_it(core: Any, data: bytes, flags: int) -> None:
    reply = b"VALUE k %d %d 7\r\n%b\r\nVALUE m 0 1 8\r\nx\r\nEND\r\n" % (flags, len(data), data)
    parser = core.ReplyParser(replies.DECODE_STOCK)
    feed(parser, reply)
    result = parser.parse(replies.GETS_MANY, b"gets k m\r\n", ["k", "m"])
    assert type(result) is Undecoded
    assert result.items == [("k", data, flags)]
    assert result.result == {"k": (data, b"7"), "m": (b"x", b"8")}


def test_with_a_serde_every_value_is_left_to_it(core: Any) -> None:
    parser = core.ReplyParser(replies.DECODE_LATER)
    feed(parser, b"VALUE k 0 1\r\nx\r\nEND\r\n")
    result = parser.parse(replies.GET, b"get k\r\n", "k")
    assert type(result) is Undecoded
    assert result.items == [("k", b"x", 0)]


def test_the_keys_of_a_result_are_the_callers_own_objects(core: Any) -> None:
    class Name(str):
        pass

    keys = [Name("a"), b"b"]
    parser = core.ReplyParser()
    feed(parser, b"VALUE a 0 1\r\n1\r\nVALUE b 0 1\r\n2\r\nEND\r\n")
    result = parser.parse(replies.GET_MANY, b"get a b\r\n", keys)
    assert [key is given for key, given in zip(result, keys, strict=True)] == [True, True]


@pytest.mark.parametrize("length", [65_536, 65_537])
@pytest.mark.parametrize("cut", [None, 65_537])
def test_an_error_line_in_a_raw_reply_has_a_longest_length(
    core: Any, length: int, cut: int | None
) -> None:
    line = b"ERROR " + b"#" * (length - 6) + b"\r\n"
    parser = core.ReplyParser()
    pieces = [line] if cut is None else [line[:cut], line[cut:]]
    arguments = (replies.RAW, b"get k\r\n", b"END\r\n")
    outcome = run(parser, pieces, *arguments)
    assert (outcome[0] == "raised") is (length > 65_536)


def test_a_key_is_answered_once_whatever_the_order_and_the_pieces(core: Any) -> None:
    parser = core.ReplyParser()
    arguments = (replies.GET_MANY, b"get a b c\r\n", ["a", "b", "c"])
    for piece in (b"VALUE b 0 1\r\n2\r\nVALUE a 0 1\r\n1\r\n", b"VALUE c 0 1\r\n3\r\n"):
        feed(parser, piece)
        assert parser.parse(*arguments) is NEED_DATA
    feed(parser, b"VALUE c 0 1\r\n4\r\n")
    with pytest.raises(MemcacheUnknownError):
        parser.parse(*arguments)


@pytest.mark.parametrize("key", ["k", b"k"])
@pytest.mark.parametrize("given", [False, True])
def test_a_whole_answer_to_one_key_among_many(core: Any, key: Any, given: bool) -> None:
    found = {"other": b"before"} if given else None
    parser = core.ReplyParser()
    reply, request = b"VALUE k 0 1\r\nx\r\nEND\r\n", b"get k\r\n"
    result = parser.answer(reply, replies.GET_MANY, request, [key], found)
    assert result == {**({"other": b"before"} if found else {}), key: b"x"}
    assert found is None or result is found
    assert parser.answer(b"END\r\n", replies.GET_MANY, request, [key], MISS) == {}


@pytest.mark.parametrize("kind", [replies.GET_MANY, replies.GETS_MANY])
def test_a_fetch_of_many_adds_to_a_dict_that_is_given(core: Any, kind: int) -> None:
    cas = b" 7" if kind == replies.GETS_MANY else b""
    found: dict[Any, Any] = {"other": b"before"}
    parser = core.ReplyParser()
    feed(parser, b"VALUE a 0 1%b\r\n1\r\nEND\r\n" % cas)
    assert parser.parse(kind, b"get a b\r\n", ["a", "b"], found) is found
    assert found == {"other": b"before", "a": (b"1", b"7") if cas else b"1"}


@pytest.mark.parametrize("kind", [replies.GET, replies.GETS])
def test_a_fetch_of_one_gives_the_dict_that_is_its_default(core: Any, kind: int) -> None:
    default: dict[Any, Any] = {}
    parser = core.ReplyParser()
    feed(parser, b"END\r\n")
    assert parser.parse(kind, b"get a\r\n", "a", default) is default
    feed(parser, b"VALUE a 0 1%b\r\n1\r\nEND\r\n" % (b" 7" if kind == replies.GETS else b""))
    parser.parse(kind, b"get a\r\n", "a", default)
    assert default == {}


def test_noreply_answers_are_set_aside_up_to_the_barrier(core: Any) -> None:
    parser = core.ReplyParser()
    feed(parser, b"STORED\r\nSERVER_ERROR out of memory\r\nCLIENT")
    assert parser.parse(replies.DRAIN, b"") is NEED_DATA
    feed(parser, b"_ERROR bad\r\nVERSION 1.6\r\nEND\r\n")
    errors = parser.parse(replies.BARRIER, b"version\r\n")
    assert [type(error) for error in errors] == [MemcacheServerError, MemcacheClientError]
    assert parser.pending == 5


@pytest.mark.parametrize("kind", [replies.BARRIER, replies.DRAIN])
def test_a_noreply_storage_command_may_be_refused_by_server_error_only(
    core: Any, kind: int
) -> None:
    for line in (b"ERROR", b"CLIENT_ERROR bad data chunk", b"ERROR Too many open connections"):
        parser = core.ReplyParser()
        feed(parser, b"SERVER_ERROR out of memory\r\nNOT_STORED\r\n")
        assert parser.parse(kind, b"", True) is NEED_DATA
        feed(parser, line + b"\r\nVERSION 1\r\n")
        with pytest.raises(MemcacheUnknownError, match="noreply storage command"):
            parser.parse(kind, b"", True)


def test_errors_in_answer_to_writes_are_all_given_and_those_beyond_many_counted(
    core: Any,
) -> None:
    parser = core.ReplyParser()
    first = b"SERVER_ERROR out of memory\r\nSTORED\r\n"
    errors = run(parser, [first, first * 149], replies.WRITES, b"set k 0 0 1\r\n1\r\n", range(300))
    assert len(errors[0][1]) == 150
    assert (
        run(parser, [b"CLIENT_ERROR no number\r\n"], replies.WRITES, b"incr k 1\r\n", [0])[1] == 0
    )


@pytest.mark.parametrize(
    "line", [b"ERROR", b"CLIENT_ERROR bad data chunk", b"END", b"VALUE k 0 1", b"VERSION 1", b""]
)
def test_a_write_with_a_value_may_be_refused_by_server_error_only(core: Any, line: bytes) -> None:
    parser = core.ReplyParser()
    feed(parser, b"SERVER_ERROR out of memory\r\n" + line + b"\r\n")
    with pytest.raises((MemcacheClientError, MemcacheUnknownError)):
        parser.parse(replies.WRITES, b"prepend k 0 0 1\r\n1\r\n", range(2))


def test_misuse_is_refused(core: Any) -> None:
    with pytest.raises(ValueError, match="decode"):
        core.ReplyParser(7)
    with pytest.raises(ValueError, match="max_value_size"):
        core.ReplyParser(0, 2**31)
    parser = core.ReplyParser()
    with pytest.raises(ValueError, match="buffer_updated"):
        parser.buffer_updated(1)
    size = len(memoryview(parser.get_buffer()))
    with pytest.raises(ValueError, match="buffer_updated"):
        parser.buffer_updated(size + 1)
    with pytest.raises(ValueError, match="buffer_updated"):
        parser.buffer_updated(-1)
    feed(parser, b"VALUE k 0 100000\r\n")
    parser.parse(replies.GET, b"get k\r\n", "k")
    with pytest.raises(ValueError, match="no such kind"):
        parser.parse(99)
    with pytest.raises(ValueError, match="being parsed"):
        parser.parse(replies.STORE, b"set\r\n")


def test_buffer_updated_after_parse_is_refused(core: Any) -> None:
    """The memory of a get_buffer is good until the next parse only."""
    parser = core.ReplyParser()
    feed(parser, b"VALUE k 0 100000\r\n")
    parser.parse(replies.GET, b"get k\r\n", "k")
    parser.get_buffer()
    parser.parse(replies.GET, b"get k\r\n", "k")
    with pytest.raises(ValueError, match="buffer_updated"):
        parser.buffer_updated(1)


def test_the_compiled_parser_has_the_numbers_of_the_kinds() -> None:
    """Each kind takes a reply that no other kind takes the same way."""
    for kind, request, keys, reply, expected in REPLIES:
        assert run(parser_c.ReplyParser(), [reply], kind, request, keys, MISS) == (
            comparable(expected),
            0,
        )


# -- parity ----------------------------------------------------------------------------------------

_pieces = st.sampled_from(
    [
        b"VALUE a 0 1\r\n1\r\n",
        b"VALUE b 16 3\r\nabc\r\n",
        b"VALUE c 2 2\r\n42\r\n",
        b"VALUE a 0 1 7\r\n1\r\n",
        b"VALUE b 1 3 18446744073709551615\r\nabc\r\n",
        b"VALUE c 0 40000\r\n" + b"z" * 40000 + b"\r\n",
        b"VALUE c 0 40000 3\r\n" + b"z" * 40000 + b"\r\n",
        b"VALUE a 0 0\r\n\r\n",
        b"VALUE a 4294967296 0\r\n\r\n",
        b"VALUE d 0 1\r\n1\r\n",
        b"END\r\n",
        b"EN\r\n",
        b"STORED\r\n",
        b"NOT_STORED\r\n",
        b"EXISTS\r\n",
        b"NOT_FOUND\r\n",
        b"DELETED\r\n",
        b"TOUCHED\r\n",
        b"OK\r\n",
        b"RESET\r\n",
        b"BUSY x\r\n",
        b"BUSY END\r\n",
        b"MEMLIMIT_ADJUST_FAILED\r\n",
        b"SERVER_ERROR: s\r\n",
        b"123\r\n",
        b"18446744073709551616\r\n",
        b"VERSION 1\r\n",
        b"STAT a b c\r\n",
        b"STAT \r\n",
        b"ITEM a b\r\n",
        b"PREFIX a b\r\n",
        b"key=a\n",
        b"mg a\r\n",
        b"CONFIG cluster 0 3\r\nabc\r\n",
        b"CONFIG cluster 0 40000\r\n" + b"z" * 40000 + b"\r\n",
        b"VALUE a 0 0\r\n",
        b"ERROR\r\n",
        b"ERROR why\r\n",
        b"CLIENT_ERROR c\r\n",
        b"SERVER_ERROR s\r\n",
        b"\r\n",
        b"\n",
        b"\xff",
    ]
)
_streams = st.lists(st.one_of(_pieces, st.binary(max_size=6)), max_size=8).map(b"".join)
_requests = st.sampled_from(
    [
        (b"get a\r\n", "a"),
        (b"gets a\r\n", "a"),
        (b"gat 1 a\r\n", "a"),
        (b"get a b c\r\n", ["a", "b", "c"]),
        (b"gets a b a\r\n", ["a", "b", b"a"]),
        (b"get a b\r\nget c\r\n", ["a", "b", "c"]),
    ]
)


@settings(max_examples=1500, deadline=None)
@given(
    stream=_streams,
    cuts=st.lists(st.integers(0, 400), max_size=6),
    kind=st.integers(replies.GET, replies.WRITES),
    decode=st.integers(0, 2),
    request_keys=_requests,
    limit=st.sampled_from([2, 1 << 20]),
)
def test_the_twins_agree_on_any_bytes_cut_anywhere(
    stream: bytes,
    cuts: list[int],
    kind: int,
    decode: int,
    request_keys: tuple[bytes, Any],
    limit: int,
) -> None:
    request, keys = request_keys
    if kind in (replies.GET, replies.GETS):
        request, keys = request.partition(b"\r\n")[0].split(b" b")[0] + b"\r\n", "a"
    elif kind == replies.RAW:
        keys = b"END\r\n"
    elif isinstance(keys, str):
        keys = [keys]
    points = sorted({min(cut, len(stream)) for cut in cuts})
    chunks = [stream[a:b] for a, b in zip([0, *points], [*points, len(stream)], strict=True)]
    outcomes = []
    for module in (parser_c, parser_py):
        parser = module.ReplyParser(decode, limit)
        whole = module.ReplyParser(decode, limit)
        outcome = run(parser, chunks, kind, request, keys, MISS)
        outcomes.append(outcome)
        uncut = run(whole, [stream], kind, request, keys, MISS)
        if outcome[0] != "raised":
            assert uncut[0] == outcome[0]
        else:
            assert uncut[:2] == outcome[:2]
    assert outcomes[0] == outcomes[1]


@settings(max_examples=1000, deadline=None)
@given(
    stream=_streams,
    cuts=st.lists(st.integers(0, 400), max_size=4),
    ways=st.lists(st.sampled_from(["get_buffer", "feed", "answer"]), min_size=5, max_size=5),
    kinds=st.lists(
        st.one_of(st.just(replies.GET), st.integers(replies.GET, replies.WRITES)),
        min_size=2,
        max_size=2,
    ),
    decode=st.integers(0, 2),
)
def test_the_twins_agree_whichever_way_the_bytes_of_two_replies_come_in(
    stream: bytes, cuts: list[int], ways: list[str], kinds: list[int], decode: int
) -> None:
    points = sorted({min(cut, len(stream)) for cut in cuts})
    chunks = [stream[a:b] for a, b in zip([0, *points], [*points, len(stream)], strict=True)]
    logs = []
    for module in (parser_c, parser_py):
        parser = module.ReplyParser(decode, 1 << 20)
        waiting = []
        for kind in kinds:
            keys: Any = b"END\r\n" if kind == replies.RAW else ["a"]
            if kind in (replies.GET, replies.GETS):
                keys = "a"
            waiting.append((kind, b"get a\r\n", keys, MISS))
        log: list[Any] = []
        try:
            for chunk, way in zip(chunks, ways, strict=False):
                result = NEED_DATA
                if way == "answer" and chunk and waiting:
                    result = parser.answer(chunk, *waiting[0])
                elif way == "feed":
                    parser.feed(chunk)
                else:
                    feed(parser, chunk)
                while waiting:
                    if result is NEED_DATA:
                        result = parser.parse(*waiting[0])
                    log.append((comparable(result), parser.pending, parser.progress))
                    log.append(parser.wants_buffer)
                    if result is NEED_DATA:
                        break
                    waiting.pop(0)
                    result = NEED_DATA
        except MemcacheError as error:
            log.append(("raised", type(error), str(error)))
        logs.append(log)
    assert logs[0] == logs[1]


@pytest.mark.parametrize(("kind", "request_", "keys", "reply", "expected"), REPLIES, ids=IDS)
def test_an_answer_is_fed_and_parsed_in_one(
    core: Any, kind: int, request_: bytes, keys: Any, reply: bytes, expected: Any
) -> None:
    for cut in range(len(reply) + 1):
        parser = core.ReplyParser()
        result = NEED_DATA
        if cut:
            result = parser.answer(reply[:cut], kind, request_, keys, MISS)
        if cut < len(reply):
            assert result is NEED_DATA, f"cut at byte {cut}"
            result = parser.answer(reply[cut:], kind, request_, keys, MISS)
        assert comparable(result) == comparable(expected), f"cut at byte {cut}"
        assert parser.pending == 0
    if kind != replies.RAW:
        parser = core.ReplyParser()
        with pytest.raises(MemcacheUnknownError, match="sent more than the reply"):
            parser.answer(reply + b"x", kind, request_, keys, MISS)


@pytest.mark.parametrize(
    "reply",
    [
        b"VALUE k 0 3\r\nabcd\r\nEND\r\n",
        b"VALUE k 0 5\r\nabcd\r\nEND\r\n",
        b"VALUE k 4294967296 4\r\nabcd\r\nEND\r\n",
        b"VALUE k 0 00000000004\r\nabcd\r\nEND\r\n",
        b"VALUE k x 4\r\nabcd\r\nEND\r\n",
        b"VALUE j 0 4\r\nabcd\r\nEND\r\n",
        b"VALUE  0 4\r\nabcd\r\nEND\r\n",
        b"value k 0 4\r\nabcd\r\nEND\r\n",
        b"VALUE k 0 4 1\r\nabcd\r\nEND\r\n",
        b"VALUE k 0 4\nabcd\r\nEND\r\n",
        b"VALUE k 0 0\r\nEND\r\n",
        b"END\r\nEND\r\n",
        b"VALUE k 0 2147483647\r\nabcd\r\nEND\r\n",
    ],
)
def test_an_answer_that_is_not_right_is_a_protocol_error(core: Any, reply: bytes) -> None:
    parser = core.ReplyParser(max_value_size=1 << 20)

    def answer(data: bytes) -> Any:
        return parser.answer(data, replies.GET, b"get k\r\n", "k", MISS)

    with pytest.raises(MemcacheUnknownError):  # at the latest when more has come
        answer(reply) is NEED_DATA and answer(b"\r\nEND\r\nEND\r\nEND\r\n")


def test_a_large_value_can_be_fed(core: Any) -> None:
    value = bytes(range(256)) * 1000
    reply = b"VALUE k 0 %d\r\n%b\r\nEND\r\n" % (len(value), value)
    for size in (1 << 16, 100_001, len(reply)):
        parser = core.ReplyParser()
        result = NEED_DATA
        for start in range(0, len(reply), size):
            result = parser.answer(reply[start : start + size], replies.GET, b"get k\r\n", "k")
            assert parser.wants_buffer == (result is NEED_DATA and start + size < len(value))
        assert result == value


@pytest.mark.parametrize("cut", range(1, 16))
def test_an_error_line_is_known_though_a_raw_reply_may_be_no_longer_than_a_few_bytes(
    core: Any, cut: int
) -> None:
    parser = core.ReplyParser(max_value_size=2)
    line = b"CLIENT_ERROR c\r\n"
    for part in (line[:cut], line[cut:]):
        if part:
            parser.feed(part)
            result = parser.parse(replies.RAW, b"get a\r\n", b"END\r\n")
    assert (type(result), str(result)) == (MemcacheClientError, "c")
