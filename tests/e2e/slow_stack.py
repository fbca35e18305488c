"""A program that writes a stack plane by plane: one for each line on its standard input.

Run as `python slow_stack.py KIND PATH PLANES.npy`; says what it has done on its standard output.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import tifffile
import zarr
from tests.unit.ingest.ome_zarr_files import write_ome_zarr


def say(text: str) -> None:
    print(text, flush=True)


def wait() -> None:
    sys.stdin.readline()


def write_tiff(path: Path, planes: np.ndarray) -> None:
    """Append to one contiguous stack, as tifffile does."""
    with tifffile.TiffWriter(path) as writer:
        for number, plane in enumerate(planes):
            wait()
            writer.write(plane, contiguous=True)
            writer.filehandle.flush()
            say(f"plane {number}")
        wait()


def write_tiff_and_come_back(path: Path, planes: np.ndarray) -> None:
    """As above, and at the end write the first plane again, other than it was."""
    write_tiff(path, np.concatenate([planes[:1] // 2 + 1, planes[1:]]))
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tiff.filehandle.seek(tiff.pages[0].dataoffsets[0])
        tiff.filehandle.write(planes[0].tobytes())


def write_zarr(path: Path, planes: np.ndarray) -> None:
    """Make an OME-Zarr without chunks, then write its planes."""
    write_ome_zarr(path, np.zeros_like(planes), "zyx", config={"write_empty_chunks": False}, chunk=64)
    array = zarr.open_group(str(path), mode="r+")["0"]
    for number, plane in enumerate(planes):
        wait()
        array[number] = plane
        say(f"plane {number}")
    wait()


KINDS = {"tiff": write_tiff, "comes-back": write_tiff_and_come_back, "zarr": write_zarr}

if __name__ == "__main__":
    KINDS[sys.argv[1]](Path(sys.argv[2]), np.load(sys.argv[3]))
    say("done")
