"""The packages that people run on pymemcache, on this one instead, which stands for it in the whole
process: these tests run in one of their own, with those packages installed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

import cymemcache
from cymemcache.testing import MemcachedProcess
from wire import PATIENCE

cymemcache.install_as_pymemcache()


@pytest.fixture
def memcached() -> Iterator[MemcachedProcess]:
    """A memcached that the test may stop, and start again at the same address."""
    with MemcachedProcess() as process:
        yield process


@pytest.fixture(scope="session")
def running() -> Iterator[MemcachedProcess]:
    with MemcachedProcess() as process:
        yield process


@pytest.fixture
def location(request: pytest.FixtureRequest) -> str:
    """The address, as settings have it, of the test's own memcached, or of an empty shared one."""
    own = "memcached" in request.fixturenames
    host, port = request.getfixturevalue("memcached" if own else "running").address
    if not own:
        with cymemcache.Client((host, port)) as client:
            client.flush_all(noreply=False)
    return f"{host}:{port}"


@pytest.fixture
def eventually() -> Callable[[Callable[[], object]], None]:
    """Waits until a function gives something true."""

    def wait(holds: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < deadline
            time.sleep(0.05)

    return wait


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        # Several of these packages never close the client that they have made.
        item.add_marker(pytest.mark.filterwarnings("ignore::ResourceWarning"))
