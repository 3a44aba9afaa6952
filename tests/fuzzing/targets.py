"""What the fuzzer feeds: functions of any bytes that raise `Finding` where the core is wrong.

The bytes stand for a case (`_Choice`); the case goes through both twins, which must do the same,
and what they do must keep the rules that hold for every input.  Nothing in here needs the fuzzer,
so that its findings are tests (`test_fuzzing.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from commands_read import NotACommand, commands_in
from cymemcache.core import (
    parser_c,
    parser_py,
    rendezvous_c,
    rendezvous_py,
    replies,
    requests_c,
    requests_py,
)
from cymemcache.core.replies import NEED_DATA, PartialFailure, Undecoded
from cymemcache.exceptions import MemcacheError

MISS = object()


class Finding(AssertionError):
    """The twins differ, or a rule is broken."""


class _Choice:
    """Reads decisions from the bytes of an input; when they have run out, all are zero."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def below(self, limit: int) -> int:
        return self.take(1)[0] % limit

    def of(self, *options: Any) -> Any:
        return options[self.below(len(options))]

    def take(self, size: int) -> bytes:
        taken = self._data[self._at : self._at + size]
        self._at += size
        return taken.ljust(size, b"\0")

    def rest(self) -> bytes:
        return self._data[self._at :]


# -- replies ---------------------------------------------------------------------------------------

ONE, MANY = (replies.GET, replies.GETS), (replies.GET_MANY, replies.GETS_MANY)
BATCHES = (replies.STORE_MANY, replies.DELETE_MANY)
REQUESTS: list[tuple[bytes, list[Any]]] = [
    (b"get a\r\n", ["a"]),
    (b"gets a b a\r\n", ["a", "b", b"a"]),
    (b"gat 1 a\r\n", ["a"]),
    (b"get a b c\r\n", ["a", b"b", "c"]),
    (b"get a b\r\nget c\r\n", ["a", "b", "c"]),
    (b"get aa a aaa\r\n", ["aa", "a", "aaa"]),
]


def parser(data: bytes) -> None:
    """A stream of replies, cut anywhere, asked for with any kind: the same from both twins."""
    compiled, pure = (_parsed(data, twin) for twin in (parser_c, parser_py))
    if compiled != pure:
        raise Finding(f"{compiled} of the compiled twin, {pure} of the pure one")


def parser_compiled(data: bytes) -> None:
    """The compiled twin alone, which is many times as fast."""
    _parsed(data, parser_c)


