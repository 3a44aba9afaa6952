"""The embedded server answers as memcached does: the same bytes in, the same bytes out.

It plays the installed version: that holds for 1.6.9, 1.6.14, 1.6.18, 1.6.24, 1.6.38 and 1.6.45.
Left out are "stats proxy", which not every build knows, and "stats extstore", which ends 1.6.9.

Cas tokens, times and the values of statistics differ between any two servers, and are made equal
before replies are compared.
"""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

from cymemcache.testing import EmbeddedServer
from wire import LONG_KEY, MEBIBYTE, PATIENCE, SETUP, TOO_LONG_KEY, Server, block, normalized

# Each line comes after SETUP.
# After each line: what it has changed, and whether the stream is still understood.
CHECK = b"get n m t x\r\nmn\r\n"

LINES = """
get|get |get n|get n m|get  n   m |  get n|get x|get n x t n|GET n|Get n|getn|ge|g|get n\0 m|\0
gets|gets n|gets n m x|bget n|bget|get noreply|get n noreply
gat|gat 10|gat 10 n|gat 10 n x m|gat x n|gat -1 n|gat 0 n|gat 4294967296 n|gat 9223372036854775808 n
gats|gats 10 n|gats 10 n m|gats n n|gat 10 noreply
delete|delete n|delete x|delete n 0|delete n 1|delete n -0|delete n x|delete n noreply
delete n 0 noreply|delete n 1 noreply|delete n noreply noreply|delete n noreply 0|delete n 0 0
delete n 0 noreply x|delete noreply|delete  n  0
incr|incr n|incr n 1|incr x 1|incr t 1|incr n x|incr n -1|incr n 18446744073709551615|incr m 1
incr n 18446744073709551616|incr n +5|incr n 05|incr n 1 noreply|incr n x noreply|incr t 1 noreply
incr n 1 foo|incr n 1 noreply foo|incr n noreply|incr n 0x1|incr n 1.5|incr n 1\t|incr n \t1
incr n 1\v2|incr n -0|incr n -18446744073709551615|incr n 90|incr n 89|incr m 0
decr|decr n|decr n 1|decr n 10|decr n 11|decr x 1|decr t 1|decr n x|decr n 1 noreply|decr m 1
decr m 18446744073709551615|decr m 18446744073709551610|decr n 1 foo|decr n -1
touch|touch n|touch n 10|touch n 0|touch n -1|touch x 10|touch n x|touch n 10 noreply|touch n 10 foo
touch n x noreply|touch n 10 noreply foo|touch n 99999999999|touch n 99999999999999999999
set|set n|set n 0|set n 0 0|set n 0 0 noreply|set n 0 0 x|set n 0 x 1|set n x 0 1|set n 0 0 -1
set n 0 0 -1 noreply|set n a b c noreply|set n 0 0 1 x y|set n 0 0 1 noreply y|set n -1 0 1
set n 18446744073709551616 0 1|set n 0 9223372036854775808 1|set n 0 0 9223372036854775808
set n 0 0 2147483646|set n 0 0 2147483647|set n 0 0 2147483648|set n 0 0 99999999999999999999
set n 0x1 0 1|set n 1.5 0 1|set n 1_0 0 1|set n 0 1e3 1|set n 0 0 +|set n 0 0 -
add n|add n 0 0|replace n 0 0 -1|append n x 0 1|prepend n 0 x 1|append|prepend|replace|add
cas|cas n 0 0 1|cas n 0 0 1 x|cas n 0 0 1 -1|cas n 0 0 1 18446744073709551616|cas n 0 0 -1 5
cas n 0 0 1 noreply|cas n 0 0 x 1 noreply|cas n 0 0 1 1 noreply x
version|version x|verbosity|verbosity 0|verbosity x|verbosity 0 noreply|verbosity x noreply
verbosity 0 0|verbosity 0 0 noreply|verbosity -1|verbosity noreply
flush_all|flush_all 0|flush_all -1|flush_all x|flush_all noreply|flush_all 0 noreply|flush_all 0 0
flush_all x noreply|flush_all noreply noreply|flush_all 0 0 noreply|flush_all 1000|flush_all 0 0 0 0
flush_all 99999999999999999999|flush_all -5 noreply
cache_memlimit|cache_memlimit 64|cache_memlimit 7|cache_memlimit x|cache_memlimit 64 noreply
cache_memlimit 1 noreply|cache_memlimit 1000000001|cache_memlimit 64 x|cache_memlimit 64 x noreply
cache_memlimit -1|cache_memlimit noreply|cache_memlimit 4294967360
shutdown|shutdown graceful|shutdown x|shutdown x y|mn|mn x|mq|m|mgx|config
config get cluster|config x
slabs|slabs x|slabs reassign|slabs reassign 1|slabs reassign 1 1|slabs reassign 5 5
slabs reassign x 1
slabs reassign 1 x|slabs reassign 40 1|slabs reassign 1 40|slabs reassign -2 1|slabs reassign 1 -1
slabs reassign 7 8|slabs reassign 1 2 noreply|slabs automove|slabs automove 0|slabs automove 1
slabs automove 2|slabs automove 3|slabs automove x|slabs automove 1 noreply|slabs automove x noreply
slabs automove noreply|slabs automove 9 noreply|slabs automove ratio|slabs automove ratio 0.8
slabs automove ratio x|slabs automove ratio 0.8 noreply|slabs automove 1 1 1|slabs automove -1
lru|lru x|lru mode|lru mode flat|lru mode segmented|lru mode x|lru mode flat noreply|lru temp_ttl
lru temp_ttl 61|lru temp_ttl -1|lru temp_ttl x|lru tune|lru tune 20 40 0.2 2.0|lru tune 20 40 0.2
lru tune 50 40 0.2 2.0|lru tune 20 40 0 2.0|lru tune 20 40 0.2 0|lru tune x 40 0.2 2.0
lru tune 20 40 x 2.0|lru tune 20 40 0.2 2.0 noreply|lru tune 90 0 0.2 2.0 noreply|lru noreply
lru_crawler|lru_crawler x|lru_crawler x y|lru_crawler x y z|lru_crawler enable|lru_crawler crawl
lru_crawler crawl all|lru_crawler crawl 1|lru_crawler crawl 1,2|lru_crawler crawl 0
lru_crawler crawl 62|lru_crawler crawl 63|lru_crawler crawl 64|lru_crawler crawl x
lru_crawler crawl 1,x|lru_crawler crawl ,|lru_crawler crawl hash|lru_crawler tocrawl
lru_crawler tocrawl 0|lru_crawler tocrawl x|lru_crawler sleep 100|lru_crawler sleep 1000001
lru_crawler sleep x|lru_crawler sleep|lru_crawler metadump|lru_crawler metadump all
lru_crawler mgdump all|lru_crawler mgdump|lru_crawler enable noreply
lru_crawler metadump all noreply
stats reset|stats reset x|stats x|stats noreply|stats detail|stats detail x|stats detail on
stats detail off|stats detail dump|stats cachedump|stats cachedump 1|stats cachedump x 0
stats cachedump 1 x|stats cachedump 64 0|stats cachedump 63 0|stats cachedump 0 0|stats sizes
stats sizes_enable|stats sizes_disable|stats sizes x
quit|quit x| |  |x|xx|get\tn|get n\r|\r|n 1
"""

