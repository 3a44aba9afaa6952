"""Who raised an exception: the call that we made, or something that came in between.

Three things raise in the middle of any call: signal handlers, other threads
(``PyThreadState_SetAsyncExc``) and whoever throws into a greenlet.  Their exceptions must reach the
caller whatever class they have, and say nothing about a server.  So an error counts as one of ours
only where that is known: a call on one of our sockets raised it, or we made it ourselves; it is
marked there with `own`.  Everything else that is to be forgiven is asked `is_interruption` first.

What cannot be told: an `Exception` that is thrown, with arguments, into a greenlet which waits
within a call on its socket, since the sockets of gevent raise their own errors in that way.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal is slow to load
from functools import partial
from opcode import opmap

from .exceptions import MemcacheError, MemcacheIllegalInputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, FrameType
    from typing import Any, TypeVar

    E = TypeVar("E", bound=BaseException)

_MARK = "_cymemcache_own"
_TAKES_ANY = 0x04  # of a code object's flags: there is an *args
_RAISE = frozenset((opmap["RAISE_VARARGS"], opmap["RERAISE"]))


def own(error: E, silent: bool = False) -> E:
    """Mark `error` as one that a call on our socket, or we ourselves, have raised.

    `silent`: nothing was ever received on the connection.
    """
    vars(error)[_MARK] = silent
    return error


def is_own(error: BaseException) -> bool:
    """Whether `error` is marked; the mark goes with `disown`."""
    return _MARK in vars(error)


def disown(error: BaseException) -> bool:
    """Remove the mark: the command has ended.  Whether the connection was silent."""
    silent: bool = vars(error).pop(_MARK, False)
    return silent


def is_failure(error: BaseException) -> bool:
    """Whether `error` is the server's, or of a call on our socket: what may be forgiven."""
    return is_own(error) or (is_answer(error) and not is_interruption(error))


def is_answer(error: BaseException) -> bool:
    """Whether `error` is of a class for what servers say."""
    return isinstance(error, MemcacheError) and not isinstance(error, MemcacheIllegalInputError)


def text_of(error: BaseException) -> str:
    """The text of `error`, which may be of a class of somebody's own that fails to make one."""
    try:
        return str(error)
    except Exception as another:
        if is_interruption(another):
            raise
        return f"(its text is not to be had: {type(another).__name__})"


def is_interruption(error: BaseException) -> bool:
    """Whether `error`, just caught, came from outside of what the caller has called."""
    trace = error.__traceback__
    if trace is None:
        return False
    handlers = None
    while trace.tb_next is not None:
        trace = trace.tb_next
        frame = trace.tb_frame
        # A frame of ours is none; and to ask for the variables of one would keep them alive.
        if str(frame.f_globals.get("__name__")).startswith("cymemcache."):
            continue
        if handlers is None:
            handlers = _handlers()
        if frame.f_code in handlers or _has_its_caller(frame):
            return True
    # What another thread raises is made without arguments, between any two instructions.  So is
    # what `next` raises.
    if isinstance(error, StopIteration):
        return False
    code = trace.tb_frame.f_code.co_code
    at = trace.tb_lasti
    return not error.args and 0 <= at < len(code) and code[at] not in _RAISE


def _handlers() -> set[CodeType]:
    """The code of the signal handlers that are installed, where no other function has the same.

    What takes any arguments may be a decorator's wrapper, or a mock's `__call__`, and stand around
    any function; as a handler it has its caller among them.
    """
    found = set()
    for number in range(1, _signal.NSIG):
        try:
            handler: Any = _signal.getsignal(number)
        except ValueError:  # a gap between the numbers
            continue
        if not callable(handler):  # there is none
            continue
        while isinstance(handler, partial):
            handler = handler.func
        handler = getattr(handler, "__func__", handler)  # of a method
        code = getattr(handler, "__code__", None)
        if code is None:
            code = getattr(type(handler).__call__, "__code__", None)
        if code is not None and not code.co_flags & _TAKES_ANY:
            found.add(code)
    return found


def _has_its_caller(frame: FrameType) -> bool:
    """Whether its caller is among the arguments of `frame`, as only a handler (or tracer) has it.

    Handlers come and go, so it may not be installed any more.
    """
    caller = frame.f_back
    if caller is None:  # of a generator that has ended, in 3.11
        return False
    code = frame.f_code
    values = frame.f_locals
    if any(values.get(name) is caller for name in code.co_varnames[: code.co_argcount]):
        return True
    if code.co_flags & _TAKES_ANY:
        rest = values.get(code.co_varnames[code.co_argcount + code.co_kwonlyargcount], ())
        return any(value is caller for value in rest)
    return False