def _parsed(data: bytes, twin: Any) -> list[Any]:
    """What a twin makes of a stream that comes in pieces: the same as when it comes whole."""
    choice = _Choice(data)
    kind = choice.below(replies.WRITES) + 1
    decode, limit = choice.below(3), choice.of(1 << 20, 1 << 17, 2)
    request, keys = choice.of(*REQUESTS)
    cuts = [choice.below(256) for _ in range(choice.below(5))]
    way = choice.of(_by_buffer, _by_feeding, _by_answer)
    asked: Any = keys
    if kind in ONE:
        asked = keys[0]
        request = b"%b %b\r\n" % (choice.of(b"get", b"gat 1"), asked.encode())
    elif kind == replies.RAW:
        asked = choice.of(b"END\r\n", b"\r\n", b"\r\nEN\r\n")
    # A value that is long enough to be received in its own way, for few bytes of input.
    stream = choice.rest().replace(b"\x01", b"#" * 40_000)
    points = [0]
    for cut in cuts:
        points.append(min(points[-1] + cut * (1 + len(stream) // 256), len(stream)))
    chunks = [stream[a:b] for a, b in zip(points, [*points[1:], len(stream)], strict=True)]
    whole = way(twin.ReplyParser(decode, limit), [stream], kind, request, asked)
    outcome = way(twin.ReplyParser(decode, limit), chunks, kind, request, asked)
    if way is not _by_answer and whole[:1] != outcome[:1]:
        raise Finding(f"{whole[:1]} whole, {outcome[:1]} in pieces")
    for result in outcome:
        if kind in MANY and result[0] is dict and not {key for _, key, _ in result[1]} <= {*keys}:
            raise Finding(f"a key that was not asked for: {result}")
    return [*whole, *outcome]


def _by_buffer(parser: Any, chunks: list[bytes], *asked: Any) -> list[Any]:
    def take(data: bytes) -> None:
        while data:
            with memoryview(parser.get_buffer()) as view:
                count = min(len(view), len(data))
                view[:count] = data[:count]
            parser.buffer_updated(count)
            data = data[count:]

    return _replies(parser, chunks, take, *asked)


def _by_feeding(parser: Any, chunks: list[bytes], *asked: Any) -> list[Any]:
    return _replies(parser, chunks, parser.feed, *asked)


def _replies(
    parser: Any, chunks: list[bytes], take: Callable[[bytes], None], *asked: Any
) -> list[Any]:
    """All that `parser` makes of the stream: results, how many bytes are left, or the error."""
    found: list[Any] = []
    try:
        for chunk in chunks:
            take(chunk)
            while (result := parser.parse(*asked, MISS)) is not NEED_DATA:
                found.append(comparable(result))
    except (MemcacheError, ValueError) as error:
        return [*found, ("raised", type(error), str(error))]
    return [*found, ("left", parser.pending)]


def _by_answer(parser: Any, chunks: list[bytes], *asked: Any) -> list[Any]:
    """The first reply, as an exchange asks for it."""
    try:
        for chunk in chunks:
            if chunk:
                result = parser.answer(chunk, *asked, MISS)
                if result is not NEED_DATA:
                    return [comparable(result)]
    except (MemcacheError, ValueError) as error:
        return [("raised", type(error), str(error))]
    return [("left", parser.pending)]


# -- large values ----------------------------------------------------------------------------------

MEBIBYTE = 1 << 20
# Values of more than a mebibyte are received into memory that grows while they come.  Their bytes
# are made here, so that an input of a few bytes makes one.
BODIES = [bytes(range(251)) * (4 * MEBIBYTE // 251), b"0123456789a" * (4 * MEBIBYTE // 11)]
PIECES = (4 * MEBIBYTE, MEBIBYTE, 1 << 16, 4096, 1, MEBIBYTE - 1)


def large(data: bytes) -> None:
    """A value above 1 MiB, in pieces of any size: what was sent, from both twins."""
    compiled, pure = (_received(data, twin) for twin in (parser_c, parser_py))
    if compiled != pure:
        raise Finding(f"{compiled!r:.300} of the compiled twin, {pure!r:.300} of the pure one")


def _received(data: bytes, twin: Any) -> list[Any]:
    """What a twin makes of one reply with a large value; the value itself where it is right."""
    choice = _Choice(data)
    kind = choice.of(*ONE, *MANY, replies.CONFIG)
    body = choice.of(*BODIES)[: choice.of(1, 2, 3) * MEBIBYTE + choice.below(5) - 2]
    announced = len(body) + choice.of(0, 0, 0, 1, -1)
    flags = choice.of(0, replies.FLAG_TEXT, replies.FLAG_INTEGER, replies.FLAG_PICKLE)
    words = b"%d %d" % (flags, announced)
    if kind in (replies.GETS, replies.GETS_MANY):
        words += b" 7"
    head = b"%b k %b\r\n" % (b"CONFIG" if kind == replies.CONFIG else b"VALUE", words)
    tail = choice.of(b"\r\nEND\r\n", b"\r\nEND\r\n", b"\r\n", b"\rEND\r\n", b"")
    parser = twin.ReplyParser(choice.below(3), choice.of(1 << 30, 1 << 30, 2 * MEBIBYTE))
    asked = (kind, b"get k\r\n", ["k"] if kind in MANY else "k", MISS)
    held: list[memoryview] = []
    result: Any = NEED_DATA
    try:
        for part in (head, body, tail):
            rest = memoryview(part)
            while rest:
                count = _taken(parser, rest[: choice.of(*PIECES)], choice, held)
                rest = rest[count:]
                if result is NEED_DATA:
                    result = parser.parse(*asked)
    except (MemcacheError, ValueError) as error:
        return [("raised", type(error), str(error))]
    if result is NEED_DATA:
        return ["incomplete", parser.pending]
    found = comparable(result)
    for view in held:  # who has kept memory of the parser's cannot change a value with it
        view[: len(view)] = bytes(len(view))
    if comparable(result) != found or not _holds(result, body):
        raise Finding(f"not the {len(body)} bytes that were sent")
    return [found, parser.pending]


def _taken(parser: Any, piece: memoryview, choice: _Choice, held: list[memoryview]) -> int:
    """Hand `piece` over in one of the ways there are; how much of it was taken."""
    way = choice.below(4)
    if way == 0:
        parser.feed(bytes(piece))
        return len(piece)
    keep = way == 1 and parser.wants_buffer and len(held) < 8
    view = memoryview(parser.get_buffer())
    count = min(len(view), len(piece))
    view[:count] = piece[:count]
    parser.buffer_updated(count)
    if keep:
        held.append(view)
    else:
        view.release()
    return count


def _holds(result: Any, body: bytes) -> bool:
    """Whether the value in `result` is `body`, as bytes or as text."""
    value = result.result if isinstance(result, Undecoded) else result
    value = value["k"] if isinstance(value, dict) else value
    value = value[0] if isinstance(value, tuple) else value
    return value == body or (isinstance(value, str) and value.encode() == body)


def comparable(result: Any) -> Any:
    """`result` in a form that tells all of it under ``==``."""
    if isinstance(result, MemcacheError):
        return type(result), str(result)
    if isinstance(result, Undecoded):
        return "undecoded", comparable(result.result), result.items
    if isinstance(result, PartialFailure):
        return "partial", result.result, comparable(result.error)
    if isinstance(result, dict):
        return dict, [(type(key), key, value) for key, value in result.items()]
    if isinstance(result, list):
        return list, [comparable(one) for one in result]
    return type(result), result


# -- requests --------------------------------------------------------------------------------------


class _Text(str):
    def encode(self, *args: Any) -> bytes:
        return b"never asked\r\n"


class _Data(bytes):
    def __len__(self) -> int:
        return 1


class _Number(int):
    def __str__(self) -> str:
        return "1\r\nget stolen"


def _serialize(key: Any, value: Any) -> Any:
    if value is None:
        raise ValueError("not this one")
    return value if value == b"no pair" else (value, 1 << 40 if value == b"flags" else 7)


def _bytes(choice: _Choice) -> bytes:
    return choice.take(choice.below(32)) * choice.of(1, 1, 1, 8, 60)


def _number(choice: _Choice) -> int:
    size = choice.below(13)
    number = int.from_bytes(choice.take(size), "big", signed=True)
    return choice.of(0, number, _Number(number), 1 << 31, 1 << 63, 1 << 64, 10**20)


def _key(choice: _Choice) -> Any:
    data = _bytes(choice)
    text = data.decode("utf-8", "surrogateescape")
    return choice.of(
        data, data.decode("latin-1"), text, _Text(text), _Data(data), None, bytearray(data)
    )


def _value(choice: _Choice) -> Any:
    value = _key(choice)
    return choice.of(value, value, _number(choice), memoryview(b"abcdef")[::2], True, 1.5, value)


def _integer(choice: _Choice) -> Any:
    number = _number(choice)
    return choice.of(number, number, number, 0, True, _time(choice), "1", None)


def _time(choice: _Choice) -> Any:
    seconds = int.from_bytes(choice.take(5), "big", signed=True)
    span = timedelta(seconds=seconds, microseconds=choice.below(3))
    zone = choice.of(UTC, None)
    return choice.of(1.5, span, datetime(2001, 9, 9, 1, 46, 40, tzinfo=zone) + span / 100)


def _items(choice: _Choice) -> list[Any]:
    return [(_key(choice), _value(choice)) for _ in range(choice.below(4))]


def _keys(choice: _Choice) -> list[Any]:
    return [_key(choice) for _ in range(1 + choice.below(5))]


def _flags(choice: _Choice) -> Any:
    return choice.of(None, None, _integer(choice))


def _yes(choice: _Choice) -> bool:
    return bool(choice.below(2))


def _verb(choice: _Choice) -> bytes:
    verb: bytes = choice.of(b"set", b"add", b"replace", b"append", b"prepend")
    return verb


def _word(choice: _Choice) -> Any:
    return choice.of(_key(choice), _integer(choice), b"items")


def _words(choice: _Choice) -> list[Any]:
    return [_word(choice) for _ in range(choice.below(4))]


def _token(choice: _Choice) -> Any:
    number = _number(choice)
    return choice.of(number, str(int(number)), b"%d" % number, _key(choice))


# Each method with what makes its arguments; a list where they are all its arguments.
METHODS: list[tuple[str, tuple[Callable[[_Choice], Any], ...]]] = [
    ("key", (_key,)),
    ("get", (_key,)),
    ("gets", (_key,)),
    ("gat", (_key, _integer)),
    ("gats", (_key, _integer)),
    ("get_many", (_keys,)),
    ("gets_many", (_keys,)),
    ("store", (_verb, _key, _value, _integer, _yes, _flags)),
    ("cas", (_key, _value, _token, _integer, _yes, _flags)),
    ("store_many", (_verb, _items, _integer, _yes, _flags)),
    ("delete", (_key, _yes)),
    ("delete_many", (_keys, _yes)),
    ("incr", (_key, _integer, _yes)),
    ("decr", (_key, _integer, _yes)),
    ("touch", (_key, _integer, _yes)),
    ("verbosity", (_integer, _yes)),
    ("flush_all", (_integer, _yes)),
    ("cache_memlimit", (_integer, _yes)),
    ("config_get", (_word,)),
    ("authenticate", (_key, _key)),
    ("stats", ()),
    ("slabs", ()),
    ("lru_crawler", ()),
]


def requests(data: bytes) -> None:
    """Any arguments for any command: the same from both twins, and one command to a server."""
    choice = _Choice(data)
    method, makers = METHODS[choice.below(len(METHODS))]
    made = (
        choice.of(b"", b"p:", b"p" * 240, _bytes(choice)),
        choice.of("ascii", "utf-8", "utf-16", "latin-1"),
        _yes(choice),
        choice.of(1 << 30, 0, 5, 1000),
        choice.of(1 << 20, 1, 20, 1000),
        choice.of(None, _serialize),
        _yes(choice),
        lambda: 1_700_000_000.5,
    )
    args = [maker(choice) for maker in makers] if makers else _words(choice)
    outcomes = []
    for twin in (requests_c, requests_py):
        try:
            outcomes.append(getattr(twin.Requests(*made), method)(*args))
        except Exception as error:
            outcomes.append((type(error), str(error)))
    if outcomes[0] != outcomes[1]:
        raise Finding(
            f"{method}{args} of {made}: {outcomes[0]} of the compiled twin, "
            f"{outcomes[1]} of the pure one"
        )
    request = outcomes[0]
    if method == "key" or not isinstance(request, bytes):
        return
    try:
        read = list(commands_in(request))
    except NotACommand as error:
        raise Finding(f"{method}{args} of {made}: no command: {error}") from error
    number, verb = len(read), method.encode()
    if method in ("get_many", "gets_many"):
        verb = verb.removesuffix(b"_many")
        if sum(len(words) - 1 for words in read) != len(args[0]):
            raise Finding(f"{method}{args} of {made}: other keys in {request!r}")
    elif method == "store_many":
        number, verb = len(args[1]), args[0]
    elif method == "delete_many":
        number, verb = len(args[0]), b"delete"
    else:
        number = 1
        verb = {"store": args[:1], "authenticate": [b"set"], "config_get": [b"config"]}.get(
            method, [verb]
        )[0]
    if number != len(read) or {words[0] for words in read} - {verb}:
        raise Finding(f"{method}{args} of {made}: {read} in {request!r}")


# -- the hash --------------------------------------------------------------------------------------


def rendezvous(data: bytes) -> None:
    """Any keys on any nodes: the same node from both twins, one key at a time and many."""
    choice = _Choice(data)
    nodes = [_bytes(choice).decode("latin-1") for _ in range(1 + choice.below(6))]
    keys = [choice.of(text, text.encode()) for text in map(_wide, [choice] * (1 + choice.below(6)))]
    tables = [twin.RendezvousTable(nodes) for twin in (rendezvous_c, rendezvous_py)]
    outcomes = []
    for table in tables:
        outcomes.append(([table.choose(key) for key in keys], table.partition(keys)))
    if outcomes[0] != outcomes[1]:
        raise Finding(f"{keys} on {nodes}: {outcomes}")


def _wide(choice: _Choice) -> str:
    return choice.of("", "\u20ac", "\U0001f511") + _bytes(choice).decode("latin-1")


TARGETS: dict[str, Callable[[bytes], None]] = {
    "parser": parser,
    "parser_compiled": parser_compiled,
    "large": large,
    "requests": requests,
    "rendezvous": rendezvous,
}
