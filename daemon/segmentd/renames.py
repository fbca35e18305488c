"""Renames: an image that was segmented under another name gets an event that says so, no second result."""

from __future__ import annotations

import os
from dataclasses import replace

from segmentd.ingest.folder import FoundFile
from segmentd.ingest.readers import OpenImage
from segmentd.records import Segmentation, SegmentationState, WatchSpec
from segmentd.results.images import ImageOutcome, ImageRow, ImageState
from segmentd.results.journal import Journal
from segmentd.results.links import link_results

Ended = tuple[ImageOutcome, list[Segmentation]]


def as_renamed(spec: WatchSpec, journal: Journal, found: FoundFile, image: OpenImage) -> Ended | None:
    """Return how an image ends that is known under another name, None if it is none.

    It is the same image if the file is the same (inode and device), nothing or another file is where it
    was, and its content is the same. A copy is a new image. Its results get the new name beside the old
    one. A rename of an image that was ignored is ignored.

    Raises
    ------
    SegmentdError
        DISK_FULL or RESULTS_NOT_WRITABLE.
    """
    original = _original(spec, journal, found, image)
    if original is None:
        return None
    ignored = original.state is ImageState.IGNORED
    digest = "" if ignored else image.content_digest
    outcome = ImageOutcome(
        watch=spec.id,
        path=found.relative,
        stamp=found.stamp,
        state=original.state,
        content_digest=digest,
        version=journal.next_version(spec.id, found.relative, digest),
        renamed_from=original.path,
        parts=found.parts,
    )
    if ignored:
        return outcome, []
    image.check_unchanged()
    files = tuple(link_results(spec.results, found.relative, original.files))
    event = journal.event(original.files[0].number) if original.files else None
    told = event.segmentation if event else _bare(image)
    record = replace(
        told,
        state=SegmentationState.RENAMED,
        renamed_from=original.path,
        content_digest=digest,
        files={file.kind: os.fsdecode(file.path) for file in files},
        digests={file.kind: file.digest for file in files},
    )
    return replace(outcome, files=files), [record]


def _original(spec: WatchSpec, journal: Journal, found: FoundFile, image: OpenImage) -> ImageRow | None:
    for known in journal.find_by_file(spec.id, found.stamp):
        if known.path == found.relative or _is_there(spec, known.path, found):
            continue
        if known.state is ImageState.IGNORED or known.content_digest == image.content_digest:
            return known
    return None


def _is_there(spec: WatchSpec, path: bytes, found: FoundFile) -> bool:
    """Whether this very file is (also) at that path, or cannot be told to be away."""
    try:
        status = os.lstat(os.fsencode(spec.folder) + b"/" + path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return (status.st_ino, status.st_dev) == (found.stamp.inode, found.stamp.device)


def _bare(image: OpenImage) -> Segmentation:
    """What can be told when the journal no longer keeps the segmentation itself."""
    info = image.info
    return Segmentation(
        watch="",
        source=b"",
        source_path=b"",
        state=SegmentationState.RENAMED,
        plane_count=info.plane_count,
        height=info.height,
        width=info.width,
    )
