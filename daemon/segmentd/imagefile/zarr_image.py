"""What labels in an OME-Zarr 0.5 image take over from it, so that both lie on each other in any viewer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_ORDER = "tczyx"


@dataclass(frozen=True)
class ImageLayout:
    """Axes, scale and number of levels of an image.

    Attributes
    ----------
    axes : tuple of mapping
        As in its metadata.
    scale, translation : tuple of float
        Of its first level; no translation where it has none.
    whole : sequence
        What its metadata have as transformations of all levels.
    levels : int
        How many it has.
    """

    axes: tuple[Mapping[str, Any], ...]
    scale: tuple[float, ...]
    translation: tuple[float, ...]
    whole: Sequence[Any]
    levels: int

    @property
    def names(self) -> str:
        """The axes' letters."""
        return "".join(axis["name"] for axis in self.axes)

    def multiscale(self, name: str) -> dict[str, Any]:
        """Metadata of a label image, whose levels have half the size each."""
        datasets = [
            {"path": str(level), "coordinateTransformations": self._transformations(2**level)}
            for level in range(self.levels)
        ]
        found: dict[str, Any] = {"name": name, "axes": [*self.axes], "datasets": datasets, "type": "mode"}
        return found | ({"coordinateTransformations": self.whole} if self.whole else {})

    def _transformations(self, factor: int) -> list[dict[str, Any]]:
        """Scale of a level, and where its first pixel lies: in the middle of those it was made from."""
        factors = [factor if axis in "yx" else 1 for axis in self.names]
        scale = [one * times for one, times in zip(self.scale, factors, strict=True)]
        found: list[dict[str, Any]] = [{"type": "scale", "scale": scale}]
        if factor > 1 or self.translation:
            begin = self.translation or (0.0,) * len(scale)
            shift = [
                start + one * (times - 1) / 2
                for start, one, times in zip(begin, self.scale, factors, strict=True)
            ]
            found.append({"type": "translation", "translation": shift})
        return found


def read_layout(document: bytes) -> ImageLayout:
    """Read the `zarr.json` of an image.

    Raises
    ------
    ValueError
        It is not that of one image in version 0.5, or not as the specification has it.
    """
    try:
        root = json.loads(document)
        ome = root["attributes"]["ome"]
        if root["zarr_format"] != 3 or not str(ome["version"]).startswith("0.5"):
            raise ValueError("it is not OME-Zarr 0.5")
        multiscale = ome["multiscales"][0]
        axes = tuple(dict(axis) for axis in multiscale["axes"])
        names = [axis["name"] for axis in axes]
        if names != [name for name in _ORDER if name in names] or names[-2:] != ["y", "x"]:
            raise ValueError(f"it has axes {names}")
        transformations = {
            one["type"]: tuple(map(float, one[one["type"]]))
            for one in multiscale["datasets"][0]["coordinateTransformations"]
        }
        scale, translation = transformations["scale"], transformations.get("translation", ())
        if len(scale) != len(axes) or len(translation) not in (0, len(axes)):
            raise ValueError("its transformations do not fit its axes")
        whole = list(multiscale.get("coordinateTransformations", ()))
        return ImageLayout(axes, scale, translation, whole, len(multiscale["datasets"]))
    except (LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"its metadata are not those of an image ({error})") from error
