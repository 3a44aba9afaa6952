"""The same generated calls on pymemcache and on our clients, against the same real servers.

Both clients make every call of a script, each on servers that hold the same before it.  The outcome
(the result, or the type of the exception) and what the servers hold afterwards must be the same.
Only what is repaired on purpose makes a difference: `EXCUSES` lists that, and each of them is met.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from typing import Any, NamedTuple

import pymemcache
import pymemcache.serde
import pytest

import cymemcache
import cymemcache.hashing
import cymemcache.serde
from cymemcache.testing import MemcachedProcess
from wire import PATIENCE

CALLS = 400  # of one script

KEYS: list[Any] = ["a", "b", "c", b"d", "number", b"number", "key-of-seventeen-", "x" * 240]
BAD_KEYS: list[Any] = [
    "a b",
    "a\r\nb",
    b"a\0b",
    "x" * 251,
    b"\xff" * 251,
    "gr\xfcn",
    5,
    None,
    ["a"],
]
VALUES: list[Any] = [b"", b"value", b"12", b"0" * 300, b"\r\nEND\r\n", "text", "7", 5, -3, 10**25]
ODD_VALUES: list[Any] = [1.5, None, True, [1, "two"], {"a": 1}, "gr\xfcn", b"big" * 400_000]
EXPIRES: list[Any] = [0, 0, 0, 0, 1000, 1000, -1, 2**31 - 1]
BAD_EXPIRES: list[Any] = ["5", 1.5, None]
FLAGS: list[Any] = [None, None, None, 0, 16, 7, 2**32 - 1]
NOREPLY: list[Any] = [None, None, True, False, False, False]
DELTAS: list[Any] = [0, 1, 7, 2**40]  # near 2**64 the server reads what is beside its number
BAD_DELTAS: list[Any] = ["x", None, 1.5]


class Call(NamedTuple):
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    odd: int  # how many of its arguments are not usual


def hashable(thing: Any) -> bool:
    return not isinstance(thing, list)


class Script:
    """The calls of a seed."""

    def __init__(self, seed: str) -> None:
        self.random = random.Random(seed)
        self.odd = 0

    def one(self, usual: list[Any], odd: list[Any] | None = None) -> Any:
        if odd and self.random.random() < 0.06:
            self.odd += 1
            return self.random.choice(odd)
        return self.random.choice(usual)

    def key(self) -> Any:
        return self.one(KEYS, BAD_KEYS)

    def keys(self) -> Any:
        made = [self.key() for _ in range(self.random.randrange(6))]
        kinds = [list, tuple, dict.fromkeys] if all(map(hashable, made)) else [list, tuple]
        return self.random.choice(kinds)(made)

    def options(self, **drawn: Callable[[], Any]) -> dict[str, Any]:
        return {name: draw() for name, draw in drawn.items() if self.random.random() < 0.5}

    def storing(self) -> dict[str, Any]:
        return self.options(
            expire=lambda: self.one(EXPIRES, BAD_EXPIRES),
            noreply=lambda: self.one(NOREPLY),
            flags=lambda: self.one(FLAGS),
        )

    def value(self) -> Any:
        return self.one(VALUES, ODD_VALUES)

    def calls(self) -> Iterator[Call]:
        for _ in range(CALLS):
            self.odd = 0
            noreply = partial(self.one, NOREPLY)
            name = self.random.choice(NAMES)
            args: tuple[Any, ...] = ()
            kwargs: dict[str, Any] = {}
            if name in ("set", "add", "replace", "append", "prepend", "[]="):
                args, kwargs = (self.key(), self.value()), self.storing()
            elif name == "cas":
                args, kwargs = (
                    (self.key(), self.value(), self.one(["last", 1, "1", b"1"])),
                    (self.storing()),
                )
            elif name in ("set_many", "set_multi"):
                items = {key: self.value() for key in self.keys() if hashable(key)}
                args, kwargs = (items,), self.storing() if items else {}
            elif name in ("get", "gets", "[]", "del"):
                args = (self.key(),)
                if name == "get":
                    kwargs = self.options(default=lambda: self.one([None, 5, b""]))
            elif name in ("get_many", "get_multi", "gets_many"):
                args = (self.keys(),)
            elif name == "delete":
                args, kwargs = (self.key(),), self.options(noreply=noreply)
            elif name in ("delete_many", "delete_multi"):
                args, kwargs = (self.keys(),), self.options(noreply=noreply)
            elif name in ("incr", "decr"):
                args = (self.one(["number", "number", b"number", self.key()]),)
                args += (self.one(DELTAS, BAD_DELTAS),)
                kwargs = self.options(noreply=lambda: self.one([True, False]))
            elif name == "touch":
                args = (self.key(),)
                kwargs = self.options(
                    expire=lambda: self.one(EXPIRES, BAD_EXPIRES), noreply=noreply
                )
            elif name == "flush_all":
                args = self.one([(), (0,), (1000,)])
                kwargs = self.options(noreply=noreply)
            yield Call(name, args, kwargs, self.odd)


NAMES = [
    *["set"] * 12, *["add", "replace", "append", "prepend", "cas"] * 2, *["set_many"] * 4,
    "set_multi", *["get", "gets"] * 4, *["get_many", "gets_many"] * 3, "get_multi",
    *["delete"] * 2, "delete_many", "delete_multi", *["incr", "decr"] * 3, *["touch"] * 2,
    "flush_all", "[]", "[]=", "del", "close",
]  # fmt: skip


class Runner:
    """One client."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def run(self, call: Call) -> tuple[tuple[str, Any], bool]:
        """The result of `call`, and whether the connections are in step after it."""
        try:
            result = self._result(call)
            told = type(result).__name__, result
        except Exception as error:
            kinds = [kind.__name__ for kind in type(error).__mro__]
            # A MemcacheServerError that only this package tells apart.
            told = "raised", [kind for kind in kinds if kind != "MemcacheValueTooLargeError"]
        try:
            # noreply commands are done as well when this is answered.
            for node in getattr(self.client, "clients", {"": self.client}).values():
                assert node.version()[:2] == b"1."
        except Exception:
            return told, False
        return told, True

    def _result(self, call: Call) -> Any:
        if call.name == "[]":
            return self.client[call.args[0]]
        if call.name == "[]=":
            self.client[call.args[0]] = call.args[1]
            return None
        if call.name == "del":
            del self.client[call.args[0]]
            return None
        result = getattr(self.client, call.name)(*call.args, **call.kwargs)
        if call.name == "gets":
            return result[0], type(result[1])
        if call.name == "gets_many":
            return {key: (value, type(token)) for key, (value, token) in result.items()}
        return result


