"""What both twins share: the kinds of reply a parser can be asked for, and its special results.

Names, shapes and the wording of errors only: no parsing, and nothing that the hot path calls.  The
numbers stand again in the compiled parser, where a test holds the two lists against each other.
"""

from __future__ import annotations

from ..exceptions import (
    MemcacheClientError,
    MemcacheError,
    MemcacheServerError,
    MemcacheUnexpectedCloseError,
    MemcacheUnknownCommandError,
    MemcacheUnknownError,
    MemcacheValueTooLargeError,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class _Mark:
    """A result that no reply can have."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


NEED_DATA = _Mark("NEED_DATA")  # of a parser: the reply is not complete yet
STALE = _Mark("STALE")  # of an exchange: the connection is of no use, nothing was sent
MISS = _Mark("MISS")  # of a serde: this value is none, it counts as a miss

NOREPLY = 0  # in the place of a kind: there is no reply

# Kinds of reply.  "-> " tells the result; an error line of the server becomes an error *instance*
# where the reply is known to end with it, and is raised where it is not.
GET = 1  # one key -> its value, or the default
GETS = 2  # one key -> (value, cas token), or the default
GET_MANY = 3  # any number of keys -> {key: value}
GETS_MANY = 4  # any number of keys -> {key: (value, cas token)}
STORE = 5  # set add replace append prepend -> True, False (NOT_STORED)
CAS = 6  # -> True, False (EXISTS, NOT_STORED), None (NOT_FOUND)
STORE_MANY = 7  # one STORE reply per key -> list of the keys that were not stored
DELETE = 8  # -> True, False (NOT_FOUND)
DELETE_MANY = 9  # one DELETE reply per key -> True
ARITHMETIC = 10  # incr decr -> int, None (NOT_FOUND)
TOUCH = 11  # -> True, False (NOT_FOUND)
OK = 12  # flush_all verbosity cache_memlimit slabs lru_crawler -> True
VERSION = 13  # -> bytes
STATS = 14  # STAT, ITEM, PREFIX lines up to END, or RESET, or OK -> {bytes: bytes}
METADUMP = 15  # lines up to END or EN -> [bytes]
CONFIG = 16  # config get -> bytes, None where there is no such configuration
LINE = 17  # any one line -> bytes
RAW = 18  # anything up to an end token (given in the place of the keys) -> bytes
# Whatever belongs to noreply commands.  In the place of the keys: whether storage commands are
# among them.  Refused by another line than SERVER_ERROR they raise: a value may be executed.
BARRIER = 19  # up to a VERSION line -> list of the errors
DRAIN = 20  # so far -> NEED_DATA, always
# The replies that were asked for to commands that might have done without: one line for each of
# the keys (of which only the number counts) -> list of the errors.
WRITES = 21

# What is sent for a BARRIER.  ("mn" would be shorter, but twemproxy closes on it.)
BARRIER_REQUEST = b"version\r\n"

# The verbs of the commands that have a value.
STORAGE_VERBS = (b"set", b"add", b"replace", b"append", b"prepend", b"cas")

# What a command that has changed something, or not, is answered, beside numbers.
WRITTEN = frozenset(
    (b"STORED", b"NOT_STORED", b"EXISTS", b"NOT_FOUND", b"DELETED", b"TOUCHED", b"OK")
)

# Bytes from which on a server may refuse a value for its size.  memcached does that without a word
# where noreply was asked for.
DOUBTFUL_SIZE = 1 << 19

# Flags of the stock serde (those of pymemcache, and of python-memcached before it).
FLAG_BYTES = 0
FLAG_PICKLE = 1 << 0
FLAG_INTEGER = 1 << 1
FLAG_LONG = 1 << 2
FLAG_COMPRESSED = 1 << 3
FLAG_TEXT = 1 << 4

# How a parser decodes the values of a fetch.
DECODE_RAW = 0  # values are bytes, flags are dropped
DECODE_STOCK = 1  # bytes, str and int by their stock flags; anything else comes as `Undecoded`
DECODE_LATER = 2  # every value comes as `Undecoded`

# Limits, in bytes.
MAX_LINE_LENGTH = 1 << 16
MAX_VALUE_SIZE = (1 << 31) - 3  # memcached reads lengths as int32 and adds the final CR LF
DEFAULT_MAX_VALUE_SIZE = 1 << 30
MAX_STATS_SIZE = 1 << 26  # of the lines of one reply, counted as LINE_COST says
LINE_COST = 100  # of the objects that are made of a line, beside its bytes
MAX_NOREPLY_ERRORS = 1 << 20  # that are counted between two barriers, in numbers
DEFAULT_MAX_REQUEST_SIZE = 1 << 20

# With what an error line begins,
ERRORS = (b"ERROR", b"CLIENT_ERROR", b"SERVER_ERROR")
# and one that refuses slabs, lru_crawler or cache_memlimit.
REFUSALS = (
    *(b"BUSY", b"BADCLASS", b"NOSPARE", b"NOTFULL", b"UNSAFE", b"SAME", b"NOTSTARTED"),
    *(b"MEMLIMIT_TOO_SMALL", b"MEMLIMIT_ADJUST_FAILED"),
)
# As many bytes tell whether a line begins with one of these.
LONGEST_ERROR = max(map(len, ERRORS + REFUSALS))


class Undecoded:
    """A fetch result in which some values still need the serde.

    Deserializing runs other people's code, so it happens after the connection has gone back.
    `items` holds ``(key, value, flags)`` of each such value, in the order of the reply; `result`
    is the finished result, with the raw bytes where the deserialized values have to go.
    """

    __slots__ = ("items", "result")

    def __init__(self, result: Any, items: list[tuple[Any, bytes, int]]) -> None:
        self.result = result
        self.items = items


class PartialFailure:
    """The result of a batch in which the server answered some commands with an error line.

    `result` is what the batch gives apart from that (the failed keys included), `error` the first
    of the errors.
    """

    __slots__ = ("error", "result")

    def __init__(self, result: Any, error: MemcacheError) -> None:
        self.result = result
        self.error = error


class Failed:
    """In the place of a result: the error after which its connection must be closed."""

    __slots__ = ("error",)

    def __init__(self, error: Exception) -> None:
        self.error = error


def server_error(line: bytes, request: bytes) -> MemcacheError | None:
    """The error that `line` (without CR LF) stands for, None where it is no error line.

    `request` is what was sent: its first word names a command that the server does not know.
    """
    word, _, reason = line.partition(b" ")
    # "ERROR: shutdown not enabled", which is a SERVER_ERROR since 1.6.40.
    colon = word.endswith(b":")
    if colon:
        word = word[:-1]
    text = reason.decode("utf-8", "replace")
    if word == b"SERVER_ERROR":
        if not reason.startswith(b"object too large"):
            return MemcacheServerError(text)
        text += " (compress the value, or raise memcached's -I)"
        return MemcacheValueTooLargeError(text, *_stored_at(request, 0))
    if word == b"CLIENT_ERROR":
        return MemcacheClientError(text)
    if word != b"ERROR":
        return None
    if colon:
        return MemcacheUnknownCommandError(text)
    if reason:  # such as "ERROR Too many open connections": the command has nothing to do with it
        return MemcacheServerError(text)
    line = request.partition(b"\r\n")[0]
    # Words other than those of a sub-command are keys and the like, which do not matter.
    words = line if line.startswith(b"stats ") else line.partition(b" ")[0]
    name = words.decode("ascii", "replace")
    what = f"the command {name[:100]!r}" if name else "a noreply command"
    return MemcacheUnknownCommandError(f"the server does not know {what}, or has it turned off")


def refusal(line: bytes) -> MemcacheServerError | None:
    """The error where `line` (without CR LF) refuses a command about the server in other words.

    Such a line is the whole reply, also where many lines or an end token would have followed.
    """
    if line.partition(b" ")[0] in REFUSALS:
        return MemcacheServerError(line.decode("utf-8", "replace"))
    return None


def _stored_at(request: bytes, index: int) -> tuple[bytes | None, int | None]:
    """The key, as it is sent, and the size of the value of storage command `index` in `request`.

    None for both where it is none.
    """
    position = 0
    while True:
        end = request.find(b"\r\n", position)
        words = request[position : max(end, position)].split(b" ", 5)
        if len(words) < 5 or words[0] not in STORAGE_VERBS or not words[4].isdigit():
            return None, None
        size = int(words[4])
        if index == 0:
            return words[1], size
        index -= 1
        position = end + size + 4


def name_command(error: MemcacheError, request: bytes, index: int, key: Any) -> None:
    """`error` is the answer to command `index` in `request`, which is about `key`."""
    if isinstance(error, MemcacheValueTooLargeError):
        error.key = key
        error.size = _stored_at(request, index)[1]


def keeps_in_step(line: bytes) -> bool:
    """True where the server reads on as if nothing had happened after the error line `line`.

    After ``ERROR`` with a reason it closes the connection.
    """
    return not line.startswith(b"ERROR ")


def protocol_error(line: bytes, request: bytes) -> MemcacheUnknownError:
    """The error for a line that is no legal reply to `request`."""
    verb = request.partition(b"\r\n")[0].partition(b" ")[0].decode("ascii", "replace")
    shown = repr(line[:80]) + ("..." if len(line) > 80 else "")
    return MemcacheUnknownError(f"not a legal reply to {verb[:100]!r}: {shown}")


def too_large_error(size: int, max_value_size: int) -> MemcacheUnknownError:
    """The error for a value that is announced larger than the client accepts, in bytes."""
    return MemcacheUnknownError(
        f"the server announces a value of {size} bytes, more than max_value_size ({max_value_size})"
    )


def endless_error(limit: str, size: int) -> MemcacheUnknownError:
    """The error for a reply whose end does not come within `limit`, which is `size` bytes."""
    return MemcacheUnknownError(f"no end of the reply within {limit} ({size} bytes)")


def broken_error() -> MemcacheUnknownError:
    """The error for a parser that is asked again after it has raised."""
    return MemcacheUnknownError("this reply stream was given up after an earlier error")


def extra_bytes_error(request: bytes) -> MemcacheUnknownError:
    """The error for bytes that follow a complete reply: whose they are cannot be known."""
    verb = request.partition(b"\r\n")[0].partition(b" ")[0].decode("ascii", "replace")
    return MemcacheUnknownError(f"the server sent more than the reply to {verb[:100]!r}")


def refused_value_error(line: bytes) -> MemcacheUnknownError:
    """The error where a noreply storage command was refused, and its value perhaps executed."""
    return MemcacheUnknownError(
        f"an earlier noreply storage command was answered {line[:80]!r}: the server may have read "
        "its value as commands, so nothing that follows can be trusted"
    )


def closed_error() -> MemcacheUnexpectedCloseError:
    """The error for the end of the stream before the reply was complete."""
    return MemcacheUnexpectedCloseError(
        "the server closed the connection before its reply was complete"
    )


def fork_error() -> MemcacheUnexpectedCloseError:
    """The error, in a child process, for a command in the middle of which it was forked."""
    return MemcacheUnexpectedCloseError(
        "the process was forked in the middle of this command; the reply belongs to the parent"
    )


def timeout_error(timeout: float) -> TimeoutError:
    """The error for an operation that took longer than `timeout` seconds."""
    return TimeoutError(f"timed out: no complete reply within {timeout:g} s")
