# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, embedsignature=False
"""The exchange of request and reply over a plain POSIX socket, in one compiled call.

The fast one of two ways to do the same thing; the other, for every kind of socket, is
`cymemcache/exchange.py`, where the contract is written down.  The usual command costs two system
calls, one send and one receive, with the GIL released once around both: the receive relies on the
descriptor's SO_RCVTIMEO, everything beyond it polls with the time that is left of the operation.
No send waits: what may find no room goes out with the descriptor set so, since not every system
minds MSG_DONTWAIT (macOS does not), and a small one is bounded by SO_SNDTIMEO all the same.
It must never leave the caller with a connection that looks usable after an error: errors raise,
and the connection closes.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.exc cimport PyErr_CheckSignals
from cpython.list cimport PyList_GET_SIZE
from cpython.object cimport PyObject
from libc.errno cimport EAGAIN, EINTR, errno
from libc.math cimport INFINITY
from libc.stdint cimport int64_t
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

import _socket
from os import strerror

from cymemcache.core.parser_c cimport ReplyStream

from cymemcache.core.replies import (
    BARRIER,
    BARRIER_REQUEST as _BARRIER_REQUEST,
    DRAIN,
    NEED_DATA as _NEED_DATA,
    NOREPLY as _NOREPLY,
    RAW,
    STALE as _STALE,
    Failed,
    closed_error,
    extra_bytes_error,
    fork_error,
    timeout_error,
)
from cymemcache.interruptions import is_failure, is_interruption, own

cdef extern from "Python.h":
    bint PyObject_TypeCheck(object thing, type kind)

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
    #include <errno.h>
    #include <sys/ioctl.h>
    /* macOS has an option of the socket in its place. */
    #ifndef MSG_NOSIGNAL
    #define MSG_NOSIGNAL 0
    #endif
    static void cymc_prepare(int fd) {
    #ifdef SO_NOSIGPIPE
        int on = 1;
        setsockopt(fd, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof(on));
    #endif
        (void)fd;
    }
    /* What a full buffer can be expected of: elsewhere than on Linux a send may wait all the same
       with MSG_DONTWAIT, as on macOS, and then only SO_SNDTIMEO bounds it. */
    #ifdef __linux__
    #define CYMC_UNREAD_MOST 500
    #else
    #define CYMC_UNREAD_MOST 0
    #endif
    /* A send that does not wait, wherever it is: not by its flags, but by the descriptor's. */
    static ssize_t cymc_send_now(int fd, const void *data, size_t length) {
        int on = 1, off = 0, failed;
        ssize_t count;
        if (ioctl(fd, FIONBIO, &on) < 0)
            return -1;
        count = send(fd, data, length, MSG_NOSIGNAL | MSG_DONTWAIT);
        failed = errno;
        ioctl(fd, FIONBIO, &off);
        errno = failed;
        return count;
    }
    #include <poll.h>
    #include <pthread.h>
    static volatile unsigned long cymc_forks = 0;
    static void cymc_forked(void) { cymc_forks++; }
    static int cymc_watch_forks(void) { return pthread_atfork(NULL, NULL, cymc_forked); }
    """
    enum:
        MSG_NOSIGNAL
        CYMC_UNREAD_MOST
    void cymc_prepare(int fd)
    ssize_t cymc_send_now(int fd, const void *data, size_t length) nogil
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

cdef object NEED_DATA = _NEED_DATA
cdef object STALE = _STALE
cdef int RAW_KIND = RAW
cdef int NOREPLY = _NOREPLY
cdef bytes BARRIER_REQUEST = _BARRIER_REQUEST
cdef int64_t SECOND = 1000000000

cdef enum:
    # Bytes that find room in the emptiest of buffers.
    SENT_AT_ONCE = 16384


cdef inline int64_t monotonic() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <int64_t>now.tv_sec * SECOND + now.tv_nsec


def fork_count():
    """How many forks, made in Python or in C, lie between this process and the first."""
    return cymc_forks


