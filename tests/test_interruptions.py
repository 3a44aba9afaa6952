"""Who raised an exception: the call that was made, or a signal handler or another thread."""

from __future__ import annotations

import ctypes
import functools
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any
from unittest.mock import Mock

import pytest

from cymemcache import MemcacheIllegalInputError, MemcacheServerError
from cymemcache.interruptions import is_failure, is_interruption, own, text_of


class Mine(Exception):
    pass


def plain(number: int, frame: FrameType | None) -> None:
    raise TimeoutError("mine")


def bare(number: int, frame: FrameType | None) -> None:
    raise TimeoutError


def deletes_its_arguments(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise ConnectionResetError(104, "mine")


def any_arguments(*arguments: Any) -> None:
    raise OSError("mine")


def deeper(number: int, frame: FrameType | None) -> None:
    plain_function()


def plain_function() -> None:
    raise Mine("mine")


def given_more(more: str, number: int, frame: FrameType | None) -> None:
    del frame
    raise Mine(more)


def resets_itself(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    raise TimeoutError("mine")


@functools.wraps(plain)
def decorated(*arguments: Any, **more: Any) -> None:
    plain(*arguments, **more)


def generated(*arguments: Any) -> Iterator[int]:
    yield 1
    plain_function()


class Handler:
    def method(self, number: int, frame: FrameType | None) -> None:
        raise TimeoutError("mine")

    def __call__(self, number: int, frame: FrameType | None) -> None:
        del frame
        raise TimeoutError("mine")


HANDLERS: list[Any] = [
    *(plain, bare, deletes_its_arguments, any_arguments, deeper, resets_itself, decorated),
    *(Handler().method, Handler(), functools.partial(given_more, "more")),
    lambda number, frame: plain_function(),
]


def caught(function: Callable[..., Any], *arguments: Any) -> Exception:
    try:
        function(*arguments)
    except Exception as error:
        return error
    raise AssertionError("it does not raise")


@pytest.fixture
def handle() -> Iterator[Callable[[Any], None]]:
    """Makes its argument the handler of SIGUSR1."""
    before = signal.getsignal(signal.SIGUSR1)
    yield lambda handler: signal.signal(signal.SIGUSR1, handler) and None
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("handler", HANDLERS)
def test_what_a_handler_raises_between_two_instructions_is_an_interruption(
    handle: Callable[[Any], None], handler: Any
) -> None:
    handle(handler)
    assert is_interruption(caught(signal.raise_signal, signal.SIGUSR1))


def test_what_another_thread_raises_is_an_interruption() -> None:
    raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
    here = ctypes.c_ulong(threading.get_ident())

    def run() -> None:
        thread = threading.Thread(target=raise_in, args=(here, ctypes.py_object(TimeoutError)))
        thread.start()
        while True:
            thread.join(0.001)

    assert is_interruption(caught(run))


def test_what_a_call_raises_itself_is_none(handle: Callable[[Any], None]) -> None:
    handle(plain)  # that there is a handler means nothing
    one, other = socket.socketpair()
    with one, other:
        one.settimeout(0.001)
        assert not is_interruption(caught(one.recv, 1))
    assert not is_interruption(caught(one.recv, 1))
    assert not is_interruption(caught(socket.getaddrinfo, "127.0.0.1", "no number"))
    assert not is_interruption(caught(plain_function))
    assert not is_interruption(caught(bare, 1, None))
    assert not is_interruption(caught(lambda: [][1]))
    assert not is_interruption(caught(lambda: next(iter(()))))
    assert not is_interruption(caught(lambda: list(generated(None))))
    assert not is_interruption(Mine())


def logged(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*arguments: Any) -> Any:
        return function(*arguments)

    return wrapper


@pytest.mark.parametrize("wrapping", [logged, lambda function: Mock(side_effect=function)])
def test_the_wrapper_of_a_handler_is_none_around_another_function(
    handle: Callable[[Any], None], wrapping: Callable[..., Any]
) -> None:
    handle(wrapping(plain))
    assert is_interruption(caught(signal.raise_signal, signal.SIGUSR1))
    assert not is_interruption(caught(wrapping(plain_function)))


def test_what_may_be_forgiven_is_marked_or_the_servers(handle: Callable[[Any], None]) -> None:
    def handler(number: int, frame: FrameType | None) -> None:
        raise MemcacheServerError("of another client")

    handle(handler)
    assert is_failure(own(TimeoutError("ours")))
    assert is_failure(MemcacheServerError("out of memory"))
    assert not is_failure(TimeoutError("somebody's"))
    assert not is_failure(MemcacheIllegalInputError("key"))
    assert not is_failure(caught(signal.raise_signal, signal.SIGUSR1))


def test_an_error_that_fails_to_make_a_text_has_one_all_the_same() -> None:
    class Wordless(OSError):
        def __str__(self) -> str:
            raise ZeroDivisionError

    assert "ZeroDivisionError" in text_of(Wordless())
    assert text_of(OSError("text")) == "text"
