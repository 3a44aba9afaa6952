"""Serdes: the same bytes and flags as pymemcache, and nothing hostile gets through."""

from __future__ import annotations

import json
import logging
import math
import pickle
import subprocess
import sys
import tracemalloc
import zlib
from enum import IntEnum
from pathlib import Path
from types import SimpleNamespace

import pymemcache.serde as reference
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cymemcache
from cymemcache import serde, undecodable
from cymemcache.core.replies import DECODE_LATER, DECODE_RAW, DECODE_STOCK
from cymemcache.exceptions import (
    MemcacheDecompressionError,
    MemcacheError,
    MemcacheIllegalInputError,
)
from cymemcache.serde import (
    MISS,
    CompressedSerde,
    JSONSerde,
    LegacyWrappingSerde,
    PickleSerde,
)

LOGGER = "cymemcache"


class Text(str):
    pass


class Data(bytes):
    pass


class Number(int):
    pass


class Color(IntEnum):
    RED = 1


class Point:
    """An object that only pickle can store."""

    def __init__(self, x):
        self.x = x

    def __eq__(self, other):
        return type(other) is Point and other.x == self.x

    __hash__ = None


class Refusing:
    def __reduce__(self):
        raise pickle.PicklingError("not me")


class Unwilling:
    """Pickles well, but cannot be read: the error has a text of its own."""

    def __init__(self, text):
        self.text = text

    def __reduce__(self):
        return (refuse, (self.text,))


def refuse(text):
    raise LookupError(text)


VALUES = [
    b"",
    b"bytes",
    "",
    "text",
    "größe ключ 😀",
    0,
    -1,
    1 << 70,
    True,
    None,
    1.5,
    (1, "two", b"three"),
    ["list"],
    {"key": {"nested": [1, 2]}},
    Text("subclass"),
    Data(b"subclass"),
    Number(7),
    Color.RED,
    Point(3),
    bytearray(b"buffer"),
    "long " * 200,
    b"long " * 200,
    ["long"] * 30_000,
    bytes(range(256)) * 600,
]

plain_data = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(max_size=2_000),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
)
json_data = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 70), 1 << 70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
)


def on_the_wire(stored):
    """What a client sends: it encodes the str that stands for a number."""
    data, flags = stored
    return (data.encode() if isinstance(data, str) else bytes(data)), flags


def shown(value):
    return f"{type(value).__name__}-{repr(value)[:20]}"


def test_flags_are_those_of_pymemcache():
    names = ["FLAG_BYTES", "FLAG_PICKLE", "FLAG_INTEGER", "FLAG_LONG", "FLAG_COMPRESSED"]
    for name in [*names, "FLAG_TEXT"]:
        assert getattr(serde, name) == getattr(reference, name)
    assert serde.FLAG_JSON == 0x02000000  # Couchbase's


def test_the_flag_of_json_is_none_that_a_common_client_has_for_something_else():
    others = {
        "pymemcache, pylibmc, Django": [1, 2, 4, 8, 16],
        "Java (whalin)": [1 << bit for bit in range(15)],
        "Java (spymemcached)": [1, 2, *(kind << 8 for kind in range(1, 9))],
        "PHP": [*range(16), *(1 << bit for bit in range(4, 8))],
        "Ruby (dalli)": [1, 2, 4, 8],
        "JavaScript (memcached)": [2, 4, 8],
        ".NET (Enyim)": [0xFA52, *(0x0100 | code for code in range(19))],
    }
    for flags in others.values():
        assert not any(flag & serde.FLAG_JSON for flag in flags)


# Pickle


@pytest.mark.parametrize("value", VALUES, ids=shown)
@pytest.mark.parametrize("version", [0, 2, 4, pickle.HIGHEST_PROTOCOL])
def test_pickle_serde_writes_the_bytes_of_pymemcache(value, version):
    ours = PickleSerde(version).serialize("key", value)
    assert ours == reference.PickleSerde(version).serialize("key", value)


