"""Discovery over real sockets: an endpoint that is played by the embedded server, real memcacheds
that come and go behind it, and everything an endpoint can do wrong.
"""

from __future__ import annotations

import gc
import logging
import os
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest

from cymemcache import (
    AWSElastiCacheHashClient,
    Client,
    MemcacheClientError,
    MemcacheError,
    MemcacheUnexpectedCloseError,
    MemcacheUnknownCommandError,
    MemcacheUnknownError,
    configuration,
)
from cymemcache import poller as poller_module
from cymemcache.testing import (
    Answer,
    Close,
    Cut,
    EmbeddedServer,
    Fault,
    Hang,
    MemcachedProcess,
    Refuse,
    Trickle,
)
from interrupting import connected_to
from wire import PATIENCE, wait_until

OFTEN = 0.02  # seconds
NEVER = 3600.0  # seconds; no test waits for that
THREAD = "cymemcache discovery"


def written(version: int, addresses: list[Any]) -> bytes:
    """The configuration of nodes at `addresses`, as an endpoint writes it."""
    nodes = " ".join(f"localhost|{host}|{port}" for host, port in addresses)
    return f"{version}\n{nodes}\n".encode()


def names(addresses: list[Any]) -> set[str]:
    return {f"{host}:{port}" for host, port in addresses}


def key_of(client: AWSElastiCacheHashClient, address: Any) -> str:
    """A key that belongs to the node at `address`."""
    keys = (f"key-{number}" for number in range(10000))
    return next(key for key in keys if client.hasher.get_node(key) == f"{address[0]}:{address[1]}")


@pytest.fixture(scope="module")
def standing() -> Iterator[list[Any]]:
    """The addresses of three memcacheds that no test stops."""
    with MemcachedProcess() as one, MemcachedProcess() as two, MemcachedProcess() as three:
        yield [one.address, two.address, three.address]


@pytest.fixture
def addresses(standing: list[Any]) -> list[Any]:
    """The addresses of three memcacheds, empty."""
    for address in standing:
        with Client(address, timeout=PATIENCE) as client:
            client.flush_all(noreply=False)
    return standing


@pytest.fixture
def endpoint(addresses: list[Any]) -> Iterator[EmbeddedServer]:
    """A configuration endpoint that tells the first two memcacheds."""
    with EmbeddedServer(recording=True, cluster_config=written(1, addresses[:2])) as server:
        yield server


@pytest.fixture
def discover(
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[..., AWSElastiCacheHashClient]]:
    """Makes clients that look often, closed with the test."""
    monkeypatch.setattr(poller_module, "LEAST_SECONDS", OFTEN)
    clients = []

    def make(address: Any, **options: Any) -> AWSElastiCacheHashClient:
        options = {"timeout": PATIENCE, "discovery_interval": OFTEN, **options}
        clients.append(AWSElastiCacheHashClient(address, **options))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


def asked(endpoint: EmbeddedServer) -> int:
    """How often the endpoint was asked for the configuration."""
    return sum(line == b"config get cluster" for _, line in endpoint.requests)


# -- nodes come and go -----------------------------------------------------------------------------


def test_the_nodes_are_those_of_the_configuration(
    endpoint: EmbeddedServer, addresses: list[Any], discover: Callable[..., Any]
) -> None:
    client = discover(endpoint.address)
    assert client.clients.keys() == names(addresses[:2])
    assert client.set_many({f"key-{number}": b"value" for number in range(50)}, noreply=False) == []
    assert len(client.get_many([f"key-{number}" for number in range(50)])) == 50
    counts = [stats[b"curr_items"] for stats in client.stats().values()]
    assert sum(counts) == 50
    assert min(counts) > 0


@pytest.mark.parametrize("pooling", [False, True], ids=["single", "pooled"])
def test_nodes_that_come_and_go_are_followed(
    endpoint: EmbeddedServer, addresses: list[Any], discover: Callable[..., Any], pooling: bool
) -> None:
    client = discover(endpoint.address, use_pooling=pooling, max_pool_size=4)
    client.get("key")
    for version, part in enumerate([addresses, addresses[1:], addresses[:1], addresses[1:2]], 2):
        endpoint.cluster_config = written(version, part)
        wait_until(lambda part=part: client.clients.keys() == names(part))
        assert client.configuration_version == version
        values = {f"{version}-{number}": b"value" for number in range(20)}
        assert client.set_many(values, noreply=False) == []
        assert client.get_many(values) == values


