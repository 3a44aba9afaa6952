"""pytest fixtures for the test suites of users.

Put ``pytest_plugins = ["cymemcache.testing.fixtures"]`` into the top-level ``conftest.py``.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .server import EmbeddedServer


@pytest.fixture
def memcached_server() -> Iterator[EmbeddedServer]:
    """An empty `EmbeddedServer` on a free loopback port, running for the length of the test."""
    with EmbeddedServer() as server:
        yield server
