"""The client of a cluster: which node has which key, and whether it can be asked.

`HashClient` has a client for each node and a hasher that tells which of them a key belongs to.
Both may be changed from outside at any time.  Commands on one key go to the node's client
(`delegation`), those on several keys and on all nodes are in `scatter`.  Nodes that fail, die and
come back are told apart by `health`; the keys of a dead one belong to the others.

A hasher that offers `table()` is asked without a lock; any other only under the lock that guards
changes.  No other code of anybody's may run under it.
"""

from __future__ import annotations

from weakref import ref

from . import options as _options
from .addresses import normalize_server_spec, server_list
from .calls import Calls
from .client import Client, PooledClient
from .commands import Commands, refuse_copy
from .core import Requests
from .counters import ClusterCounters, Tally, total
from .delegation import delegating
from .exceptions import MemcacheError, MemcacheNodeDownError
from .failures import is_forgivable, is_reply, told_by
from .forks import Lock
from .health import DEAD, NodeHealth
from .interruptions import is_interruption
from .log import warn
from .node import Node
from .options import LiveOption, ReadOnlyOption
from .scatter import Part, ScatterGather, plain_key, split_key
from .subscripts import Subscripts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType
    from typing import Any, Self, Unpack

    from .commands import ClusterCommands
    from .counters import Counters
else:
    ClusterCommands = Commands

_NOBODY: tuple[Any, Any] = (None, None)

# Options of the cluster itself; all others are its nodes' clients'.
_OF_THE_CLUSTER = ("hasher", "retry_attempts", "retry_timeout", "dead_timeout", "use_pooling")
_OF_A_POOL = ("max_pool_size", "pool_idle_timeout", "lock_generator", "pool_wait_timeout")


