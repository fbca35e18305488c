"""Programs that write an image slowly, each in a way of its own."""

from __future__ import annotations

import io
import itertools
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tifffile

from .images import Pixels

Pause = Callable[[float], object]


def write_in_place(path: Path, planes: list[Pixels], settle: float, pause: Pause) -> list[bytes]:
    """Piece after piece, with pauses shorter than the quiet time."""
    data = encoded(planes[0])
    with path.open("wb") as file:
        for part in pieces(data, 6):
            file.write(part)
            file.flush()
            pause(settle / 2)
    return [data]


def write_with_a_long_pause(path: Path, planes: list[Pixels], settle: float, pause: Pause) -> list[bytes]:
    """With a pause longer than the quiet time in the middle."""
    data = encoded(planes[0])
    with path.open("wb") as file:
        for part in pieces(data, 2):
            file.write(part)
            file.flush()
            pause(2.5 * settle)
    return [data]


def write_directory_last(path: Path, planes: list[Pixels], settle: float, pause: Pause) -> list[bytes]:
    """Pixels first; where the directory is, the header says at the very end."""
    pixels = planes[0].astype("<u2")
    height, width = pixels.shape
    tags = [(256, width), (257, height), (258, 16), (259, 1), (262, 1), (273, 8), (277, 1), (278, height)]
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in [*tags, (279, pixels.nbytes)]]
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    with path.open("wb") as file:
        file.write(b"II*\0" + bytes(4))
        for part in pieces(pixels.tobytes(), 3):
            file.write(part)
            file.flush()
            pause(1.5 * settle)
        place = file.tell()
        file.write(directory)
        file.flush()
        pause(1.5 * settle)
        file.seek(4)
        file.write(struct.pack("<I", place))
    return [path.read_bytes()]


def write_preallocated(path: Path, planes: list[Pixels], settle: float, pause: Pause) -> list[bytes]:
    """At its full size from the beginning, filled in from the front, with long pauses."""
    data = encoded(planes[0])
    with path.open("wb") as file:
        file.truncate(len(data))
        pause(1.5 * settle)
        for part in pieces(data, 3):
            file.write(part)
            file.flush()
            pause(1.5 * settle)
    return [data]


def write_aside_and_rename(path: Path, planes: list[Pixels], settle: float, pause: Pause) -> list[bytes]:
    """Under a temporary name, then renamed."""
    data = encoded(planes[0])
    aside = path.with_name(path.name + ".part")
    with aside.open("wb") as file:
        for part in pieces(data, 3):
            file.write(part)
            file.flush()
            pause(1.2 * settle)
    aside.rename(path)
    return [data]


def write_and_append(path: Path, planes: list[Pixels], settle: float, pause: Pause) -> list[bytes]:
    """One plane after the other into the same file, which is closed in between: each time it is complete."""
    contents = []
    for plane in planes:
        tifffile.imwrite(path, plane, append=path.exists(), metadata=None, contiguous=False)
        contents.append(path.read_bytes())
        pause(2 * settle)
    return contents


WAYS: dict[str, Callable[[Path, list[Pixels], float, Pause], list[bytes]]] = {
    "in place": write_in_place,
    "long pause": write_with_a_long_pause,
    "directory last": write_directory_last,
    "preallocated": write_preallocated,
    "aside": write_aside_and_rename,
    "append": write_and_append,
}


def encoded(plane: Pixels) -> bytes:
    """Return a TIFF whose directory is in front."""
    file = io.BytesIO()
    tifffile.imwrite(file, plane)
    return file.getvalue()


def pieces(data: bytes, count: int) -> list[bytes]:
    """Cut into pieces."""
    bounds = np.linspace(0, len(data), count + 1).astype(int)
    return [data[start:stop] for start, stop in itertools.pairwise(bounds)]


def write_at_once(folder: Path, planes: dict[str, list[Pixels]], settle: float) -> dict[str, list[bytes]]:
    """Write one file for each way and name (`way-number.tif`), all at the same time.

    Returns
    -------
    dict
        By name the complete contents that the file had, the last one at the end.
    """
    contents: dict[str, list[bytes]] = {}
    pause = threading.Event().wait

    def write(name: str) -> None:
        way = WAYS[name.partition("-")[0]]
        contents[name] = way(folder / name, planes[name], settle, pause)

    writers = [threading.Thread(target=write, args=(name,)) for name in planes]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    return contents
