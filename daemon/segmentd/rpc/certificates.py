"""The server's certificate: checked before it is used, and read again when its files change."""

from __future__ import annotations

import ssl
import stat
import threading
from pathlib import Path

import grpc

from segmentd import telemetry
from segmentd.errors import ConfigurationError
from segmentd.settings.problems import line

_Contents = tuple[bytes, ...]
_log = telemetry.get_logger(__name__)


class Certificates:
    """Certificate and key of the server, and the authorities whose clients are let in.

    gRPC asks at each handshake, so that a renewed certificate needs no restart. What does not fit together,
    such as a new certificate beside the old key, is left alone until it does.

    Parameters
    ----------
    certificate, key : Path
        PEM files.
    client_ca : Path or None
        Authorities of client certificates; None asks clients for none.

    Raises
    ------
    ConfigurationError
        A file cannot be read or is not what it should be.
    """

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None) -> None:
        self._certificate = certificate
        self._key = key
        self._client_ca = client_ca
        self._mutex = threading.Lock()
        self._contents = self._read()
        self._told = ""
        self._check()

    def credentials(self) -> grpc.ServerCredentials:
        """Return what a secure port of gRPC needs."""
        return grpc.dynamic_ssl_server_credentials(
            self._configuration(),
            self._renewed,  # type: ignore[arg-type]  # None means: as before
            require_client_authentication=self._client_ca is not None,
        )

    def _renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """Return the certificate if it is another one; called by threads of gRPC."""
        with self._mutex:
            try:
                contents = self._read()
                if contents == self._contents:
                    return None
                self._check()
                if self._read() != contents:  # it is just being written
                    return None
            except (ConfigurationError, OSError) as error:
                if str(error) != self._told:
                    _log.warning("the certificate stays as it was", why=str(error))
                    self._told = str(error)
                return None
            self._told = ""
            self._contents = contents
            _log.info("certificate read again")
            return self._configuration()

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        certificate, key, *authorities = self._contents
        return grpc.ssl_server_certificate_configuration(
            [(key, certificate)], authorities[0] if authorities else None
        )

    def _read(self) -> _Contents:
        files = [("tls_certificate", self._certificate), ("tls_key", self._key)]
        if self._client_ca is not None:
            files.append(("client_ca", self._client_ca))
        return tuple(_contents(key, path) for key, path in files)

    def _check(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if self._key.stat().st_mode & stat.S_IRWXO:
            rule = "is open to every user; run: chmod o= FILE"
            raise ConfigurationError([line("server.tls_key", self._key, rule)])
        try:
            context.load_cert_chain(self._certificate, self._key, password=lambda: b"")
        except ssl.SSLError as error:
            rule = f"must be a PEM certificate that goes with tls_key, without a passphrase ({_cause(error)})"
            raise ConfigurationError([line("server.tls_certificate", self._certificate, rule)]) from None
        if self._client_ca is not None:
            try:
                context.load_verify_locations(self._client_ca)
            except ssl.SSLError as error:
                rule = f"must be a PEM file of certificates ({_cause(error)})"
                raise ConfigurationError([line("server.client_ca", self._client_ca, rule)]) from None


def _contents(key: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        rule = f"cannot be read ({error.strerror}); name a PEM file"
        raise ConfigurationError([line(f"server.{key}", path, rule)]) from None


def _cause(error: ssl.SSLError) -> str:
    return (error.reason or "not PEM").replace("_", " ").lower()
