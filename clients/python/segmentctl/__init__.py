"""Client of segmentd: subscribe to segmentations, segment planes, look after models and watches.

>>> from segmentctl import Client
>>> with Client("127.0.0.1:50051") as client:                    # doctest: +SKIP
...     labels, confidence = client.segment(image, model="nuclei")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segmentctl.client import Client
    from segmentctl.confidence import minimum_confidence
    from segmentctl.errors import DaemonError, StreamError
    from segmentctl.subscription import Result, Subscription
    from segmentctl.upload import PlaneResult

__all__ = [
    "Client",
    "DaemonError",
    "PlaneResult",
    "Result",
    "StreamError",
    "Subscription",
    "minimum_confidence",
]

_HOMES = {
    "Client": "client",
    "DaemonError": "errors",
    "PlaneResult": "upload",
    "Result": "subscription",
    "StreamError": "errors",
    "Subscription": "subscription",
    "minimum_confidence": "confidence",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for, and not before: gRPC and numpy would slow every `--help` down."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
