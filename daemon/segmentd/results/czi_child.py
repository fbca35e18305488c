"""Writes CZI results with pylibCZIrw; runs in a worker process, which has one image's files open at a time.

The library gives files and tiles random identifiers. They are replaced when a file is complete, so that
equal results are equal files.
"""

from __future__ import annotations

import importlib
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from segmentd.errors import Reason, SegmentdError
from segmentd.imagefile.czi_layout import GUIDS_AT, read_tiles, tile_parts
from segmentd.workers import wire

# Tiles of 8-bit labels open at once in other programs; the library would cut those above 10 MB itself.
TILE_WIDTH = 4096
_COMPRESSION = "zstd0:ExplicitLevel=3"
_RANDOM = re.compile(rb"(?<=<RetilingId>)[0-9a-f-]{36}(?=</RetilingId>)")

Answer = tuple[Any, list[npt.NDArray[Any]]]

# By the kind of result: what closes the library's writer, and the writer.
_open: dict[str, tuple[ExitStack, Any]] = {}


@contextmanager
def _written(kind: str) -> Iterator[None]:
    """What the library cannot write is no fault of ours; it does not tell why in a way to rely on."""
    try:
        yield
    except RuntimeError as error:
        text = f"{error} (the file of {kind})"
        raise SegmentdError(Reason.RESULTS_NOT_WRITABLE, text) from error


def begin(args: dict[str, Any], fds: list[int]) -> Answer:
    """Begin the file of a `kind`, through its descriptor."""
    stack = ExitStack()
    path = f"/proc/self/fd/{fds[0]}"
    made = _library().create_czi(path, exist_ok=True, compression_options=_COMPRESSION)
    with _written(args["kind"]):
        _open[args["kind"]] = stack, stack.enter_context(made)
    return None, []


def write(args: dict[str, Any], fds: list[int]) -> Answer:
    """Append rows of one channel of a plane: an array (rows, X), and where it goes."""
    _, writer = _open[args["kind"]]
    (rows,) = wire.map_arrays(args["arrays"], fds[0])
    for left in range(0, rows.shape[1], TILE_WIDTH):
        tile = rows[:, left : left + TILE_WIDTH]
        place = (args["x"] + left, args["y"])
        with _written(args["kind"]):
            if not writer.write(tile, location=place, plane=args["plane"], scene=args["scene"]):
                raise RuntimeError("a tile was not written")
    return None, []


def end(args: dict[str, Any], fds: list[int]) -> Answer:
    """Write the metadata, close the file and make it a function of its content.

    `metadata` are arguments of the library's function, `shown` the channels' colours and the highest value
    to show, as a share of the type's range; `identity` is a UUID.
    """
    stack, writer = _open.pop(args["kind"])
    library = _library()
    shown = {
        number: library.ChannelDisplaySettingsDataClass(
            True,
            library.TintingMode.none if color is None else library.TintingMode.Color,
            library.Rgb8Color(*map(np.uint8, color or (255, 255, 255))),
            0.0,
            white,
        )
        for number, (color, white) in enumerate(args["shown"])
    }
    names = dict(enumerate(args["channel_names"]))
    with _written(args["kind"]), stack:
        writer.write_metadata(channel_names=names, display_settings=shown, **args["metadata"])
    _settle_identifiers(fds[0], uuid.UUID(args["identity"]))
    return None, []


def _settle_identifiers(fd: int, identity: uuid.UUID) -> None:
    """Replace the random identifiers of file and tiles; tiles of one plane share theirs."""
    os.pwrite(fd, identity.bytes_le * 2, GUIDS_AT)
    with open(fd, "rb", closefd=False) as file:
        tiles = read_tiles(file)
        for number in range(len(tiles.positions)):
            start, length, _ = tile_parts(file, tiles, number)
            file.seek(start)
            if (found := _RANDOM.search(file.read(length))) is None:
                continue
            plane = " ".join(f"{axis}{tiles.start[axis][number]}" for axis in "CZTS")
            os.pwrite(fd, str(uuid.uuid5(identity, plane)).encode(), start + found.start())


def _library() -> Any:
    try:
        return importlib.import_module("pylibCZIrw.czi")
    except ImportError as error:
        raise SegmentdError(
            Reason.MISSING_EXTRA,
            'results in CZI need pylibCZIrw, which is not installed: pip install "segmentd[czi]"',
            extra="czi",
        ) from error
