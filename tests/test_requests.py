"""The request encoder in both its twins: exact bytes, refusals that name the argument, and above
all that no argument whatever makes a server read another command than the one that was asked for.
"""

from __future__ import annotations

import array
import mmap
import subprocess
import sys
import textwrap
from collections.abc import Callable
from datetime import UTC
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commands_read import NotACommand, commands_in
from cymemcache import MemcacheIllegalInputError
from cymemcache.core import requests_c, requests_py
from wire import LONG_KEY, TOO_LONG_KEY

TWINS = {"c": requests_c.Requests, "python": requests_py.Requests}
INT32 = (-(1 << 31), (1 << 31) - 1)
UINT32 = (1 << 32) - 1
UINT64 = (1 << 64) - 1


def test_the_model_reads_what_it_should() -> None:
    stream = b"set k 0 0 9\r\ndelete x\n\r\nget a b\r\n"
    assert list(commands_in(stream)) == [
        [b"set", b"k", b"0", b"0", b"9", b"delete x\n"],
        [b"get", b"a", b"b"],
    ]
    for broken in (b"get k", b"set k 0 0 1\r\nab\r\n", b"set k 0 0 2147483646\r\n", b"\r\n"):
        with pytest.raises(NotACommand):
            list(commands_in(broken))


# -- replies asked for after all -------------------------------------------------------------------


def both_ways(requests: Any) -> list[tuple[bytes, bytes]]:
    """Every command that can have noreply, with and without."""
    awkward = b" noreply\r\nset k 0 0 9 noreply\r\n"
    commands: list[Callable[[bool], bytes]] = [
        *(
            lambda noreply, verb=verb: requests.store(verb, "noreply", awkward, -1, noreply)
            for verb in (b"set", b"add", b"replace", b"append", b"prepend")
        ),
        lambda noreply: requests.cas("k", awkward, 18446744073709551615, 0, noreply),
        lambda noreply: requests.store(b"set", "k", b"", 0, noreply),
        lambda noreply: requests.store_many(
            b"set", [("a", awkward), ("noreply", b""), ("c", b"x" * 5000)], 0, noreply
        ),
        lambda noreply: requests.delete("k", noreply),
        lambda noreply: requests.delete_many(["a", "noreply", "c"], noreply),
        lambda noreply: requests.incr("k", 1, noreply),
        lambda noreply: requests.decr("noreply", 1, noreply),
        lambda noreply: requests.touch("k", -1, noreply),
        lambda noreply: requests.flush_all(0, noreply),
        lambda noreply: requests.verbosity(1, noreply),
        lambda noreply: requests.cache_memlimit(64, noreply),
    ]
    return [(command(True), command(False)) for command in commands]


def test_noreply_can_be_taken_out_of_every_request(core: Any) -> None:
    requests = core.Requests()
    for silent, asking in both_ways(requests):
        assert requests.with_replies(silent, 0) == asking


def test_noreply_is_taken_out_where_a_value_is_that_large(core: Any) -> None:
    requests = core.Requests()
    for size, least in ((5, 5), (6, 5)):
        items = [("a", b"1"), ("b", b"x" * size), ("c", b"")]
        silent = requests.store_many(b"set", items, 0, True)
        assert requests.with_replies(silent, least) == requests.store_many(b"set", items, 0, False)
    for silent in (
        requests.store_many(b"set", [("a", b"1234"), ("b", b"1234")], 0, True),
        requests.store(b"set", "k", b"1234", 99999, True, 99999),
        requests.delete("k", True),
    ):
        assert requests.with_replies(silent, 5) is None


@pytest.mark.parametrize(
    "request_",
    [
        b"delete k\r\n",
        b"x",
        b"delete k noreply",
        b"set k 0 0 5 noreply\r\nab\r\n",
        b"set k 0 0 99999999999999999999 noreply\r\n",
    ],
)
def test_what_is_no_noreply_request_is_refused(request_: bytes) -> None:
    with pytest.raises(ValueError, match="noreply"):
        requests_c.Requests().with_replies(request_, 0)


# -- exact bytes -----------------------------------------------------------------------------------


def serialize(key: Any, value: Any) -> tuple[bytes, int]:
    return b"<" + str(value).encode() + b">", 7


