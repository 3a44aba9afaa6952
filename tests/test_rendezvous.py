"""Which node a key belongs to: both twins give what the rest of a fleet computes."""

from __future__ import annotations

import copy
import functools
import hashlib
import importlib
import pickle
import threading
from enum import Enum

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymemcache.client.murmur3 import murmur3_32 as reference_hash
from pymemcache.client.rendezvous import RendezvousHash as ReferenceHasher

# MurmurHash3_x86_32 as published: data, seed, hash.
VECTORS = [
    ("", 0, 0),
    ("", 1, 0x514E28B7),
    ("", 0xFFFFFFFF, 0x81F16F39),
    ("\x00", 0, 0x514E28B7),
    ("\x00\x00", 0, 0x30F4C306),
    ("\x00\x00\x00", 0, 0x85F0B427),
    ("\x00\x00\x00\x00", 0, 0x2362F9DE),
    ("\x21", 0, 0x72661CF4),
    ("\x21\x43", 0, 0xA0F7B07A),
    ("\x21\x43\x65", 0, 0x7E4A8634),
    ("\x21\x43\x65\x87", 0, 0xF55B516B),
    ("\x21\x43\x65\x87", 0x5082EDEE, 0x2362F9DE),
    ("\xff\xff\xff\xff", 0, 0x76293B50),
    ("test", 0, 0xBA6BD213),
    ("test", 0x9747B28C, 0x704B81DC),
    ("a", 0x9747B28C, 0x7FA09EA6),
    ("aa", 0x9747B28C, 0x5D211726),
    ("aaa", 0x9747B28C, 0x283E0130),
    ("aaaa", 0x9747B28C, 0x5A97808A),
    ("ab", 0x9747B28C, 0x74875592),
    ("abc", 0x9747B28C, 0xC84A62DD),
    ("abcd", 0x9747B28C, 0xF0478627),
    ("Hello, world!", 0x9747B28C, 0x24884CBA),
    ("The quick brown fox jumps over the lazy dog", 0, 0x2E4FF723),
    ("The quick brown fox jumps over the lazy dog", 0x9747B28C, 0x2FA826CD),
]

# Texts whose characters take one, two and four bytes each, lone surrogates among them.
any_text = st.one_of(
    st.text(),
    st.text(st.characters(max_codepoint=0x7F)),
    st.text(st.characters(max_codepoint=0xFF)),
    st.text(st.characters(exclude_categories=(), max_codepoint=0xFFFF)),
)
any_key = st.one_of(any_text, st.binary(), st.integers(), st.none())


def make_nodes(count):
    """Names with lengths that leave any number of bytes over after their last block of four."""
    return [f"cache-{i}.example.net:{11211 + i % 3}" for i in range(count)]


def make_keys(count):
    forms = [
        lambda i: f"user:{i}:profile",
        lambda i: f"session/{i:x}".encode(),
        lambda i: f"größe-{i}",
        lambda i: f"ключ:{i}",
        lambda i: f"😀{i}",
    ]
    return [forms[i % 5](i) for i in range(count)]


def both_twins():
    return [importlib.import_module(f"cymemcache.core.rendezvous_{twin}") for twin in ("c", "py")]


@pytest.mark.parametrize(("data", "seed", "expected"), VECTORS)
def test_hash_has_the_published_values(core, data, seed, expected):
    assert core.murmur3_32(data, seed) == expected


def test_hash_takes_seed_zero_by_default_and_by_keyword(core):
    assert core.murmur3_32("test") == 0xBA6BD213
    assert core.murmur3_32(data="test", seed=0x9747B28C) == 0x704B81DC


@pytest.mark.parametrize("seed", [-1, 1 << 32, (1 << 40) + 7, True])
def test_hash_takes_its_seed_modulo_32_bits(core, seed):
    assert core.murmur3_32("some text", seed) == core.murmur3_32("some text", seed % (1 << 32))


@pytest.mark.parametrize("text", ["größe", "ключ", "日本語のキー", "😀😀", "a\ud800b", "ā" * 5000])
def test_hash_counts_characters_and_takes_their_low_bytes(core, text):
    low = "".join(chr(ord(character) & 0xFF) for character in text)
    assert core.murmur3_32(text) == core.murmur3_32(low)


@pytest.mark.parametrize("data", [b"bytes", None, 7, bytearray(b"x")])
def test_hash_refuses_what_is_no_str(core, data):
    with pytest.raises(TypeError, match="data must be a str"):
        core.murmur3_32(data)


@pytest.mark.parametrize("seed", ["1", 1.0, None])
def test_hash_refuses_a_seed_that_is_no_int(core, seed):
    with pytest.raises(TypeError):
        core.murmur3_32("text", seed)


