"""Every command of `Client`, as it meets a server: the real memcached and the embedded one in turn.

What a hit and a miss give, what the defaults are, what `noreply` changes, and what comes back for
each kind of value.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from cymemcache import (
    Client,
    MemcacheClientError,
    MemcacheIllegalInputError,
    MemcacheServerError,
    MemcacheUnexpectedCloseError,
    MemcacheUnknownCommandError,
    serde,
)
from cymemcache.core import replies
from cymemcache.testing import (
    Answer,
    Close,
    Cut,
    EmbeddedServer,
    Fault,
    Hang,
    MemcachedProcess,
)
from wire import MEBIBYTE, PATIENCE, Server, block

NOREPLY = pytest.mark.parametrize("noreply", [False, True, None])


@pytest.fixture
def connect(server: Server) -> Iterator[Callable[..., Client]]:
    """Makes clients of `server`, closed with the test."""
    clients = []

    def make(**options: Any) -> Client:
        clients.append(Client(server.address, **{"timeout": PATIENCE, **options}))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def client(connect: Callable[..., Client]) -> Client:
    return connect()


def flags_of(server: Server, key: bytes) -> int:
    return int(server.raw(b"get %b\r\n" % key).split(b" ")[2])


def expires_soon(server: Server, key: bytes) -> bool:
    """Whether the item has an expiry in the near future (as opposed to none)."""
    # The crawler misses an item that memcached moves between its queues in the meantime.
    line = eventually(
        lambda: [
            line
            for line in server.raw(b"lru_crawler metadump all\r\n").splitlines()
            if line.startswith(b"key=%b " % key)
        ]
    )[-1]
    (expiry,) = (word[4:] for word in line.split() if word.startswith(b"exp="))
    return 0 < int(expiry) - time.time() < 10_000


def names(dump: list[bytes]) -> list[bytes]:
    return sorted(line.split()[0] for line in dump)


def eventually(ask: Callable[[], Any]) -> Any:
    """What `ask` gives, once that is true."""
    deadline = time.monotonic() + PATIENCE
    while not (answer := ask()):
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.005)
    return answer


# -- storage commands ------------------------------------------------------------------------------


@NOREPLY
def test_set_stores_whatever_was_there(client: Client, noreply: bool | None) -> None:
    assert client.set("key", b"first", noreply=noreply) is True
    assert client.set("key", b"second", noreply=noreply) is True
    assert client.get("key") == b"second"


@NOREPLY
def test_add_stores_only_where_nothing_was(client: Client, noreply: bool | None) -> None:
    assert client.add("key", b"first", noreply=noreply) is True
    assert client.add("key", b"second", noreply=noreply) is (noreply is not False)
    assert client.get("key") == b"first"


@NOREPLY
def test_replace_stores_only_where_something_was(client: Client, noreply: bool | None) -> None:
    assert client.replace("key", b"first", noreply=noreply) is (noreply is not False)
    assert client.get("key") is None
    client.set("key", b"old")
    assert client.replace("key", b"second", noreply=noreply) is True
    assert client.get("key") == b"second"


@NOREPLY
def test_append_and_prepend_add_to_what_is_there(client: Client, noreply: bool | None) -> None:
    assert client.append("key", b">", noreply=noreply) is (noreply is not False)
    assert client.prepend("key", b"<", noreply=noreply) is (noreply is not False)
    assert client.get("key") is None
    client.set("key", b"-")
    assert client.append("key", b">", noreply=noreply) is True
    assert client.prepend("key", b"<", noreply=noreply) is True
    assert client.get("key") == b"<->"


def test_append_and_prepend_keep_the_flags_and_the_expiry(client: Client, server: Server) -> None:
    client.set("key", b"-", flags=5, noreply=False)
    assert client.append("key", b">", expire=1000, flags=6, noreply=False)
    assert client.prepend("key", b"<", expire=-1, flags=7, noreply=False)
    assert client.get("key") == b"<->"
    assert flags_of(server, b"key") == 5
    assert not expires_soon(server, b"key")


@pytest.mark.parametrize(
    "token", [bytes, int, lambda cas: cas.decode()], ids=["bytes", "int", "str"]
)
def test_cas_stores_where_nobody_was_quicker(client: Client, token: Callable[[bytes], Any]) -> None:
    client.set("key", b"first", noreply=False)
    value, cas = client.gets("key")
    assert value == b"first"
    assert type(cas) is bytes
    assert cas.isdigit()
    assert client.cas("key", b"second", token(cas)) is True
    assert client.cas("key", b"third", token(cas)) is False
    assert client.get("key") == b"second"
    client.delete("key", noreply=False)
    assert client.cas("key", b"third", token(cas)) is None
    assert client.get("key") is None


def test_cas_with_noreply_says_true_whatever_happens(client: Client) -> None:
    client.set("key", b"first", noreply=False)
    _, cas = client.gets("key")
    assert client.cas("key", b"second", cas, noreply=True) is True
    assert client.cas("key", b"third", cas, noreply=True) is True
    assert client.get("key") == b"second"


def test_set_many_stores_a_mapping(client: Client) -> None:
    assert client.set_many({"a": b"1", b"b": b"2"}, noreply=False) == []
    assert client.set_many({"c": b"3"}, noreply=True) == []
    assert client.set_many({"d": b"4"}) == []
    assert client.get_many(["a", "b", "c", "d"]) == {"a": b"1", "b": b"2", "c": b"3", "d": b"4"}


@NOREPLY
def test_batches_of_nothing_ask_nothing(client: Client, noreply: bool | None) -> None:
    assert client.set_many({}, noreply=noreply) == []
    assert client.delete_many([], noreply=noreply) is True
    assert client.get_many([]) == {}
    assert client.gets_many(iter(())) == {}
    assert client.sock is None


def test_one_refused_item_of_a_batch_raises_after_the_others_are_stored(client: Client) -> None:
    items = {"a": b"1", "large": b"x" * (2 * MEBIBYTE), "b": b"2"}
    with pytest.raises(MemcacheServerError, match="too large"):
        client.set_many(items, noreply=False)
    assert client.get_many(items) == {"a": b"1", "b": b"2"}


def test_with_ignore_exc_set_many_returns_the_keys_that_failed(
    connect: Callable[..., Client],
) -> None:
    client = connect(ignore_exc=True)
    items = {"a": b"1", "large": b"x" * (2 * MEBIBYTE), "b": b"2"}
    assert client.set_many(items, noreply=False) == ["large"]


def test_a_value_that_is_too_large_for_the_server_raises(client: Client) -> None:
    with pytest.raises(MemcacheServerError, match=r"object too large for cache.*-I"):
        client.set("key", b"x" * (2 * MEBIBYTE), noreply=False)
    assert client.set("key", b"small", noreply=False) is True


STORES: list[tuple[str, Callable[..., Any]]] = [
    ("set", lambda client, **given: client.set("key", b"v", **given)),
    ("add", lambda client, **given: client.add("key", b"v", **given)),
    ("replace", lambda client, **given: client.replace("key", b"v", **given)),
    ("cas", lambda client, **given: client.cas("key", b"v", client.gets("key")[1], **given)),
    ("set_many", lambda client, **given: client.set_many({"key": b"v"}, **given)),
]


@pytest.mark.parametrize(("name", "store"), STORES, ids=[name for name, _ in STORES])
@pytest.mark.parametrize("noreply", [False, True])
def test_flags_and_expire_reach_the_server(
    client: Client, server: Server, name: str, store: Callable[..., Any], noreply: bool
) -> None:
    for flags, expire in ((0xFFFFFFFF, 1000), (0, 0)):
        client.delete("key", noreply=False)
        if name in ("replace", "cas"):
            client.set("key", b"old", noreply=False)
        store(client, expire=expire, flags=flags, noreply=noreply)
        assert client.get("key") == b"v"
        assert flags_of(server, b"key") == flags
        assert expires_soon(server, b"key") is (expire > 0)


def test_a_negative_expire_means_at_once(client: Client) -> None:
    assert client.set("key", b"value", expire=-1, noreply=False) is True
    assert client.get("key") is None


def test_a_large_expire_is_a_unix_time(client: Client) -> None:
    assert client.set("past", b"value", expire=int(time.time()) - 100, noreply=False) is True
    assert client.set("future", b"value", expire=int(time.time()) + 1000, noreply=False) is True
    assert client.get_many(["past", "future"]) == {"future": b"value"}


# -- retrieval commands ----------------------------------------------------------------------------


def test_a_miss_gives_the_defaults(client: Client) -> None:
    default, cas_default = object(), object()
    assert client.get("key") is None
    assert client.get("key", default) is default
    assert client.get("key", default=default) is default
    assert client.gets("key") == (None, None)
    assert client.gets("key", default) == (default, None)
    assert client.gets("key", default=default, cas_default=cas_default) == (default, cas_default)
    assert client.gat("key") is None
    assert client.gat("key", 10) is None
    assert client.gat("key", 10, default) is default
    assert client.gats("key") == (None, None)
    assert client.gats("key", 10, default, cas_default) == (default, cas_default)
    assert client.get_many(["key"]) == {}
    assert client.gets_many(["key"]) == {}


def test_an_empty_value_is_a_hit(client: Client) -> None:
    client.set("key", b"", noreply=False)
    assert client.get("key", b"default") == b""
    assert client.gets("key", b"default")[0] == b""
    assert client.get_many(["key"]) == {"key": b""}


def test_gat_and_gats_give_the_value_and_a_new_expiry(client: Client, server: Server) -> None:
    client.set("key", b"value", noreply=False)
    assert client.gat("key", 1000) == b"value"
    assert expires_soon(server, b"key")
    assert client.gat("key") == b"value"
    assert not expires_soon(server, b"key")
    value, cas = client.gats("key", expire=1000)
    assert value == b"value"
    assert expires_soon(server, b"key")
    assert client.cas("key", b"new", cas) is True


def test_gets_many_gives_values_with_their_tokens(client: Client) -> None:
    client.set_many({"a": b"1", "b": b"2"}, noreply=False)
    found = client.gets_many(["a", "none", "b"])
    assert {key: value for key, (value, _) in found.items()} == {"a": b"1", "b": b"2"}
    assert found["a"] == client.gets("a")
    assert client.cas("b", b"3", found["b"][1]) is True


def test_a_fetch_comes_back_under_the_callers_own_keys(connect: Callable[..., Client]) -> None:
    class Name(str):
        __slots__ = ()

    client = connect(key_prefix=b"prefix:")
    keys = ["".join(("te", "xt")), b"".join((b"by", b"tes")), Name("name")]
    client.set_many(dict.fromkeys(keys, b"value"), noreply=False)
    for fetch in (client.get_many, client.gets_many):
        found = fetch(keys)
        assert len(found) == 3
        assert all(any(key is own for own in keys) for key in found)


@pytest.mark.parametrize(
    "make",
    [list, tuple, set, iter, dict.fromkeys, lambda keys: dict.fromkeys(keys).keys()],
    ids=["list", "tuple", "set", "iterator", "dict", "view"],
)
def test_keys_come_in_any_iterable(client: Client, make: Callable[[list[str]], Any]) -> None:
    client.set_many({"a": b"1", "b": b"2"}, noreply=False)
    assert client.get_many(make(["a", "b", "c"])) == {"a": b"1", "b": b"2"}
    assert client.gets_many(make(["a", "c"])) == {"a": client.gets("a")}
    assert client.delete_many(make(["a", "c"]), noreply=False) is True
    assert client.get_many(make(["a", "b"])) == {"b": b"2"}


def test_a_key_asked_for_twice_is_answered(client: Client) -> None:
    client.set("key", b"value", noreply=False)
    assert client.get_many(["key", "key"]) == {"key": b"value"}
    assert client.get_many(["key", b"key"]) == {"key": b"value", b"key": b"value"}


def test_keys_beyond_one_request_are_still_one_answer(connect: Callable[..., Client]) -> None:
    client = connect(max_request_size=100)
    items = {f"key-{number}": b"%d" % number for number in range(100)}
    client.set_many(items, noreply=False)
    assert client.get_many([*items, "none"]) == items
    assert client.gets_many(items).keys() == items.keys()


# -- deletion, arithmetic, touch -------------------------------------------------------------------


@NOREPLY
def test_delete_deletes(client: Client, noreply: bool | None) -> None:
    assert client.delete("key", noreply=noreply) is (noreply is not False)
    client.set("key", b"value")
    assert client.delete("key", noreply=noreply) is True
    assert client.get("key") is None


@NOREPLY
def test_delete_many_deletes_and_says_true(client: Client, noreply: bool | None) -> None:
    client.set_many({"a": b"1", "b": b"2", "c": b"3"})
    assert client.delete_many(["a", "none", "b"], noreply=noreply) is True
    assert client.get_many(["a", "b", "c"]) == {"c": b"3"}


def test_incr_and_decr_count(client: Client) -> None:
    assert client.incr("key", 1) is None
    assert client.decr("key", 1) is None
    client.set("key", "10", noreply=False)
    assert client.incr("key", 5) == 15
    assert client.decr("key", 6) == 9
    assert client.decr("key", 100) == 0
    assert client.incr("key", 2**64 - 1) == 2**64 - 1
    assert client.incr("key", 2) == 1


def test_incr_and_decr_with_noreply_give_none(client: Client) -> None:
    client.set("key", "10", noreply=False)
    assert client.incr("key", 5, noreply=True) is None
    assert client.decr("key", 1, noreply=True) is None
    assert client.get("key") == b"14"


def test_incr_of_what_is_no_number_raises(client: Client) -> None:
    client.set("key", b"text", noreply=False)
    for count in (client.incr, client.decr):
        with pytest.raises(MemcacheClientError, match="non-numeric"):
            count("key", 1)
    assert client.get("key") == b"text"


def test_a_counter_decremented_to_fewer_digits_is_read_back_as_a_number(
    connect: Callable[..., Client],
) -> None:
    client = connect(serde=serde.pickle_serde)
    client.set("key", 10, noreply=False)
    assert client.decr("key", 1) == 9
    for value in (client.get("key"), client.get_many(["key"])["key"], client.gets("key")[0]):
        assert (type(value), value) == (int, 9)


@NOREPLY
def test_touch_changes_the_expiry(client: Client, server: Server, noreply: bool | None) -> None:
    assert client.touch("key", 1000, noreply=noreply) is (noreply is not False)
    client.set("key", b"value")
    assert client.touch("key", 1000, noreply=noreply) is True
    assert client.get("key") == b"value"
    assert expires_soon(server, b"key")
    assert client.touch("key", noreply=noreply) is True
    assert client.get("key") == b"value"
    assert not expires_soon(server, b"key")
    assert client.touch("key", -1, noreply=noreply) is True
    assert client.get("key") is None


# -- the server ------------------------------------------------------------------------------------


def test_stats_has_bytes_keys_and_typed_values(client: Client) -> None:
    before = client.stats()[b"cmd_set"]
    client.set("key", b"value", noreply=False)
    stats = client.stats()
    assert all(type(name) is bytes for name in stats)
    assert type(stats[b"pid"]) is int
    assert stats[b"cmd_set"] == before + 1
    assert stats[b"version"] == client.version()
    assert type(stats[b"rusage_user"]) is float
    assert stats[b"hash_is_expanding"] is False


def test_an_unknown_sub_command_of_stats_is_named(client: Client) -> None:
    for words in (("nosuch",), ("nosuch", "word")):
        with pytest.raises(MemcacheUnknownCommandError, match=f"'stats {' '.join(words)}'"):
            client.stats(*words)


def test_stats_settings(client: Client) -> None:
    settings = client.stats("settings")
    assert settings[b"maxbytes"] == 64 * MEBIBYTE
    assert settings[b"growth_factor"] == 1.25
    assert settings[b"auth_enabled_sasl"] is False
    assert settings[b"cas_enabled"] == b"yes"
    assert settings[b"inter"] == b"127.0.0.1"
    assert settings[b"umask"] == 0o700
    assert settings[b"evictions"] == b"on"


def test_stats_of_items_slabs_and_conns(client: Client) -> None:
    client.set("key", b"value", noreply=False)
    # Flushed items of other tests count until the server comes across them.
    number = client.stats("items")[b"items:1:number"]
    assert type(number) is int
    assert number >= 1
    assert client.stats(b"slabs")[b"1:used_chunks"] >= 1
    conns = client.stats("conns")
    assert any(name.endswith(b":state") for name in conns)


def test_stats_sizes(client: Client) -> None:
    assert client.stats("sizes") == {b"sizes_status": b"disabled"}


def test_the_switches_of_stats_sizes_which_older_servers_have_and_answer_without_an_end() -> None:
    with EmbeddedServer(version="1.6.18") as server, Client(server.address) as client:
        assert client.stats("sizes_enable") == {b"sizes_status": b"enabled"}
        client.set("key", b"value", noreply=False)
        assert client.stats("sizes") == {b"96": 1}
        assert client.stats("sizes_disable") == {b"sizes_status": b"disabled"}
        assert client.get("key") == b"value"


def test_stats_reset_reports_nothing(client: Client) -> None:
    client.get("key")
    assert client.stats("reset") == {}
    assert client.stats()[b"get_misses"] == 0


def test_stats_detail_counts_by_prefix(client: Client) -> None:
    client.stats("reset")  # what other tests have counted
    assert client.stats("detail", "on") == {}
    try:
        client.set("prefix:key", b"value", noreply=False)
        client.get("prefix:key")
        assert client.stats("detail", "dump") == {b"prefix": b"get 1 hit 1 set 1 del 0"}
    finally:
        assert client.stats("detail", "off") == {}


def test_stats_cachedump_lists_items(client: Client) -> None:
    client.set("key", b"value", noreply=False)
    # It lists one queue only, and what was flushed as well.
    found = eventually(lambda: client.stats("cachedump", 1, "0").get(b"key"))
    assert found.startswith(b"[5 b; ")


def test_an_unknown_sub_command_of_stats_raises(client: Client) -> None:
    with pytest.raises(MemcacheUnknownCommandError, match="stats"):
        client.stats("nonsense")
    assert client.stats()


def test_version_is_bytes(client: Client) -> None:
    assert client.version().startswith(b"1.")


@NOREPLY
def test_flush_all_expires_everything(client: Client, noreply: bool | None) -> None:
    client.set("key", b"value")
    assert client.flush_all(noreply=noreply) is True
    assert client.get("key") is None


def test_flush_all_may_wait(client: Client) -> None:
    client.set("key", b"value", noreply=False)
    assert client.flush_all(1000, noreply=False) is True
    assert client.flush_all(delay=1000, noreply=True) is True
    assert client.get("key") == b"value"


def test_cache_memlimit_is_set_and_refused(client: Client) -> None:
    try:
        assert client.cache_memlimit(100) is True
        assert client.stats("settings")[b"maxbytes"] == 100 * MEBIBYTE
        with pytest.raises(MemcacheServerError, match="MEMLIMIT_TOO_SMALL"):
            client.cache_memlimit(1)
    finally:
        assert client.cache_memlimit(64) is True


def test_quit_closes_and_the_next_command_connects_anew(client: Client) -> None:
    assert client.quit() is None
    client.set("key", b"value", noreply=False)
    sock = client.sock
    assert client.quit() is None
    assert client.sock is None
    assert sock.fileno() == -1
    assert client.get("key") == b"value"


def test_the_command_after_quit_does_not_overtake_noreply_commands(client: Client) -> None:
    for number in range(50):
        client.set("key", b"%d" % number, noreply=True)
        client.quit()
        assert client.get("key") == b"%d" % number
    assert client.noreply_lost == 0


def test_shutdown_that_is_not_enabled_raises_and_says_so(client: Client) -> None:
    for graceful in (False, True):
        with pytest.raises(
            (MemcacheServerError, MemcacheUnknownCommandError), match="shutdown not enabled"
        ):
            client.shutdown(graceful)
    assert client.get("key") is None


@pytest.mark.parametrize("graceful", [False, True])
def test_shutdown_stops_the_server(
    graceful: bool, memcached_factory: Callable[..., MemcachedProcess]
) -> None:
    with EmbeddedServer(shutdown=True) as embedded:
        for server in (embedded, memcached_factory("-A")):
            client = Client(server.address, timeout=PATIENCE)
            client.set("key", b"value", noreply=False)
            assert client.shutdown(graceful) is None
            deadline = time.monotonic() + PATIENCE
            with pytest.raises(OSError):  # noqa: PT011, PT012 - refused, or closed at first
                while True:
                    assert time.monotonic() < deadline, "the server goes on"
                    try:
                        client.get("key")
                    except MemcacheUnexpectedCloseError:
                        pass
            client.close()


# -- raw commands, and those that have no method of their own --------------------------------------


def test_raw_command_gives_what_comes_before_the_end_token(client: Client, server: Server) -> None:
    client.set("key", b"value", noreply=False)
    version = client.version()
    assert client.raw_command("version") == b"VERSION " + version
    assert client.raw_command(b"version", b"\r\n") == b"VERSION " + version
    assert client.raw_command("get key", "END\r\n") == b"VALUE key 0 5\r\nvalue\r\n"
    assert client.raw_command(b"get key", end_tokens="\r\nEND\r\n") == b"VALUE key 0 5\r\nvalue"
    assert client.raw_command("get none", b"END\r\n") == b""
    assert client.raw_command("set key 0 0 3\r\nnew") == b"STORED"
    assert client.raw_command("verbosity 0") == b"OK"
    assert client.raw_command("touch none 5") == b"NOT_FOUND"
    assert client.get("key") == b"new"


def test_a_raw_reply_may_span_many_receives(client: Client) -> None:
    large = bytes(range(256)) * 3000
    client.set("key", large, noreply=False)
    expected = b"VALUE key 0 %d\r\n%b\r\n" % (len(large), large)
    assert client.raw_command("get key", "END\r\n") == expected
    small = {f"key-{number}": b"x" * 500 for number in range(1000)}
    client.set_many(small, noreply=False)
    reply = client.raw_command("get " + " ".join(small), "\r\nEND\r\n")
    assert reply.count(b"VALUE ") == 1000
    assert reply.endswith(b"\r\n" + b"x" * 500)


def test_a_raw_command_leaves_nothing_for_the_next_one(client: Client) -> None:
    client.set_many({"a": b"1", "b": b"2"}, noreply=False)
    assert client.raw_command("get a b") == b"VALUE a 0 1"
    assert client.raw_command("get a\r\nget b", "END\r\n") == b"VALUE a 0 1\r\n1\r\n"
    assert client.get("none") is None
    assert client.get_many(["a", "b"]) == {"a": b"1", "b": b"2"}


def test_an_error_answers_a_raw_command_too(client: Client) -> None:
    for end in ("\r\n", "END\r\n"):
        with pytest.raises(MemcacheUnknownCommandError, match="nonsense"):
            client.raw_command("nonsense", end)
    with pytest.raises(MemcacheClientError, match="invalid exptime"):
        client.raw_command("touch none x", "END\r\n")
    with pytest.raises(MemcacheUnexpectedCloseError):
        client.raw_command("quit")
    assert client.get("key") is None


def test_raw_commands_may_hold_text(connect: Callable[..., Client]) -> None:
    client = connect(allow_unicode_keys=True)
    client.set("schlüssel", b"value", noreply=False)
    expected = "VALUE schlüssel 0 5\r\nvalue\r\n".encode()
    assert client.raw_command("get schlüssel", "END\r\n") == expected
    with pytest.raises(MemcacheIllegalInputError, match="command"):
        connect().raw_command("get schlüssel")


def test_the_core_speaks_the_commands_without_a_method(client: Client) -> None:
    client.set_many({"a": b"1", "b": b"2"}, noreply=False)
    requests, call = client._requests, client._call
    assert call(replies.OK, requests.verbosity(0, False)) is True
    client._send(requests.verbosity(0, True), 1, None)
    assert call(replies.OK, requests.slabs("automove", 0)) is True
    with pytest.raises(MemcacheServerError, match="NOSPARE"):
        call(replies.OK, requests.slabs("reassign", 1, 2))
    assert call(replies.OK, requests.lru_crawler("sleep", 100)) is True
    metadump = requests.lru_crawler("metadump", "all")
    assert eventually(lambda: names(call(replies.METADUMP, metadump)) == [b"key=a", b"key=b"])
    assert eventually(
        lambda: client.raw_command("lru_crawler metadump all", "END\r\n").count(b"key=") == 2
    )
    with pytest.raises(MemcacheUnknownCommandError, match="config"):
        call(replies.CONFIG, requests.config_get("cluster"))
    assert client.get("a") == b"1"


def test_the_cluster_configuration_of_elasticache() -> None:
    nodes = b"12\nnode-1|10.0.0.1|11211 node-2|10.0.0.2|11211\n"
    with EmbeddedServer(cluster_config=nodes) as server, Client(server.address) as client:
        config_get = client._requests.config_get
        assert client._call(replies.CONFIG, config_get("cluster")) == nodes
        raw = client.raw_command("config get cluster", end_tokens="\n\r\nEND\r\n")
        assert raw == b"CONFIG cluster 0 %d\r\n%b" % (len(nodes), nodes[:-1])


def test_the_newer_form_of_a_metadump() -> None:
    with EmbeddedServer(new_dumps=True) as server, Client(server.address) as client:
        client.set_many({"a": b"1", "b": b"2"}, noreply=False)
        request = client._requests.lru_crawler("metadump", "all")
        assert names(client._call(replies.METADUMP, request)) == [b"key=a", b"key=b"]
        assert client.get("a") == b"1"


def test_a_raw_command_that_is_refused_waits_for_no_end_token(client: Client) -> None:
    for command in ("lru_crawler metadump 999", "lru_crawler crawl 999", "slabs reassign 1 1"):
        with pytest.raises(MemcacheServerError, match=r"^(BADCLASS|SAME) "):
            client.raw_command(command, "END\r\n")
    assert client.raw_command("slabs reassign 1 1") == b"SAME src and dst class are identical"


# -- values, keys, options -------------------------------------------------------------------------

VALUES: list[tuple[Any, bytes]] = [
    (b"bytes \r\n\0\xff", b"bytes \r\n\0\xff"),
    ("text", b"text"),
    (0, b"0"),
    (-(2**70), str(-(2**70)).encode()),
    (bytearray(b"array\r\n"), b"array\r\n"),
    (memoryview(b"a view of it")[2:6], b"view"),
    (memoryview(b"abcdef")[::2], b"ace"),
    (True, b"True"),
    (None, b"None"),
    (1.5, b"1.5"),
    (Decimal("0.10"), b"0.10"),
    (["a", 1], b"['a', 1]"),
    (Path("a/b"), b"a/b"),
]


@pytest.mark.parametrize(("value", "stored"), VALUES, ids=[repr(value) for value, _ in VALUES])
def test_without_a_serde_values_are_stored_as_bytes(
    client: Client, value: Any, stored: bytes
) -> None:
    assert client.set("key", value, noreply=False) is True
    assert client.set_many({"other": value}, noreply=False) == []
    found = client.get_many(["key", "other"])
    assert found == {"key": stored, "other": stored}
    assert {type(one) for one in found.values()} == {bytes}


def test_large_buffers_are_stored_whole(connect: Callable[..., Client]) -> None:
    client = connect()
    large = bytes(range(256)) * 3500
    for value in (bytearray(large), memoryview(large)):
        assert client.set("key", value, noreply=False) is True
        assert client.get("key") == large


def test_text_is_encoded_as_the_option_says(connect: Callable[..., Client]) -> None:
    for encoding, stored in (("utf-8", b"gr\xc3\xbcn"), ("latin-1", b"gr\xfcn")):
        client = connect(encoding=encoding)
        client.set("key", "grün", noreply=False)
        assert client.get("key") == stored
    with pytest.raises(MemcacheIllegalInputError, match="value"):
        connect().set("key", "grün")


@pytest.mark.parametrize("prefix", [b"pre:", "pre:"])
def test_a_key_prefix_is_before_every_key(
    connect: Callable[..., Client], client: Client, prefix: Any
) -> None:
    prefixed = connect(key_prefix=prefix)
    assert prefixed.key_prefix == b"pre:"
    prefixed.set("a", b"1", noreply=False)
    prefixed.set_many({"b": b"2", b"c": b"3"}, noreply=False)
    assert prefixed.add("d", 4, noreply=False)
    assert prefixed.incr("d", 1) == 5
    assert prefixed.touch("d", 100, noreply=False)
    assert prefixed.gat("d", 100) == b"5"
    assert prefixed.get_many(["a", "b", b"c"]) == {"a": b"1", "b": b"2", b"c": b"3"}
    assert prefixed.gets("a") == client.gets("pre:a")
    assert client.get_many(["a", "b", "c", "d"]) == {}
    assert client.get_many(["pre:a", "pre:b", "pre:c", "pre:d"]).keys() == {
        "pre:a", "pre:b", "pre:c", "pre:d",
    }  # fmt: skip
    assert prefixed.delete("a", noreply=False)
    assert prefixed.delete_many(["b", "c"], noreply=False)
    assert client.get_many(["pre:a", "pre:b", "pre:c", "pre:d"]) == {"pre:d": b"5"}


def test_with_a_prefix_that_is_a_key_the_rest_may_be_empty(
    connect: Callable[..., Client], client: Client
) -> None:
    prefixed = connect(key_prefix=b"prefix")
    prefixed.set("", b"value", noreply=False)
    assert prefixed.get_many(["", "x"]) == {"": b"value"}
    assert client.get("prefix") == b"value"


def test_check_key_gives_the_key_as_it_is_sent(connect: Callable[..., Client]) -> None:
    client = connect(key_prefix=b"p:", allow_unicode_keys=True)
    assert client.check_key("é") == b"p:\xc3\xa9"
    assert client.check_key(b"key", b"other:") == b"other:key"
    assert client.check_key(b"key", key_prefix=b"") == b"key"
    with pytest.raises(MemcacheIllegalInputError, match="key"):
        client.check_key("a b")


def test_keys_of_text_are_allowed_where_asked_for(connect: Callable[..., Client]) -> None:
    client = connect(allow_unicode_keys=True)
    client.set("schlüssel", b"value", noreply=False)
    client.set_many({"日本": b"text"}, noreply=False)
    assert client.get_many(["schlüssel", "日本"]) == {"schlüssel": b"value", "日本": b"text"}
    assert client.get("schlüssel".encode()) == b"value"
    # White space beyond ASCII's is none to the server.
    client.set("a\xa0b\u3000c", b"wide", noreply=False)
    assert client.get("a\xa0b\u3000c") == b"wide"
    plain = connect()
    with pytest.raises(MemcacheIllegalInputError, match="allow_unicode_keys"):
        plain.get("schlüssel")
    assert plain.get("schlüssel".encode()) == b"value"


@pytest.mark.parametrize("key", ["k" * 250, b"\x01\x7f\x80\xff", "noreply", "END", "0"])
def test_any_legal_key_is_a_key(client: Client, key: Any) -> None:
    assert client.set(key, b"1", noreply=False) is True
    client.set(key, b"2", noreply=True)
    assert client.get(key) == b"2"
    assert client.incr(key, 1) == 3
    assert client.touch(key, 100, noreply=False) is True
    assert client.gets_many([key])[key][0] == b"3"
    assert client.delete(key, noreply=False) is True


def test_item_access(client: Client) -> None:
    client["key"] = b"value"
    assert client["key"] == b"value"
    del client["key"]
    with pytest.raises(KeyError, match="key"):
        client["key"]
    del client["key"]
    client["key"] = b""
    assert client["key"] == b""


def test_default_noreply_decides_where_nothing_is_said(connect: Callable[..., Client]) -> None:
    patient, hasty = connect(default_noreply=False), connect(default_noreply=True)
    patient.set("key", b"1", noreply=False)
    calls: list[Callable[[Client], Any]] = [
        lambda client: client.add("key", b"2"),
        lambda client: client.replace("none", b"2"),
        lambda client: client.append("none", b"2"),
        lambda client: client.prepend("none", b"2"),
        lambda client: client.delete("none"),
        lambda client: client.touch("none"),
    ]
    assert [call(patient) for call in calls] == [False] * 6
    assert [call(hasty) for call in calls] == [True] * 6
    for client in (patient, hasty):
        assert client.incr("key", 0) == 1
        assert client.decr("key", 0) == 1
        assert client.cas("key", b"1", 2**64 - 1) is False
        assert client.set("key", b"1") is True
        assert client.set_many({"key": b"1"}) == []
        assert client.get("key") == b"1"


def test_a_serde_gets_the_callers_key_and_the_flags_come_back(
    connect: Callable[..., Client], server: Server
) -> None:
    class Upper:
        def serialize(self, key: Any, value: Any) -> tuple[bytes, int]:
            assert key == "key"
            return value.upper().encode(), 77

        def deserialize(self, key: Any, value: bytes, flags: int) -> Any:
            return key, value, flags

    client = connect(serde=Upper(), key_prefix=b"pre:")
    client.set("key", "text", noreply=False)
    expected = ("key", b"TEXT", 77)
    assert client.get("key") == expected
    assert client.gets("key")[0] == expected
    assert client.gat("key", 0) == expected
    assert client.gats("key", 0)[0] == expected
    assert client.get_many(["key", "none"]) == {"key": expected}
    assert client.gets_many(["key"])["key"][0] == expected
    assert client["key"] == expected
    assert server.raw(b"get pre:key\r\n") == b"VALUE pre:key 77 4\r\nTEXT\r\nEND\r\n"
    client.set("key", "text", flags=2**32 - 1, noreply=False)
    assert client.get("key") == ("key", b"TEXT", 2**32 - 1)


def test_a_serde_may_use_the_client_itself(connect: Callable[..., Client]) -> None:
    class Counting:
        def serialize(self, key: Any, value: Any) -> tuple[bytes, int]:
            return value, 0

        def deserialize(self, key: Any, value: bytes, flags: int) -> Any:
            return value, counter.incr("reads", 1)

    counter = connect()
    counter.set("reads", 0, noreply=False)
    client = connect(serde=Counting())
    client.set("key", b"value", noreply=False)
    assert client.get("key") == (b"value", 1)
    counter = client
    assert client.get("key") == (b"value", 2)
    assert client.get_many(["key"]) == {"key": (b"value", 3)}


def test_old_style_functions_serialize(connect: Callable[..., Client]) -> None:
    client = connect(
        serializer=lambda key, value: (f"{key}={value}", 9),
        deserializer=lambda key, value, flags: (key, value, flags),
    )
    client.set("key", 5, noreply=False)
    assert client.get("key") == ("key", b"key=5", 9)


# -- life ------------------------------------------------------------------------------------------


def test_a_with_statement_closes(server: Server) -> None:
    with Client(server.address, timeout=PATIENCE) as client:
        client.set("key", b"value", noreply=False)
        sock = client.sock
        assert sock.fileno() >= 0
    assert sock.fileno() == -1
    assert client.sock is None
    assert client.get("key") == b"value"
    client.close()


@pytest.mark.parametrize("close", [Client.close, Client.disconnect_all])
def test_a_command_after_close_connects_anew(client: Client, close: Callable[..., None]) -> None:
    close(client)
    client.set("key", b"value", noreply=False)
    first = client.sock
    close(client)
    close(client)
    assert client.sock is None
    assert client.get("key") == b"value"
    assert client.sock is not first


def test_one_thread_uses_one_connection(client: Client) -> None:
    before = client.stats()[b"total_connections"]
    for number in range(50):
        client.set("key", number)
        assert client.get("key") == b"%d" % number
        client.incr("key", 1)
    assert client.stats()[b"total_connections"] == before


def test_the_connection_survives_what_the_server_refuses(client: Client) -> None:
    client.set("key", b"text", noreply=False)
    before = client.stats()[b"total_connections"]
    with pytest.raises(MemcacheClientError):
        client.incr("key", 1)
    with pytest.raises(MemcacheServerError):
        client.set("key", b"x" * (2 * MEBIBYTE), noreply=False)
    assert client.stats()[b"total_connections"] == before


def test_a_unix_socket_is_as_good(
    tmp_path: Path, memcached_factory: Callable[..., MemcachedProcess]
) -> None:
    with EmbeddedServer(unix_path=tmp_path / "embedded") as embedded:
        memcached_factory(unix=tmp_path / "memcached")
        for path in (embedded.address, str(tmp_path / "memcached")):
            for address in (path, f"unix:{path}"):
                with Client(address, timeout=PATIENCE) as client:
                    assert client.server == path
                    client.set("key", b"value", noreply=False)
                    assert client.get("key") == b"value"


def test_raw_text_meets_what_the_client_stored(client: Client, server: Server) -> None:
    assert server.raw(block(b"set key 5 0 #", b"raw")) == b"STORED\r\n"
    assert client.get("key") == b"raw"
    client.set("key", b"cooked", flags=3, noreply=False)
    assert server.raw(b"get key\r\n") == b"VALUE key 3 6\r\ncooked\r\nEND\r\n"


# -- when the server is not there ------------------------------------------------------------------


@pytest.fixture
def nowhere() -> tuple[str, int]:
    with EmbeddedServer() as server:
        address: tuple[str, int] = server.address
    return address


def test_without_a_server_every_command_raises_the_sockets_error(nowhere: tuple[str, int]) -> None:
    client = Client(nowhere, timeout=PATIENCE)
    for call in (
        lambda: client.get("key"),
        lambda: client.get_many(["key"]),
        lambda: client.set("key", b"value"),
        lambda: client.delete("key", noreply=False),
        lambda: client.incr("key", 1),
        lambda: client.stats(),
        lambda: client.version(),
        lambda: client.raw_command("version"),
        lambda: client["key"],
    ):
        with pytest.raises(ConnectionRefusedError):
            call()


def test_with_ignore_exc_a_fetch_without_a_server_is_a_miss(nowhere: tuple[str, int]) -> None:
    client = Client(nowhere, ignore_exc=True, timeout=PATIENCE)
    default, cas_default = object(), object()
    assert client.get("key") is None
    assert client.get("key", default) is default
    assert client.gets("key") == (None, None)
    assert client.gets("key", default, cas_default) == (default, cas_default)
    assert client.gat("key", 10, default) is default
    assert client.gats("key", 10) == (None, None)
    assert client.get_many(["key"]) == {}
    assert client.gets_many(["key"]) == {}
    assert client.stats() == {}
    assert client.stats("items") == {}
    with pytest.raises(KeyError):
        client["key"]
    # Writes, and what else has no miss to give, still say so.
    for call in (
        lambda: client.set("key", b"value"),
        lambda: client.set("key", b"value", noreply=False),
        lambda: client.incr("key", 1),
        lambda: client.delete("key", noreply=False),
        lambda: client.touch("key"),
        lambda: client.version(),
        lambda: client.flush_all(),
    ):
        with pytest.raises(ConnectionRefusedError):
            call()


@pytest.mark.parametrize(
    "fault",
    [
        Answer(b"SERVER_ERROR busy\r\n"),
        Answer(b"CLIENT_ERROR no\r\n"),
        Answer(b"ERROR\r\n"),
        Answer(b"nonsense\r\n"),
        Answer(b"VALUE other 0 1\r\n1\r\nEND\r\n"),
        Cut(3),
        Close(reset=True),
        Hang(),
    ],
    ids=repr,
)
def test_with_ignore_exc_whatever_befalls_a_fetch_is_a_miss(fault: Fault) -> None:
    with EmbeddedServer() as server:
        client = Client(server.address, ignore_exc=True, timeout=0.1)
        other = Client(server.address, timeout=PATIENCE)
        other.set_many({"a": b"1", "b": b"2"}, noreply=False)
        fetches: list[tuple[Callable[[], Any], Any, Any]] = [
            (lambda: client.get("a", "miss"), "miss", b"1"),
            (lambda: client.gets("a")[0], None, b"1"),
            (lambda: client.get_many(["a", "b"]), {}, {"a": b"1", "b": b"2"}),
            (lambda: client.gets_many(["a", "b"]).keys(), set(), {"a", "b"}),
        ]
        for fetch, miss, hit in fetches:
            with server.inject(fault, times=None):  # a lost connection is tried twice
                assert fetch() == miss
            client.close()
            client = Client(server.address, ignore_exc=True, timeout=PATIENCE)
            assert fetch() == hit
            client.close()
            client = Client(server.address, ignore_exc=True, timeout=0.1)
        client.close()
        other.close()


def test_ignore_exc_is_about_exceptions_and_not_about_interruptions() -> None:
    class Interrupted:
        def sendall(self, data: bytes) -> None:
            raise KeyboardInterrupt

        def settimeout(self, timeout: float | None) -> None:
            pass

        def close(self) -> None:
            pass

    client = Client("localhost", ignore_exc=True)
    for fetch in (client.get, client.gets, lambda key: client.get_many([key])):
        client.sock = Interrupted()
        with pytest.raises(KeyboardInterrupt):
            fetch("key")
        assert client.sock is None


def test_with_ignore_exc_a_refused_stats_is_empty(connect: Callable[..., Client]) -> None:
    client = connect(ignore_exc=True)
    assert client.stats("nonsense") == {}
    assert client.stats()[b"version"] == client.version()


def test_with_ignore_exc_a_value_that_cannot_be_decoded_is_a_miss(
    connect: Callable[..., Client], server: Server
) -> None:
    client = connect(ignore_exc=True, serde=serde.CompressedSerde())
    server.raw(block(b"set bad 8 0 #", b"no deflate stream"), block(b"set good 16 0 #", b"text"))
    default = object()
    assert client.get("bad", default) is default
    assert client.gets("bad") == (None, None)
    assert client.get_many(["bad", "good"]) == {"good": "text"}
    assert client.gets_many(["bad"]) == {}
    assert client.get("good") == "text"
