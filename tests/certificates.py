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

    def issue(self, name: str, expired: bool = False) -> tuple[Path, Path]:
        """The files of a certificate for `name` and of its key."""
        base = str(self._directory / (f"{name}-expired" if expired else name))
        certificate, key, request, extensions, configuration = (
            Path(base + end) for end in (".crt", ".key", ".csr", ".ext", ".cnf")
        )
        kind = "IP" if name[0].isdigit() else "DNS"
        extensions.write_text(f"subjectAltName={kind}:{name}\nauthorityKeyIdentifier=keyid\n")
        openssl(
            *("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}"),
            *("-keyout", key, "-out", request),
        )
        # Only `ca` takes dates, in each version of OpenSSL.
        (self._directory / "index").touch()
        configuration.write_text(
            "[ca]\ndefault_ca=here\n[here]\npolicy=any\ndefault_md=sha256\nunique_subject=no\n"
            f"database={self._directory}/index\nserial={self._directory}/serial\n"
            f"new_certs_dir={self._directory}\n"
            "[any]\ncommonName=supplied\n"
        )
        dates = ("-startdate", "200101000000Z", "-enddate", "200102000000Z")
        openssl(
            *("ca", "-batch", "-notext", "-rand_serial", "-config", configuration),
            *("-in", request, "-cert", self.certificate, "-keyfile", self._key),
            *(dates if expired else ("-days", "1")),
            *("-extfile", extensions, "-out", certificate),
        )
        return certificate, key


def memcached_arguments(certificate: Path, key: Path) -> tuple[str, ...]:
    """Of a memcached that speaks TLS with this certificate."""
    return ("-Z", "-o", f"ssl_chain_cert={certificate},ssl_key={key}")
