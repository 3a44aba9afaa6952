"""The memcacheds that are measured against: started when they are first wanted, ended together.

Each listens on loopback or on a UNIX socket of its own; nothing in here may use a server that was
there before.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cymemcache.testing import MemcachedProcess

from .workloads import Setup, Workload

_ARGUMENTS = ("-m", "256", "-I", "8m", "-c", "2048")


class Servers:
    """Servers by kind, all of which share `processor` (None: wherever the scheduler puts them).

    `timeout` is the seconds that clients with a time limit may take for one command.
    """

    def __init__(self, processor: int | None, timeout: float) -> None:
        self._processor = processor
        self._timeout = timeout
        self._stack = ExitStack()
        self._nodes: list[Any] = []
        self._others: dict[str, Any] = {}
        self._directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory("-bench")))
        self._certificate = self._directory / "certificate.pem"

    def setup(self, workload: Workload) -> Setup:
        """What a client must know for `workload`.

        Raises `RuntimeError` where a server for it cannot be started.
        """
        tls = workload.transport == "tls"
        return Setup(
            servers=tuple(self._addresses(workload)),
            command=workload.command,
            largest=workload.largest,
            timeout=self._timeout if workload.timed else None,
            pickled=workload.pickled,
            certificate=str(self._certificate) if tls else None,
            threads=workload.threads,
        )

    def _addresses(self, workload: Workload) -> list[Any]:
        if workload.shape == "hasher":
            return [("10.0.0.1", 11211 + number) for number in range(workload.nodes)]
        if workload.shape == "shared":  # with threads of its own, wherever there is room
            return [self._other("threads", lambda: MemcachedProcess("-t", "4", *_ARGUMENTS))]
        if workload.transport == "unix":
            path = self._directory / "socket"
            return [self._other("unix", lambda: self._pinned(unix_path=path))]
        if workload.transport == "tls":
            return [self._other("tls", self._over_tls)]
        while len(self._nodes) < workload.nodes:
            self._nodes.append(self._started(self._pinned()))
        return self._nodes[: workload.nodes]

    def _other(self, kind: str, make: Any) -> Any:
        if kind not in self._others:
            self._others[kind] = self._started(make())
        return self._others[kind]

    def _started(self, memcached: MemcachedProcess) -> Any:
        return self._stack.enter_context(memcached).address

    def _pinned(self, *arguments: str, **options: Any) -> MemcachedProcess:
        memcached = MemcachedProcess("-t", "1", *_ARGUMENTS, *arguments, **options)
        memcached.start()
        if self._processor is not None:
            for thread in os.listdir(f"/proc/{memcached.pid}/task"):
                os.sched_setaffinity(int(thread), {self._processor})
        return memcached

    def _over_tls(self) -> MemcachedProcess:
        key = self._directory / "key.pem"
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
        command += ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
        command += ["-keyout", str(key), "-out", str(self._certificate)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"no certificate: {done.stderr.strip()}")
        return self._pinned("-Z", "-o", f"ssl_chain_cert={self._certificate},ssl_key={key}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()
