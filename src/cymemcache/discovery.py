"""The client of a cluster that tells its nodes itself: ElastiCache's and Memorystore's discovery.

`AWSElastiCacheHashClient` asks the cluster's configuration endpoint for the nodes, and follows the
answers: nodes that came are added, those that left removed, all others keep their connections.  An
endpoint that is down or answers nonsense changes nothing, and no command waits for it.
`configuration` reads the answers, `poller` has the thread.
"""

from __future__ import annotations

from time import monotonic

from . import options as _options
from .client import Client
from .cluster import HashClient, address_of
from .configuration import MAX_SIZE, LatestConfiguration, parse_configuration
from .core.replies import CONFIG, GET_MANY
from .exceptions import MemcacheUnknownCommandError
from .forks import Lock
from .inquiry import CalledOff, inquire
from .interruptions import is_interruption
from .log import info, warn
from .poller import Poller

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, Unpack

    from .configuration import Configuration
    from .scatter import Part

# Where the user has set no limit: an endpoint that never answers must not end discovery.
_PATIENCE = 5.0  # seconds

_OF_THE_ENDPOINT = (
    "no_delay",
    "socket_module",
    "socket_keepalive",
    "tls_context",
    "username",
    "password",
)
# What engines before 1.4.14 have in the place of the command.
_KEY_OF_OLD_ENGINES = b"AmazonElastiCache:cluster"


