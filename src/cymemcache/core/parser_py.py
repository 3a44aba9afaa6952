"""The reply parser, pure: bytes in, finished Python results out.

One parser serves one connection.  Bytes come in as `stream_py` has it; `parse` then gives the
result of the reply that is next in line.  It knows nothing of sockets and must never hand out a
value under a key that was not asked for: whatever is not a legal reply raises, and the parser is
finished.
"""

from __future__ import annotations

from ..exceptions import MemcacheError
from ..interruptions import is_interruption
from . import replies
from .replies import (
    ARITHMETIC,
    DECODE_LATER,
    DECODE_RAW,
    DECODE_STOCK,
    DELETE,
    DELETE_MANY,
    ERRORS,
    FLAG_INTEGER,
    FLAG_LONG,
    FLAG_TEXT,
    GET,
    GET_MANY,
    GETS,
    GETS_MANY,
    LINE_COST,
    LONGEST_ERROR,
    MAX_LINE_LENGTH,
    MISS,
    NEED_DATA,
    REFUSALS,
    STORE_MANY,
    PartialFailure,
    Undecoded,
    broken_error,
    endless_error,
    extra_bytes_error,
    keeps_in_step,
    name_command,
    protocol_error,
    refusal,
    refused_value_error,
    server_error,
)
from .stream_py import MAX_FLAGS, ReplyStream, digits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

_ERRORS_KEPT = 100  # of noreply commands; any further one stands as the first

# How the stock serde reads values, by their flags.
_READERS: dict[int, Callable[[bytes], Any]] = {
    FLAG_TEXT: bytes.decode,
    FLAG_INTEGER: int,
    FLAG_LONG: int,
}
_FEW_DIGITS = 3  # of a size: to search larger values for line ends costs more than it saves
_OF_ONE = (GET, GETS)
_MAX_UINT64 = (1 << 64) - 1

_TRUE_FALSE: dict[int, dict[bytes, bool | None]] = {
    replies.STORE: {b"STORED": True, b"NOT_STORED": False},
    replies.CAS: {b"STORED": True, b"NOT_STORED": False, b"EXISTS": False, b"NOT_FOUND": None},
    DELETE: {b"DELETED": True, b"NOT_FOUND": False},
    replies.TOUCH: {b"TOUCHED": True, b"NOT_FOUND": False},
}
# Replies that are one line, with its end.
_WHOLE = {
    kind: {line + b"\r\n": result for line, result in results.items()}
    for kind, results in _TRUE_FALSE.items()
}
# Those of which a whole batch may consist.
_USUAL_LINES = {
    STORE_MANY: (b"STORED\r\n",),
    DELETE_MANY: (b"DELETED\r\n", b"NOT_FOUND\r\n"),
}


