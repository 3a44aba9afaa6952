# cython: language_level=3
"""What the calls, compiled beside the exchange, may use of it without a Python call."""

from libc.stdint cimport int64_t

from cymemcache.core.parser_c cimport ReplyStream


cdef class PlainExchange:
    cdef readonly object sock
    cdef int fd
    cdef ReplyStream parser
    cdef object record
    cdef int64_t timeout_ns   # -1: none
    cdef int64_t used_at      # start of the last command, in nanoseconds
    cdef unsigned long forks
    cdef readonly object timeout
    #: noreply commands sent whose fate is not known yet
    cdef readonly Py_ssize_t unacknowledged
    cdef bint storing         # there are storage commands among them
    #: whether anything of the reply to the last command was read
    cdef readonly bint received
    cdef bint answered        # anything was ever read
    #: of the pool, when this connection was dialled
    cdef public Py_ssize_t generation
    #: of the pool: permission to have this connection, given back with its end
    cdef public object slot
    cdef int64_t idle_most    # nanoseconds after which it is of no use; -1: any time
    cdef int64_t idle_look    # after which it is looked at before it is used

    # The command under way, where it takes more than one send and one receive.
    cdef bytes data           # what is sent, a barrier before it or not
    cdef Py_ssize_t sent
    cdef bint barrier         # its answer has not come yet
    cdef bytes request
    cdef int kind
    cdef object keys
    cdef object default
    cdef object result        # NEED_DATA until the reply has come

    cdef object run(self, bytes request, int kind, object keys, object default)
    cdef object transmit(self, bytes request, Py_ssize_t commands)
    cdef int open(self, bytes request, Py_ssize_t commands) except -1
    cdef bint is_stale(self, int64_t now) except -1
    cdef bint is_too_old(self, int64_t idle) except -1
    cdef int go_on(
        self,
        bytes data,
        Py_ssize_t sent,
        bint barrier,
        bytes request,
        int kind,
        object keys,
        object default,
    ) except -1
    cdef bint is_stale_now(self) except -1
    cdef object begun(self, bytes request, int kind, object keys, object default)
    cdef object rest(self, int64_t began, bint look)
    cpdef object step(self, int ready)
    cdef object parsed(self)
    cdef int wait(self, int64_t began) except -1
    cpdef short events(self) noexcept
    cdef Py_ssize_t send_some(self, bytes data, Py_ssize_t sent) except -1
    cdef bint receive_some(self) except -1
    cdef object owned(self, object error)
    cdef int check_signals(self) except -1
    cdef int acknowledge(self, list errors) except -1
    cdef bint is_fresh(self) except -1


# Gives every one of `exchanges` whose outcome is `NEED_DATA` another, within `timeout` seconds.
cdef int gathered(list exchanges, object timeout, list outcomes) except -1
