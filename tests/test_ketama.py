"""KetamaHash and its core by themselves: what it is told, what it keeps, and that nothing moves.

That its placement is libmemcached's is tested against libmemcached (integration/test_libmemcached).
"""

from __future__ import annotations

import copy
import functools
import hashlib
import pickle
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cymemcache
from cymemcache import hashing, ketama
from cymemcache.core import ketama_c, ketama_py
from cymemcache.ketama import KetamaHash

NODES = [f"10.0.0.{i}:{11211 + i % 2}" for i in range(5)]
KEYS = [f"user:{i}" for i in range(500)] + [b"bytes", "größe", "ключ", "x" * 250, ""]
BOTH = pytest.mark.parametrize("weighted", [True, False])


@pytest.fixture(autouse=True, params=["c", "py"])
def on(request, monkeypatch):
    """The core that KetamaHash uses: each twin in turn."""
    core = ketama_c if request.param == "c" else ketama_py
    for name in ("KetamaTable", "md5_words", "one_at_a_time"):
        monkeypatch.setattr(ketama, name, getattr(core, name))
    return core


def placement(hasher, keys=KEYS):
    return [hasher.get_node(key) for key in keys]


def test_it_is_where_hashers_are_looked_for():
    assert hashing.KetamaHash is cymemcache.KetamaHash is KetamaHash


# -- the hasher --------------------------------------------------------------------------------


@BOTH
def test_a_new_hasher_is_empty(weighted):
    hasher = KetamaHash(weighted=weighted)
    assert hasher.nodes == []
    assert hasher.get_node("key") is None
    assert hasher.table().nodes == ()


@BOTH
def test_placement_does_not_depend_on_how_the_nodes_came(weighted):
    hasher = KetamaHash(weighted=weighted)
    for node in reversed(NODES):
        hasher.add_node(node)
        hasher.get_node("key")
    assert placement(hasher) == placement(KetamaHash(NODES, weighted))


@pytest.mark.parametrize(
    ("weighted", "weights", "digest"),
    [
        (True, {}, "34fe2eeec9431ea9"),
        (True, {NODES[1]: 5}, "14ab6ed43c51a7b2"),
        (False, {}, "7e6c0f2a3256c4d7"),
        (False, {NODES[1]: 5}, "7a714fea43d8b4c3"),
    ],
)
def test_keys_stay_where_they_have_always_been(weighted, weights, digest):
    hasher = KetamaHash(NODES, weighted, weights)
    found = hashlib.sha256("\n".join(placement(hasher)).encode())
    assert found.hexdigest().startswith(digest)


@BOTH
def test_a_node_that_goes_takes_only_its_own_keys_with_it(weighted):
    before = KetamaHash(NODES, weighted).table()
    for gone in NODES:
        hasher = KetamaHash(list(NODES), weighted)
        hasher.remove_node(gone)
        stayed = [key for key in KEYS if before.choose(key) != gone]
        assert len(stayed) < len(KEYS)
        assert placement(hasher, stayed) == [before.choose(key) for key in stayed]


@BOTH
def test_removing_an_unknown_node_names_it(weighted):
    with pytest.raises(ValueError, match="b:2"):
        KetamaHash(["a:1"], weighted).remove_node("b:2")


@BOTH
def test_str_and_bytes_of_the_same_key_have_one_node(weighted):
    hasher = KetamaHash(NODES, weighted)
    for key in KEYS:
        text = key if isinstance(key, str) else key.decode()
        assert hasher.get_node(text) == hasher.get_node(text.encode())


@BOTH
def test_subclasses_of_str_and_bytes_count_as_what_they_are(weighted):
    class Text(str):
        def __format__(self, spec):
            return "formatted"

    class Plain(bytes):
        pass

    hasher = KetamaHash(NODES, weighted)
    for i in range(50):
        assert hasher.get_node(Text(f"key-{i}")) == hasher.get_node(f"key-{i}")
        assert hasher.get_node(Plain(b"key-%d" % i)) == hasher.get_node(f"key-{i}")


