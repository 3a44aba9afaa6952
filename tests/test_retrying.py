"""`RetryingClient` over clients made for the test: how often it tries, when it waits, and what it
shows of the client.  Where it is to be as the reference, the tests run over both.
"""

from __future__ import annotations

import copy
import functools
import inspect
import math
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest
from pymemcache.client.retrying import RetryingClient as Reference

from cymemcache import (
    Client,
    ExponentialBackoff,
    MemcacheError,
    MemcacheServerError,
    RetryingClient,
)
from cymemcache.testing import MockMemcacheClient


class Broken:
    """A client whose commands raise `errors`, one after the other, before they succeed."""

    server = ("host", 11211)

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.calls: list[Any] = []

    def _done(self, *call: Any) -> Any:
        self.calls.append(call)
        if self.errors:
            raise self.errors.pop(0)
        return call

    def get(self, key: Any, default: Any = None) -> Any:
        """What is under `key`."""
        return self._done("get", key, default)

    def set(self, key: Any, value: Any, expire: int = 0, noreply: bool | None = None) -> Any:
        return self._done("set", key, value, expire, noreply)

    def delete(self, key: Any, noreply: bool | None = None) -> Any:
        return self._done("delete", key, noreply)

    def get_many(self, keys: Any) -> Any:
        return self._done("get_many", list(keys))

    def close(self) -> None:
        self._done("close")


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that were slept, without sleeping."""
    seconds: list[float] = []
    monkeypatch.setattr(time, "sleep", seconds.append)
    return seconds


@pytest.fixture(params=[RetryingClient, Reference], ids=["ours", "reference"])
def kind(request: pytest.FixtureRequest) -> Any:
    """The class, and the reference's."""
    return request.param


# -- as the reference ------------------------------------------------------------------------------


def test_the_constructor_is_the_references_and_one_more_keyword() -> None:
    ours, theirs = inspect.signature(RetryingClient), inspect.signature(Reference)
    mine = {name: (one.kind, one.default) for name, one in ours.parameters.items()}
    assert mine.pop("backoff") == (inspect.Parameter.KEYWORD_ONLY, None)
    assert list(mine.items()) == [
        (name, (one.kind, one.default)) for name, one in theirs.parameters.items()
    ]


@pytest.mark.parametrize(
    "options",
    [
        {"attempts": 0},
        {"attempts": -1},
        {"retry_for": "OSError"},
        {"retry_for": OSError},
        {"retry_for": frozenset([OSError])},
        {"do_not_retry_for": iter([OSError])},
        {"retry_for": [int]},
        {"do_not_retry_for": (OSError, KeyboardInterrupt)},
        {"retry_for": [BaseException]},
        {"retry_for": [OSError, ValueError], "do_not_retry_for": {ValueError}},
    ],
    ids=repr,
)
def test_options_that_are_refused(kind: Any, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"attempts|retry_for"):
        kind(Broken(), **options)


def test_options_that_are_taken(kind: Any) -> None:
    retrying = kind(Broken(), 3, 0.5, [OSError, ValueError], {MemcacheError})
    assert retrying._attempts == 3
    assert retrying._retry_delay == 0.5
    assert retrying._retry_for == (OSError, ValueError)
    assert retrying._do_not_retry_for == (MemcacheError,)
    retrying = kind(Broken(), retry_for=None, do_not_retry_for=[])
    assert (retrying._attempts, retrying._retry_delay) == (2, 0)
    assert retrying._retry_for == retrying._do_not_retry_for == ()


@pytest.mark.parametrize("attempts", [1, 2, 5])
def test_a_command_is_tried_so_often_and_the_last_error_raised(kind: Any, attempts: int) -> None:
    errors = [OSError(str(number)) for number in range(attempts)]
    client = Broken(*errors)
    with pytest.raises(OSError, match=str(attempts - 1)) as caught:
        kind(client, attempts).get("key")
    assert caught.value is errors[-1]
    assert client.calls == [("get", "key", None)] * attempts


