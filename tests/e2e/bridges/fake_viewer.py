"""The part of a napari viewer that the plugin uses, without windows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import numpy as np


@dataclass(eq=False)
class Layer:
    """Labels; an image has `rgb`, too."""

    data: Any
    name: str = ""
    scale: tuple[float, ...] = (1.0, 1.0)
    translate: tuple[float, ...] = (0.0, 0.0)
    opacity: float = 1.0
    colormap: Any = None
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(eq=False)
class ImageLayer(Layer):
    rgb: bool = False

    @property
    def ndim(self) -> int:
        return int(np.ndim(self.data)) - self.rgb


class Layers:
    """Layers from the bottom up, and which are selected."""

    def __init__(self) -> None:
        self._layers: list[Layer] = []
        self.selection: set[Layer] = set()

    def __iter__(self) -> Iterator[Layer]:
        return iter(list(self._layers))

    def __len__(self) -> int:
        return len(self._layers)

    def __getitem__(self, name: str) -> Layer:
        return next(layer for layer in self._layers if layer.name == name)

    def append(self, layer: Layer) -> None:
        self._layers.append(layer)

    def remove(self, layer: Layer) -> None:
        self._layers.remove(layer)


class FakeViewer:
    """A viewer whose window is the test: `in_window` keeps functions until `work` runs them."""

    def __init__(self) -> None:
        self.layers = Layers()
        self.dims = SimpleNamespace(current_step=(0, 0))
        self.told: list[str] = []
        self._asked: SimpleQueue[Callable[[], None]] = SimpleQueue()

    def add_labels(self, data: Any, **options: Any) -> Layer:
        layer = Layer(data, **options)
        self.layers.append(layer)
        return layer

    def add_image(self, data: Any, *, selected: bool = True, **options: Any) -> ImageLayer:
        layer = ImageLayer(data, **options)
        self.layers.append(layer)
        if selected:
            self.layers.selection.add(layer)
        return layer

    def in_window(self, function: Callable[[], None]) -> None:
        self._asked.put(function)

    def work(self, seconds: float = 60.0) -> None:
        """Run the next function that somebody asked for."""
        self._asked.get(timeout=seconds)()
