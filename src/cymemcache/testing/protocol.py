"""memcached's classic text protocol, the server's side of it, sans I/O.

A `Session` is fed the bytes of one connection and puts its replies into `output`, reply by reply as
memcached gives them, errors and oddities included; of the meta commands it knows ``mn`` only.  How
lines were read up to memcached 1.6.39 is here, what is different since is in `strict`.  What all
sessions of a server share is its `Service`.  Nothing in here may touch a socket, wait or start a
thread, and no input whatever may raise.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from .administration import ADMINISTRATION, Command
from .faults import Entry, Fault, Hangup, Pause
from .integers import signed32, unsigned32
from .service import Service

MAX_KEY: Final = 250
MAX_LENGTH: Final = (1 << 31) - 3
_MAX_UNFINISHED: Final = 2048  # bytes of a line without an end, unless it is a get
_MAX_LINE: Final = 1 << 14  # bytes of any line, unless it is a get
_MAX_INDENT: Final = 100  # blanks before a long get
_LARGE: Final = 1 << 16  # values of which no copy is made for the reply
_MAX_OUTPUT: Final = 1000  # entries that wait to be sent while input is still processed

BAD_FORMAT: Final = b"CLIENT_ERROR bad command line format"
_BAD_DATA: Final = b"CLIENT_ERROR bad data chunk"
UNAUTHENTICATED: Final = b"CLIENT_ERROR unauthenticated"
_DELETE_USAGE: Final = BAD_FORMAT + b".  Usage: delete <key> [noreply]"
_BAD_EXPTIME: Final = b"CLIENT_ERROR invalid exptime argument"
_BAD_DELTA: Final = b"CLIENT_ERROR invalid numeric delta argument"

_GETS: Final = (b"get", b"gets", b"bget", b"gat", b"gats")
_STORES: Final = (b"set", b"add", b"replace", b"append", b"prepend", b"cas")

# Columns of the prefix statistics.
_GET, _SET, _DELETE = 0, 2, 3


class _Block:
    """The data block that a storage command has announced."""

    __slots__ = ("cas", "deadline", "flags", "key", "length", "noreply", "verb")

    def __init__(
        self,
        verb: bytes,
        key: bytes,
        flags: int,
        deadline: float,
        length: int,
        cas: int,
        noreply: bool,
    ) -> None:
        self.verb = verb
        self.key = key
        self.flags = flags
        self.deadline = deadline
        self.length = length
        self.cas = cas
        self.noreply = noreply


class Session:
    """One connection: bytes in through `receive` and `process`, entries out in `output`.

    `number` is the connection's, `peer` its address as `stats conns` shows it.  Made by
    `strict.new_session`, which knows of which version.
    """

    # How a fetch with a key that is too long is answered.
    _BAD_FETCH = BAD_FORMAT

    def __init__(self, service: Service, number: int = 0, peer: str = "") -> None:
        self.output: deque[Entry] = deque()
        self.peer = peer
        self.active_at = time.monotonic()
        self._service = service
        self._cache = service.cache
        self._dialect = service.dialect
        self._number = number
        self._buffer = bytearray()
        self._scanned = 0  # bytes at the buffer's start that hold no end of line
        self._block: _Block | None = None
        self._swallowing = 0  # bytes of a data block that nobody wants
        self._afterwards = b""  # what is answered when they have been swallowed
        self._closing = False
        self._authenticated = service.users is None
        self._credentials = -1  # length of the data block with them, -1 where a line comes next
        self._fault: Fault | None = None  # what the command in progress has met
        self._replies: deque[Entry] = self.output  # elsewhere while a fault waits for the reply

    # -- bytes in ----------------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Take what has arrived; `process` answers it."""
        self._buffer += data

    def process(self) -> bool:
        """Answer what has arrived.

        True where it has stopped before the end and is to be called again when `output` is empty.
        """
        buffer = self._buffer
        position = 0
        more = False
        while not self._closing:
            if self._swallowing:
                step = min(self._swallowing, len(buffer) - position)
                position += step
                self._swallowing -= step
                if self._swallowing:
                    break
                self._replies_after_swallowing()
            elif self._block is not None:
                end = position + self._block.length
                if len(buffer) < end + 2:
                    break
                self._store(self._block, position, end)
                self._block = None
                position = end + 2
            elif self._credentials >= 0:
                end = position + self._credentials
                if len(buffer) < end:
                    break
                self._authenticate(bytes(buffer[position:end]))
                position = end
            else:
                end = buffer.find(b"\n", position + self._scanned)
                if end < 0:
                    self._scanned = len(buffer) - position
                    if self._scanned > _MAX_UNFINISHED and not self._is_long_get(position):
                        self._hang_up()
                    break
                self._scanned = 0
                if end - position >= _MAX_LINE and not self._is_long_get(position):
                    self._hang_up()
                    break
                self._line(bytes(buffer[position:end]))
                position = end + 1
            if self._fault is not None and self._block is None and not self._swallowing:
                more = self._commit_fault()
            if more or len(self.output) > _MAX_OUTPUT:
                more = True
                break
        del buffer[:position]
        return more

    def _is_long_get(self, position: int) -> bool:
        if not self._authenticated:
            return False
        start = bytes(self._buffer[position : position + _MAX_INDENT + 5])
        line = start.lstrip(b" ")
        return len(start) - len(line) <= _MAX_INDENT and line.startswith((b"get ", b"gets "))

    def _hang_up(self) -> None:
        self._replies.append(Hangup())
        self._closing = True

    # -- replies -----------------------------------------------------------------------------------

    def _say(self, line: bytes, noreply: bool = False) -> None:
        if not noreply or self._service.answer_noreply:
            self._replies.append(line + b"\r\n")

    def _swallow(self, length: int, afterwards: bytes) -> None:
        self._swallowing = length + 2
        self._afterwards = afterwards

    def _replies_after_swallowing(self) -> None:
        if self._afterwards:
            self._replies.append(self._afterwards)
            self._afterwards = b""

    def _commit_fault(self) -> bool:
        """Send what the fault makes of the reply; whether to stop until that has gone out."""
        fault, self._fault = self._fault, None
        assert fault is not None
        replies, self._replies = self._replies, self.output
        reply = b"".join(entry for entry in replies if isinstance(entry, bytes))
        entries = [entry for entry in fault.entries(reply) if entry != b""]
        if self._closing:
            entries.append(Hangup())
        self.output += entries
        self._closing = any(isinstance(entry, Hangup) for entry in entries)
        return any(isinstance(entry, Pause) for entry in entries)

    # -- a command line ----------------------------------------------------------------------------

    def _line(self, line: bytes) -> None:
        self.active_at = time.monotonic()
        if not self._authenticated:
            self._credentials_line(line)
            return
        text = self._text_of(line)
        words = text.split(b" ")
        if b"" in words:
            words = [word for word in words if word]
        verb = words[0] if words else b""
        service = self._service
        if service.recording or service.faults.injections:
            fault = service.observe(self._number, text, verb, _keys(words))
            if fault is not None:
                self._fault = fault
                self._replies = deque()
                if not fault.executes:
                    self._pass_over(words)
                    return
        self._command(line, verb, words)

    def _text_of(self, line: bytes) -> bytes:
        """What counts of a line."""
        if line.endswith(b"\r") and len(line) > 1:
            line = line[:-1]
        return line.partition(b"\0")[0]

    def _command(self, line: bytes, verb: bytes, words: list[bytes]) -> None:
        """Answer `line`, whose words these are, by the rules before those of `strict`."""
        noreply = words[-1:] == [b"noreply"]
        handler = HANDLERS.get(verb)
        command = ADMINISTRATION.get(verb)
        if handler is not None and _fit(words, handler.least, handler.most):
            getattr(self, handler.method)(words, noreply)
        elif command is not None and _fit(words, command.least, command.most):
            silenced = command.noreply or words[:2] == [b"slabs", b"automove"]
            self._administer(command, words, noreply and silenced)
        else:
            self._say(b"ERROR")

    def _administer(self, command: Command, words: list[bytes], noreply: bool) -> None:
        dump = words[0] == b"lru_crawler" and len(words) == 3 and words[1] in self._dumps()
        if dump and self._service.crawler_enabled and self.output:
            self._say(b"ERROR cannot pipeline other commands before " + words[1], noreply)
            return
        reply = command.answer(self._service, words)
        if not noreply or self._service.answer_noreply:
            self._replies.append(reply)

    def _dumps(self) -> tuple[bytes, ...]:
        service = self._service
        newer = service.new_dumps or service.dialect.mgdump
        return (b"metadump", b"mgdump") if newer else (b"metadump",)

    def _pass_over(self, words: list[bytes]) -> None:
        """Do nothing for a command, but let its data block go by."""
        if words and words[0] in _STORES and 5 <= len(words) <= 7:
            length = signed32(words[4])
            if length is not None and 0 <= length <= MAX_LENGTH:
                self._swallow(length, b"")

    # -- authentication ----------------------------------------------------------------------------

    def _credentials_line(self, line: bytes) -> None:
        words = [word for word in line.partition(b"\0")[0].split(b" ") if word]
        length = unsigned32(words[4]) if len(words) > 4 and words[0] == b"set" else None
        if length is None:
            self._say_once(UNAUTHENTICATED)
        else:
            self._credentials = (length + 2) % (1 << 32)

    def _authenticate(self, data: bytes) -> None:
        self._credentials = -1
        if not data.endswith(b"\r\n"):
            self._say_once(b"CLIENT_ERROR bad command line termination")
            return
        credentials = self._credentials_of(data[:-2])
        if credentials is None:
            self._say_once(b"CLIENT_ERROR bad authentication token format")
            return
        user, password = credentials
        service = self._service
        service.auth_cmds += 1
        if service.users is not None and service.users.get(user) == password:
            self._say_once(b"STORED")
            self._authenticated = True
        else:
            service.auth_errors += 1
            self._say_once(b"CLIENT_ERROR authentication failure")

    def _credentials_of(self, data: bytes) -> tuple[bytes, bytes] | None:
        """User and password in the data block."""
        words = [word for word in data.partition(b"\0")[0].split(b" ") if word]
        return (words[0], words[1]) if len(words) > 1 else None

    def _say_once(self, line: bytes) -> None:
        """As long as nobody has authenticated, memcached answers what comes at once only once."""
        self.output.clear()
        self._say(line)

    # -- storage commands --------------------------------------------------------------------------

    def _update(self, words: list[bytes], noreply: bool) -> None:
        verb, key = words[:2]
        flags, exptime, length = unsigned32(words[2]), signed32(words[3]), signed32(words[4])
        cas = self._dialect.unsigned64(words[5]) if verb == b"cas" else 0
        if (
            len(key) > MAX_KEY
            or flags is None
            or exptime is None
            or length is None
            or not 0 <= length <= MAX_LENGTH
            or cas is None
        ):
            self._say(BAD_FORMAT, noreply)
            return
        self._begin(verb, key, flags, exptime, length, cas, noreply)

    def _begin(
        self,
        verb: bytes,
        key: bytes,
        flags: int,
        exptime: int,
        length: int,
        cas: int,
        noreply: bool,
    ) -> None:
        """Wait for the data of a storage command, or refuse it."""
        cache = self._cache
        if cache.detail:
            cache.record_prefix(key, _SET)
        refusal = cache.refusal(key, flags, length)
        if refusal is not None:
            if verb == b"set":
                cache.discard(key)  # better nothing than an old value
            silent = noreply and not self._service.answer_noreply
            self._swallow(length, b"" if silent else refusal + b"\r\n")
            return
        self._block = _Block(verb, key, flags, cache.deadline(exptime), length, cas, noreply)

    def _store(self, block: _Block, start: int, end: int) -> None:
        cache = self._cache
        cache.count_set(block.key, block.flags, block.length)
        if self._buffer[end : end + 2] != b"\r\n":
            self._say(_BAD_DATA, block.noreply)
            return
        with memoryview(self._buffer) as view:
            value = bytes(view[start:end])
        result = cache.store(block.verb, block.key, block.flags, block.deadline, value, block.cas)
        self._say(result, block.noreply)

    # -- retrieval commands ------------------------------------------------------------------------

    def _get(self, words: list[bytes], noreply: bool) -> None:
        verb = words[0]
        cache = self._cache
        with_cas = verb in (b"gets", b"gats")
        touching = verb in (b"gat", b"gats")
        deadline = 0.0
        if touching:
            exptime = self._dialect.signed32(words[1])
            if exptime is None:
                self._say(_BAD_EXPTIME)
                return
            deadline = cache.deadline(exptime)
        parts: list[bytes] = []
        large = False
        for key in words[2:] if touching else words[1:]:
            if len(key) > MAX_KEY:
                self._say(self._BAD_FETCH)
                return
            item = cache.touch(key, deadline) if touching else cache.get(key)
            if cache.detail:
                cache.record_prefix(key, _GET, item is not None)
            if item is None:
                continue
            value = item.value
            if with_cas:
                parts.append(b"VALUE %b %d %d %d\r\n" % (key, item.flags, len(value), item.cas))
            else:
                parts.append(b"VALUE %b %d %d\r\n" % (key, item.flags, len(value)))
            parts.append(value)
            parts.append(b"\r\n")
            large = large or len(value) > _LARGE
        parts.append(b"END\r\n")
        if large:
            self._replies.extend(part for part in parts if part)
        else:
            self._replies.append(b"".join(parts))

    # -- the others --------------------------------------------------------------------------------

    def _delete(self, words: list[bytes], noreply: bool) -> None:
        noreply = noreply and len(words) > 2
        if words[2:] not in ([], [b"0"], [b"noreply"], [b"0", b"noreply"]):
            self._say(_DELETE_USAGE, noreply)
        else:
            self._remove(words[1], noreply)

    def _remove(self, key: bytes, noreply: bool) -> None:
        cache = self._cache
        if len(key) > MAX_KEY:
            self._say(BAD_FORMAT, noreply)
            return
        if cache.detail:
            cache.record_prefix(key, _DELETE)
        self._say(b"DELETED" if cache.delete(key) else b"NOT_FOUND", noreply)

    def _arithmetic(self, words: list[bytes], noreply: bool) -> None:
        key = words[1]
        delta = self._dialect.unsigned64(words[2])
        if len(key) > MAX_KEY:
            self._say(BAD_FORMAT, noreply)
        elif delta is None:
            self._say(_BAD_DELTA, noreply)
        else:
            result = self._cache.arithmetic(key, delta, incr=words[0] == b"incr")
            self._say(b"NOT_FOUND" if result is None else result, noreply)

    def _touch(self, words: list[bytes], noreply: bool) -> None:
        key = words[1]
        exptime = self._dialect.signed32(words[2])
        if len(key) > MAX_KEY:
            self._say(BAD_FORMAT, noreply)
        elif exptime is None:
            self._say(_BAD_EXPTIME, noreply)
        else:
            item = self._cache.touch(key, self._cache.deadline(exptime))
            self._say(b"NOT_FOUND" if item is None else b"TOUCHED", noreply)

    def _quit(self, words: list[bytes], noreply: bool) -> None:
        self._hang_up()

    def _shutdown(self, words: list[bytes], noreply: bool) -> None:
        noreply = noreply and self._dialect.strict
        if not self._service.shutdown_enabled:
            word = b"SERVER_ERROR" if self._dialect.strict else b"ERROR"
            self._say(word + b": shutdown not enabled", noreply)
        elif words[1:] not in ([], [b"graceful"]):
            self._say(b"CLIENT_ERROR invalid shutdown mode", noreply)
        else:
            self._service.stopping = True
            self._hang_up()


@dataclass(frozen=True)
class Handler:
    """The method of a session that answers a command, and how many words its line may have."""

    method: str
    least: int = 1
    most: int | None = None


HANDLERS: Final = {
    **dict.fromkeys(_STORES, Handler("_update", 5, 6)),
    b"cas": Handler("_update", 6, 7),
    **dict.fromkeys(_GETS, Handler("_get", 2)),
    b"delete": Handler("_delete", 2, 4),
    b"incr": Handler("_arithmetic", 3, 4),
    b"decr": Handler("_arithmetic", 3, 4),
    b"touch": Handler("_touch", 3, 4),
    b"quit": Handler("_quit"),
    b"shutdown": Handler("_shutdown"),
}


def _fit(words: list[bytes], least: int, most: int | None) -> bool:
    return least <= len(words) and (most is None or len(words) <= most)


def _keys(words: list[bytes]) -> Sequence[bytes]:
    """The keys of a command, as far as it has any."""
    verb = words[0] if words else b""
    if verb in (b"gat", b"gats"):
        return words[2:]
    if verb in _GETS:
        return words[1:]
    return words[1:2]