@pytest.mark.parametrize(
    ("count", "digest"),
    [
        (1, "05aa95d093b14efeac2f351a431e331d4e0afbecae79283dd6fdeca6374076bc"),
        (2, "9ab870006cd78caed086b82dcdd1ff909b6e9640f9cf6815a06caf6b0e98c021"),
        (3, "3ca1b9fe35beecb31aef68cfcae5efe30b80554e1eb034d99b30ebf11c6ac039"),
        (5, "634c0d7cfccd4029a93df8eb0d5de3785822d118765233385e9a855ea326123d"),
        (16, "8ff0533bbe1a8134601301b7a79a1451d6a1994ed16eb2bcc4ae84dae8c9c3a8"),
        (64, "e4144450edc1ef2b025bc352adaa33ab46d9d30032f31a80179db7dd2b6eff2f"),
    ],
)
def test_ten_thousand_keys_stay_where_they_have_always_been(core, count, digest):
    table = core.RendezvousTable(make_nodes(count))
    chosen = [table.choose(key) for key in make_keys(10_000)]
    assert hashlib.sha256("\n".join(chosen).encode()).hexdigest() == digest


@pytest.mark.parametrize(
    ("key", "index"),
    [
        ("a", 3),
        ("user:42", 0),
        (b"user:42", 0),
        ("x" * 250, 2),
        ("größe", 1),
        ("ключ", 4),
        ("😀", 2),
        ("\ud800", 2),
        (42, 1),
        (None, 3),
        ("", 0),
    ],
)
def test_single_keys_stay_where_they_have_always_been(core, key, index):
    nodes = make_nodes(5)
    assert core.RendezvousTable(nodes).choose(key) == nodes[index]


@pytest.fixture(scope="module")
def placed_by_pymemcache():
    """10,000 keys of all kinds: each with a number of nodes, its place among those and among 64."""
    keys = ["", b"", "x" * 250, b"y" * 250, "ключ" * 60, 7, None, *make_keys(9_993)]
    cached = functools.cache(reference_hash)  # a node has one score, among however many others
    hashers = [ReferenceHasher(make_nodes(count), hash_function=cached) for count in range(65)]
    placed = []
    for i, key in enumerate(keys):
        count = 1 + i % 64
        placed.append((key, count, hashers[count].get_node(key), hashers[64].get_node(key)))
        cached.cache_clear()
    return placed


def test_placement_is_that_of_pymemcache(core, placed_by_pymemcache):
    tables = [core.RendezvousTable(make_nodes(count)) for count in range(65)]
    for key, count, among_some, among_64 in placed_by_pymemcache:
        assert tables[count].choose(key) == among_some
        assert tables[64].choose(key) == among_64


def test_choose_gives_the_node_object_that_was_given(core):
    nodes = [str(b"node-%d" % i, "ascii") for i in range(5)]
    chosen = core.RendezvousTable(nodes).choose("key")
    assert any(chosen is node for node in nodes)


def test_bytes_count_as_their_repr(core):
    table = core.RendezvousTable(make_nodes(16))
    for i in range(50):
        assert table.choose(b"key-%d" % i) == table.choose(f"b'key-{i}'")


@pytest.mark.parametrize(
    "key", [b"", b"it's", b'"', b"\\", b"\x7f", b"\n", "größe".encode(), b"x" * 1021, b"x" * 1022]
)
def test_bytes_of_all_kinds_count_as_their_repr(core, key):
    table = core.RendezvousTable(make_nodes(64))
    for end in range(20):
        longer = b"%b%d" % (key, end)
        assert table.choose(longer) == table.choose(repr(longer))


class Color(str, Enum):  # noqa: UP042 - what is formatted is not the text
    RED = "red"
    GREEN = "größe"


class Text(str):
    def __format__(self, spec):
        return "formatted"

    __str__ = __repr__ = __format__


class Data(bytes):
    def __format__(self, spec):
        return "formatted"

    __str__ = __repr__ = __format__


def test_str_and_bytes_of_any_class_count_as_what_is_sent_of_them(core):
    table = core.RendezvousTable(make_nodes(64))
    for i in range(50):
        assert table.choose(Text(f"key-{i}")) == table.choose(f"key-{i}")
        assert table.choose(Data(b"key-%d" % i)) == table.choose(b"key-%d" % i)
    for color in Color:
        assert table.choose(color) == table.choose(color.value)
    assert list(table.partition([Color.RED, "red"]).values()) == [[Color.RED, "red"]]


def test_other_keys_count_as_they_are_formatted(core):
    table = core.RendezvousTable(make_nodes(64))
    for i in range(50):
        assert table.choose(i) == table.choose(str(i))


def test_an_error_of_a_key_propagates(core):
    class Broken:
        def __format__(self, spec):
            raise LookupError("mine")

    table = core.RendezvousTable(make_nodes(3))
    with pytest.raises(LookupError, match="mine"):
        table.choose(Broken())
    with pytest.raises(LookupError, match="mine"):
        table.partition(["key", Broken()])
    assert table.choose("key") in make_nodes(3)