class Held(NamedTuple):
    value: bytes
    flags: bytes
    ttl: bytes  # in seconds, thousands of them; -1 for none


class Outcome(NamedTuple):
    told: tuple[str, Any]  # the type of the result and the result, or "raised" and the exception's
    in_step: bool
    held: list[dict[bytes, Held]]


class Holding:
    """What a server holds under `KEYS`, over a connection of the test's own."""

    def __init__(self, address: tuple[str, int], prefix: bytes) -> None:
        keys = [*map(raw, KEYS), "gr\xfcn".encode()]
        self.keys = [prefix + key for key in dict.fromkeys(keys)]
        self._sock = socket.create_connection(address, PATIENCE)
        self._file = self._sock.makefile("rwb")

    def close(self) -> None:
        self._file.close()
        self._sock.close()

    def items(self) -> dict[bytes, Held]:
        found = {}
        for key, (flags, value) in self._meta(b"s f t v").items():
            _, flag, ttl = flags
            if ttl != b"t-1":
                ttl = b"t%d" % round(int(ttl[1:]), -3)
            if value.strip(b" ").isdigit():
                value = value.rstrip(b" ")  # the server pads a smaller number, but not always
            found[key] = Held(value, flag[1:], ttl[1:])
        return found

    def token(self, key: bytes) -> bytes:
        found = self._meta(b"s c v").get(key)
        return found[0][1][1:] if found else b"1"

    def restore(self, items: dict[bytes, Held]) -> None:
        self._file.write(b"flush_all\r\n")
        for key, (value, flags, ttl) in items.items():
            life = b"0" if ttl == b"-1" else ttl
            self._file.write(b"ms %b %d F%b T%b\r\n" % (key, len(value), flags, life))
            self._file.write(value + b"\r\n")
        self._file.flush()
        assert self._file.readline() == b"OK\r\n"
        for _ in items:
            assert self._file.readline().startswith(b"HD")

    def _meta(self, flags: bytes) -> dict[bytes, tuple[list[bytes], bytes]]:
        self._file.write(b"".join(b"mg %b %b\r\n" % (key, flags) for key in self.keys))
        self._file.flush()
        found = {}
        for key in self.keys:
            verb, *rest = self._file.readline().split()
            if verb == b"VA":
                found[key] = rest[1:], self._file.read(int(rest[0]) + 2)[:-2]
            else:
                assert verb == b"EN"
        return found