@BOTH
def test_keys_that_no_server_takes_are_left_to_the_client_to_refuse(weighted):
    hasher = KetamaHash(NODES, weighted)
    assert hasher.get_node("\ud800") in NODES
    assert hasher.get_node(7) == hasher.get_node("7")
    assert hasher.get_node(None) == hasher.get_node("None")


def test_a_cluster_can_make_it_with_options():
    make = functools.partial(KetamaHash, weights={"a:1": 3})
    hasher = make()
    hasher.add_node("a:1")
    hasher.add_node("b:2")
    assert placement(hasher) == placement(KetamaHash(["a:1", "b:2"], True, {"a:1": 3}))


# -- weights -----------------------------------------------------------------------------------


def test_keys_come_to_nodes_by_their_weights():
    hasher = KetamaHash(["a:1", "b:1", "c:1"], weights={"a:1": 2, "b:1": 5})
    parts = hasher.table().partition([f"key-{i}" for i in range(16_000)])
    shares = [len(parts[node]) / 2_000 for node in ("a:1", "b:1", "c:1")]
    assert shares == pytest.approx([2, 5, 1], rel=0.25)


@pytest.mark.parametrize("weight", [1, 0])
def test_a_node_without_a_weight_weighs_1_and_so_does_one_with_0(weight):
    hasher = KetamaHash(NODES, weights={NODES[0]: 3, NODES[1]: weight})
    assert placement(hasher) == placement(KetamaHash(NODES, weights={NODES[0]: 3}))


@BOTH
def test_a_weight_may_come_with_the_node_and_change_later(weighted):
    hasher = KetamaHash(weighted=weighted)
    for node in NODES:
        hasher.add_node(node, 2)
    hasher.add_node(NODES[0], weight=7)
    expected = {**dict.fromkeys(NODES, 2), NODES[0]: 7}
    assert hasher.nodes == NODES
    assert hasher.weights == expected
    assert placement(hasher) == placement(KetamaHash(NODES, weighted, expected))
    assert placement(hasher) != placement(KetamaHash(NODES, weighted))


@BOTH
def test_a_node_that_comes_back_has_the_weight_it_had(weighted):
    hasher = KetamaHash(list(NODES), weighted, {NODES[2]: 4})
    before = placement(hasher)
    hasher.remove_node(NODES[2])
    assert NODES[2] not in placement(hasher)
    hasher.add_node(NODES[2])
    assert placement(hasher) == before


def test_the_ring_of_weights_stays_while_the_only_heavy_node_is_away():
    hasher = KetamaHash(list(NODES), False, {NODES[2]: 2})
    before = dict(zip(KEYS, placement(hasher), strict=True))
    hasher.remove_node(NODES[2])
    moved = [key for key, node in before.items() if hasher.get_node(key) != node != NODES[2]]
    assert len(moved) < len(KEYS) / 4  # of the other ring, about four in five would have moved


@pytest.mark.parametrize("weight", [-1, 1 << 32])
def test_a_weight_out_of_range_is_refused(weight):
    with pytest.raises(ValueError, match="a:1"):
        KetamaHash(weights={"a:1": weight})
    hasher = KetamaHash(["a:1"])
    with pytest.raises(ValueError, match="b:2"):
        hasher.add_node("b:2", weight)
    assert hasher.nodes == ["a:1"]
    assert hasher.weights == {}


@pytest.mark.parametrize("weight", [1.5, "2", b"2"])
def test_a_weight_that_is_no_int_is_refused(weight):
    with pytest.raises(TypeError, match="a:1"):
        KetamaHash(weights={"a:1": weight})


def test_weights_given_and_weights_got_are_copies():
    weights = {NODES[0]: 3}
    hasher = KetamaHash(NODES, weights=weights)
    before = placement(hasher)
    weights[NODES[1]] = 9
    hasher.weights[NODES[1]] = 9
    hasher.add_node("a:1")
    hasher.remove_node("a:1")
    assert placement(hasher) == before