def test_nodes_that_stay_keep_their_connections(
    endpoint: EmbeddedServer, addresses: list[Any], discover: Callable[..., Any]
) -> None:
    client = discover(endpoint.address)
    client.get_many([f"key-{number}" for number in range(50)])
    kept = client.clients["{}:{}".format(*addresses[1])]
    gone = client.clients["{}:{}".format(*addresses[0])]
    before = kept.sock
    assert before is not None
    endpoint.cluster_config = written(2, addresses[1:])
    wait_until(lambda: client.clients.keys() == names(addresses[1:]))
    assert kept.sock is before
    wait_until(lambda: gone.sock is None)


def test_the_nodes_of_other_clients_are_the_same(
    endpoint: EmbeddedServer, addresses: list[Any], discover: Callable[..., Any]
) -> None:
    one, other = discover(endpoint.address), discover(f"localhost:{endpoint.address[1]}")
    values = {f"key-{number}": b"%d" % number for number in range(100)}
    assert one.set_many(values, noreply=False) == []
    assert other.get_many(values) == values


def test_nodes_are_reached_by_their_host_names_where_that_is_wanted(
    endpoint: EmbeddedServer, addresses: list[Any], discover: Callable[..., Any]
) -> None:
    client = discover(endpoint.address, use_vpc=False)
    assert client.clients.keys() == {f"localhost:{port}" for _, port in addresses[:2]}
    assert client.set("key", b"value", noreply=False) is True
    assert client.get("key") == b"value"


def test_a_node_without_an_ip_address_is_reached_by_its_name(
    endpoint: EmbeddedServer, addresses: list[Any], discover: Callable[..., Any]
) -> None:
    endpoint.cluster_config = f"1\nlocalhost||{addresses[0][1]}\n"
    client = discover(endpoint.address)
    assert client.clients.keys() == {f"localhost:{addresses[0][1]}"}
    assert client.set("key", b"value", noreply=False) is True


def test_nodes_and_an_endpoint_with_ipv6_addresses(discover: Callable[..., Any]) -> None:
    with MemcachedProcess("-l", "::1", host="::1") as node, EmbeddedServer("::1") as endpoint:
        port = node.address[1]
        endpoint.cluster_config = f"1\nlocalhost|::1|{port} |[::1]|{port}\n"
        client = discover(f"[::1]:{endpoint.address[1]}")
        assert client.clients.keys() == {f"::1:{port}"}
        assert client.set("key", b"value", noreply=False) is True
        assert client.get("key") == b"value"


def test_engines_that_have_a_key_in_the_place_of_the_command(
    addresses: list[Any], discover: Callable[..., Any]
) -> None:
    with EmbeddedServer() as endpoint, Client(endpoint.address) as writer:

        def tell(version: int, part: list[Any]) -> None:
            writer.set("AmazonElastiCache:cluster", written(version, part), noreply=False)

        tell(1, addresses[:2])
        client = discover(endpoint.address, key_prefix="mine:")
        assert client.clients.keys() == names(addresses[:2])
        client.get("key")
        tell(2, addresses)
        wait_until(lambda: client.clients.keys() == names(addresses))


def test_a_node_that_lags_behind_is_not_believed(
    endpoint: EmbeddedServer, addresses: list[Any], discover: Callable[..., Any]
) -> None:
    endpoint.cluster_config = written(7, addresses[:2])
    client = discover(endpoint.address)
    client.get("key")
    endpoint.cluster_config = written(6, addresses[:1])
    seen = asked(endpoint)
    wait_until(lambda: asked(endpoint) > seen + 3)
    assert client.clients.keys() == names(addresses[:2])