EXACT: list[tuple[str, tuple[Any, ...], bytes]] = [
    ("get", ("k",), b"get k\r\n"),
    ("get", (b"\xff",), b"get \xff\r\n"),
    ("gets", ("k",), b"gets k\r\n"),
    ("gat", ("k", 60), b"gat 60 k\r\n"),
    ("gat", ("k", -1), b"gat -1 k\r\n"),
    ("gats", ("k", INT32[0]), b"gats -2147483648 k\r\n"),
    ("get_many", (["a", b"b", "c"],), b"get a b c\r\n"),
    ("gets_many", (("a",),), b"gets a\r\n"),
    ("store", (b"set", "k", b"v", 0, False), b"set k 0 0 1\r\nv\r\n"),
    ("store", (b"set", "k", b"", 0, True), b"set k 0 0 0 noreply\r\n\r\n"),
    ("store", (b"add", "k", "v", 5, False, 9), b"add k 9 5 1\r\nv\r\n"),
    ("store", (b"replace", "k", -12, INT32[1], False), b"replace k 0 2147483647 3\r\n-12\r\n"),
    ("store", (b"append", "k", True, 0, False), b"append k 0 0 4\r\nTrue\r\n"),
    (
        "store",
        (b"prepend", "k", None, -1, True, UINT32),
        b"prepend k 4294967295 -1 4 noreply\r\nNone\r\n",
    ),
    ("store", (b"set", "k", 1.5, 0, False), b"set k 0 0 3\r\n1.5\r\n"),
    ("store", (b"set", "k", b"a\r\nget b\r\n", 0, False), b"set k 0 0 10\r\na\r\nget b\r\n\r\n"),
    ("cas", ("k", b"v", 1, 0, False), b"cas k 0 0 1 1\r\nv\r\n"),
    ("cas", ("k", b"v", b"007", 2, True, 3), b"cas k 3 2 1 007 noreply\r\nv\r\n"),
    ("cas", ("k", b"v", str(UINT64), 0, False), b"cas k 0 0 1 18446744073709551615\r\nv\r\n"),
    (
        "store_many",
        (b"set", [("a", b"1"), (b"b", "22")], 0, False),
        b"set a 0 0 1\r\n1\r\nset b 0 0 2\r\n22\r\n",
    ),
    ("store_many", (b"add", iter([("a", 1)]), 9, True, 8), b"add a 8 9 1 noreply\r\n1\r\n"),
    ("store_many", (b"set", [], 0, False), b""),
    ("delete", ("k", False), b"delete k\r\n"),
    ("delete", ("k", True), b"delete k noreply\r\n"),
    ("delete_many", (["a", "b"], True), b"delete a noreply\r\ndelete b noreply\r\n"),
    # A server takes the last word for "noreply" even where it is the key.
    ("delete", ("noreply", False), b"delete noreply 0\r\n"),
    ("delete", (b"noreply", True), b"delete noreply noreply\r\n"),
    ("delete_many", (["noreply"], False), b"delete noreply 0\r\n"),
    (
        "delete_many",
        (["a", "noreply", "xnoreply", "noreplyx", b"noreply"], False),
        b"delete a\r\ndelete noreply 0\r\ndelete xnoreply\r\ndelete noreplyx\r\n"
        b"delete noreply 0\r\n",
    ),
    ("delete_many", (["noreply", "b"], True), b"delete noreply noreply\r\ndelete b noreply\r\n"),
    ("incr", ("noreply", 1, False), b"incr noreply 1\r\n"),
    ("touch", ("noreply", 0, False), b"touch noreply 0\r\n"),
    ("incr", ("k", UINT64, False), b"incr k 18446744073709551615\r\n"),
    ("decr", ("k", 0, True), b"decr k 0 noreply\r\n"),
    ("touch", ("k", -5, True), b"touch k -5 noreply\r\n"),
    ("stats", (), b"stats\r\n"),
    ("stats", ("items",), b"stats items\r\n"),
    ("stats", (b"cachedump", 1, 2), b"stats cachedump 1 2\r\n"),
    ("version", (), b"version\r\n"),
    ("verbosity", (1, False), b"verbosity 1\r\n"),
    ("flush_all", (0, False), b"flush_all 0\r\n"),
    ("flush_all", (INT32[1], True), b"flush_all 2147483647 noreply\r\n"),
    ("cache_memlimit", (64,), b"cache_memlimit 64\r\n"),
    ("shutdown", (False,), b"shutdown\r\n"),
    ("shutdown", (True,), b"shutdown graceful\r\n"),
    ("slabs", ("reassign", -1, 2), b"slabs reassign -1 2\r\n"),
    ("lru_crawler", ("metadump", "all"), b"lru_crawler metadump all\r\n"),
    ("config_get", ("cluster",), b"config get cluster\r\n"),
    ("quit", (), b"quit\r\n"),
    ("authenticate", ("ada", b"s3cret"), b"set auth 0 0 10\r\nada s3cret\r\n"),
    ("raw", ("any thing",), b"any thing\r\n"),
]