# -- the core ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 8, 55, 56, 63, 64, 65, 119, 120, 128, 1000])
def test_md5_is_that_of_hashlib(on, size):
    data = (bytes(range(251)) * 4)[:size]
    assert on.md5_words(data) == struct.unpack("<4I", hashlib.md5(data).digest())


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", 0),
        (b"a", 0xCA2E9442),
        (b"The quick brown fox jumps over the lazy dog", 0x519E91F5),
    ],
)
def test_one_at_a_time_has_the_published_values(on, data, expected):
    assert on.one_at_a_time(data) == expected


@pytest.mark.parametrize("data", ["text", None, 7])
def test_the_hash_functions_take_bytes(on, data):
    for function in (on.md5_words, on.one_at_a_time):
        with pytest.raises(TypeError):
            function(data)


@given(st.binary(max_size=200))
def test_twins_hash_alike(data):
    assert ketama_c.one_at_a_time(data) == ketama_py.one_at_a_time(data)
    assert ketama_c.md5_words(data) == ketama_py.md5_words(data)


any_key = st.one_of(st.text(st.characters(exclude_categories=())), st.binary(), st.integers())


@given(
    st.lists(st.tuples(st.integers(0, 0xFFFFFFFF), st.integers(0, 3)), min_size=1, max_size=50),
    st.lists(any_key, max_size=9),
    st.booleans(),
)
def test_twins_place_alike(points, keys, md5):
    compiled, pure = (twin.KetamaTable("abcd", points, md5) for twin in (ketama_c, ketama_py))
    assert compiled.partition(keys) == pure.partition(keys)
    assert [compiled.choose(key) for key in keys] == [pure.choose(key) for key in keys]


@pytest.mark.parametrize("md5", [True, False])
def test_a_key_belongs_to_the_first_point_from_its_place_on(on, md5):
    place = on.md5_words(b"key")[0] if md5 else on.one_at_a_time(b"key")
    rings = {
        "at": [(place, 0), (place - 1, 1), (place + 1, 2)],
        "after": [(place - 1, 1), (place + 1, 0), (place + 2, 2)],
        "around the end": [(place - 2, 0), (place - 1, 1)],
        "shared": [(place, 2), (place, 0), (place, 1)],
    }
    for ring in rings.values():
        assert on.KetamaTable("abc", ring, md5).choose("key") == "a"


def test_the_ends_of_the_ring_are_places(on):
    table = on.KetamaTable(["a", "b"], [(0, 0), (0xFFFFFFFF, 1)], True)
    assert table.choose("key") == "b"


@pytest.mark.parametrize("point", [(-1, 0), (1 << 32, 0), (0, -1), (0, 1), (1 << 70, 0)])
def test_a_point_that_cannot_be_is_refused(on, point):
    with pytest.raises(ValueError, match="no such point"):
        on.KetamaTable(["a"], [(5, 0), point], True)


def test_nodes_without_points_are_refused(on):
    with pytest.raises(ValueError, match="need points"):
        on.KetamaTable(["a"], [], True)


def test_no_nodes(on):
    table = on.KetamaTable([], [], True)
    assert table.choose("key") is None
    assert table.partition([]) == {}
    with pytest.raises(ValueError, match="no nodes"):
        table.partition(["key"])


def test_a_node_that_is_no_str_is_refused(on):
    with pytest.raises(TypeError, match="nodes must be str"):
        on.KetamaTable([("host", 11211)], [(0, 0)], True)


@BOTH
def test_partition_keeps_the_order_of_keys_and_of_first_appearance(weighted):
    table = KetamaHash(NODES, weighted).table()
    expected = {}
    for key in KEYS:
        expected.setdefault(table.choose(key), []).append(key)
    assert list(table.partition(iter(KEYS)).items()) == list(expected.items())


@BOTH
@pytest.mark.parametrize(
    "clone", [copy.copy, copy.deepcopy, lambda table: pickle.loads(pickle.dumps(table))]
)
def test_a_copied_table_chooses_alike(weighted, clone):
    table = KetamaHash(NODES, weighted).table()
    copied = clone(table)
    assert copied.nodes == table.nodes
    assert copied.partition(KEYS) == table.partition(KEYS)
