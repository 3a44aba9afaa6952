"""What the values of `stats` become: numbers, switches and bytes, and never an error."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cymemcache import MemcacheUnknownError
from cymemcache.stats import convert_stats, convert_stats_line

VALUES: list[tuple[bytes, bytes, Any]] = [
    (b"pid", b"123", 123),
    (b"bytes_read", b"18446744073709551615", 2**64 - 1),
    (b"items:1:age", b"-1", -1),
    (b"23:secs_since_last_cmd", b"0", 0),
    (b"version", b"1.6.18", b"1.6.18"),
    (b"version", b"5", b"5"),
    (b"libevent", b"2.1.12-stable", b"2.1.12-stable"),
    (b"rusage_user", b"1.250000", 1.25),
    (b"rusage_system", b"1:250000", 1.25),
    (b"growth_factor", b"1.25", 1.25),
    (b"hash_is_expanding", b"0", False),
    (b"slab_reassign_running", b"1", True),
    (b"slab_automove", b"2", True),
    (b"detail_enabled", b"no", b"no"),
    (b"cas_enabled", b"yes", b"yes"),
    (b"cas_enabled", b"1", True),
    (b"auth_enabled_sasl", b"yes", True),
    (b"auth_enabled_sasl", b"no", False),
    (b"umask", b"700", 0o700),
    (b"umask", b"8", b"8"),
    (b"inter", b"127.0.0.1", b"127.0.0.1"),
    (b"inter", b"0", b"0"),
    (b"stat_key_prefix", b":", b":"),
    (b"domain_socket", b"NULL", b"NULL"),
    (b"key", b"[5 b; 0 s]", b"[5 b; 0 s]"),
    (b"binding_protocol", b"auto-negotiate", b"auto-negotiate"),
    (b"new_in_some_version", b"", b""),
    (b"growth_factor", b"fast", b"fast"),
    (b"pid", b"9" * 5000, b"9" * 5000),
]


@pytest.mark.parametrize(("name", "text", "value"), VALUES, ids=ascii)
def test_a_value_becomes_what_it_means(name: bytes, text: bytes, value: Any) -> None:
    converted = convert_stats({name: text})
    assert converted == {name: value}
    assert type(converted[name]) is type(value)
    assert convert_stats_line(b"STAT " + name + b" " + text) == converted


def test_names_keep_their_order() -> None:
    names = [b"b", b"a", b"version", b"c"]
    assert list(convert_stats(dict.fromkeys(names, b"1"))) == names
    assert convert_stats({}) == {}


@given(st.dictionaries(st.sampled_from([name for name, _, _ in VALUES]), st.binary()))
def test_no_value_is_an_error(stats: dict[bytes, bytes]) -> None:
    converted = convert_stats(stats)
    assert converted.keys() == stats.keys()
    for name, value in converted.items():
        assert type(value) in (int, float, bool, bytes)
        if type(value) is bytes:
            assert value == stats[name]


@pytest.mark.parametrize("line", [b"", b"END", b"STAT", b"STAT ", b"OK", b"ITEM a b"])
def test_another_line_is_no_statistic(line: bytes) -> None:
    with pytest.raises(MemcacheUnknownError, match="stats"):
        convert_stats_line(line)