@pytest.mark.parametrize("failures", [0, 1, 2])
def test_a_success_ends_it(kind: Any, failures: int) -> None:
    client = Broken(*[OSError() for _ in range(failures)])
    assert kind(client, attempts=3).get("key", default=5) == ("get", "key", 5)
    assert len(client.calls) == failures + 1


@pytest.mark.parametrize(
    ("options", "error", "tries"),
    [
        ({}, ValueError(), 2),
        ({"retry_for": [OSError]}, OSError(), 2),
        ({"retry_for": [OSError]}, TimeoutError(), 2),  # a subclass
        ({"retry_for": [TimeoutError]}, OSError(), 1),
        ({"retry_for": [OSError, MemcacheServerError]}, MemcacheServerError(), 2),
        ({"do_not_retry_for": [OSError]}, TimeoutError(), 1),
        ({"do_not_retry_for": [OSError]}, ValueError(), 2),
        ({"retry_for": [OSError], "do_not_retry_for": [TimeoutError]}, TimeoutError(), 1),
        ({"retry_for": [OSError], "do_not_retry_for": [TimeoutError]}, ConnectionError(), 2),
        ({"retry_for": [TimeoutError], "do_not_retry_for": [OSError]}, TimeoutError(), 1),
        ({"retry_for": ()}, ValueError(), 2),
        ({}, KeyboardInterrupt(), 1),
        ({}, SystemExit(), 1),
        ({}, GeneratorExit(), 1),
    ],
    ids=repr,
)
def test_what_another_attempt_follows(
    kind: Any, options: dict[str, Any], error: BaseException, tries: int
) -> None:
    client = Broken(error, error)
    with pytest.raises(type(error)) as caught:
        kind(client, **options).get("key")
    assert caught.value is error
    assert len(client.calls) == tries


def test_dir_is_the_clients(kind: Any) -> None:
    client = Client("localhost")
    assert dir(kind(client)) == dir(client)


def test_setting_an_attribute_leaves_the_client_alone(kind: Any) -> None:
    client = Broken()
    retrying = kind(client)
    retrying.server = "other"
    assert (retrying.server, client.server) == ("other", ("host", 11211))


def test_private_methods_of_the_client_are_there_and_retried(kind: Any) -> None:
    client = Broken(OSError())
    assert kind(client)._done(1) == (1,)
    assert len(client.calls) == 2


def test_item_access_is_retried(kind: Any) -> None:
    client = Broken(OSError())
    retrying = kind(client)
    assert retrying["key"] == ("get", "key", None)
    client.errors.append(OSError())
    retrying["key"] = 5
    client.errors.append(OSError())
    del retrying["key"]
    assert client.calls == [
        *[("get", "key", None)] * 2,
        *[("set", "key", 5, 0, True)] * 2,
        *[("delete", "key", True)] * 2,
    ]


def test_item_access_to_what_is_not_there(kind: Any) -> None:
    with pytest.raises(KeyError):
        kind(MockMemcacheClient())["key"]


def test_every_method_of_the_client_may_be_called(kind: Any) -> None:
    retrying = kind(MockMemcacheClient(default_noreply=False))
    assert retrying.set("key", b"1") is True
    assert retrying.incr("key", 4) == 5
    assert retrying.get_many(["key", "miss"]) == {"key": b"5"}
    assert retrying.set_many({"a": 1, "b": 2}, expire=5) == []
    assert retrying.stats()
    assert retrying.close() is None


# -- the delay -------------------------------------------------------------------------------------


def test_the_delay_is_constant_without_backoff(slept: list[float]) -> None:
    for delay, expected in ((0.25, [0.25] * 3), (0, [0] * 3)):
        with pytest.raises(OSError, match="4"):
            RetryingClient(Broken(*map(OSError, "1234")), 4, delay).get("key")
        assert slept == expected
        slept.clear()


