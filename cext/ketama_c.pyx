# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, embedsignature=False
"""Consistent hashing on a ring, compiled: what libmemcached's ketama works out for a key.

The twin of `core/ketama_py.py`, where the rules are written down.  A table is never changed once it
is made, and a call keeps everything that it works with on its own stack, so any number of threads
may use one table.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.math cimport fabs, sin
from libc.stdint cimport int8_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from cymemcache.core import restored
from cymemcache.core.rendezvous_c cimport NodeTable

cdef extern from "Python.h":
    bint PyUnicode_IS_ASCII "PyUnicode_IS_COMPACT_ASCII"(object text)
    void *PyUnicode_DATA(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)

cdef struct Point:
    uint32_t place
    uint32_t owner

# What MD5 adds in each of its 64 steps, and by how much it rotates: four amounts for each round.
cdef uint32_t[64] SINES
cdef const uint8_t *SHIFTS = [7, 12, 17, 22, 5, 9, 14, 20, 4, 11, 16, 23, 6, 10, 15, 21]

cdef int _step
for _step in range(64):
    SINES[_step] = <uint32_t>(fabs(sin(<double>(_step + 1))) * 4294967296.0)


cdef inline uint32_t word_at(const uint8_t *data) noexcept nogil:
    return (
        data[0] | (<uint32_t>data[1] << 8) | (<uint32_t>data[2] << 16) | (<uint32_t>data[3] << 24)
    )


cdef inline uint32_t rotated(uint32_t number, uint32_t shift) noexcept nogil:
    return (number << shift) | (number >> (32 - shift))


cdef inline void md5_block(uint32_t *state, const uint8_t *data) noexcept nogil:
    """`state` after 64 more bytes."""
    cdef uint32_t a = state[0]
    cdef uint32_t b = state[1]
    cdef uint32_t c = state[2]
    cdef uint32_t d = state[3]
    cdef uint32_t[16] words
    cdef uint32_t total
    cdef int step
    for step in range(16):
        words[step] = word_at(data + 4 * step)
    for step in range(16):
        total = words[step] + (d ^ (b & (c ^ d))) + a + SINES[step]
        a, d, c, b = d, c, b, b + rotated(total, SHIFTS[step & 3])
    for step in range(16, 32):
        total = words[(5 * step + 1) & 15] + (c ^ (d & (b ^ c))) + a + SINES[step]
        a, d, c, b = d, c, b, b + rotated(total, SHIFTS[4 + (step & 3)])
    for step in range(32, 48):
        total = words[(3 * step + 5) & 15] + (b ^ c ^ d) + a + SINES[step]
        a, d, c, b = d, c, b, b + rotated(total, SHIFTS[8 + (step & 3)])
    for step in range(48, 64):
        total = words[(7 * step) & 15] + (c ^ (b | ~d)) + a + SINES[step]
        a, d, c, b = d, c, b, b + rotated(total, SHIFTS[12 + (step & 3)])
    state[0] += a
    state[1] += b
    state[2] += c
    state[3] += d


cdef void md5_of(const uint8_t *data, Py_ssize_t size, uint32_t *state) noexcept nogil:
    """The digest of `size` bytes as the four words of `state`."""
    cdef uint8_t[128] tail
    cdef Py_ssize_t whole = size & ~<Py_ssize_t>63
    cdef Py_ssize_t left = size - whole
    cdef Py_ssize_t padded = 64 if left < 56 else 128
    cdef uint64_t bits = <uint64_t>size << 3
    cdef Py_ssize_t i
    state[0] = 0x67452301U
    state[1] = 0xEFCDAB89U
    state[2] = 0x98BADCFEU
    state[3] = 0x10325476U
    for i in range(0, whole, 64):
        md5_block(state, data + i)
    memset(tail, 0, padded)
    memcpy(tail, data + whole, left)
    tail[left] = 0x80
    for i in range(8):
        tail[padded - 8 + i] = <uint8_t>(bits >> (8 * i))
    for i in range(0, padded, 64):
        md5_block(state, tail + i)


cdef uint32_t jenkins(const uint8_t *data, Py_ssize_t size) noexcept nogil:
    cdef uint32_t state = 0
    cdef Py_ssize_t i
    for i in range(size):
        state += <uint32_t><int8_t>data[i]
        state += state << 10
        state ^= state >> 6
    state += state << 3
    state ^= state >> 11
    return state + (state << 15)


def one_at_a_time(bytes data not None):
    """Jenkins' one-at-a-time hash of `data`, with bytes that are signed, as for libmemcached."""
    return jenkins(<const uint8_t *>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))


def md5_words(bytes data not None):
    """The MD5 digest of `data` as four numbers, each read with its low byte first."""
    cdef uint32_t[4] state
    md5_of(<const uint8_t *>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), state)
    return state[0], state[1], state[2], state[3]


cdef class KetamaTable(NodeTable):
    """An immutable ring of nodes that tells which of them a key belongs to.

    `nodes` are str (`TypeError` otherwise).  `points` are pairs of a place on the ring and the
    index of the node that owns it; of those at the same place the lowest index counts.  `md5` tells
    whether a key's place is the first word of its MD5 or its one-at-a-time hash.  A str key counts
    as its UTF-8; keys that are neither str nor bytes count as Python formats them.

    Raises `ValueError` for a place or an index out of range, and for nodes without any point.
    """

    cdef Point *ring
    cdef Py_ssize_t size
    cdef bint md5

    def __cinit__(self, nodes, points, md5):
        cdef list ring = sorted(points)
        cdef Py_ssize_t i
        self.md5 = md5
        self.size = len(ring)
        if self.count and not ring:
            raise ValueError("nodes need points")
        self.ring = <Point *>PyMem_Malloc(self.size * sizeof(Point))
        if self.ring == NULL:
            raise MemoryError()
        for i, (place, owner) in enumerate(ring):
            if not 0 <= place <= 0xFFFFFFFF or not 0 <= owner < self.count:
                raise ValueError(f"there can be no such point: {(place, owner)}")
            self.ring[i].place = place
            self.ring[i].owner = owner
            if self.ring[i].owner >= self.count:  # a class of its own has compared it otherwise
                raise ValueError(f"there can be no such point: {(place, owner)}")

    def __dealloc__(self):
        PyMem_Free(self.ring)

    def __reduce__(self):
        cdef Py_ssize_t i
        points = tuple([(self.ring[i].place, self.ring[i].owner) for i in range(self.size)])
        return restored.ketama_table, (self.nodes, points, self.md5)

    cdef Py_ssize_t best(self, object key) except -1:
        cdef uint32_t place
        cdef Py_ssize_t low = 0
        cdef Py_ssize_t high = self.size
        cdef Py_ssize_t middle
        if isinstance(key, str) and PyUnicode_IS_ASCII(key):
            place = self.place_of(<const uint8_t *>PyUnicode_DATA(key), PyUnicode_GET_LENGTH(key))
        else:
            if not isinstance(key, bytes):
                key = str.encode(
                    key if isinstance(key, str) else format(key), "utf-8", "surrogatepass"
                )
            place = self.place_of(
                <const uint8_t *>PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key)
            )
        while low < high:
            middle = (low + high) >> 1
            if self.ring[middle].place < place:
                low = middle + 1
            else:
                high = middle
        return self.ring[0 if low == self.size else low].owner

    cdef inline uint32_t place_of(self, const uint8_t *data, Py_ssize_t size) noexcept:
        cdef uint32_t[4] state
        if not self.md5:
            return jenkins(data, size)
        md5_of(data, size, state)
        return state[0]
