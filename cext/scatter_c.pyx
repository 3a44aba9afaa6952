# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, embedsignature=False
"""The usual fetch from several nodes, compiled: all requests sent, all replies read into one dict.

Whatever is not usual is left to `scatter.py` and `gather.py`, where the contracts are written down:
a client whose method is another's, no idle plain connection, anything but a value or a miss for
every key.  It must never do anything in another way than they do.
"""

from cpython.list cimport PyList_Append, PyList_GET_ITEM, PyList_GET_SIZE
from cpython.object cimport PyObject

from cymemcache.core.calls_c cimport PlainCalls, closed, count_fetched
from cymemcache.core.exchange_c cimport PlainExchange, gathered
from cymemcache.core.replies import Failed, Undecoded
from cymemcache.interruptions import is_failure

cdef extern from "Python.h":
    Py_ssize_t PyDict_GET_SIZE(object dictionary)
    bint PyMethod_Check(object thing)
    PyObject *PyMethod_GET_FUNCTION(object method)


def fetch_from_all(str name not None, object ours, int kind, list parts not None, object go_on):
    """Give `parts` (`scatter.Part`) their results, as the method `name` of their clients has them.

    False where something is not usual from the start; nothing was done then, and `ours` is what
    `name` has to be.  Where it is only in the end, the rest is left to
    ``go_on(parts, kind, [([connection], request, outcome), ...])``, which has them as `gather` does
    before they have come to their end.  It empties the list of each connection when that is part of
    a visit; what it leaves in there is closed, since no frame of its may keep it.
    """
    cdef Py_ssize_t count = PyList_GET_SIZE(parts)
    cdef Py_ssize_t asked = 0
    cdef Py_ssize_t i
    cdef list clients = []
    cdef list requests = []
    cdef list keys = []
    cdef list connections = []
    cdef list outcomes = []
    cdef list under_way = []
    cdef dict found = {}
    cdef bint usual = True
    if count == 0:
        return False
    for part in parts:
        client = part.client
        if not isinstance(client, PlainCalls) or not is_function(getattr(client, name), ours):
            return False
        given = <list?>part.keys
        PyList_Append(clients, client)
        PyList_Append(keys, given)
        PyList_Append(requests, getattr(client._requests, name)(given))
        asked += PyList_GET_SIZE(given)
    try:
        if not take_all(clients, connections):
            return False
        for i in range(count):
            PyList_Append(
                outcomes,
                begun(
                    <PlainExchange>PyList_GET_ITEM(connections, i),
                    <bytes?><object>PyList_GET_ITEM(requests, i),
                    kind,
                    <object>PyList_GET_ITEM(keys, i),
                    found,
                ),
            )
        gathered(connections, (<PlainExchange>PyList_GET_ITEM(connections, 0)).timeout, outcomes)
        for i in range(count):
            if <object>PyList_GET_ITEM(outcomes, i) is not found or not parts[i].node.is_up:
                usual = False
        for i in range(count):
            if usual:
                client = <object>PyList_GET_ITEM(clients, i)
                connection = <object>PyList_GET_ITEM(connections, i)
                connections[i] = None
                give(client, connection)
                count_fetched(
                    (<PlainCalls>client)._tally,
                    <list>PyList_GET_ITEM(keys, i),
                    found,
                    PyDict_GET_SIZE(found) == asked,
                )
                parts[i].result = found
            else:
                outcome = own(outcomes[i], keys[i], found)
                under_way.append(([connections[i]], requests[i], outcome))
    except BaseException as error:
        close_all(connections)
        for client in clients:
            client._tally.failed(error)
        raise
    if not usual:
        try:
            go_on(parts, kind, under_way)
        finally:
            close_all([connection for taken, _, _ in under_way for connection in taken])
    return True


cdef int close_all(list connections) except -1:
    """Close them all, whatever the end of one of them raises."""
    cdef object error = None
    for connection in connections:
        try:
            if connection is not None:
                closed(connection)
        except BaseException as raised:
            error = raised
    if error is not None:
        raise error
    return 0


cdef bint is_function(object method, object function) noexcept:
    # By its exact type: a tracer's wrapper passes for the method that it wraps.
    return PyMethod_Check(method) and PyMethod_GET_FUNCTION(method) == <PyObject *>function


cdef bint take_all(list clients, list connections) except -1:
    """Take an idle connection of each of `clients`; false where one has none of the usual kind."""
    cdef PlainExchange connection
    cdef PlainCalls client
    for client in clients:
        connection = None
        if client._pool is not None and client._tally is not None:
            connection = client._pool.taken()
        if connection is not None:
            if not connection.is_stale_now():
                PyList_Append(connections, connection)
                if (
                    connection.timeout_ns
                    == (<PlainExchange>PyList_GET_ITEM(connections, 0)).timeout_ns
                ):
                    continue
            else:
                connection.discard()
        while PyList_GET_SIZE(connections):
            connection = connections.pop()
            give(clients[PyList_GET_SIZE(connections)], connection)
        return False
    return True


cdef int give(PlainCalls client, PlainExchange connection) except -1:
    if connection.unacknowledged > 0:
        return client._pool.keep(connection)
    return client._pool.given(connection)


cdef object begun(
    PlainExchange connection, bytes request, int kind, object keys, dict found
):
    """The outcome of a command that is under way from now on."""
    try:
        return connection.begun(request, kind, keys, found)
    except Exception as error:
        if not is_failure(error):
            raise
        return Failed(error)


cdef object own(object outcome, list keys, dict found):
    """The outcome of one part, without the keys of others."""
    cdef dict result
    if outcome is not found and type(outcome) is not Undecoded:
        return outcome
    result = {key: found[key] for key in keys if key in found}
    return result if outcome is found else Undecoded(result, outcome.items)