class AWSElastiCacheHashClient(HashClient):
    """A `HashClient` whose nodes are those that a configuration endpoint tells.

    `cfg_node` is the address of the endpoint (``"host:port"``, or as `Client` takes it).  It is
    asked once now: what goes wrong with that is raised, `ignore_exc` or not (`OSError`,
    `MemcacheUnknownCommandError` where it is no such endpoint, `MemcacheUnknownError` where its
    answer makes no sense).  From the first command on a thread asks it every `discovery_interval`,
    and at once when a node fails; it ends with `close`, `quit` or a ``with`` block, to start anew
    with the next command, and with the client.  `disconnect_all` leaves it alone.  TLS, credentials
    and timeouts are for the endpoint as well (where there are none, 5 s).

    Nodes are called ``"ip:port"``, with ``use_vpc=False`` ``"host:port"``: by these names keys are
    placed, so that all clients of one cluster must have the same.

    Options:
    """

    __module__ = "cymemcache"

    def __init__(
        self,
        cfg_node: tuple[str, int] | str,
        *args: Any,
        **given: Unpack[_options.AWSElastiCacheHashClientOptions],
    ) -> None:
        bound = _options.AWS_ELASTICACHE_HASH_CLIENT.bind(type(self).__name__, args, dict(given))
        self._cfg_node = cfg_node
        self.use_vpc: bool = bound.pop("use_vpc")
        interval = bound.pop("discovery_interval")
        self._endpoint = Client(
            cfg_node,
            connect_timeout=bound["connect_timeout"] or _PATIENCE,
            timeout=bound["timeout"] or _PATIENCE,
            max_value_size=MAX_SIZE,
            **{name: bound[name] for name in _OF_THE_ENDPOINT},
        )
        self._latest = LatestConfiguration()
        # The nodes that are here only because the configuration has them; all others were added by
        # hand.
        self._discovered: dict[str, tuple[str, int]] = {}
        self._trouble: type[Exception] | None = None
        self._poller: Poller | None = None
        super().__init__([], **bound)
        self.reconfigure_nodes()
        if interval is not None:
            self._poller = Poller(interval)
            self._on_failure = self._poller.wake

    __signature__ = _options.ConstructorSignature(_options.AWS_ELASTICACHE_HASH_CLIENT, "cfg_node")

    _configuring = Lock()

    @property
    def configuration_version(self) -> int:
        """The version number of the configuration that the nodes are those of."""
        configuration = self._latest.value
        return 0 if configuration is None else configuration.version

    # -- the configuration -------------------------------------------------------------------------

    def reconfigure_nodes(self) -> None:
        """Ask the endpoint for the nodes now, and follow the answer.

        Raises what goes wrong with that, as the constructor does; the nodes are then left as they
        are.  So they are where a node that lags behind has answered: a lower version number than
        before counts only when the endpoint has given nothing else for a minute.
        """
        answer = self._told()
        with self._configuring:
            counts = self._latest.take(answer, monotonic())
            changes = self._follow() if counts else []
        if changes:
            info("the cluster's configuration %d: %s", answer.version, ", ".join(changes))

    def _told(self) -> Configuration:
        """What the endpoint answers, on a connection of its own: its name may lead elsewhere.

        Raises `CalledOff` in the poller's thread once that is stopped.
        """
        endpoint = self._endpoint
        try:
            try:
                request = endpoint._requests.config_get("cluster")
                data = inquire(endpoint, CONFIG, request, None, self._is_wanted)
            except MemcacheUnknownCommandError:
                keys = [_KEY_OF_OLD_ENGINES]
                request = endpoint._requests.get_many(keys)
                data = inquire(endpoint, GET_MANY, request, keys, self._is_wanted).get(keys[0])
        finally:
            endpoint.close()
        if data is None:
            raise MemcacheUnknownCommandError(
                f"{self._cfg_node} tells no cluster configuration: it is no configuration endpoint "
                "(serverless caches have none; they are used with a Client)"
            )
        return parse_configuration(data)

    def _follow(self) -> list[str]:
        """Make the nodes those of the latest configuration; what was done for that.

        What a fork or an error cut short is done the next time.
        """
        assert self._latest.value is not None
        changes = []
        addresses = self._latest.value.addresses(self.use_vpc)
        wanted = {self._make_client_key(address): address for address in addresses}
        for name, address in wanted.items():
            if name not in self.clients:
                self._discovered[name] = address  # first: what is cut short is not by hand
                self.add_server(address)
                self._discovered[name] = address
                changes.append(f"{name} is new")
        for name, address in list(self._discovered.items()):
            if name in wanted:
                continue
            if name in self.clients:
                self.remove_server(address)
                changes.append(f"{name} is gone")
            del self._discovered[name]
        return changes

    def add_server(self, server: Any, port: int | None = None) -> None:
        """Add the node at `server` (or at host `server` and `port`); it has its keys at once.

        It stays until it is removed by hand, whatever the configuration says.  One that is there
        already is left as it is otherwise; where it is dead, it is tried again.
        """
        with self._configuring:
            super().add_server(server, port)
            name = self._make_client_key(address_of(server, port))
            if server is not self._discovered.get(name):
                self._discovered.pop(name, None)

    def poll(self) -> bool:
        """What the thread does: `reconfigure_nodes`, and log what goes wrong, once per kind.

        False where it was called off, since the client was closed.
        """
        try:
            self.reconfigure_nodes()
        except CalledOff:
            return False
        except Exception as error:
            self._log_trouble(error)
        else:
            self._log_trouble(None)
        return True

    def _is_wanted(self) -> bool:
        return self._poller is None or not self._poller.is_called_off()

    def _log_trouble(self, error: Exception | None) -> None:
        before, self._trouble = self._trouble, None if error is None else type(error)
        if self._trouble is before:
            return
        if error is None:
            info("the configuration endpoint %s answers again", self._cfg_node)
        else:
            warn(
                "the configuration endpoint %s does not tell the nodes, which stay as they are: "
                "%s: %s",
                *(self._cfg_node, type(error).__name__, error),
            )

    # -- its thread --------------------------------------------------------------------------------

    # What all commands go through: on one key, on several, on all nodes.

    def _client_of(self, key: Any) -> tuple[Any, Any]:
        if self._poller is not None and self._poller.is_idle:
            self._start(self._poller)
        return super()._client_of(key)

    def _partition(self, keys: list[Any]) -> tuple[list[Part], list[Any], Exception | None]:
        if self._poller is not None and self._poller.is_idle:
            self._start(self._poller)
        return super()._partition(keys)

    def _from_all(self, *args: Any) -> dict[str, Any]:
        if self._poller is not None and self._poller.is_idle:
            self._start(self._poller)
        return super()._from_all(*args)

    def _start(self, poller: Poller) -> None:
        try:
            poller.start(self)
        except RuntimeError as error:
            if is_interruption(error):
                raise
            self._log_trouble(error)  # no command fails for that; the next one tries again

    def _stop(self) -> None:
        if self._poller is not None:
            self._poller.stop()

    def close(self) -> None:
        """Close the idle connections to all nodes, and each one in use once its command is done.

        The calling thread's own noreply commands are waited for, at most for `timeout`.  The
        endpoint is not asked any more.  The next command connects anew, and starts that anew.
        """
        self._stop()
        super().close()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()
        super().__exit__(kind, error, traceback)

    def _quit(self) -> None:
        self._stop()
        super()._quit()


AWSElastiCacheHashClient.__doc__ = (
    f"{AWSElastiCacheHashClient.__doc__}\n{_options.AWS_ELASTICACHE_HASH_CLIENT.documentation()}\n"
)
