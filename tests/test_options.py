"""Constructor options and server addresses: what is taken, what is refused and how the error helps,
and what a client shows of them.  Nothing here connects to anything.
"""

from __future__ import annotations

import ast
import inspect
import socket
import ssl
from types import SimpleNamespace
from typing import Any

import pytest

from cymemcache import (
    AWSElastiCacheHashClient,
    Client,
    HashClient,
    KeepaliveOpts,
    MemcacheIllegalInputError,
    PooledClient,
)
from cymemcache import options as options_module
from cymemcache.addresses import normalize_server_spec
from cymemcache.options import (
    AWS_ELASTICACHE_HASH_CLIENT,
    CLIENT,
    HASH_CLIENT,
    POOLED_CLIENT,
    OptionSet,
)
from cymemcache.serde import PickleSerde

# -- addresses -------------------------------------------------------------------------------------

ADDRESSES: list[tuple[Any, Any]] = [
    (("localhost", 11211), ("localhost", 11211)),
    (["localhost", 1], ("localhost", 1)),
    # A pair is judged when it is dialled.
    (("localhost", "11211"), ("localhost", "11211")),
    (("localhost", 1234567), ("localhost", 1234567)),
    (("localhost", 0), ("localhost", 0)),
    (("no such host", 11211), ("no such host", 11211)),
    ((None, None), (None, None)),
    (("::1", 65535), ("::1", 65535)),
    ("localhost", ("localhost", 11211)),
    ("localhost:1", ("localhost", 1)),
    ("10.0.0.1:65535", ("10.0.0.1", 65535)),
    ("[::1]", ("::1", 11211)),
    ("[::1]:11212", ("::1", 11212)),
    ("[fe80::1%eth0]:11212", ("fe80::1%eth0", 11212)),
    ("unix:/run/memcached", "/run/memcached"),
    ("unix:relative/path", "relative/path"),
    ("/run/memcached", "/run/memcached"),
    ("/run/with:colon", "/run/with:colon"),
    ("host.example.org.", ("host.example.org.", 11211)),
    ("bücher.example", ("bücher.example", 11211)),
    ("a" * 63, ("a" * 63, 11211)),
]

BAD_ADDRESSES: list[tuple[Any, str]] = [
    ("", "address"),
    (None, "address"),
    (11211, "address"),
    (b"localhost:11211", "address"),
    ((), "pair"),
    (("localhost",), "pair"),
    (("localhost", 11211, 0), "pair"),
    ("host:port:x", "more than one colon"),
    ("host:port", "port must be a number"),
    ("host:1x", "port must be a number"),
    ("host:1_1", "port must be a number"),
    ("host:+1", "port must be a number"),
    ("host: 1", "port must be a number"),
    ("host:1\n", "port must be a number"),
    ("host:\u0663", "port must be a number"),
    ("host:0", "from 1 to 65535"),
    ("host:70000", "from 1 to 65535"),
    ("host:-1", "from 1 to 65535"),
    ("host:", "port should be"),
    (":11211", "no host"),
    (" host:11211", "whitespace"),
    ("ho\0st:11211", "NUL"),
    ("::1", "brackets"),
    ("fe80::1:11211", "brackets"),
    ("http://host:11211", "write 'host:11211', without the http://"),
    ("memcached://host", "write 'host', without the memcached://"),
    ("a..b", "cannot be the name"),
    (".host:11211", "cannot be the name"),
    ("a" * 64, "cannot be the name"),
    ("a" * 64 + ".example.org:11211", "cannot be the name"),
    ("é..example.org", "cannot be the name"),
    ("é" * 63, "cannot be the name"),
    ("[::1", "[ipv6]:port"),
    ("[::1]11211", "[ipv6]:port"),
    ("[::1]:", "port should be"),
    ("[]:11211", "no host"),
    ("[::1]:x", "port must be a number"),
    ("[::1]:70000", "from 1 to 65535"),
    ("unix:", "no usable socket path"),
    ("unix:/a\0b", "no usable socket path"),
]


@pytest.mark.parametrize(("server", "address"), ADDRESSES, ids=repr)
def test_an_address_may_be_written_in_many_ways(server: Any, address: Any) -> None:
    assert normalize_server_spec(server) == address
    assert Client(server).server == address
    assert Client(server=server).server == address


