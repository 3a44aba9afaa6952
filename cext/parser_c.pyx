# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, embedsignature=False
"""The reply parser, compiled: bytes in, finished Python results out.

The twin of `core/parser_py.py`, where the contract is written down.  A parser owns one buffer of
its own (lent to it while there is something in it) and, while a large value is under way, the bytes
object that will be returned.  Positions are kept as offsets, never as pointers across a call that
can run Python code, and every length is checked against what has arrived before it is used.
"""

from cpython.bytes cimport (
    PyBytes_AS_STRING,
    PyBytes_FromStringAndSize,
    PyBytes_GET_SIZE,
)
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
from cpython.dict cimport PyDict_SetItem
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE
from cpython.long cimport PyLong_FromUnsignedLongLong, PyLong_FromLongLong
from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Malloc, PyMem_Realloc
from cpython.object cimport PyObject
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport uint64_t
from libc.string cimport memchr, memcmp, memcpy, memmove, memset

from cymemcache.core import replies as _replies
from cymemcache.core.replies import (
    NEED_DATA as _NEED_DATA,
    ERRORS,
    REFUSALS,
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
    too_large_error,
)

cdef extern from "Python.h":
    int _PyBytes_Resize(PyObject **bytes, Py_ssize_t newsize) except -1
    PyObject *PyBytes_FromStringAndSize_raw "PyBytes_FromStringAndSize"(
        const char *v, Py_ssize_t length) except NULL
    char *PyBytes_AS_STRING_raw "PyBytes_AS_STRING"(PyObject *op)
    void Py_DECREF_raw "Py_DECREF"(PyObject *op)
    void Py_XDECREF_raw "Py_XDECREF"(PyObject *op)

cdef enum:
    K_NONE = 0
    K_GET = 1
    K_GETS = 2
    K_GET_MANY = 3
    K_GETS_MANY = 4
    K_STORE = 5
    K_CAS = 6
    K_STORE_MANY = 7
    K_DELETE = 8
    K_DELETE_MANY = 9
    K_ARITHMETIC = 10
    K_TOUCH = 11
    K_OK = 12
    K_VERSION = 13
    K_STATS = 14
    K_METADUMP = 15
    K_CONFIG = 16
    K_LINE = 17
    K_RAW = 18
    K_BARRIER = 19
    K_DRAIN = 20
    K_WRITES = 21

cdef enum:
    D_RAW = 0
    D_STOCK = 1
    D_LATER = 2

cdef enum:
    F_INTEGER = 2
    F_LONG = 4
    F_TEXT = 16

cdef enum:
    BUFFER_SIZE = 65536     # what one receive can take
    ROOM = 4096             # less than that at the end: move what is left to the front
    DIRECT_SIZE = 32768     # larger values are received into the object that is returned
    FIRST_TARGET = 1048576  # what is set aside for a value of which little has arrived
    MAX_LINE = 65536
    SPARES = 16
    ERRORS_KEPT = 100       # of noreply commands; any further one stands as the first

cdef object NEED_DATA = _NEED_DATA
cdef Py_ssize_t MAX_VALUE_SIZE = _replies.MAX_VALUE_SIZE
cdef Py_ssize_t LINE_COST = _replies.LINE_COST
cdef Py_ssize_t LONGEST_ERROR = _replies.LONGEST_ERROR
cdef uint64_t MAX_FLAGS = 0xFFFFFFFFULL
cdef uint64_t MAX_UINT64 = 0xFFFFFFFFFFFFFFFFULL

# What a line of a single reply can say, beside errors.
cdef enum:
    SAYS_OTHER = 0
    SAYS_TRUE = 1
    SAYS_FALSE = 2
    SAYS_NONE = 3

# Buffers of parsers that have nothing in them: an idle connection holds no memory, and the next
# command of any connection finds one that is still in the processor's cache.
cdef char *spares[SPARES]
cdef int spare_count = 0


cdef char *take_buffer() except NULL:
    global spare_count
    cdef char *memory
    if spare_count > 0:
        spare_count -= 1
        return spares[spare_count]
    memory = <char *>PyMem_Malloc(BUFFER_SIZE)
    if memory == NULL:
        raise MemoryError()
    return memory


cdef void give_buffer(char *memory, Py_ssize_t size) noexcept:
    global spare_count
    if size == BUFFER_SIZE and spare_count < SPARES:
        spares[spare_count] = memory
        spare_count += 1
    else:
        PyMem_Free(memory)