@delegating
class HashClient(ScatterGather, ClusterCommands, Subscripts):
    """A client for any number of servers, to be shared by any number of threads.

    `servers` is a list of addresses, each as `Client` takes it.  Each key belongs to one of them,
    as the hasher tells.  Commands without a key go to all nodes at once and give a dict of their
    answers, by the names of the nodes (``"host:port"``, or the path of a UNIX socket).  A key may
    be a pair ``(server_key, key)``: then `server_key` alone tells the node.

    A node that cannot be reached is failing: commands on its keys raise `MemcacheNodeDownError` at
    once, but for one try per `retry_timeout`.  After `retry_attempts` tries it is dead, and the
    other nodes have its keys, until one caller who probes it after `dead_timeout` finds it back.
    With `ignore_exc` nothing of that raises: a fetch is a miss, a write (incr and decr too) gives
    False, `set_many` the keys that were not stored.  Bad arguments raise in any case.

    Options:
    """

    __module__ = "cymemcache"

    #: makes the clients of nodes where there is no pooling
    client_class: Any = Client
    #: called when a node begins to fail, and when it dies
    _on_failure: Callable[[], None] | None = None

    _lock = Lock()

    key_prefix: Any = ReadOnlyOption()
    encoding: Any = ReadOnlyOption()
    tls_context: Any = ReadOnlyOption()
    ignore_exc: Any = LiveOption()
    default_noreply: Any = LiveOption()
    allow_unicode_keys: Any = LiveOption()
    retry_attempts: Any = LiveOption()
    retry_timeout: Any = LiveOption()
    dead_timeout: Any = LiveOption()

    def __init__(
        self, servers: Iterable[Any], *args: Any, **given: Unpack[_options.HashClientOptions]
    ) -> None:
        bound = _options.HASH_CLIENT.bind(type(self).__name__, args, dict(given))
        servers = server_list(servers)
        self._options = bound
        #: whether the clients of nodes that are added are PooledClients
        self.use_pooling: bool = bound["use_pooling"]
        #: what the clients of nodes are made with
        self.default_kwargs = {
            name: value
            for name, value in bound.items()
            if name not in _OF_THE_CLUSTER and (self.use_pooling or name not in _OF_A_POOL)
        }
        #: the client of each node by the node's name
        self.clients: dict[str, Any] = {}
        self._nodes: dict[str, tuple[Any, Node]] = {}
        # Dead ones that were taken out of the hasher: others have their keys.
        self._absent: set[str] = set()
        # What no node's client counts; what clients of removed nodes have that are still used; and
        # what those had that are gone, by the names of their nodes.
        self._tally = Tally("the cluster")
        self._former: list[tuple[str, ref[Any], Tally]] = []
        self._gone: dict[str, Tally] = {}
        self._renew_requests()
        self.hasher = bound["hasher"]()
        self._tell_unused(bound)
        self._is_made = False
        for server in servers:
            self.add_server(server)  # which a subclass may have overridden
        self._is_made = True
        if self._table is not None:
            self._table()

    def _tell_unused(self, bound: dict[str, Any]) -> None:
        """Log the options that do nothing: pymemcache takes them too, so that they are no error."""
        table = _options.HASH_CLIENT.options
        unused = [name for name in _OF_A_POOL if bound[name] != table[name].default]
        if unused and not self.use_pooling:
            warn("%s: without use_pooling=True there are no pools", ", ".join(unused))

    __signature__ = _options.ConstructorSignature(_options.HASH_CLIENT, "servers")

    __reduce__ = refuse_copy

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {', '.join(list(self.clients))}>"

    def _renew_requests(self) -> None:
        # Only to refuse bad keys where no node is asked.
        self._requests = Requests(self.key_prefix, self.encoding, self.allow_unicode_keys)

    def _option_changed(self, name: str, value: Any) -> None:
        if name in _OF_THE_CLUSTER:
            for _, node in list(self._nodes.values()):
                node.adjust(self.retry_attempts, self.retry_timeout, self.dead_timeout)
            return
        self.default_kwargs[name] = value
        for client in list(self.clients.values()):
            setattr(client, name, value)
        self._renew_requests()

    @property
    def hasher(self) -> Any:
        """Tells which node a key belongs to; holds all nodes but the dead ones."""
        return self._hasher

    @hasher.setter
    def hasher(self, hasher: Any) -> None:
        with self._lock:
            self._hasher = hasher
            self._table: Any = getattr(hasher, "table", None)
            self._absent.clear()

    # -- the nodes ---------------------------------------------------------------------------------

    def add_server(self, server: Any, port: int | None = None) -> None:
        """Add the node at `server` (or at host `server` and `port`); it has its keys at once.

        One that is there already is left as it is; where it is dead, it is tried again.
        """
        address = address_of(server, port)
        name = self._make_client_key(address)
        with self._lock:
            there = name in self.clients
        if there:
            node = self._nodes.get(name, _NOBODY)[1]
            if node is not None:
                self._came_back(node)
            return
        client = self._make_client(address)
        if self._is_made:  # before, one table is made at the end
            self._prepare(lambda nodes: [*nodes, name])
        with self._lock:
            if name not in self.clients:  # nobody was quicker
                self.clients[name] = client
                self.hasher.add_node(name)

    def _prepare(self, change: Callable[[list[str]], list[str]]) -> None:
        """Have the hasher work out a change of its nodes before any command has to wait for it."""
        prepare = getattr(self.hasher, "prepare", None)
        if prepare is not None:
            prepare(change(self.hasher.nodes))

    def _make_client(self, address: Any) -> Any:
        if not self.use_pooling:
            return self.client_class(address, **self.default_kwargs)
        pooled: Any = PooledClient
        if self.client_class is not Client:
            pooled = type("PooledClient", (PooledClient,), {"client_class": self.client_class})
        return pooled(address, **self.default_kwargs)

    def remove_server(self, server: Any, port: int | None = None) -> None:
        """Remove the node at `server` (or at host `server` and `port`) for good.

        Its idle connections are closed, commands under way on it are finished.  Raises `ValueError`
        where there is no such node.
        """
        name = self._make_client_key(address_of(server, port))
        if name in self.clients:
            self._prepare(lambda nodes: [node for node in nodes if node != name])
        with self._lock:
            if name not in self.clients:
                raise ValueError(f"there is no node {name!r} to remove")
            # The hasher first: at no time may it name a node that has no client.
            if name not in self._absent:
                self._take_out(name)
            client = self.clients.pop(name)
            self._sum_up_former()
            if isinstance(client, Calls):
                self._former.append((name, ref(client), client._tally))
            self._nodes.pop(name, None)
            self._absent.discard(name)
        client.close()
        if isinstance(client, Calls):
            client._pool.retire()

    @property
    def counters(self) -> ClusterCounters:
        """What the clients of all nodes have counted so far, and in `nodes` those of each.

        Nodes that were removed stay in it.
        """
        with self._lock:
            clients = list(self.clients.items())
            tallies = [
                *((name, client._tally) for name, client in clients if isinstance(client, Calls)),
                *((name, tally) for name, _, tally in self._former),
                *self._gone.items(),
            ]
        parts: dict[str, list[Counters]] = {}
        for name, tally in tallies:
            parts.setdefault(name, []).append(tally.snapshot())
        nodes = {name: total(counted) for name, counted in parts.items()}
        return ClusterCounters([*nodes.values(), self._tally.snapshot()], nodes)

    def _sum_up_former(self) -> None:
        """Keep one sum for each node of what clients have counted that are gone.  Under the lock.

        A signal handler may come in anywhere and do the same: nothing may be added twice.
        """
        for entry in list(self._former):
            name, client, tally = entry
            if client() is None and entry in self._former:
                self._former.remove(entry)
                self._gone.setdefault(name, Tally(name)).add(tally.snapshot())

    def _make_client_key(self, server: Any) -> str:
        """The name of the node at an address."""
        if isinstance(server, (list, tuple)) and len(server) == 2:
            return f"{server[0]}:{server[1]}"
        return str(server)

    def _members(self) -> list[tuple[str, Any, Node]]:
        with self._lock:
            return [(name, *self._member(name)) for name in list(self.clients)]

    def _member(self, name: str) -> tuple[Any, Node]:
        """The client and the health of the node `name`, under the lock."""
        client = self.clients.get(name)
        if client is None:
            raise MemcacheError(f"the hasher names node {name!r}, which is not among the clients")
        known, node = self._nodes.get(name, _NOBODY)
        if known is not client:
            # New, or put there by hand.
            node = Node(
                name,
                NodeHealth(self.retry_attempts, self.retry_timeout, self.dead_timeout),
                self._on_failure,
            )
            if isinstance(client, Calls):
                client._failures.node = node
            self._nodes[name] = (client, node)
        return client, node

    def _came_back(self, node: Node) -> None:
        node.succeeded()
        with self._lock:
            self._place_nodes()

    def _place_nodes(self) -> None:
        """Take nodes that have died out of the hasher, and put back those that may be asked.

        One that is due for a probe is among these, until somebody has got its key.  Under the lock.
        A signal handler may come in anywhere, and then the hasher is told something twice.
        """
        for name in self._absent.difference(self.clients):  # taken out of `clients` by hand
            self._absent.discard(name)
        for name in list(self.clients):
            _, node = self._member(name)
            if node.state != DEAD or node.is_due():
                if name in self._absent:
                    self.hasher.add_node(name)
                    self._absent.discard(name)
            elif name not in self._absent and self._take_out(name):
                self._absent.add(name)

    def _take_out(self, name: str) -> bool:
        """Remove `name` from the hasher; False where somebody has done so by hand."""
        try:
            self.hasher.remove_node(name)
        except (KeyError, ValueError) as error:
            if is_interruption(error):
                raise
            return False
        return True

    # -- whose key it is ---------------------------------------------------------------------------

    def _client_of(self, key: Any) -> tuple[Any, Any]:
        """The client to ask about `key`, and the key without its server key.

        None for the client where its node cannot be asked, and that is to be ignored.
        """
        place = key
        if type(key) is tuple:
            place, key = split_key(key)
        if self._table is not None and not self._absent:
            name = self._table().choose(place)
            client = self.clients.get(name)
            known, node = self._nodes.get(name, _NOBODY)
            if client is not None and known is client and node.is_up:
                return client, key
        return self._client_with_care(place, key)

    def _client_with_care(self, place: Any, key: Any) -> tuple[Any, Any]:
        self._requests.key(key)  # bad arguments raise in any case, and use up no try
        client = node = None
        with self._lock:
            self._place_nodes()
            for _ in range(len(self.clients) + 1):  # each may turn out to be dead
                name = self.hasher.get_node(place)
                if name is None:
                    break
                client, node = self._member(name)
                if node.is_up:
                    return client, key
                if node.admits():
                    return Try(self, client, node, place), key
                if node.state != DEAD:
                    break
                self._place_nodes()  # it has died since
        error = self._down(client, node)
        if self.ignore_exc:
            return None, key
        try:
            raise error
        finally:
            del error  # it holds this frame

    def _down(self, client: Any, node: Node | None) -> MemcacheNodeDownError:
        """The error for what `client` of `node` is not asked, counted."""
        if node is None:
            error = MemcacheNodeDownError("no node is left: all servers of the cluster are down")
        else:
            error = node.down_error()
            error.server = getattr(client, "server", None)
        (client._tally if isinstance(client, Calls) else self._tally).error(error)
        return error

    def _get_client(self, key: Any) -> tuple[Any, Any]:
        """The client of the node that `key` belongs to, and the key without its server key."""
        place, key = split_key(key) if type(key) is tuple else (key, key)
        self._requests.key(key)
        with self._lock:
            self._place_nodes()
            name = self.hasher.get_node(place)
            if name is not None:
                return self._member(name)[0], key
        if self.ignore_exc:
            return None, key
        raise self._down(None, None)

    def _excused(self, error: Exception, client: Any, miss: Any) -> Any:
        """`miss` where `error` is to be ignored; else raises it."""
        if not isinstance(client, (Calls, Try)):
            for known, node in list(self._nodes.values()):
                if known is client:
                    told_by(node, error)
        if self.ignore_exc and is_forgivable(client, error):
            return miss
        try:
            raise error
        finally:
            del error  # it holds this frame

    def _partition(self, keys: list[Any]) -> tuple[list[Part], list[Any], Exception | None]:
        owned = None
        if self._table is not None and not self._absent:
            table = self._table()
            owned = table.partition(keys) if table.nodes else None
        if owned is None:
            return self._partition_with_care(keys)
        parts = []
        for name, part in owned.items():
            client = self.clients.get(name)
            known, node = self._nodes.get(name, _NOBODY)
            if client is None or known is not client or not node.is_up:
                return self._partition_with_care(keys)
            part = list(part)  # a user's own table may keep what it gives, or give other sequences
            parts.append(Part(node, client, part, part))
        return parts, [], None

    def _partition_with_care(
        self, keys: list[Any]
    ) -> tuple[list[Part], list[Any], Exception | None]:
        asked: dict[str, tuple[Node, Any, list[Any]]] = {}
        lost: list[Any] = []
        down: Exception | None = None
        for key in keys:
            self._requests.key(plain_key(key))  # bad arguments raise in any case, and use up no try
        with self._lock:
            self._place_nodes()
            for _ in range(len(self.clients) + 1):  # each may turn out to be dead
                owned: dict[Any, list[Any]] = {}
                for key in keys:
                    place = split_key(key)[0] if type(key) is tuple else key
                    owned.setdefault(self.hasher.get_node(place), []).append(key)
                keys = []
                for name, part in owned.items():
                    client, node = _NOBODY if name is None else self._member(name)
                    if name in asked:
                        asked[name][2].extend(part)
                    elif node is not None and (node.is_up or node.admits()):
                        asked[name] = (node, client, part)
                    elif node is not None and node.state == DEAD:  # since just now
                        keys += part
                    else:
                        lost += part
                        error = self._down(client, node)
                        down = down or error
                if not keys:
                    break
                self._place_nodes()
        if keys:
            lost += keys
            error = self._down(None, None)
            down = down or error
        parts = [
            Part(node, client, part, [plain_key(key) for key in part])
            for node, client, part in asked.values()
        ]
        return parts, lost, down

    # -- its life ----------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the idle connections to all nodes, and each one in use once its command is done.

        The calling thread's own noreply commands are waited for, at most for `timeout`.  The next
        command connects anew.
        """
        self._close()

    disconnect_all = close

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()


HashClient.__doc__ = f"{HashClient.__doc__}\n{_options.HASH_CLIENT.documentation()}\n"


class Try:
    """A chance for a node that is not up: one command, after which it is known how it is.

    Where nothing of the command can have reached it and it is dead, another node gets the command.
    """

    def __init__(self, cluster: HashClient, client: Any, node: Node, place: Any) -> None:
        self._cluster = cluster
        self._client = client
        self._node = node
        self._place = place
        self._before: tuple[Node, ...] = ()  # that were tried for the same command

    def __getattr__(self, name: str) -> Any:
        def run(*arguments: Any) -> Any:
            return self._run(name, arguments)

        return run

    def _run(self, name: str, arguments: tuple[Any, ...]) -> Any:
        node = self._node
        failures = node.failures
        failed: Exception | None = None
        result = None
        try:
            result = getattr(self._client, name)(*arguments)
        except Exception as error:
            if is_interruption(error):
                raise
            failed = error
            if not isinstance(self._client, Calls):
                told_by(node, error)
        if node.failures == failures:
            if failed is None or is_reply(failed):
                self._cluster._came_back(node)
        elif node.is_gone and node not in self._before:
            other, _ = self._cluster._client_of((self._place, arguments[0]))
            if type(other) is Try:
                other._before = (*self._before, node)
            if other is not None:
                return getattr(other, name)(*arguments)
        if failed is not None:
            try:
                raise failed
            finally:
                del failed  # it holds this frame
        return result


def address_of(server: Any, port: int | None) -> tuple[str, int] | str:
    if port is None:
        return normalize_server_spec(server)
    # As the reference has it: host and port apart.
    if not isinstance(server, str):
        raise TypeError("server must be a str where the port is given as well")
    return normalize_server_spec((server, port))