def raw(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


OPTIONS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "plain": lambda package: {},
    "replies": lambda package: {"default_noreply": False},
    "pickle": lambda package: {"serde": package.serde.pickle_serde, "default_noreply": False},
    "compressed": lambda package: {"serde": package.serde.CompressedSerde(min_compress_len=100)},
    "prefix": lambda package: {
        "key_prefix": b"p:", "allow_unicode_keys": True, "encoding": "utf-8"
    },
    "functions": lambda package: {
        "serializer": lambda key, value: (raw(value), 99),
        "deserializer": lambda key, value, flags: (key, value, flags),
    },
    "ignoring": lambda package: {"ignore_exc": True, "default_noreply": False},
}  # fmt: skip

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "Client": ("Client", {}),
    "PooledClient": ("PooledClient", {"max_pool_size": 4}),
    "HashClient": ("HashClient", {}),
    "pooled HashClient": ("HashClient", {"use_pooling": True, "max_pool_size": 4}),
}


class Difference(NamedTuple):
    """A call after which the reference and ours were not the same."""

    kind: str
    options: str
    call: Call
    theirs: Outcome
    mine: Outcome

    def __str__(self) -> str:
        name, args, kwargs, _ = self.call
        lines = [
            f"{self.kind}, {self.options}: {name}{args!r:.500} {kwargs}",
            f"  theirs: {self.theirs.told!r:.300}",
            f"  ours:   {self.mine.told!r:.300}",
        ]
        for theirs, mine in zip(self.theirs.held, self.mine.held, strict=True):
            lines += [
                f"  stored under {key!r:.30}: {theirs.get(key)!r:.99} and {mine.get(key)!r:.99}"
                for key in sorted(theirs | mine)
                if theirs.get(key) != mine.get(key)
            ]
        return "\n".join(lines)


def in_order(outcome: Outcome, kind: str) -> Outcome:
    """With the order of a dict taken out that several nodes have filled: as fast as they were."""
    name, result = outcome.told
    if kind in SPLIT and type(result) is dict:
        return outcome._replace(told=(name, dict(sorted(result.items(), key=repr))))
    return outcome


def raised(outcome: Outcome, *kinds: str) -> bool:
    verdict, names = outcome.told
    return verdict == "raised" and (not kinds or not set(kinds).isdisjoint(names))


def same_key_twice(keys: Any) -> bool:
    forms = {key for key in keys if isinstance(key, (str, bytes))}
    return len(set(map(raw, forms))) < len(forms)


FETCHES = ("get", "gets", "get_many", "get_multi", "gets_many", "[]")

BAD_ARGUMENT = ("MemcacheIllegalInputError", "TypeError", "ValueError")

# Where the reference is done with one node before it looks at the arguments for the next one.
SPLIT = dict.fromkeys(("HashClient", "pooled HashClient"), ("set_many", "set_multi"))

# Why a call may differ: what is repaired, and each must be met.
EXCUSES: dict[str, Callable[[Difference], bool]] = {
    "what would be pickled or compressed is not appended": lambda one: (
        one.options in ("pickle", "compressed")
        and one.call.name in ("append", "prepend")
        and raised(one.mine, "MemcacheIllegalInputError")
    ),
    "a value that cannot be decoded is a miss": lambda one: (
        one.options in ("pickle", "compressed")
        and one.call.name in FETCHES
        and raised(one.theirs, "ValueError", "error")  # zlib's
        and not raised(one.mine, "ValueError", "error")
    ),
    "a key that is asked for as str and as bytes is found under both": lambda one: (
        one.call.name in ("get_many", "get_multi", "gets_many") and same_key_twice(one.call.args[0])
    ),
    "all arguments are checked before anything is sent": lambda one: (
        one.call.name in ("delete_many", "delete_multi", *SPLIT.get(one.kind, ()))
        and raised(one.theirs)
        and raised(one.mine, *BAD_ARGUMENT)
    ),
    "of several bad arguments another one is told": lambda one: (
        one.call.odd > 1 and raised(one.theirs) and raised(one.mine, *BAD_ARGUMENT)
    ),
    "bad arguments raise, ignore_exc or not": lambda one: (
        one.options == "ignoring" and raised(one.mine, *BAD_ARGUMENT)
    ),
    "set_many gives the keys that were refused, where that is to be ignored": lambda one: (
        one.options == "ignoring"
        and one.call.name in ("set_many", "set_multi")
        and one.mine.told[0] == "list"
        and raised(one.theirs, "MemcacheServerError")
    ),
    "a node that refuses an item costs the others nothing": lambda one: (
        one.kind.endswith("HashClient")
        and one.call.name in ("set_many", "set_multi")
        and raised(one.theirs, "MemcacheServerError")
        and raised(one.mine, "MemcacheServerError")
    ),
    "PooledClient uses its encoding": lambda one: (
        "encoding" in OPTIONS[one.options](cymemcache)
        and one.kind == "PooledClient"
        and raised(one.theirs, "MemcacheIllegalInputError")
        and "gr\xfcn" in repr(one.call.args)
    ),
    "flush_all tells each node's answer": lambda one: (
        one.call.name == "flush_all"
        and one.theirs.told == ("NoneType", None)
        and one.mine.told[0] == "dict"
        and set(one.mine.told[1].values()) == {True}
    ),
}