cdef inline bint number_at(
    const char *text, Py_ssize_t length, int most, uint64_t limit, uint64_t *out
) noexcept nogil:
    """Read `length` ASCII digits; false where they are none, too many, or above `limit`."""
    cdef Py_ssize_t i
    cdef uint64_t number = 0
    cdef unsigned int digit
    if length < 1 or length > most:
        return False
    for i in range(length):
        digit = <unsigned char>text[i] - 48
        if digit > 9:
            return False
        if i == 19 and (number > MAX_UINT64 // 10 or number * 10 > MAX_UINT64 - digit):
            return False
        number = number * 10 + digit
    out[0] = number
    return number <= limit


cdef inline Py_ssize_t digits_at(
    const char *text, Py_ssize_t at, Py_ssize_t end, int most, uint64_t *out
) noexcept nogil:
    """Read the ASCII digits from `at` on; where they end, -1 where that is none or after `most`.

    There is a byte at what is returned: it is less than `end`.
    """
    cdef Py_ssize_t begin = at
    cdef unsigned int digit
    out[0] = 0
    while at < end and at - begin <= most:
        digit = <unsigned char>text[at] - 48
        if digit > 9:
            return at if at > begin else -1
        out[0] = out[0] * 10 + digit
        at += 1
    return -1


cdef inline bint is_text(
    const char *line, Py_ssize_t length, const char *text, Py_ssize_t size
) noexcept nogil:
    return length == size and memcmp(line, text, size) == 0


cdef int single_says(int kind, const char *line, Py_ssize_t length) noexcept nogil:
    if kind == K_STORE or kind == K_CAS or kind == K_STORE_MANY:
        if is_text(line, length, b"STORED", 6):
            return SAYS_TRUE
        if is_text(line, length, b"NOT_STORED", 10):
            return SAYS_FALSE
        if kind == K_CAS:
            if is_text(line, length, b"EXISTS", 6):
                return SAYS_FALSE
            if is_text(line, length, b"NOT_FOUND", 9):
                return SAYS_NONE
    elif kind == K_DELETE or kind == K_DELETE_MANY:
        if is_text(line, length, b"DELETED", 7):
            return SAYS_TRUE
        if is_text(line, length, b"NOT_FOUND", 9):
            return SAYS_FALSE
    elif kind == K_TOUCH:
        if is_text(line, length, b"TOUCHED", 7):
            return SAYS_TRUE
        if is_text(line, length, b"NOT_FOUND", 9):
            return SAYS_FALSE
    return SAYS_OTHER


cdef class _Target:
    """The bytes object that a large value is received into.

    While anybody holds a view of it, it is neither resized nor handed out.
    """

    cdef PyObject *value
    cdef Py_ssize_t size       # of the value as announced
    cdef Py_ssize_t capacity   # of `value` so far
    cdef Py_ssize_t filled
    cdef Py_ssize_t exports

    def __cinit__(self):
        self.value = NULL
        self.exports = 0

    def __dealloc__(self):
        Py_XDECREF_raw(self.value)

    def __len__(self):
        # asyncio asks for the size of what it receives into.
        return self.capacity - self.filled

    def __getbuffer__(self, Py_buffer *view, int flags):
        if self.value == NULL or self.filled >= self.capacity:
            raise BufferError("no room")
        PyBuffer_FillInfo(
            view,
            self,
            PyBytes_AS_STRING_raw(self.value) + self.filled,
            self.capacity - self.filled,
            0,
            flags,
        )
        self.exports += 1

    def __releasebuffer__(self, Py_buffer *view):
        self.exports -= 1


cdef _Target new_target(Py_ssize_t size, const char *arrived, Py_ssize_t count):
    """A target for a value of `size` bytes, of which `count` (fewer) have arrived."""
    cdef _Target target = _Target.__new__(_Target)
    cdef Py_ssize_t capacity = size if size < FIRST_TARGET else FIRST_TARGET
    if capacity < count:
        capacity = count
    target.value = PyBytes_FromStringAndSize_raw(NULL, capacity)
    target.size = size
    target.capacity = capacity
    target.filled = count
    memcpy(PyBytes_AS_STRING_raw(target.value), arrived, count)
    return target


cdef _Target grown(_Target target):
    """The same target with room for as much again, at most for the whole value."""
    cdef Py_ssize_t capacity = target.capacity * 2
    cdef _Target larger
    if capacity > target.size:
        capacity = target.size
    if target.exports == 0:
        # On failure it has freed the object and set the pointer to NULL.
        target.capacity = 0
        _PyBytes_Resize(&target.value, capacity)
        target.capacity = capacity
        return target
    larger = _Target.__new__(_Target)
    larger.value = PyBytes_FromStringAndSize_raw(NULL, capacity)
    larger.size = target.size
    larger.capacity = capacity
    larger.filled = target.filled
    memcpy(
        PyBytes_AS_STRING_raw(larger.value), PyBytes_AS_STRING_raw(target.value), target.filled
    )
    return larger


cdef bytes finished(_Target target):
    """The complete value; a copy where somebody still holds a view and could write to it."""
    if target.exports > 0:
        return PyBytes_FromStringAndSize(PyBytes_AS_STRING_raw(target.value), target.size)
    cdef bytes value = <bytes><object>target.value
    Py_DECREF_raw(target.value)
    target.value = NULL
    return value


cdef class ReplyStream:
    """What `exchange_c` uses of a parser without a Python call; `ReplyParser` is the only one."""

    cdef int lend(self, char **room, Py_ssize_t *size) except -1:
        raise TypeError("not a parser")

    cdef void take_back(self, Py_ssize_t count) noexcept:
        pass

    cdef Py_ssize_t waiting(self) noexcept:
        return 0

    cdef object reply(self, int kind, bytes request, object keys, object default):
        raise TypeError("not a parser")


cdef class ReplyParser(ReplyStream):
    """Parses the replies of one connection, in the order of their requests.

    `decode` says how the values of a fetch are decoded (one of `replies.DECODE_*`),
    `max_value_size` (bytes) which size a server may announce for one.
    """

    cdef char *buffer            # NULL while nothing is in it
    cdef Py_ssize_t capacity
    cdef Py_ssize_t start        # of what is not parsed yet
    cdef Py_ssize_t end          # of what has arrived
    cdef Py_ssize_t exports
    cdef int decode
    cdef Py_ssize_t max_value_size
    cdef bint broken
    cdef Py_ssize_t handed       # room that the last get_buffer gave, -1 for none
    cdef bint handed_target
    cdef _Target target
    cdef Py_ssize_t value_size   # of the value whose data comes next, -1: a line comes next
    # The reply in progress.
    cdef int kind
    cdef bytes request           # of a fetch or batch
    cdef list keys               # its keys, in a list that is nobody else's
    cdef object result
    cdef bint found              # the one key of a fetch of one
    cdef Py_ssize_t room         # how much of a limit its lines have left
    cdef list items
    cdef object error
    cdef Py_ssize_t scanned      # so many bytes from `start` on hold no line end
    cdef Py_ssize_t token        # offset in the request of the next key not yet passed
    cdef Py_ssize_t index        # of that key among all keys
    cdef Py_ssize_t line_token   # the same two for the first key of the request's line
    cdef Py_ssize_t line_index
    cdef dict lookup
    cdef char *answered          # one byte a key, where there can be more than one
    cdef Py_ssize_t answered_size
    cdef Py_ssize_t value_index
    cdef uint64_t value_flags
    cdef bytes value_cas
    cdef list noreply_errors
    #: How many replies of the batch in progress are complete.
    cdef readonly Py_ssize_t progress

    def __cinit__(
        self, int decode=D_RAW, Py_ssize_t max_value_size=_replies.DEFAULT_MAX_VALUE_SIZE
    ):
        if decode < D_RAW or decode > D_LATER:
            raise ValueError(f"decode must be one of replies.DECODE_*, not {decode!r}")
        if max_value_size < 0 or max_value_size > MAX_VALUE_SIZE:
            raise ValueError(f"max_value_size must be from 0 to {MAX_VALUE_SIZE} bytes")
        self.decode = decode
        self.max_value_size = max_value_size
        self.handed = -1
        self.value_size = -1
        self.noreply_errors = []

    def __dealloc__(self):
        if self.buffer != NULL:
            give_buffer(self.buffer, self.capacity)
        PyMem_Free(self.answered)

    # -- bytes in ------------------------------------------------------------------------------

    def __len__(self):
        # As a buffer, which is what `get_buffer` gives it as: asyncio asks for its size.
        return self.capacity - self.end

    def __getbuffer__(self, Py_buffer *view, int flags):
        if self.buffer == NULL or self.end >= self.capacity:
            raise BufferError("no room: call get_buffer")
        PyBuffer_FillInfo(view, self, self.buffer + self.end, self.capacity - self.end, 0, flags)
        self.exports += 1

    def __releasebuffer__(self, Py_buffer *view):
        self.exports -= 1

    def get_buffer(self, Py_ssize_t sizehint=-1):
        """Writable memory for the next bytes from the server; follow with `buffer_updated`."""
        self.prepare()
        return self.target if self.handed_target else self

    cdef int prepare(self) except -1:
        """Have room for the next bytes; `handed` and `handed_target` tell how much, and where."""
        cdef _Target target = self.target
        if target is not None and target.filled < target.size:
            if target.filled == target.capacity:
                target = grown(target)
                self.target = target
            self.handed = target.capacity - target.filled
            self.handed_target = True
            return 0
        if self.buffer == NULL:
            self.buffer = take_buffer()
            self.capacity = BUFFER_SIZE
            self.start = self.end = 0
        elif self.capacity - self.end < ROOM:
            self.make_room()
        self.handed = self.capacity - self.end
        self.handed_target = False
        return 0

    cdef int lend(self, char **room, Py_ssize_t *size) except -1:
        """Like `get_buffer`, without a view: the memory stays until `take_back`."""
        self.prepare()
        size[0] = self.handed
        if self.handed_target:
            self.target.exports += 1
            room[0] = PyBytes_AS_STRING_raw(self.target.value) + self.target.filled
        else:
            self.exports += 1
            room[0] = self.buffer + self.end
        return 0

    cdef void take_back(self, Py_ssize_t count) noexcept:
        """What was lent comes back; its first `count` bytes have arrived."""
        self.handed = -1
        if self.handed_target:
            self.target.exports -= 1
            self.target.filled += count
        else:
            self.exports -= 1
            self.end += count

    cdef int make_room(self) except -1:
        cdef char *larger
        if self.exports > 0:
            raise BufferError("a view of the parser's buffer is still held")
        if self.start > 0:
            memmove(self.buffer, self.buffer + self.start, self.end - self.start)
            self.end -= self.start
            self.start = 0
        if self.capacity - self.end < ROOM:
            larger = <char *>PyMem_Realloc(self.buffer, self.capacity * 2)
            if larger == NULL:
                raise MemoryError()
            self.buffer = larger
            self.capacity *= 2
        return 0

    def buffer_updated(self, Py_ssize_t nbytes):
        """Take the first `nbytes` of what `get_buffer` gave."""
        if nbytes < 0 or nbytes > self.handed:
            raise ValueError(f"buffer_updated({nbytes}) without a buffer of that size")
        self.handed = -1
        if self.handed_target:
            self.target.filled += nbytes
        else:
            self.end += nbytes

    def feed(self, data):
        """Take `data`, which was received without `get_buffer`."""
        cdef char *room
        cdef Py_ssize_t size, start = 0
        cdef Py_buffer view
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            while start < view.len:
                self.lend(&room, &size)
                if size > view.len - start:
                    size = view.len - start
                memcpy(room, <const char *>view.buf + start, size)
                self.take_back(size)
                start += size
        finally:
            PyBuffer_Release(&view)

    @property
    def wants_buffer(self):
        """Whether a large value is under way: what comes is best received into `get_buffer`."""
        return self.target is not None and self.target.filled < self.target.size

    @property
    def pending(self):
        """Bytes that have arrived and belong to no reply parsed so far."""
        return self.waiting()

    cdef Py_ssize_t waiting(self) noexcept:
        return self.end - self.start + (self.target.filled if self.target is not None else 0)

    # -- results out ---------------------------------------------------------------------------

    def parse(self, int kind, bytes request not None=b"", object keys=None, object default=None):
        """The result of the next reply, `NEED_DATA`, or the server's error as an instance.

        `kind` is one of the kinds in `replies`, `request` the bytes that were sent, `keys` the
        caller's own key (single fetches) or list of keys, `default` what a single fetch gives on
        a miss; where it is a dict, a fetch of many adds to it.  After `NEED_DATA` call again with
        the same arguments once more has arrived.
        Raises where the connection must be closed: `MemcacheUnknownError` for an illegal reply,
        the server's error where the end of its reply cannot be known.
        """
        return self.reply(kind, request, keys, default)

    cdef object reply(self, int kind, bytes request, object keys, object default):
        cdef object result
        if self.broken:
            raise broken_error()
        if kind < K_GET or kind > K_WRITES:
            raise ValueError(f"no such kind of reply: {kind!r}")
        if self.kind != K_NONE and kind != self.kind:
            raise ValueError(f"a reply of kind {self.kind} is being parsed, not {kind}")
        self.handed = -1
        if self.start == self.end and self.target is None:
            return NEED_DATA
        if kind == K_GET and self.kind == K_NONE and self.target is None:
            result = self.usual(request)
            if result is not None:
                self.end_reply()
                return result
        # Taken back only when all went well: an exception leaves the parser unusable.
        self.broken = True
        if kind <= K_GETS_MANY or kind == K_STORE_MANY or kind == K_DELETE_MANY:
            if self.kind == K_NONE:
                # Offsets and indexes are of these: others may change the list, even while a key is
                # hashed.
                self.request = request
                self.keys = None if kind <= K_GETS else list(keys)
            if kind <= K_GETS_MANY:
                result = self.fetch(kind, self.request, keys, default)
            else:
                result = self.batch(kind, self.request)
            if result is not NEED_DATA:
                self.request = None
                self.keys = None
        elif kind == K_STATS:
            result = self.stats(request)
        elif kind == K_METADUMP:
            result = self.metadump(request)
        elif kind == K_CONFIG:
            result = self.config(request)
        elif kind == K_RAW:
            result = self.raw(request, <bytes?>keys)
        elif kind == K_WRITES:
            result = self.writes(request, len(keys))
        elif kind >= K_BARRIER:
            result = self.barrier(kind, request, bool(keys))
        else:
            result = self.single(kind, request)
        self.broken = False
        if result is not NEED_DATA:
            self.end_reply()
        return result

    cdef inline int end_reply(self) noexcept:
        self.kind = K_NONE
        self.progress = 0
        if self.start == self.end and self.exports == 0 and self.buffer != NULL:
            give_buffer(self.buffer, self.capacity)
            self.buffer = NULL
            self.capacity = self.start = self.end = 0
        return 0

    cdef object usual(self, bytes request):
        """The value, where all that has come is the usual reply to the `get` of one key.

        None where it is anything else, of which nothing is taken then: `fetch` does that.
        """
        cdef const char *text = self.buffer + self.start
        cdef const char *asked = PyBytes_AS_STRING(request)
        cdef Py_ssize_t arrived = self.end - self.start
        cdef Py_ssize_t at = PyBytes_GET_SIZE(request) - 6  # "get ", CR LF: what is left is the key
        cdef uint64_t flags, size
        if self.decode == D_LATER or at < 1 or at > 250 or arrived < at + 17:
            return None
        if memcmp(asked, b"get ", 4) != 0 or memcmp(text, b"VALUE ", 6) != 0:
            return None
        if memcmp(text + 6, asked + 4, at) != 0 or memchr(asked + 4, 32, at) != NULL:
            return None
        at += 6
        if text[at] != 32:
            return None
        at = digits_at(text, at + 1, arrived, 9, &flags)
        if at < 0 or text[at] != 32:
            return None
        at = digits_at(text, at + 1, arrived, 5, &size)
        if at < 0 or arrived - at != <Py_ssize_t>size + 9 or size > <uint64_t>self.max_value_size:
            return None
        if memcmp(text + at, b"\r\n", 2) != 0:
            return None
        at += 2
        if memcmp(text + at + size, b"\r\nEND\r\n", 7) != 0:
            return None
        value = self.usual_value(text + at, size, flags)
        if value is None:
            return None
        self.start = self.end
        self.scanned = 0
        return value

    cdef inline object usual_value(self, const char *data, uint64_t size, uint64_t flags):
        """What `decoded` makes of the value, as long as it is bytes, text or digits; else None."""
        cdef uint64_t number
        cdef bint negative
        if self.decode == D_RAW or flags == 0:
            return PyBytes_FromStringAndSize(data, size)
        if flags == F_TEXT:
            try:
                return PyUnicode_DecodeUTF8(data, size, NULL)
            except UnicodeDecodeError:
                return None
        if flags == F_INTEGER or flags == F_LONG:
            negative = size > 0 and data[0] == 45
            if number_at(data + negative, size - negative, 18, MAX_UINT64, &number):
                return PyLong_FromLongLong(-<long long>number if negative else <long long>number)
        return None

    def answer(
        self, data, int kind, bytes request not None, object keys=None, object default=None
    ):
        """`feed` and `parse` in one, where `data` begins with the reply and should end with it.

        Raises `MemcacheUnknownError` where more follows: whose that is cannot be known.
        """
        self.feed(data)
        result = self.reply(kind, request, keys, default)
        if result is not NEED_DATA and kind != K_RAW and self.waiting():
            raise extra_bytes_error(request)
        return result

    cdef Py_ssize_t line(self, bytes request, bint bare_newline=False) except -2:
        """Length of the line at `start` without its line end, -1 where it is not complete.

        The caller takes the line with `start = after`; `after` is kept in `scanned` as the
        distance, so that a line that comes in pieces is searched once.
        """
        cdef const char *text = self.buffer + self.start
        cdef Py_ssize_t arrived = self.end - self.start
        cdef const char *newline = NULL
        cdef Py_ssize_t length
        if arrived > self.scanned:
            newline = <const char *>memchr(text + self.scanned, 10, arrived - self.scanned)
        length = newline - text if newline != NULL else arrived
        if length > MAX_LINE:
            raise protocol_error(PyBytes_FromStringAndSize(text, MAX_LINE), request)
        if newline == NULL:
            self.scanned = arrived
            return -1
        self.scanned = 0
        self.start += length + 1
        if length > 0 and text[length - 1] == 13:
            return length - 1
        if bare_newline:
            return length
        raise protocol_error(PyBytes_FromStringAndSize(text, length), request)

    cdef object refuse(self, const char *line, Py_ssize_t length, bytes request, bint in_step):
        """The server's error: returned where the stream is known to go on in step."""
        cdef bytes text = PyBytes_FromStringAndSize(line, length)
        error = server_error(text, request)
        if error is None:
            raise protocol_error(text, request)
        if in_step and keeps_in_step(text):
            return error
        raise error

    cdef object single(self, int kind, bytes request):
        cdef Py_ssize_t begin = self.start
        cdef Py_ssize_t length = self.line(request)
        cdef const char *line
        cdef int says
        cdef uint64_t number
        cdef bytes text
        if length < 0:
            return NEED_DATA
        line = self.buffer + begin
        says = single_says(kind, line, length)
        if says == SAYS_TRUE:
            return True
        if says == SAYS_FALSE:
            return False
        if says == SAYS_NONE:
            return None
        if kind == K_ARITHMETIC:
            if number_at(line, length, 20, MAX_UINT64, &number):
                return PyLong_FromUnsignedLongLong(number)
            if is_text(line, length, b"NOT_FOUND", 9):
                return None
        elif kind == K_OK:
            if is_text(line, length, b"OK", 2):
                return True
            error = refusal(PyBytes_FromStringAndSize(line, length))
            if error is not None:
                return error
        elif kind == K_VERSION:
            if length >= 8 and memcmp(line, b"VERSION ", 8) == 0:
                return PyBytes_FromStringAndSize(line + 8, length - 8)
        elif kind == K_LINE:
            text = PyBytes_FromStringAndSize(line, length)
            error = server_error(text, request)
            if error is None:
                return text
            if keeps_in_step(text):
                return error
            raise error
        elif kind == K_STORE or kind == K_CAS:
            return self.refuse(
                line, length, request, length >= 12 and memcmp(line, b"SERVER_ERROR", 12) == 0
            )
        return self.refuse(line, length, request, True)

    cdef object batch(self, int kind, bytes request):
        cdef bint store = kind == K_STORE_MANY
        cdef Py_ssize_t count = PyList_GET_SIZE(self.keys)
        cdef Py_ssize_t begin, length
        cdef const char *line
        cdef int says
        if self.kind == K_NONE:
            self.kind = kind
            self.result = []
            self.error = None
        while self.progress < count:
            begin = self.start
            length = self.line(request)
            if length < 0:
                return NEED_DATA
            line = self.buffer + begin
            says = single_says(kind, line, length)
            if says == SAYS_OTHER:
                error = self.refuse(
                    line,
                    length,
                    request,
                    not store or (length >= 12 and memcmp(line, b"SERVER_ERROR", 12) == 0),
                )
                if self.error is None:
                    self.error = error
                    name_command(error, request, self.progress, self.keys[self.progress])
            if store and says != SAYS_TRUE:
                (<list>self.result).append(self.keys[self.progress])
            self.progress += 1
        result = self.result if store else True
        error = self.error
        self.result = self.error = None
        return result if error is None else PartialFailure(result, error)

    cdef object stats(self, bytes request):
        cdef Py_ssize_t begin, length, rest
        cdef const char *line
        cdef const char *space
        cdef bint first
        if self.kind == K_NONE:
            self.kind = K_STATS
            self.result = {}
            self.room = _replies.MAX_STATS_SIZE
        while True:
            begin = self.start
            length = self.line(request)
            if length < 0:
                return NEED_DATA
            line = self.buffer + begin
            first = self.progress == 0
            self.progress += 1
            rest = 0
            if length > 5 and (memcmp(line, b"STAT ", 5) == 0 or memcmp(line, b"ITEM ", 5) == 0):
                rest = 5
            elif length > 7 and memcmp(line, b"PREFIX ", 7) == 0:
                rest = 7
            if rest:
                self.room -= length + LINE_COST
                if self.room < 0:
                    raise endless_error("what statistics may take", _replies.MAX_STATS_SIZE)
                line += rest
                length -= rest
                space = <const char *>memchr(line, 32, length)
                if space == NULL:
                    name = PyBytes_FromStringAndSize(line, length)
                    value = b""
                else:
                    name = PyBytes_FromStringAndSize(line, space - line)
                    value = PyBytes_FromStringAndSize(space + 1, line + length - space - 1)
                (<dict>self.result)[name] = value
            elif is_text(line, length, b"END", 3) or (
                first
                and (is_text(line, length, b"RESET", 5) or is_text(line, length, b"OK", 2))
            ):
                result = self.result
                self.result = None
                return result
            else:
                return self.refuse(line, length, request, first)

    cdef object metadump(self, bytes request):
        cdef Py_ssize_t begin, length
        cdef const char *line
        cdef bytes text
        cdef bint first
        if self.kind == K_NONE:
            self.kind = K_METADUMP
            self.result = []
            self.room = self.max_value_size
        cdef list lines = self.result
        while True:
            begin = self.start
            length = self.line(request, True)
            if length < 0:
                return NEED_DATA
            line = self.buffer + begin
            first = self.progress == 0
            self.progress += 1
            if is_text(line, length, b"END", 3) or is_text(line, length, b"EN", 2):
                self.result = None
                return lines
            text = PyBytes_FromStringAndSize(line, length)
            if text.startswith((b"key=", b"mg ")):
                self.room -= length + LINE_COST
                if self.room < 0:
                    raise endless_error("max_value_size", self.max_value_size)
                lines.append(text)
            elif not first or text != b"OK":  # with which newer servers begin
                error = refusal(text) if first else None
                return self.refuse(line, length, request, first) if error is None else error

    cdef object config(self, bytes request):
        cdef Py_ssize_t begin, length
        cdef bytes text, value
        cdef list words
        if self.kind == K_NONE:
            self.kind = K_CONFIG
            self.result = None
        while True:
            if self.value_size >= 0:
                value = self.value(request)
                if value is None:
                    return NEED_DATA
                self.result = value
                continue
            begin = self.start
            length = self.line(request)
            if length < 0:
                return NEED_DATA
            text = PyBytes_FromStringAndSize(self.buffer + begin, length)
            result = self.result
            if text == b"END":
                self.result = None
                return result
            words = text.split(b" ")
            if (
                result is None
                and len(words) == 4
                and words[0] == b"CONFIG"
                and request == b"config get %b\r\n" % words[1]
            ):
                flags, size = <bytes>words[2], <bytes>words[3]
                self.announce(
                    PyBytes_AS_STRING(flags),
                    PyBytes_GET_SIZE(flags),
                    PyBytes_AS_STRING(size),
                    PyBytes_GET_SIZE(size),
                    begin,
                    length,
                    request,
                )
            else:
                return self.refuse(
                    PyBytes_AS_STRING(text), length, request, result is None
                )

    cdef object raw(self, bytes request, bytes end_token):
        cdef Py_ssize_t begin = self.start
        cdef Py_ssize_t arrived = self.end - begin
        cdef const char *text = self.buffer + begin
        cdef Py_ssize_t found, line_end
        cdef Py_ssize_t token_size = PyBytes_GET_SIZE(end_token)
        cdef bytes line
        cdef bytes start = PyBytes_FromStringAndSize(text, min(arrived, LONGEST_ERROR))
        cdef bint in_line
        # What was searched before can hold only the beginning of the token.
        found = self.scanned - token_size + 1
        if found < 0:
            found = 0
        found = find(text, arrived, PyBytes_AS_STRING(end_token), token_size, found)
        line_end = find(text, arrived, b"\r\n", 2, 0)
        # Where it stands in a line that is longer, that is too long however the bytes come in.
        in_line = (
            found >= 0
            and found + token_size <= MAX_LINE
            and (line_end < 0 or found + token_size <= line_end + 2)
        )
        # Both are the whole reply: no end token comes.  Only where a refusal has it, it is what was
        # asked for.
        if start.startswith(ERRORS) or (start.startswith(REFUSALS) and not in_line):
            # Without its end it may be a CR longer.
            if line_end > MAX_LINE or (line_end < 0 and arrived > MAX_LINE + 1):
                raise protocol_error(PyBytes_FromStringAndSize(text, MAX_LINE), request)
            if line_end < 0:
                return NEED_DATA
            line = PyBytes_FromStringAndSize(text, line_end)
            error = server_error(line, request)
            if error is None:
                error = refusal(line)
            if error is not None:
                self.start += line_end + 2
                self.scanned = 0
                return error
        # An error line may be longer than that, and is known by how it begins.
        if found > self.max_value_size or (
            found < 0 and arrived >= LONGEST_ERROR and arrived >= self.max_value_size + token_size
        ):
            raise endless_error("max_value_size", self.max_value_size)
        if found < 0:
            self.scanned = arrived
            return NEED_DATA
        self.scanned = 0
        self.start += found + token_size
        return PyBytes_FromStringAndSize(text, found)

    cdef object barrier(self, int kind, bytes request, bint storing):
        cdef Py_ssize_t begin, length
        cdef const char *line
        cdef bytes text
        while True:
            begin = self.start
            length = self.line(request)
            if length < 0:
                return NEED_DATA
            line = self.buffer + begin
            if kind == K_BARRIER and length >= 8 and memcmp(line, b"VERSION ", 8) == 0:
                errors = self.noreply_errors
                self.noreply_errors = []
                return errors
            text = PyBytes_FromStringAndSize(line, length)
            error = server_error(text, b"")
            if error is not None:
                if storing and not text.startswith(b"SERVER_ERROR"):
                    raise refused_value_error(text)
                self.keep(error)

    cdef object writes(self, bytes request, Py_ssize_t count):
        cdef bint storing = request.startswith(_replies.STORAGE_VERBS)
        cdef Py_ssize_t begin, length
        cdef uint64_t number
        cdef const char *line
        cdef bytes text
        self.kind = K_WRITES
        while self.progress < count:
            begin = self.start
            length = self.line(request)
            if length < 0:
                return NEED_DATA
            line = self.buffer + begin
            if not is_text(line, length, b"STORED", 6):
                text = PyBytes_FromStringAndSize(line, length)
                if text not in _replies.WRITTEN and not number_at(
                    line, length, 20, MAX_UINT64, &number
                ):
                    self.keep(
                        self.refuse(
                            line,
                            length,
                            request,
                            not storing or text.startswith(b"SERVER_ERROR"),
                        )
                    )
            self.progress += 1
        errors = self.noreply_errors
        self.noreply_errors = []
        return errors

    cdef int keep(self, error) except -1:
        """One more error in answer to noreply commands."""
        # Beyond some, only their number counts: a batch can have millions.
        if len(self.noreply_errors) >= ERRORS_KEPT:
            error = self.noreply_errors[0]
        if len(self.noreply_errors) < _replies.MAX_NOREPLY_ERRORS:
            self.noreply_errors.append(error)
        return 0

    # -- fetches -------------------------------------------------------------------------------

    cdef object fetch(self, int kind, bytes request, object only_key, object default):
        cdef bint many = kind >= K_GET_MANY
        cdef bint cas = kind == K_GETS or kind == K_GETS_MANY
        cdef Py_ssize_t begin, length, position, key_begin, key_end, flags_begin, flags_end
        cdef Py_ssize_t size_begin, size_end
        cdef const char *line
        cdef const char *space
        cdef bytes value
        cdef object key, decoded
        cdef uint64_t number
        if self.kind == K_NONE:
            self.begin_fetch(kind, request, many, default)
        while True:
            if self.value_size >= 0:
                value = self.value(request)
                if value is None:
                    return NEED_DATA
                if many:
                    if self.value_index >= PyList_GET_SIZE(self.keys):
                        raise ValueError("fewer keys than the request has")
                    key = <object>PyList_GET_ITEM(self.keys, self.value_index)
                else:
                    key = only_key
                decoded = value
                if self.decode != D_RAW:
                    decoded = self.decoded(value, self.value_flags)
                    if decoded is None:
                        decoded = value
                        if self.items is None:
                            self.items = []
                        self.items.append((key, value, self.value_flags))
                if cas:
                    decoded = (decoded, self.value_cas)
                if many:
                    PyDict_SetItem(self.result, key, decoded)
                else:
                    self.result = decoded
                    self.found = True
                continue
            if kind == K_GET_MANY:
                self.usual_values(request)
            begin = self.start
            length = self.line(request)
            if length < 0:
                return NEED_DATA
            line = self.buffer + begin
            if length > 6 and memcmp(line, b"VALUE ", 6) == 0:
                # VALUE <key> <flags> <bytes>[ <cas>], single spaces, nothing more
                key_begin = 6
                space = <const char *>memchr(line + 6, 32, length - 6)
                if space == NULL:
                    raise self.illegal(begin, length, request)
                key_end = space - line
                flags_begin = key_end + 1
                flags_end = flags_begin
                while flags_end < length and line[flags_end] != 32:
                    flags_end += 1
                size_begin = flags_end + 1
                size_end = size_begin
                while size_end < length and line[size_end] != 32:
                    size_end += 1
                if size_begin > length or cas != (size_end < length):
                    raise self.illegal(begin, length, request)
                if cas:
                    if not number_at(
                        line + size_end + 1, length - size_end - 1, 20, MAX_UINT64, &number
                    ):
                        raise self.illegal(begin, length, request)
                    self.value_cas = PyBytes_FromStringAndSize(
                        line + size_end + 1, length - size_end - 1
                    )
                self.announce(
                    line + flags_begin,
                    flags_end - flags_begin,
                    line + size_begin,
                    size_end - size_begin,
                    begin,
                    length,
                    request,
                )
                position = self.match(begin + key_begin, key_end - key_begin, request)
                if position < 0:
                    raise self.illegal(begin, length, request)
                self.value_index = position
            elif is_text(line, length, b"END", 3):
                self.progress += 1
                if self.next_line(request):
                    continue
                return self.fetched(many, default)
            else:
                error = server_error(PyBytes_FromStringAndSize(line, length), request)
                raise error if error is not None else self.illegal(begin, length, request)

    cdef int usual_values(self, bytes request) except -1:
        """Take the values that come next as long as they are usual: whole, of the very next key.

        Of anything else nothing is taken: `fetch` does that, one by one.
        """
        cdef const unsigned char *asked = <const unsigned char *>PyBytes_AS_STRING(request)
        cdef const char *text = self.buffer
        cdef Py_ssize_t end = self.end
        cdef list keys = self.keys
        cdef Py_ssize_t count = min(PyList_GET_SIZE(keys), self.answered_size)
        cdef Py_ssize_t at, token
        cdef uint64_t flags, size
        cdef object value
        if self.decode == D_LATER or self.lookup is not None:
            return 0
        while self.index < count:
            at = self.start
            if end - at < 6 or memcmp(text + at, b"VALUE ", 6) != 0:
                break
            at += 6
            # The request ends in CR LF, so each key is followed by a space or a CR.
            token = self.token
            while asked[token] > 32 and at < end and <unsigned char>text[at] == asked[token]:
                at += 1
                token += 1
            if token == self.token or (asked[token] != 32 and asked[token] != 13):
                break
            if at >= end or text[at] != 32:
                break
            at = digits_at(text, at + 1, end, 9, &flags)
            if at < 0 or text[at] != 32:
                break
            at = digits_at(text, at + 1, end, 5, &size)
            if at < 0 or end - at < <Py_ssize_t>size + 4 or size > <uint64_t>self.max_value_size:
                break
            if text[at] != 13 or text[at + 1] != 10:
                break
            at += 2
            if text[at + size] != 13 or text[at + size + 1] != 10:
                break
            value = self.usual_value(text + at, size, flags)
            if value is None:
                break
            PyDict_SetItem(self.result, <object>PyList_GET_ITEM(keys, self.index), value)
            self.start = at + size + 2
            self.scanned = 0
            self.answered[self.index] = 1
            self.index += 1
            # On the CR, the next look finds the LF, which is no key.
            self.token = token + 1
        return 0

    cdef object illegal(self, Py_ssize_t begin, Py_ssize_t length, bytes request):
        return protocol_error(PyBytes_FromStringAndSize(self.buffer + begin, length), request)

    cdef int begin_fetch(self, int kind, bytes request, bint many, object default) except -1:
        cdef Py_ssize_t count = 1
        if many:
            count = PyList_GET_SIZE(self.keys)
            if count > self.answered_size or count * 4 < self.answered_size:
                PyMem_Free(self.answered)
                self.answered_size = 0
                self.answered = <char *>PyMem_Calloc(count, 1)
                if self.answered == NULL:
                    raise MemoryError()
                self.answered_size = count
            else:
                memset(self.answered, 0, count)
            self.result = default if type(default) is dict else {}
        else:
            self.result = None
            self.found = False
        self.items = None
        self.index = 0
        self.lookup = None
        self.begin_line(request, 0)
        self.kind = kind
        return 0

    cdef int begin_line(self, bytes request, Py_ssize_t offset) except -1:
        """Make the request line at `offset` the one that is being answered."""
        cdef const char *text = PyBytes_AS_STRING(request)
        cdef Py_ssize_t size = PyBytes_GET_SIZE(request)
        cdef Py_ssize_t words = 1
        cdef const char *space
        if size < 2 or text[size - 1] != 10 or text[size - 2] != 13:
            raise ValueError("the request of a fetch must be the bytes that were sent")
        if size - offset > 3 and memcmp(text + offset, b"gat", 3) == 0:
            words = 2
        while words > 0:
            space = <const char *>memchr(text + offset, 32, size - offset)
            if space == NULL:
                raise ValueError("the request of a fetch must be the bytes that were sent")
            offset = space - text + 1
            words -= 1
        self.token = self.line_token = offset
        self.line_index = self.index
        self.lookup = None
        return 0

    cdef bint next_line(self, bytes request) except -1:
        """Go on to the next line of the request; false where there is none."""
        cdef const char *text = PyBytes_AS_STRING(request)
        cdef Py_ssize_t size = PyBytes_GET_SIZE(request)
        cdef Py_ssize_t position = self.line_token
        cdef const char *newline = <const char *>memchr(text + position, 10, size - position)
        cdef Py_ssize_t index
        if newline == NULL or newline - text + 1 >= size:
            return False
        index = self.line_index + 1
        while text + position < newline:
            index += text[position] == 32
            position += 1
        self.index = index
        self.begin_line(request, position + 1)
        return True

    cdef Py_ssize_t match(self, Py_ssize_t begin, Py_ssize_t length, bytes request) except -2:
        """Index of the key that a VALUE of this wire key answers, -1 for none."""
        cdef const char *key = self.buffer + begin
        cdef const char *text = PyBytes_AS_STRING(request)
        cdef Py_ssize_t size = PyBytes_GET_SIZE(request)
        cdef Py_ssize_t token = self.token
        cdef Py_ssize_t index = self.index
        if self.lookup is None:
            # The request ends in CR LF, so each token is followed by a space or a CR.
            while token < size and text[token] != 10:
                if (
                    token + length < size
                    and (text[token + length] == 32 or text[token + length] == 13)
                    and memcmp(text + token, key, length) == 0
                ):
                    # On the CR, the next look finds the LF, which is no key.
                    self.token = token + length + 1
                    self.index = index + 1
                    if index < self.answered_size:
                        self.answered[index] = 1
                    return index
                while text[token] != 32 and text[token] != 13:
                    token += 1
                token += 1
                index += 1
            self.look_up(request)
        waiting = self.lookup.get(PyBytes_FromStringAndSize(key, length))
        if not waiting:
            return -1
        index = (<list>waiting).pop(0)
        if index < self.answered_size:
            self.answered[index] = 1
        return index

    cdef int look_up(self, bytes request) except -1:
        """The reply does not follow the order of the request: match by table from here on."""
        cdef Py_ssize_t end = request.find(b"\r\n", self.line_token)
        cdef Py_ssize_t index = self.line_index
        cdef dict lookup = {}
        for token in request[self.line_token:end].split(b" "):
            if not self.is_answered(index):
                lookup.setdefault(token, []).append(index)
            index += 1
        self.lookup = lookup
        return 0

    cdef bint is_answered(self, Py_ssize_t index) noexcept:
        if self.kind >= K_GET_MANY:
            return index < self.answered_size and self.answered[index] != 0
        return self.index > index

    cdef object fetched(self, bint many, object default):
        cdef object result = self.result
        cdef list items = self.items
        self.result = None
        self.items = None
        self.lookup = None
        if not many:
            result = result if self.found else default
        return result if items is None else Undecoded(result, items)

    cdef int announce(
        self,
        const char *flags,
        Py_ssize_t flags_length,
        const char *size,
        Py_ssize_t size_length,
        Py_ssize_t begin,
        Py_ssize_t length,
        bytes request,
    ) except -1:
        cdef uint64_t number
        if not number_at(flags, flags_length, 10, MAX_FLAGS, &self.value_flags) or not number_at(
            size, size_length, 10, <uint64_t>MAX_VALUE_SIZE, &number
        ):
            raise self.illegal(begin, length, request)
        if number > <uint64_t>self.max_value_size:
            raise too_large_error(number, self.max_value_size)
        self.value_size = <Py_ssize_t>number
        if self.value_size > DIRECT_SIZE and self.end - self.start < self.value_size:
            # What has arrived of it moves into the object to be returned; the line stays in place.
            self.target = new_target(
                self.value_size, self.buffer + self.start, self.end - self.start
            )
            self.start = self.end
        return 0

    cdef bytes value(self, bytes request):
        """The announced value, None where it or the line end after it has not arrived whole."""
        cdef Py_ssize_t size = self.value_size
        cdef Py_ssize_t arrived = self.end - self.start
        cdef Py_ssize_t begin = self.start
        cdef bytes result
        if self.target is None:
            if arrived < size + 2:
                return None
            result = PyBytes_FromStringAndSize(self.buffer + begin, size)
            begin += size
        else:
            if self.target.filled < size or arrived < 2:
                return None
            result = finished(self.target)
            self.target = None
        if self.buffer[begin] != 13 or self.buffer[begin + 1] != 10:
            raise self.illegal(begin, 2, request)
        self.start = begin + 2
        self.value_size = -1
        return result

    cdef object decoded(self, bytes value, uint64_t flags):
        """The value as the stock serde reads it, None where that takes the serde itself."""
        cdef const char *text = PyBytes_AS_STRING(value)
        cdef Py_ssize_t length = PyBytes_GET_SIZE(value)
        cdef uint64_t number
        cdef bint negative
        if self.decode == D_LATER:
            return None
        if flags == 0:
            return value
        if flags == F_TEXT:
            try:
                return PyUnicode_DecodeUTF8(text, length, NULL)
            except UnicodeDecodeError:
                return None
        if flags == F_INTEGER or flags == F_LONG:
            while length > 0 and text[length - 1] == 32:
                length -= 1
            negative = length > 0 and text[0] == 45
            if number_at(text + negative, length - negative, 18, MAX_UINT64, &number):
                return PyLong_FromLongLong(-<long long>number if negative else <long long>number)
            try:
                return int(value)
            except ValueError:
                return None
        return None


cdef Py_ssize_t find(
    const char *text, Py_ssize_t length, const char *token, Py_ssize_t size, Py_ssize_t start
) noexcept nogil:
    """Offset of `token` in `text` from `start` on, -1 where it is not there."""
    cdef const char *at
    while start + size <= length:
        at = <const char *>memchr(text + start, token[0], length - size + 1 - start)
        if at == NULL:
            return -1
        if memcmp(at, token, size) == 0:
            return at - text
        start = at - text + 1
    return -1
