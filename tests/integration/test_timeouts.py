"""`timeout` bounds an operation as a whole, however its bytes come; signals are handled in it."""

from __future__ import annotations

import _thread
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cymemcache import Client
from cymemcache.testing import Delay, EmbeddedServer, Trickle
from exchanges import MODULES, open_sockets
from wire import PATIENCE

LATE = 5.0  # seconds: far beyond any timeout here, far below what a slow reply would take


@pytest.fixture(scope="module")
def running() -> Iterator[EmbeddedServer]:
    with EmbeddedServer() as server:
        yield server


@pytest.fixture(params=sorted(MODULES))
def connect(
    request: pytest.FixtureRequest, running: EmbeddedServer
) -> Iterator[Callable[..., Client]]:
    clients = []

    def make(**options: Any) -> Client:
        clients.append(Client(running.address, socket_module=MODULES[request.param], **options))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


COMMANDS: dict[str, Callable[[Client], Any]] = {
    "get": lambda client: client.get("k"),
    "get_many": lambda client: client.get_many(["k", "l"]),
    "set": lambda client: client.set("k", b"other", noreply=False),
    "set_many": lambda client: client.set_many({"k": b"other", "l": b"other"}, noreply=False),
    "incr": lambda client: client.incr("n", 1),
    "stats": lambda client: client.stats(),
    "raw_command": lambda client: client.raw_command("get k", b"END\r\n"),
}


@pytest.mark.parametrize("command", list(COMMANDS))
def test_a_reply_that_trickles_in_is_not_waited_for_beyond_the_timeout(
    connect: Callable[..., Client], running: EmbeddedServer, command: str
) -> None:
    client = connect(timeout=0.3)
    client.set_many({"k": b"v" * 200, "l": b"v" * 200, "n": b"1" * 20}, noreply=False)
    with running.inject(Trickle(0.05)):
        began = time.monotonic()
        with pytest.raises(TimeoutError, match="timed out"):
            COMMANDS[command](client)
        assert time.monotonic() - began < LATE
    assert client.sock is None
    assert client.get("l") in (b"v" * 200, b"other")


def test_a_server_that_never_answers_is_not_waited_for_beyond_the_timeout(
    connect: Callable[..., Client], running: EmbeddedServer
) -> None:
    client = connect(timeout=0.2)
    for call in (lambda: client.get("absent"), lambda: client.set("k", b"v", noreply=False)):
        with running.inject(Delay(0.6)):
            began = time.monotonic()
            with pytest.raises(TimeoutError):
                call()
            assert time.monotonic() - began < LATE
        assert client.sock is None


def test_a_reply_in_time_is_none_the_worse_for_its_pieces(
    connect: Callable[..., Client], running: EmbeddedServer
) -> None:
    client = connect(timeout=PATIENCE)
    client.set("k", b"value", noreply=False)
    with running.inject(Trickle(0.002)):
        assert client.get("k") == b"value"
    assert client.get("k") == b"value"


def test_without_a_timeout_a_slow_reply_is_waited_for(
    connect: Callable[..., Client], running: EmbeddedServer
) -> None:
    client = connect()
    client.set("k", b"value", noreply=False)
    with running.inject(Delay(0.5)):
        assert client.get("k") == b"value"


def test_a_timeout_forgiven_by_ignore_exc_is_a_miss_on_a_closed_connection(
    connect: Callable[..., Client], running: EmbeddedServer
) -> None:
    client = connect(timeout=0.1, ignore_exc=True)
    client.set("k", b"value", noreply=False)
    with running.inject(Delay(0.4)):
        assert client.get("k", "miss") == "miss"
    assert client.sock is None
    time.sleep(0.4)
    assert client.get("k") == b"value"


@pytest.fixture
def ring() -> Iterator[Callable[[Callable[[], None], float], None]]:
    """``ring(handler, seconds)``: `handler` runs in a signal handler, `seconds` from now."""
    if threading.current_thread() is not threading.main_thread():
        pytest.fail("signals reach the main thread only")

    def start(handler: Callable[[], None], seconds: float) -> None:
        signal.signal(signal.SIGALRM, lambda number, frame: handler())
        signal.setitimer(signal.ITIMER_REAL, seconds)

    before = signal.getsignal(signal.SIGALRM)
    yield start
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_a_signal_handler_runs_while_a_command_waits_and_the_command_goes_on(
    connect: Callable[..., Client],
    running: EmbeddedServer,
    ring: Callable[[Callable[[], None], float], None],
) -> None:
    client = connect(timeout=PATIENCE)
    client.set("k", b"value", noreply=False)
    client.set("other", b"another", noreply=False)
    seen: list[Any] = []
    with running.inject(Delay(0.3)):
        # The handler may use the same client: it gets a connection of its own.
        ring(lambda: seen.append(client.get("other")), 0.1)
        assert client.get("k") == b"value"
    assert seen == [b"another"]
    assert client.get("k") == b"value"


def test_a_signal_handler_that_raises_ends_the_command_and_its_connection(
    connect: Callable[..., Client],
    running: EmbeddedServer,
    ring: Callable[[Callable[[], None], float], None],
) -> None:
    class Stop(BaseException):
        pass

    def stop() -> None:
        raise Stop

    client = connect(timeout=PATIENCE)
    client.set("k", b"value", noreply=False)
    before = len(open_sockets())
    with running.inject(Delay(0.3)):
        ring(stop, 0.1)
        with pytest.raises(Stop):
            client.get("k")
    assert client.sock is None
    assert len(open_sockets()) < before
    assert client.get("absent") is None


def test_a_signal_that_ends_no_system_call_is_handled_before_the_next_one_waits(
    connect: Callable[..., Client],
    running: EmbeddedServer,
    ring: Callable[[Callable[[], None], float], None],
) -> None:
    class Stop(BaseException):
        pass

    def stop() -> None:
        raise Stop

    client = connect(timeout=PATIENCE)
    client.set("k", b"v" * 200, noreply=False)
    ring(stop, PATIENCE)  # long after the signal that is raised below, without the kernel
    with running.inject(Trickle(0.01)):
        timer = threading.Timer(0.1, _thread.interrupt_main, (signal.SIGALRM,))
        timer.start()
        with pytest.raises(Stop):
            client.get("k")
        timer.join()
    # It landed in the middle of the command, not after the last piece of its reply.
    assert client.sock is None
    assert client.get("absent") is None
