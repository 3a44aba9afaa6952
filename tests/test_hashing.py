"""RendezvousHash: the hasher of a cluster, on either twin of the core."""

from __future__ import annotations

import copy
import sys
import threading
from typing import Any

import pytest
from pymemcache.client.rendezvous import RendezvousHash as ReferenceHasher

from cymemcache import HashClient, KetamaHash, hashing, ketama

NODES = [f"10.0.0.{i}:11211" for i in range(6)]
KEYS = [f"user:{i}" for i in range(60)] + [b"bytes", "ключ", "größe", 7]


@pytest.fixture
def hasher_class(core, monkeypatch):
    monkeypatch.setattr(hashing, "RendezvousTable", core.RendezvousTable)
    return hashing.RendezvousHash


def placement(hasher):
    return [hasher.get_node(key) for key in KEYS]


def test_a_new_hasher_is_empty(hasher_class):
    hasher = hasher_class()
    assert hasher.nodes == []
    assert hasher.seed == 0
    assert hasher.get_node("key") is None


def test_it_places_keys_as_pymemcache_does(hasher_class):
    assert placement(hasher_class(list(NODES))) == placement(ReferenceHasher(NODES))


def test_placement_follows_added_and_removed_nodes(hasher_class):
    hasher = hasher_class()
    reference = ReferenceHasher()
    for node in NODES:
        hasher.add_node(node)
        reference.add_node(node)
        assert placement(hasher) == placement(reference)
    for node in NODES[1:]:
        hasher.remove_node(node)
        reference.remove_node(node)
        assert placement(hasher) == placement(reference)
    assert placement(hasher) == [NODES[0]] * len(KEYS)


def test_a_node_is_added_once(hasher_class):
    hasher = hasher_class()
    hasher.add_node("a:1")
    hasher.add_node("a:1")
    assert hasher.nodes == ["a:1"]
    hasher.remove_node("a:1")
    assert hasher.get_node("key") is None


def test_removing_an_unknown_node_names_it(hasher_class):
    hasher = hasher_class(["a:1"])
    with pytest.raises(ValueError, match="b:2"):
        hasher.remove_node("b:2")
    assert hasher.nodes == ["a:1"]


def test_the_callers_list_of_nodes_stays_the_callers(hasher_class):
    given = list(NODES)
    one, other = hasher_class(given), hasher_class(given)
    one.add_node("only:1")
    other.remove_node(NODES[0])
    assert given == list(NODES)
    given.clear()
    assert one.nodes == [*NODES, "only:1"]
    assert other.nodes == list(NODES[1:])


def test_changes_of_its_list_of_nodes_are_noticed(hasher_class):
    hasher = hasher_class(NODES)
    nodes = hasher.nodes
    before = placement(hasher)
    nodes.remove(NODES[2])
    assert placement(hasher) == placement(ReferenceHasher(nodes))
    nodes.append(NODES[2])
    assert placement(hasher) == before
    nodes[:] = ["only:1"]
    assert placement(hasher) == ["only:1"] * len(KEYS)


def test_nodes_assigned_from_outside_are_noticed(hasher_class):
    hasher = hasher_class(list(NODES))
    placement(hasher)
    hasher.nodes = NODES[:3]
    assert placement(hasher) == placement(ReferenceHasher(NODES[:3]))


@pytest.mark.parametrize("container", [tuple, iter, dict.fromkeys])
def test_any_iterable_of_nodes_will_do(hasher_class, container):
    hasher = hasher_class(container(NODES))
    hasher.add_node("another:1")
    assert hasher.nodes == [*NODES, "another:1"]
    assert placement(hasher) == placement(ReferenceHasher([*NODES, "another:1"]))


def test_a_seed_changes_the_placement_as_it_does_in_pymemcache(hasher_class):
    hasher = hasher_class(list(NODES), seed=17)
    assert hasher.seed == 17
    assert placement(hasher) == placement(ReferenceHasher(NODES, seed=17))
    assert placement(hasher) != placement(hasher_class(list(NODES)))


