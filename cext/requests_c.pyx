# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, embedsignature=False
"""The request encoder, compiled: arguments in, the finished bytes of one request out.

The twin of `core/requests_py.py`, where the contract is written down.  A request of one command is
checked, measured, and written into a bytes object of exactly its size; one of many commands is
written into a buffer of its own that grows.  Nothing is kept between two calls, since threads share
an instance, and no pointer into a Python object outlives a call that can run Python code unless the
object is held.
"""

from cpython.buffer cimport PyBUF_CONTIG_RO, PyBuffer_Release, PyObject_CheckBuffer
from cpython.buffer cimport PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_GET_SIZE
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy, memset

from time import time as _time

from cymemcache.core import arguments as _arguments
from cymemcache.core import expiry as _expiry
from cymemcache.core import replies as _replies

cdef extern from "Python.h":
    int PyUnicode_IS_COMPACT_ASCII(object text)
    const void *PyUnicode_DATA(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)
    int64_t PyLong_AsLongLongAndOverflow(object number, int *overflow) except? -1
    uint64_t PyLong_AsUnsignedLongLong(object number) except? <uint64_t>-1

cdef enum:
    MAX_KEY = 250
    # An item's line without verb and key: five numbers of up to 20 digits, blanks, noreply.
    LINE_ROOM = 140

cdef int64_t LONGEST_SPAN = _expiry.LONGEST_SPAN
cdef uint64_t UINT32_MAX = 0xFFFFFFFF
cdef uint64_t UINT64_MAX = 0xFFFFFFFFFFFFFFFF
cdef Py_ssize_t MAX_VALUE_SIZE = _replies.MAX_VALUE_SIZE

cdef enum:
    F_BYTES = 0
    F_INTEGER = 2
    F_TEXT = 16

# Which bytes a key must not hold: NUL and ASCII whitespace.
cdef unsigned char illegal[256]
for _byte in range(256):
    illegal[_byte] = _byte in b"\0\t\n\x0b\x0c\r "


cdef struct Text:
    # `size` bytes at `data`, which belong to an object that the caller holds.
    const char *data
    Py_ssize_t size


cdef struct Output:
    char *data
    Py_ssize_t size
    Py_ssize_t capacity


cdef int need(Output *out, Py_ssize_t more) except -1:
    """Room for `more` bytes behind what `out` holds."""
    cdef Py_ssize_t capacity
    cdef char *larger
    if out.capacity - out.size >= more:
        return 0
    if more > <Py_ssize_t>0x3FFFFFFFFFFFFFFF - out.size:
        raise MemoryError()
    capacity = out.size + more
    if capacity < 2 * out.capacity:
        capacity = 2 * out.capacity
    larger = <char *>PyMem_Realloc(out.data, capacity)
    if larger == NULL:
        raise MemoryError()
    out.data = larger
    out.capacity = capacity
    return 0


cdef inline char *put(char *at, const char *data, Py_ssize_t size) noexcept nogil:
    memcpy(at, data, size)
    return at + size


cdef inline char *put_number(char *at, uint64_t number) noexcept nogil:
    """`number` in decimal, up to 20 digits."""
    cdef char digits[20]
    cdef int count = 0
    while True:
        count += 1
        digits[20 - count] = 48 + number % 10
        number //= 10
        if number == 0:
            break
    memcpy(at, digits + 20 - count, count)
    return at + count


cdef inline char *put_signed(char *at, int64_t number) noexcept nogil:
    if number < 0:
        at[0] = 45
        return put_number(at + 1, <uint64_t>0 - <uint64_t>number)
    return put_number(at, <uint64_t>number)


cdef inline bint is_silent(const char *line, Py_ssize_t size) noexcept nogil:
    """Whether this deletion would not be answered, since its key is the word "noreply".

    Servers take the last word of a line for it.  A time of 0 after the key is allowed, and means
    the same as none.
    """
    return size == 16 and memcmp(line, b"delete noreply\r\n", 16) == 0


cdef inline int64_t exptime_of(object value, object clock) except? -1:
    cdef int overflow = 0
    cdef int64_t number
    if isinstance(value, int):
        number = PyLong_AsLongLongAndOverflow(value, &overflow)
        if 0 <= number <= LONGEST_SPAN:  # -1 where it overflows
            return number
    return _expiry.exptime(value, clock)


