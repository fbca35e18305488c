"""Who may reach the daemon: what the keys of `[server]` must be together."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from segmentd.settings import problems
from segmentd.settings.schema import ServerSettings


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine only; a name may resolve to anything, `localhost` may not."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def contradictions(server: ServerSettings) -> Iterator[str]:
    """Find what keys of `[server]` break together, as `key = value: rule`."""
    secured = server.tls_certificate is not None
    if secured is not (server.tls_key is not None):
        given, missing = ("tls_certificate", "tls_key") if secured else ("tls_key", "tls_certificate")
        yield problems.line(f"server.{given}", getattr(server, given), f"needs {missing} too")
    if server.client_ca is not None and not secured:
        yield problems.line("server.client_ca", server.client_ca, "needs tls_certificate and tls_key too")
    if not server.listen:
        if server.unix_socket is None:
            yield problems.line("server.listen", "", "must be HOST:PORT where there is no unix_socket")
        return
    if is_loopback(server.host):
        return
    missing_keys = [] if secured else ["tls_certificate and tls_key"]
    if server.token_file is None and server.client_ca is None:
        missing_keys.append("token_file or client_ca")
    if missing_keys:
        rule = (
            "must be a loopback address such as 127.0.0.1: a network address needs TLS and a token "
            f"or client certificates; give {', and '.join(missing_keys)}"
        )
        yield problems.line("server.listen", server.listen, rule)