@pytest.mark.parametrize(
    ("method", "args", "expected"), EXACT, ids=[f"{n}-{c[0]}" for n, c in enumerate(EXACT)]
)
def test_the_bytes_of_every_request(method: str, args: tuple[Any, ...], expected: bytes) -> None:
    if any(hasattr(arg, "__next__") for arg in args):
        args = tuple(list(arg) if hasattr(arg, "__next__") else arg for arg in args)
        for twin in TWINS.values():
            lazy = [iter(arg) if isinstance(arg, list) else arg for arg in args]
            assert getattr(twin(), method)(*lazy) == expected
    for twin in TWINS.values():
        assert getattr(twin(), method)(*args) == expected


def test_the_prefix_goes_before_every_key(core: Any) -> None:
    requests = core.Requests(b"p:")
    assert requests.key("k") == b"p:k"
    assert requests.get_many(["a", b"b"]) == b"get p:a p:b\r\n"
    assert requests.store(b"set", "k", b"v", 0, False) == b"set p:k 0 0 1\r\nv\r\n"
    assert requests.delete("", False) == b"delete p:\r\n"


def test_unicode_keys_are_utf_8_where_they_are_allowed(core: Any) -> None:
    assert core.Requests(b"", "ascii", True).get("ключ") == "get ключ\r\n".encode()
    with pytest.raises(MemcacheIllegalInputError, match="key is not ASCII"):
        core.Requests().get("ключ")
    with pytest.raises(MemcacheIllegalInputError, match="key cannot be encoded"):
        core.Requests(b"", "ascii", True).get("\ud800")


def test_values_are_encoded_as_the_client_is_told(core: Any) -> None:
    for encoding in ("utf-8", "UTF8", "latin-1", "utf-16"):
        data = "größe".encode(encoding)
        request = core.Requests(b"", encoding).store(b"set", "k", "größe", 0, False)
        assert request == b"set k 0 0 %d\r\n%b\r\n" % (len(data), data)
    with pytest.raises(MemcacheIllegalInputError, match="value cannot be encoded as ascii"):
        core.Requests().store(b"set", "k", "größe", 0, False)


def test_the_stock_serde_is_done_here_for_exact_types_and_asked_for_others(core: Any) -> None:
    asked: list[Any] = []

    def ask(key: Any, value: Any) -> tuple[bytes, int]:
        asked.append(value)
        return b"asked", 1

    class Text(str):
        pass

    requests = core.Requests(b"", "ascii", False, 1 << 20, 1 << 20, ask, True)
    assert requests.store(b"set", "k", b"v", 0, False) == b"set k 0 0 1\r\nv\r\n"
    assert requests.store(b"set", "k", "é", 0, False) == b"set k 16 0 2\r\n\xc3\xa9\r\n"
    assert requests.store(b"set", "k", -5, 0, False) == b"set k 2 0 2\r\n-5\r\n"
    assert asked == []
    for value in (True, None, 1.5, Text("x"), bytearray(b"x")):
        assert requests.store(b"set", "k", value, 0, False) == b"set k 1 0 5\r\nasked\r\n"
    assert len(asked) == 5


# -- limits ----------------------------------------------------------------------------------------


def test_a_key_may_have_250_bytes_with_its_prefix(core: Any) -> None:
    assert core.Requests().get(LONG_KEY) == b"get " + LONG_KEY + b"\r\n"
    assert core.Requests(b"p").get("k" * 249) == b"get p" + b"k" * 249 + b"\r\n"
    assert core.Requests(b"", "ascii", True).get("é" * 125) == b"get " + b"\xc3\xa9" * 125 + b"\r\n"
    for requests, key in (
        (core.Requests(), TOO_LONG_KEY),
        (core.Requests(b"p"), "k" * 250),
        (core.Requests(b"", "ascii", True), "é" * 126),
    ):
        with pytest.raises(MemcacheIllegalInputError, match=r"key is too long.*hash"):
            requests.get(key)


@pytest.mark.parametrize("byte", range(256))
def test_any_byte_but_whitespace_and_nul_may_be_in_a_key(core: Any, byte: int) -> None:
    key = b"a" + bytes([byte]) + b"b"
    if byte in b"\0\t\n\x0b\x0c\r ":
        for requests in (core.Requests(), core.Requests(b"", "ascii", True)):
            for form in (key, key.decode("latin-1")):
                with pytest.raises(MemcacheIllegalInputError, match=r"key contains (a NUL|white)"):
                    requests.get(form)
        with pytest.raises(MemcacheIllegalInputError, match="key contains"):
            core.Requests(bytes([byte])).get("k")
    else:
        assert core.Requests().get(key) == b"get " + key + b"\r\n"