def test_a_hash_function_is_called_with_text_and_seed(hasher_class):
    calls = []

    def count(text, seed):
        calls.append((text, seed))
        return len(text)

    hasher = hasher_class(["a", "long", "bb"], 3, count)
    assert hasher.get_node("key") == "long"
    assert hasher.get_node(b"key") == "long"
    assert calls[:3] == [("a-key", 3), ("long-key", 3), ("bb-key", 3)]
    assert calls[3:] == [("a-b'key'", 3), ("long-b'key'", 3), ("bb-b'key'", 3)]


def test_of_equal_scores_of_a_hash_function_the_greater_string_wins(hasher_class):
    hasher = hasher_class(["b", "c", "a"], hash_function=lambda text, seed: 5)
    assert hasher.get_node("key") == "c"


@pytest.mark.parametrize("score", [-1, -7])
def test_negative_scores_choose_a_node_too(hasher_class, score):
    hasher = hasher_class(["a", "b"], hash_function=lambda text, seed: score)
    assert hasher.get_node("key") == "b"


def test_a_hash_function_may_be_replaced_afterwards(hasher_class):
    hasher = hasher_class(["a", "b"])
    hasher.hash_function = lambda text: text.startswith("a-")
    assert [hasher.get_node(f"key-{i}") for i in range(20)] == ["a"] * 20


def test_the_hash_function_of_a_hasher_is_bound_to_its_seed(hasher_class):
    assert hasher_class().hash_function("test") == 0xBA6BD213
    assert hasher_class(seed=0x9747B28C).hash_function("test") == 0x704B81DC


def test_the_core_places_with_the_usual_function_only(core, monkeypatch):
    asked = []

    class Table(core.RendezvousTable):
        def choose(self, key):
            asked.append(key)
            return super().choose(key)

    monkeypatch.setattr(hashing, "RendezvousTable", Table)
    hashing.RendezvousHash(["a"]).get_node("usual")
    hashing.RendezvousHash(["a"], seed=1).get_node("with a seed")
    hashing.RendezvousHash(["a"], hash_function=lambda text, seed: 0).get_node("own")
    assert asked == ["usual"]


def test_a_table_is_made_once_for_a_set_of_nodes(core, monkeypatch):
    made = []

    def make_table(nodes):
        made.append(tuple(nodes))
        return core.RendezvousTable(nodes)

    monkeypatch.setattr(hashing, "RendezvousTable", make_table)
    hasher = hashing.RendezvousHash(["a", "b"])
    made.clear()
    placement(hasher)
    assert made == [("a", "b")]
    hasher.add_node("c")
    placement(hasher)
    assert made == [("a", "b"), ("a", "b", "c")]


def test_a_node_that_is_no_str_is_refused(hasher_class):
    hasher = hasher_class([("host", 11211)])
    with pytest.raises(TypeError, match="nodes must be str"):
        hasher.get_node("key")


def test_a_deep_copy_goes_its_own_way(hasher_class):
    hasher = hasher_class(list(NODES))
    before = placement(hasher)
    copied = copy.deepcopy(hasher)
    copied.remove_node(NODES[0])
    assert placement(hasher) == before
    assert NODES[0] not in placement(copied)


# -- tables ------------------------------------------------------------------------------------


def shout(text, seed):
    return len(text) * 31 % 7 + seed


KINDS = {
    "usual": lambda nodes: hashing.RendezvousHash(nodes),
    "seed": lambda nodes: hashing.RendezvousHash(nodes, seed=17),
    "function": lambda nodes: hashing.RendezvousHash(nodes, hash_function=shout),
    "ketama": lambda nodes: KetamaHash(nodes),
    "ketama with weights": lambda nodes: KetamaHash(nodes, weights={NODES[1]: 3}),
    "ketama unweighted": lambda nodes: KetamaHash(nodes, weighted=False),
}


@pytest.fixture(params=KINDS)
def make(request, core, hasher_class, monkeypatch):
    """Makes hashers of one kind."""
    monkeypatch.setattr(ketama, "KetamaTable", core.KetamaTable)
    return KINDS[request.param]


def test_a_table_places_as_its_hasher_does(make):
    hasher = make(list(NODES))
    table = hasher.table()
    assert table.nodes == tuple(NODES)
    assert [table.choose(key) for key in KEYS] == placement(hasher)


def test_partition_is_the_choice_for_each_key_in_order(make):
    table = make(list(NODES)).table()
    expected = {}
    for key in KEYS:
        expected.setdefault(table.choose(key), []).append(key)
    assert list(table.partition(iter(KEYS)).items()) == list(expected.items())