SCRIPTS: dict[str, bytes] = {
    repr(line): SETUP + line.encode() + b"\r\n" + CHECK
    for line in re.split(r"[|\n]", LINES.strip("\n"))
}
for verb in (b"set", b"add", b"replace", b"append", b"prepend"):
    for key in (b"n", b"x"):
        for line in (b" 5 0 #", b" 5 0 # noreply", b" 5 0 # x", b" 5 -1 #", b" 5 100 #"):
            script = SETUP + block(verb + b" " + key + line, b"1234") + CHECK
            SCRIPTS[repr((verb + b" " + key + line).decode())] = script
for line in (b"cas n 5 0 # 0", b"cas x 5 0 # 1", b"cas n 5 0 # 0 noreply", b"cas n 5 0 # 0 x"):
    SCRIPTS[repr(line.decode())] = SETUP + block(line, b"1234") + CHECK
for number in (b"+5", b"-0", b"010", b"1\t", b"1\t2", b"\t1", b"4294967296", b"4294967301"):
    SCRIPTS[f"flags {number!r}"] = SETUP + block(b"set n %b 0 #" % number, b"v") + CHECK
for exptime in (
    *(b"2592000", b"2592001", b"2147483647", b"2147483648", b"-2147483649", b"4294967296"),
    *(b"+5", b"05", b"5\t"),
):
    SCRIPTS[f"exptime {exptime!r}"] = SETUP + block(b"set n 0 %b #" % exptime, b"v") + CHECK