@pytest.mark.parametrize("value", VALUES, ids=shown)
def test_pickle_serde_and_pymemcache_read_each_other(value):
    for writer, reader in [
        (serde.pickle_serde, reference.pickle_serde),
        (reference.pickle_serde, serde.pickle_serde),
        (serde.pickle_serde, serde.pickle_serde),
    ]:
        data, flags = on_the_wire(writer.serialize("key", value))
        result = reader.deserialize("key", data, flags)
        assert result == value
        assert type(result) is type(value)


@given(plain_data)
def test_pickle_serde_gives_back_what_it_was_given(value):
    data, flags = on_the_wire(serde.pickle_serde.serialize("key", value))
    result = serde.pickle_serde.deserialize("key", data, flags)
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    ("value", "flags"),
    [
        (b"bytes", 0),
        ("text", serde.FLAG_TEXT),
        (7, serde.FLAG_INTEGER),
        (True, serde.FLAG_PICKLE),
        (Text("text"), serde.FLAG_PICKLE),
        (Data(b"bytes"), serde.FLAG_PICKLE),
        (Number(7), serde.FLAG_PICKLE),
        (Color.RED, serde.FLAG_PICKLE),
        (None, serde.FLAG_PICKLE),
    ],
    ids=shown,
)
def test_only_exact_types_escape_pickling(value, flags):
    assert serde.pickle_serde.serialize("key", value)[1] == flags


def test_the_highest_protocol_is_the_default():
    assert serde.DEFAULT_PICKLE_VERSION == pickle.HIGHEST_PROTOCOL
    for serializer in [
        serde.python_memcache_serializer,
        serde.get_python_memcache_serializer(),
        PickleSerde()._serialize_func,
        serde.pickle_serde._serialize_func,
    ]:
        assert serializer.keywords["pickle_version"] == pickle.HIGHEST_PROTOCOL


@pytest.mark.parametrize("version", [0, 1, 2, 3, 4, None])
def test_the_pickle_version_can_be_read_from_a_serde(version):
    serializer = PickleSerde(pickle_version=version)._serialize_func
    assert serializer.keywords["pickle_version"] == version
    assert serializer("key", [1]) == (pickle.dumps([1], version), serde.FLAG_PICKLE)


def test_functions_do_what_the_serde_does():
    for value in (b"bytes", "text", 7, [1, 2]):
        stored = serde.python_memcache_serializer("key", value)
        assert stored == serde.pickle_serde.serialize("key", value)
        assert serde.python_memcache_deserializer("key", *on_the_wire(stored)) == value


def test_a_pickling_error_propagates():
    with pytest.raises(pickle.PicklingError, match="not me"):
        serde.pickle_serde.serialize("key", Refusing())


@pytest.mark.parametrize("make", [PickleSerde, JSONSerde, CompressedSerde])
def test_text_that_utf8_cannot_hold_names_the_value(make):
    with pytest.raises(MemcacheIllegalInputError, match="value cannot be encoded as UTF-8"):
        make().serialize("key", "lone \ud800" * 100)


@pytest.mark.parametrize("make", [PickleSerde, JSONSerde, CompressedSerde])
def test_a_number_of_too_many_digits_names_the_value(make):
    with pytest.raises(MemcacheIllegalInputError, match="value cannot be stored"):
        make().serialize("key", 10**100_000)


@pytest.mark.parametrize("flag", [serde.FLAG_INTEGER, serde.FLAG_LONG])
@pytest.mark.parametrize(
    ("data", "value"), [(b"9", 9), (b"9 ", 9), (b"9   ", 9), (b"-12 ", -12), (b"0", 0)]
)
@pytest.mark.parametrize("make", [PickleSerde, JSONSerde])
def test_a_number_may_have_trailing_blanks(make, flag, data, value):
    assert make().deserialize("key", data, flag) == value


