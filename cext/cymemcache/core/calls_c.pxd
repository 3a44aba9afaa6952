# cython: language_level=3
"""What the fetches of a cluster may use of its clients without a Python call."""

from cymemcache.core.exchange_c cimport PlainExchange


cdef class Cells:
    cdef public Py_ssize_t commands
    cdef public Py_ssize_t hits
    cdef public Py_ssize_t misses
    cdef public Py_ssize_t retries
    cdef public Py_ssize_t reconnects
    cdef public Py_ssize_t evicted
    cdef public Py_ssize_t noreply_errors
    cdef public Py_ssize_t noreply_lost


cdef class IdleConnections:
    cdef public list _idle
    cdef public dict _held
    cdef public list _waiting
    cdef public list _reserved
    cdef public list _settling
    cdef public dict _running
    cdef public Py_ssize_t _generation
    cdef public double _expire_at

    cdef PlainExchange taken(self)
    cdef bint usual(self, object connection) noexcept
    # `give`
    cdef int given(self, PlainExchange connection) except -1
    # `hold`
    cdef int keep(self, PlainExchange connection) except -1
    cdef int tidied(self, PlainExchange connection) except -1


cdef class PlainCalls:
    cdef public IdleConnections _pool
    cdef public Cells _tally
    #: whether the server knows the barrier behind noreply commands; None: it was not asked yet
    cdef public object _knows_version


# Counts one more command that has fetched `keys`; `found` may hold other keys as well.
cdef int count_fetched(Cells tally, list keys, dict found, bint all_hit) except -1

cdef int closed(PlainExchange connection) except -1
