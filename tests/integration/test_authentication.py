"""memcached's ASCII authentication (``-Y``): first on each connection, its password never shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cymemcache import Client, MemcacheClientError
from cymemcache.testing import MemcachedProcess
from exchanges import MODULES, open_sockets
from wire import PATIENCE

PASSWORD = "s3cret:pass"


@pytest.fixture
def address(memcached_factory: Callable[..., MemcachedProcess], tmp_path: Path) -> Any:
    users = tmp_path / "users"
    users.write_text(f"ada:{PASSWORD}\n")
    return memcached_factory("-Y", str(users)).address


@pytest.fixture(params=sorted(MODULES))
def options(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {"timeout": PATIENCE, "socket_module": MODULES[request.param]}


@pytest.mark.parametrize("kind", [str, str.encode], ids=["str", "bytes"])
def test_every_connection_is_authenticated(
    address: Any, options: dict[str, Any], kind: Callable[[str], Any]
) -> None:
    with Client(address, username=kind("ada"), password=kind(PASSWORD), **options) as client:
        assert client.set("key", b"value", noreply=False) is True
        assert client.get("key") == b"value"
        client.close()
        assert client.get("key") == b"value"


def test_wrong_credentials_are_an_error_that_says_so(address: Any, options: dict[str, Any]) -> None:
    before = open_sockets()
    client = Client(address, username="ada", password="wrong", **options)
    for _ in range(3):
        with pytest.raises(MemcacheClientError, match="username or password was refused") as caught:
            client.get("key")
        assert "wrong" not in str(caught.value).replace("password was", "")
    assert client.sock is None
    del caught
    assert open_sockets().keys() == before.keys()


def test_without_credentials_nothing_is_allowed(address: Any, options: dict[str, Any]) -> None:
    with Client(address, **options) as client, pytest.raises(MemcacheClientError):
        client.get("key")


def test_a_password_is_shown_nowhere(address: Any) -> None:
    client = Client(address, username="ada", password=PASSWORD)
    assert PASSWORD not in repr(client)
    assert PASSWORD not in repr(vars(client))


@pytest.mark.parametrize("given", [{"username": "ada"}, {"password": PASSWORD}])
def test_both_must_be_given(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="username and password"):
        Client("localhost", **given)
