"""An in-process memcached on a real socket: for demos, for test suites, for fault injection.

`EmbeddedServer` is what tests hold in their hands: options, starting and stopping, faults.  Sockets
and the thread that serves them are in `loop`; the service's state is touched in that thread only
while it runs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Self

from .endpoint import Endpoint
from .faults import Fault, Injection, Refuse
from .loop import Loop
from .service import Service
from .store import MEBIBYTE, Cache
from .versions import DEFAULT


class EmbeddedServer:
    """A memcached inside this process, speaking the classic text protocol on a real socket.

        with EmbeddedServer() as server:
            client = Client(server.address)

    It listens on `host` and `port` (0: a free one, kept over `stop` and `start`), or on the UNIX
    socket `unix_path`.  It starts empty.  Options, which follow memcached's:

    * `memory_limit`, bytes (``-m``), of items by memcached's count; beyond it the least recently
      used ones are evicted, or with ``evictions=False`` (``-M``) new ones refused.  memcached
      evicts by class of sizes, and keeps hot items over a scan: hit rates are not alike;
    * `max_item_size`, bytes (``-I``);
    * `max_connections` (``-c``), None for any number: further ones get an error and are closed;
    * `users`, a mapping of names to passwords (``-Y``): a client has to authenticate;
    * `shutdown`: the shutdown command is enabled (``-A``);
    * `idle_timeout`, seconds (``-o idle_timeout``), 0 for none: idle connections are closed;
    * `cluster_config`: what ``config get cluster`` answers, as AWS ElastiCache does; str or bytes,
      for example ``"12\\nhost|10.0.0.1|11211\\n"``.  It may be assigned to later;
    * `new_dumps`: ``lru_crawler metadump`` with CR LF and ``mgdump``, as newer servers have them;
    * `answer_noreply`: noreply commands are answered all the same, as some proxies do;
    * `clock`: a function that gives UNIX time, by which items expire (see `ManualClock`);
    * `version`: what ``version`` answers, and which memcached is played, "1.6.9" to "1.6.45"; newer
      ones read illegal lines in another way, for example;
    * `recording`: `requests` lists every command line received.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        unix_path: str | os.PathLike[str] | None = None,
        memory_limit: int = 64 * MEBIBYTE,
        max_item_size: int = MEBIBYTE,
        evictions: bool = True,
        max_connections: int | None = None,
        users: Mapping[str, str] | None = None,
        shutdown: bool = False,
        idle_timeout: float = 0,
        cluster_config: str | bytes | None = None,
        new_dumps: bool = False,
        answer_noreply: bool = False,
        clock: Callable[[], float] = time.time,
        version: str = DEFAULT,
        recording: bool = False,
    ) -> None:
        path = None if unix_path is None else os.fspath(unix_path)
        self._endpoint = Endpoint(host, port, path)
        self._new_cache = partial(
            Cache,
            memory_limit=memory_limit,
            max_item_size=max_item_size,
            evictions=evictions,
            clock=clock,
        )
        self._service = Service(
            self._new_cache(),
            version=version,
            users=_encoded(users),
            shutdown_enabled=shutdown,
            idle_timeout=idle_timeout,
            answer_noreply=answer_noreply,
            new_dumps=new_dumps,
            max_connections=max_connections,
            recording=recording,
        )
        self.cluster_config = cluster_config
        self._loop: Loop | None = None

    def __repr__(self) -> str:
        state = f"at {self._endpoint.address}" if self.running else "not running"
        return f"<{type(self).__name__} {state}>"

    # -- starting and stopping ---------------------------------------------------------------------

    def start(self) -> Self:
        """Listen and answer, with an empty cache; returns the server itself.

        Raises `OSError` where the address cannot be had (a running server has the UNIX socket, for
        example), `RuntimeError` where it is running.
        """
        if self.running:
            raise RuntimeError(f"{self!r} has been started already")
        self.stop()  # after a shutdown command there is still something to put away
        service = self._service
        service.cache = self._new_cache()
        service.reset_counters()
        service.stopping = False
        try:
            self._loop = Loop(service, self._endpoint)
            self._loop.start()
            return self
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Close all connections and the listening socket, and wait for the thread to end.

        Nothing happens where it is not running.
        """
        if self._loop is not None:
            self._loop.stop()

    def __enter__(self) -> Self:
        return self if self.running else self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        """Whether it has been started, and not been stopped since, nor shut down by a client."""
        return self._loop is not None and self._loop.running

    @property
    def address(self) -> Any:
        """Where it listens: ``(host, port)``, or the path of the UNIX socket.

        Raises `RuntimeError` where it was never started.
        """
        if self._endpoint.address is None:
            raise RuntimeError("the server has no address before it is started")
        return self._endpoint.address

    # -- what tests do to it -----------------------------------------------------------------------

    def inject(
        self,
        fault: Fault,
        *,
        verb: str | bytes | None = None,
        key: str | bytes | None = None,
        skip: int = 0,
        times: int | None = 1,
        on_connect: bool = False,
    ) -> Injection:
        """Commit `fault` on commands to come; see the classes in `cymemcache.testing`.

        It meets commands with that `verb` and that `key` (where they are given), but for the first
        `skip` of them, and `times` of the rest (None: all).  With `on_connect` it meets new
        connections instead, before their first command.  Where several would meet one command,
        the oldest does.

        The `Injection` that is returned counts its `hits`, ends with `remove()`, and is a context
        manager that ends with its block.  `Refuse` meets no command: it lasts until then.
        """
        if on_connect and not type(fault).on_connect:
            raise ValueError(f"{fault!r} cannot meet a connection")
        if (on_connect or isinstance(fault, Refuse)) and (verb is not None or key is not None):
            raise ValueError("verb and key are for faults that meet commands")
        if isinstance(fault, Refuse) and (skip or times != 1):
            raise ValueError("Refuse() lasts until it is removed: no skip, no times")
        injection = Injection(
            fault, _bytes(verb), _bytes(key), skip, times, on_connect, self._remove_injection
        )
        self._in_loop(lambda: self._inject(injection))
        return injection

    def clear_faults(self) -> None:
        """End all injections."""
        for injection in list(self._service.faults.injections):
            injection.remove()

    def close_connections(self, *, reset: bool = False) -> None:
        """Close all connections now; with `reset` the clients see them as reset."""

        loop = self._loop
        if loop is not None:
            loop.call(lambda: loop.close_connections(reset))

    def clear(self) -> None:
        """Remove all items, and forget `requests`."""

        def clear() -> None:
            self._service.cache.flush()
            self._service.requests.clear()

        self._in_loop(clear)

    @property
    def open_connections(self) -> int:
        """How many connections are open."""
        return 0 if self._loop is None else self._loop.open_connections

    @property
    def requests(self) -> list[tuple[int, bytes]]:
        """Every command line received while `recording`, without its line end.

        Each with the number of its connection: 1 for the first one, and so on.
        """
        return list(self._service.requests)

    @property
    def recording(self) -> bool:
        """Whether `requests` lists what is received from now on."""
        return self._service.recording

    @recording.setter
    def recording(self, recording: bool) -> None:
        self._service.recording = recording

    @property
    def cluster_config(self) -> bytes | None:
        """What ``config get cluster`` answers; None where it is no known command."""
        return self._service.cluster_config

    @cluster_config.setter
    def cluster_config(self, config: str | bytes | None) -> None:
        self._service.cluster_config = _bytes(config)

    # -- inside ------------------------------------------------------------------------------------

    def _in_loop(self, function: Callable[[], None]) -> None:
        """Run `function` where nothing else touches the service, and wait for it."""
        if self._loop is None:
            function()
        else:
            self._loop.call(function)

    def _inject(self, injection: Injection) -> None:
        self._service.faults.injections.append(injection)
        self._follow_faults()

    def _remove_injection(self, injection: Injection) -> None:
        def remove() -> None:
            faults = self._service.faults
            if injection in faults.injections:
                faults.injections.remove(injection)
                self._follow_faults()

        self._in_loop(remove)

    def _follow_faults(self) -> None:
        if self._loop is not None and self._loop.running:
            self._loop.follow_faults()


def _bytes(text: str | bytes | None) -> bytes | None:
    return text.encode() if isinstance(text, str) else text


def _encoded(users: Mapping[str, str] | None) -> dict[bytes, bytes] | None:
    if users is None:
        return None
    return {name.encode(): password.encode() for name, password in users.items()}
