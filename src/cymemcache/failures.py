"""What it means that a command has failed, decided in one place.

Whatever ends a command of a client comes here, to `Failures.ended`: it is counted, the node is told
where it says something about the server, and the error is made to name the server.  What is left to
the caller is what depends on the command: to send it once more (`may_retry`), to give a miss, or to
raise.  Nothing may be forgiven of which `ended` does not say so, and nothing else may call `failed`
of a node: trouble of this process (`trouble`) and what comes from outside (`interruptions`) must
never make keys move.
"""

from __future__ import annotations

from time import monotonic

from .core.replies import GET, GET_MANY, GETS, GETS_MANY, STATS, VERSION
from .exceptions import (
    MemcacheClientError,
    MemcacheServerError,
    MemcacheUnexpectedCloseError,
)
from .interruptions import disown, is_answer, is_interruption, is_own
from .trouble import is_unreachable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .counters import Tally
    from .node import Node

# Commands that do no harm when the server executes them twice.
_RETRIED = frozenset((GET, GETS, GET_MANY, GETS_MANY, STATS, VERSION))

# What OpenSSL makes of a server's answer that is not TLS.
_NO_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG", "HTTP_REQUEST")


class Failures:
    """What becomes of the commands of one client that fail.

    `server` is its address; `is_tls`: whether it is spoken to over TLS.
    """

    __slots__ = ("_is_tls", "_tally", "node", "server")

    def __init__(self, tally: Tally, server: Any, is_tls: bool) -> None:
        self._tally = tally
        self.server = server
        self._is_tls = is_tls
        #: who is told when the server cannot be reached: what a cluster knows of it
        self.node: Node | None = None

    def ended(self, error: BaseException, node: Node | None = None) -> bool:
        """A command has ended with `error`.  Whether that may be forgiven.

        `node` where it is another than the client's own.
        """
        self._tally.failed(error)
        return self.told(error, node)

    def told(self, error: BaseException, node: Node | None = None) -> bool:
        """The same for one that is not counted."""
        if is_own(error):
            node = node or self.node
            if node is not None and is_unreachable(error):
                node.failed(error)
            self._name(error, disown(error))
            return True
        if is_answer(error) and not is_interruption(error):
            error.server = self.server  # type: ignore[attr-defined]
            return True
        return False

    def refused(self, error: BaseException) -> None:
        """A command has come to its end with `error`, which the server has answered."""
        self._tally.failed(error)
        error.server = self.server  # type: ignore[attr-defined]

    def _name(self, error: BaseException, silent: bool) -> None:
        """Say in `error` which server it is about, and why where that is known."""
        error.server = self.server  # type: ignore[attr-defined]
        about = f"server {self._tally.server}"
        if getattr(error, "reason", None) in _NO_TLS:
            about += ": it does not speak TLS there, tls_context must be left out"
        elif silent and not self._is_tls and _is_end(error):
            about += ": it may speak TLS there, which needs tls_context"
        name_in_text(error, about)


def name_in_text(error: BaseException, about: str) -> None:
    """Add `about` to the text of `error`, which stays what it is otherwise."""
    arguments = error.args
    if not arguments:
        error.args = (about,)
        return
    # errno, strerror: the text is the second, and for itself as well.
    at = 1 if isinstance(error, OSError) and len(arguments) == 2 else 0
    text = arguments[at]
    if len(arguments) > 2 or not isinstance(text, str) or about in text:
        return  # of somebody's own, or raised before
    text = f"{text} ({about})"
    error.args = (*arguments[:at], text, *arguments[at + 1 :])
    if at and isinstance(error, OSError):
        error.strerror = text


def told_by(node: Node, error: BaseException) -> None:
    """A client of `node` that is none of ours, and has told nobody, has raised `error`."""
    if is_unreachable(error) and not is_interruption(error):
        node.failed(error)


def is_reply(error: BaseException) -> bool:
    """Whether the server is there: `error` is what it has replied."""
    return is_answer(error) and not isinstance(error, MemcacheUnexpectedCloseError)


def is_refusal(error: BaseException) -> bool:
    """Whether `error` is a server's refusal of a command, rather than the end of a connection."""
    return (
        isinstance(error, (MemcacheClientError, MemcacheServerError))
        and is_reply(error)
        and not is_interruption(error)
    )


def is_forgivable(client: Any, error: Exception) -> bool:
    """Whether `error`, which a method of `client` has raised, may be forgiven by its cluster."""
    if is_interruption(error):
        return False
    if is_answer(error) or "server" in vars(error):
        return True
    # Of another's client nothing better is known than the class.
    ours = isinstance(getattr(client, "_failures", None), Failures)
    return not ours and (isinstance(error, OSError) or type(error) is RuntimeError)


def _is_end(error: BaseException) -> bool:
    """Whether `error` says that the server has ended the connection."""
    return isinstance(error, (MemcacheUnexpectedCloseError, ConnectionError))


def was_ended(error: BaseException) -> bool:
    """Whether the server has ended the connection, or there was none to be had."""
    return is_own(error) and _is_end(error)


def may_retry(kind: int, error: BaseException, connection: Any) -> bool:
    """Whether a command can be sent once more, since the server had closed an idle connection.

    Not after a byte of the reply, not with noreply commands that may be lost, and not after a
    timeout: the server may be at work on it.  Nor where that came late: all its time begins anew.
    """
    return (
        kind in _RETRIED
        and was_ended(error)
        and not connection.received
        and not connection.unacknowledged
        and not connection.forked()
        and is_early(connection.timeout, connection.used_at_seconds)
    )


def is_early(timeout: float | None, began: float) -> bool:
    """Whether what `began` then can begin anew, and still end about when it has to."""
    return timeout is None or monotonic() - began <= timeout / 8
