"""Scripts written for ZEN's Open Application Development (OAD), against a running daemon.

A script needs its imports changed and little else:

>>> from segmentctl.oad import Zen, ZenIntellesis, ZenSegmentationFormat, connect
>>> connect("127.0.0.1:50051")                                              # doctest: +SKIP
>>> image = Zen.Application.LoadImage("cells.tif")                          # doctest: +SKIP
>>> segmented, confidence = Zen.Processing.Segmentation.TrainableSegmentationWithConfidenceMap(
...     image, "nuclei", ZenSegmentationFormat.Labels
... )                                                                       # doctest: +SKIP

Without `connect` the daemon is looked for at SEGMENTD_ADDRESS, then SEGMENTCTL_ADDRESS, then at
127.0.0.1:50051. Where the original takes a ZenImage, everything here also takes a numpy array or the path of
a file. What goes wrong is an `ApplicationException`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segmentctl.oad.connection import connect
    from segmentctl.oad.errors import ApplicationException
    from segmentctl.oad.image import ZenImage
    from segmentctl.oad.intellesis import ZenIntellesis, ZenIntellesisModel
    from segmentctl.oad.segmentation import SegmentationFormat, ZenSegmentationFormat
    from segmentctl.oad.zen import Zen

__all__ = [
    "ApplicationException",
    "SegmentationFormat",
    "Zen",
    "ZenImage",
    "ZenIntellesis",
    "ZenIntellesisModel",
    "ZenSegmentationFormat",
    "connect",
]

_HOMES = {
    "ApplicationException": "errors",
    "SegmentationFormat": "segmentation",
    "Zen": "zen",
    "ZenImage": "image",
    "ZenIntellesis": "intellesis",
    "ZenIntellesisModel": "intellesis",
    "ZenSegmentationFormat": "segmentation",
    "connect": "connection",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for, and not before."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
