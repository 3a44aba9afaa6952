# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, embedsignature=False
"""The exchange of request and reply over a plain POSIX socket, in one compiled call.

The fast one of two ways to do the same thing; the other, for every kind of socket, is
`cymemcache/exchange.py`, where the contract is written down.  The usual command costs two system
calls, one send and one receive, with the GIL released once around both: the receive relies on the
descriptor's SO_RCVTIMEO, everything beyond it polls with the time that is left of the operation.
It must never leave the caller with a connection that looks usable after an error: errors raise,
and the connection closes.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals, PyErr_SetFromErrno
from libc cimport errno as c_errno
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int64_t
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from cymemcache.core.parser_c cimport ReplyStream

from cymemcache.core.replies import (
    BARRIER,
    DRAIN,
    NEED_DATA,
    RAW,
    STALE,
    closed_error,
    extra_bytes_error,
    fork_error,
    timeout_error,
)

cdef extern from "sys/types.h":
    ctypedef long ssize_t

cdef extern from "sys/socket.h" nogil:
    enum:
        MSG_DONTWAIT
        MSG_PEEK
    ssize_t c_send "send"(int fd, const void *data, size_t length, int flags)
    ssize_t c_recv "recv"(int fd, void *data, size_t length, int flags)

cdef extern from *:
    """
    #include <sys/socket.h>
    /* macOS has no such flag; Python has SIGPIPE ignored all the same. */
    #ifndef MSG_NOSIGNAL
    #define MSG_NOSIGNAL 0
    #endif
    #include <poll.h>
    #include <pthread.h>
    static volatile unsigned long cymc_forks = 0;
    static void cymc_forked(void) { cymc_forks++; }
    static int cymc_watch_forks(void) { return pthread_atfork(NULL, NULL, cymc_forked); }
    """
    enum:
        MSG_NOSIGNAL
    unsigned long cymc_forks
    int cymc_watch_forks()

cdef extern from "poll.h" nogil:
    struct pollfd:
        int fd
        short events
        short revents
    enum:
        POLLIN
        POLLOUT
    int c_poll "poll"(pollfd *fds, unsigned long count, int timeout)

if cymc_watch_forks() != 0:
    raise MemoryError("pthread_atfork")

cdef int RAW_KIND = RAW
cdef bytes BARRIER_REQUEST = b"version\r\n"
cdef int64_t SECOND = 1000000000


cdef inline int64_t monotonic() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <int64_t>now.tv_sec * SECOND + now.tv_nsec


def fork_count():
    """How many forks, made in Python or in C, lie between this process and the first."""
    return cymc_forks


cdef class PlainExchange:
    """Request and reply over one plain socket, in blocking mode with SO_RCVTIMEO set.

    Not for two threads at once: whoever took it from the pool is its only user.
    """

    def __cinit__(self, sock, ReplyStream parser not None, timeout, record):
        self.sock = sock
        self.fd = sock.fileno()
        self.parser = parser
        self.record = record
        self.timeout = timeout
        self.timeout_ns = -1 if timeout is None else <int64_t>(timeout * 1e9)
        self.forks = cymc_forks
        self.used_at = monotonic()

    def close(self):
        """Close the descriptor.  What was sent before still reaches the server."""
        try:
            self.sock.close()
        except Exception:  # nothing that a caller could do about it
            pass

    def discard(self):
        """Close after a failure: noreply commands not acknowledged may be lost."""
        self.close()
        if self.unacknowledged and self.forks == cymc_forks:
            self.record.report_lost(self.unacknowledged)

    def release(self):
        """Leave the socket to another exchange; this one is of no use any more."""
        self.sock = None
        self.fd = -1

    def __del__(self):
        # An interruption can lose a connection between two statements of its holder.
        if self.sock is not None:
            self.close()

    @property
    def used_at_seconds(self):
        """When the last command began, on the clock of `time.monotonic`."""
        return self.used_at / 1e9

    def forked(self):
        """Whether this process is a child of the one that dialled."""
        return self.forks != cymc_forks

    def call(self, bytes request not None, int kind, object keys=None, object default=None):
        """Send `request` and return what the parser makes of the reply.

        `STALE` where the connection turned out unusable before anything was sent.
        """
        return self.run(request, kind, keys, default)

    cdef object run(self, bytes request, int kind, object keys, object default):
        cdef int64_t now = monotonic()
        cdef bytes data = request
        cdef bint barrier = False
        cdef Py_ssize_t sent, count, length, room_size
        cdef const char *text
        cdef char *room
        cdef int failed = 0
        cdef object result
        if self.forks != cymc_forks or (
            now - self.used_at > SECOND and not self.is_fresh()
        ):
            return STALE
        self.used_at = now
        self.received = False
        if self.unacknowledged > 0:
            data = BARRIER_REQUEST + request
            barrier = True
        text = PyBytes_AS_STRING(data)
        length = PyBytes_GET_SIZE(data)
        self.parser.lend(&room, &room_size)
        count = -1
        with nogil:
            sent = c_send(self.fd, text, length, MSG_NOSIGNAL | MSG_DONTWAIT)
            if sent == length:
                count = c_recv(self.fd, room, room_size, 0)
            if sent < 0 or (sent == length and count < 0):
                failed = errno
        self.parser.take_back(count if count > 0 else 0)
        if count > 0:
            self.received = True
            if not barrier:
                result = self.parser.reply(kind, request, keys, default)
                if result is not NEED_DATA:
                    if kind != RAW_KIND and self.parser.waiting():
                        raise extra_bytes_error(request)
                    return result
        elif count == 0:
            raise closed_error()
        elif failed == EINTR:
            self.check_signals()
        elif failed != 0 and failed != EAGAIN:
            raise_errno(failed)
        if sent < 0:
            sent = 0
        return self.rest(data, sent, now, barrier, count > 0, request, kind, keys, default)

    cdef object rest(
        self,
        bytes data,
        Py_ssize_t sent,
        int64_t began,
        bint barrier,
        bint look,
        bytes request,
        int kind,
        object keys,
        object default,
    ):
        """All that the first send and receive did not do, in step."""
        cdef Py_ssize_t length = PyBytes_GET_SIZE(data)
        cdef object result = NEED_DATA
        cdef bint answered = False
        cdef int ready
        while True:
            if look:
                if barrier:
                    errors = self.parser.reply(BARRIER, request, None, None)
                    if errors is not NEED_DATA:
                        barrier = False
                        self.acknowledge(errors)
                if not barrier and not answered:
                    result = self.parser.reply(kind, request, keys, default)
                    answered = result is not NEED_DATA
                if answered:
                    if kind != RAW_KIND and self.parser.waiting():
                        raise extra_bytes_error(request)
            if answered and sent == length:
                return result
            if self.forks != cymc_forks:  # by a handler that ran while the reply was parsed
                raise fork_error()
            ready = self.wait(began, sent < length)
            # First what has come: a server that gives up says why before it closes.
            look = False
            if ready & ~POLLOUT:
                look = self.receive_some()
            elif sent < length:
                sent += self.send_some(data, sent)

    def send(self, bytes request not None, Py_ssize_t commands):
        """Send `commands` noreply commands; True, or `STALE` before anything was sent.

        Whatever a server answers all the same is read and set aside while it sends.
        """
        return self.transmit(request, commands)

    cdef object transmit(self, bytes request, Py_ssize_t commands):
        cdef int64_t now = monotonic()
        cdef Py_ssize_t sent, length
        cdef const char *text = PyBytes_AS_STRING(request)
        cdef int ready, failed = 0
        if self.forks != cymc_forks or (
            now - self.used_at > SECOND and not self.is_fresh()
        ):
            return STALE
        self.used_at = now
        self.unacknowledged += commands
        length = PyBytes_GET_SIZE(request)
        with nogil:
            sent = c_send(self.fd, text, length, MSG_NOSIGNAL | MSG_DONTWAIT)
            if sent < 0:
                failed = errno
        if sent == length:
            return True
        if failed == EINTR:
            self.check_signals()
        elif failed != 0 and failed != EAGAIN:
            raise_errno(failed)
        if sent < 0:
            sent = 0
        while sent < length:
            ready = self.wait(now, True)
            if ready & ~POLLOUT:
                if self.receive_some():
                    self.parser.reply(DRAIN, request, None, None)
            else:
                sent += self.send_some(request, sent)
        return True

    cdef int wait(self, int64_t began, bint sending) except -1:
        """Poll until the socket can do something, at most for the rest of the operation's time."""
        cdef pollfd waiting
        cdef int64_t left
        cdef int milliseconds, count, failed
        waiting.fd = self.fd
        waiting.events = POLLIN | (POLLOUT if sending else 0)
        while True:
            milliseconds = -1
            if self.timeout_ns >= 0:
                left = began + self.timeout_ns - monotonic()
                if left <= 0:
                    raise timeout_error(self.timeout)
                # Rounded up: a poll that ends early would only be asked again.
                left = (left + 999999) // 1000000
                milliseconds = <int>left if left < 86400000 else 86400000
            waiting.revents = 0
            failed = 0
            with nogil:
                count = c_poll(&waiting, 1, milliseconds)
                if count < 0:
                    failed = errno
            if count > 0:
                return waiting.revents
            if failed == EINTR:
                self.check_signals()
            elif failed != 0:
                raise_errno(failed)

    cdef Py_ssize_t send_some(self, bytes data, Py_ssize_t sent) except -1:
        cdef const char *text = PyBytes_AS_STRING(data) + sent
        cdef Py_ssize_t length = PyBytes_GET_SIZE(data) - sent
        cdef Py_ssize_t count
        cdef int failed = 0
        with nogil:
            count = c_send(self.fd, text, length, MSG_NOSIGNAL | MSG_DONTWAIT)
            if count < 0:
                failed = errno
        if count >= 0:
            return count
        if failed == EINTR:
            self.check_signals()
        elif failed != EAGAIN:
            raise_errno(failed)
        return 0

    cdef bint receive_some(self) except -1:
        """Receive what is there; false where nothing was."""
        cdef char *room
        cdef Py_ssize_t count, size
        cdef int failed = 0
        self.parser.lend(&room, &size)
        with nogil:
            count = c_recv(self.fd, room, size, MSG_DONTWAIT)
            if count < 0:
                failed = errno
        self.parser.take_back(count if count > 0 else 0)
        if count > 0:
            self.received = True
            return True
        if count == 0:
            raise closed_error()
        if failed == EINTR:
            self.check_signals()
        elif failed != EAGAIN:
            raise_errno(failed)
        return False

    cdef int check_signals(self) except -1:
        """Run pending signal handlers; a handler may raise, and may fork."""
        PyErr_CheckSignals()
        if self.forks != cymc_forks:
            raise fork_error()
        return 0

    cdef int acknowledge(self, list errors) except -1:
        cdef Py_ssize_t commands = self.unacknowledged
        self.unacknowledged = 0
        if errors:
            self.record.report(commands, errors)
        return 0

    cdef bint is_fresh(self) except -1:
        """Neither the end of the stream nor anything to read: nothing is owed to us.

        Unacknowledged noreply commands may have been answered, so there bytes are no sign.
        """
        cdef char byte
        cdef Py_ssize_t count
        cdef int failed
        count = c_recv(self.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT)
        if count < 0:
            failed = errno
            return failed == EAGAIN
        return count > 0 and self.unacknowledged > 0


cdef int raise_errno(int number) except -1:
    c_errno.errno = number
    PyErr_SetFromErrno(OSError)
    return -1