# U+0161 has the low byte of "a", so that these nodes have equal scores for whatever key.
@pytest.mark.parametrize("nodes", [["a", "\u0161"], ["\u0161", "a"], ["\u0161", "a", "a"]])
def test_of_equal_scores_the_greater_string_wins(core, nodes):
    table = core.RendezvousTable(nodes)
    assert {table.choose(f"key-{i}") for i in range(50)} == {"\u0161"}
    assert table.choose("key") == ReferenceHasher(nodes).get_node("key")


def test_a_node_given_twice_changes_nothing(core):
    nodes = make_nodes(4)
    once = core.RendezvousTable(nodes)
    twice = core.RendezvousTable([*nodes, *nodes])
    keys = make_keys(100)
    assert twice.partition(keys) == once.partition(keys)


def test_removing_a_node_moves_only_its_own_keys(core):
    nodes = make_nodes(10)
    keys = make_keys(2_000)
    before = core.RendezvousTable(nodes)
    for gone in nodes:
        after = core.RendezvousTable([node for node in nodes if node != gone])
        stayed = [key for key in keys if before.choose(key) != gone]
        assert len(stayed) < len(keys)
        assert [after.choose(key) for key in stayed] == [before.choose(key) for key in stayed]


def test_keys_spread_over_all_nodes(core):
    parts = core.RendezvousTable(make_nodes(10)).partition(make_keys(10_000))
    assert len(parts) == 10
    assert all(800 < len(keys) < 1_200 for keys in parts.values())


def test_order_of_nodes_does_not_matter(core):
    nodes = make_nodes(7)
    forwards = core.RendezvousTable(nodes)
    backwards = core.RendezvousTable(nodes[::-1])
    for key in make_keys(200):
        assert forwards.choose(key) == backwards.choose(key)


def test_partition_keeps_the_order_of_keys_and_of_first_appearance(core):
    keys = make_keys(300)
    table = core.RendezvousTable(make_nodes(6))
    expected = {}
    for key in keys:
        expected.setdefault(table.choose(key), []).append(key)
    parts = table.partition(keys)
    assert list(parts.items()) == list(expected.items())
    assert all(type(part) is list for part in parts.values())


@pytest.mark.parametrize("container", [list, tuple, iter, dict.fromkeys])
def test_partition_takes_any_iterable(core, container):
    table = core.RendezvousTable(make_nodes(3))
    assert table.partition(container(make_keys(20))) == table.partition(make_keys(20))


def test_partition_gives_back_the_very_keys_as_often_as_they_come(core):
    key = "".join(["twice", "-given"])
    parts = core.RendezvousTable(make_nodes(3)).partition([key, b"other", key])
    mine = [k for part in parts.values() for k in part if k is key]
    assert len(mine) == 2


def test_no_nodes(core):
    table = core.RendezvousTable([])
    assert table.choose("key") is None
    assert table.partition([]) == {}
    with pytest.raises(ValueError, match="no nodes"):
        table.partition(["key"])


def test_no_keys(core):
    assert core.RendezvousTable(make_nodes(2)).partition([]) == {}


@pytest.mark.parametrize("nodes", [[b"node"], ["node", 7], [None], [("host", 11211)]])
def test_a_node_that_is_no_str_is_refused(core, nodes):
    with pytest.raises(TypeError, match="nodes must be str"):
        core.RendezvousTable(nodes)


def test_a_table_does_not_follow_the_list_it_was_made_from(core):
    nodes = make_nodes(4)
    table = core.RendezvousTable(nodes)
    before = table.partition(make_keys(50))
    nodes.clear()
    assert table.nodes == tuple(make_nodes(4))
    assert table.partition(make_keys(50)) == before


@pytest.mark.parametrize(
    "clone", [copy.copy, copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))]
)
def test_a_copied_table_chooses_alike(core, clone):
    table = core.RendezvousTable(make_nodes(4))
    copied = clone(table)
    assert copied.nodes == table.nodes
    assert copied.partition(make_keys(50)) == table.partition(make_keys(50))


def test_threads_share_one_table(core):
    table = core.RendezvousTable(make_nodes(8))
    keys = make_keys(300)
    expected = table.partition(keys)
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(table.partition(keys))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 8


@given(any_text, st.integers(-(1 << 40), 1 << 40))
def test_twins_hash_alike_and_like_pymemcache(data, seed):
    expected = reference_hash(data, seed)
    assert [twin.murmur3_32(data, seed) for twin in both_twins()] == [expected, expected]


@given(st.lists(any_text, max_size=9), st.lists(any_key, max_size=9))
def test_twins_place_alike_and_like_pymemcache(nodes, keys):
    reference = ReferenceHasher(nodes)
    expected = [reference.get_node(key) for key in keys]
    compiled, pure = (twin.RendezvousTable(nodes) for twin in both_twins())
    assert [compiled.choose(key) for key in keys] == expected
    assert [pure.choose(key) for key in keys] == expected
    if nodes:
        assert list(compiled.partition(keys).items()) == list(pure.partition(keys).items())