for length in (b"+4", b"04", b"4\t", b"4294967300"):
    SCRIPTS[f"length {length!r}"] = SETUP + b"set n 0 0 %b\r\n1234\r\n" % length + CHECK
for key in (LONG_KEY, TOO_LONG_KEY, b"\xff\x01\x7f%", "schlüssel".encode(), b"a\tb", b"noreply"):
    for line in (
        b"get K",
        b"get n K t",
        b"gat 10 K",
        b"delete K",
        b"delete K noreply",
        b"incr K 1",
        b"decr K 1 noreply",
        b"touch K 10",
        b"touch K 10 noreply",
    ):
        script = SETUP + block(b"set " + key + b" 0 0 #", b"5")
        if len(key) > 250 and line.startswith(b"g"):
            script = b""  # memcached forgets the replies that it has not sent yet
        script += line.replace(b"K", key) + b"\r\n" + CHECK
        SCRIPTS[f"{line.decode()} {key[:9]!r}{len(key)}"] = script
for number in (
    *(b"10", b"9", b" 10", b"10 ", b"10  x", b"10x", b"x", b"", b"-5", b"-0", b"+5", b"1.5"),
    *(b"0x1", b"007", b"10\r\n", b"10\n5", b"1\t", b"10\0", b"10\0 ", b"-", b"- 5"),
    *(b"1_0", b"\x0b1"),
    *(b"18446744073709551615", b"18446744073709551616", b"99999999999999999999", b"9" * 300),
    *(b"0" * 30 + b"5", b"1" + b" " * 40, b"-18446744073709551615", b"18446744073709551610"),
):
    script = b"".join(
        block(b"set n 3 0 #", number) + line + b"\r\nget n\r\n"
        for line in (b"incr n 1", b"decr n 1", b"incr n 999", b"decr n 0")
    )
    SCRIPTS[f"number {number[:40]!r}"] = script
for line in (
    *(b"set n 0 0 2", b"set n 0 0 2 noreply", b"append n 0 0 3", b"set t 0 0 0", b"add x 0 0 1"),
    b"cas n 0 0 2 1",
):
    for data in (b"xxx\r\n", b"x\r\n", b"\r\n", b"xx\n", b"xxxx\r\n", b"xx\r\r\n", b"xx\rn"):
        script = SETUP + line + b"\r\n" + data + b"get n t x\r\n" * 3
        SCRIPTS[f"{line.decode()} {data!r}"] = script
for name, value in (("just fits", MEBIBYTE - 60), ("is too large", MEBIBYTE - 59)):
    for verb in (b"set", b"add", b"replace", b"append", b"prepend", b"cas"):
        for end in (b"", b" noreply"):
            line = verb + b" n 0 0 #" + (b" 1" if verb == b"cas" else b"") + end
            SCRIPTS[f"{line.decode()} {name}"] = SETUP + block(line, b"v" * value) + CHECK