@pytest.mark.parametrize("flags", [0, 8, 64, 1 << 20, 0xFFFFFFC0])
@pytest.mark.parametrize("make", [PickleSerde, JSONSerde])
def test_flags_that_are_not_known_give_the_bytes(make, flags):
    assert make().deserialize("key", b"data", flags) == b"data"
    assert reference.pickle_serde.deserialize("key", b"data", flags) == b"data"


@pytest.mark.parametrize("flags", range(64))
def test_combined_flags_mean_what_they_mean_to_pymemcache(flags):
    data = b"12" if flags & 6 and not flags & 16 else pickle.dumps("x", 0)
    assert serde.pickle_serde.deserialize("key", data, flags) == (
        reference.pickle_serde.deserialize("key", data, flags)
    )


@pytest.fixture
def nothing_logged(monkeypatch):
    """No kind of value has been found undecodable before."""
    monkeypatch.setattr(undecodable, "_logged", set())


@pytest.mark.parametrize(
    ("data", "flags"),
    [
        (b"\xff", serde.FLAG_TEXT),
        (b"x", serde.FLAG_INTEGER),
        (b"12x", serde.FLAG_LONG),
        (b"9" * 10_000, serde.FLAG_INTEGER),
        (b"", serde.FLAG_PICKLE | serde.FLAG_INTEGER),  # what PHP stores for False
    ],
    ids=shown,
)
@pytest.mark.parametrize("make", [PickleSerde, JSONSerde])
def test_bytes_that_their_flags_call_text_or_a_number_are_a_miss_or_raise(make, data, flags):
    assert make().deserialize("key", data, flags) is MISS
    with pytest.raises(ValueError, match=r".") as caught:
        make(on_error="raise").deserialize("key", data, flags)
    assert "'key'" in caught.value.__notes__[0]


def test_a_corrupt_pickle_is_a_miss_that_is_logged_once(caplog, nothing_logged):
    """Repaired: it became None without a word."""
    caplog.set_level(logging.DEBUG, LOGGER)
    for key, reason in (("one", "first reason"), ("two", "another"), ("three", "a third")):
        data = pickle.dumps(Unwilling(reason))
        assert serde.pickle_serde.deserialize(key, data, serde.FLAG_PICKLE) is MISS
    assert [record.levelno for record in caplog.records] == [
        logging.WARNING,
        logging.DEBUG,
        logging.DEBUG,
    ]
    first, second, _ = caplog.records
    assert "'one'" in first.getMessage()
    assert "LookupError: first reason" in first.getMessage()
    assert first.exc_info is not None
    assert "'two'" in second.getMessage()
    assert second.exc_info is None


def test_each_kind_of_value_and_error_is_logged_for_itself(caplog, nothing_logged):
    for data, flags in [
        (pickle.dumps(Unwilling("reason")), serde.FLAG_PICKLE),
        (b"", serde.FLAG_PICKLE),
        (b"x", serde.FLAG_INTEGER),
        (b"y", serde.FLAG_LONG),  # of the same kind
        (b"\xff", serde.FLAG_TEXT),
        (b"garbage", serde.FLAG_COMPRESSED),
    ]:
        for _ in range(3):
            assert serde.compressed_serde.deserialize("key", data, flags) is MISS
    assert [record.args[0] for record in caplog.records] == [
        *("pickled", "pickled", "number", "text", "compressed")
    ]


def test_endless_kinds_do_not_fill_the_log(caplog, nothing_logged):
    for i in range(300):
        error = type(f"Error{i}", (Exception,), {})()
        assert undecodable.undecodable(error, "pickled", "key", "miss") is MISS
    assert len(caplog.records) == len(undecodable._logged) == 100


def test_an_error_without_a_text_is_logged_by_its_type(caplog, monkeypatch, nothing_logged):
    class Mute(Exception):
        def __str__(self):
            raise RuntimeError("no text")

    def loads(data):
        raise Mute

    monkeypatch.setattr(pickle, "loads", loads)
    assert serde.pickle_serde.deserialize("key", b"data", serde.FLAG_PICKLE) is MISS
    assert "Mute" in caplog.records[0].message


