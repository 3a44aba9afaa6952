"""Bad arguments: each gets an error that names the argument before anything is sent, whatever
`ignore_exc` and `noreply` say, and the client goes on as if nothing had been asked of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import pytest

from cymemcache import Client, MemcacheIllegalInputError
from cymemcache.testing import EmbeddedServer
from wire import LONG_KEY, PATIENCE, TOO_LONG_KEY

Call: TypeAlias = Callable[[Client, Any], Any]


@pytest.fixture(scope="module")
def running() -> Iterator[EmbeddedServer]:
    with EmbeddedServer(recording=True) as server:
        yield server


@pytest.fixture
def server(running: EmbeddedServer) -> EmbeddedServer:
    running.clear()
    return running


def refused(
    server: EmbeddedServer,
    error: type[Exception],
    match: str,
    call: Callable[[Client], Any],
    **options: Any,
) -> None:
    """Assert that `call` raises `error` and sends nothing, before and after good commands."""
    for ignore_exc in (False, True):
        with Client(server.address, timeout=PATIENCE, ignore_exc=ignore_exc, **options) as client:
            with pytest.raises(error, match=match):
                call(client)
            assert client.sock is None
            client.set("good", b"value", noreply=True)  # learns that there is a barrier
            client.get("good")
            server.clear()
            with pytest.raises(error, match=match) as caught:
                call(client)
            assert len(str(caught.value)) < 400
            assert server.requests == []
            assert client.set("good", b"value") is True
            with pytest.raises(error, match=match):
                call(client)
            assert client.get("good") == b"value"
            assert [line.split()[0] for _, line in server.requests] == [b"set", b"version", b"get"]
            assert client.noreply_errors == 0


def ids(cases: list[Any]) -> list[str]:
    return [ascii(case[0])[:40] for case in cases]


# -- keys ------------------------------------------------------------------------------------------

TAKING_A_KEY: dict[str, Call] = {
    "set": lambda client, key: client.set(key, b"value"),
    "set-reply": lambda client, key: client.set(key, b"value", noreply=False),
    "add": lambda client, key: client.add(key, b"value"),
    "replace": lambda client, key: client.replace(key, b"value"),
    "append": lambda client, key: client.append(key, b"value"),
    "prepend": lambda client, key: client.prepend(key, b"value"),
    "cas": lambda client, key: client.cas(key, b"value", 1),
    "set_many": lambda client, key: client.set_many({"good": b"1", key: b"2"}),
    "set_multi": lambda client, key: client.set_multi({key: b"2", "good": b"1"}, noreply=False),
    "get": lambda client, key: client.get(key),
    "gets": lambda client, key: client.gets(key),
    "gat": lambda client, key: client.gat(key),
    "gats": lambda client, key: client.gats(key),
    "get_many": lambda client, key: client.get_many(["good", key]),
    "get_multi": lambda client, key: client.get_multi(iter([key, "good"])),
    "gets_many": lambda client, key: client.gets_many(["good", key]),
    "gets_multi": lambda client, key: client.gets_multi((key,)),
    "delete": lambda client, key: client.delete(key),
    "delete_many": lambda client, key: client.delete_many(["good", key]),
    "delete_multi": lambda client, key: client.delete_multi([key], noreply=False),
    "incr": lambda client, key: client.incr(key, 1),
    "decr": lambda client, key: client.decr(key, 1),
    "touch": lambda client, key: client.touch(key),
    "getitem": lambda client, key: client[key],
    "setitem": lambda client, key: client.__setitem__(key, b"value"),
    "delitem": lambda client, key: client.__delitem__(key),
    "check_key": lambda client, key: client.check_key(key),
}

BAD_KEYS: list[tuple[Any, type[Exception], str]] = [
    (TOO_LONG_KEY.decode(), MemcacheIllegalInputError, r"key is too long.*hash"),
    (TOO_LONG_KEY, MemcacheIllegalInputError, "key is too long"),
    (b"x" * 10_000_000, MemcacheIllegalInputError, "key is too long"),
    ("", MemcacheIllegalInputError, "key is empty"),
    (b"", MemcacheIllegalInputError, "key is empty"),
    ("a b", MemcacheIllegalInputError, "key contains whitespace"),
    ("a\r\nflush_all\r\n", MemcacheIllegalInputError, "key contains whitespace"),
    ("a\n", MemcacheIllegalInputError, "key contains whitespace"),
    (b"\ta", MemcacheIllegalInputError, "key contains whitespace"),
    (b"a\x0b", MemcacheIllegalInputError, "key contains whitespace"),
    ("a\x0cb", MemcacheIllegalInputError, "key contains whitespace"),
    (" ", MemcacheIllegalInputError, "key contains whitespace"),
    ("a\0b", MemcacheIllegalInputError, "key contains a NUL"),
    (b"\0", MemcacheIllegalInputError, "key contains a NUL"),
    ("schlüssel", MemcacheIllegalInputError, "key is not ASCII.*allow_unicode_keys"),
    ("日本", MemcacheIllegalInputError, "key is not ASCII"),
    (5, TypeError, "key must be str or bytes, not int"),
    (None, TypeError, "key must be str or bytes, not NoneType"),
    (("server", "key"), TypeError, "key must be str or bytes, not tuple"),
]


@pytest.mark.parametrize("command", TAKING_A_KEY)
def test_no_command_takes_a_bad_key(server: EmbeddedServer, command: str) -> None:
    call = TAKING_A_KEY[command]
    for key, error, match in BAD_KEYS:
        refused(server, error, match, lambda client, key=key: call(client, key))


@pytest.mark.parametrize("key", [bytearray(b"key"), ["key"], {"key": 1}], ids=ascii)
def test_a_key_that_cannot_be_hashed_is_of_a_wrong_type(server: EmbeddedServer, key: Any) -> None:
    for command, call in TAKING_A_KEY.items():
        if not command.startswith("set_m"):  # a dict cannot hold it
            refused(server, TypeError, "key must be", lambda client, call=call: call(client, key))


def test_a_prefix_counts_as_part_of_the_key(server: EmbeddedServer) -> None:
    for key in ("k" * 246, b"k" * 246):
        refused(
            server,
            MemcacheIllegalInputError,
            "too long, 251 bytes with its prefix",
            lambda client, key=key: client.get(key),
            key_prefix=b"five:",
        )


def test_text_that_utf8_cannot_hold_is_no_key(server: EmbeddedServer) -> None:
    for call in TAKING_A_KEY.values():
        refused(
            server,
            MemcacheIllegalInputError,
            "key cannot be encoded as UTF-8",
            lambda client, call=call: call(client, "\udc80"),
            allow_unicode_keys=True,
        )


def test_the_length_that_counts_is_that_of_the_bytes(server: EmbeddedServer) -> None:
    with Client(server.address, allow_unicode_keys=True) as client:
        with pytest.raises(MemcacheIllegalInputError, match="key is too long, 252 bytes"):
            client.get("é" * 126)
        assert client.get("é" * 125) is None
        assert client.get(LONG_KEY) is None


# -- numbers ---------------------------------------------------------------------------------------

TAKING_EXPIRE: dict[str, Call] = {
    "set": lambda client, expire: client.set("key", b"value", expire),
    "add": lambda client, expire: client.add("key", b"value", expire=expire),
    "replace": lambda client, expire: client.replace("key", b"value", expire),
    "append": lambda client, expire: client.append("key", b"value", expire),
    "prepend": lambda client, expire: client.prepend("key", b"value", expire),
    "cas": lambda client, expire: client.cas("key", b"value", 1, expire),
    "set_many": lambda client, expire: client.set_many({"key": b"value"}, expire),
    "gat": lambda client, expire: client.gat("key", expire),
    "gats": lambda client, expire: client.gats("key", expire=expire),
    "touch": lambda client, expire: client.touch("key", expire),
}

TAKING_FLAGS: dict[str, Call] = {
    "set": lambda client, flags: client.set("key", b"value", flags=flags),
    "add": lambda client, flags: client.add("key", b"value", 0, None, flags),
    "replace": lambda client, flags: client.replace("key", b"value", flags=flags),
    "append": lambda client, flags: client.append("key", b"value", flags=flags),
    "prepend": lambda client, flags: client.prepend("key", b"value", flags=flags),
    "cas": lambda client, flags: client.cas("key", b"value", 1, flags=flags),
    "set_many": lambda client, flags: client.set_many({"key": b"value"}, flags=flags),
}

NO_INTEGERS = [1.0, "1", b"1", "1\r\nflush_all", float("nan"), [1], 1j]


@pytest.mark.parametrize("command", TAKING_EXPIRE)
def test_expire_must_be_an_integer_of_32_bits(server: EmbeddedServer, command: str) -> None:
    call = TAKING_EXPIRE[command]
    for expire in [*NO_INTEGERS, None]:
        refused(
            server,
            MemcacheIllegalInputError,
            "expire must be an integer",
            lambda client, expire=expire: call(client, expire),
        )
    for expire in (2**31, -(2**31) - 1, 2**64, 10**5000):
        refused(
            server,
            MemcacheIllegalInputError,
            "expire must be from -2147483648 to 2147483647",
            lambda client, expire=expire: call(client, expire),
        )


@pytest.mark.parametrize("expire", [-1, -(2**31), 2**31 - 1, 0, True])
def test_any_expire_of_32_bits_is_legal(server: EmbeddedServer, expire: int) -> None:
    with Client(server.address) as client:
        for call in TAKING_EXPIRE.values():
            call(client, expire)
        assert client.version()
        assert client.noreply_errors == 0


@pytest.mark.parametrize("command", TAKING_FLAGS)
def test_flags_must_be_an_integer_of_32_bits(server: EmbeddedServer, command: str) -> None:
    call = TAKING_FLAGS[command]
    for flags in NO_INTEGERS:
        refused(
            server,
            MemcacheIllegalInputError,
            "flags must be an integer",
            lambda client, flags=flags: call(client, flags),
        )
    for flags in (-1, 2**32, 10**5000):
        refused(
            server,
            MemcacheIllegalInputError,
            "flags must be from 0 to 4294967295",
            lambda client, flags=flags: call(client, flags),
        )


NUMBERS: list[tuple[str, str, int, Call]] = [
    ("incr", "value", 2**64 - 1, lambda client, number: client.incr("key", number)),
    ("decr", "value", 2**64 - 1, lambda client, number: client.decr("key", number, noreply=True)),
    ("flush_all", "delay", 2**31 - 1, lambda client, number: client.flush_all(number)),
    ("cache_memlimit", "memlimit", 2**32 - 1, lambda client, n: client.cache_memlimit(n)),
]


@pytest.mark.parametrize(("command", "name", "most", "call"), NUMBERS, ids=ids(NUMBERS))
def test_numbers_must_be_what_the_server_reads(
    server: EmbeddedServer, command: str, name: str, most: int, call: Call
) -> None:
    assert command
    for number in [*NO_INTEGERS, None]:
        refused(
            server,
            MemcacheIllegalInputError,
            f"{name} must be an integer",
            lambda client, number=number: call(client, number),
        )
    for number in (-1, most + 1, 10**5000):
        refused(
            server,
            MemcacheIllegalInputError,
            f"{name} must be from 0 to {most}",
            lambda client, number=number: call(client, number),
        )


@pytest.mark.parametrize(
    "cas",
    [
        None,
        1.0,
        "",
        b"",
        "x",
        b"-1",
        -1,
        2**64,
        str(2**64),
        "1 ",
        b"1\r\n",
        "٣",
        "1_0",
        "0" * 21,
        [],
    ],
    ids=ascii,
)
def test_a_cas_token_must_be_digits_of_64_bits(server: EmbeddedServer, cas: Any) -> None:
    for noreply in (False, True):
        refused(
            server,
            MemcacheIllegalInputError,
            "cas must be",
            lambda client, noreply=noreply: client.cas("key", b"value", cas, noreply=noreply),
        )


# -- values ----------------------------------------------------------------------------------------

TAKING_A_VALUE: dict[str, Call] = {
    "set": lambda client, value: client.set("key", value),
    "set-reply": lambda client, value: client.set("key", value, noreply=False),
    "add": lambda client, value: client.add("key", value),
    "replace": lambda client, value: client.replace("key", value),
    "append": lambda client, value: client.append("key", value),
    "prepend": lambda client, value: client.prepend("key", value),
    "cas": lambda client, value: client.cas("key", value, 1),
    "set_many": lambda client, value: client.set_many({"good": b"1", "key": value}),
    "setitem": lambda client, value: client.__setitem__("key", value),
}


@pytest.mark.parametrize("command", TAKING_A_VALUE)
def test_a_value_above_max_value_size_is_refused(server: EmbeddedServer, command: str) -> None:
    call = TAKING_A_VALUE[command]
    for value in (b"x" * 1001, "x" * 1001, bytearray(1001), memoryview(bytes(1001)), 10**1000):
        refused(
            server,
            MemcacheIllegalInputError,
            "value is too large, 1001 bytes where max_value_size is 1000",
            lambda client, value=value: call(client, value),
            max_value_size=1000,
        )
    with Client(server.address, max_value_size=1000) as client:
        assert client.set("key", b"x" * 1000, noreply=False) is True
        assert client.get("key") == b"x" * 1000


@pytest.mark.parametrize("command", TAKING_A_VALUE)
def test_text_that_cannot_be_encoded_is_refused(server: EmbeddedServer, command: str) -> None:
    call = TAKING_A_VALUE[command]

    class Named:
        def __str__(self) -> str:
            return "größe"

    for value, encoding in (("grün", "ascii"), ("日本", "latin-1"), (Named(), "ascii")):
        refused(
            server,
            MemcacheIllegalInputError,
            f"value cannot be encoded as {encoding}",
            lambda client, value=value: call(client, value),
            encoding=encoding,
        )


def test_a_number_of_too_many_digits_is_refused(server: EmbeddedServer) -> None:
    for call in TAKING_A_VALUE.values():
        refused(
            server,
            MemcacheIllegalInputError,
            "value cannot be stored",
            lambda client, call=call: call(client, 10**5000),
        )


class Serde:
    """Serializes whatever it is given as `result`."""

    def __init__(self, result: Any) -> None:
        self.result = result

    def serialize(self, key: Any, value: Any) -> Any:
        return self.result

    def deserialize(self, key: Any, value: bytes, flags: int) -> Any:
        return value


BAD_RESULTS: list[tuple[Any, type[Exception], str]] = [
    (None, TypeError, "serde.serialize must return"),
    (b"value", TypeError, "serde.serialize must return"),
    ((b"value",), TypeError, "serde.serialize must return"),
    ((b"value", 0, 0), TypeError, "serde.serialize must return"),
    ([b"value", 0], TypeError, "serde.serialize must return"),
    ((None, 0), TypeError, "serde.serialize must return .*, not NoneType"),
    ((1.5, 0), TypeError, "serde.serialize must return .*, not float"),
    (({}, 0), TypeError, "serde.serialize must return .*, not dict"),
    ((b"value", None), MemcacheIllegalInputError, "flags must be an integer"),
    ((b"value", "0"), MemcacheIllegalInputError, "flags must be an integer"),
    ((b"value", 1.0), MemcacheIllegalInputError, "flags must be an integer"),
    ((b"value", -1), MemcacheIllegalInputError, "flags must be from 0"),
    ((b"value", 2**32), MemcacheIllegalInputError, "flags must be from 0"),
    (("grün", 0), MemcacheIllegalInputError, "value cannot be encoded"),
]


@pytest.mark.parametrize(("result", "error", "match"), BAD_RESULTS, ids=ids(BAD_RESULTS))
def test_a_serde_that_returns_something_else_is_told_so(
    server: EmbeddedServer, result: Any, error: type[Exception], match: str
) -> None:
    class ForOne(Serde):
        """Lets the good value of `refused` through."""

        def serialize(self, key: Any, value: Any) -> Any:
            return (value, 0) if key == "good" else super().serialize(key, value)

    for call in TAKING_A_VALUE.values():
        refused(
            server,
            error,
            match,
            lambda client, call=call: call(client, object()),
            serde=ForOne(result),
        )


def test_an_error_of_the_serde_comes_out_as_it_is(server: EmbeddedServer) -> None:
    problem = LookupError("of the serde")

    class Failing(Serde):
        def serialize(self, key: Any, value: Any) -> Any:
            if key == "good":
                return value, 0
            raise problem

    for call in TAKING_A_VALUE.values():
        refused(
            server,
            LookupError,
            "of the serde",
            lambda client, call=call: call(client, b"value"),
            serde=Failing(None),
        )


# -- the rest --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "argument", ["", " ", "a b", "items\r\nflush_all", "a\n", b"a\0", "\t", b"\r\n"], ids=ascii
)
def test_an_argument_of_stats_must_be_one_word(server: EmbeddedServer, argument: Any) -> None:
    for arguments in ([argument], ["detail", argument]):
        refused(
            server,
            MemcacheIllegalInputError,
            "argument must be one word",
            lambda client, arguments=arguments: client.stats(*arguments),
        )


@pytest.mark.parametrize("argument", [None, 1.5, ["items"], True], ids=ascii)
def test_an_argument_of_stats_must_be_text_or_a_number(
    server: EmbeddedServer, argument: Any
) -> None:
    refused(server, TypeError, "argument must be", lambda client: client.stats(argument))


RAW: list[tuple[Any, type[Exception], str, Callable[[Client], Any]]] = [
    ("empty", MemcacheIllegalInputError, "command", lambda client: client.raw_command("")),
    ("type", TypeError, "command must be", lambda client: client.raw_command(5)),
    ("text", MemcacheIllegalInputError, "command", lambda client: client.raw_command("grün")),
    ("no end", MemcacheIllegalInputError, "end_tokens", lambda c: c.raw_command("version", "")),
    ("end", TypeError, "end_tokens", lambda client: client.raw_command("version", 5)),
]


@pytest.mark.parametrize(("name", "error", "match", "call"), RAW, ids=ids(RAW))
def test_a_raw_command_must_be_text_and_end_somewhere(
    server: EmbeddedServer,
    name: str,
    error: type[Exception],
    match: str,
    call: Callable[[Client], Any],
) -> None:
    assert name
    refused(server, error, match, call)


@pytest.mark.parametrize("values", [None, 5, ["key"], "key", [("key", b"value")]], ids=ascii)
def test_set_many_takes_a_mapping(server: EmbeddedServer, values: Any) -> None:
    refused(server, TypeError, "values must be a mapping", lambda client: client.set_many(values))


@pytest.mark.parametrize("keys", [None, 5, object, "key", b"key", bytearray(b"key")], ids=ascii)
def test_batches_take_a_list_of_keys(server: EmbeddedServer, keys: Any) -> None:
    for method in ("get_many", "gets_many", "delete_many"):
        refused(
            server,
            TypeError,
            "keys must be a list",
            lambda client, method=method: getattr(client, method)(keys),
        )


def test_an_error_of_the_callers_own_iterable_comes_out_as_it_is(server: EmbeddedServer) -> None:
    def keys() -> Iterator[str]:
        yield "key"
        raise TypeError("of the generator")

    class Values(dict[str, bytes]):
        def items(self) -> Any:
            raise AttributeError("of the mapping")

    for method in ("get_many", "gets_many", "delete_many"):
        refused(
            server,
            TypeError,
            "of the generator",
            lambda client, method=method: getattr(client, method)(keys()),
        )
    refused(server, AttributeError, "of the mapping", lambda client: client.set_many(Values()))


def test_an_error_shows_only_the_beginning_of_what_it_is_about(server: EmbeddedServer) -> None:
    with Client(server.address) as client:
        for call in (
            lambda: client.get("x" * 1_000_000),
            lambda: client.set("key", b"", expire="x" * 1_000_000),
            lambda: client.cas("key", b"", "x" * 1_000_000),
            lambda: client.stats("x " * 1_000_000),
        ):
            with pytest.raises(MemcacheIllegalInputError) as caught:
                call()
            assert len(str(caught.value)) < 400