# Where the object of a plain socket keeps its descriptor.  CPython tells nobody, so it is tried out
# on a socket; if it ever moves, fileno() is asked, which takes longer.
cdef struct PlainSocket:
    PyObject head
    int descriptor

_probe = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
cdef bint is_as_expected = (<PlainSocket *><PyObject *>_probe).descriptor == _probe.fileno()
_probe.close()


cdef inline int descriptor_of(object sock) except -2:
    if is_as_expected:
        return (<PlainSocket *><PyObject *>sock).descriptor
    return sock.fileno()


cdef inline Py_ssize_t sent_now(
    int fd, const char *text, Py_ssize_t length, Py_ssize_t unacknowledged
) noexcept nogil:
    """What `send` gives, without waiting where there may be no room."""
    if length <= SENT_AT_ONCE and unacknowledged <= CYMC_UNREAD_MOST:
        return c_send(fd, text, length, MSG_NOSIGNAL | MSG_DONTWAIT)
    return cymc_send_now(fd, text, length)


cdef int polled(pollfd *sockets, unsigned long count, int64_t left) except -1:
    """How many of `sockets` are ready within `left` nanoseconds (-1: any time).

    0 also where a signal came in between: let its handlers run, and ask again.
    """
    cdef int milliseconds = -1
    cdef int ready, failed = 0
    if left >= 0:
        # Rounded up: a poll that ends early would only be asked again.
        left = (left + 999999) // 1000000
        milliseconds = <int>left if left < 86400000 else 86400000
    with nogil:
        ready = c_poll(sockets, count, milliseconds)
        if ready < 0:
            failed = errno
    if ready >= 0:
        return ready
    if failed != EINTR:
        raise own(OSError(failed, strerror(failed)))
    return 0


