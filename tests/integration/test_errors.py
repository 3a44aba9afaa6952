"""An error that a command raises is the caller's alone: it has no context of the client's making,
and neither it nor what it came from (request, connection, half a value) outlives the caller's
interest, garbage collector or not.  Each test runs over both exchanges.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest

from cymemcache import Client, HashClient
from cymemcache.serde import PickleSerde
from cymemcache.testing import Answer, Close, Cut, Delay, EmbeddedServer, Fault
from cymemcache.testing.process import free_port

CLOSED = "MemcacheUnexpectedCloseError"

FAILURES: dict[str, tuple[Fault | None, str, Callable[[Client], Any]]] = {
    "refused key": (None, "MemcacheIllegalInputError", lambda client: client.get("a b")),
    "refused value": (
        None,
        "MemcacheIllegalInputError",
        lambda client: client.set("k", bytearray(1001)),
    ),
    "closed": (Close(), CLOSED, lambda client: client.incr("n", 1)),
    "closed twice": (Close(), CLOSED, lambda client: client.get("k")),
    "closed in a batch": (Close(), CLOSED, lambda client: client.set_many({"k": b"v"}, 0, False)),
    "closed after noreply": (
        Close(),
        CLOSED,
        lambda client: (client.set("k", b"v", noreply=True), client.get("k")),
    ),
    "cut": (Cut(9), CLOSED, lambda client: client.get_many(["k", "text"])),
    "late": (Delay(0.4), "TimeoutError", lambda client: client.get("k")),
    "malformed": (Answer(b"STORED\r\n"), "MemcacheUnknownError", lambda client: client.get("k")),
    "error": (None, "MemcacheClientError", lambda client: client.incr("text", 1)),
    "error in a fetch": (
        Answer(b"SERVER_ERROR x\r\n"),
        "MemcacheServerError",
        lambda client: client.get("k"),
    ),
    "error in a batch": (
        Answer(b"SERVER_ERROR x\r\n"),
        "MemcacheServerError",
        lambda client: client.set_many({"k": b"v" * 100}, 0, False),
    ),
    "unknown command": (
        None,
        "MemcacheUnknownCommandError",
        lambda client: client.raw_command("no such", "END\r\n"),
    ),
    "shutdown": (None, "MemcacheUnknownCommandError", lambda client: client.shutdown()),
    "corrupt pickle": (None, "UnpicklingError", lambda client: client.get("corrupt")),
    "corrupt pickles": (None, "UnpicklingError", lambda client: client.get_many(["corrupt"])),
}


def name_of_error(call: Callable[[], Any]) -> str:
    try:
        call()
    except Exception as error:
        return type(error).__name__
    return ""


def leaves_nothing(call: Callable[[], Any]) -> bool:
    """Whether the garbage collector has nothing to free after `call`."""
    call()  # what is imported or made once is made
    for _ in range(5):  # the server's thread can leave something at the same time, now and then
        gc.collect()
        gc.disable()
        try:
            call()
            if gc.collect() == 0:
                return True
        finally:
            gc.enable()
    return False


@pytest.mark.parametrize("failure", list(FAILURES))
def test_a_failed_command_leaves_nothing_to_the_garbage_collector(
    embedded: EmbeddedServer, connect: Callable[..., Client], failure: str
) -> None:
    fault, name, call = FAILURES[failure]
    serde = PickleSerde(on_error="raise")
    client = connect(embedded.address, timeout=0.2, max_value_size=1000, serde=serde)
    client.set("text", "text", noreply=False)
    client.set("corrupt", b"\x80", noreply=False, flags=1)
    names = set()

    def fail() -> None:
        names.add(name_of_error(lambda: call(client)))

    if fault is None:
        assert leaves_nothing(fail)
    else:
        with embedded.inject(fault, times=None):
            assert leaves_nothing(fail)
    assert names == {name}


def test_a_refused_connection_leaves_nothing_to_the_garbage_collector(
    connect: Callable[..., Client],
) -> None:
    client = connect(("localhost", free_port()))
    for call in (lambda: client.get("k"), lambda: client.set("k", b"v", noreply=True)):
        assert leaves_nothing(lambda call=call: name_of_error(call))  # type: ignore[misc]
        assert name_of_error(call) == "ConnectionRefusedError"


def test_a_refused_connection_is_told_without_what_the_client_tried_before(
    connect: Callable[..., Client],
) -> None:
    client = connect(("127.0.0.1", free_port()))
    for call in (lambda: client.get("k"), lambda: client.set("k", b"v", noreply=True)):
        with pytest.raises(ConnectionRefusedError) as caught:
            call()
        assert caught.value.__context__ is None


@pytest.mark.parametrize("ignore_exc", [False, True])
@pytest.mark.parametrize("failure", ["closed", "cut", "late", "malformed", "error in a fetch"])
def test_a_failed_command_of_a_cluster_leaves_nothing_to_the_garbage_collector(
    embedded: EmbeddedServer, failure: str, ignore_exc: bool
) -> None:
    fault, _, _ = FAILURES[failure]
    assert fault is not None
    with EmbeddedServer() as other:
        client = HashClient(
            [embedded.address, other.address],
            timeout=0.2,
            retry_timeout=0,  # each call is a try
            ignore_exc=ignore_exc,
            retry_attempts=1_000_000,
        )
        keys = [f"key{number}" for number in range(10)]
        calls: list[Callable[[], Any]] = [
            lambda: client.get_many(keys),
            lambda: client.set_many(dict.fromkeys(keys, b"v"), noreply=False),
            lambda: client.incr("key1", 1),
            lambda: client.stats(),
        ]
        with client, embedded.inject(fault, times=None):
            for call in calls:
                assert leaves_nothing(lambda call=call: name_of_error(call))  # type: ignore[misc]


def test_what_a_failing_node_is_not_asked_leaves_nothing_to_the_garbage_collector() -> None:
    keys = [f"key{number}" for number in range(10)]
    with HashClient([("127.0.0.1", free_port())], retry_timeout=1000) as client:
        calls: list[Callable[[], Any]] = [
            lambda: client.get("key1"),
            lambda: client.get_many(keys),
            lambda: client.set_many(dict.fromkeys(keys, b"v")),
        ]
        assert name_of_error(calls[0]) == "ConnectionRefusedError"
        for call in calls:
            assert leaves_nothing(lambda call=call: name_of_error(call))  # type: ignore[misc]
            assert name_of_error(call) == "MemcacheNodeDownError"
