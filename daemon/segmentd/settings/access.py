"""Who may reach the daemon: what the keys of `[server]` must be together."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping

from pydantic_core import PydanticCustomError

from segmentd.settings import problems
from segmentd.settings.schema import ServerSettings
from segmentd.settings.values import split_listen


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


def contradictions(server: object) -> Iterator[str]:
    """Find what keys of `[server]` break together, as `key = value: rule`.

    Parameters
    ----------
    server : object
        The table as it was read: only which keys are given counts here, so that this is told beside whatever
        else is wrong with them.
    """
    if not isinstance(server, Mapping):
        return
    secured = "tls_certificate" in server
    if secured is not ("tls_key" in server):
        given, missing = ("tls_certificate", "tls_key") if secured else ("tls_key", "tls_certificate")
        yield problems.line(f"server.{given}", server[given], f"needs {missing} too")
    if "client_ca" in server and not secured:
        yield problems.line("server.client_ca", server["client_ca"], "needs tls_certificate and tls_key too")
    listen = server.get("listen", ServerSettings().listen)
    if listen == "" and "unix_socket" not in server:
        yield problems.line("server.listen", "", "must be HOST:PORT where there is no unix_socket")
    if not listen or not _is_network(listen):
        return
    missing_keys = [] if secured else ["tls_certificate and tls_key"]
    if "token_file" not in server and "client_ca" not in server:
        missing_keys.append("token_file or client_ca")
    if missing_keys:
        rule = (
            "must be a loopback address such as 127.0.0.1: a network address needs TLS and a token "
            f"or client certificates; give {', and '.join(missing_keys)}"
        )
        yield problems.line("server.listen", listen, rule)


def _is_network(listen: object) -> bool:
    try:
        return isinstance(listen, str) and not is_loopback(split_listen(listen)[0])
    except PydanticCustomError:  # no address at all, which is told elsewhere
        return False