@pytest.mark.parametrize(
    "data", [b"", b"garbage", pickle.dumps([1])[:-1], b"cnowhere\nNothing\n.", b"\x80\xff."]
)
def test_whatever_is_no_pickle_is_a_miss_or_raises(data):
    assert serde.pickle_serde.deserialize("key", data, serde.FLAG_PICKLE) is MISS
    with pytest.raises((pickle.UnpicklingError, EOFError, ImportError, ValueError)) as caught:
        PickleSerde(on_error="raise").deserialize("key", data, serde.FLAG_PICKLE)
    assert "'key'" in caught.value.__notes__[0]


def test_on_error_raise_raises_the_error_itself():
    data = pickle.dumps(Unwilling("it was me"))
    with pytest.raises(LookupError, match="it was me"):
        PickleSerde(on_error="raise").deserialize("key", data, serde.FLAG_PICKLE)


@pytest.mark.parametrize("make", [PickleSerde, JSONSerde, CompressedSerde])
def test_on_error_must_be_one_of_two_words(make):
    with pytest.raises(ValueError, match="on_error must be 'miss' or 'raise', got 'ignore'"):
        make(on_error="ignore")


def test_a_subclass_that_does_not_call_init_can_read():
    class Own(PickleSerde):
        def __init__(self):
            self._serialize_func = serde.get_python_memcache_serializer(2)

    assert Own().serialize("key", [1]) == (pickle.dumps([1], 2), serde.FLAG_PICKLE)
    assert Own().deserialize("key", pickle.dumps([1]), serde.FLAG_PICKLE) == [1]
    assert Own().deserialize("key", b"garbage", serde.FLAG_PICKLE) is MISS


# JSON


@pytest.mark.parametrize(
    ("value", "data", "flags"),
    [
        (b"bytes", b"bytes", serde.FLAG_BYTES),
        ("größe", "größe".encode(), serde.FLAG_TEXT),
        (-7, b"-7", serde.FLAG_INTEGER),
        (True, b"true", serde.FLAG_JSON),
        (None, b"null", serde.FLAG_JSON),
        (1.5, b"1.5", serde.FLAG_JSON),
        ([1, "ключ"], '[1,"ключ"]'.encode(), serde.FLAG_JSON),
        ((1, 2), b"[1,2]", serde.FLAG_JSON),
        ({"a": {"b": []}}, b'{"a":{"b":[]}}', serde.FLAG_JSON),
        (Number(7), b"7", serde.FLAG_JSON),
        (Text("text"), b'"text"', serde.FLAG_JSON),
    ],
    ids=shown,
)
def test_json_serde_stores(value, data, flags):
    assert on_the_wire(JSONSerde().serialize("key", value)) == (data, flags)
    expected = list(value) if isinstance(value, tuple) else value
    assert JSONSerde().deserialize("key", data, flags) == expected


@given(json_data)
def test_json_serde_gives_back_what_it_was_given(value):
    data, flags = on_the_wire(JSONSerde(on_error="raise").serialize("key", value))
    result = JSONSerde(on_error="raise").deserialize("key", data, flags)
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize("value", [b"bytes", "text", 7], ids=shown)
def test_json_and_pickle_serdes_agree_on_plain_values(value):
    stored = serde.pickle_serde.serialize("key", value)
    assert JSONSerde().serialize("key", value) == stored
    assert JSONSerde().deserialize("key", *on_the_wire(stored)) == value