def test_an_empty_key_is_refused(core: Any) -> None:
    for key in ("", b""):
        with pytest.raises(MemcacheIllegalInputError, match="key is empty"):
            core.Requests().get(key)


@pytest.mark.parametrize("key", [None, 1, 1.0, ["k"], ("k",), bytearray(b"k"), memoryview(b"k")])
def test_a_key_of_another_type_is_a_type_error(core: Any, key: Any) -> None:
    requests = core.Requests()
    calls: list[Callable[[], Any]] = [
        lambda: requests.get(key),
        lambda: requests.get_many(["good", key]),
        lambda: requests.store(b"set", key, b"v", 0, False),
        lambda: requests.store_many(b"set", [("good", b"v"), (key, b"v")], 0, False),
        lambda: requests.delete_many([key], False),
    ]
    for call in calls:
        with pytest.raises(TypeError, match="key must be str or bytes"):
            call()


NUMBERS: list[tuple[str, str, Callable[[Any, Any], Any], int, int]] = [
    ("gat", "expire", lambda r, n: r.gat("k", n), *INT32),
    ("store", "expire", lambda r, n: r.store(b"set", "k", b"v", n, False), *INT32),
    ("store_many", "expire", lambda r, n: r.store_many(b"set", [("k", b"v")], n, False), *INT32),
    ("cas", "expire", lambda r, n: r.cas("k", b"v", 1, n, False), *INT32),
    ("touch", "expire", lambda r, n: r.touch("k", n, False), *INT32),
    ("store", "flags", lambda r, n: r.store(b"set", "k", b"v", 0, False, n), 0, UINT32),
    ("store_many", "flags", lambda r, n: r.store_many(b"set", [("k", 1)], 0, False, n), 0, UINT32),
    ("cas", "flags", lambda r, n: r.cas("k", b"v", 1, 0, False, n), 0, UINT32),
    ("incr", "value", lambda r, n: r.incr("k", n, False), 0, UINT64),
    ("decr", "value", lambda r, n: r.decr("k", n, False), 0, UINT64),
    ("cas", "cas", lambda r, n: r.cas("k", b"v", n, 0, False), 0, UINT64),
    ("flush_all", "delay", lambda r, n: r.flush_all(n, False), 0, INT32[1]),
    ("verbosity", "level", lambda r, n: r.verbosity(n, False), 0, UINT32),
    ("cache_memlimit", "memlimit", lambda r, n: r.cache_memlimit(n), 0, UINT32),
]


@pytest.mark.parametrize(
    ("name", "call", "least", "most"),
    [case[1:] for case in NUMBERS],
    ids=[f"{case[0]}-{case[1]}" for case in NUMBERS],
)
def test_numbers_have_the_limits_of_the_protocol(
    core: Any, name: str, call: Callable[[Any, Any], Any], least: int, most: int
) -> None:
    class Liar(int):
        def __lt__(self, other: object) -> bool:
            return True

        __le__ = __gt__ = __ge__ = __lt__

        def __int__(self) -> int:
            return 1

        __index__ = __int__

        def __str__(self) -> str:
            return "1\r\nflush_all"

        __repr__ = __str__

    requests = core.Requests()
    for number in (least, most, least + 1, most - 1):
        assert b" %d" % number in call(requests, number)
        assert call(requests, Liar(number)) == call(requests, number)
    for number in (least - 1, most + 1, 1 << 70, -(1 << 70), 10**5000):
        for kind in (int, Liar):
            with pytest.raises(MemcacheIllegalInputError, match=name):
                call(requests, kind(number))
    for wrong in (1.0, "x", b"1 0", [1], "1\r\n", "-1"):
        with pytest.raises(MemcacheIllegalInputError, match=name):
            call(requests, wrong)
    assert call(requests, True) == call(requests, 1)


@pytest.mark.parametrize(
    "cas", ["", b"", "\uff11", "1 2", b"1\r\n", "+1", "-1", "1" * 21, None, 1.0]
)
def test_a_cas_token_is_digits(core: Any, cas: Any) -> None:
    with pytest.raises(MemcacheIllegalInputError, match="cas"):
        core.Requests().cas("k", b"v", cas, 0, False)


