"""The tables of the configuration about how the daemon is watched over."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from segmentd.settings.access import is_loopback
from segmentd.settings.schema import Table
from segmentd.settings.values import broken, split_listen


def _check_loopback(value: str) -> str:
    if not is_loopback(split_listen(value)[0]):
        raise broken(
            "must be a loopback address such as 127.0.0.1: whoever reads metrics is asked for nothing; "
            "to read them from elsewhere, put a proxy in front"
        )
    return value


def _check_endpoint(value: str) -> str:
    scheme, _, rest = value.partition("://")
    if scheme not in ("http", "https") or not rest:
        raise broken("must be http://HOST:PORT, or https://HOST:PORT with TLS")
    split_listen(rest.rstrip("/"))
    return value


class MetricsSettings(Table):
    """`[metrics]`: what Prometheus reads."""

    listen: Annotated[str, AfterValidator(_check_loopback)] | None = None
    """page for Prometheus: HOST:PORT of this machine, such as 127.0.0.1:9464; left out: none"""

    def address(self) -> tuple[str, int] | None:
        """Host and port; None where there is no page."""
        return None if self.listen is None else split_listen(self.listen)


class TracingSettings(Table):
    """`[tracing]`: where OpenTelemetry hears of each image."""

    endpoint: Annotated[str, AfterValidator(_check_endpoint)] | None = None
    """collector of traces (OTLP/gRPC), such as http://127.0.0.1:4317; needs the extra otel; left out: none"""
