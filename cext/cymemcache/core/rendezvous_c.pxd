# cython: language_level=3
"""The part of a table that does not depend on how it hashes, for the compiled ketama."""


cdef class NodeTable:
    cdef readonly tuple nodes
    cdef Py_ssize_t count
    # The index of the node that `key` belongs to; only asked where there is a node.
    cdef Py_ssize_t best(self, object key) except -1