def test_a_value_may_have_max_value_size_bytes(core: Any) -> None:
    requests = core.Requests(b"", "ascii", False, 10)
    assert requests.store(b"set", "k", b"x" * 10, 0, False).endswith(b"10\r\nxxxxxxxxxx\r\n")
    for value in (b"x" * 11, "x" * 11, bytearray(11), 10**10):
        with pytest.raises(MemcacheIllegalInputError, match="value is too large, 11 bytes"):
            requests.store(b"set", "k", value, 0, False)
        with pytest.raises(MemcacheIllegalInputError, match="value is too large, 11 bytes"):
            requests.store_many(b"set", [("k", value)], 0, False)
    with pytest.raises(MemcacheIllegalInputError, match="value"):
        core.Requests().store(b"set", "k", 10**5000, 0, False)
    with pytest.raises(ValueError, match="max_value_size"):
        core.Requests(b"", "ascii", False, 1 << 31)


@pytest.mark.parametrize("most", [1, 10, 14, 15, 16, 300])
def test_fetches_are_cut_at_max_request_size(core: Any, most: int) -> None:
    keys = ["a", "bb", "c" * 9, "d", "e" * 200, "f", "g"]
    request = core.Requests(b"", "ascii", False, 1000, most).get_many(keys)
    lines = request.splitlines(keepends=True)
    assert [key for line in lines for key in line.decode().split()[1:]] == keys
    for line, following in zip(lines, [*lines[1:], None], strict=True):
        assert line.startswith(b"get ")
        assert len(line) <= most or line.count(b" ") == 1
        if following is not None:  # as many keys as there is room for
            assert len(line) + len(following.split()[1]) + 1 > most
    with pytest.raises(ValueError, match="empty"):
        core.Requests().get_many([])


@pytest.mark.parametrize(
    ("method", "argument"),
    [
        (method, argument)
        for method in ("stats", "slabs", "lru_crawler", "config_get")
        for argument in ("a b", "a\r\nb", "", b"\0", " a", "a\n", b"\x0b", "\ud800")
    ],
)
def test_words_are_words(core: Any, method: str, argument: Any) -> None:
    with pytest.raises(MemcacheIllegalInputError, match="argument"):
        getattr(core.Requests(), method)(argument)


@pytest.mark.parametrize("method", ["stats", "slabs", "lru_crawler", "config_get"])
def test_a_command_that_is_asked_for_its_answer_is_not_silenced(core: Any, method: str) -> None:
    words = ["automove", b"noreply"] if method != "config_get" else ["noreply"]
    with pytest.raises(MemcacheIllegalInputError, match="must not be noreply"):
        getattr(core.Requests(), method)(*words)


# -- subclasses, buffers, serdes -------------------------------------------------------------------


class LyingBytes(bytes):
    def __len__(self) -> int:
        return 0

    def __bytes__(self) -> bytes:
        return b"x\r\nflush_all\r\n"

    def __radd__(self, other: bytes) -> bytes:
        return other + b"x\r\nflush_all\r\n"

    def __getitem__(self, item: Any) -> Any:
        return b"\r\n"

    def translate(self, *args: Any) -> bytes:
        return b"x"


class LyingStr(str):
    def encode(self, *args: Any) -> bytes:
        return b"x\r\nflush_all\r\n"

    def __str__(self) -> str:
        return "x\r\nflush_all"

    def __len__(self) -> int:
        return 0

    def isascii(self) -> bool:
        return True


class LyingTuple(tuple[Any, ...]):
    def __len__(self) -> int:
        return 2

    def __iter__(self) -> Any:
        return iter((b"x", 9))


def test_subclasses_are_taken_for_what_they_hold(core: Any) -> None:
    requests = core.Requests(b"p:")
    for key in (LyingBytes(b"key"), LyingStr("key")):
        assert requests.get(key) == b"get p:key\r\n"
        assert requests.get_many([key]) == b"get p:key\r\n"
        assert requests.delete_many([key], False) == b"delete p:key\r\n"
        assert requests.store(b"set", key, b"", 0, False) == b"set p:key 0 0 0\r\n\r\n"
    for value in (LyingBytes(b"value"), LyingStr("value")):
        assert requests.store(b"set", "k", value, 0, False) == b"set p:k 0 0 5\r\nvalue\r\n"
    for cas in (LyingBytes(b"12"), LyingStr("12")):
        assert requests.cas("k", b"", cas, 0, False) == b"cas p:k 0 0 0 12\r\n\r\n"
    with pytest.raises(MemcacheIllegalInputError, match="key contains whitespace"):
        requests.get(LyingBytes(b"a b"))
    good = core.Requests(serialize=lambda key, value: LyingTuple((b"value", 5)))
    assert good.store(b"set", "k", 1, 0, False) == b"set k 5 0 5\r\nvalue\r\n"
    bad = core.Requests(serialize=lambda key, value: LyingTuple((b"value",)))
    with pytest.raises(TypeError, match=r"serde.serialize must return"):
        bad.store(b"set", "k", 1, 0, False)


