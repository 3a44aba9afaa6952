"""Cluster configurations: what is read, what is refused (whole), and which answer counts."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cymemcache import MemcacheUnknownError
from cymemcache.configuration import (
    MAX_SIZE,
    OLDER_SECONDS,
    Configuration,
    LatestConfiguration,
    parse_configuration,
)

READ: list[tuple[bytes, int, tuple[tuple[str, str, int], ...]]] = [
    (b"12\na.b-c.com|10.0.0.1|11211\n", 12, (("a.b-c.com", "10.0.0.1", 11211),)),
    (b"1\na|10.0.0.1|1 b|10.0.0.2|65535\n", 1, (("a", "10.0.0.1", 1), ("b", "10.0.0.2", 65535))),
    # Memorystore has no host names.
    (b"3\n10.0.0.1|10.0.0.1|11211\n", 3, (("10.0.0.1", "10.0.0.1", 11211),)),
    # Without an IP address, without a host name, without the field.
    (b"3\na||11211\n", 3, (("a", "", 11211),)),
    (b"3\n|10.0.0.1|11211\n", 3, (("", "10.0.0.1", 11211),)),
    (b"3\na|11211\n", 3, (("a", "", 11211),)),
    # IPv6, in brackets or not, in either place.
    (b"3\na|2001:db8::1|11211\n", 3, (("a", "2001:db8::1", 11211),)),
    (b"3\na|[2001:db8::1]|11211\n", 3, (("a", "2001:db8::1", 11211),)),
    (b"3\n[::1]||11211\n", 3, (("::1", "", 11211),)),
    (b"3\na|::ffff:10.0.0.1|11211\n", 3, (("a", "::ffff:10.0.0.1", 11211),)),
    # Emulators write names in both places, other line ends, more blanks.
    (b"3\nlocalhost|localhost|11211\n", 3, (("localhost", "localhost", 11211),)),
    (b"3\r\na|10.0.0.1|11211\r\n", 3, (("a", "10.0.0.1", 11211),)),
    (b"3\na|10.0.0.1|11211", 3, (("a", "10.0.0.1", 11211),)),
    (b"3\n a|10.0.0.1|1  b||2 \n\n", 3, (("a", "10.0.0.1", 1), ("b", "", 2))),
    (b"0\na||1\n", 0, (("a", "", 1),)),
    (b"18446744073709551615\na||1\n", 18446744073709551615, (("a", "", 1),)),
]

NODE = b"a|10.0.0.1|11211"

REFUSED: list[tuple[bytes, str]] = [
    (b"", "no version number"),
    (b"\n" + NODE + b"\n", "no version number"),
    (b"x\n" + NODE + b"\n", "no version number"),
    (b"-1\n" + NODE + b"\n", "no version number"),
    (b"+1\n" + NODE + b"\n", "no version number"),
    (b"1.5\n" + NODE + b"\n", "no version number"),
    (b" 1\n" + NODE + b"\n", "no version number"),
    ("\u0661\n".encode() + NODE + b"\n", "no version number"),
    (b"18446744073709551616\n" + NODE + b"\n", "no version number"),
    (b"9" * 5000 + b"\n" + NODE + b"\n", "no version number"),
    (NODE + b"\n", "no version number"),
    (b"1", "one line of nodes"),
    (b"1\n\n", "one line of nodes"),
    (b"1\n" + NODE + b"\n" + NODE + b"\n", "one line of nodes"),
    (b"1\n\n" + NODE + b"\n", "one line of nodes"),
    (b"1\n  \n", "names no nodes"),
    (b"1\na\n", "host|ip|port"),
    (b"1\n" + NODE + b" b\n", "host|ip|port"),
    (b"1\n" + NODE + b"|x\n", "host|ip|port"),
    (b"1\n||11211\n", "host|ip|port"),
    (b"1\n|11211\n", "host|ip|port"),
    (b"1\na|10.0.0.1|\n", "host|ip|port"),
    (b"1\na|10.0.0.1|0\n", "host|ip|port"),
    (b"1\na|10.0.0.1|65536\n", "host|ip|port"),
    (b"1\na|10.0.0.1|-1\n", "host|ip|port"),
    (b"1\na|10.0.0.1|1_0\n", "host|ip|port"),
    (b"1\na|10.0.0.1|000011211\n", "host|ip|port"),
    (b"1\na|10.0.0.1|memcache\n", "host|ip|port"),
    (b"1\n" + NODE + b"," + NODE + b"\n", "host|ip|port"),
    (b"1\na|10.0.0.999|11211\n", "neither a host name"),
    (b"1\na|10.0.1|11211\n", "neither a host name"),
    (b"1\n...||11211\n", "neither a host name"),
    (b"1\na|:::|11211\n", "neither a host name"),
    (b"1\na|fe80::1%eth0|11211\n", "neither a host name"),
    (b"1\na|[::1|11211\n", "neither a host name"),
    (b"1\na|[10.0.0.1]|11211\n", "neither a host name"),
    (b"1\na/b||11211\n", "neither a host name"),
    (b"1\na\tb||11211\n", "neither a host name"),
    (b"1\na\0b||11211\n", "neither a host name"),
    (b"1\na\rb||11211\n", "neither a host name"),
    ("1\n\u00e4||11211\n".encode(), "neither a host name"),
    (b"1\n" + b"a" * 256 + b"||11211\n", "neither a host name"),
    (b"1\n" + b"a||1 " * (MAX_SIZE // 5), "longer than"),
]


@pytest.mark.parametrize(("data", "version", "nodes"), READ)
def test_a_configuration(
    data: bytes, version: int, nodes: tuple[tuple[str, str, int], ...]
) -> None:
    assert parse_configuration(data) == Configuration(version, nodes)


@pytest.mark.parametrize(("data", "reason"), REFUSED, ids=range(len(REFUSED)))
def test_what_is_none_is_refused_whole(data: bytes, reason: str) -> None:
    with pytest.raises(MemcacheUnknownError, match="not a cluster configuration") as raised:
        parse_configuration(data)
    assert reason in str(raised.value)
    assert len(str(raised.value)) < 1000


hosts = st.from_regex(r"[a-z][a-z0-9.-]{0,20}", fullmatch=True)
addresses = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str)
ports = st.integers(1, 65535)
nodes_of_all_kinds = st.one_of(
    st.tuples(hosts, addresses, ports),
    st.tuples(hosts, st.just(""), ports),
    st.tuples(st.just(""), addresses, ports),
    st.tuples(addresses, addresses, ports),
)
configurations = st.builds(
    Configuration,
    st.integers(0, (1 << 64) - 1),
    st.lists(nodes_of_all_kinds, min_size=1, max_size=20).map(tuple),
)


def written(configuration: Configuration) -> bytes:
    nodes = " ".join(f"{host}|{ip}|{port}" for host, ip, port in configuration.nodes)
    return f"{configuration.version}\n{nodes}\n".encode()


@given(configurations)
def test_any_configuration_is_read_as_it_was_written(configuration: Configuration) -> None:
    assert parse_configuration(written(configuration)) == configuration


pieces = st.sampled_from([b"|", b" ", b"\n", b"\r", b":", b".", b"[", b"]", b"0", b"11211", b"a"])


@given(st.one_of(st.binary(max_size=200), st.lists(pieces, max_size=40).map(b"".join)))
@example(b"1\n|:|1")
def test_garbage_raises_nothing_else_and_gives_every_node_or_none(data: bytes) -> None:
    try:
        configuration = parse_configuration(data)
    except MemcacheUnknownError:
        return
    named = data.partition(b"\n")[2].split()
    assert len(configuration.nodes) == len(named) > 0
    for (host, ip, port), field in zip(configuration.nodes, named, strict=True):
        assert host or ip
        assert 0 < port < 65536
        for text in (host, ip):
            assert text.encode() in field
    # What was read has one meaning only.
    assert parse_configuration(written(configuration)) == configuration


@given(configurations, st.data())
def test_a_damaged_configuration_is_never_read_as_fewer_nodes(
    configuration: Configuration, data: st.DataObject
) -> None:
    text = written(configuration)
    position = data.draw(st.integers(0, len(text) - 1))
    damaged = text[:position] + data.draw(st.binary(min_size=1, max_size=3)) + text[position + 1 :]
    try:
        read = parse_configuration(damaged)
    except MemcacheUnknownError:
        return
    assert len(read.nodes) == len(damaged.partition(b"\n")[2].split())


def test_nodes_are_reached_by_ip_address_or_by_host_name() -> None:
    both = Configuration(1, (("a", "10.0.0.1", 1), ("b", "::1", 2)))
    assert both.addresses(use_ip=True) == [("10.0.0.1", 1), ("::1", 2)]
    assert both.addresses(use_ip=False) == [("a", 1), ("b", 2)]


def test_a_node_that_has_only_one_of_them_is_reached_by_that() -> None:
    one = Configuration(1, (("a", "", 1), ("", "10.0.0.2", 2)))
    assert one.addresses(use_ip=True) == [("a", 1), ("10.0.0.2", 2)]
    assert one.addresses(use_ip=False) == [("a", 1), ("10.0.0.2", 2)]


def test_a_node_that_is_named_twice_is_one_node() -> None:
    twice = Configuration(1, (("a", "10.0.0.1", 1), ("b", "10.0.0.1", 1), ("a", "10.0.0.1", 2)))
    assert twice.addresses(use_ip=True) == [("10.0.0.1", 1), ("10.0.0.1", 2)]
    assert twice.addresses(use_ip=False) == [("a", 1), ("b", 1), ("a", 2)]


# -- which answer counts ---------------------------------------------------------------------------


def version(number: int, host: str = "a") -> Configuration:
    return Configuration(number, ((host, "", 1),))


def test_the_first_answer_counts_and_so_does_each_newer_one() -> None:
    latest = LatestConfiguration()
    assert latest.value is None
    for number in (5, 6, 60):
        assert latest.take(version(number), 0.0)
        assert latest.value == version(number)


def test_an_answer_under_the_same_number_counts() -> None:
    latest = LatestConfiguration()
    latest.take(version(5), 0.0)
    assert latest.take(version(5, "b"), 1.0)
    assert latest.value == version(5, "b")


def test_an_older_answer_does_not_count() -> None:
    latest = LatestConfiguration()
    latest.take(version(5), 0.0)
    assert not latest.take(version(4), 1.0)
    assert latest.value == version(5)


def test_an_older_answer_counts_when_nothing_else_has_come_for_long() -> None:
    latest = LatestConfiguration()
    latest.take(version(5), 0.0)
    assert not latest.take(version(1), 100.0)
    assert not latest.take(version(2), 100.0 + OLDER_SECONDS - 1)
    assert latest.take(version(2), 100.0 + OLDER_SECONDS)
    assert latest.value == version(2)


@pytest.mark.parametrize("current", [5, 6])
def test_nodes_that_lag_behind_are_not_believed_while_others_know_better(current: int) -> None:
    latest = LatestConfiguration()
    latest.take(version(5), 0.0)
    assert not latest.take(version(4), 1.0)
    assert latest.take(version(current), OLDER_SECONDS)
    assert not latest.take(version(4), OLDER_SECONDS + 2)
    assert not latest.take(version(4), 2 * OLDER_SECONDS + 1)
    assert latest.value == version(current)
