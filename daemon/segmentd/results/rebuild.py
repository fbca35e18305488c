"""A journal anew from the result files, when the old one is lost or damaged.

The files say which content of an image and which model they were made from; labels and confidence are
counted again. What they do not say (versions, failures, device, times of work) is gone. The images
themselves are not read: the daemon compares their content when it first sees them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import numpy as np

from segmentd import telemetry
from segmentd.errors import Reason, SegmentdError
from segmentd.imagefile import read_region
from segmentd.imagefile.description import Description, read_description
from segmentd.records import PlaneIndex, Region, Segmentation, SegmentationState, WatchSpec
from segmentd.results.contents import digest_of, made_at, stamp_of
from segmentd.results.durable import sync_folder
from segmentd.results.images import ImageOutcome, ImageState
from segmentd.results.inside import INSIDE
from segmentd.results.journal_schema import FILE_NAME
from segmentd.results.names import PICTURES, is_result_folder, source_name, split_result_name
from segmentd.results.published import PublishedFile

_ROWS = 1024


@dataclass(frozen=True, slots=True)
class FoundResults:
    """The result files of one image: what their names begin with, folders below the results, and by kind."""

    folders: tuple[bytes, ...]
    stem: bytes
    files: Mapping[str, Path]

    @property
    def made(self) -> float:
        """When the last of them was written, in seconds since the epoch."""
        return max(map(made_at, self.files.values()))


def find_results(folder: Path) -> list[FoundResults]:
    """Find all results below a folder, in the order in which they were made."""
    found: dict[tuple[tuple[bytes, ...], bytes], dict[str, Path]] = {}
    root = os.fsencode(folder.absolute())
    for below, inner, names in os.walk(root):
        folders = tuple(filter(None, below[len(root) :].split(b"/")))
        for name in (*names, *filter(is_result_folder, inner)):
            parts = split_result_name(name)
            if parts is not None:
                stem, kind = parts
                files = found.setdefault((folders, stem), {})
                path = Path(os.fsdecode(below + b"/" + name))
                if kind not in files or made_at(files[kind]) < made_at(path):  # the format was changed
                    files[kind] = path
        inner[:] = (name for name in inner if not is_result_folder(name))
    results = [FoundResults(folders, stem, files) for (folders, stem), files in found.items()]
    return sorted(results, key=lambda result: (result.made, result.folders, result.stem))


def rebuild_image(
    spec: WatchSpec, results: FoundResults, models: Mapping[str, str]
) -> tuple[ImageOutcome, list[Segmentation]]:
    """Make the journal's entry of an image from its results.

    Parameters
    ----------
    spec : WatchSpec
        The watch that made them.
    results : FoundResults
        The files.
    models : mapping
        Digests of models to their ids.

    Raises
    ------
    SegmentdError
        RESULT_UNAVAILABLE: they are incomplete, damaged or do not belong together. The image is
        segmented again.
    """
    results = _with_labels_inside(spec, results)
    # A network that makes images writes nothing else.
    only_image = "image" in results.files and "labels" not in results.files
    outputs = ("image",) if only_image else spec.outputs
    missing = [kind for kind in outputs if kind not in results.files]
    if missing:
        raise _unusable(results, f"{missing[0]} is missing")
    described = {kind: read_description(results.files[kind]) for kind in outputs if kind not in PICTURES}
    digests = {
        (item.notes.get("content_digest", ""), item.notes.get("model_digest", ""))
        for item in described.values()
    }
    if len(digests) != 1 or "" in next(iter(digests)):
        raise _unusable(results, "the files do not say, or not all say the same, what they were made from")
    content, model = digests.pop()
    description = next(iter(described.values()))
    name = source_name(results.stem, description.name)
    if name is None:
        raise _unusable(results, "the name of the image cannot be told")
    source = b"/".join((*results.folders, name))
    files = tuple(_published(kind, results.files[kind]) for kind in outputs)
    path = os.fsencode(spec.folder) + b"/" + source
    about = Segmentation(
        watch=spec.id,
        source=source,
        source_path=path,
        state=SegmentationState.SUCCEEDED,
        content_digest=content,
        plane_count=description.scenes * description.size_t * description.size_z,
        height=description.height,
        width=description.width,
        model=models.get(model, ""),
        model_digest=model,
        classes=next((item.classes for item in described.values() if item.classes), ()),
        files={file.kind: os.fsdecode(file.path) for file in files},
        digests={file.kind: file.digest for file in files},
        create_time=results.made,
    )
    outcome = ImageOutcome(spec.id, source, None, ImageState.DONE, content, files=files)
    return outcome, _planes(about, description, results.files)


def _with_labels_inside(spec: WatchSpec, results: FoundResults) -> FoundResults:
    """Add labels that lie in the image, whose name is that of the other results."""
    image = b"/".join((os.fsencode(spec.folder), *results.folders, results.stem))
    inside = Path(os.fsdecode(image + INSIDE))
    if not (spec.form.labels_inside and inside.is_dir()):
        return results
    return replace(results, files={"labels": inside, **results.files})


def _planes(about: Segmentation, description: Description, files: Mapping[str, Path]) -> list[Segmentation]:
    indices = [
        PlaneIndex(scene, time, z)
        for scene in range(description.scenes)
        for time in range(description.size_t)
        for z in range(description.size_z)
    ]
    return [_plane(about, page, index, files) for page, index in enumerate(indices)]


def _plane(about: Segmentation, page: int, index: PlaneIndex, files: Mapping[str, Path]) -> Segmentation:
    """Count a plane's labels and confidence, which also reads all of it."""
    counts = np.zeros(len(about.classes) + 1, np.int64)
    confidence = 0
    for top in range(0, about.height, _ROWS):
        region = Region(top, 0, min(_ROWS, about.height - top), about.width)
        if "labels" in about.files:
            labels = read_region(files["labels"], page, region)
            counts += np.bincount(labels.ravel(), minlength=len(counts))[: len(counts)]
        if "confidence" in about.files:
            confidence += int(read_region(files["confidence"], page, region).sum(dtype=np.int64))
    return replace(
        about,
        plane=index,
        page=page,
        label_pixel_counts=tuple(counts.tolist()) if "labels" in about.files else (),
        mean_confidence=confidence / (about.height * about.width),
    )


