"""The embedded server answers as memcached does, whatever it is sent: random scripts to both."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from wire import LONG_KEY, TOO_LONG_KEY, normalized

keys = st.sampled_from([b"a", b"b", b"c", b"a:b", LONG_KEY, TOO_LONG_KEY, b"\xe4", b"noreply"])
numbers = st.sampled_from(
    [b"0", b"1", b"2", b"10", b"-1", b"4294967295", b"4294967296", b"2147483648"]
    + [b"x", b"+1", b"1\t"]
)
exptimes = st.sampled_from([b"0", b"0", b"1000", b"-1", b"2592001", b"4000000000", b"x"])
deltas = st.one_of(numbers, st.sampled_from([b"18446744073709551615", b"99", b"1000000"]))
values = st.one_of(
    st.sampled_from([b"", b"0", b"9", b"10", b"99", b"5 ", b"text", b"\r\n"]),
    st.just(b"18446744073709551615"),
    st.binary(max_size=40),
)
endings = st.sampled_from([b"", b"", b"", b" noreply", b" x", b" 0"])


@st.composite
def storage_commands(draw: st.DrawFn) -> bytes:
    verb = draw(
        st.sampled_from([b"set", b"set", b"add", b"replace", b"append", b"prepend", b"cas"])
    )
    value = draw(values)
    length = b"%d" % len(value) if draw(st.integers(0, 9)) else draw(numbers)
    words = [verb, draw(keys), draw(numbers), draw(exptimes), length]
    if verb == b"cas":
        words.append(draw(st.sampled_from([b"0", b"18446744073709551615", b"x"])))
    line = b" ".join(words) + draw(endings) + b"\r\n"
    return line + value + draw(st.sampled_from([b"\r\n"] * 9 + [b"\n"]))


def words(*parts: Any) -> st.SearchStrategy[bytes]:
    return st.tuples(*(st.just(p) if isinstance(p, bytes) else p for p in parts)).map(b" ".join)


lines = st.one_of(
    words(st.sampled_from([b"get", b"gets"]), st.lists(keys, max_size=5).map(b" ".join)),
    words(st.sampled_from([b"gat", b"gats"]), exptimes, st.lists(keys, max_size=3).map(b" ".join)),
    words(st.sampled_from([b"incr", b"decr"]), keys, deltas),
    words(b"touch", keys, exptimes),
    words(b"delete", keys),
    st.sampled_from([b"flush_all", b"version", b"mn", b"", b"bogus", b"get", b"stats reset"]),
)
commands = st.one_of(
    storage_commands(), st.tuples(lines, endings).map(lambda pair: b"".join(pair) + b"\r\n")
)
scripts = st.lists(commands, min_size=1, max_size=25).map(b"".join)

# Meta commands, binary requests and log watchers are not spoken by the embedded server.
UNSPOKEN = re.compile(rb"(^|\n) *(m[a-z]( |\r|\n)|watch|extstore|refresh_certs)")


@given(scripts)
@settings(max_examples=150, deadline=None)
def test_random_scripts_have_the_same_replies(
    running_memcached: Any, running_embedded: Any, script: bytes
) -> None:
    script = b"flush_all\r\n" + script
    expected = normalized(running_memcached.raw(script))

    assert normalized(running_embedded.raw(script)) == expected


pieces = st.sampled_from([b"", b" ", b"\r", b"\n", b"\r\n", b"\0", b"1", b"-", b"x", b"\x80"])


@st.composite
def broken_scripts(draw: st.DrawFn) -> bytes:
    """A script with some bytes put in, taken out or changed."""
    script = bytearray(draw(scripts))
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, len(script)))
        script[at : at + draw(st.integers(0, 2))] = draw(pieces)
    return bytes(script)


@given(broken_scripts().filter(lambda script: not UNSPOKEN.search(script)))
@settings(max_examples=150, deadline=None)
def test_broken_scripts_have_the_same_replies(
    running_memcached: Any, running_embedded: Any, script: bytes
) -> None:
    script = b"flush_all\r\n" + script
    expected = normalized(running_memcached.raw(script))

    assert normalized(running_embedded.raw(script)) == expected
