"""The tables of the configuration about how the daemon is watched over."""

from __future__ import annotations

from segmentd.settings.schema import Table
from segmentd.settings.values import Listen, split_listen


class MetricsSettings(Table):
    """`[metrics]`: what Prometheus reads."""

    listen: Listen | None = None
    """page for Prometheus: HOST:PORT of this machine, such as 127.0.0.1:9464; left out: none"""

    def address(self) -> tuple[str, int] | None:
        """Host and port; None where there is no page."""
        return None if self.listen is None else split_listen(self.listen)