SCRIPTS["flags take space"] = block(b"set n 1 0 #", b"v" * (MEBIBYTE - 60)) + b"get n\r\n"
SCRIPTS["appended beyond the limit"] = (
    block(b"set n 0 0 #", b"v" * 600_000) + block(b"append n 0 0 #", b"w" * 600_000) + b"get n\r\n"
)
SCRIPTS["a length that is never met"] = b"set n 0 0 2147483645\r\nxx\r\n"
SCRIPTS["a block that is cut"] = b"set n 0 0 10\r\nxx\r\n"
SCRIPTS["a line that is cut"] = SETUP + b"get n"
SCRIPTS["LF alone"] = b"set n 0 0 1\nx\r\nget n\n"
SCRIPTS["many keys"] = SETUP + b"get " + b"n x " * 3000 + b"\r\nget n\r\n"
SCRIPTS["many keys, one too long"] = b"get " + b"n " * 50 + TOO_LONG_KEY + b"\r\nget n\r\n"
SCRIPTS["long get after blanks"] = SETUP + b" " * 90 + b"get " + b"n x " * 3000 + b"\r\nget n\r\n"
SCRIPTS["quit in the middle"] = SETUP + b"get n\r\nquit\r\nget t\r\n"
SCRIPTS["prefix statistics"] = (
    b"stats detail on\r\nstats reset\r\n"
    + block(b"set foo:a 0 0 #", b"1")
    + block(b"set foo:b:c 0 0 # noreply", b"1")
    + b"get foo:x foo:a plain :x a:\r\ngat 0 foo:a\r\ndelete foo:a\r\ndelete bar:x noreply\r\n"
    + b"touch foo:a 1\r\nincr foo:a 1\r\nset zip:a 0 0 -1\r\n"
    + block(b"set zap:a 0 0 #", b"x" * (MEBIBYTE + 1))
    + b"set zop:a 0 0 1\r\nxxx\r\nstats detail dump\r\nstats reset\r\nstats detail dump\r\n"
    + b"stats detail off\r\n"
)
SCRIPTS["sizes"] = (
    b"stats sizes_disable\r\nset a 0 0 1\r\nx\r\nstats sizes_enable\r\n"
    + block(b"set b 0 0 #", b"x")
    + block(b"set c 1 0 #", b"x")
    + block(b"set d 0 0 #", b"x" * 500)
    + block(b"set e 0 0 #", b"x" * 501)
    + b"stats sizes\r\nstats sizes_disable\r\nstats sizes\r\n"
)


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS.keys())
def test_a_script_has_the_same_replies(both: tuple[Any, Any], script: bytes) -> None:
    real, embedded = both
    expected = normalized(real.raw(script))
    deadline = time.monotonic() + PATIENCE
    # memcached's crawler may not be done yet with what an earlier script asked of it.
    while b"BUSY" in expected and time.monotonic() < deadline:
        time.sleep(0.05)
        real.flush()
        expected = normalized(real.raw(script))

    assert normalized(embedded.raw(script)) == expected


@pytest.mark.parametrize("what", ["", " items", " slabs"])
def test_statistics_have_the_same_names(
    memcached_factory: Any, memcached_version: str, what: str
) -> None:
    names = []
    with EmbeddedServer(version=memcached_version) as embedded:
        for address in (memcached_factory().address, embedded.address):
            server = Server("", address)
            server.raw(SETUP + block(b"set l 0 0 #", b"v" * 1000) + b"get n x\r\n")
            reply = server.raw(b"stats" + what.encode() + b"\r\n")
            names.append([line.split(b" ")[:2] for line in reply.splitlines()])

    assert names[1] == names[0]
    assert len(names[0]) > 30


def test_settings_are_some_of_the_same_names_in_the_same_order(both: tuple[Any, Any]) -> None:
    real, embedded = (
        [line.split(b" ")[1] for line in server.raw(b"stats settings\r\n").splitlines()[:-1]]
        for server in both
    )

    assert embedded == [name for name in real if name in embedded]
    assert len(embedded) > 50


def test_items_are_in_the_same_slab_classes(both: tuple[Any, Any]) -> None:
    script = b"".join(
        block(b"set k%d 0 0 #" % size, b"v" * size)
        for size in (0, 1, 36, 37, 60, 61, 100, 1000, 5000, 10_000, 100_000, 500_000, 700_000)
    )
    found = []
    for server in both:
        server.raw(script)
        reply = server.raw(b"lru_crawler metadump all\r\n")
        found.append(normalized(reply))

    assert found[1] == found[0]
    assert found[0].count(b"cls=") == 13


def test_metadump_is_refused_in_a_pipeline(both: tuple[Any, Any]) -> None:
    script = b"version\r\nlru_crawler metadump all\r\nmn\r\n"
    real, embedded = (normalized(server.raw(script)) for server in both)

    assert embedded == real
    assert b"cannot pipeline" in real