cdef class PlainExchange:
    """Request and reply over one plain socket, in blocking mode with SO_RCVTIMEO set.

    Not for two threads at once: whoever took it from the pool is its only user.
    """

    def __cinit__(self, sock, ReplyStream parser not None, timeout, record):
        if not PyObject_TypeCheck(sock, _socket.socket):
            raise TypeError(f"not a socket: {sock!r}")  # its memory is read: `descriptor_of`
        self.sock = sock
        self.fd = sock.fileno()
        cymc_prepare(self.fd)
        self.parser = parser
        self.record = record
        self.timeout = timeout
        self.timeout_ns = -1 if timeout is None else <int64_t>(timeout * 1e9)
        self.forks = cymc_forks
        self.used_at = monotonic()
        self.idle_most = -1
        self.idle_look = SECOND

    def close(self):
        """Close the descriptor.  What was sent before still reaches the server."""
        self.unacknowledged = 0
        try:
            self.sock.close()
        except Exception as error:
            if is_interruption(error):
                raise
            # Of the socket: nothing that a caller could do about it.
        finally:
            if self.slot is not None:
                try:
                    self.slot.end()
                except BaseException:
                    # It was interrupted, and frames of earlier commands may keep this connection.
                    self.slot.end()
                    raise
                finally:
                    self.slot = None

    def discard(self):
        """Close after a failure: noreply commands not acknowledged may be lost."""
        cdef Py_ssize_t lost = self.unacknowledged
        try:
            self.close()
        finally:  # an interruption of closing loses none of the count
            if self.forks == cymc_forks:
                self.record.disconnected()
                if lost:
                    self.record.report_lost(lost)

    def expire(self):
        """Close, since nobody has used it for too long."""
        self.record.expired()
        self.close()

    def release(self):
        """Leave the socket to another exchange; this one is of no use any more."""
        self.sock = None
        self.fd = -1

    def __del__(self):
        # An interruption can lose a connection between two statements of its holder.
        cdef Py_ssize_t lost = self.unacknowledged
        # What is closed is left alone: Python drops what an interruption raises in here.
        if self.sock is not None and (
            self.slot is not None or descriptor_of(self.sock) == self.fd
        ):
            try:
                self.close()
            finally:
                if lost and self.forks == cymc_forks:
                    self.record.count_lost(lost)

    @property
    def used_at_seconds(self):
        """When the last command began, on the clock of `time.monotonic`."""
        return self.used_at / 1e9

    @used_at_seconds.setter
    def used_at_seconds(self, double seconds):
        self.used_at = <int64_t>(seconds * 1e9)

    @property
    def idle_seconds(self):
        """After which it is of no use any more, if nobody used it."""
        return INFINITY if self.idle_most < 0 else self.idle_most / 1e9

    @idle_seconds.setter
    def idle_seconds(self, double seconds):
        self.idle_most = -1 if seconds == INFINITY else <int64_t>(seconds * 1e9)
        self.idle_look = SECOND if self.idle_most < 0 else min(SECOND, self.idle_most)

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
        if self.is_stale(now):
            return STALE
        if self.unacknowledged > 0:
            data = BARRIER_REQUEST + request
            barrier = True
        text = PyBytes_AS_STRING(data)
        length = PyBytes_GET_SIZE(data)
        self.parser.lend(&room, &room_size)
        count = -1
        with nogil:
            sent = sent_now(self.fd, text, length, self.unacknowledged)
            if sent == length:
                count = c_recv(self.fd, room, room_size, 0)
            if sent < 0 or (sent == length and count < 0):
                failed = errno
        self.parser.take_back(count if count > 0 else 0)
        if count > 0:
            self.received = self.answered = True
            if not barrier:
                result = self.parser.reply(kind, request, keys, default)
                if result is not NEED_DATA:
                    if kind != RAW_KIND and self.parser.waiting():
                        raise extra_bytes_error(request)
                    return result
        elif count == 0:
            raise self.owned(closed_error())
        elif failed == EINTR:
            self.check_signals()
        elif failed != 0 and failed != EAGAIN:
            raise self.owned(OSError(failed, strerror(failed)))
        if sent < 0:
            sent = 0
        self.go_on(data, sent, barrier, request, kind, keys, default)
        return self.rest(now, count > 0)

    def send(self, bytes request not None, Py_ssize_t commands):
        """Send `commands` noreply commands; True, or `STALE` before anything was sent.

        Whatever a server answers all the same is read and set aside while it sends.
        """
        return self.transmit(request, commands)

    cdef object transmit(self, bytes request, Py_ssize_t commands):
        cdef int64_t now = monotonic()
        cdef Py_ssize_t sent
        if self.is_stale(now):
            return STALE
        self.open(request, commands)
        sent = self.send_some(request, 0)
        if sent == PyBytes_GET_SIZE(request):
            return True
        self.go_on(request, sent, False, request, NOREPLY, None, None)
        return self.rest(now, False)

    cdef int open(self, bytes request, Py_ssize_t commands) except -1:
        """`commands` more whose fate is not known."""
        cdef char first
        self.unacknowledged += commands
        if commands > 0 and PyBytes_GET_SIZE(request) > 0:
            # set, add, append, replace, prepend, cas: no other has a value that can be executed.
            first = PyBytes_AS_STRING(request)[0]
            if first in (c"s", c"a", c"r", c"p", c"c"):
                self.storing = True
        return 0

    cdef bint is_stale(self, int64_t now) except -1:
        """Whether the connection is of no use for a command that begins `now`."""
        if (
            self.forks != cymc_forks
            or self.fd < 0
            or descriptor_of(self.sock) != self.fd  # closed by hand: the number may be another's
            or (now - self.used_at > self.idle_look and self.is_too_old(now - self.used_at))
        ):
            return True
        self.used_at = now
        self.received = False
        return False

    cdef bint is_too_old(self, int64_t idle) except -1:
        """Whether the connection is of no use after being idle for so many nanoseconds."""
        if 0 <= self.idle_most < idle:
            self.unacknowledged = 0  # done long ago, or nobody will ever know
            self.record.expired()
            return True
        return idle > SECOND and not self.is_fresh()

    # -- a command in several steps ------------------------------------------------------------

    def begin(self, bytes request not None, int kind, object keys=None):
        """Send what can be sent of `request` at once; `step` (or `gather`) does the rest.

        For noreply commands `kind` is `NOREPLY` and `keys` their number.  `NEED_DATA`, or the
        result where that was all, or `STALE` where the connection turned out unusable before
        anything was sent.
        """
        if self.is_stale_now():
            return STALE
        return self.begun(request, kind, keys, None)

    cdef bint is_stale_now(self) except -1:
        return self.is_stale(monotonic())

    cdef object begun(self, bytes request, int kind, object keys, object default):
        """What `begin` does on a connection that is not stale."""
        cdef bytes data = request
        cdef bint barrier = False
        if kind == NOREPLY:
            self.open(request, keys)
        elif self.unacknowledged > 0:
            data = BARRIER_REQUEST + request
            barrier = True
        self.go_on(data, 0, barrier, request, kind, keys, default)
        self.sent = self.send_some(data, 0)
        return NEED_DATA if kind != NOREPLY else self.parsed()

    cdef int go_on(
        self,
        bytes data,
        Py_ssize_t sent,
        bint barrier,
        bytes request,
        int kind,
        object keys,
        object default,
    ) except -1:
        """Keep what the steps of a command have to know."""
        self.data = data
        self.sent = sent
        self.barrier = barrier
        self.request = request
        self.kind = kind
        self.keys = keys
        self.default = default
        self.result = True if kind == NOREPLY else NEED_DATA
        return 0

    cdef object rest(self, int64_t began, bint look):
        """All that the first send and receive did not do, in step."""
        cdef object result = NEED_DATA
        if look:
            result = self.parsed()
        while result is NEED_DATA:
            result = self.step(self.wait(began))
        return result

    cpdef object step(self, int ready):
        """Send or receive what `ready` (of poll) allows; the result, or `NEED_DATA`."""
        if self.forks != cymc_forks:
            raise fork_error()
        # First what has come: a server that gives up says why before it closes.
        if ready & ~POLLOUT:
            if not self.receive_some():
                return NEED_DATA
        elif self.sent < PyBytes_GET_SIZE(self.data):
            self.sent += self.send_some(self.data, self.sent)
        return self.parsed()

    cdef object parsed(self):
        """The result, where all is sent and the whole reply has come; else `NEED_DATA`."""
        cdef object result
        if self.kind == NOREPLY:
            if self.parser.waiting():
                self.parser.reply(DRAIN, self.request, self.storing, None)
        else:
            if self.barrier:
                errors = self.parser.reply(BARRIER, self.request, self.storing, None)
                if errors is not NEED_DATA:
                    self.barrier = False
                    self.acknowledge(errors)
            if not self.barrier and self.result is NEED_DATA:
                self.result = self.parser.reply(
                    self.kind, self.request, self.keys, self.default
                )
            if (
                self.result is not NEED_DATA
                and self.kind != RAW_KIND
                and self.parser.waiting()
            ):
                raise extra_bytes_error(self.request)
        if self.result is NEED_DATA or self.sent < PyBytes_GET_SIZE(self.data):
            return NEED_DATA
        result = self.result
        self.data = self.request = None
        self.keys = self.default = self.result = None
        return result

    cdef int wait(self, int64_t began) except -1:
        """Poll until the socket can do something, at most for the rest of the operation's time."""
        cdef pollfd waiting
        cdef int64_t left = -1
        waiting.fd = self.fd
        waiting.events = self.events()
        while True:
            # Before each poll: a signal that came while no system call was under way ends none.
            self.check_signals()
            if self.timeout_ns >= 0:
                left = began + self.timeout_ns - monotonic()
                if left <= 0:
                    raise self.owned(timeout_error(self.timeout))
            if polled(&waiting, 1, left) > 0:
                return waiting.revents

    cpdef short events(self) noexcept:
        """What `step` needs, as poll has it."""
        return POLLIN | POLLOUT if self.sent < PyBytes_GET_SIZE(self.data) else POLLIN

    cdef Py_ssize_t send_some(self, bytes data, Py_ssize_t sent) except -1:
        cdef const char *text = PyBytes_AS_STRING(data) + sent
        cdef Py_ssize_t length = PyBytes_GET_SIZE(data) - sent
        cdef Py_ssize_t count
        cdef int failed = 0
        with nogil:
            count = sent_now(self.fd, text, length, self.unacknowledged)
            if count < 0:
                failed = errno
        if count >= 0:
            return count
        if failed == EINTR:
            self.check_signals()
        elif failed != EAGAIN:
            raise self.owned(OSError(failed, strerror(failed)))
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
            self.received = self.answered = True
            return True
        if count == 0:
            raise self.owned(closed_error())
        if failed == EINTR:
            self.check_signals()
        elif failed != EAGAIN:
            raise self.owned(OSError(failed, strerror(failed)))
        return False

    cdef object owned(self, object error):
        """`error`, which the socket or we have made, to be raised; another where a fork has."""
        return fork_error() if self.forks != cymc_forks else own(error, not self.answered)

    cdef int check_signals(self) except -1:
        """Run pending signal handlers; a handler may raise, and may fork."""
        PyErr_CheckSignals()
        if self.forks != cymc_forks:
            raise fork_error()
        return 0

    cdef int acknowledge(self, list errors) except -1:
        cdef Py_ssize_t commands = self.unacknowledged
        self.unacknowledged = 0
        self.storing = False
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


