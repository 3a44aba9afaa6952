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

from cpython.buffer cimport (
    PyBUF_WRITABLE,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals, PyErr_SetFromErrno
from libc cimport errno as c_errno
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int64_t
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

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

    Not for two threads at once: whoever took the connection from the pool is its only user.
    """

    cdef readonly object sock
    cdef int fd
    cdef object parser
    cdef object get_buffer
    cdef object buffer_updated
    cdef object parse
    cdef object report
    cdef int64_t timeout_ns   # -1: none
    cdef int64_t used_at      # start of the last command
    cdef unsigned long forks
    cdef readonly object timeout
    #: noreply commands sent whose fate is not known yet
    cdef readonly Py_ssize_t unacknowledged
    #: whether anything of the reply to the last command was read
    cdef readonly bint received

    def __init__(self, sock, parser, timeout, report):
        self.sock = sock
        self.fd = sock.fileno()
        self.parser = parser
        self.get_buffer = parser.get_buffer
        self.buffer_updated = parser.buffer_updated
        self.parse = parser.parse
        self.report = report
        self.timeout = timeout
        self.timeout_ns = -1 if timeout is None else <int64_t>(timeout * 1e9)
        self.forks = cymc_forks
        self.used_at = monotonic()

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
        cdef int64_t now = monotonic()
        cdef bytes data = request
        cdef bint barrier = False
        cdef Py_ssize_t sent, count, length
        cdef const char *text
        cdef int failed = 0
        cdef object buffer, result
        cdef Py_buffer view
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
        buffer = self.get_buffer()
        PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE)
        count = -1
        with nogil:
            sent = c_send(self.fd, text, length, MSG_NOSIGNAL | MSG_DONTWAIT)
            if sent == length:
                count = c_recv(self.fd, view.buf, view.len, 0)
            if sent < 0 or (sent == length and count < 0):
                failed = errno
        PyBuffer_Release(&view)
        if count > 0:
            self.received = True
            self.buffer_updated(count)
            if not barrier:
                result = self.parse(kind, request, keys, default)
                if result is not NEED_DATA:
                    if self.parser.pending and kind != RAW_KIND:
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
                    errors = self.parse(BARRIER, request)
                    if errors is not NEED_DATA:
                        barrier = False
                        self.acknowledge(errors)
                if not barrier and not answered:
                    result = self.parse(kind, request, keys, default)
                    answered = result is not NEED_DATA
                if answered:
                    if self.parser.pending and kind != RAW_KIND:
                        raise extra_bytes_error(request)
            if answered and sent == length:
                return result
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
                    self.parse(DRAIN, request)
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
        cdef Py_buffer view
        cdef Py_ssize_t count
        cdef int failed = 0
        cdef object buffer = self.get_buffer()
        PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE)
        with nogil:
            count = c_recv(self.fd, view.buf, view.len, MSG_DONTWAIT)
            if count < 0:
                failed = errno
        PyBuffer_Release(&view)
        if count > 0:
            self.received = True
            self.buffer_updated(count)
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
            self.report(commands, errors)
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
