"""Smart acquisition with pymmcore-plus: the labels of a field decide where the stage goes next.

The stage visits objects one after the other: each field is segmented, and the next position is the middle of
the nearest object that was not visited yet. Written to be taken apart: `next_place` is the decision.

    python smart_acquisition.py --model nuclei --class nucleus --visits 5
    python smart_acquisition.py --model nuclei --class nucleus --simulate cells.tif

Without `--simulate`, the demo configuration of Micro-Manager is loaded (`mmcore install` gets its device
adapters), or the configuration named with `--config`. With it, the stage is one over an image.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from segmentctl import Client
from segmentctl.bridges.extras import need
from segmentctl.bridges.frames import FrameResult
from segmentctl.bridges.pymmcore import MdaBridge

Place = tuple[float, float]  # x, y of the middle of a field, in micrometres


def next_place(
    objects: npt.NDArray[np.bool_], here: Place, pixel_size: float, visited: Sequence[Place], apart: float
) -> Place | None:
    """Give the middle of the nearest object that was not visited yet; None if there is none in the field.

    Parameters
    ----------
    objects : ndarray of bool (Y, X)
        True where an object is; the field around `here`.
    here : (x, y)
        The middle of the field, in micrometres.
    pixel_size : float
        Micrometres per pixel.
    visited : sequence of (x, y)
        Where the stage has been.
    apart : float
        Objects closer than this to a place of `visited` count as visited. In micrometres.
    """
    parts, count = ndimage.label(ndimage.binary_opening(objects, iterations=2))
    if count == 0:
        return None
    middles = np.array(ndimage.center_of_mass(parts > 0, parts, range(1, count + 1)))
    offsets = (middles - (np.array(objects.shape) - 1) / 2) * pixel_size
    for y, x in sorted(offsets.tolist(), key=lambda offset: float(np.hypot(*offset))):
        place = (here[0] + x, here[1] + y)
        if all(np.hypot(place[0] - seen[0], place[1] - seen[1]) > apart for seen in visited):
            return place
    return None


class Visits:
    """Decides events from results, and remembers where the stage has been."""

    def __init__(self, class_name: str, count: int, apart: float, make_event: Any) -> None:
        self._class_name, self._count, self._apart, self._make_event = class_name, count, apart, make_event
        self.places: list[Place] = []

    def __call__(self, result: FrameResult) -> Any | None:
        """Give the next event, or None when there were enough or nothing new is in sight."""
        values = [entry.value for entry in result.summary.classes if entry.display_name == self._class_name]
        if not values:
            raise ValueError(f"the model has no class {self._class_name!r}")
        event = result.frame.source
        here = (event.x_pos, event.y_pos)
        size = float(result.frame.metadata["pixel_size_um"]) or 1.0  # 0 where it is not known
        place = next_place(result.labels == values[0], here, size, self.places, self._apart)
        if place is None or len(self.places) >= self._count:
            return None
        self.places.append(place)
        print(f"visit {len(self.places)}: x {place[0]:.1f} um, y {place[1]:.1f} um")
        return self._make_event(x_pos=place[0], y_pos=place[1])


class ImageEngine:
    """An engine for pymmcore-plus whose stage stands over an image; one pixel is one micrometre."""

    def __init__(self, image: npt.NDArray[np.generic], field: int = 256) -> None:
        self._image, self._half = image, field // 2
        self._corner = (0, 0)
        self.middle: Place = (image.shape[1] / 2, image.shape[0] / 2)

    def setup_sequence(self, sequence: Any) -> None:
        """Nothing to prepare."""

    def setup_event(self, event: Any) -> None:
        """Move the stage; it ends where the image does."""
        limits = [length - 2 * self._half for length in self._image.shape]
        y, x = event.y_pos - self._half, event.x_pos - self._half
        self._corner = (int(np.clip(round(y), 0, limits[0])), int(np.clip(round(x), 0, limits[1])))

    def event_iterator(self, events: Iterable[Any]) -> Iterator[Any]:
        """Take one event after the other."""
        return iter(events)

    def teardown_event(self, event: Any) -> None:
        """Nothing to put away."""

    def teardown_sequence(self, sequence: Any) -> None:
        """Nothing to put away."""

    def exec_event(self, event: Any) -> Iterator[tuple[npt.NDArray[np.generic], Any, dict[str, Any]]]:
        """Take the image; the event that goes along says where the stage really is."""
        y, x = self._corner
        field = self._image[y : y + 2 * self._half, x : x + 2 * self._half].copy()
        there = event.replace(x_pos=float(x + self._half), y_pos=float(y + self._half))
        yield field, there, {"pixel_size_um": 1.0}


def acquisition(options: argparse.Namespace) -> tuple[Any, Place]:
    """Give what runs acquisitions, and where it begins."""
    mda = need("pymmcore_plus", "pymmcore")
    if options.simulate:
        from segmentd.imagefile import read_simple

        engine = ImageEngine(np.asarray(read_simple(options.simulate)).squeeze())
        runner = mda.mda.MDARunner()
        runner.set_engine(engine)
        return runner, engine.middle
    core = mda.CMMCorePlus.instance()
    core.loadSystemConfiguration(options.config)
    return core.mda, tuple(core.getXYPosition())


def main(arguments: Iterable[str] | None = None) -> list[Place]:
    """Visit objects and give their places."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--address", default="127.0.0.1:50051", help="where segmentd listens")
    parser.add_argument("--model", required=True)
    parser.add_argument("--class", dest="class_name", required=True, help="name of the class to visit")
    parser.add_argument("--visits", type=int, default=5, help="how many objects (5)")
    parser.add_argument("--apart", type=float, default=15.0, help="um between two objects (15)")
    parser.add_argument("--config", default="MMConfig_demo.cfg", help="configuration of Micro-Manager")
    parser.add_argument(
        "--simulate", metavar="IMAGE", type=Path, help="use this image instead of a microscope"
    )
    options = parser.parse_args(None if arguments is None else list(arguments))

    runner, start = acquisition(options)
    event = need("useq", "pymmcore").MDAEvent
    visits = Visits(options.class_name, options.visits, options.apart, event)
    with (
        Client(options.address) as client,
        MdaBridge(runner, client, options.model, lambda result: None) as bridge,
    ):
        runner.run(bridge.steer(event(x_pos=start[0], y_pos=start[1]), visits))
        print(f"done: {bridge.counts}")
    return visits.places


if __name__ == "__main__":
    main()
