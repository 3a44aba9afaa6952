"""What tests/integrations/test_tracers.py runs: a tracer's spans of the calls of `USES`.

``python tracing.py PACKAGE TRACER SERVER OTHER_SERVER``, with pymemcache or cymemcache for PACKAGE,
prints for each kind of client and each use its result and its spans, as a name, a server and keys.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
from collections.abc import Callable
from typing import Any

import cymemcache

USES: list[tuple[str, Callable[[Any], Any]]] = [
    ("set", lambda client: client.set("key", b"1", noreply=False)),
    ("get", lambda client: client.get("key")),
    ("incr", lambda client: client.incr("key", 1)),
    ("set_many", lambda client: client.set_many(dict.fromkeys(KEYS, b"v"), noreply=False)),
    ("get_many", lambda client: sorted(client.get_many(KEYS))),
    ("delete_many", lambda client: client.delete_many(KEYS, noreply=False)),
    ("gets", lambda client: client.gets("none")),
    ("set_multi", lambda client: client.set_multi(dict.fromkeys(KEYS, b"v"), noreply=False)),
    ("get_multi", lambda client: sorted(client.get_multi(KEYS))),
    ("gets_many", lambda client: sorted(client.gets_many(KEYS))),
    ("delete_multi", lambda client: client.delete_multi(KEYS, noreply=False)),
]
KEYS = [f"key{number}" for number in range(10)]


def hide_the_distribution() -> None:
    """As though pymemcache itself were not installed; its modules are not found in any case."""
    find = importlib.metadata.Distribution.from_name

    def from_name(name: str) -> Any:
        if name == "pymemcache":
            raise importlib.metadata.PackageNotFoundError(name)
        return find(name)

    importlib.metadata.Distribution.from_name = from_name  # type: ignore[method-assign]


def opentelemetry(skip_dep_check: bool) -> Callable[[], list[dict[str, Any]]]:
    if skip_dep_check:
        hide_the_distribution()
    from opentelemetry import trace
    from opentelemetry.instrumentation.pymemcache import PymemcacheInstrumentor
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    if skip_dep_check:
        # Without the distribution it does nothing, unless told not to look for it.
        PymemcacheInstrumentor().instrument()
        assert not hasattr(cymemcache.Client.get, "__wrapped__")
    PymemcacheInstrumentor().instrument(skip_dep_check=skip_dep_check)

    def spans() -> list[dict[str, Any]]:
        found = [
            {
                "name": span.name,
                "server": f"{span.attributes['net.peer.name']}:{span.attributes['net.peer.port']}",
                "keys": span.attributes["db.statement"].split()[1:],
            }
            for span in exporter.get_finished_spans()
        ]
        exporter.clear()
        return found

    return spans


def ddtrace() -> Callable[[], list[dict[str, Any]]]:
    os.environ["DD_TRACE_MEMCACHED_COMMAND_ENABLED"] = "1"
    os.environ["DD_INSTRUMENTATION_TELEMETRY_ENABLED"] = "0"
    from ddtrace import patch
    from ddtrace.trace import TraceFilter, tracer

    kept: list[Any] = []

    class Keep(TraceFilter):
        def process_trace(self, trace: Any) -> None:
            kept.extend(trace)

    tracer.configure(trace_processors=[Keep()])
    patch(pymemcache=True)

    def spans() -> list[dict[str, Any]]:
        found = [
            {
                "name": span.resource,
                "server": "{}:{}".format(
                    span.get_tag("out.host"), span.get_metric("network.destination.port")
                ).removesuffix(".0"),
                "keys": span.get_tag("memcached.query").split()[1:],
            }
            for span in kept
        ]
        kept.clear()
        return found

    return spans


def elastic() -> Callable[[], list[dict[str, Any]]]:
    import elasticapm
    from elasticapm.transport.base import Transport as Base

    class Transport(Base):
        def queue(self, event_type: str, data: Any, flush: bool = False) -> None:
            if event_type == "span":
                kept.append(data)

        def start_thread(self, pid: int | None = None) -> None:
            self._thread = None

        def close(self) -> None:
            pass

    kept: list[Any] = []
    sys.modules["tracing_transport"] = sys.modules[__name__]
    globals()["Transport"] = Transport
    client = elasticapm.Client(
        service_name="test",
        transport_class="tracing_transport.Transport",
        span_compression_enabled=False,
        metrics_interval="0ms",
        central_config=False,
        cloud_provider="none",
        disable_log_record_factory=True,
    )
    elasticapm.instrument()
    client.begin_transaction("test")

    def spans() -> list[dict[str, Any]]:
        client.end_transaction("test", "ok")
        client.begin_transaction("test")
        found = [
            {
                "name": span["name"],
                # A cluster says none.
                "server": "{address}:{port}".format(**span["context"]["destination"]),
                "keys": [],
            }
            for span in kept
        ]
        kept.clear()
        return found

    return spans


TRACERS: dict[str, Callable[[], Callable[[], list[dict[str, Any]]]]] = {
    "opentelemetry": lambda: opentelemetry(False),
    "opentelemetry alone": lambda: opentelemetry(True),
    "ddtrace": ddtrace,
    "elastic": elastic,
}


def main(package: str, tracer: str, *servers: str) -> None:
    if package == "cymemcache":
        cymemcache.install_as_pymemcache()
    spans = TRACERS[tracer]()
    from pymemcache.client.base import Client, PooledClient
    from pymemcache.client.hash import HashClient

    told = {}
    for kind, make in {
        "Client": lambda: Client(split(servers[0])),
        "PooledClient": lambda: PooledClient(split(servers[0]), max_pool_size=2),
        "HashClient": lambda: HashClient([split(server) for server in servers]),
        "pooled HashClient": lambda: HashClient(
            [split(server) for server in servers], use_pooling=True
        ),
    }.items():
        client = make()
        spans()
        uses = []
        for name, use in USES:
            result = use(client)
            uses.append((name, repr(result), spans()))
        client.close()
        spans()
        told[kind] = uses
    print(json.dumps(told))


def split(server: str) -> tuple[str, int]:
    host, _, port = server.rpartition(":")
    return host, int(port)


if __name__ == "__main__":
    main(*sys.argv[1:])