def test_another_cluster_at_the_same_endpoint_is_believed_after_a_while(
    endpoint: EmbeddedServer,
    addresses: list[Any],
    discover: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    endpoint.cluster_config = written(7, addresses[:2])
    client = discover(endpoint.address)
    client.get("key")
    monkeypatch.setattr(configuration, "OLDER_SECONDS", 0.1)
    endpoint.cluster_config = written(1, addresses[2:])
    wait_until(lambda: client.clients.keys() == names(addresses[2:]))


def test_without_polls_the_nodes_are_asked_for_by_hand(
    endpoint: EmbeddedServer, addresses: list[Any], discover: Callable[..., Any]
) -> None:
    client = discover(endpoint.address, discovery_interval=None)
    client.get("key")
    endpoint.cluster_config = written(2, addresses)
    client.get("key")
    assert asked(endpoint) == 1
    client.reconfigure_nodes()
    assert client.clients.keys() == names(addresses)


# -- an endpoint that is down, slow, or no endpoint at all -----------------------------------------

FAULTS: list[tuple[Fault, type[Exception]]] = [
    (Answer(b"\x00garbage\xff\r\n"), MemcacheUnknownError),
    (Answer(b"CONFIG cluster 0 7\r\ngarbage\r\nEND\r\n"), MemcacheUnknownError),
    (Answer(b"CONFIG cluster 0 3\r\n1\na|10.0.0.1|11211\n\r\nEND\r\n"), MemcacheUnknownError),
    (Answer(b"CONFIG cluster 0 999999999\r\n"), MemcacheUnknownError),
    (Answer(b"CONFIG cluster 0 4\r\n9\n\n\n\r\nEND\r\n"), MemcacheUnknownError),
    (Answer(b"CONFIG other 0 18\r\n9\na|10.0.0.1|11211\n\r\nEND\r\n"), MemcacheUnknownError),
    (Answer(b"SERVER_ERROR not now\r\n"), MemcacheError),
    (Answer(b"END\r\n"), MemcacheUnknownCommandError),
    (Cut(30), MemcacheUnexpectedCloseError),
    (Close(), MemcacheUnexpectedCloseError),
    (Close(reset=True), OSError),
]


@pytest.mark.parametrize(("fault", "error"), FAULTS, ids=range(len(FAULTS)))
def test_what_goes_wrong_at_first_is_raised(
    endpoint: EmbeddedServer, discover: Callable[..., Any], fault: Fault, error: type[Exception]
) -> None:
    endpoint.inject(fault, verb="config")
    with pytest.raises(error):
        discover(endpoint.address, ignore_exc=True)
    assert discover(endpoint.address).set("key", b"value", noreply=False) is True


def test_an_endpoint_that_is_down_at_first_is_raised(discover: Callable[..., Any]) -> None:
    with EmbeddedServer() as server:
        address = server.address
    with pytest.raises(ConnectionRefusedError):
        discover(address)


def test_a_server_that_is_no_endpoint_is_told_from_one(discover: Callable[..., Any]) -> None:
    with EmbeddedServer() as server, pytest.raises(MemcacheUnknownCommandError) as raised:
        discover(server.address)
    assert "no configuration endpoint" in str(raised.value)


@pytest.mark.parametrize(("fault", "error"), FAULTS, ids=range(len(FAULTS)))
def test_what_goes_wrong_later_changes_nothing(
    endpoint: EmbeddedServer,
    addresses: list[Any],
    discover: Callable[..., Any],
    fault: Fault,
    error: type[Exception],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "cymemcache")
    client = discover(endpoint.address)
    client.set("key", b"value", noreply=False)
    with endpoint.inject(fault, verb="config", times=None) as injection:
        wait_until(lambda: injection.hits > 3)
        assert client.get("key") == b"value"
        assert client.clients.keys() == names(addresses[:2])
        lines = [record.getMessage() for record in caplog.records]
        assert len([line for line in lines if "does not tell the nodes" in line]) == 1
    endpoint.cluster_config = written(2, addresses)
    wait_until(lambda: client.clients.keys() == names(addresses))
    wait_until(lambda: "answers again" in caplog.text)


def test_an_endpoint_that_goes_down_and_comes_back(
    endpoint: EmbeddedServer, addresses: list[Any], discover: Callable[..., Any]
) -> None:
    client = discover(endpoint.address)
    client.set("key", b"value", noreply=False)
    endpoint.stop()
    wait_until(lambda: client._trouble is not None)
    assert client.get("key") == b"value"
    endpoint.cluster_config = written(2, addresses)
    endpoint.start()
    wait_until(lambda: client.clients.keys() == names(addresses))


@pytest.mark.parametrize("fault", [Hang(), Trickle(0.5)], ids=["hang", "trickle"])
def test_a_slow_endpoint_keeps_no_command_waiting(
    endpoint: EmbeddedServer, addresses: list[Any], discover: Callable[..., Any], fault: Fault
) -> None:
    client = discover(endpoint.address)
    endpoint.inject(fault, verb="config", times=None)
    client.set("key", b"value", noreply=False)
    seen = asked(endpoint)
    wait_until(lambda: asked(endpoint) > seen)
    started = time.monotonic()
    assert client.get("key") == b"value"
    endpoint.clear_faults()
    assert time.monotonic() - started < PATIENCE / 2
    client.close()


def test_a_slow_endpoint_is_given_up_after_the_timeout(
    endpoint: EmbeddedServer, addresses: list[Any], discover: Callable[..., Any]
) -> None:
    client = discover(endpoint.address, timeout=0.5)
    client.get("key")
    with endpoint.inject(Hang(), verb="config", times=None) as injection:
        wait_until(lambda: injection.hits > 1)
        assert client._trouble is TimeoutError
    endpoint.cluster_config = written(2, addresses)
    wait_until(lambda: client.clients.keys() == names(addresses))


def test_an_endpoint_keeps_no_connection_open(
    endpoint: EmbeddedServer, discover: Callable[..., Any]
) -> None:
    client = discover(endpoint.address, discovery_interval=NEVER)
    client.get("key")
    wait_until(lambda: endpoint.open_connections == 0)


def test_the_endpoint_is_authenticated_with(discover: Callable[..., Any]) -> None:
    with EmbeddedServer(users={"ada": "s3cret"}) as endpoint:
        endpoint.cluster_config = written(1, [endpoint.address])
        client = discover(endpoint.address, username="ada", password="s3cret")
        assert client.set("key", b"value", noreply=False) is True
        assert client.get("key") == b"value"
        with pytest.raises(MemcacheClientError):
            discover(endpoint.address, username="ada", password="wrong")


# -- a node fails ----------------------------------------------------------------------------------


@pytest.fixture
def mortal(
    endpoint: EmbeddedServer,
    addresses: list[Any],
    memcached_factory: Callable[..., MemcachedProcess],
) -> MemcachedProcess:
    """A memcached that is in the configuration, beside the first of the others."""
    process = memcached_factory()
    endpoint.cluster_config = written(1, [process.address, addresses[0]])
    return process


def test_a_node_that_fails_has_the_endpoint_asked_at_once(
    endpoint: EmbeddedServer,
    mortal: MemcachedProcess,
    addresses: list[Any],
    discover: Callable[..., Any],
) -> None:
    client = discover(endpoint.address, discovery_interval=NEVER, ignore_exc=True)
    key = key_of(client, mortal.address)
    assert client.set(key, b"value", noreply=False) is True
    endpoint.cluster_config = written(2, addresses)
    assert asked(endpoint) == 1
    mortal.stop()
    assert client.get(key) is None
    wait_until(lambda: client.clients.keys() == names(addresses))
    assert client.set(key, b"value", noreply=False) is True
    assert client.get(key) == b"value"


def test_a_node_that_fails_in_a_command_on_several_keys_does_so_too(
    endpoint: EmbeddedServer,
    mortal: MemcachedProcess,
    addresses: list[Any],
    discover: Callable[..., Any],
) -> None:
    client = discover(endpoint.address, discovery_interval=NEVER, ignore_exc=True)
    keys = [key_of(client, mortal.address), key_of(client, addresses[0])]
    client.get_many(keys)
    endpoint.cluster_config = written(2, addresses)
    mortal.stop()
    client.get_many(keys)
    wait_until(lambda: client.clients.keys() == names(addresses))


def test_a_node_that_dies_and_stays_configured_is_probed_as_ever(
    endpoint: EmbeddedServer, mortal: MemcachedProcess, discover: Callable[..., Any]
) -> None:
    client = discover(
        endpoint.address, ignore_exc=True, retry_attempts=0, retry_timeout=0, dead_timeout=0.05
    )
    key = key_of(client, mortal.address)
    mortal.stop()
    client.get(key)
    assert client.set(key, b"value", noreply=False) is True  # on the other node
    mortal.start()

    def is_back() -> bool:
        client.get(key)
        return bool(client.hasher.get_node(key) == "{}:{}".format(*mortal.address))

    wait_until(is_back)


def test_a_node_whose_name_cannot_be_looked_up_dies_like_any_other(
    endpoint: EmbeddedServer, addresses: list[Any], discover: Callable[..., Any]
) -> None:
    host, port = addresses[0]
    endpoint.cluster_config = f"1\nno..name||11211 {'x' * 64}||11211 |{host}|{port}\n"
    client = discover(endpoint.address, ignore_exc=True, retry_attempts=0)
    values = {f"key-{number}": b"value" for number in range(30)}
    client.set_many(values, noreply=False)
    for key, value in values.items():
        assert client.set(key, value, noreply=False) is True
    assert client.hasher.nodes == [f"{host}:{port}"]
    assert client.get_many(values) == values


# -- threads, forks, ends --------------------------------------------------------------------------


def test_threads_go_on_while_nodes_come_and_go(
    endpoint: EmbeddedServer, addresses: list[Any], discover: Callable[..., Any]
) -> None:
    client = discover(endpoint.address)
    stop = threading.Event()
    wrong: list[Any] = []

    def work(number: int) -> None:
        turn = 0
        try:
            while not stop.is_set():
                turn += 1
                keys = [f"{number}-{turn % 10}-{letter}" for letter in "abcdef"]
                values = {key: key.encode() for key in keys}
                if client.set_many(values, noreply=False) != []:
                    wrong.append("not stored")
                found = client.get_many(keys)
                single = client.get(keys[0])
                if found.items() - values.items() or single not in (None, keys[0].encode()):
                    wrong.append((found, single))
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    try:
        for version in range(2, 42):
            part = [addresses[version % 3], addresses[(version + version % 2 + 1) % 3]]
            endpoint.cluster_config = written(version, part)
            wait_until(lambda version=version: client.configuration_version == version)
    finally:
        stop.set()
        for thread in threads:
            thread.join(PATIENCE)
    assert wrong == []
    wait_until(lambda: client.clients.keys() == names(part))
    assert set(client.hasher.nodes) == names(part)


def test_many_may_reconfigure_at_once(
    endpoint: EmbeddedServer, addresses: list[Any], discover: Callable[..., Any]
) -> None:
    client = discover(endpoint.address)
    client.get("key")
    endpoint.cluster_config = written(2, addresses[1:])
    threads = [threading.Thread(target=client.reconfigure_nodes) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert client.clients.keys() == set(client.hasher.nodes) == names(addresses[1:])


COMMANDS: list[Callable[[Any], Any]] = [
    lambda client: client.get("key"),
    lambda client: client.set("key", 1, noreply=True),
    lambda client: client.gets("key"),
    lambda client: client.__setitem__("key", 1),
    lambda client: client.get_many(["a", "b"]),
    lambda client: client.set_many({"a": 1}),
    lambda client: client.delete_many(["a"]),
    lambda client: client.stats(),
    lambda client: client.version(),
    lambda client: client.flush_all(),
    lambda client: client.raw_command("version"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=range(len(COMMANDS)))
def test_any_command_starts_the_polls(
    endpoint: EmbeddedServer, discover: Callable[..., Any], command: Callable[[Any], Any]
) -> None:
    client = discover(endpoint.address)
    assert client._poller.is_idle
    assert asked(endpoint) == 1
    command(client)
    wait_until(lambda: asked(endpoint) > 2)


def discoverers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == THREAD]


def test_a_closed_client_asks_no_more_and_one_that_is_used_again_does(
    endpoint: EmbeddedServer, addresses: list[Any], discover: Callable[..., Any]
) -> None:
    client = discover(endpoint.address)
    client.get("key")
    client.close()
    wait_until(lambda: not discoverers())
    endpoint.cluster_config = written(2, addresses)
    assert client.configuration_version == 1
    client.get("key")
    wait_until(lambda: client.clients.keys() == names(addresses))


@pytest.fixture
def hanging(
    endpoint: EmbeddedServer, discover: Callable[..., Any]
) -> Iterator[AWSElastiCacheHashClient]:
    """A client whose poll hangs at the endpoint, and has no limit worth speaking of."""
    client = discover(endpoint.address, timeout=NEVER, discovery_interval=OFTEN)
    with endpoint.inject(Hang(), verb="config", times=None) as injection:
        client.get("key")
        wait_until(lambda: injection.hits)
        yield client


def test_the_poll_of_a_closed_client_ends(
    endpoint: EmbeddedServer,
    hanging: AWSElastiCacheHashClient,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "cymemcache")
    hanging.close()
    wait_until(lambda: not discoverers())
    assert not connected_to(endpoint.address)
    assert caplog.messages == []


def test_a_client_that_is_closed_and_used_while_its_endpoint_hangs_has_one_poll(
    endpoint: EmbeddedServer, hanging: AWSElastiCacheHashClient
) -> None:
    for _ in range(20):
        hanging.close()
        hanging.get("key")
        assert len(discoverers()) <= 1
        assert len(connected_to(endpoint.address)) <= 1


def test_the_poll_of_a_closed_client_ends_while_it_dials(
    endpoint: EmbeddedServer, discover: Callable[..., Any]
) -> None:
    dials = threading.Event()

    def getaddrinfo(*arguments: Any) -> Any:
        dials.set()
        return socket.getaddrinfo(*arguments)

    sockets: Any = SimpleNamespace(**{**vars(socket), "getaddrinfo": getaddrinfo})
    client = discover(endpoint.address, discovery_interval=NEVER)
    with ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0)).getsockname()
        for _ in range(4):  # its kernel drops what comes after them
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(full)
        client._endpoint = Client(full, socket_module=sockets)  # without any limit
        client.get("key")
        client._poller.wake()
        assert dials.wait(PATIENCE)
        client.close()
        wait_until(lambda: not discoverers())


