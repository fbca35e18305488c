"""How a client shows who it is, and whom it trusts: token, authority, certificate."""

from __future__ import annotations

import ipaddress
import os
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import grpc

from segmentctl.errors import DaemonError

BAD_ACCESS = "BAD_ACCESS"
"""Reason of a `DaemonError` when token or certificates cannot be used; nothing was sent."""

_SCOPES = ("admin", "submit", "read")


@dataclass(frozen=True)
class Access:
    """What to open a channel with.

    What is None is taken from the environment: SEGMENTD_TOKEN or SEGMENTD_TOKEN_FILE, SEGMENTD_CA,
    SEGMENTD_CERTIFICATE, SEGMENTD_KEY.

    Attributes
    ----------
    token : str or None
        The token to send.
    ca : Path or str or None
        PEM file of the authorities that may vouch for the daemon; by default those that gRPC comes with.
    certificate, key : Path or str or None
        PEM files of the client's own certificate.
    """

    token: str | None = None
    ca: Path | str | None = None
    certificate: Path | str | None = None
    key: Path | str | None = None

    def channel(self, address: str, options: list[tuple[str, Any]]) -> grpc.Channel:
        """Open a channel; TLS where an authority or a certificate is given, and always beyond this machine.

        Raises
        ------
        DaemonError
            BAD_ACCESS, where a file cannot be used.
        """
        ca, certificate, key = (_named(self, name) for name in ("ca", "certificate", "key"))
        if (certificate is None) is not (key is None):
            raise _unusable("A client certificate and its key go together: give both, or neither.")
        token = self.token or _token_of_environment()
        if ca is None and certificate is None and on_this_machine(address):
            channel = grpc.insecure_channel(address, options=options)
        else:
            own = (_read(key), _read(certificate)) if key and certificate else (None, None)
            credentials = grpc.ssl_channel_credentials(_read(ca) if ca else None, *own)
            channel = grpc.secure_channel(address, credentials, options=options)
        return grpc.intercept_channel(channel, _Bearer(token)) if token else channel


def on_this_machine(address: str) -> bool:
    """Return whether an address is a Unix socket or a loopback one."""
    if address.startswith(("unix:", "unix-abstract:")):
        return True
    host = address.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_token(path: Path) -> str:
    """Read a file that holds a token and nothing else, or the daemon's own: then its widest token counts.

    Raises
    ------
    DaemonError
        BAD_ACCESS, where there is none.
    """
    text = _read(path).decode("ascii", "replace")
    token = text.strip()
    if "\n" in token or '"' in token:
        try:
            table = tomllib.loads(text)
        except tomllib.TOMLDecodeError:
            table = {}
        found = [tokens[0] for scope in _SCOPES if isinstance(tokens := table.get(scope), list) and tokens]
        token = str(found[0]) if found else ""
    if not token:
        raise _unusable(f"{path} holds no token: it must hold the token alone, or be the daemon's own file.")
    return _checked(token, str(path))


def _named(access: Access, name: str) -> Path | None:
    value = getattr(access, name) or os.environ.get(f"SEGMENTD_{name.upper()}")
    return Path(value) if value else None


def _token_of_environment() -> str | None:
    token = os.environ.get("SEGMENTD_TOKEN")
    if token:
        return _checked(token.strip(), "SEGMENTD_TOKEN")
    path = os.environ.get("SEGMENTD_TOKEN_FILE")
    return read_token(Path(path)) if path else None


def _checked(token: str, source: str) -> str:
    if not token.isascii() or not token.isprintable() or " " in token:
        raise _unusable(f"{source} does not hold a token: it must be letters, digits and punctuation.")
    return token


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unusable(f"{path} cannot be read: {error.strerror}.") from None


def _unusable(message: str) -> DaemonError:
    return DaemonError(BAD_ACCESS, message, code="UNAUTHENTICATED")


class _Details(NamedTuple):
    """What a call is made with; gRPC's own class cannot be built."""

    method: str
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: Any
    compression: Any


class _Bearer(
    grpc.UnaryUnaryClientInterceptor,  # type: ignore[misc,unused-ignore]
    grpc.UnaryStreamClientInterceptor,  # type: ignore[misc,unused-ignore]
    grpc.StreamUnaryClientInterceptor,  # type: ignore[misc,unused-ignore]
    grpc.StreamStreamClientInterceptor,  # type: ignore[misc,unused-ignore]
):
    """Sends a token with every call."""

    def __init__(self, token: str) -> None:
        self._entry = ("authorization", f"Bearer {token}")

    def _send(self, continuation: Callable[[Any, Any], Any], details: Any, request: Any) -> Any:
        metadata = [*(details.metadata or ()), self._entry]
        rest = (details.credentials, details.wait_for_ready, details.compression)
        return continuation(_Details(details.method, details.timeout, metadata, *rest), request)

    # gRPC types each kind of call by itself; what is done is the same
    intercept_unary_unary = intercept_unary_stream = _send  # type: ignore[assignment,unused-ignore]
    intercept_stream_unary = intercept_stream_stream = _send  # type: ignore[assignment,unused-ignore]
