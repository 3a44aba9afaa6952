"""pylibmc, which is libmemcached with a Python face, in the text protocol."""

from __future__ import annotations

from typing import Any

from pylibmc import Client, ThreadMappedPool

from ..workloads import Setup
from . import Commands, Unsupported, addresses


def _client(setup: Setup, **behaviors: Any) -> Client:
    if setup.certificate is not None:
        raise Unsupported("no TLS")
    behaviors["tcp_nodelay"] = True
    if setup.timeout is not None:
        milliseconds = round(setup.timeout * 1e3)
        behaviors["connect_timeout"] = milliseconds
        behaviors["send_timeout"] = milliseconds * 1000  # these two are in microseconds
        behaviors["receive_timeout"] = milliseconds * 1000
    return Client(addresses(setup.servers), binary=False, behaviors=behaviors)


def _commands(client: Client) -> Commands:
    gets, cas = client.gets, client.cas

    def cas_loop(key: str, value: Any) -> Any:
        return cas(key, value, gets(key)[1])

    return {
        "get": client.get,
        "get_miss": client.get,
        "set": client.set,
        "set_noreply": client.set,
        "get_many": client.get_multi,
        "set_many": client.set_multi,
        "delete_many": client.delete_multi,
        "incr": client.incr,
        "cas_loop": cas_loop,
    }


def single(setup: Setup) -> Commands:
    # Two that are options of the client as a whole, and cost the other commands time.
    if setup.command == "set_noreply":
        return _commands(_client(setup, _noreply=True))
    if setup.command == "cas_loop":
        return _commands(_client(setup, cas=True))
    return _commands(_client(setup))


def cluster(setup: Setup) -> Commands:
    return _commands(_client(setup, ketama=True))


def shared(setup: Setup) -> Commands:
    pool = ThreadMappedPool(_client(setup))

    def get(key: str) -> Any:
        with pool.reserve() as client:
            return client.get(key)

    def set(key: str, value: Any) -> Any:
        with pool.reserve() as client:
            return client.set(key, value)

    return {"get": get, "set": set, "leave": pool.relinquish}
