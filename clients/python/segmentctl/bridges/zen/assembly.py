"""Messages of ZEN's pixel stream to planes: parts to frames, channels side by side. No network, no clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from segmentctl.bridges.frames import Frame
from segmentctl.bridges.zen import experiment_streaming_pb2 as zen

if TYPE_CHECKING:
    import numpy.typing as npt

    Pixels = npt.NDArray[np.generic]

LARGEST_FRAME_BYTES = 1 << 30
MOST_UNFINISHED = 64  # planes and frames that wait for the rest of themselves

_PIXELS = {  # type of a value, values of a pixel
    zen.PIXEL_TYPE_GRAY8: ("<u1", 1),
    zen.PIXEL_TYPE_GRAY16: ("<u2", 1),
    zen.PIXEL_TYPE_BGR24: ("<u1", 3),
    zen.PIXEL_TYPE_BGR48: ("<u2", 3),
}


class BadFrameError(Exception):
    """A message that contradicts itself."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where a plane belongs.

    Attributes
    ----------
    experiment : str
        ZEN's id of the experiment.
    number : int
        ZEN's number of the frame; of the last one, where a plane has several.
    scene, tile, time, z, phase : int
        As ZEN counts them.
    x, y : int
        The top left corner in the scene, in pixels.
    stage : tuple of float or None
        Position of the stage (x, y, z) in metres; None where it is not known.
    pixel_size : tuple of float or None
        Size of a pixel (x, y) in metres.
    """

    experiment: str
    number: int
    scene: int
    tile: int
    time: int
    z: int
    phase: int
    x: int
    y: int
    stage: tuple[float | None, float | None, float | None]
    pixel_size: tuple[float, float] | None

    @property
    def name(self) -> str:
        """A name for messages and files, such as `s0_m3_t0_z2`."""
        phase = f"_h{self.phase}" if self.phase else ""
        return f"s{self.scene}_m{self.tile}_t{self.time}_z{self.z}{phase}"

    @property
    def key(self) -> tuple[str | int, ...]:
        """What the channels of a plane have in common."""
        return (self.experiment, self.scene, self.tile, self.time, self.z, self.phase, self.x, self.y)


class Assembler:
    """Makes planes of messages, in whatever order they come.

    Parameters
    ----------
    needed : int
        Channels that the model takes.
    channels : tuple of int
        ZEN's channels to use, in this order; by default the first ones, as many as the model takes.

    Attributes
    ----------
    skipped : set of int
        Channels that came and are not used.
    unfinished : int
        Frames and planes that were given up because parts or channels of theirs never came.
    """

    def __init__(self, needed: int, channels: tuple[int, ...] = ()) -> None:
        self._needed, self._channels = needed, channels
        self._parts: dict[tuple[str | int, ...], tuple[Pixels, npt.NDArray[np.bool_]]] = {}
        self._planes: dict[tuple[str | int, ...], dict[int, Pixels]] = {}
        self.skipped: set[int] = set()
        self.unfinished = 0

    def add(self, data: zen.FrameData) -> Frame | None:
        """Take a message in; gives the plane that it completes, colours in the order red, green, blue.

        Raises
        ------
        BadFrameError
            If the message contradicts itself; it is left out.
        """
        shape, part, (top, left) = _pixels(data)
        channel, position = data.frame_position.c, position_of(data)
        wanted = self._channels or tuple(range(max(1, self._needed // shape[2])))
        if channel not in wanted:
            self.skipped.add(channel)
            return None
        frame = self._whole((*position.key, channel), shape, part, top, left)
        if frame is None:
            return None
        image = self._joined(position, channel, wanted, np.moveaxis(frame[:, :, ::-1], 2, 0))
        return None if image is None else Frame(image, position.name, position)

    def give_up(self) -> None:
        """Forget what is not complete, and count it."""
        self.unfinished += len(self._planes) + len(self._parts)
        self._planes.clear()
        self._parts.clear()

    def _whole(
        self, key: tuple[str | int, ...], shape: tuple[int, int, int], part: Pixels, top: int, left: int
    ) -> Pixels | None:
        """Give the frame (Y, X, values) if this part completes it."""
        if part.shape == shape:
            return part
        if key not in self._parts:
            if len(self._parts) >= MOST_UNFINISHED:
                del self._parts[next(iter(self._parts))]
                self.unfinished += 1
            self._parts[key] = np.zeros(shape, part.dtype), np.zeros(shape[:2], np.bool_)
        frame, there = self._parts[key]
        if frame.shape != shape or frame.dtype != part.dtype:
            raise BadFrameError(f"parts of one frame have different sizes: {frame.shape} and {shape}")
        rows, columns = slice(top, top + part.shape[0]), slice(left, left + part.shape[1])
        frame[rows, columns] = part
        there[rows, columns] = True
        # the last part mostly ends in the last corner: looking at all is for then
        if not (there[-1, -1] and there[0, 0] and there.all()):
            return None
        del self._parts[key]
        return frame

    def _joined(
        self, position: Position, channel: int, wanted: tuple[int, ...], pixels: Pixels
    ) -> Pixels | None:
        """Give the plane (C, Y, X) if this channel completes it."""
        if len(wanted) == 1:
            return np.ascontiguousarray(pixels)
        if position.key not in self._planes and len(self._planes) >= MOST_UNFINISHED:
            del self._planes[next(iter(self._planes))]
            self.unfinished += 1
        planes = self._planes.setdefault(position.key, {})
        planes[channel] = pixels
        if len(planes) < len(wanted):
            return None
        del self._planes[position.key]
        if (
            len({plane.shape[1:] for plane in planes.values()} | {plane.dtype for plane in planes.values()})
            > 2
        ):
            raise BadFrameError(f"the channels of {position.name} have different sizes or pixel types")
        return np.concatenate([planes[each] for each in wanted])


def position_of(data: zen.FrameData) -> Position:
    """Read where a message belongs."""
    at, stage, size = data.frame_position, data.frame_stage_position, data.scaling
    return Position(
        experiment=data.experiment_id,
        number=data.frame_number,
        scene=at.s,
        tile=at.m,
        time=at.t,
        z=at.z,
        phase=at.h,
        x=at.x,
        y=at.y,
        stage=(
            stage.x.value if stage.HasField("x") else None,
            stage.y.value if stage.HasField("y") else None,
            stage.z.value if stage.HasField("z") else None,
        ),
        pixel_size=(size.x, size.y) if size.x > 0 and size.y > 0 else None,
    )


def _pixels(data: zen.FrameData) -> tuple[tuple[int, int, int], Pixels, tuple[int, int]]:
    """Give the frame's shape (Y, X, values), the pixels of the message, and their top left corner."""
    pixels, frame = data.pixel_data, data.frame_size
    if pixels.pixel_type not in _PIXELS:
        raise BadFrameError(f"pixels of type {pixels.pixel_type}, which is none of ZEN's camera types")
    type_name, values = _PIXELS[pixels.pixel_type]
    part = pixels.size if pixels.HasField("size") else frame
    frame = frame if data.HasField("frame_size") else part
    top, left = pixels.start_position.y, pixels.start_position.x
    dtype = np.dtype(type_name)
    if frame.width * frame.height * values * dtype.itemsize > LARGEST_FRAME_BYTES:
        raise BadFrameError(f"a frame of {frame.width} x {frame.height} pixels is larger than 1 GiB")
    inside = top >= 0 and left >= 0 and top + part.height <= frame.height and left + part.width <= frame.width
    if part.width < 1 or part.height < 1 or not inside:
        raise BadFrameError(
            f"{part.width} x {part.height} pixels at {left}, {top} are not inside a frame of "
            f"{frame.width} x {frame.height}"
        )
    expected = part.width * part.height * values * dtype.itemsize
    if len(pixels.raw_data) != expected:
        raise BadFrameError(
            f"{len(pixels.raw_data)} bytes instead of {expected} for {part.width} x {part.height} pixels"
        )
    array = np.frombuffer(pixels.raw_data, dtype).reshape(part.height, part.width, values)
    return (frame.height, frame.width, values), array, (top, left)