def gather(list exchanges not None, object timeout):
    """The outcomes of the commands begun on `exchanges`, within `timeout` seconds for all.

    In the order of `exchanges`: the result, or a `Failed` with the error after which that one must
    be discarded.  A slow or failing one costs the others nothing.
    """
    cdef list outcomes = [NEED_DATA] * len(exchanges)
    exchanges = list(exchanges)  # others may change theirs while we wait
    for exchange in exchanges:
        if (<PlainExchange?>exchange).data is None:
            raise ValueError("an exchange on which no command was begun")
    gathered(exchanges, timeout, outcomes)
    return outcomes


cdef int gathered(list exchanges, object timeout, list outcomes) except -1:
    """Give every one of `exchanges` whose outcome is `NEED_DATA` another."""
    cdef Py_ssize_t count = PyList_GET_SIZE(exchanges)
    cdef Py_ssize_t i, active
    cdef int64_t left = -1
    cdef int64_t until = -1
    cdef PlainExchange exchange
    cdef pollfd *sockets
    if timeout is not None:
        until = monotonic() + <int64_t>(timeout * 1e9)
    sockets = <pollfd *>PyMem_Calloc(count if count > 0 else 1, sizeof(pollfd))
    if sockets == NULL:
        raise MemoryError()
    try:
        while True:
            active = 0
            for i in range(count):
                if outcomes[i] is NEED_DATA:
                    exchange = <PlainExchange>exchanges[i]
                    sockets[i].fd = exchange.fd
                    sockets[i].events = exchange.events()
                    active += 1
                else:
                    sockets[i].fd = -1  # poll passes over it
            if active == 0:
                return 0
            if until >= 0:
                left = until - monotonic()
                if left <= 0:
                    for i in range(count):
                        if outcomes[i] is NEED_DATA:
                            outcomes[i] = Failed(own(timeout_error(timeout)))
                    return 0
            PyErr_CheckSignals()  # before each poll, as in `wait`
            if polled(sockets, count, left) == 0:
                continue
            for i in range(count):
                if outcomes[i] is NEED_DATA and sockets[i].revents:
                    exchange = <PlainExchange>exchanges[i]
                    try:
                        outcomes[i] = exchange.step(sockets[i].revents)
                    except Exception as error:
                        if not is_failure(error):
                            raise
                        outcomes[i] = Failed(error)
    finally:
        PyMem_Free(sockets)