def test_buffers_are_stored_as_their_bytes(core: Any) -> None:
    grid = memoryview(bytes(range(12))).cast("B", (3, 4))
    with mmap.mmap(-1, 5) as mapped:
        mapped[:] = b"mmap!"
        cases: list[tuple[Any, bytes]] = [
            (bytearray(b"abc"), b"abc"),
            (memoryview(b"abc"), b"abc"),
            (memoryview(b"abcdef")[::2], b"ace"),
            (memoryview(b"abc")[::-1], b"cba"),
            (grid, bytes(range(12))),
            (array.array("H", [1, 2]), array.array("H", [1, 2]).tobytes()),
            (bytearray(), b""),
        ]
        for value, data in cases:
            expected = b"set k 0 0 %d\r\n%b\r\n" % (len(data), data)
            assert core.Requests().store(b"set", "k", value, 0, False) == expected
            assert core.Requests().store_many(b"set", [("k", value)], 0, False) == expected
        assert core.Requests().store(b"set", "k", mapped, 0, False).endswith(b"5\r\nmmap!\r\n")
    released = memoryview(b"abc")
    released.release()
    with pytest.raises(ValueError, match="released"):
        core.Requests().store(b"set", "k", released, 0, False)


def test_a_buffer_is_free_again_after_encoding_and_after_a_refusal(core: Any) -> None:
    value = bytearray(20)
    core.Requests().store(b"set", "k", value, 0, False)
    core.Requests().store_many(b"set", [("k", value)], 0, False)
    for call in (
        lambda: core.Requests(b"", "ascii", False, 10).store(b"set", "k", value, 0, False),
        lambda: core.Requests(b"", "ascii", False, 10).store_many(b"set", [("k", value)], 0, False),
        lambda: core.Requests().store_many(b"set", [("k", value), ("", b"")], 0, False),
    ):
        with pytest.raises(MemcacheIllegalInputError):
            call()
    value.extend(b"more")  # refused while anybody holds a view


def serializing(core: Any, function: Callable[[Any, Any], Any]) -> Any:
    return core.Requests(b"", "ascii", False, 1000, 1000, function)


@pytest.mark.parametrize(
    "result", [None, b"data", (b"data",), (b"data", 1, 2), [b"data", 1], {b"data": 1}]
)
def test_a_serde_must_give_data_and_flags(core: Any, result: Any) -> None:
    with pytest.raises(TypeError, match=r"serde.serialize must return \(data, flags\)"):
        serializing(core, lambda key, value: result).store(b"set", "k", 1, 0, False)


@pytest.mark.parametrize("data", [None, 1.5, ["x"], True, object()])
def test_a_serde_must_give_data_of_some_bytes(core: Any, data: Any) -> None:
    with pytest.raises(TypeError, match=r"serde.serialize must return bytes, str, int or a buffer"):
        serializing(core, lambda key, value: (data, 0)).store(b"set", "k", 1, 0, False)


@pytest.mark.parametrize("flags", [None, -1, 1 << 32, 1.0, "1"])
def test_a_serde_must_give_flags_of_32_bits(core: Any, flags: Any) -> None:
    with pytest.raises(MemcacheIllegalInputError, match="flags"):
        serializing(core, lambda key, value: (b"", flags)).store(b"set", "k", 1, 0, False)


def test_a_serde_gets_the_callers_own_objects_and_its_errors_come_out(core: Any) -> None:
    class Mine(BaseException):
        pass

    seen: list[Any] = []

    def fail(key: Any, value: Any) -> Any:
        seen.extend((key, value))
        raise Mine

    key, value = LyingStr("key"), object()
    with pytest.raises(Mine):
        serializing(core, fail).store(b"set", key, value, 0, False)
    assert seen[0] is key
    assert seen[1] is value
    with pytest.raises(MemcacheIllegalInputError):  # before the serde is asked
        serializing(core, fail).store(b"set", "a b", value, 0, False)
    assert len(seen) == 2