@pytest.mark.parametrize(("server", "match"), BAD_ADDRESSES, ids=ascii)
def test_what_is_no_address_is_refused(server: Any, match: str) -> None:
    for make in (normalize_server_spec, Client, lambda server: Client(server=server)):
        with pytest.raises(ValueError, match="server") as caught:
            make(server)
        assert match in str(caught.value)


def test_a_port_of_more_digits_than_python_converts_is_no_port() -> None:
    with pytest.raises(ValueError, match="port must be from 1 to 65535"):
        normalize_server_spec("host:" + "9" * 5000)


def test_an_address_is_needed() -> None:
    with pytest.raises(TypeError, match="server"):
        Client()


# -- options ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("time_out", "timeout"),
        ("Timeout", "timeout"),
        ("connection_timeout", "connect_timeout"),
        ("nodelay", "no_delay"),
        ("ignore_exception", "ignore_exc"),
        ("ignore_exceptions", "ignore_exc"),
        ("prefix", "key_prefix"),
        ("keyprefix", "key_prefix"),
        ("noreply", "default_noreply"),
        ("no_reply", "default_noreply"),
        ("KEY_PREFIX", "key_prefix"),
        ("serialiser", "serializer"),
        ("deserialize", "deserializer"),
        ("user", "username"),
        ("passwd", "password"),
        ("tls", "tls_context"),
        ("ssl_context", "tls_context"),
        ("unicode_keys", "allow_unicode_keys"),
        ("keepalive", "socket_keepalive"),
        ("max_size", "max_value_size"),
    ],
)
def test_an_unknown_option_is_refused_with_the_nearest_right_name(wrong: str, right: str) -> None:
    with pytest.raises(TypeError) as caught:
        Client("localhost", **{wrong: None})
    assert repr(wrong) in str(caught.value)
    assert f"did you mean {right!r}?" in str(caught.value)


def test_an_option_like_no_other_is_refused_without_a_guess() -> None:
    with pytest.raises(TypeError, match="'xyzzy'") as caught:
        Client("localhost", xyzzy=1)
    assert "did you mean" not in str(caught.value)