def test_nothing_is_waited_for_where_no_attempt_follows(slept: list[float]) -> None:
    RetryingClient(Broken(), retry_delay=1).get("key")
    for options in ({"attempts": 1}, {"do_not_retry_for": [OSError]}, {"retry_for": [ValueError]}):
        with pytest.raises(TimeoutError):
            RetryingClient(Broken(TimeoutError()), retry_delay=1, **options).get("key")
    assert slept == []


def test_backoff_is_asked_with_the_number_of_the_attempt_that_failed(slept: list[float]) -> None:
    client = Broken(*map(OSError, "123"))
    retrying = RetryingClient(client, attempts=4, backoff=lambda attempt: attempt * 10)
    assert retrying.get("key")
    assert slept == [10, 20, 30]


@pytest.mark.parametrize("delay", [-1, math.inf, math.nan, 1e18, 10**400, None, "1"], ids=str)
def test_a_backoff_without_a_delay_leaves_the_last_error(slept: list[float], delay: Any) -> None:
    errors = [OSError(str(number)) for number in range(3)]
    delays = iter([0.5, delay])
    retrying = RetryingClient(Broken(*errors), 3, backoff=lambda attempt: next(delays))
    with pytest.raises(OSError, match="1") as caught:
        retrying.get("key")
    assert caught.value is errors[1]
    (note,) = caught.value.__notes__
    assert note.startswith(f"not tried again: backoff(2) gave {delay!r:.90}")
    assert slept == [0.5]


@pytest.mark.parametrize("client", [None, Client, "localhost:11211", ("localhost", 11211)], ids=str)
def test_what_is_no_client_is_refused(client: Any) -> None:
    with pytest.raises(TypeError, match=r"^client must be a client"):
        RetryingClient(client)