def test_a_logging_handler_that_raises_does_not_end_discovery(
    endpoint: EmbeddedServer,
    addresses: list[Any],
    discover: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Raising(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError(record.getMessage())

    monkeypatch.setattr(threading, "excepthook", lambda arguments: None)
    monkeypatch.setattr(logging.getLogger("cymemcache"), "handlers", [Raising()])
    client = discover(endpoint.address)
    client.get("key")
    with endpoint.inject(Close(), verb="config", times=2) as injection:
        wait_until(lambda: injection.hits == 2)
    endpoint.cluster_config = written(2, addresses)
    wait_until(lambda: client.clients.keys() == names(addresses))


def test_a_dropped_client_is_collected_and_its_thread_ends(endpoint: EmbeddedServer) -> None:
    client = AWSElastiCacheHashClient(
        endpoint.address, timeout=PATIENCE, discovery_interval=NEVER, ignore_exc=True
    )
    client.get("key")
    client.get_many(["a", "b"])
    wait_until(lambda: len(discoverers()) == 1)  # those of other tests have ended
    reference = weakref.ref(client)
    del client
    gc.collect()
    assert reference() is None
    wait_until(lambda: not discoverers())


def test_a_child_follows_the_configuration_on_its_own(
    endpoint: EmbeddedServer, addresses: list[Any], discover: Callable[..., Any]
) -> None:
    client = discover(endpoint.address)
    client.get("key")
    wait_until(lambda: asked(endpoint) > 2)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            before = len(discoverers())
            client.get("key")
            while client.clients.keys() != names(addresses):
                time.sleep(0.01)
            client.set("key", b"of the child", noreply=False)
            os.write(writer, b"%d" % before)
        finally:
            os._exit(0)
    os.close(writer)
    endpoint.cluster_config = written(2, addresses)
    with open(reader, "rb") as pipe:
        assert pipe.read() == b"0"
    os.waitpid(pid, 0)
    wait_until(lambda: client.clients.keys() == names(addresses))
    assert client.get("key") == b"of the child"


def test_a_process_ends_with_its_client_in_use(endpoint: EmbeddedServer) -> None:
    code = (
        "from cymemcache import AWSElastiCacheHashClient\n"
        f"client = AWSElastiCacheHashClient({endpoint.address!r}, discovery_interval=0.001)\n"
        "client.set('key', b'value', noreply=False)\n"
        "print(client.get('key'))\n"
    )
    with endpoint.inject(Hang(), verb="config", skip=2, times=None):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code],
            capture_output=True,
            text=True,
            timeout=PATIENCE * 2,
        )
    assert (done.returncode, done.stdout, done.stderr) == (0, "b'value'\n", "")


def test_a_refused_endpoint_changes_nothing(
    endpoint: EmbeddedServer, addresses: list[Any], discover: Callable[..., Any]
) -> None:
    client = discover(endpoint.address)
    client.get("key")
    with endpoint.inject(Refuse(), times=1):
        wait_until(lambda: client._trouble is ConnectionRefusedError)
        assert client.clients.keys() == names(addresses[:2])
    wait_until(lambda: client._trouble is None)


def test_a_listener_that_accepts_and_says_nothing_is_given_up(
    discover: Callable[..., Any],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(TimeoutError):
        discover(listener.getsockname(), timeout=0.2)
