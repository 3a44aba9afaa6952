"""`FallbackClient` over caches that need no server: which of them is asked, and what it gives."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from pymemcache.fallback import FallbackClient as Reference

from cymemcache import Client, FallbackClient, MemcacheIllegalInputError, RetryingClient, serde
from cymemcache.commands import Commands
from cymemcache.testing import MockMemcacheClient


class Cache(MockMemcacheClient):
    """A client with a memory of its own, which notes the commands that it is asked for."""

    def __init__(self, **options: Any) -> None:
        super().__init__(default_noreply=False, **options)
        self.asked: list[Any] = []

    def __getattribute__(self, name: str) -> Any:
        thing = super().__getattribute__(name)
        if name.startswith("_") or not inspect.ismethod(thing):
            return thing

        def noted(*args: Any, **kwargs: Any) -> Any:
            self.asked.append((name, *args))
            return thing(*args, **kwargs)

        return noted


class Down:
    """A cache whose server is down."""

    def __getattr__(self, name: str) -> Any:
        def fails(*args: Any, **kwargs: Any) -> Any:
            raise ConnectionRefusedError(name)

        return fails


@pytest.fixture
def new() -> Cache:
    return Cache()


@pytest.fixture
def old() -> Cache:
    return Cache()


@pytest.fixture
def client(new: Cache, old: Cache) -> FallbackClient:
    """Over the two, where "both" is in both, "new" and "old" in one of them each."""
    new.set_many({"both": b"N", "new": b"N"})
    old.set_many({"both": b"O", "old": b"O"})
    new.asked.clear()
    old.asked.clear()
    return FallbackClient([new, old])


# -- names, parameters, defaults -------------------------------------------------------------------

PUBLIC = sorted(name for name in vars(Commands) if not name.startswith("_"))
LIFE = ["close", "disconnect_all"]

# The reference's own methods, whose parameters are those of its `Client`, but for the default of
# noreply: it is the cache's own here, and False for those whose result says what happened.
REFERENCE = sorted(name for name in vars(Reference) if not name.startswith("_"))
IN_NO_METHOD = ("flags", "default", "cas_default")  # parameters that the reference has in none


def parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    return list(inspect.signature(function).parameters.values())


@pytest.mark.parametrize("name", PUBLIC + LIFE)
def test_every_method_has_the_parameters_that_it_has_on_a_client(name: str) -> None:
    ours = getattr(FallbackClient, name)
    assert inspect.isfunction(ours)
    assert not hasattr(ours, "__wrapped__")
    assert ours.__qualname__.startswith("FallbackClient.")
    assert inspect.getdoc(ours)
    assert inspect.signature(ours) == inspect.signature(getattr(Client, name))
    spec = inspect.getfullargspec(getattr(FallbackClient([Cache()]), name))
    theirs = inspect.getfullargspec(getattr(Client("localhost"), name))
    assert (spec.args, spec.varargs, spec.defaults) == (
        theirs.args,
        theirs.varargs,
        theirs.defaults,
    )


@pytest.mark.parametrize("name", REFERENCE)
def test_the_references_parameters_come_first(name: str) -> None:
    ours, theirs = parameters(getattr(FallbackClient, name)), parameters(getattr(Reference, name))
    assert [one.name for one in ours[: len(theirs)]] == [one.name for one in theirs]
    for extra in ours[len(theirs) :]:
        assert extra.name in IN_NO_METHOD or (name, extra.name) == ("stats", "args")
    for mine, other in zip(ours, theirs, strict=False):
        if mine.name == "noreply":
            assert (mine.default, other.default) == (None if name not in ASKING else False, True)
        else:
            assert (mine.kind, mine.default) == (other.kind, other.default)


ASKING = ("cas", "incr", "decr")


def test_the_constructor_and_its_attribute_are_the_references() -> None:
    assert list(inspect.signature(FallbackClient).parameters) == ["caches"]
    assert list(inspect.signature(Reference).parameters) == ["caches"]
    caches = [Cache()]
    assert FallbackClient(caches).caches is Reference(caches).caches is caches


def test_without_caches_there_is_no_client() -> None:
    with pytest.raises(ValueError, match="at least one"):
        FallbackClient([])


@pytest.mark.parametrize(
    "caches",
    [None, (cache for cache in [Cache()]), Client, Client("localhost"), "localhost", Cache()],
    ids=lambda caches: type(caches).__name__,
)
def test_what_is_no_list_of_clients_is_refused(caches: Any) -> None:
    with pytest.raises(TypeError, match=r"^caches must be a list"):
        FallbackClient(caches)


@pytest.mark.parametrize("cache", [None, Client, "localhost", ("localhost", 11211)], ids=str)
def test_a_list_of_what_are_no_clients_is_refused(cache: Any) -> None:
    with pytest.raises(TypeError, match=r"^caches\[1\] must be a client"):
        FallbackClient([Cache(), cache])


# -- each cache in turn ----------------------------------------------------------------------------


@pytest.mark.parametrize(("key", "value"), [("both", b"N"), ("new", b"N"), ("old", b"O")])
def test_a_fetch_gives_the_item_of_the_first_cache_that_has_it(
    client: FallbackClient, old: Cache, key: str, value: bytes
) -> None:
    assert client.get(key) == client[key] == client.gat(key, 60) == value
    assert client.gets(key)[0] == client.gats(key, 60)[0] == value
    assert bool(old.asked) == (key == "old")


def test_a_miss_in_all_caches_gives_the_defaults(client: FallbackClient) -> None:
    assert client.get("none") is None
    assert client.get("none", 5) == client.gat("none", 60, 5) == 5
    assert client.gat("none") is None
    assert client.gets("none") == client.gats("none", 60) == (None, None)
    assert client.gets("none", 5, 6) == client.gats("none", 60, 5, 6) == (5, 6)
    with pytest.raises(KeyError, match="none"):
        client["none"]


@pytest.mark.parametrize("value", [b"", "", 0, False, None, [], {}], ids=repr)
def test_any_value_is_a_hit(value: Any) -> None:
    new, old = Cache(serde=serde.pickle_serde), Cache(serde=serde.pickle_serde)
    client = FallbackClient([new, old])
    new.set("key", value)
    old.set("key", "other")
    assert client.get("key") == client.get("key", value) == value
    assert client.gat("key", 60, value) == value
    assert client.gets("key", value)[0] == client.gats("key", 60, value)[0] == value
    assert client.get_many(["key"]) == {"key": value}
    assert client.gets_many(["key"])["key"][0] == value


def test_none_is_no_item_to_be_had_by_brackets() -> None:
    client = FallbackClient([Cache(serde=serde.pickle_serde)])
    client["key"] = None
    with pytest.raises(KeyError):
        client["key"]


def test_gat_touches_the_item_where_it_is(client: FallbackClient, new: Cache, old: Cache) -> None:
    assert client.gat("old", -1) == b"O"
    assert client.gats("both", -1)[0] == b"N"
    assert (old.get("old"), new.get("both"), old.get("both")) == (None, None, b"O")


@pytest.mark.parametrize("name", ["get_many", "gets_many"])
def test_many_are_merged_and_each_cache_is_asked_for_what_is_missing(name: str) -> None:
    caches = [Cache(), Cache(), Cache(), Cache()]
    for cache, keys in zip(caches, ("ab", "bc", "d", "abcde"), strict=True):
        cache.set_many({key: f"{keys}-{key}" for key in keys})
        cache.asked.clear()
    found = getattr(FallbackClient(caches), name)(iter(["a", b"b", "c", "d", "x"]))
    if name == "gets_many":
        found = {key: value for key, (value, _) in found.items()}
    assert found == {"a": b"ab-a", b"b": b"ab-b", "c": b"bc-c", "d": b"d-d"}
    assert [cache.asked for cache in caches] == [
        [(name, ["a", b"b", "c", "d", "x"])],
        [(name, ["c", "d", "x"])],
        [(name, ["d", "x"])],
        [(name, ["x"])],
    ]


@pytest.mark.parametrize("name", ["get_many", "get_multi", "gets_many", "gets_multi"])
def test_a_cache_is_not_asked_where_no_key_is_left(
    client: FallbackClient, new: Cache, old: Cache, name: str
) -> None:
    assert getattr(client, name)(["both", "new", "both"]).keys() == {"both", "new"}
    assert len(new.asked) == 1
    assert getattr(client, name)([]) == {}
    assert len(new.asked) == 1
    assert old.asked == []
    assert getattr(client, name)(["none"]) == {}


def test_an_item_under_a_server_key_is_not_asked_for_again() -> None:
    class Cluster:
        """Finds everything, and names it without the server key."""

        def get_many(self, keys: Any) -> Any:
            asked.append(keys)
            return {key[1] if isinstance(key, tuple) else key: b"1" for key in keys}

    asked: list[Any] = []
    client = FallbackClient([Cluster(), Cluster()])
    assert client.get_many([("server", "a"), "b"]) == {"a": b"1", "b": b"1"}
    assert asked == [[("server", "a"), "b"]]


# -- the first cache -------------------------------------------------------------------------------

# What they are called with, and what the first cache answers.
FIRST: dict[str, tuple[tuple[Any, ...], Any]] = {
    "set": (("key", b"1", 60, False, 5), True),
    "add": (("old", b"1"), True),
    "replace": (("old", b"1"), False),
    "append": (("old", b"1"), False),
    "prepend": (("both", b"1"), True),
    "set_many": (({"a": 1, "b": 2}, 60), []),
    "delete": (("old",), False),
    "delete_many": ((["both", "old"],), True),
    "incr": (("old", 1), None),
    "decr": (("old", 1), None),
    "touch": (("old", 60), False),
    "stats": (("detail", "dump"), {}),
    "version": ((), b"MockMemcacheClient"),
    "flush_all": ((), True),
    "cache_memlimit": ((64,), True),
    "raw_command": (("delete both", "\r\n"), b"DELETED"),
    "shutdown": ((True,), None),
}
IN_TURN = ["get", "gets", "gat", "gats", "get_many", "gets_many"]
ALIASES = {
    "set_multi": "set_many",
    "get_multi": "get_many",
    "gets_multi": "gets_many",
    "delete_multi": "delete_many",
}


def test_it_is_decided_for_every_command_which_cache_it_is_for() -> None:
    assert sorted([*FIRST, *IN_TURN, *ALIASES, "cas", "quit"]) == PUBLIC
    for alias, name in ALIASES.items():
        assert getattr(FallbackClient, alias) is getattr(FallbackClient, name)


@pytest.mark.parametrize("name", FIRST)
def test_everything_else_is_done_on_the_first_cache_as_it_was_asked(name: str) -> None:
    class Echo:
        def __getattr__(self, name: str) -> Any:
            return lambda *args, **kwargs: (name, args, kwargs)

    method = getattr(FallbackClient([Echo(), Down()]), name)
    args, _ = FIRST[name]
    assert method(*args) == (name, args, {})
    assert method(key=1, noreply=True) == (name, (), {"key": 1, "noreply": True})
    assert inspect.getdoc(method).endswith("\n\nIn the first cache only.")


@pytest.mark.parametrize("name", [name for name in FIRST if name != "shutdown"])
def test_the_first_caches_answer_is_given_back(
    client: FallbackClient, new: Cache, old: Cache, name: str
) -> None:
    args, answer = FIRST[name]
    assert getattr(client, name)(*args) == answer
    assert new.asked == [(name, *args)]
    assert old.asked == []


def test_what_is_deleted_in_the_first_cache_is_found_in_the_next(client: FallbackClient) -> None:
    assert client.delete("both") is True
    assert client.get("both") == b"O"


def test_items_are_written_and_deleted_by_brackets(
    client: FallbackClient, new: Cache, old: Cache
) -> None:
    client["old"] = b"1"
    assert new.get("old") == b"1"
    del client["old"]
    assert new.get("old") is None
    assert old.asked == []


def test_bad_arguments_are_refused_by_the_first_cache(client: FallbackClient) -> None:
    with pytest.raises(MemcacheIllegalInputError):
        client.get("a key")
    with pytest.raises(TypeError):
        client.set("key")
    with pytest.raises(TypeError):
        client.get_many(5)


# -- cas -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fetch", ["gets", "gats", "gets_many"])
@pytest.mark.parametrize("as_type", [bytes, lambda token: token.decode(), int])
def test_cas_stores_what_has_not_changed_wherever_it_was(
    client: FallbackClient, new: Cache, old: Cache, fetch: str, as_type: Callable[[bytes], Any]
) -> None:
    def token(key: str) -> Any:
        if fetch == "gets_many":
            return as_type(client.gets_many([key])[key][1])
        return as_type(getattr(client, fetch)(key)[1])

    for key in ("new", "old"):
        stale = token(key)
        assert client.cas(key, b"1", stale, 60, flags=5) is True
        assert new.get(key) == b"1"
        assert client.cas(key, b"2", stale) is False  # somebody else was quicker
        assert client.cas(key, b"3", token(key)) is True
        assert new.get(key) == b"3"
    assert old.get("old") == b"O"


def test_a_token_of_another_cache_never_matches_one_of_the_first(
    client: FallbackClient, new: Cache, old: Cache
) -> None:
    for _ in range(10):
        old.set("old", b"O")
    _, cas = old.gets("old")
    _, ours = client.gets("old")
    while new.gets("old")[1] != cas:  # the numbers of two servers do meet
        new.set("old", b"of somebody else")
    assert client.cas("old", b"1", ours) is False
    assert new.get("old") == b"of somebody else"
    assert new.cas("old", b"1", ours) is False


def test_cas_of_what_is_gone_from_the_first_cache_is_none(
    client: FallbackClient, new: Cache
) -> None:
    _, cas = client.gets("both")
    new.delete("both")
    assert client.cas("both", b"1", cas) is None


# -- every cache -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["close", "disconnect_all", "quit"])
def test_every_cache_is_left(client: FallbackClient, new: Cache, old: Cache, name: str) -> None:
    assert client.get("old") == b"O"
    assert new.sock is not None
    assert old.sock is not None
    assert getattr(client, name)() is None
    assert new.sock is old.sock is None
    assert client.get("old") == b"O"  # it connects anew


def test_a_with_block_closes_every_cache(client: FallbackClient, new: Cache, old: Cache) -> None:
    with client as entered:
        assert entered is client
        assert client.get("old") == b"O"
    assert new.sock is old.sock is None


@pytest.mark.parametrize("name", ["close", "quit"])
def test_a_cache_that_fails_to_close_keeps_no_other_from_closing(old: Cache, name: str) -> None:
    old.get("key")
    with pytest.raises(ConnectionRefusedError, match=name):
        getattr(FallbackClient([Down(), old, Down()]), name)()
    assert old.sock is None


# -- errors ----------------------------------------------------------------------------------------

FETCHES: dict[str, Callable[[Any], Any]] = {
    "get": lambda client: client.get("old"),
    "gat": lambda client: client.gat("old", 60),
    "gets": lambda client: client.gets("old")[0],
    "gats": lambda client: client.gats("old", 60)[0],
    "get_many": lambda client: client.get_many(["old"])["old"],
    "gets_many": lambda client: client.gets_many(["old"])["old"][0],
}


@pytest.mark.parametrize("name", FETCHES)
def test_an_error_of_any_cache_that_is_asked_is_raised(
    client: FallbackClient, new: Cache, old: Cache, name: str
) -> None:
    for caches in ([Down(), old], [new, Down(), old]):
        with pytest.raises(ConnectionRefusedError, match=name):
            FETCHES[name](FallbackClient(caches))
    assert FETCHES[name](FallbackClient([old, Down()])) == b"O"


@pytest.mark.parametrize("name", FETCHES)
def test_retries_go_with_it_within_and_around(client: FallbackClient, name: str) -> None:
    assert FETCHES[name](RetryingClient(client)) == b"O"
    assert FETCHES[name](FallbackClient(list(map(RetryingClient, client.caches)))) == b"O"


@pytest.mark.parametrize("name", FETCHES)
def test_one_may_be_within_another(client: FallbackClient, name: str) -> None:
    assert FETCHES[name](FallbackClient([client, Cache()])) == b"O"
    assert FETCHES[name](FallbackClient([Cache(), client])) == b"O"
    outer = FallbackClient([client, Cache()])
    assert outer.cas("old", b"1", outer.gets("old")[1]) is True
    assert outer.get("old") == b"1"


def test_its_repr_shows_the_caches() -> None:
    caches = (Client("a:1"), Client("b:2"))
    assert repr(FallbackClient(caches)) == "<FallbackClient of <Client a:1>, <Client b:2>>"