cdef uint64_t unsigned_of(object value, str name, uint64_t most) except? 1:
    cdef uint64_t number
    if not isinstance(value, int):
        raise _arguments.integer_error(name, value)
    try:
        number = PyLong_AsUnsignedLongLong(value)
    except OverflowError:
        raise _arguments.range_error(name, 0, most) from None
    if number > most:
        raise _arguments.range_error(name, 0, most)
    return number


cdef bytes decimal(object value):
    try:
        return b"%d" % value
    except ValueError as error:
        raise _arguments.digits_error(error) from error


cdef bytes cas_of(object cas):
    cdef bytes token
    cdef Py_ssize_t i
    cdef const char *text
    if isinstance(cas, int):
        return b"%d" % unsigned_of(cas, "cas", UINT64_MAX)
    if isinstance(cas, str) and (<str>cas).isascii():
        token = str.encode(cas, "ascii")
    elif isinstance(cas, bytes):
        token = b"".join((cas,))  # without what a subclass says that it is
    else:
        raise _arguments.cas_error(cas)
    text = PyBytes_AS_STRING(token)
    if not 0 < PyBytes_GET_SIZE(token) <= 20:
        raise _arguments.cas_error(cas)
    for i in range(PyBytes_GET_SIZE(token)):
        if not 48 <= text[i] <= 57:
            raise _arguments.cas_error(cas)
    if int(token) > UINT64_MAX:
        raise _arguments.cas_error(cas)
    return token


cdef Py_ssize_t line_size(const char *text, Py_ssize_t length) except -1:
    """Bytes of the line at `text`, which ends with noreply, its end included."""
    cdef const char *end = <const char *>memchr(text, 10, length)
    if end == NULL or end - text < 10 or memcmp(end - 9, b" noreply\r\n", 10) != 0:
        raise ValueError("no requests with noreply")
    return end + 1 - text


cdef inline bint deletes_noreply(const char *text, Py_ssize_t line) noexcept:
    """Whether what is left of it without noreply `is_silent`."""
    return line == 24 and memcmp(text, b"delete noreply noreply\r\n", 24) == 0


cdef Py_ssize_t value_size(const char *text, Py_ssize_t line) except -2:
    """Bytes of the value behind a request's line of so many bytes, -1 where it has none."""
    cdef Py_ssize_t size = 0
    cdef Py_ssize_t i = 0
    cdef int blanks = 0
    # set, add, append, replace, prepend, cas: no other has a value.
    if text[0] not in (c"s", c"a", c"r", c"p") and memcmp(text, b"cas ", 4) != 0:
        return -1
    while blanks < 4 and i < line:
        blanks += text[i] == c" "
        i += 1
    while i < line and c"0" <= text[i] <= c"9":
        size = size * 10 + (text[i] - c"0")
        if size > MAX_VALUE_SIZE:
            raise ValueError("no requests with noreply")
        i += 1
    return size