def test_a_serde_may_do_as_it_likes_with_what_is_being_encoded(core: Any) -> None:
    value = bytearray(b"x" * 50)
    items: list[tuple[str, Any]] = [("a", value), ("b", value)]
    requests: Any = None

    def meddle(key: Any, given: Any) -> tuple[Any, int]:
        given.extend(b"y" * 100)
        if len(items) < 4:
            items.append(("c", value))
        assert requests.get_many(["x", "y"]) == b"get x y\r\n"
        return given, 0

    requests = serializing(core, meddle)
    request = requests.store_many(b"set", items, 0, False)
    assert [words[1] for words in commands_in(request)] == [b"a", b"b", b"c", b"c"]


# -- any argument whatever -------------------------------------------------------------------------

blanks = st.sampled_from(
    ["", " ", "\r\n", "\0", "\t", "flush_all", "\r\nflush_all\r\n", "é", "\x85"]
)
texts = st.one_of(
    st.text(max_size=20),
    st.text("ab:1", min_size=1, max_size=12),
    st.lists(st.one_of(blanks, st.text("ab", max_size=3)), max_size=5).map("".join),
    st.integers(245, 255).map("k".__mul__),
)
data = st.one_of(st.binary(max_size=20), texts.map(lambda text: text.encode("utf-8", "replace")))
keys = st.one_of(
    texts, data, texts.map(LyingStr), data.map(LyingBytes), st.none(), st.integers(0, 3)
)
numbers = st.one_of(
    st.integers(-5, 5),
    st.integers(-(1 << 66), 1 << 66),
    st.sampled_from([*INT32, INT32[1] + 1, UINT32, UINT32 + 1, UINT64, UINT64 + 1]),
    texts,
    st.none(),
    st.booleans(),
    st.floats(),
    st.sampled_from([2_592_000, 2_592_001, 999_999_999, 1_000_000_000]),  # where spans end
    st.timedeltas(),
    st.datetimes(timezones=st.sampled_from([None, UTC])),
)
values = st.one_of(
    data, texts, numbers, data.map(bytearray), data.map(memoryview), data.map(LyingBytes)
)
flags = st.one_of(st.none(), numbers)
STORING = {b"set", b"add", b"replace", b"append", b"prepend"}
calls = st.one_of(
    st.tuples(st.sampled_from(["get", "gets", "key"]), st.tuples(keys)),
    st.tuples(st.sampled_from(["gat", "gats"]), st.tuples(keys, numbers)),
    st.tuples(
        st.sampled_from(["get_many", "gets_many"]),
        st.tuples(st.lists(keys, min_size=1, max_size=6)),
    ),
    st.tuples(
        st.just("store"),
        st.tuples(st.sampled_from(sorted(STORING)), keys, values, numbers, st.booleans(), flags),
    ),
    st.tuples(st.just("cas"), st.tuples(keys, values, values, numbers, st.booleans(), flags)),
    st.tuples(
        st.just("store_many"),
        st.tuples(
            st.sampled_from(sorted(STORING)),
            st.lists(st.tuples(keys, values), max_size=4),
            numbers,
            st.booleans(),
            flags,
        ),
    ),
    st.tuples(st.just("delete"), st.tuples(keys, st.booleans())),
    st.tuples(st.just("delete_many"), st.tuples(st.lists(keys, max_size=4), st.booleans())),
    st.tuples(st.sampled_from(["incr", "decr", "touch"]), st.tuples(keys, numbers, st.booleans())),
    st.tuples(
        st.sampled_from(["flush_all", "verbosity", "cache_memlimit"]),
        st.tuples(numbers, st.booleans()),
    ),
    st.tuples(
        st.sampled_from(["stats", "slabs", "lru_crawler"]),
        st.lists(st.one_of(texts, data, numbers), max_size=3).map(tuple),
    ),
    st.tuples(st.just("config_get"), st.tuples(st.one_of(texts, data, numbers))),
)
constructors = st.tuples(
    st.sampled_from([b"", b"p:", b"a b", b"\r\n", b"p" * 240]),
    st.sampled_from(["ascii", "utf-8", "utf-16", "latin-1"]),
    st.booleans(),
    st.sampled_from([0, 5, 1000]),
    st.sampled_from([1, 20, 1000]),
    st.sampled_from([None, serialize]),
    st.booleans(),
    st.just(lambda: 1_700_000_000.5),
)


def outcome(twin: type, made: tuple[Any, ...], method: str, args: tuple[Any, ...]) -> Any:
    try:
        return getattr(twin(*made), method)(*args)
    except Exception as error:
        return type(error), str(error)


@settings(max_examples=1500, deadline=None)
@given(constructors, calls)
def test_the_twins_agree_on_any_arguments(
    made: tuple[Any, ...], call: tuple[str, tuple[Any, ...]]
) -> None:
    method, args = call
    found, expected = (outcome(twin, made, method, args) for twin in TWINS.values())
    assert found == expected