def test_a_crawler_that_is_disabled_does_nothing(both: tuple[Any, Any]) -> None:
    deadline = time.monotonic() + PATIENCE
    replies = []
    for server in both:
        said = [server.raw(b"lru_crawler disable\r\n")]
        # memcached's crawler takes a while to stop.
        while (reply := server.raw(b"lru_crawler crawl all\r\n"))[:6] != b"CLIENT":
            assert time.monotonic() < deadline
        said.append(reply)
        words = (b"metadump all", b"metadump x", b"mgdump all", b"tocrawl 0", b"enable", b"enable")
        said += [server.raw(b"lru_crawler " + word + b"\r\n") for word in words]
        replies.append(said)

    assert replies[1] == replies[0]


def test_cachedump_lists_items(both: tuple[Any, Any]) -> None:
    script = block(b"set a 0 0 #", b"1") + block(b"set b 0 0 #", b"22")
    deadline = time.monotonic() + PATIENCE
    found = []
    for server in both:
        server.raw(script)
        reply = b""
        # memcached lists items only after it has moved them to its cold segment.
        while reply.count(b"ITEM") != 2 and time.monotonic() < deadline:
            reply = server.raw(b"stats cachedump 1 0\r\n")
        found.append(reply)

    assert found[1] == found[0] == b"ITEM b [2 b; 0 s]\r\nITEM a [1 b; 0 s]\r\nEND\r\n"


@pytest.mark.parametrize("line", ["cas n 5 0 1 {}", "cas n 5 0 1 {} noreply", "cas n 5 0 1 {} x"])
def test_cas_with_the_right_token(both: tuple[Any, Any], line: str) -> None:
    replies = []
    for server in both:
        gets = server.raw(SETUP + b"gets n\r\n")
        token = gets.splitlines()[-3].split()[-1].decode()
        command = line.format(token).encode() + b"\r\nv\r\n"
        replies.append(normalized(server.raw(command + command + b"gets n\r\n")))

    assert replies[1] == replies[0]
    assert b"VALUE n 5 1 cas-0\r\nv\r\n" in replies[0]


def test_only_changes_give_a_new_cas_token(both: tuple[Any, Any]) -> None:
    commands = [
        *(SETUP, b"touch n 100\r\n", b"gat 100 n\r\n", b"incr n 1\r\n", b"decr n 10\r\n"),
        *(b"incr n 1000\r\n", b"append n 0 0 1\r\n5\r\n", b"add n 0 0 1\r\n5\r\n"),
        *(b"replace n 0 0 1\r\n5\r\n", b"incr n x\r\n", b"cas n 0 0 1 0\r\n5\r\n"),
    ]
    # One by one: newer versions change no item in place that a reply still refers to.
    real, embedded = (
        normalized(
            b"".join(server.raw(command) + server.raw(b"gets n\r\n") for command in commands)
        )
        for server in both
    )

    assert embedded == real


def test_items_expire_alike(both: tuple[Any, Any]) -> None:
    now = int(time.time())
    setup = b"".join(
        block(b"set %b 0 %d #" % (name, exptime), b"5")
        for name, exptime in [
            *((b"a", 1), (b"b", now + 1), (b"c", 100), (b"d", now + 100), (b"e", now - 100)),
            *((b"f", 2592000), (b"g", 2592001), (b"h", 100), (b"i", 1)),
        ]
    )
    setup += b"touch h 1\r\ngat 100 i\r\nget c d e f g\r\n"
    check = b"get a b c d e f g h i\r\ntouch a 10\r\nincr a 1\r\nappend a 0 0 1\r\nx\r\n"
    check += b"replace a 0 0 1\r\nx\r\ndelete a\r\nadd a 0 0 1\r\nx\r\nget a\r\n"
    first = [server.raw(setup) for server in both]
    time.sleep(2.2)
    second = [server.raw(check) for server in both]

    assert first[1] == first[0]
    assert second[1] == second[0]
    assert b"VALUE i" in second[0]
    assert b"VALUE h" not in second[0]


def test_a_flush_can_come_later(both: tuple[Any, Any]) -> None:
    for server in both:
        server.raw(SETUP)
    # Other items live on where a second flush has replaced the first.
    first = [server.raw(b"flush_all 2\r\nget n\r\n") for server in both]
    time.sleep(2.2)
    script = b"get n\r\n" + block(b"set n 0 0 #", b"5") + b"get n\r\n"
    second = [server.raw(script) for server in both]

    assert first[1] == first[0]
    assert second[1] == second[0] == b"END\r\nSTORED\r\nVALUE n 0 1\r\n5\r\nEND\r\n"