cdef class Requests:
    """Encodes the requests of one client.

    `serialize(key, value) -> (data, flags)` makes bytes of values, where one is given; `stock` says
    that it is the stock serde's, whose work on bytes, str and int is then done here.  `clock` gives
    UNIX time, which an expire above 30 days is counted from.
    """

    cdef bytes prefix
    cdef str encoding
    cdef bint ascii_values
    cdef bint unicode
    cdef Py_ssize_t max_value_size
    cdef Py_ssize_t max_request_size
    cdef object serialize
    cdef bint stock
    cdef object clock

    def __init__(
        self,
        key_prefix=b"",
        str encoding not None="ascii",
        allow_unicode_keys=False,
        Py_ssize_t max_value_size=_replies.DEFAULT_MAX_VALUE_SIZE,
        Py_ssize_t max_request_size=_replies.DEFAULT_MAX_REQUEST_SIZE,
        serialize=None,
        stock=False,
        clock=_time,
    ):
        if max_value_size < 0 or max_value_size > MAX_VALUE_SIZE:
            raise ValueError(f"max_value_size must be from 0 to {MAX_VALUE_SIZE} bytes")
        if max_request_size < 1:
            raise ValueError("max_request_size must be positive")
        self.prefix = bytes(key_prefix)
        self.encoding = encoding
        # Encodings of which ASCII text is a part: it can be copied as it is.
        self.ascii_values = encoding.lower() in ("ascii", "utf-8", "utf8", "latin-1", "iso-8859-1")
        self.unicode = bool(allow_unicode_keys)
        self.max_value_size = max_value_size
        self.max_request_size = max_request_size
        self.serialize = serialize
        self.stock = bool(stock)
        self.clock = clock

    # -- keys ----------------------------------------------------------------------------------

    cdef object key_text(self, object key, Text *out):
        """Point `out` at the validated key without its prefix; hold what is returned meanwhile."""
        cdef object holder = key
        cdef Py_ssize_t i, total
        cdef const unsigned char *data
        cdef unsigned char bad = 0
        if isinstance(key, str):
            if PyUnicode_IS_COMPACT_ASCII(key):
                out.data = <const char *>PyUnicode_DATA(key)
                out.size = PyUnicode_GET_LENGTH(key)
            else:
                try:
                    holder = str.encode(key, "utf-8" if self.unicode else "ascii")
                except UnicodeEncodeError:
                    raise _arguments.key_encoding_error(key, self.unicode) from None
                out.data = PyBytes_AS_STRING(holder)
                out.size = PyBytes_GET_SIZE(holder)
        elif isinstance(key, bytes):
            out.data = PyBytes_AS_STRING(key)
            out.size = PyBytes_GET_SIZE(key)
        else:
            raise _arguments.key_type_error(key)
        total = PyBytes_GET_SIZE(self.prefix) + out.size
        if 0 < total <= MAX_KEY:
            data = <const unsigned char *>out.data
            for i in range(out.size):
                bad |= illegal[data[i]]
            data = <const unsigned char *>PyBytes_AS_STRING(self.prefix)
            for i in range(PyBytes_GET_SIZE(self.prefix)):
                bad |= illegal[data[i]]
            if not bad:
                return holder
        raise _arguments.key_error(key, self.prefix + PyBytes_FromStringAndSize(out.data, out.size))

    cdef inline char *put_key(self, char *at, Text key) noexcept:
        at = put(at, PyBytes_AS_STRING(self.prefix), PyBytes_GET_SIZE(self.prefix))
        return put(at, key.data, key.size)

    cdef inline Py_ssize_t key_size(self, Text key) noexcept:
        return PyBytes_GET_SIZE(self.prefix) + key.size

    def key(self, key):
        """The key as it is sent: with the prefix, encoded, validated."""
        cdef Text text
        _holder = self.key_text(key, &text)
        return self.prefix + PyBytes_FromStringAndSize(text.data, text.size)

    cdef bytes framed(
        self, const char *verb, Py_ssize_t verb_size, object key, const char *tail, Py_ssize_t size
    ):
        """verb, key, tail."""
        cdef Text text
        cdef char *at
        cdef bytes request
        _holder = self.key_text(key, &text)
        request = PyBytes_FromStringAndSize(NULL, verb_size + self.key_size(text) + size)
        at = put(PyBytes_AS_STRING(request), verb, verb_size)
        at = self.put_key(at, text)
        put(at, tail, size)
        return request

    # -- retrieval -----------------------------------------------------------------------------

    def get(self, key):
        return self.framed(b"get ", 4, key, b"\r\n", 2)

    def gets(self, key):
        return self.framed(b"gets ", 5, key, b"\r\n", 2)

    def gat(self, key, expire):
        return self.get_and_touch(b"gat ", 4, key, expire)

    def gats(self, key, expire):
        return self.get_and_touch(b"gats ", 5, key, expire)

    cdef bytes get_and_touch(self, const char *verb, Py_ssize_t size, object key, object expire):
        cdef char head[40]
        cdef char *at
        self.key(key)
        at = put_signed(put(head, verb, size), exptime_of(expire, self.clock))
        at[0] = 32
        return self.framed(head, at + 1 - head, key, b"\r\n", 2)

    def get_many(self, keys):
        return self.fetch_many(b"get ", 4, keys)

    def gets_many(self, keys):
        return self.fetch_many(b"gets ", 5, keys)

    cdef bytes fetch_many(self, const char *verb, Py_ssize_t verb_size, object keys):
        cdef Output out
        cdef Text text
        cdef Py_ssize_t index, line, count, size
        cdef char *at
        if type(keys) is not list:
            keys = list(keys)
        count = PyList_GET_SIZE(keys)
        if count == 0:
            raise ValueError("keys must not be empty")
        out.data = NULL
        out.size = out.capacity = 0
        try:
            need(&out, verb_size + count * 24 + 300)
            line = -1  # where the current line begins
            index = 0
            # A key's own methods are never called; the size is looked at anew all the same.
            while index < PyList_GET_SIZE(keys):
                key = <object>PyList_GET_ITEM(keys, index)
                _holder = self.key_text(key, &text)
                size = self.key_size(text)
                need(&out, size + verb_size + 8)
                at = out.data + out.size
                # A line is its keys, each with a blank before it, and CR LF.
                if line >= 0 and out.size - line + 1 + size + 2 > self.max_request_size:
                    at = put(at, b"\r\n", 2)
                    line = -1
                if line < 0:
                    line = at - out.data
                    at = put(at, verb, verb_size)
                else:
                    at[0] = 32
                    at += 1
                at = self.put_key(at, text)
                out.size = at - out.data
                index += 1
            need(&out, 2)
            put(out.data + out.size, b"\r\n", 2)
            return PyBytes_FromStringAndSize(out.data, out.size + 2)
        finally:
            PyMem_Free(out.data)

    # -- storage -------------------------------------------------------------------------------

    def store(self, bytes verb not None, key, value, expire, noreply, flags=None):
        return self.item(verb, key, value, expire, noreply, flags, None)

    def cas(self, key, value, cas, expire, noreply, flags=None):
        self.key(key)
        return self.item(b"cas", key, value, expire, noreply, flags, cas_of(cas))

    cdef bytes item(
        self,
        bytes verb,
        object key,
        object value,
        object expire,
        object noreply,
        object flags,
        bytes cas,
    ):
        cdef Text text
        cdef Text data
        cdef Py_buffer view
        cdef uint64_t flags_number
        cdef int64_t exptime_number
        cdef bint silent = bool(noreply)
        cdef bytes request
        cdef char line[600]
        cdef char *at
        cdef Py_ssize_t verb_size = PyBytes_GET_SIZE(verb)
        if verb_size > 16:
            raise ValueError(f"no such verb: {verb!r}")
        _key = self.key_text(key, &text)
        exptime_number = exptime_of(expire, self.clock)
        # memoryviews and the like are held through `view`, everything else through the holder.
        memset(&view, 0, sizeof(Py_buffer))
        _data = self.data_of(key, value, flags, &data, &view, &flags_number)
        try:
            # Serializing ran other people's code, but keys are immutable, and held.
            at = put(line, PyBytes_AS_STRING(verb), verb_size)
            at[0] = 32
            at = self.put_key(at + 1, text)
            at = self.put_numbers(at, flags_number, exptime_number, data.size)
            if cas is not None:
                at[0] = 32
                at = put(at + 1, PyBytes_AS_STRING(cas), PyBytes_GET_SIZE(cas))
            if silent:
                at = put(at, b" noreply", 8)
            at = put(at, b"\r\n", 2)
            request = PyBytes_FromStringAndSize(NULL, (at - line) + data.size + 2)
            at = put(PyBytes_AS_STRING(request), line, at - line)
            at = put(at, data.data, data.size)
            put(at, b"\r\n", 2)
            return request
        finally:
            PyBuffer_Release(&view)

    cdef inline char *put_numbers(
        self, char *at, uint64_t flags, int64_t exptime, Py_ssize_t size
    ) noexcept:
        at[0] = 32
        at = put_number(at + 1, flags)
        at[0] = 32
        at = put_signed(at + 1, exptime)
        at[0] = 32
        return put_number(at + 1, <uint64_t>size)

    def store_many(self, bytes verb not None, items, expire, noreply, flags=None):
        cdef Output out
        cdef Text text
        cdef Text data
        cdef Py_buffer view
        cdef uint64_t flags_number
        cdef int64_t exptime_number = exptime_of(expire, self.clock)
        cdef bint silent = bool(noreply)
        cdef char *at
        cdef Py_ssize_t verb_size = PyBytes_GET_SIZE(verb)
        if verb_size > 16:
            raise ValueError(f"no such verb: {verb!r}")
        if flags is not None:
            unsigned_of(flags, "flags", UINT32_MAX)
        out.data = NULL
        out.size = out.capacity = 0
        try:
            need(&out, 4096)
            for key, value in items:
                _key = self.key_text(key, &text)
                memset(&view, 0, sizeof(Py_buffer))
                _data = self.data_of(key, value, flags, &data, &view, &flags_number)
                try:
                    need(&out, verb_size + self.key_size(text) + LINE_ROOM + data.size)
                    at = put(out.data + out.size, PyBytes_AS_STRING(verb), verb_size)
                    at[0] = 32
                    at = self.put_key(at + 1, text)
                    at = self.put_numbers(at, flags_number, exptime_number, data.size)
                    if silent:
                        at = put(at, b" noreply", 8)
                    at = put(at, b"\r\n", 2)
                    at = put(at, data.data, data.size)
                    at = put(at, b"\r\n", 2)
                    out.size = at - out.data
                finally:
                    PyBuffer_Release(&view)
            return PyBytes_FromStringAndSize(out.data, out.size)
        finally:
            PyMem_Free(out.data)

    cdef object data_of(
        self, object key, object value, object flags, Text *out, Py_buffer *view, uint64_t *number
    ):
        """Point `out` at the bytes to store; hold what is returned, and `view`, meanwhile."""
        cdef object holder
        cdef uint64_t given = 0
        if flags is not None:
            given = unsigned_of(flags, "flags", UINT32_MAX)
        number[0] = F_BYTES
        if self.serialize is None:
            holder = self.encoded(value, False, out, view)
        elif self.stock and type(value) is bytes:
            holder = value
            self.point(value, out)
        elif self.stock and type(value) is str:
            number[0] = F_TEXT
            holder = value
            if PyUnicode_IS_COMPACT_ASCII(value):
                out.data = <const char *>PyUnicode_DATA(value)
                out.size = PyUnicode_GET_LENGTH(value)
            else:
                try:
                    holder = (<str>value).encode("utf-8")
                except UnicodeEncodeError as error:
                    raise _arguments.value_encoding_error("UTF-8", error) from error
                self.point(holder, out)
        elif self.stock and type(value) is int:
            number[0] = F_INTEGER
            holder = decimal(value)
            self.point(holder, out)
        else:
            result = self.serialize(key, value)
            if not isinstance(result, tuple) or PyTuple_GET_SIZE(result) != 2:
                raise _arguments.serde_result_error(result)
            number[0] = unsigned_of(
                <object>PyTuple_GET_ITEM(result, 1), "flags", UINT32_MAX
            )
            # The tuple holds the data, whatever else is returned as its holder.
            holder = (
                result, self.encoded(<object>PyTuple_GET_ITEM(result, 0), True, out, view)
            )
        if out.size > self.max_value_size:
            PyBuffer_Release(view)
            raise _arguments.value_size_error(out.size, self.max_value_size)
        if flags is not None:
            number[0] = given
        return holder

    cdef inline int point(self, object data, Text *out) except -1:
        out.data = PyBytes_AS_STRING(data)
        out.size = PyBytes_GET_SIZE(data)
        return 0

    cdef object encoded(self, object value, bint serialized, Text *out, Py_buffer *view):
        cdef object holder = value
        if isinstance(value, bytes):
            self.point(value, out)
            return value
        if isinstance(value, str):
            return self.text(value, out)
        if isinstance(value, int) and not isinstance(value, bool):
            holder = decimal(value)
            self.point(holder, out)
            return holder
        if PyObject_CheckBuffer(value):
            with memoryview(value) as contents:
                if not contents.c_contiguous:
                    holder = contents.tobytes()
                    self.point(holder, out)
                    return holder
            PyObject_GetBuffer(value, view, PyBUF_CONTIG_RO)
            out.data = <const char *>view.buf
            out.size = view.len
            return value
        if serialized:
            raise _arguments.serde_data_error(value)
        return self.text(str(value), out)

    cdef object text(self, object text, Text *out):
        cdef object holder = text
        if self.ascii_values and PyUnicode_IS_COMPACT_ASCII(text):
            out.data = <const char *>PyUnicode_DATA(text)
            out.size = PyUnicode_GET_LENGTH(text)
            return text
        try:
            holder = str.encode(text, self.encoding)
        except UnicodeEncodeError as error:
            raise _arguments.value_encoding_error(self.encoding, error) from error
        self.point(holder, out)
        return holder

    def with_replies(self, bytes request not None, Py_ssize_t least):
        """The noreply commands in `request` without their noreply.

        None where none of them has a value of at least `least` bytes; 0 is for all of them.
        """
        cdef const char *text = PyBytes_AS_STRING(request)
        cdef Py_ssize_t length = PyBytes_GET_SIZE(request)
        cdef Py_ssize_t position = 0
        cdef Py_ssize_t largest = 0
        cdef Py_ssize_t saved = 0  # bytes
        cdef Py_ssize_t size, line
        cdef bytes result
        cdef char *at
        while position < length:
            line = line_size(text + position, length - position)
            size = value_size(text + position, line)
            if size >= 0 and size + 2 > length - position - line:
                raise ValueError("no requests with noreply")
            largest = max(largest, size)
            saved += 6 if deletes_noreply(text + position, line) else 8
            position += line + (size + 2 if size >= 0 else 0)
        if largest < least:
            return None
        result = PyBytes_FromStringAndSize(NULL, length - saved)
        at = PyBytes_AS_STRING(result)
        position = 0
        while position < length:
            line = line_size(text + position, length - position)
            size = value_size(text + position, line)
            at = put(at, text + position, line - 10)
            if deletes_noreply(text + position, line):
                at = put(at, b" 0", 2)
            at = put(at, text + position + line - 2, 2 + (size + 2 if size >= 0 else 0))
            position += line + (size + 2 if size >= 0 else 0)
        return result

    # -- the rest ------------------------------------------------------------------------------

    def delete(self, key, noreply):
        cdef bytes request
        if noreply:
            return self.framed(b"delete ", 7, key, b" noreply\r\n", 10)
        request = self.framed(b"delete ", 7, key, b"\r\n", 2)
        if is_silent(PyBytes_AS_STRING(request), PyBytes_GET_SIZE(request)):
            return b"delete noreply 0\r\n"
        return request

    def delete_many(self, keys, noreply):
        cdef Output out
        cdef Text text
        cdef char *at
        cdef bint silent = bool(noreply)
        out.data = NULL
        out.size = out.capacity = 0
        try:
            need(&out, 4096)
            for key in keys:
                _holder = self.key_text(key, &text)
                need(&out, 7 + self.key_size(text) + 10)
                at = put(out.data + out.size, b"delete ", 7)
                at = self.put_key(at, text)
                if silent:
                    at = put(at, b" noreply", 8)
                at = put(at, b"\r\n", 2)
                if is_silent(out.data + out.size, at - out.data - out.size):
                    at = put(at - 2, b" 0\r\n", 4)
                out.size = at - out.data
            return PyBytes_FromStringAndSize(out.data, out.size)
        finally:
            PyMem_Free(out.data)

    def incr(self, key, delta, noreply):
        self.key(key)
        return self.with_number(
            b"incr ", 5, key, False, unsigned_of(delta, "value", UINT64_MAX), noreply
        )

    def decr(self, key, delta, noreply):
        self.key(key)
        return self.with_number(
            b"decr ", 5, key, False, unsigned_of(delta, "value", UINT64_MAX), noreply
        )

    def touch(self, key, expire, noreply):
        cdef int64_t number
        self.key(key)
        number = exptime_of(expire, self.clock)
        if number < 0:
            return self.with_number(b"touch ", 6, key, True, <uint64_t>(-number), noreply)
        return self.with_number(b"touch ", 6, key, False, <uint64_t>number, noreply)

    cdef bytes with_number(
        self,
        const char *verb,
        Py_ssize_t size,
        object key,
        bint negative,
        uint64_t number,
        object noreply,
    ):
        cdef char tail[48]
        cdef char *at = tail
        at[0] = 32
        at += 1
        if negative:
            at[0] = 45
            at += 1
        at = put_number(at, number)
        if noreply:
            at = put(at, b" noreply", 8)
        at = put(at, b"\r\n", 2)
        return self.framed(verb, size, key, tail, at - tail)

    def stats(self, *args):
        return _arguments.tokens(b"stats", args)

    def version(self):
        return b"version\r\n"

    def verbosity(self, level, noreply):
        number = unsigned_of(level, "level", UINT32_MAX)
        return b"verbosity %d%b\r\n" % (number, b" noreply" if noreply else b"")

    def flush_all(self, after, noreply):
        number = _expiry.delay(after, self.clock)
        return b"flush_all %d%b\r\n" % (number, b" noreply" if noreply else b"")

    def cache_memlimit(self, megabytes, noreply=False):
        number = unsigned_of(megabytes, "memlimit", UINT32_MAX)
        return b"cache_memlimit %d%b\r\n" % (number, b" noreply" if noreply else b"")

    def shutdown(self, graceful):
        return b"shutdown graceful\r\n" if graceful else b"shutdown\r\n"

    def slabs(self, *args):
        return _arguments.tokens(b"slabs", args)

    def lru_crawler(self, *args):
        return _arguments.tokens(b"lru_crawler", args)

    def config_get(self, name):
        return _arguments.tokens(b"config get", (name,))

    def quit(self):
        return b"quit\r\n"

    def authenticate(self, username, password):
        return _arguments.authentication(username, password)

    def raw(self, command):
        return _arguments.raw(command, self.unicode)