BAD_OPTIONS: list[tuple[str, Any, type[Exception]]] = [
    *((name, value, TypeError) for name in ("timeout", "connect_timeout")
      for value in ("1", True, [])),
    *((name, value, ValueError) for name in ("timeout", "connect_timeout")
      for value in (0, -1, 0.0, float("nan"), float("inf"), 1e9)),
    ("serde", object(), TypeError),
    ("serde", SimpleNamespace(serialize=str), TypeError),
    ("serde", "pickle", TypeError),
    ("serializer", "pickle", TypeError),
    ("deserializer", 5, TypeError),
    ("socket_module", None, TypeError),
    ("socket_module", "gevent", TypeError),
    ("socket_keepalive", True, ValueError),
    ("socket_keepalive", (1, 1, 5), ValueError),
    ("key_prefix", 5, TypeError),
    ("key_prefix", None, TypeError),
    ("key_prefix", "é", ValueError),
    ("key_prefix", b"a b", ValueError),
    ("key_prefix", "a\r\n", ValueError),
    ("key_prefix", b"\0", ValueError),
    ("key_prefix", b"\t", ValueError),
    ("key_prefix", b"k" * 251, ValueError),
    ("encoding", None, TypeError),
    ("encoding", b"utf-8", TypeError),
    ("encoding", "utf-7000", ValueError),
    ("encoding", "rot13", ValueError),
    ("encoding", "hex", ValueError),
    ("encoding", "undefined", ValueError),
    ("encoding", "a\0b", ValueError),
    ("tls_context", True, TypeError),
    ("tls_context", "certificate.pem", TypeError),
    *((name, value, TypeError) for name in ("max_value_size", "max_request_size")
      for value in (None, "1", 1.0, True)),
    *((name, value, ValueError) for name in ("max_value_size", "max_request_size")
      for value in (0, -1, 2**31 - 2, 2**64)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value", "error"), BAD_OPTIONS, ids=ascii)
def test_a_bad_value_is_refused_with_the_options_name(
    name: str, value: Any, error: type[Exception]
) -> None:
    position = list(CLIENT.options).index(name)
    defaults = [option.default for option in CLIENT.options.values()]
    for make in (
        lambda: Client("localhost", **{name: value}),
        lambda: Client("localhost", *defaults[:position], value),
    ):
        with pytest.raises(error, match=rf"^{name}\b"):
            make()


BAD_POOL_OPTIONS: list[tuple[str, Any, type[Exception]]] = [
    *(("max_pool_size", value, TypeError) for value in ("4", 4.0, True)),
    ("max_pool_size", -1, ValueError),
    *((name, value, TypeError) for name in ("pool_idle_timeout", "pool_wait_timeout")
      for value in ("1", True, [])),
    *((name, value, ValueError) for name in ("pool_idle_timeout", "pool_wait_timeout")
      for value in (-1, float("nan"), float("inf"))),
    ("lock_generator", 5, TypeError),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value", "error"), BAD_POOL_OPTIONS, ids=ascii)
def test_a_bad_value_for_the_pool_is_refused_with_the_options_name(
    name: str, value: Any, error: type[Exception]
) -> None:
    with pytest.raises(error, match=rf"^{name}\b"):
        PooledClient("localhost", **{name: value})


def test_the_pools_limits_may_be_none() -> None:
    for none in (None, 0):
        client = PooledClient("localhost", max_pool_size=none, pool_idle_timeout=none)
        assert client.client_pool.max_size == 2**31
    with pytest.raises(TypeError, match="did you mean 'max_pool_size'"):
        PooledClient("localhost", pool_size=4)


def test_an_option_is_given_once() -> None:
    with pytest.raises(TypeError, match="multiple values for argument 'serde'"):
        Client("localhost", None, serde=None)
    with pytest.raises(TypeError, match="at most"):
        Client("localhost", *[None] * 100)


CREDENTIALS: list[tuple[Any, Any, type[Exception], str]] = [
    ("user", None, ValueError, "username and password must be given together"),
    (None, "secret", ValueError, "username and password must be given together"),
    (5, "secret", TypeError, "username"),
    ("user", 5, TypeError, "password"),
    ("", "secret", MemcacheIllegalInputError, "username"),
    ("two words", "secret", MemcacheIllegalInputError, "username"),
    ("user\r\n", "secret", MemcacheIllegalInputError, "username"),
    ("user", "secret\r\nflush_all", MemcacheIllegalInputError, "password"),
    ("user", b"secret\0", MemcacheIllegalInputError, "password"),
    ("\udc80", "secret", MemcacheIllegalInputError, "username"),
    ("user", "secret\udc80", MemcacheIllegalInputError, "password"),
]


@pytest.mark.parametrize(("username", "password", "error", "match"), CREDENTIALS, ids=ascii)
def test_bad_credentials_are_refused_and_not_shown(
    username: Any, password: Any, error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match) as caught:
        Client("localhost", username=username, password=password)
    assert "secret" not in str(caught.value)
    assert "secret" not in repr(caught.value.__cause__)


@pytest.mark.parametrize("password", ["hunter2", b"hunter2"])
@pytest.mark.parametrize("pooling", [False, True])
def test_a_cluster_shows_no_password(password: Any, pooling: bool) -> None:
    cluster = HashClient(["localhost"], username="user", password=password, use_pooling=pooling)
    cluster.add_server("localhost:11212")
    assert cluster.default_kwargs["password"] == password
    assert "hunter2" not in repr(vars(cluster))
    assert "hunter2" not in repr([vars(client) for client in cluster.clients.values()])


def test_tls_needs_a_tcp_address() -> None:
    with pytest.raises(ValueError, match="tls_context"):
        Client("/run/memcached", tls_context=ssl.create_default_context())


@pytest.mark.parametrize("name", ["idle", "intvl", "cnt"])
def test_keepalive_options_are_numbers_from_one(name: str) -> None:
    for value in (0, -1):
        with pytest.raises(ValueError, match=name):
            KeepaliveOpts(**{name: value})
    for value in ("1", None, 1.5):
        with pytest.raises(TypeError, match=name):
            KeepaliveOpts(**{name: value})


def test_keepalive_options_show_themselves() -> None:
    options = KeepaliveOpts(2, 3, 4)
    assert (options.idle, options.intvl, options.cnt) == (2, 3, 4)
    assert repr(options) == "KeepaliveOpts(idle=2, intvl=3, cnt=4)"
    assert Client("localhost", socket_keepalive=options).socket_keepalive is options


# -- what a client shows ---------------------------------------------------------------------------


def test_options_are_attributes_as_they_were_given() -> None:
    module = SimpleNamespace(socket=socket.socket)
    context = ssl.create_default_context()
    given: dict[str, Any] = {
        "serde": PickleSerde(),
        "connect_timeout": 3,
        "timeout": 0.5,
        "no_delay": False,
        "ignore_exc": True,
        "socket_module": module,
        "socket_keepalive": KeepaliveOpts(),
        "key_prefix": b"prefix",
        "default_noreply": False,
        "allow_unicode_keys": True,
        "encoding": "utf-8",
        "tls_context": context,
    }
    client = Client("localhost", **given)
    assert {name: getattr(client, name) for name in given} == given
    by_position = [given.get(name) for name in list(CLIENT.options)[: len(given) + 2]]
    other = Client("localhost", *by_position)
    assert {name: getattr(other, name) for name in given} == given


def test_the_defaults_are_those_of_the_signature() -> None:
    client = Client("localhost")
    for name, parameter in inspect.signature(Client).parameters.items():
        shown = getattr(client, name, None)
        if name not in ("server", "serde"):
            assert shown == (parameter.default if hasattr(client, name) else None), name
    assert client.socket_module is socket
    assert client.serde.serialize("key", b"value") == (b"value", 0)


def test_an_option_that_is_built_in_cannot_be_assigned() -> None:
    client = Client("localhost")
    for name in ("serde", "timeout", "connect_timeout", "key_prefix", "encoding", "tls_context"):
        with pytest.raises(AttributeError, match=name):
            setattr(client, name, None)
    client.ignore_exc = True
    client.default_noreply = False


def test_a_repr_shows_the_server_and_no_secret() -> None:
    assert repr(Client(("localhost", 11211))) == "<Client localhost:11211>"
    assert repr(Client("[::1]")) == "<Client [::1]:11211>"
    assert repr(Client("/run/memcached")) == "<Client /run/memcached>"
    client = Client("localhost", username="user", password="hunter2")
    assert "hunter2" not in repr(client)
    assert "hunter2" not in repr(vars(client))
    assert not hasattr(client, "password")


TYPED = ["ClientOptions", "PooledClientOptions", "HashClientOptions"]


@pytest.mark.parametrize(
    ("client_class", "options", "typed_classes"),
    [
        (Client, CLIENT, TYPED[:1]),
        (PooledClient, POOLED_CLIENT, TYPED[:2]),
        (HashClient, HASH_CLIENT, TYPED),
        (
            AWSElastiCacheHashClient,
            AWS_ELASTICACHE_HASH_CLIENT,
            [*TYPED, "AWSElastiCacheHashClientOptions"],
        ),
    ],
)
def test_the_typed_options_and_the_table_are_the_same(
    client_class: type, options: OptionSet, typed_classes: list[str]
) -> None:
    assert list(options.options) == list(inspect.signature(client_class).parameters)[1:]
    for name in options.options:
        assert f"\n    {name}: " in (client_class.__doc__ or ""), name
    # The typed ones exist for type checkers only: typing is not loaded at run time.
    tree = ast.parse(inspect.getsource(options_module))
    typed = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and node.name in typed_classes
    ]
    fields = [field for node in typed for field in node.body if isinstance(field, ast.AnnAssign)]
    names = [field.target.id for field in fields if isinstance(field.target, ast.Name)]
    assert sorted(names) == sorted(options.options)


def test_a_subclass_may_have_a_constructor_of_its_own() -> None:
    class Mine(Client):
        def __init__(self, name: str, **options: Any) -> None:
            super().__init__(f"{name}:11211", **options)

    class Plain(Client):
        pass

    assert list(inspect.signature(Mine).parameters) == ["name", "options"]
    assert inspect.signature(Plain) == inspect.signature(Client)
    assert Mine("localhost", timeout=1).timeout == 1
    with pytest.raises(TypeError, match=r"Mine\(\) has no option 'time'"):
        Mine("localhost", time=1)
