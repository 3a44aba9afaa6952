"""What becomes of a stored value that cannot be decoded: a miss that is logged, or its error.

Each serde of ours asks here, and only here is it decided, so that a bad pickle, bytes that are no
text, no number or no JSON, and broken compression all end alike: with `MISS`, which a client treats
as it treats a key that is not there.  Nothing in here looks at a value.
"""

from __future__ import annotations

from . import log
from .core.replies import MISS
from .interruptions import is_interruption, text_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    Kind: TypeAlias = tuple[str, str]

_MAX_KINDS = 100  # that are logged as warnings: unpickling can make classes without end

_logged: set[Kind] = set()


def checked_on_error(on_error: str) -> str:
    """`on_error` where it is one of the two words that `undecodable` knows."""
    if on_error not in ("miss", "raise"):
        raise ValueError(f"on_error must be 'miss' or 'raise', got {on_error!r}")
    return on_error


def undecodable(error: Exception, what: str, key: Any, on_error: str) -> Any:
    """What a serde returns for the `what` value of `key`, on which it got `error`.

    That is `MISS`, after a line in the log; where `on_error` is "raise", `error` is raised, and so
    is what a signal handler or another thread has raised meanwhile.  A deploy can make thousands of
    values unreadable at once: each kind of value and error is one warning per process, its
    repetitions are debug messages.
    """
    if on_error == "raise" or is_interruption(error):
        error.add_note(f"while decoding the {what} value of {key!r}")
        try:
            raise error
        finally:
            del error  # else it and this frame hold each other
    kind = what, type(error).__name__
    new = kind not in _logged and len(_logged) < _MAX_KINDS
    if new:
        _logged.add(kind)
    message = "the %s value of %r cannot be decoded and counts as missing: %s"
    if new:
        log.warn(message, what, key, _shown(error), cause=error)
    else:
        log.debug(message, what, key, _shown(error))
    return MISS


def _shown(error: Exception) -> str:
    return f"{type(error).__name__}: {text_of(error)}"[:200]