def test_there_is_one_table_until_something_changes(make):
    hasher = make(list(NODES))
    table = hasher.table()
    placement(hasher)
    hasher.add_node(NODES[0])
    assert hasher.table() is table


def test_a_table_stays_as_it_is_and_the_next_one_follows(make):
    hasher = make(NODES)
    nodes = hasher.nodes
    table = hasher.table()
    before = [table.choose(key) for key in KEYS]
    hasher.remove_node(NODES[3])
    nodes.append("another:1")
    assert hasher.table().nodes == tuple(nodes)
    assert [hasher.table().choose(key) for key in KEYS] == placement(make(list(nodes)))
    assert table.nodes == tuple(NODES)
    assert [table.choose(key) for key in KEYS] == before


def test_a_table_without_nodes_has_no_place_for_keys(make):
    table = make(None).table()
    assert table.nodes == ()
    assert table.choose("key") is None
    assert table.partition([]) == {}
    with pytest.raises(ValueError, match="no nodes"):
        table.partition(["key"])


def test_a_table_follows_a_hash_function_that_is_replaced(hasher_class):
    hasher = hasher_class(["a", "b"])
    hasher.table()
    hasher.hash_function = lambda text: text.startswith("a-")
    assert hasher.table().partition(range(20)) == {"a": list(range(20))}


def test_a_table_follows_a_weight_that_changes():
    hasher = KetamaHash(list(NODES))
    table = hasher.table()
    hasher.add_node(NODES[0], weight=5)
    assert hasher.table() is not table
    assert [hasher.table().choose(key) for key in KEYS] == placement(
        KetamaHash(NODES, weights={NODES[0]: 5})
    )


@pytest.fixture
def busy_threads():
    """Threads take turns far more often than they would."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    yield
    sys.setswitchinterval(usual)


def test_threads_get_whole_tables_while_another_one_changes_the_nodes(make, busy_threads):
    keys = KEYS[::8]
    guests = NODES[4:]
    hasher = make(NODES[:4])
    expected = {}
    for present in ([], guests[:1], guests[1:], guests):
        nodes = [*NODES[:4], *present]
        expected[frozenset(nodes)] = [make(nodes).table().choose(key) for key in keys]
    done = threading.Event()
    faults = []

    def read():
        try:
            while True:
                last = done.is_set()
                table = hasher.table()
                wanted = expected[frozenset(table.nodes)]
                assert [table.choose(key) for key in keys] == wanted
                assert hasher.get_node("key") in NODES
                if last:
                    assert set(table.nodes) == set(NODES)
                    return
        except BaseException as error:
            faults.append(error)

    readers = [threading.Thread(target=read) for _ in range(31)]
    for reader in readers:
        reader.start()
    for _ in range(3):
        for change in (hasher.add_node, hasher.remove_node):
            for guest in guests:
                change(guest)
                hasher.table()
    for guest in guests:
        hasher.add_node(guest)
    done.set()
    for reader in readers:
        reader.join()
    assert faults == []


@pytest.mark.parametrize("seed", [0, 1])
def test_a_table_leaves_pairs_with_a_server_key_to_the_cluster(seed: int) -> None:
    table = hashing.RendezvousHash(["a", "b"], seed).table()
    assert table.partition(["k", ("server", "k")]) is None


@pytest.mark.parametrize("hasher", [hashing.RendezvousHash, KetamaHash])
def test_a_cluster_has_the_table_of_its_nodes_before_a_command_needs_it(hasher: Any) -> None:
    made: list[int] = []

    class Counting(hasher):  # type: ignore[misc]
        def _make_table(self, nodes: list[str], rule: Any) -> Any:
            made.append(len(nodes))
            return super()._make_table(nodes, rule)

    cluster = HashClient([f"10.0.0.{number}" for number in range(5)], hasher=Counting)
    assert made == [5]
    cluster._client_of("k")
    cluster.add_server("10.0.1.1")
    assert made == [5, 6]
    cluster._client_of("k")
    cluster.remove_server("10.0.0.0")
    cluster._client_of("k")
    assert made == [5, 6, 5]
    assert "10.0.0.0:11211" not in cluster.hasher.table().nodes
