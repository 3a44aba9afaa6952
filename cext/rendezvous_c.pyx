# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, embedsignature=False
"""Rendezvous hashing, compiled: which node of a cluster a key belongs to.

The twin of `core/rendezvous_py.py`, where the rules are written down.  A table is never changed
once it is made, and a call keeps everything that it works with on its own stack, so any number of
threads may use one table.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Malloc
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from cymemcache.core import restored
from cymemcache.core.arguments import text_of

cdef extern from "Python.h":
    int PyUnicode_KIND(object text)
    void *PyUnicode_DATA(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)

cdef enum:
    STACK_SIZE = 1024  # longer texts of wide characters are copied to the heap

cdef struct Prefix:
    uint32_t state   # after the whole blocks of the prefix
    uint32_t left    # the 0 to 3 bytes behind them
    uint32_t shift   # how many bits those are
    uint32_t length  # characters of the prefix

cdef struct Text:
    const uint8_t *data  # the low 8 bits of each character
    Py_ssize_t size
    uint8_t *owned       # what has to be freed afterwards


cdef inline uint32_t mix(uint32_t block) noexcept nogil:
    """What a block of four bytes (fewer at the end) adds to the state; 0 stays 0."""
    block *= 0xCC9E2D51U
    block = (block << 15) | (block >> 17)
    return block * 0x1B873593U


cdef inline uint32_t absorb(uint32_t state, uint32_t block) noexcept nogil:
    """The state after one more whole block."""
    state ^= mix(block)
    state = (state << 13) | (state >> 19)
    return state * 5U + 0xE6546B64U


cdef inline uint32_t finish(uint32_t state) noexcept nogil:
    """The hash, from the state with tail and length in it."""
    state ^= state >> 16
    state *= 0x85EBCA6BU
    state ^= state >> 13
    state *= 0xC2B2AE35U
    return state ^ (state >> 16)


cdef inline uint32_t block_at(const uint8_t *data) noexcept nogil:
    return (
        data[0] | (<uint32_t>data[1] << 8) | (<uint32_t>data[2] << 16) | (<uint32_t>data[3] << 24)
    )


cdef inline Prefix absorb_text(Prefix prefix, const uint8_t *data, Py_ssize_t size) noexcept nogil:
    """The prefix grown by a text, at whatever offset within a block it ends."""
    cdef uint64_t window = prefix.left
    cdef uint32_t state = prefix.state
    cdef uint32_t shift = prefix.shift
    cdef Py_ssize_t i
    cdef Py_ssize_t whole = size & ~<Py_ssize_t>3
    for i in range(0, whole, 4):
        window |= <uint64_t>block_at(data + i) << shift
        state = absorb(state, <uint32_t>window)
        window >>= 32
    for i in range(whole, size):
        window |= <uint64_t>data[i] << shift
        shift += 8
    if shift >= 32:
        state = absorb(state, <uint32_t>window)
        window >>= 32
        shift -= 32
    prefix.state = state
    prefix.left = <uint32_t>window
    prefix.shift = shift
    prefix.length += <uint32_t>size
    return prefix


cdef inline uint32_t hash_of(Prefix text) noexcept nogil:
    return finish(text.state ^ mix(text.left) ^ text.length)


cdef inline uint32_t tail_of(const uint8_t *data, Py_ssize_t size) noexcept nogil:
    """The 0 to 3 bytes behind the last whole block."""
    cdef uint32_t tail = 0
    cdef Py_ssize_t i = size
    while i & 3:
        i -= 1
        tail = (tail << 8) | data[i]
    return tail


cdef inline uint32_t hash_after(
    const Prefix *prefix, const uint8_t *data, Py_ssize_t size, uint64_t tail
) noexcept nogil:
    """`hash_of` the prefix grown by a text with this `tail_of`, for many prefixes of one text."""
    cdef uint64_t window = prefix.left
    cdef uint32_t state = prefix.state
    cdef uint32_t shift = prefix.shift
    cdef Py_ssize_t i
    for i in range(0, size - 3, 4):
        window |= <uint64_t>block_at(data + i) << shift
        state = absorb(state, <uint32_t>window)
        window >>= 32
    window |= tail << shift
    if shift + 8 * <uint32_t>(size & 3) >= 32:
        state = absorb(state, <uint32_t>window)
        window >>= 32
    return finish(state ^ mix(<uint32_t>window) ^ (prefix.length + <uint32_t>size))


cdef int open_text(object string, uint8_t *stack, Text *text) except -1:
    """Point `text` to the low 8 bits of each character of the str `string`.

    That is the string's own memory or `stack` (STACK_SIZE bytes), so both must outlive `text`.
    """
    cdef int kind = PyUnicode_KIND(string)
    cdef void *data = PyUnicode_DATA(string)
    cdef Py_ssize_t size = PyUnicode_GET_LENGTH(string)
    cdef Py_ssize_t i
    cdef uint8_t *target = stack
    text.size = size
    text.owned = NULL
    if kind == 1:
        text.data = <const uint8_t *>data
        return 0
    if size > STACK_SIZE:
        target = text.owned = <uint8_t *>PyMem_Malloc(size)
        if target == NULL:
            raise MemoryError()
    if kind == 2:
        for i in range(size):
            target[i] = <uint8_t>(<const uint16_t *>data)[i]
    else:
        for i in range(size):
            target[i] = <uint8_t>(<const uint32_t *>data)[i]
    text.data = target
    return 0


cdef bint open_plain_bytes(object key, uint8_t *stack, Text *text) noexcept:
    """Point `text` to what repr makes of the bytes `key`, made in `stack` (STACK_SIZE bytes).

    False where the key is too long for that, or repr would do more than put it between b' and '.
    """
    cdef const uint8_t *data = <const uint8_t *>PyBytes_AS_STRING(key)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(key)
    cdef Py_ssize_t i
    if size > STACK_SIZE - 3:
        return False
    stack[0] = c"b"
    stack[1] = c"'"
    for i in range(size):
        if data[i] < 0x20 or data[i] > 0x7E or data[i] == c"'" or data[i] == c"\\":
            return False
        stack[2 + i] = data[i]
    stack[2 + size] = c"'"
    text.data = stack
    text.size = size + 3
    text.owned = NULL
    return True


cdef Prefix absorb_str(Prefix prefix, object string) except *:
    cdef uint8_t stack[STACK_SIZE]
    cdef Text text
    open_text(string, stack, &text)
    prefix = absorb_text(prefix, text.data, text.size)
    PyMem_Free(text.owned)
    return prefix


def murmur3_32(data, seed=0):
    """MurmurHash3 (x86, 32 bits) of the low 8 bits of each character of `data`.

    `seed` is taken modulo 2**32.  Raises `TypeError` where `data` is no str.
    """
    cdef Prefix start
    if not isinstance(data, str):
        raise TypeError(f"data must be a str, got {type(data).__name__}")
    start.state = seed & 0xFFFFFFFF
    start.left = start.shift = start.length = 0
    return hash_of(absorb_str(start, data))


cdef class NodeTable:
    """An immutable set of nodes; what tells which of them a key belongs to is a subclass's `best`.

    `nodes` are str (`TypeError` otherwise).
    """

    def __cinit__(self, nodes, *_):
        self.nodes = tuple(nodes)
        for node in self.nodes:
            if not isinstance(node, str):
                raise TypeError(f"nodes must be str, got {type(node).__name__}")
        self.count = len(self.nodes)

    def choose(self, key):
        """The node that `key` belongs to (the object that was given), None where there is none."""
        if self.count == 0:
            return None
        return self.nodes[self.best(key)]

    def partition(self, keys):
        """`keys` by their nodes: both the nodes and each node's keys as they come in `keys`.

        None where a key is a pair with a server key, which a table does not take apart.  Raises
        `ValueError` where there are keys but no nodes.
        """
        cdef dict result = {}
        cdef list parts = [None] * self.count
        cdef list part
        cdef Py_ssize_t i
        for key in keys:
            if type(key) is tuple:
                return None
            if self.count == 0:
                raise ValueError("there are no nodes that keys could belong to")
            i = self.best(key)
            part = parts[i]
            if part is None:
                part = parts[i] = result.setdefault(self.nodes[i], [])
            part.append(key)
        return result

    cdef Py_ssize_t best(self, object key) except -1:
        """The index of the node that `key` belongs to; there is at least one node."""
        raise NotImplementedError


cdef class RendezvousTable(NodeTable):
    """An immutable set of nodes that tells which of them a key belongs to.

    `nodes` are str (`TypeError` otherwise).  A str counts as the text that it is, whatever its
    class makes of it, since that text is sent.  Other keys may be anything: they count as Python
    formats them, so that ``b"k"`` is placed as ``"b'k'"``.
    """

    cdef tuple names
    cdef Prefix *prefixes

    def __cinit__(self, nodes):
        cdef Prefix start
        cdef Py_ssize_t i
        start.state = start.left = start.shift = start.length = 0
        self.names = tuple([str(node) for node in self.nodes])
        self.prefixes = <Prefix *>PyMem_Calloc(self.count, sizeof(Prefix))
        if self.prefixes == NULL:
            raise MemoryError()
        for i in range(self.count):
            self.prefixes[i] = absorb_str(start, f"{self.nodes[i]}-")

    def __dealloc__(self):
        PyMem_Free(self.prefixes)

    def __reduce__(self):
        return restored.rendezvous_table, (self.nodes,)

    cdef Py_ssize_t best(self, object key) except -1:
        cdef uint8_t stack[STACK_SIZE]
        cdef Text text
        cdef uint32_t score, tail
        cdef uint32_t high = 0
        cdef Py_ssize_t best = 0
        cdef Py_ssize_t i
        if isinstance(key, str):
            open_text(key, stack, &text)
        elif not (isinstance(key, bytes) and open_plain_bytes(key, stack, &text)):
            key = text_of(key)
            open_text(key, stack, &text)
        try:
            tail = tail_of(text.data, text.size)
            for i in range(self.count):
                score = hash_after(&self.prefixes[i], text.data, text.size, tail)
                if i == 0 or score > high or (score == high and self.names[i] > self.names[best]):
                    high = score
                    best = i
        finally:
            PyMem_Free(text.owned)
        return best
