"""Certificates for a test, made by the `openssl` command."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Pair:
    """A certificate and its key."""

    certificate: Path
    key: Path


class Authority:
    """Issues certificates; its own is `ca`."""

    def __init__(self, folder: Path, name: str) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("needs the openssl command to make certificates")
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.ca = folder / f"{name}.pem"
        self._key = folder / f"{name}.key"
        _openssl("req", "-x509", *_key(self._key), "-out", self.ca, "-days", "2", "-subj", f"/CN={name}")

    def issue(self, name: str, *hosts: str) -> Pair:
        """Make a certificate for hosts, which are IP addresses."""
        pair = Pair(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        request, extensions = self._folder / f"{name}.csr", self._folder / f"{name}.ext"
        names = ",".join(["DNS:segmentd.test", *(f"IP:{host}" for host in hosts)])
        extensions.write_text(f"subjectAltName={names}\n")
        _openssl("req", *_key(pair.key), "-out", request, "-subj", f"/CN={name}")
        issuer = ("-CA", self.ca, "-CAkey", self._key, "-CAcreateserial", "-days", "2")
        _openssl("x509", "-req", "-in", request, *issuer, "-extfile", extensions, "-out", pair.certificate)
        return pair


def _key(path: Path) -> tuple[str | Path, ...]:
    return "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", path


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=60)