def _published(kind: str, path: Path) -> PublishedFile:
    name = os.fsencode(path)
    return PublishedFile(kind, name, digest_of(name), stamp_of(name).size_bytes)


def _unusable(results: FoundResults, why: str) -> SegmentdError:
    path = next(iter(results.files.values()))
    return SegmentdError(Reason.RESULT_UNAVAILABLE, f"{telemetry.printable(path)}: {why}")


def put_in_place(new: Path, folder: Path) -> Path | None:
    """Give a new journal its place and keep the one that was there; returns where that is now.

    At no moment is there no journal, which a daemon would take for a first start.

    Parameters
    ----------
    new : Path
        The folder of the new journal, closed; it is removed.
    folder : Path
        The journal's folder, locked by the caller.
    """
    path = folder / FILE_NAME
    aside = _aside(path)
    if path.exists():
        try:
            os.link(path, aside)
        except OSError:  # no links on this file system
            shutil.copyfile(path, aside)
    for ending in ("-wal", "-shm", "-journal"):
        if (left := path.with_name(path.name + ending)).exists():
            left.rename(aside.with_name(aside.name + ending))
    (new / FILE_NAME).replace(path)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sync_folder(descriptor)
    finally:
        os.close(descriptor)
    shutil.rmtree(new)
    return aside if aside.exists() else None


def _aside(path: Path) -> Path:
    for number in count(1):
        aside = path.with_name(f"{path.name}.old-{number}")
        if not any(path.parent.glob(f"{aside.name}*")):
            return aside
    raise AssertionError("count does not end")
