# cython: language_level=3
"""What the compiled exchange may use of the parser without a Python call."""


cdef class ReplyStream:
    # Room for the next bytes from the server: like get_buffer, but without a view.  It stays where
    # it is until `take_back`, which tells how many bytes have arrived in it.
    cdef int lend(self, char **room, Py_ssize_t *size) except -1
    cdef void take_back(self, Py_ssize_t count) noexcept
    # Bytes that have arrived and belong to no reply so far.
    cdef Py_ssize_t waiting(self) noexcept
    # ReplyParser.parse
    cdef object reply(self, int kind, bytes request, object keys, object default)