@pytest.mark.parametrize("value", [math.nan, math.inf, [-math.inf]], ids=repr)
def test_json_serde_writes_json_only(value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        JSONSerde().serialize("key", value)


@pytest.mark.parametrize(
    "text", ["NaN", "[Infinity]", '{"a":-Infinity}', "1e999", "[-1e400]", "1" * 400 + ".0"]
)
def test_json_serde_reads_no_number_that_it_would_not_write(text):
    assert JSONSerde().deserialize("key", text.encode(), serde.FLAG_JSON) is MISS
    with pytest.raises(ValueError, match=r"is not JSON|too large"):
        JSONSerde(on_error="raise").deserialize("key", text.encode(), serde.FLAG_JSON)


@pytest.mark.parametrize("number", [0.1, -0.0, 1e308, 5e-324, 1.7976931348623157e308, 1e-999])
def test_json_serde_reads_every_number_that_it_writes(number):
    data, flags = on_the_wire(JSONSerde().serialize("key", [number]))
    (result,) = JSONSerde().deserialize("key", data, flags)
    assert (result, math.copysign(1, result)) == (number, math.copysign(1, number))


BEFORE = 1 << 5  # the flag of earlier versions, and of text that a client of Java stored


@pytest.mark.parametrize(("flag", "other"), [(serde.FLAG_JSON, BEFORE), (BEFORE, serde.FLAG_JSON)])
def test_json_under_the_flag_of_another_version_is_a_miss_and_no_wrong_value(flag, other):
    written = on_the_wire(JSONSerde(flag=other).serialize("key", [1]))
    assert written == (b"[1]", other)
    assert JSONSerde(flag=flag).deserialize("key", *written) is MISS
    assert JSONSerde(flag=other).deserialize("key", *written) == [1]
    assert (
        CompressedSerde(serde=JSONSerde(flag=flag)).deserialize(
            "key", zlib.compress(b"[1]"), other | serde.FLAG_COMPRESSED
        )
        is MISS
    )


def test_the_flag_of_json_can_be_ones_own():
    own = JSONSerde(flag=1 << 16)
    assert own.serialize("key", [1]) == (b"[1]", 1 << 16)
    assert own.deserialize("key", b"[1]", 1 << 16) == [1]
    assert serde.stock_kind(own) == DECODE_STOCK


@pytest.mark.parametrize("flag", [0, 1, 1 << 4, 3 << 4, -1, 1 << 32, "32", None])
def test_the_flag_of_json_must_be_free(flag):
    with pytest.raises(ValueError, match="flag must be a number of 32 bits"):
        JSONSerde(flag=flag)


@pytest.mark.parametrize("value", [{1, 2}, object(), [b"bytes"], {(1, 2): 3}], ids=shown)
def test_json_serde_refuses_what_json_cannot_hold(value):
    with pytest.raises(TypeError, match=r"not JSON serializable|keys must be"):
        JSONSerde().serialize("key", value)


@pytest.mark.parametrize("flags", [serde.FLAG_PICKLE, serde.FLAG_PICKLE | serde.FLAG_JSON])
def test_json_serde_never_unpickles(monkeypatch, flags):
    def loads(data):
        raise AssertionError("unpickled")

    monkeypatch.setattr(pickle, "loads", loads)
    data = pickle.dumps(Unwilling("executed"))
    assert JSONSerde().deserialize("key", data, flags) is MISS
    with pytest.raises(ValueError, match="JSONSerde reads no pickles"):
        JSONSerde(on_error="raise").deserialize("key", data, flags)


@pytest.mark.parametrize(
    ("data", "flags"),
    [
        (b"", serde.FLAG_JSON),
        (b"{", serde.FLAG_JSON),
        (b'"\xff"', serde.FLAG_JSON),
        (b"[" * 1_000_000, serde.FLAG_JSON),
        (b"9" * 10_000, serde.FLAG_JSON),
    ],
    ids=shown,
)
def test_whatever_json_serde_cannot_decode_is_a_miss_or_raises(caplog, data, flags):
    caplog.set_level(logging.DEBUG, LOGGER)
    assert JSONSerde().deserialize("key", data, flags) is MISS
    assert "'key'" in caplog.records[0].getMessage()
    with pytest.raises((ValueError, RecursionError)):
        JSONSerde(on_error="raise").deserialize("key", data, flags)


# Compression


@pytest.mark.parametrize("value", VALUES, ids=shown)
@pytest.mark.parametrize("threshold", [0, 30, 400, 100_000])
def test_compressed_serde_writes_the_bytes_of_pymemcache(value, threshold):
    ours = CompressedSerde(min_compress_len=threshold)
    theirs = reference.CompressedSerde(min_compress_len=threshold)
    assert ours.serialize("key", value) == theirs.serialize("key", value)


@pytest.mark.parametrize("value", VALUES, ids=shown)
def test_compressed_serde_and_pymemcache_read_each_other(value):
    for writer, reader in [
        (serde.compressed_serde, reference.compressed_serde),
        (reference.compressed_serde, serde.compressed_serde),
        (serde.compressed_serde, serde.compressed_serde),
    ]:
        result = reader.deserialize("key", *on_the_wire(writer.serialize("key", value)))
        assert result == value
        assert type(result) is type(value)


@given(plain_data, st.integers(0, 50))
def test_compressed_serde_gives_back_what_it_was_given(value, threshold):
    compressed = CompressedSerde(min_compress_len=threshold)
    data, flags = on_the_wire(compressed.serialize("key", value))
    assert compressed.deserialize("key", data, flags) == value


def test_compression_that_does_not_pay_is_not_used():
    noise = bytes(range(256)) * 2
    stored = CompressedSerde(compress=lambda data: data + b"!").serialize("key", noise)
    assert stored == (noise, 0)
    equal = CompressedSerde(compress=lambda data: data[::-1]).serialize("key", noise)
    assert equal == (noise[::-1], serde.FLAG_COMPRESSED)


def test_the_digits_of_a_large_number_are_compressed():
    number = 10**1_000
    data, flags = serde.compressed_serde.serialize("key", number)
    assert flags == serde.FLAG_INTEGER | serde.FLAG_COMPRESSED
    assert len(data) < 100
    assert serde.compressed_serde.deserialize("key", data, flags) == number


def test_other_serdes_can_be_compressed():
    compressed = CompressedSerde(serde=JSONSerde())
    value = {"key": "long " * 200}
    data, flags = compressed.serialize("key", value)
    assert flags == serde.FLAG_JSON | serde.FLAG_COMPRESSED
    assert json.loads(zlib.decompress(data)) == value
    assert compressed.deserialize("key", data, flags) == value


def test_own_functions_compress():
    def compress(data):
        return b"packed:" + zlib.compress(data)

    def decompress(data):
        return zlib.decompress(data.removeprefix(b"packed:"))

    compressed = CompressedSerde(compress, decompress, serde.pickle_serde, 10)
    data, flags = compressed.serialize("key", b"long " * 50)
    assert data.startswith(b"packed:")
    assert compressed.deserialize("key", data, flags) == b"long " * 50


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 1 << 20, (1 << 20) + 1, 5_000_003])
@pytest.mark.parametrize("level", [0, 1, 9])
@pytest.mark.parametrize("piece", [b"\0", bytes(range(251)), b"some text of the cache's "])
def test_decompression_is_that_of_zlib(size, level, piece):
    value = (piece * (size // len(piece) + 1))[:size]
    data = zlib.compress(value, level)
    exact = CompressedSerde(max_decompressed_size=size)
    assert exact.deserialize("key", data, serde.FLAG_COMPRESSED) == value
    with_rest = exact.deserialize("key", data + b"rest", serde.FLAG_COMPRESSED)
    assert with_rest == zlib.decompress(data + b"rest")
    if size:
        with pytest.raises(MemcacheDecompressionError):
            CompressedSerde(max_decompressed_size=size - 1, on_error="raise").deserialize(
                "key", data, serde.FLAG_COMPRESSED
            )


@pytest.mark.parametrize("data", [b"", b"garbage", zlib.compress(b"value")[:-1], b"\x78\x9c"])
def test_what_is_not_compressed_is_a_miss_or_raises_as_zlib_does(data):
    with pytest.raises(zlib.error) as expected:
        zlib.decompress(data)
    assert serde.compressed_serde.deserialize("key", data, serde.FLAG_COMPRESSED) is MISS
    with pytest.raises(zlib.error) as caught:
        CompressedSerde(on_error="raise").deserialize("key", data, serde.FLAG_COMPRESSED)
    assert str(caught.value) == str(expected.value)


@pytest.mark.parametrize("decompress", [None, zlib.decompress])
def test_a_bomb_does_not_fill_the_memory(decompress):
    packer = zlib.compressobj()
    megabyte = bytes(1 << 20)
    bomb = b"".join([*(packer.compress(megabyte) for _ in range(300)), packer.flush()])
    options = {"decompress": decompress, "max_decompressed_size": 4 << 20}
    strict = CompressedSerde(**options, on_error="raise")
    tracemalloc.start()
    try:
        with pytest.raises(MemcacheDecompressionError, match="max_decompressed_size") as caught:
            strict.deserialize("key", bomb, serde.FLAG_COMPRESSED)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20
    assert str(4 << 20) in str(caught.value)
    assert isinstance(caught.value, MemcacheError)
    assert CompressedSerde(**options).deserialize("key", bomb, serde.FLAG_COMPRESSED) is MISS


def test_a_decompress_function_of_ones_own_is_checked_afterwards():
    limited = CompressedSerde(decompress=lambda data: data * 10, max_decompressed_size=50)
    assert limited.deserialize("key", b"12345", serde.FLAG_COMPRESSED) == b"12345" * 10
    assert limited.deserialize("key", b"123456", serde.FLAG_COMPRESSED) is MISS


def test_what_a_decompress_function_of_ones_own_raises_is_a_miss():
    def decompress(data):
        raise LookupError("no such codec")

    assert CompressedSerde(decompress=decompress).deserialize("key", b"data", 8) is MISS
    with pytest.raises(LookupError, match="no such codec"):
        CompressedSerde(decompress=decompress, on_error="raise").deserialize("key", b"data", 8)


@pytest.mark.parametrize("data", [b"garbage", zlib.compress(b"garbage")], ids=["zlib", "pickle"])
def test_on_error_is_that_of_the_serde_within_where_it_is_not_given(data):
    flags = serde.FLAG_COMPRESSED | serde.FLAG_PICKLE
    with pytest.raises((zlib.error, pickle.UnpicklingError)):
        CompressedSerde(serde=PickleSerde(on_error="raise")).deserialize("key", data, flags)
    with pytest.raises((zlib.error, pickle.UnpicklingError)):
        CompressedSerde(on_error="raise").deserialize("key", data, flags)


def test_values_that_are_not_compressed_have_no_limit():
    limited = CompressedSerde(max_decompressed_size=3)
    assert limited.deserialize("key", b"longer", 0) == b"longer"


@pytest.mark.parametrize("limit", [-1, 1.5, None, "1"])
def test_the_limit_must_be_a_number_of_bytes(limit):
    with pytest.raises(ValueError, match="max_decompressed_size must be an integer"):
        CompressedSerde(max_decompressed_size=limit)


@pytest.mark.parametrize("name", ["pickle_serde", "compressed_serde"])
def test_serdes_can_be_pickled_themselves(name):
    copied = pickle.loads(pickle.dumps(getattr(serde, name)))
    value = ["long"] * 1_000
    assert copied.deserialize("key", *copied.serialize("key", value)) == value


# Functions of the old style


def test_old_style_functions_are_called_as_they_are():
    def serializer(key, value):
        return f"{key}={value}".encode(), 0xDEADBEEF

    def deserializer(key, value, flags):
        return key, value, flags

    wrapped = LegacyWrappingSerde(serializer, deserializer)
    data, flags = wrapped.serialize("key", 1.5)
    assert (data, flags) == (b"key=1.5", 0xDEADBEEF)
    assert wrapped.deserialize("key", data, flags) == ("key", b"key=1.5", 0xDEADBEEF)


def test_without_old_style_functions_values_pass_through():
    wrapped = LegacyWrappingSerde(None, None)
    value = object()
    assert wrapped.serialize("key", value) == (value, 0)
    assert wrapped.deserialize("key", b"data", 17) == b"data"


# What the client asks


def test_stock_serdes_are_known():
    assert serde.stock_kind(None) == DECODE_RAW
    assert serde.stock_kind(serde.pickle_serde) == DECODE_STOCK
    assert serde.stock_kind(PickleSerde(2, on_error="raise")) == DECODE_STOCK
    assert serde.stock_kind(JSONSerde()) == DECODE_STOCK
    assert serde.stock_kind(serde.compressed_serde) == DECODE_LATER
    assert serde.stock_kind(reference.pickle_serde) == DECODE_LATER
    assert serde.stock_kind(SimpleNamespace(serialize=None, deserialize=None)) == DECODE_LATER


@pytest.mark.parametrize("base", [PickleSerde, JSONSerde])
def test_a_subclass_is_not_stock(base):
    assert serde.stock_kind(type("Own", (base,), {})()) == DECODE_LATER


@pytest.mark.parametrize("base", [PickleSerde, JSONSerde])
@pytest.mark.parametrize("name", ["serialize", "deserialize"])
def test_a_replaced_method_is_noticed(monkeypatch, base, name):
    own = base()
    setattr(own, name, lambda *arguments: None)
    assert serde.stock_kind(own) == DECODE_LATER
    assert serde.stock_kind(base()) == DECODE_STOCK
    monkeypatch.setattr(base, name, lambda *arguments: None)
    assert serde.stock_kind(base()) == DECODE_LATER


def test_a_replaced_serialize_function_is_noticed():
    own = PickleSerde()
    own._serialize_func = lambda key, value: (b"mine", 0)
    assert own.serialize("key", "value") == (b"mine", 0)
    assert serde.stock_kind(own) == DECODE_LATER


def test_old_style_functions_decide_each_for_their_direction():
    def function(*arguments):
        return arguments

    for wrapped, serialize, kind in [
        (LegacyWrappingSerde(None, None), None, DECODE_RAW),
        (LegacyWrappingSerde(function, None), function, DECODE_RAW),
        (LegacyWrappingSerde(None, function), None, DECODE_LATER),
        (LegacyWrappingSerde(function, function), function, DECODE_LATER),
    ]:
        assert serde.serialize_of(wrapped) is serialize
        assert serde.stock_kind(wrapped) == kind


def test_serialize_of_gives_the_method():
    assert serde.serialize_of(None) is None
    assert serde.serialize_of(serde.pickle_serde) == serde.pickle_serde.serialize


# The module


def test_objects_are_made_once():
    assert serde.pickle_serde is serde.pickle_serde
    assert serde.compressed_serde is serde.compressed_serde
    assert serde.compressed_serde._serde is serde.pickle_serde
    assert serde.python_memcache_serializer is serde.python_memcache_serializer


def test_all_names_can_be_imported():
    names = {}
    exec("from cymemcache.serde import *", names)
    assert set(serde.__all__) <= names.keys()
    assert set(serde.__all__) <= set(dir(serde))


def test_an_unknown_name_is_no_attribute():
    with pytest.raises(AttributeError, match="no attribute 'picle_serde'"):
        _ = serde.picle_serde


def test_importing_the_module_loads_nothing_heavy():
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import cymemcache.serde;"
        "print(*sorted({'pickle', 'zlib', 'json', 'logging'} & sys.modules.keys()))"
    )
    source = Path(cymemcache.__file__).parent.parent
    result = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, str(source)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == ""