@settings(max_examples=1500, deadline=None)
@given(constructors, calls)
def test_a_server_reads_the_commands_that_were_asked_for_and_no_others(
    made: tuple[Any, ...], call: tuple[str, tuple[Any, ...]]
) -> None:
    method, args = call
    for twin in TWINS.values():
        request = outcome(twin, made, method, args)
        if not isinstance(request, bytes) or method == "key":
            continue
        read = list(commands_in(request))
        verbs = {words[0] for words in read}
        if method in ("get_many", "gets_many"):
            assert verbs == {method[:-5].encode()}
            assert sum(len(words) - 1 for words in read) == len(args[0])
        elif method in ("store_many", "delete_many"):
            subject = args[1] if method == "store_many" else args[0]
            assert len(read) == len(subject)
            assert verbs <= {args[0] if method == "store_many" else b"delete"}
        else:
            assert len(read) == 1
            if method == "store":
                assert verbs == {args[0]}
            else:
                assert verbs == {b"config" if method == "config_get" else method.encode()}


class Lying(bytes):
    """Says of itself what is not so."""

    def __len__(self) -> int:
        return 1

    def __bytes__(self) -> bytes:
        return b"another"

    def split(self, *_: Any) -> Any:
        return [b"word"]

    def strip(self, *_: Any) -> Any:
        return self


@pytest.mark.parametrize("twin", TWINS.values(), ids=list(TWINS))
def test_arguments_are_taken_for_what_they_hold(twin: type) -> None:
    requests = twin()
    assert requests.authenticate(Lying(b"ada"), Lying(b"x")) == b"set auth 0 0 5\r\nada x\r\n"
    assert requests.stats(Lying(b"items")) == b"stats items\r\n"
    for method, args in [("stats", ()), ("slabs", ()), ("authenticate", (b"password",))]:
        with pytest.raises(MemcacheIllegalInputError):
            getattr(requests, method)(Lying(b"a\r\nget b"), *args)


# -- memory ----------------------------------------------------------------------------------------


def test_nothing_leaks() -> None:
    """In a process of its own, where nobody else allocates."""
    program = """
        import gc, sys
        from cymemcache.core.requests_c import Requests

        class Key(str):
            pass

        def serialize(key, value):
            if value is None:
                raise ValueError
            return bytearray(b"data"), 1

        key, value, wide = Key("a" * 40), bytearray(b"v" * 300), memoryview(b"abcdef")[::2]
        plain, serial = Requests(b"p:"), Requests(b"", "ascii", False, 100, 50, serialize)
        good = [
            lambda: plain.get(key),
            lambda: plain.get_many([key, "b"] * 20),
            lambda: plain.gat(key, 5),
            lambda: plain.store(b"set", key, value, 0, False),
            lambda: plain.store(b"set", "k", wide, 0, True),
            lambda: plain.store_many(b"set", [(key, value), ("b", 10**30)], 0, False),
            lambda: plain.cas(key, "text", b"12", 0, False),
            lambda: plain.incr(key, 2**64 - 1, False),
            lambda: serial.store(b"set", key, 1, 0, False),
            lambda: serial.get_many([key] * 30),
            lambda: plain.delete_many([key] * 5, True),
            lambda: plain.touch(key, -1, False),
        ]
        bad = [
            lambda: plain.get("a b"),
            lambda: plain.get(None),
            lambda: plain.get_many(["a", "x" * 300]),
            lambda: serial.store(b"set", key, None, 0, False),
            lambda: plain.store(b"set", key, value, 2**40, False),
            lambda: plain.store_many(b"set", [("a", value), ("", b"")], 0, False),
            lambda: plain.store_many(b"set", [("a", value), 5], 0, False),
            lambda: plain.cas(key, value, "x", 0, False),
            lambda: plain.incr(key, -1, False),
            lambda: Requests(b"", "ascii", False, 10).store(b"set", key, value, 0, False),
        ]
        held = (key, value, wide)

        def run(times):
            for _ in range(times):
                for call in good:
                    call()
                for call in bad:
                    try:
                        call()
                    except Exception:
                        pass

        run(200)
        gc.collect()
        blocks, references = sys.getallocatedblocks(), [sys.getrefcount(one) for one in held]
        run(5000)
        gc.collect()
        assert [sys.getrefcount(one) for one in held] == references
        assert sys.getallocatedblocks() - blocks < 200, sys.getallocatedblocks() - blocks
        value.append(0)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True, timeout=100)
