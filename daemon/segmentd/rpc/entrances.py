"""Where the API can be reached, a TCP address and a Unix socket, and what is too much there."""

from __future__ import annotations

from collections.abc import Sequence

import grpc

from segmentd.process.claims import port_taken
from segmentd.process.socket_file import SOCKET_MODE, check_socket_free, private_sockets
from segmentd.rpc.certificates import Certificates
from segmentd.settings import ServerSettings, is_loopback

_MIB = 1 << 20
_SECOND = 1000  # gRPC counts in milliseconds
_LIMITS = (
    # Otherwise a second daemon would silently share the port.
    ("grpc.so_reuseport", 0),
    ("grpc.max_send_message_length", 16 * _MIB),
    ("grpc.max_metadata_size", 8192),
    ("grpc.absolute_max_metadata_size", 8192),
    ("grpc.max_concurrent_streams", 128),
    # Who has gone without a word is found out.
    ("grpc.keepalive_time_ms", 60 * _SECOND),
    ("grpc.keepalive_timeout_ms", 20 * _SECOND),
    # Who pings more often than this, a few times, is sent away.
    ("grpc.http2.min_ping_interval_without_data_ms", 300 * _SECOND),
    ("grpc.http2.max_ping_strikes", 2),
)
_NETWORK_LIMITS = (
    ("grpc.max_connection_age_ms", 3600 * _SECOND),
    ("grpc.max_connection_age_grace_ms", 300 * _SECOND),
)


def limits(settings: ServerSettings) -> Sequence[tuple[str, int]]:
    """Return the options of gRPC's server."""
    beyond = settings.listen and not is_loopback(settings.host)
    largest = ("grpc.max_receive_message_length", settings.max_receive_mib * _MIB)
    return [largest, *_LIMITS, *(_NETWORK_LIMITS if beyond else ())]


class Entrances:
    """The ways in.

    Parameters
    ----------
    settings : ServerSettings
        Which ones there are.

    Raises
    ------
    ConfigurationError
        The certificate cannot be used.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._credentials: grpc.ServerCredentials | None = None
        if settings.tls_certificate is not None and settings.tls_key is not None:
            certificates = Certificates(settings.tls_certificate, settings.tls_key, settings.client_ca)
            self._credentials = certificates.credentials()

    def open(self, server: grpc.aio.Server) -> str:
        """Bind; return the address with the real port, or `unix:PATH` where there is no TCP.

        Raises
        ------
        SegmentdError
            LOCKED where somebody listens there already.
        """
        listen, socket = self._settings.listen, self._settings.unix_socket
        if socket is not None:
            check_socket_free(socket)
            with private_sockets():
                server.add_insecure_port(f"unix:{socket}")
            socket.chmod(SOCKET_MODE)
        if not listen:
            return f"unix:{socket}"
        try:
            if self._credentials is None:
                port = server.add_insecure_port(listen)
            else:
                port = server.add_secure_port(listen, self._credentials)
        except RuntimeError as error:
            raise port_taken(self._settings.port, listen) from error
        return f"{listen.rpartition(':')[0]}:{port}"

    def close(self) -> None:
        """Take the socket file away, once nobody is served any more."""
        if self._settings.unix_socket is not None:
            self._settings.unix_socket.unlink(missing_ok=True)
