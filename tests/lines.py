"""Interrupting an action at each line of some modules in turn, and keeping what was raised.

A line stands for each moment at which a signal handler may raise.  At two kinds of lines none can,
since the interpreter does not look for signals there: at a ``try:``, which does nothing, and where
the ``with`` block of a builtin lock is left, before the lock is released.
"""

from __future__ import annotations

import linecache
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

LINES_MOST = 3000


class Interrupted(BaseException):
    """What is raised in the middle of anything."""


def interrupted_at_each_line(
    prepare: Callable[[], Any], action: Callable[[], Any], modules: tuple[str, ...]
) -> Iterator[Interrupted]:
    """What was raised in `action`, at another line each time; `modules` are the ends of file names.

    `prepare` is called before each, and not interrupted.  It ends when `action` does.
    """
    for number in range(LINES_MOST):
        prepare()
        errors = [_interrupted(action, modules, number)]
        if errors[0] is None:
            return
        yield errors.pop()  # type: ignore[misc]  # nothing in here keeps it
    raise AssertionError(f"it does not end within {LINES_MOST} lines")


def _interrupted(
    action: Callable[[], Any], modules: tuple[str, ...], number: int
) -> Interrupted | None:
    """What `action` raises when it is interrupted before the line with this number."""
    left = number
    raised: Interrupted | None = None
    entered: set[tuple[FrameType, int]] = set()

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left, raised
        if not frame.f_code.co_filename.endswith(modules):
            return None
        if event == "line" and is_interruptible(frame):
            left -= 1
            if left == -1:
                sys.settrace(None)
                name = frame.f_code.co_filename.rpartition("/")[2]
                raised = Interrupted(f"{name}:{frame.f_lineno}")
                raise raised
        return trace

    def is_interruptible(frame: FrameType) -> bool:
        line = (frame, frame.f_lineno)
        text = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
        if text == "try:" or (text.startswith("with ") and line in entered):
            return False
        entered.add(line)
        return True

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        action()
    except Interrupted as error:
        raised = None  # else it holds this frame, and this frame it
        return error
    except Exception:
        pass  # its own
    finally:
        sys.settrace(before)
        entered.clear()
    return raised  # by a finalizer, where it was ignored
