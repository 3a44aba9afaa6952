# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, embedsignature=False
"""The usual command's way through pool and exchange, compiled: no Python frame between.

Whatever is not usual is left to `calls.py` and `pool.py`, where the contracts are written down: no
idle connection, another kind of socket, a connection that went stale, any exception, a result that
is not final.  It must never do anything in another way than they do.
"""

from cpython.bytes cimport PyBytes_GET_SIZE
from cpython.dict cimport PyDict_Contains, PyDict_SetItem
from cpython.list cimport PyList_Append, PyList_GET_ITEM, PyList_GET_SIZE
from cpython.ref cimport Py_DECREF

import threading

from cymemcache.core.exchange_c cimport PlainExchange
from cymemcache.core.replies import (
    DOUBTFUL_SIZE as _DOUBTFUL_SIZE,
    GET_MANY as _GET_MANY,
    GETS as _GETS,
    GETS_MANY as _GETS_MANY,
    MISS as _MISS,
    STALE as _STALE,
)

cdef extern from "Python.h":
    Py_ssize_t PyDict_GET_SIZE(object dictionary)
    void Py_SET_SIZE(object sequence, Py_ssize_t size)

cdef object STALE = _STALE
cdef object MISS = _MISS
cdef Py_ssize_t DOUBTFUL_SIZE = _DOUBTFUL_SIZE
# Of the kinds, those up to GETS fetch one key, those up to GETS_MANY several.
cdef int GETS = _GETS
cdef int GETS_MANY = _GETS_MANY
if not 1 <= _GETS < _GET_MANY < _GETS_MANY:
    raise AssertionError("kinds of replies are numbered otherwise")


cdef class Cells:
    """What `counters.Tally` counts in; see there."""


cdef class IdleConnections:
    """What `pool.ConnectionPool` keeps of its idle connections; see there."""

    def __cinit__(self, *args, **kwargs):
        self._idle = []
        self._held = {}
        self._waiting = []
        self._reserved = []
        self._settling = []
        self._running = {}

    cdef PlainExchange taken(self):
        """The connection to use next where that is a plain one, None otherwise."""
        cdef object connection
        cdef Py_ssize_t count
        if PyList_GET_SIZE(self._reserved):
            return None
        if PyDict_GET_SIZE(self._held):
            thread = threading.get_ident()
            connection = self._held.pop(thread, None)
            if connection is not None:
                if self.usual(connection):
                    return <PlainExchange>connection
                self._held[thread] = connection
                return None
        if PyList_GET_SIZE(self._settling):
            return None
        count = PyList_GET_SIZE(self._idle)
        if count > 0 and self.usual(<object>PyList_GET_ITEM(self._idle, count - 1)):
            # A pop that keeps the list's memory, for the append that follows.
            connection = <object>PyList_GET_ITEM(self._idle, count - 1)
            Py_SET_SIZE(self._idle, count - 1)
            Py_DECREF(connection)  # the list's
            return <PlainExchange>connection
        return None

    cdef bint usual(self, object connection) noexcept:
        return (
            type(connection) is PlainExchange
            and (<PlainExchange>connection).generation == self._generation
        )

    cdef int given(self, PlainExchange connection) except -1:
        PyList_Append(self._idle, connection)
        return self.tidied(connection)

    cdef int keep(self, PlainExchange connection) except -1:
        """What `hold` does."""
        thread = threading.get_ident()
        if PyDict_Contains(self._held, thread) or not PyDict_Contains(self._running, thread):
            try:
                self._ready_to_hold()
            except BaseException:
                closed(connection)
                raise
        PyDict_SetItem(self._held, thread, connection)
        return self.tidied(connection)

    cdef int tidied(self, PlainExchange connection) except -1:
        if (
            connection.generation != self._generation
            or <double>connection.used_at > self._expire_at * 1e9
            or PyList_GET_SIZE(self._waiting)
        ):
            self._tidy(connection)
        return 0


cdef int closed(PlainExchange connection) except -1:
    """Close `connection`, of which an interruption may have kept those who should have done so."""
    if connection.slot is not None:
        connection.discard()
    return 0


cdef int count_fetched(Cells tally, list keys, dict found, bint all_hit) except -1:
    """What `Tally.fetched` does, and one more command."""
    cdef Py_ssize_t asked = PyList_GET_SIZE(keys)
    cdef Py_ssize_t hits = asked
    if not all_hit:
        hits = 0
        for key in keys:  # whose own methods may change the list
            hits += PyDict_Contains(found, key)
    tally.commands += 1
    tally.hits += hits
    tally.misses += asked - hits
    return 0


cdef class PlainCalls:
    """The hooks `_call` and `_send` of a client over plain sockets; see `calls.Calls`."""

    def _call(
        self,
        int kind,
        bytes request not None,
        object keys=None,
        object default=None,
        object convert=None,
    ):
        cdef IdleConnections pool = self._pool
        cdef Cells tally = self._tally
        cdef PlainExchange connection
        cdef object result
        if pool is None or tally is None:
            raise AttributeError("_pool")
        connection = pool.taken()
        if connection is None:
            return self._call_any(kind, request, keys, default, convert)
        try:
            result = connection.run(request, kind, keys, MISS)
        except BaseException as error:
            try:
                return self._failed(connection, error, kind, request, keys, default, convert)
            finally:
                closed(connection)
        if result is STALE:
            connection.discard()
            return self._call_any(kind, request, keys, default, convert)
        pool.given(connection)
        if result is MISS and kind <= GETS:
            tally.commands += 1
            tally.misses += 1
            return default
        if convert is None:
            if type(result) is dict and kind <= GETS_MANY:
                count_fetched(
                    tally, keys, result, PyDict_GET_SIZE(result) == PyList_GET_SIZE(keys)
                )
                return result
            if (
                type(result) is bytes
                or result is None
                or type(result) is bool
                or type(result) is int
                or type(result) is str
                or type(result) is tuple
                or type(result) is list
            ):
                tally.commands += 1
                if kind <= GETS:
                    tally.hits += 1
                return result
        return self._finished(kind, result, keys, default, convert)

    def _send(self, bytes request not None, Py_ssize_t commands, object result):
        cdef IdleConnections pool = self._pool
        cdef Cells tally = self._tally
        cdef PlainExchange connection
        if pool is None or tally is None:
            raise AttributeError("_pool")
        if self._knows_version is not True or PyBytes_GET_SIZE(request) >= DOUBTFUL_SIZE:
            return self._send_any(request, commands, result)
        connection = pool.taken()
        if connection is None:
            return self._send_any(request, commands, result)
        try:
            sent = connection.transmit(request, commands)
        except BaseException as error:
            try:
                self._not_sent(error, connection)
            finally:
                closed(connection)
        if sent is STALE:
            connection.discard()
            return self._send_any(request, commands, result)
        pool.keep(connection)
        tally.commands += 1
        return result