def test_an_interruption_of_the_wait_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupted)
    client = Broken(OSError())
    with pytest.raises(KeyboardInterrupt):
        RetryingClient(client, retry_delay=1).get("key")
    assert len(client.calls) == 1


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"retry_delay": -1}, ValueError, "retry_delay"),
        ({"retry_delay": float("nan")}, ValueError, "retry_delay"),
        ({"retry_delay": float("inf")}, ValueError, "retry_delay"),
        ({"retry_delay": 10**400}, ValueError, "retry_delay"),
        ({"retry_delay": "1"}, TypeError, "retry_delay"),
        ({"attempts": "2"}, TypeError, "attempts must be an integer"),
        ({"attempts": None}, TypeError, "attempts must be an integer"),
        ({"backoff": 0.5}, TypeError, "retry_delay"),
        ({"backoff": ExponentialBackoff(), "retry_delay": 1}, ValueError, "either"),
        ({"attempts": 2.5}, TypeError, "integer"),
        ({"retry_for": ["OSError"]}, ValueError, "retry_for"),
    ],
)
def test_delays_and_numbers_that_would_fail_later_are_refused(
    options: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        RetryingClient(Broken(), **options)


def test_exponential_backoff_grows_up_to_its_maximum() -> None:
    backoff = ExponentialBackoff(base=0.1, factor=3, maximum=2, jitter=0)
    assert [backoff(attempt) for attempt in range(1, 6)] == pytest.approx([0.1, 0.3, 0.9, 2, 2])
    assert backoff(100_000) == 2
    assert ExponentialBackoff(factor=1, jitter=0)(1000) == 0.05


@pytest.mark.parametrize("jitter", [0, 0.25, 1])
@pytest.mark.parametrize("chance", [0, 0.5, 1])
def test_jitter_is_the_share_that_is_left_to_chance(
    monkeypatch: pytest.MonkeyPatch, jitter: float, chance: float
) -> None:
    monkeypatch.setattr("random.random", lambda: chance)
    backoff = ExponentialBackoff(base=4, factor=2, maximum=100, jitter=jitter)
    assert backoff(2) == pytest.approx(8 * (1 - jitter * chance))


def test_jitter_is_another_one_each_time() -> None:
    backoff = ExponentialBackoff()
    assert len({backoff(3) for _ in range(100)}) > 90


@pytest.mark.parametrize(
    "options",
    [
        {"base": 0},
        {"base": float("nan")},
        {"factor": 0.5},
        {"base": 2},
        {"maximum": 0.01},
        {"jitter": -0.1},
        {"jitter": 1.1},
        {"maximum": math.inf},
        {"factor": math.inf},
    ],
    ids=repr,
)
def test_backoffs_that_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        ExponentialBackoff(**options)


@pytest.mark.parametrize("name", ["base", "factor", "maximum", "jitter"])
def test_a_backoff_of_what_are_no_numbers_is_refused(name: str) -> None:
    options: Any = {name: "1"}
    with pytest.raises(TypeError, match=f"^{name} must be a number"):
        ExponentialBackoff(**options)


def test_a_backoff_shows_what_it_does() -> None:
    text = "ExponentialBackoff(base=1, factor=2, maximum=30, jitter=0.5)"
    assert repr(ExponentialBackoff(1, 2, 30, 0.5)) == text


# -- what it shows of the client -------------------------------------------------------------------

METHODS = [
    name
    for name in dir(Client)
    if not name.startswith("_") and inspect.isfunction(getattr(Client, name))
]


@pytest.mark.parametrize("name", METHODS)
def test_methods_look_like_the_clients(name: str) -> None:
    client = Client("localhost")
    theirs, ours = getattr(client, name), getattr(RetryingClient(client), name)
    assert inspect.signature(ours) == inspect.signature(theirs)
    assert inspect.getfullargspec(ours) == inspect.getfullargspec(theirs)
    assert inspect.ismethod(ours)
    assert inspect.getdoc(ours) == inspect.getdoc(theirs)
    assert not hasattr(ours, "__wrapped__")
    for attribute in ("__name__", "__qualname__", "__module__", "__self__"):
        assert getattr(ours, attribute) == getattr(theirs, attribute)


def test_functions_that_are_no_methods_look_like_themselves() -> None:
    def get(key: str, default: int = 5) -> Any:
        """One."""
        return broken.get(key, default)

    broken = Broken(OSError())
    broken.fetch = get
    broken.partial = functools.partial(get, default=6)
    retrying = RetryingClient(broken)
    assert inspect.signature(retrying.fetch) == inspect.signature(get)
    assert inspect.getfullargspec(retrying.fetch) == inspect.getfullargspec(get)
    assert (retrying.fetch.__name__, retrying.fetch.__doc__) == ("get", "One.")
    assert retrying.fetch("key") == ("get", "key", 5)
    broken.errors.append(OSError())
    assert inspect.signature(retrying.partial) == inspect.signature(broken.partial)
    assert retrying.partial("key") == ("get", "key", 6)
    assert len(broken.calls) == 4


def test_a_wrapped_method_stays_a_wrapped_one(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def traced(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            seen.append(args[1])
            return function(*args, **kwargs)

        return wrapper

    retrying = RetryingClient(Broken(OSError()))
    original = Broken.get
    monkeypatch.setattr(Broken, "get", traced(original))
    assert retrying.get("key") == ("get", "key", None)
    assert seen == ["key", "key"]
    assert retrying.get.__wrapped__ is original
    assert inspect.signature(retrying.get) == inspect.signature(Broken().get)


def test_what_passes_for_a_method_is_called_itself() -> None:
    class Proxy:
        """As wrapt's proxies do, it says that it is what it stands for."""

        __class__ = type(Broken().get)  # type: ignore[assignment]

        def __init__(self, method: Any) -> None:
            self.__func__, self.__self__ = method.__func__, method.__self__

        def __call__(self, *args: Any) -> Any:
            return ("seen", *self.__func__(self.__self__, *args))

    client = Broken(OSError())
    client.get = Proxy(client.get)
    assert RetryingClient(client).get("key") == ("seen", "get", "key", None)


def test_a_command_that_is_patched_on_the_client_is_tried() -> None:
    client = Client("localhost")
    retrying = RetryingClient(client, attempts=3)
    with mock.patch.object(client, "get", side_effect=[OSError(), OSError(), b"value"]) as get:
        assert retrying.get("key") == b"value"
    assert get.mock_calls == [mock.call("key")] * 3


def test_a_command_can_be_patched_here() -> None:
    client = Broken()
    retrying = RetryingClient(client)
    with mock.patch.object(retrying, "get", return_value=b"value"):
        assert retrying.get("key") == b"value"
    assert client.calls == []
    assert retrying.get("key") == ("get", "key", None)


def test_attributes_that_are_no_methods_are_the_clients_own() -> None:
    client = MockMemcacheClient(timeout=3)
    client.client_class = Client
    retrying = RetryingClient(client)
    for name in ("server", "timeout", "serde", "sock", "ignore_exc", "client_class"):
        assert getattr(retrying, name) is getattr(client, name)
    client.ignore_exc = True
    assert retrying.ignore_exc is True


def test_what_the_client_has_not_is_not_there() -> None:
    retrying = RetryingClient(Broken())
    assert not hasattr(retrying, "gat")
    with pytest.raises(AttributeError, match="'Broken' object has no attribute 'gat'"):
        retrying.gat("key")
    assert not hasattr(retrying, "__wrapped__")


def test_methods_that_the_client_makes_up_are_retried() -> None:
    class Dynamic:
        def __getattr__(self, name: str) -> Any:
            return functools.partial(broken.get, name)

    broken = Broken(OSError())
    assert RetryingClient(Dynamic()).anything() == ("get", "anything", None)
    assert len(broken.calls) == 2


def test_one_around_another_multiplies_the_attempts() -> None:
    client = Broken(*[TimeoutError() for _ in range(6)])
    retrying = RetryingClient(RetryingClient(client, attempts=3), attempts=2)
    with pytest.raises(TimeoutError):
        retrying.get("key")
    assert len(client.calls) == 6
    assert inspect.signature(retrying.get) == inspect.signature(client.get)


class Once:
    """Can be gone through but once, and is no iterator."""

    def __init__(self, keys: list[str]) -> None:
        self._rest = iter(keys)

    def __iter__(self) -> Iterator[str]:
        return self._rest


@pytest.mark.parametrize("name", ["get_many", "function"])
@pytest.mark.parametrize("by_name", [False, True])
@pytest.mark.parametrize("once", [iter, Once])
def test_an_iterator_of_keys_is_there_for_every_attempt(
    name: str, by_name: bool, once: Callable[[list[str]], Any]
) -> None:
    client = Broken(OSError())
    client.function = lambda keys: client.get_many(keys)
    command, keys = getattr(RetryingClient(client), name), once(["a", "b"])
    if by_name:
        command(keys=keys)
    else:
        command(keys)
    assert client.calls == [("get_many", ["a", "b"])] * 2


def test_an_iterator_that_is_a_value_is_handed_on_as_it_is() -> None:
    value = iter([1])
    assert RetryingClient(Broken(OSError())).set("key", value)[2] is value


def test_a_with_block_closes_the_client() -> None:
    client = Broken()
    retrying = RetryingClient(client)
    with retrying as entered:
        assert entered is retrying
        assert client.calls == []
    assert client.calls == [("close",)]


def test_its_repr_shows_the_client() -> None:
    assert repr(RetryingClient(Client("host:1"))) == "<RetryingClient of <Client host:1>>"


def test_it_can_be_copied() -> None:
    client = Broken(OSError())
    assert copy.copy(RetryingClient(client)).get("key") == ("get", "key", None)


def test_no_delay_may_be_given_as_none() -> None:
    assert RetryingClient(mock.Mock(), retry_delay=None)._retry_delay == 0


def test_one_that_could_not_be_made_can_be_shown() -> None:
    half_made = RetryingClient.__new__(RetryingClient)
    with pytest.raises(AttributeError, match="_client"):
        repr(half_made)
