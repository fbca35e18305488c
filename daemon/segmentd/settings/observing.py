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


class MetricsSettings(Table):
    """`[metrics]`: what Prometheus reads."""

    listen: Annotated[str, AfterValidator(_check_loopback)] | None = None
    """page for Prometheus: HOST:PORT of this machine, such as 127.0.0.1:9464; left out: none"""

    def address(self) -> tuple[str, int] | None:
        """Host and port; None where there is no page."""
        return None if self.listen is None else split_listen(self.listen)
