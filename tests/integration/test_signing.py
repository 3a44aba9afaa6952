"""`SignedSerde`: what holders of a key have written is read, all else is a miss and counted."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cymemcache import Client, serde
from cymemcache.serde import (
    MISS,
    CompressedSerde,
    JSONSerde,
    LegacyWrappingSerde,
    PickleSerde,
    SignedSerde,
)
from wire import Server, block

OLD, NEW, FOREIGN = b"o" * 16, b"n" * 32, b"f" * 32


class Exploit:
    """Unpickling it is seen."""

    def __reduce__(self) -> Any:
        return _exploded, ()


explosions: list[None] = []


def _exploded() -> None:
    explosions.append(None)


@settings(deadline=None)
@given(
    key=st.one_of(st.text(min_size=1).filter(str.isprintable), st.binary(min_size=1)),
    value=st.one_of(st.binary(), st.text(), st.integers(), st.lists(st.none() | st.integers())),
)
def test_what_was_signed_is_read(key: Any, value: Any) -> None:
    signed = SignedSerde(NEW)
    assert signed.deserialize(key, *signed.serialize(key, value)) == value
    assert signed.rejected == 0


@pytest.mark.parametrize(
    "inner",
    [PickleSerde(), JSONSerde(), CompressedSerde(), LegacyWrappingSerde(None, None)],
    ids=lambda inner: type(inner).__name__,
)
def test_any_serde_can_be_signed(inner: Any) -> None:
    signed = SignedSerde(NEW, inner)
    for value in (b"v" * 1000, "text" * 1000, 123):
        data, flags = inner.serialize("k", value)
        found, found_flags = signed.serialize("k", value)
        assert found_flags == flags
        wire = data.encode() if isinstance(data, str) else b"%d" % data if data == 123 else data
        assert found[32:] == wire
        assert signed.deserialize("k", found, flags) == inner.deserialize("k", bytes(wire), flags)


def test_a_buffer_can_be_signed() -> None:
    signed = SignedSerde(NEW, LegacyWrappingSerde(None, None))
    assert signed.deserialize("k", *signed.serialize("k", memoryview(b"bytes"))) == b"bytes"


@pytest.mark.parametrize("data", [True, None, 1.5])
def test_what_is_no_data_cannot_be_signed(data: Any) -> None:
    signed = SignedSerde(NEW, LegacyWrappingSerde(lambda key, value: (data, 0), None))
    with pytest.raises(TypeError):
        signed.serialize("k", "v")


@settings(deadline=None)
@given(data=st.data())
def test_any_changed_byte_is_a_miss(data: Any) -> None:
    signed = SignedSerde(NEW)
    stored, flags = signed.serialize("k", "value")
    at = data.draw(st.integers(0, len(stored) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda byte: byte != stored[at]))
    changed = stored[:at] + bytes([byte]) + stored[at + 1 :]
    assert signed.deserialize("k", changed, flags) is MISS
    assert signed.rejected == 1


@pytest.mark.parametrize("size", [0, 1, 31, 32, 33])
def test_what_is_too_short_for_a_signature_is_a_miss(size: int) -> None:
    signed = SignedSerde(NEW)
    stored, flags = signed.serialize("k", "value")
    assert signed.deserialize("k", stored[:size], flags) is MISS
    assert signed.deserialize("k", bytes(size), flags) is MISS


def test_key_flags_and_value_are_each_signed_for_themselves() -> None:
    raw = SignedSerde(NEW, LegacyWrappingSerde(lambda key, value: (value, 1), None))
    stored, _ = raw.serialize("ab", b"cd")
    signature = stored[:32]
    assert raw.deserialize("ab", stored, 1) == b"cd"
    for key, data, flags in [
        ("a", b"bcd", 1),
        ("abc", b"d", 1),
        ("abcd", b"", 1),
        ("AB", b"cd", 1),
        ("ab", b"cd", 0),
        ("ab", b"cd", 11),
        ("1 ab", b"cd", 1),
    ]:
        assert raw.deserialize(key, signature + data, flags) is MISS


def test_a_key_is_the_same_as_str_and_as_bytes() -> None:
    signed = SignedSerde(NEW)
    for text in ("k", "schlüssel"):
        assert signed.deserialize(text.encode(), *signed.serialize(text, 1)) == 1
        assert signed.deserialize(text, *signed.serialize(text.encode(), 1)) == 1


def test_the_first_key_signs_and_all_verify() -> None:
    before, between, after = SignedSerde([OLD]), SignedSerde([NEW, OLD]), SignedSerde([NEW])
    stored = before.serialize("k", "value")
    assert between.deserialize("k", *stored) == "value"
    assert between.serialize("k", "value") == after.serialize("k", "value") != stored
    assert after.deserialize("k", *stored) is MISS
    assert (before.rejected, between.rejected, after.rejected) == (0, 0, 1)


def test_a_forged_pickle_is_never_loaded() -> None:
    signed = SignedSerde(NEW)
    forged = pickle.dumps(Exploit())
    for stored in (forged, bytes(32) + forged, SignedSerde(FOREIGN).serialize("k", Exploit())[0]):
        assert signed.deserialize("k", stored, serde.FLAG_PICKLE) is MISS
    assert explosions == []
    stored, flags = signed.serialize("k", Exploit())  # this is what would happen
    signed.deserialize("k", stored, flags)
    assert explosions == [None]
    explosions.clear()


@pytest.mark.parametrize("keys", [[], b"", b"x" * 15, [NEW, b"short"]])
def test_weak_keys_are_refused(keys: Any) -> None:
    with pytest.raises(ValueError, match=r"^keys must "):
        SignedSerde(keys)


@pytest.mark.parametrize("keys", ["text that is long enough", [NEW, "text that is long enough"]])
def test_keys_must_be_bytes_and_are_not_shown(keys: Any) -> None:
    with pytest.raises(TypeError, match=r"^keys must be bytes") as caught:
        SignedSerde(keys)
    assert "text" not in str(caught.value)


def test_the_keys_are_not_in_the_repr() -> None:
    assert "nnnn" not in repr(SignedSerde(NEW))


def test_hmac_is_loaded_with_the_first_serde_that_signs() -> None:
    code = (
        "import sys; from cymemcache.serde import SignedSerde, JSONSerde;"
        "print({'hmac', 'hashlib', 'pickle'} & sys.modules.keys());"
        "signed = SignedSerde(bytes(16), JSONSerde()); print('hmac' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["set()", "True"]


# -- on a server, over both exchanges --------------------------------------------------------------


@pytest.fixture
def forged(running_memcached: Server) -> Server:
    """A memcached that holds good and bad under keys that say which."""
    running_memcached.flush()
    with Client(running_memcached.address, serde=SignedSerde([NEW])) as client:
        client.set_many({"good": "value", "moved-from": "value"}, noreply=False)
    with Client(running_memcached.address, serde=SignedSerde([FOREIGN])) as client:
        client.set("foreign", "value", noreply=False)
    with Client(running_memcached.address) as client:
        moved = client.get("moved-from")
    running_memcached.raw(
        block(b"set moved 16 0 #", moved),
        block(b"set unsigned 1 0 #", pickle.dumps(Exploit())),
        block(b"set empty 0 0 #", b""),
    )
    return running_memcached


BAD = ["foreign", "moved", "unsigned", "empty"]


@pytest.mark.parametrize("ignore_exc", [False, True])
def test_what_is_not_signed_is_a_miss_like_any_other(
    forged: Server, connect: Callable[..., Client], ignore_exc: bool
) -> None:
    signed = SignedSerde([NEW])
    client = connect(forged.address, serde=signed, ignore_exc=ignore_exc)
    nothing = object()
    for key in BAD:
        assert client.get(key) is None
        assert client.get(key, nothing) is nothing
        assert client.gat(key, 0, nothing) is nothing
        assert client.gets(key, nothing, "no token") == (nothing, "no token")
        assert client.gats(key, 0, nothing, "no token") == (nothing, "no token")
        with pytest.raises(KeyError):
            client[key]
    assert signed.rejected == 6 * len(BAD)
    assert client.get_many(["good", *BAD, "absent"]) == {"good": "value"}
    found = client.gets_many([*BAD, "good", "absent"])
    assert found.keys() == {"good"}
    assert found["good"][0] == "value"
    assert signed.rejected == 8 * len(BAD)
    assert explosions == []


def test_the_same_item_under_another_prefix_or_type_of_key(
    running_memcached: Server, connect: Callable[..., Client]
) -> None:
    running_memcached.flush()
    signed = SignedSerde([NEW])
    client = connect(running_memcached.address, serde=signed, key_prefix=b"prefix:")
    client.set("k", ["value"])
    assert client.get(b"k") == ["value"]
    assert client.get_many(["k", b"k"]) == {"k": ["value"], b"k": ["value"]}
    # The prefix is not signed: without it the key is another one.
    other = connect(running_memcached.address, serde=signed)
    assert other.get("prefix:k") is None


def test_changes_on_the_server_break_the_signature(
    running_memcached: Server, connect: Callable[..., Client]
) -> None:
    running_memcached.flush()
    client = connect(running_memcached.address, serde=SignedSerde([NEW]), default_noreply=False)
    client.set_many({"appended": "v", "prepended": "v"})
    other = connect(running_memcached.address, default_noreply=False)
    other.append("appended", "more")
    other.prepend("prepended", "more")
    client.set("flagged", "v", flags=12345)
    assert client.get_many(["appended", "prepended", "flagged"]) == {}


# -- a serde of a user's own -----------------------------------------------------------------------


class EvenOnly:
    """Values are one digit, and odd ones count as missing."""

    def serialize(self, key: Any, value: int) -> tuple[bytes, int]:
        return b"%d" % value, 0

    def deserialize(self, key: Any, value: bytes, flags: int) -> Any:
        return MISS if int(value) % 2 else int(value)


def test_any_serde_can_say_that_a_value_is_a_miss(
    running_memcached: Server, connect: Callable[..., Client]
) -> None:
    running_memcached.flush()
    client = connect(running_memcached.address, serde=EvenOnly())
    client.set_many({"1": 1, "2": 2, "3": 3})
    assert client.get("1", "default") == "default"
    assert client.get("2", "default") == 2
    assert client.gets("1", "default", "token") == ("default", "token")
    assert client.get_many(["1", "2", "3"]) == {"2": 2}
    assert client.gets_many(["1", "2", "3"]).keys() == {"2"}


class Alternating:
    """Reads every second value as a miss, or fails on it."""

    def __init__(self, failing: bool) -> None:
        self.failing = failing
        self.read = 0

    def serialize(self, key: Any, value: Any) -> tuple[Any, int]:
        return value, 0

    def deserialize(self, key: Any, value: bytes, flags: int) -> Any:
        self.read += 1
        if self.read % 2 == 0:
            return value
        if self.failing:
            raise ValueError("not this one")
        return MISS


@pytest.mark.parametrize("failing", [False, True])
@pytest.mark.parametrize("command", ["get_many", "gets_many"])
def test_of_a_key_asked_for_twice_the_last_value_counts(
    running_memcached: Server, connect: Callable[..., Client], command: str, failing: bool
) -> None:
    running_memcached.flush()
    client = connect(running_memcached.address, serde=Alternating(failing), ignore_exc=True)
    client.set_many({"a": "1", "b": "2"}, noreply=False)
    fetch = getattr(client, command)
    assert fetch(["a", "a"]).keys() == {"a"}
    assert fetch(["a", "b"]).keys() == {"b"}
    assert fetch(["a", "a", "b"]).keys() == {"a"}
