"""Certificates made for the occasion, with the program openssl."""

from __future__ import annotations

import subprocess
from pathlib import Path


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


class Authority:
    """A certificate authority in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.certificate = directory / "ca.crt"
        self._key = directory / "ca.key"
        openssl(
            *(
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=test ca",
            ),
            *("-addext", "keyUsage=critical,keyCertSign", "-keyout", self._key),
            *("-out", self.certificate),
        )

    def issue(self, name: str, days: int = 1) -> tuple[Path, Path]:
        """The files of a certificate for `name` and of its key."""
        base = self._directory / f"{name}-{days}"
        certificate, key, request = (base.with_suffix(end) for end in (".crt", ".key", ".csr"))
        extensions = base.with_suffix(".ext")
        kind = "IP" if name[0].isdigit() else "DNS"
        extensions.write_text(f"subjectAltName={kind}:{name}\nauthorityKeyIdentifier=keyid\n")
        openssl(
            *("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}"),
            *("-keyout", key, "-out", request),
        )
        openssl(
            *("x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self._key),
            *("-CAcreateserial", "-days", str(days), "-extfile", extensions, "-out", certificate),
        )
        return certificate, key


def memcached_arguments(certificate: Path, key: Path) -> tuple[str, ...]:
    """Of a memcached that speaks TLS with this certificate."""
    return ("-Z", "-o", f"ssl_chain_cert={certificate},ssl_key={key}")
