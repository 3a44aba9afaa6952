"""How memcached reads its lines since 1.6.40, where one parser took the place of several.

It is stricter about numbers and about blanks before a command, and takes what it does not expect
at the end of a line in its stride.  Answers below are those of 1.6.45.
"""

from __future__ import annotations

from typing import Final

from .administration import ADMINISTRATION
from .integers import signed32, unsigned32
from .protocol import BAD_FORMAT, HANDLERS, MAX_KEY, MAX_LENGTH, UNAUTHENTICATED, Session
from .service import Service

_SHORTEST: Final = 3  # bytes of a line, a CR included
_SHORTEST_CREDENTIALS: Final = 6
_LONGEST_CREDENTIALS: Final = 16384  # bytes of user and password

# Words without which a command is not understood, where older versions need another number.
_LEAST: Final = {b"gat": 3, b"gats": 3, b"cas": 5}
# Commands that are known with blanks before them.
_INDENTED: Final = {
    *(b"shutdown", b"slabs", b"cache_memlimit", b"flush_all", b"lru_crawler", b"verbosity"),
    *(b"lru", b"config"),
}
# Commands that are answered though their last word is noreply.
_ANSWERED: Final = {b"version", b"stats", b"watch", b"mn"}


class StrictSession(Session):
    """One connection to a memcached of version 1.6.40 or newer."""

    _BAD_FETCH = BAD_FORMAT + b"\r\n"  # it ends its line twice

    def _text_of(self, line: bytes) -> bytes:
        return line.removesuffix(b"\r")

    def _command(self, line: bytes, verb: bytes, words: list[bytes]) -> None:
        noreply = words[-1:] == [b"noreply"]
        known = verb in _INDENTED or not line.startswith(b" ")
        handler = HANDLERS.get(verb) if known and verb != b"bget" else None
        command = ADMINISTRATION.get(verb) if known else None
        if len(line) < _SHORTEST:
            self._say(BAD_FORMAT)
        elif handler is not None:
            if len(words) < _LEAST.get(verb, handler.least):
                self._say(BAD_FORMAT)
            else:
                getattr(self, handler.method)(words, noreply)
        elif command is not None and len(words) >= command.least:
            self._administer(command, words, noreply and verb not in _ANSWERED)
        elif verb == b"verbosity" and command is not None:
            self._say(BAD_FORMAT)
        elif len(words) > 1 and words[-1].startswith(b"HTTP/"):
            self._hang_up()
        else:
            self._say(b"ERROR", noreply)

    def _update(self, words: list[bytes], noreply: bool) -> None:
        verb, key = words[:2]
        length = self._dialect.signed32(words[4])
        if length is None or not 0 <= length <= MAX_LENGTH:
            self._say(BAD_FORMAT)
            return
        flags, exptime = unsigned32(words[2]), signed32(words[3])
        cas: int | None = 0
        if verb == b"cas":
            cas = self._dialect.unsigned64(words[5]) if len(words) > 5 else None
        if len(key) > MAX_KEY or flags is None or exptime is None or cas is None:
            silent = noreply and not self._service.answer_noreply
            self._swallow(length, b"" if silent else BAD_FORMAT + b"\r\n")
            return
        self._begin(verb, key, flags, exptime, length, cas, noreply)

    def _delete(self, words: list[bytes], noreply: bool) -> None:
        self._remove(words[1], noreply)

    # -- authentication ----------------------------------------------------------------------------

    def _credentials_line(self, line: bytes) -> None:
        if len(line) < _SHORTEST_CREDENTIALS:
            self._hang_up()
            return
        # Without a CR it is the last byte that is left out.
        words = [word for word in line[:-1].removesuffix(b"\r").split(b" ") if word]
        length = self._dialect.unsigned32(words[4]) if len(words) > 4 else None
        if length is None or not line.startswith(b"set"):
            self._say_once(UNAUTHENTICATED)
        elif length > _LONGEST_CREDENTIALS:
            self._say_once(b"CLIENT_ERROR auth token too long")
        else:
            self._credentials = length + 2

    def _credentials_of(self, data: bytes) -> tuple[bytes, bytes] | None:
        user, blank, password = data.partition(b" ")
        return (user, password) if blank else None


def new_session(service: Service, number: int = 0, peer: str = "") -> Session:
    """A connection to the memcached that `service` plays; see `Session`."""
    kind = StrictSession if service.dialect.strict else Session
    return kind(service, number, peer)