class Comparison:
    """All scripts of all kinds of clients, and what differed."""

    def __init__(self, nodes: list[tuple[str, int]]) -> None:
        self._nodes = nodes
        self.calls = 0
        self.differences: list[Difference] = []
        for kind in KINDS:
            for options in OPTIONS:
                with ExitStack() as stack:
                    self._run(kind, options, stack)

    def _run(self, kind: str, options: str, stack: ExitStack) -> None:
        name, extra = KINDS[kind]
        is_cluster = name == "HashClient"
        servers = self._nodes if is_cluster else self._nodes[:1]
        prefix = OPTIONS[options](cymemcache).get("key_prefix", b"")
        holdings = [stack.enter_context(closing(Holding(address, prefix))) for address in servers]
        runners = []
        for package in (pymemcache, cymemcache):
            client = getattr(package, name)(
                servers if is_cluster else servers[0],
                timeout=PATIENCE,
                no_delay=True,  # which the reference has not by default: it would wait 40 ms a time
                **extra,
                **OPTIONS[options](package),
            )
            stack.callback(client.close)
            runners.append(Runner(client))
        held: list[dict[bytes, Held]] = [{} for _ in holdings]
        for call in Script(f"{kind}, {options}").calls():
            if is_cluster and call.name in ("[]", "[]=", "del"):
                continue  # the reference's has none of these
            self.calls += 1
            outcomes = []
            for runner in runners:
                for holding, items in zip(holdings, held, strict=True):
                    holding.restore(items)
                told, in_step = runner.run(with_token(call, holdings, prefix))
                now = [holding.items() for holding in holdings]
                outcomes.append(Outcome(told, in_step, now))
            theirs, mine = outcomes
            held = mine.held
            if repr(in_order(theirs, kind)) != repr(in_order(mine, kind)):
                self.differences.append(Difference(kind, options, call, theirs, mine))
                runners[0].client.close()  # it may be out of step


def with_token(call: Call, holdings: list[Holding], prefix: bytes) -> Call:
    """`call` with the cas token that the item has now, where it is to have that."""
    if call.name != "cas" or call.args[2] != "last":
        return call
    key = prefix + raw(call.args[0])
    token = max((holding.token(key) for holding in holdings), key=int)
    return call._replace(args=(*call.args[:2], token))


@pytest.fixture(scope="module")
def comparison() -> Iterator[Comparison]:
    with ExitStack() as stack:
        nodes: list[tuple[str, int]] = []
        # Which node a key belongs to depends on their ports: each is to have its share.
        while not 3 <= [owner(nodes, key) for key in KEYS].count(0) <= 5:
            processes = [stack.enter_context(MemcachedProcess()) for _ in range(2)]
            nodes = [process.address for process in processes]
        yield Comparison(nodes)


def owner(nodes: list[tuple[str, int]], key: Any) -> int | None:
    names = [f"{host}:{port}" for host, port in nodes]
    return names.index(cymemcache.hashing.RendezvousHash(names).get_node(key)) if nodes else None


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_repaired_is_the_same(kind: str, comparison: Comparison) -> None:
    unexcused = [
        str(one)
        for one in comparison.differences
        if one.kind == kind and not any(excuses(one) for excuses in EXCUSES.values())
    ]
    assert not unexcused, "\n".join(unexcused)
    assert comparison.calls > 5000


@pytest.mark.parametrize("reason", EXCUSES)
def test_every_excuse_is_needed(reason: str, comparison: Comparison) -> None:
    assert any(EXCUSES[reason](one) for one in comparison.differences)


def test_ours_is_never_out_of_step(comparison: Comparison) -> None:
    assert [str(one) for one in comparison.differences if not one.mine.in_step] == []
