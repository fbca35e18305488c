"""The result files of one image, written plane by plane or band by band, and published together."""

from __future__ import annotations

import os
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import numpy as np
import numpy.typing as npt

from segmentd import crashpoints
from segmentd.errors import write_errors
from segmentd.imagefile import TILE, OmeTiffWriter, OmeZarrWriter, Overlay, picture_pngs
from segmentd.records import ClassInfo, FrameInfo, PlaneIndex, ResultForm
from segmentd.results.channels import Contents
from segmentd.results.czi_writer import CziWriter
from segmentd.results.durable import DurableFile, open_folder, sync_folder
from segmentd.results.durable_folder import DurableFolder
from segmentd.results.names import CZI, PICTURES, SUFFIXES, ZARR, container_of, result_name, source_parts
from segmentd.workers import Session, WorkerPool


@dataclass(frozen=True, slots=True)
class ResultFile:
    """A published result: absolute path of a file or folder, and its digest (see `contents.digest_of`)."""

    path: Path
    sha256: str


class ResultWriter:
    """Writes the results of one image; nothing is visible before `commit`.

    Use it as a context manager: leaving the block without `commit` removes what was written.

    Parameters
    ----------
    folder : Path
        The results folder; made if it is missing.
    source : bytes
        The input's path below its own folder; the same subfolders are used here.
    outputs : collection of str
        Of `labels`, `confidence`, `classes` (one 0/255 channel for each class), `overlay` (a picture of the
        first plane), `thumbnail` (a small one) and `image` (what a network for images makes).
    frame : FrameInfo
        Sizes of the input; its planes must come in this order.
    classes : tuple of ClassInfo
        The model's classes.
    content_digest, model_digest : str
        Of input and model: the files' UUIDs come from them, and both are noted in the files.
    image_channels : int
        Of the output `image`.
    with_image : bool
        Put the channels of the image in front of those of the classes, all in the image's pixel type.
    form : ResultForm
        Format and compression.
    image : Path, optional
        Where the image is: OME-Zarr of an OME-Zarr names it.
    workers : WorkerPool, optional
        Where CZI is written; needed for that format only.

    Raises
    ------
    SegmentdError
        From every method: DISK_FULL or RESULTS_NOT_WRITABLE. The image must then be redone.
    """

    def __init__(
        self,
        folder: Path,
        source: bytes,
        outputs: Collection[str],
        frame: FrameInfo,
        classes: tuple[ClassInfo, ...],
        content_digest: str,
        model_digest: str = "",
        image_channels: int = 1,
        with_image: bool = False,
        form: ResultForm = ResultForm(),  # noqa: B008 (frozen)
        image: Path | None = None,
        workers: WorkerPool | None = None,
    ) -> None:
        unknown = set(outputs) - set(SUFFIXES)
        if unknown:
            raise ValueError(f"no such outputs: {sorted(unknown)}; there are {list(SUFFIXES)}")
        *subfolders, self._name = source_parts(source)
        self._results = folder
        self._folder = folder.absolute().joinpath(*map(os.fsdecode, subfolders))
        self._frame = frame
        digests = {"content_digest": content_digest, "model_digest": model_digest}
        self._contents = Contents(self._name, frame, classes, digests, image_channels, with_image)
        self._form = form
        self._image = image if frame.format.startswith("OME-Zarr") else None
        self._planes = frame.planes()
        self._due = next(self._planes, None)  # the plane under way
        self._row = 0  # its next one
        self._files: dict[str, DurableFile | DurableFolder] = {}
        self._writers: dict[str, OmeTiffWriter | OmeZarrWriter | CziWriter] = {}
        self._workers = workers
        self._session: Session | None = None
        self._pictures = [kind for kind in PICTURES if kind in outputs]
        self._png_files: dict[str, DurableFile] = {}
        self._overlay = Overlay(frame.height, frame.width) if self._pictures else None
        self._directory: int | None = None
        with write_errors("results", folder):
            self._directory = open_folder(folder, subfolders)
            try:
                for kind in SUFFIXES:
                    if kind in outputs:
                        self._open(kind, self._directory)
            except BaseException:
                self.abort()
                raise

    def write_plane(
        self,
        index: PlaneIndex,
        labels: npt.NDArray[np.uint8],
        confidence: npt.NDArray[np.uint8],
        pixels: npt.NDArray[np.generic],
    ) -> None:
        """Append one plane: labels and confidence (Y, X), and its pixels (C, Y, X)."""
        if labels.shape != (self._frame.height, self._frame.width):
            raise ValueError(f"a plane of shape {labels.shape} came for {self._frame}")
        self.write_band(index, 0, labels, confidence, pixels)

    def write_band(
        self,
        index: PlaneIndex,
        y: int,
        labels: npt.NDArray[np.uint8],
        confidence: npt.NDArray[np.uint8],
        pixels: npt.NDArray[np.generic],
        image: npt.NDArray[np.generic] | None = None,
    ) -> None:
        """Append rows of a plane; after its last row the next plane is due.

        The files do not depend on how a plane is cut into bands. Nothing of a band is kept but what the
        overlay shows.

        Parameters
        ----------
        index : PlaneIndex
            The plane.
        y : int
            Its first row here: 0, then always where the band before ended.
        labels, confidence : arrays (rows, X), uint8
            A multiple of `imagefile.TILE` rows, or all that are left of the plane.
        pixels : array (C, rows, X)
            The image itself, for the overlay and where it is to be in front of the classes.
        image : array (C, rows, X), optional
            Rows of the output `image`, in the pixel type of the input.
        """
        self._check_band(index, y, labels.shape, confidence.shape, pixels.shape[1:])
        with write_errors("results", self._results):
            for top in range(0, labels.shape[0], TILE):
                rows = slice(top, top + TILE)
                for kind, writer in self._writers.items():
                    if kind == "image" and image is not None:
                        writer.write_rows(image[:, rows])
                    else:
                        writer.write_rows(
                            self._contents.rows(kind, labels[rows], confidence[rows], pixels[:, rows])
                        )
            if self._overlay is not None:
                self._overlay.add(pixels, labels)
            self._row += labels.shape[0]
            if self._row == self._frame.height:
                self._end_plane()

    def commit(self) -> dict[str, ResultFile]:
        """Make all files durable, then visible; returns them by kind."""
        if self._directory is None:
            raise ValueError("the results were committed or aborted before")
        try:
            with write_errors("results", self._results):
                for writer in self._writers.values():
                    writer.close()
                self._end_session(reuse=True)
                if self._due is not None:
                    raise ValueError(f"not all was written: row {self._row} of plane {self._due} is due")
                crashpoints.reach("result-written")
                digests = self._seal()
                crashpoints.reach("result-synced")
                for file in self._files.values():
                    file.publish()
                    crashpoints.reach("result-half-renamed")
                crashpoints.reach("result-renamed")
                sync_folder(self._directory)
                crashpoints.reach("folder-synced")
        finally:
            self.abort()
        return {kind: ResultFile(self._path_of(kind), digest) for kind, digest in digests.items()}

    def _path_of(self, kind: str) -> Path:
        return self._folder / os.fsdecode(result_name(self._name, kind, self._form.container))

    def _seal(self) -> dict[str, str]:
        """Sync all files, at the same time: waiting for the disk is what takes long."""
        with ThreadPoolExecutor(max(1, len(self._files)), thread_name_prefix="seal") as threads:
            return dict(
                zip(self._files, threads.map(lambda file: file.seal(), self._files.values()), strict=True)
            )

    def abort(self) -> None:
        """Remove what was not published; may be called more than once."""
        self._end_session(reuse=False)
        if self._directory is None:
            return
        try:
            for file in self._files.values():
                file.discard()
        finally:
            os.close(self._directory)
            self._directory = None

    def __enter__(self) -> Self:
        """Return the writer."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Abort unless committed."""
        self.abort()

    def _open(self, kind: str, directory: int) -> None:
        name = result_name(self._name, kind, self._form.container)
        if container_of(name) == ZARR:
            folder = self._files[kind] = DurableFolder(directory, name)
            description, compression = self._contents.describe(kind), self._form.compression or "zstd"
            source = "" if self._image is None else os.path.relpath(self._image, self._path_of(kind))
            self._writers[kind] = OmeZarrWriter(folder.path, description, compression, source)
            return
        file = self._files[kind] = DurableFile(directory, name)
        if kind in PICTURES:
            self._png_files[kind] = file
        else:
            self._writers[kind] = self._writer(kind, file.file)

    def _writer(self, kind: str, file: IO[bytes]) -> OmeTiffWriter | CziWriter:
        description = self._contents.describe(kind)
        if self._form.container != CZI:
            return OmeTiffWriter(file, description, self._form.compression or "deflate")
        if self._session is None:
            if self._workers is None:
                raise ValueError("CZI is written by worker processes, and none were given")
            self._session = self._workers.session()
        return CziWriter(file, description, self._session, kind)

    def _end_session(self, *, reuse: bool) -> None:
        if self._session is not None:
            self._session.end(reuse=reuse)
            self._session = None

    def _check_band(self, index: PlaneIndex, y: int, *shapes: tuple[int, ...]) -> None:
        if (index, y) != (self._due, self._row):
            raise ValueError(f"row {y} of plane {index} came where row {self._row} of {self._due} was due")
        rows = shapes[0][0]
        left = self._frame.height - y
        if rows > left or (rows < left and (rows == 0 or rows % TILE)):
            raise ValueError(f"a band has a multiple of {TILE} rows or the {left} that are left, not {rows}")
        if set(shapes) != {(rows, self._frame.width)}:
            raise ValueError(f"labels, confidence and pixels of a band differ: {shapes}")

    def _end_plane(self) -> None:
        self._row = 0
        self._due = next(self._planes, None)
        if self._overlay is not None:  # a picture of the first plane
            picture = self._overlay.picture(self._contents.classes, rgb=self._frame.rgb)
            self._overlay = None
            for kind, png in picture_pngs(picture, self._pictures):
                self._png_files[kind].file.write(png)
