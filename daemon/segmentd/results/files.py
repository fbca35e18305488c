"""The files and folders of the results of one image: opened in the wanted form, published together."""

from __future__ import annotations

import os
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from segmentd import crashpoints
from segmentd.imagefile import OmeTiffWriter, OmeZarrWriter
from segmentd.records import ResultForm
from segmentd.results.channels import Contents
from segmentd.results.czi_writer import CziWriter
from segmentd.results.durable import DurableFile, open_folder, sync_folder
from segmentd.results.durable_folder import DurableFolder
from segmentd.results.inside import INSIDE_NAME, LabelsInside, open_inside
from segmentd.results.names import CZI, PICTURES, SUFFIXES, ZARR, container_of, result_name
from segmentd.workers import Session, WorkerPool

Writer = OmeTiffWriter | OmeZarrWriter | CziWriter


@dataclass(frozen=True, slots=True)
class ResultFile:
    """A published result: absolute path of a file or folder, and its digest (see `contents.digest_of`)."""

    path: Path
    sha256: str


class ResultFiles:
    """Results under temporary names; see `ResultWriter` for what they are made from.

    Parameters
    ----------
    folder : Path
        The results folder.
    subfolders : list of bytes
        Where in it they go.
    contents : Contents
        What they say.
    form : ResultForm
        Format and compression.
    image, image_folder
        Path of the image where it is an OME-Zarr, and its descriptor.
    workers : WorkerPool, optional
        For CZI.

    Attributes
    ----------
    writers : dict
        What writes rows, by kind.
    pictures : dict
        Files of pictures, by kind.
    """

    def __init__(
        self,
        folder: Path,
        subfolders: list[bytes],
        contents: Contents,
        form: ResultForm,
        image: Path | None,
        image_folder: int | None,
        workers: WorkerPool | None,
    ) -> None:
        self._folder = folder.absolute().joinpath(*map(os.fsdecode, subfolders))
        self._contents = contents
        self._form = form
        self._image = image
        self._image_folder = image_folder
        self._workers = workers
        self._session: Session | None = None
        self._inside: LabelsInside | None = None
        self._files: dict[str, DurableFile | DurableFolder] = {}
        self.writers: dict[str, Writer] = {}
        self.pictures: dict[str, DurableFile] = {}
        self._directory = open_folder(folder, subfolders)

    @property
    def is_open(self) -> bool:
        """Whether they are neither published nor discarded."""
        return self._directory >= 0

    def open(self, kinds: Collection[str]) -> None:
        """Open files or folders of some kinds."""
        if self._form.labels_inside and "labels" in kinds and self._image and self._image_folder is not None:
            self._inside = open_inside(self._image_folder, self._image)
        for kind in SUFFIXES:
            if kind in kinds:
                self._open(kind)

    def finish(self) -> None:
        """Write what comes last in each file."""
        for writer in self.writers.values():
            writer.close()
        self._end_session(reuse=True)

    def publish(self) -> dict[str, ResultFile]:
        """Make all durable, then visible; returns them by kind."""
        digests = self._seal()
        crashpoints.reach("result-synced")
        for file in self._files.values():
            file.publish()
            crashpoints.reach("result-half-renamed")
        if self._inside is not None:
            self._inside.list_it()
        crashpoints.reach("result-renamed")
        sync_folder(self._directory)
        crashpoints.reach("folder-synced")
        return {kind: ResultFile(self._path_of(kind), digest) for kind, digest in digests.items()}

    def discard(self) -> None:
        """Remove what was not published; may be called more than once."""
        self._end_session(reuse=False)
        if not self.is_open:
            return
        try:
            for file in self._files.values():
                file.discard()
        finally:
            if self._inside is not None:
                self._inside.close()
            os.close(self._directory)
            self._directory = -1

    def _open(self, kind: str) -> None:
        if kind == "labels" and self._inside is not None:
            inner = self._files[kind] = DurableFolder(self._inside.folder, INSIDE_NAME)
            about, layout = self._contents.describe(kind), self._inside.layout
            self.writers[kind] = OmeZarrWriter(inner.path, about, source="../../", layout=layout)
            return
        name = result_name(self._contents.name, kind, self._form.container)
        if container_of(name) == ZARR:
            folder = self._files[kind] = DurableFolder(self._directory, name)
            description, compression = self._contents.describe(kind), self._form.compression or "zstd"
            source = "" if self._image is None else os.path.relpath(self._image, self._path_of(kind))
            self.writers[kind] = OmeZarrWriter(folder.path, description, compression, source)
            return
        file = self._files[kind] = DurableFile(self._directory, name)
        if kind in PICTURES:
            self.pictures[kind] = file
        else:
            self.writers[kind] = self._writer(kind, file.file)

    def _writer(self, kind: str, file: IO[bytes]) -> Writer:
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

    def _path_of(self, kind: str) -> Path:
        if kind == "labels" and self._inside is not None:
            return self._inside.path
        return self._folder / os.fsdecode(result_name(self._contents.name, kind, self._form.container))

    def _seal(self) -> dict[str, str]:
        """Sync all files, at the same time: waiting for the disk is what takes long."""
        with ThreadPoolExecutor(max(1, len(self._files)), thread_name_prefix="seal") as threads:
            return dict(
                zip(self._files, threads.map(lambda file: file.seal(), self._files.values()), strict=True)
            )