class ReplyParser(ReplyStream):
    """Parses the replies of one connection, in the order of their requests.

    `decode` says how the values of a fetch are decoded (one of `replies.DECODE_*`),
    `max_value_size` (bytes) which size a server may announce for one.
    """

    def __init__(
        self,
        decode: int = DECODE_RAW,
        max_value_size: int = replies.DEFAULT_MAX_VALUE_SIZE,
    ) -> None:
        if decode not in (DECODE_RAW, DECODE_STOCK, DECODE_LATER):
            raise ValueError(f"decode must be one of replies.DECODE_*, not {decode!r}")
        super().__init__(max_value_size)
        self._decode = decode
        self._broken = False
        # The reply in progress.
        self._kind = 0
        self._result: Any = None
        self._room = 0  # how much of a limit its lines have left
        self._items: list[tuple[Any, bytes, int]] = []
        self._error: MemcacheError | None = None
        self._keys: list[Any] = []  # in a list that is nobody else's
        self._tokens: list[bytes] = []  # of the request line that is being answered
        self._next = 0  # the first token not yet passed
        self._base = 0  # index of the line's first key among all keys
        self._line_end = 0  # offset of the request's next line
        self._passed: list[int] = []  # indexes of tokens before _next that were not answered
        self._lookup: dict[bytes, list[int]] | None = None
        self._value_index = 0
        self._value_cas = b""
        self._noreply_errors: list[MemcacheError] = []
        #: How many replies of the batch in progress are complete.
        self.progress = 0

    # -- results out ---------------------------------------------------------------------------

    def parse(self, kind: int, request: bytes = b"", keys: Any = None, default: Any = None) -> Any:
        """The result of the next reply, `NEED_DATA`, or the server's error as an instance.

        `kind` is one of the kinds in `replies`, `request` the bytes that were sent, `keys` the
        caller's own key (single fetches) or list of keys, `default` what a single fetch gives on
        a miss; where it is a dict, a fetch of many adds to it.  After `NEED_DATA` call again with
        the same arguments once more has arrived.
        Raises where the connection must be closed: `MemcacheUnknownError` for an illegal reply,
        the server's error where the end of its reply cannot be known.
        """
        if self._broken:
            raise broken_error()
        handler = _HANDLERS.get(kind)
        if handler is None:
            raise ValueError(f"no such kind of reply: {kind!r}")
        if self._kind not in (0, kind):
            raise ValueError(f"a reply of kind {self._kind} is being parsed, not {kind}")
        self._handed = False
        if self._pos == len(self._data):
            return NEED_DATA
        try:
            result = handler(self, kind, request, keys, default)
        except BaseException:
            self._broken = True
            raise
        if result is not NEED_DATA:
            self._kind = 0
            self.progress = 0
            if self._pos == len(self._data):
                self._data = b""
                self._pos = 0
                self._scratch = None
        return result

    def answer(
        self, data: bytes, kind: int, request: bytes, keys: Any = None, default: Any = None
    ) -> Any:
        """`feed` and `parse` in one, where `data` begins with the reply and should end with it.

        Raises `MemcacheUnknownError` where more follows: whose that is cannot be known.
        """
        # The usual reply whole, without any state.
        if not self._kind and not self._data and not self._broken:
            if kind in _OF_ONE:
                result = self._whole_item(data, kind, request, keys, default)
                if result is not NEED_DATA:
                    return result
            elif kind in _WHOLE:
                whole = _WHOLE[kind]
                if data in whole:
                    return whole[data]
            elif kind == ARITHMETIC:
                # As many digits as cannot be too large a number.
                if data[:-2].isdigit() and len(data) < 22 and data.endswith(b"\r\n"):
                    return int(data)
            elif kind == GET_MANY and len(keys) == 1 and type(default) is not dict:
                found = self._whole_item(data, GET, request, keys[0], MISS)
                if found is MISS:
                    return {}
                if type(found) is Undecoded:
                    found.result = {keys[0]: found.result}
                    return found
                if found is not NEED_DATA:
                    return {keys[0]: found}
            elif kind == STORE_MANY and data == b"STORED\r\n" * len(keys):
                return []
            elif kind == DELETE_MANY and len(keys) == 1 and data in _WHOLE[DELETE]:
                return True
        self.feed(data)
        result = self.parse(kind, request, keys, default)
        if result is not NEED_DATA and self._pos < len(self._data) and kind != replies.RAW:
            raise extra_bytes_error(request)
        return result

    def _whole_item(self, data: bytes, kind: int, request: bytes, key: Any, default: Any) -> Any:
        """The result of a fetch of one key, `NEED_DATA` where `data` is not simply all of it."""
        if data == b"END\r\n":
            return default
        end = data.find(b"\r\n")
        words = data[:end].split(b" ")
        cas = kind == GETS
        if (
            len(words) != 4 + cas
            or request != (b"gets %b\r\n" if cas else b"get %b\r\n") % words[1]
            or words[0] != b"VALUE"
            or not data.endswith(b"\r\nEND\r\n")
        ):
            return NEED_DATA
        flags, size = words[2], words[3]
        value = data[end + 2 : -7]
        if (
            not size.isdigit()
            or len(size) > 10
            # All of it: the line end of an empty value is not that of the line before.
            or end + 2 + int(size) + 7 != len(data)
            or len(value) > self._max_value_size
            or digits(flags, 10, MAX_FLAGS) < 0
            or (cas and digits(words[4], 20, _MAX_UINT64) < 0)
        ):
            return NEED_DATA
        if self._decode == DECODE_RAW:
            return (value, words[4]) if cas else value
        decoded, done = self._decoded(value, int(flags))
        result = (decoded, words[4]) if cas else decoded
        return result if done else Undecoded(result, [(key, value, int(flags))])

    def _single(self, kind: int, request: bytes, keys: Any, default: Any) -> Any:
        line = self._line(request)
        if line is None:
            return NEED_DATA
        results = _TRUE_FALSE[kind]
        if line in results:
            return results[line]
        in_step = kind not in (replies.STORE, replies.CAS) or line.startswith(b"SERVER_ERROR")
        return self._error_or_raise(line, request, in_step)

    def _error_or_raise(self, line: bytes, request: bytes, in_step: bool = True) -> MemcacheError:
        error = server_error(line, request)
        if error is None:
            raise protocol_error(line, request)
        if in_step and keeps_in_step(line):
            return error
        raise error

    def _batch(self, kind: int, request: bytes, keys: Sequence[Any], default: Any) -> Any:
        store = kind == STORE_MANY
        results = _TRUE_FALSE[replies.STORE if store else DELETE]
        if self._kind == 0:
            self._kind = kind
            self._result = []
            self._error = None
            self._keys = list(keys)
        count = len(self._keys)
        for usual in _USUAL_LINES[kind]:
            self._take_equal(count, usual)
        while self.progress < count:
            line = self._line(request)
            if line is None:
                return NEED_DATA
            if line in results:
                stored = results[line]
            else:
                in_step = not store or line.startswith(b"SERVER_ERROR")
                error = self._error_or_raise(line, request, in_step)
                if self._error is None:
                    self._error = error
                    name_command(error, request, self.progress, keys[self.progress])
                stored = False
            if store and not stored:
                self._result.append(self._keys[self.progress])
            self.progress += 1
        result: Any = self._result if store else True
        self._result = None
        self._keys = []
        return result if self._error is None else PartialFailure(result, self._error)

    def _take_equal(self, count: int, line: bytes) -> None:
        """Pass those of `count` replies that have arrived, where all of them are `line`."""
        whole = min((len(self._data) - self._pos) // len(line), count - self.progress)
        if self._data.startswith(line * whole, self._pos):
            self._pos += len(line) * whole
            self.progress += whole

    def _arithmetic(self, kind: int, request: bytes, keys: Any, default: Any) -> Any:
        line = self._line(request)
        if line is None:
            return NEED_DATA
        if line == b"NOT_FOUND":
            return None
        number = digits(line, 20, _MAX_UINT64)
        return number if number >= 0 else self._error_or_raise(line, request)

    def _ok(self, kind: int, request: bytes, keys: Any, default: Any) -> Any:
        line = self._line(request)
        if line is None:
            return NEED_DATA
        if line == b"OK":
            return True
        return refusal(line) or self._error_or_raise(line, request)

    def _version(self, kind: int, request: bytes, keys: Any, default: Any) -> Any:
        line = self._line(request)
        if line is None:
            return NEED_DATA
        if line.startswith(b"VERSION "):
            return line[8:]
        return self._error_or_raise(line, request)

    def _any_line(self, kind: int, request: bytes, keys: Any, default: Any) -> Any:
        line = self._line(request)
        if line is None:
            return NEED_DATA
        error = server_error(line, request)
        if error is None:
            return line
        if keeps_in_step(line):
            return error
        raise error

    def _stats(self, kind: int, request: bytes, keys: Any, default: Any) -> Any:
        if self._kind == 0:
            self._kind = kind
            self._result = {}
            self._room = replies.MAX_STATS_SIZE
        result = self._result
        while True:
            line = self._line(request)
            if line is None:
                return NEED_DATA
            first = self.progress == 0
            self.progress += 1
            word, _, rest = line.partition(b" ")
            if word in (b"STAT", b"ITEM", b"PREFIX") and rest:
                name, _, value = rest.partition(b" ")
                self._room -= len(line) + LINE_COST
                if self._room < 0:
                    raise endless_error("what statistics may take", replies.MAX_STATS_SIZE)
                result[name] = value
            elif line == b"END" or (first and line in (b"RESET", b"OK")):
                self._result = None
                return result
            else:
                return self._error_or_raise(line, request, first)

    def _metadump(self, kind: int, request: bytes, keys: Any, default: Any) -> Any:
        if self._kind == 0:
            self._kind = kind
            self._result = []
            self._room = self._max_value_size
        lines = self._result
        while True:
            line = self._line(request, bare_newline=True)
            if line is None:
                return NEED_DATA
            first = self.progress == 0
            self.progress += 1
            if line in (b"END", b"EN"):
                self._result = None
                return lines
            if line.startswith((b"key=", b"mg ")):
                self._room -= len(line) + LINE_COST
                if self._room < 0:
                    raise endless_error("max_value_size", self._max_value_size)
                lines.append(line)
            elif not first or line != b"OK":  # with which newer servers begin
                error = refusal(line) if first else None
                return error or self._error_or_raise(line, request, first)

    def _config(self, kind: int, request: bytes, keys: Any, default: Any) -> Any:
        if self._kind == 0:
            self._kind = kind
            self._result = None
        while True:
            if self._size >= 0:
                value = self._value(request)
                if value is None:
                    return NEED_DATA
                self._result = value
                continue
            line = self._line(request)
            if line is None:
                return NEED_DATA
            result = self._result
            if line == b"END":
                self._result = None
                return result
            words = line.split(b" ")
            if (
                result is None
                and len(words) == 4
                and words[0] == b"CONFIG"
                and request == b"config get %b\r\n" % words[1]
            ):
                self._announce(words[2], words[3], line, request)
            else:
                return self._error_or_raise(line, request, result is None)

    def _raw(self, kind: int, request: bytes, end_token: bytes, default: Any) -> Any:
        data, start = self._data, self._pos
        end = data.find(end_token, start)
        line_end = data.find(b"\r\n", start)
        # Where it stands in a line that is longer, that is too long however the bytes come in.
        in_line = end >= 0 and (
            end + len(end_token) - start <= MAX_LINE_LENGTH
            and (line_end < 0 or end + len(end_token) <= line_end + 2)
        )
        # Both are the whole reply: no end token comes.  Only where a refusal has it, it is what was
        # asked for.
        if data.startswith(ERRORS, start) or (data.startswith(REFUSALS, start) and not in_line):
            # Without its end it may be a CR longer.
            length = line_end - start if line_end >= 0 else len(data) - start - 1
            if length > MAX_LINE_LENGTH:
                raise protocol_error(data[start : start + MAX_LINE_LENGTH], request)
            if line_end < 0:
                return NEED_DATA
            line = data[start:line_end]
            error = server_error(line, request) or refusal(line)
            if error is not None:
                self._pos = line_end + 2
                return error
        arrived, limit = len(data) - start, self._max_value_size
        # An error line may be longer than that, and is known by how it begins.
        if end - start > limit or (
            end < 0 and arrived >= LONGEST_ERROR and arrived >= limit + len(end_token)
        ):
            raise endless_error("max_value_size", limit)
        if end < 0:
            return NEED_DATA
        self._pos = end + len(end_token)
        return data[start:end]

    def _barrier(self, kind: int, request: bytes, keys: Any, default: Any) -> Any:
        while True:
            line = self._line(request)
            if line is None:
                return NEED_DATA
            if line.startswith(b"VERSION ") and kind == replies.BARRIER:
                errors, self._noreply_errors = self._noreply_errors, []
                return errors
            error = server_error(line, b"")
            if error is not None:
                if keys and not line.startswith(b"SERVER_ERROR"):
                    raise refused_value_error(line)
                self._keep(error)

    def _writes(self, kind: int, request: bytes, keys: Any, default: Any) -> Any:
        self._kind = kind
        storing = request.startswith(replies.STORAGE_VERBS)
        while self.progress < len(keys):
            line = self._line(request)
            if line is None:
                return NEED_DATA
            if line not in replies.WRITTEN and digits(line, 20, _MAX_UINT64) < 0:
                in_step = not storing or line.startswith(b"SERVER_ERROR")
                self._keep(self._error_or_raise(line, request, in_step))
            self.progress += 1
        errors, self._noreply_errors = self._noreply_errors, []
        return errors

    def _keep(self, error: MemcacheError) -> None:
        """One more error in answer to noreply commands."""
        errors = self._noreply_errors
        # Beyond some, only their number counts: a batch can have millions.
        if len(errors) < replies.MAX_NOREPLY_ERRORS:
            errors.append(error if len(errors) < _ERRORS_KEPT else errors[0])

    # -- fetches -------------------------------------------------------------------------------

    def _fetch_one(self, kind: int, request: bytes, key: Any, default: Any) -> Any:
        return self._fetch(kind, request, [key], default)

    def _fetch(self, kind: int, request: bytes, keys: Sequence[Any], default: Any) -> Any:
        cas = kind in (GETS, GETS_MANY)
        if self._kind == 0:
            self._kind = kind
            many = kind not in (GET, GETS)
            self._result = default if many and type(default) is dict else {}
            self._items = []
            # Others may change the list, even while a key is hashed.
            self._keys = list(keys)
            self._base = self._line_end = 0
            self._tokens = []
            self._begin_line(request)
        at_once = kind == GET_MANY
        while True:
            if self._size >= 0:
                value = self._value(request)
                if value is None:
                    return NEED_DATA
                key = self._keys[self._value_index]
                flags = self._value_flags
                decoded: Any = value
                if self._decode != DECODE_RAW:
                    decoded, done = self._decoded(value, flags)
                    if not done:
                        self._items.append((key, value, flags))
                self._result[key] = (decoded, self._value_cas) if cas else decoded
                continue
            if at_once and self._lookup is None:
                at_once = False
                self._take_usual(self._keys)
            line = self._line(request)
            if line is None:
                return NEED_DATA
            if line.startswith(b"VALUE "):
                words = line.split(b" ")
                if len(words) != (5 if cas else 4):
                    raise protocol_error(line, request)
                if cas:
                    if digits(words[4], 20, _MAX_UINT64) < 0:
                        raise protocol_error(line, request)
                    self._value_cas = words[4]
                self._announce(words[2], words[3], line, request)
                self._value_index = self._match(words[1], line, request)
            elif line == b"END":
                self.progress += 1
                if self._line_end < len(request):
                    self._begin_line(request)
                    continue
                return self._fetched(kind, default)
            else:
                raise server_error(line, request) or protocol_error(line, request)

    def _take_usual(self, keys: Sequence[Any]) -> None:
        """Take the items that have arrived whole, where they are what most replies consist of.

        That is: they answer the next keys one by one, have the same flags, are not large, and have
        no line end in their values.  Anything else is left as it is, to be looked at item by item.
        """
        data = self._data[self._pos :]
        words = data[: data.find(b"\r\n")].split(b" ", 4)
        if len(words) != 4 or len(words[3]) > _FEW_DIGITS or len(data) > self._max_value_size:
            return
        parts = data.split(b"\r\n")
        rest = parts.pop()
        count = len(parts) // 2
        flags = digits(words[2], 10, MAX_FLAGS)
        if flags < 0:
            return
        headers, values = parts[: 2 * count : 2], parts[1 : 2 * count : 2]
        tokens = self._tokens[self._next : self._next + count]
        expected = (b"VALUE %b " + words[2] + b" %d").__mod__
        if list(map(expected, zip(tokens, map(len, values), strict=False))) != headers:
            return
        first = self._base + self._next
        asked = keys[first : first + count]
        found: Iterable[Any] = values
        if self._decode == DECODE_LATER or (self._decode == DECODE_STOCK and flags):
            read = None if self._decode == DECODE_LATER else _READERS.get(flags)
            if read is None:
                self._items += [(k, v, flags) for k, v in zip(asked, values, strict=True)]
            else:
                try:
                    found = list(map(read, values))
                except ValueError as error:  # the serde says it
                    if is_interruption(error):
                        raise
                    return
        self._result.update(zip(asked, found, strict=True))
        self._next += count
        self._pos = len(self._data) - len(rest) - (len(parts[-1]) + 2 if len(parts) % 2 else 0)

    def _fetched(self, kind: int, default: Any) -> Any:
        result, items = self._result, self._items
        self._result = self._lookup = None
        self._items = []
        self._keys = []
        if kind in _OF_ONE:
            result = next(iter(result.values())) if result else default
        return Undecoded(result, items) if items else result

    def _begin_line(self, request: bytes) -> None:
        """Make the next line of the request the one that is being answered."""
        self._base += len(self._tokens)
        start = self._line_end
        end = request.find(b"\r\n", start)
        if end < 0:
            raise ValueError("the request of a fetch must be the bytes that were sent")
        words = request[start:end].split(b" ")
        self._tokens = words[2 if words[0].startswith(b"gat") else 1 :]
        self._line_end = end + 2
        self._next = 0
        self._passed = []
        self._lookup = None

    def _match(self, token: bytes, line: bytes, request: bytes) -> int:
        """Index of the key that a VALUE of this wire key answers."""
        if self._lookup is None:
            try:
                index = self._tokens.index(token, self._next)
            except ValueError as error:
                if is_interruption(error):
                    raise
                self._look_up()
            else:
                self._passed += range(self._next, index)
                self._next = index + 1
                return self._base + index
        waiting = self._lookup.get(token) if self._lookup is not None else None
        if not waiting:
            raise protocol_error(line, request)
        return self._base + waiting.pop(0)

    def _look_up(self) -> None:
        """The reply does not follow the order of the request: match by table from here on."""
        lookup: dict[bytes, list[int]] = {}
        for index in [*self._passed, *range(self._next, len(self._tokens))]:
            lookup.setdefault(self._tokens[index], []).append(index)
        self._lookup = lookup

    def _decoded(self, value: bytes, flags: int) -> tuple[Any, bool]:
        """The value as the stock serde reads it, and whether that was possible here."""
        if self._decode == DECODE_LATER:
            return value, False
        if flags == 0:
            return value, True
        read = _READERS.get(flags)
        try:
            if read is not None:
                return read(value), True
        except ValueError as error:
            if is_interruption(error):
                raise
            # the serde raises it, once the connection has gone back
        return value, False


_HANDLERS: dict[int, Callable[[ReplyParser, int, bytes, Any, Any], Any]] = {
    replies.GET: ReplyParser._fetch_one,
    replies.GETS: ReplyParser._fetch_one,
    GET_MANY: ReplyParser._fetch,
    replies.GETS_MANY: ReplyParser._fetch,
    replies.STORE: ReplyParser._single,
    replies.CAS: ReplyParser._single,
    STORE_MANY: ReplyParser._batch,
    DELETE: ReplyParser._single,
    DELETE_MANY: ReplyParser._batch,
    ARITHMETIC: ReplyParser._arithmetic,
    replies.TOUCH: ReplyParser._single,
    replies.OK: ReplyParser._ok,
    replies.VERSION: ReplyParser._version,
    replies.STATS: ReplyParser._stats,
    replies.METADUMP: ReplyParser._metadump,
    replies.CONFIG: ReplyParser._config,
    replies.LINE: ReplyParser._any_line,
    replies.RAW: ReplyParser._raw,
    replies.BARRIER: ReplyParser._barrier,
    replies.DRAIN: ReplyParser._barrier,
    replies.WRITES: ReplyParser._writes,
}
