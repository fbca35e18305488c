"""What kind of file it is, by its first bytes, and whether its structure is closed. No decoder here."""

from __future__ import annotations

import os
import stat

from segmentd.errors import Reason, SegmentdError
from segmentd.ingest import file_set, raster_structure, set_members, tiff_structure
from segmentd.ingest.czi_structure import CZI_MAGIC, CziSummary, examine_czi
from segmentd.ingest.file_set import SetSummary
from segmentd.ingest.names import printable
from segmentd.ingest.ole_structure import OLE_MAGIC, OleSummary, examine_ole
from segmentd.ingest.ome_reader import is_companion
from segmentd.ingest.raster_structure import JpegSummary, PngSummary
from segmentd.ingest.set_files import TIFF_MAGICS, Neighbours
from segmentd.ingest.tiff_structure import TiffSummary
from segmentd.ingest.verdict import (
    CLOSED,
    MAX_FILE_BYTES,
    BadStructureError,
    StillOpenError,
    Structure,
    Verdict,
)
from segmentd.ingest.zarr_structure import ZarrSummary, examine_zarr
from segmentd.records import Fault

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
JPEG_MAGIC = b"\xff\xd8\xff"
HEAD_BYTES = 16
LOOK_SECONDS = 3.0  # at the members of a set, in one look
FORMATS = "TIFF, OME-TIFF, OME-Zarr, CZI, TXM, TXRM, PNG and JPEG"

MAGICS = (*TIFF_MAGICS, PNG_MAGIC, JPEG_MAGIC, CZI_MAGIC, OLE_MAGIC)

Summary = TiffSummary | PngSummary | JpegSummary | CziSummary | OleSummary | ZarrSummary | SetSummary


def check(fd: int, name: str, neighbours: Neighbours | None = None) -> Structure:
    """Check a file through its descriptor.

    Parameters
    ----------
    fd : int
        The open file, or folder that is an image.
    name : str
        What messages call it.
    neighbours : Neighbours, optional
        Where it lies; without them a file of a set is refused.
    """
    try:
        summary = _examine(fd, neighbours)
        if isinstance(summary, SetSummary) and neighbours is not None:
            return _check_set(summary, name, neighbours)
    except StillOpenError as error:
        return still_open(error, name)
    except BadStructureError as error:
        return Structure(Verdict.BAD, _bad_fault(error, name))
    if isinstance(summary, CziSummary | ZarrSummary) and summary.pending:
        return Structure(Verdict.CLOSED, announced_changes=True)
    return CLOSED


def _check_set(found: SetSummary, name: str, neighbours: Neighbours) -> Structure:
    leader = file_set.leader_of(found, neighbours)
    if leader != found.name:
        part = file_set.membership(found, leader, neighbours)
        verdict, fault = _judged(part.fault, name)
        if verdict is Verdict.CLOSED:
            verdict = Verdict.PART
        return Structure(verdict, fault, leader=leader, leader_stamp=part.stamp)
    members = set_members.check_members(found, neighbours, LOOK_SECONDS)
    verdict, fault = _judged(members.fault, name)
    return Structure(
        verdict,
        fault,
        parts=tuple(members.parts),
        missing=frozenset(members.missing),
        being_written=members.writing,
    )


def _judged(error: StillOpenError | BadStructureError | None, name: str) -> tuple[Verdict, Fault | None]:
    if error is None:
        return Verdict.CLOSED, None
    if isinstance(error, StillOpenError):
        return Verdict.OPEN, _open_fault(error, name)
    return Verdict.BAD, _bad_fault(error, name)


def still_open(error: StillOpenError, name: str) -> Structure:
    """Return the verdict for a file that may still be growing."""
    return Structure(Verdict.OPEN, _open_fault(error, name))


def examine(fd: int, name: str, neighbours: Neighbours | None = None) -> Summary:
    """Return what the check learned of a closed file, for its reader; parameters as `check`.

    Raises
    ------
    SegmentdError
        `IMAGE_INCOMPLETE` where the structure is open, else the reason why it cannot be read.
    """
    try:
        summary = _examine(fd, neighbours)
        if isinstance(summary, SetSummary) and neighbours is not None:
            leader = file_set.leader_of(summary, neighbours)
            if leader != summary.name:
                part = file_set.membership(summary, leader, neighbours)
                text = f"is part of the set of {printable(leader)}; open that one"
                raise part.fault or BadStructureError(Reason.IMAGE_UNSUPPORTED, text)
            members = set_members.check_members(summary, neighbours)
            if members.fault is not None:
                raise members.fault
        return summary
    except StillOpenError as error:
        fault = _open_fault(error, name)
    except BadStructureError as error:
        fault = _bad_fault(error, name)
    raise SegmentdError(Reason(fault.reason), fault.message, **fault.metadata)


def _examine(fd: int, neighbours: Neighbours | None) -> Summary:
    status = os.fstat(fd)
    if stat.S_ISDIR(status.st_mode):
        return examine_zarr(fd)
    size = status.st_size
    if size > MAX_FILE_BYTES:
        text = f"has {size} bytes; {MAX_FILE_BYTES} are allowed: split it"
        raise BadStructureError(Reason.IMAGE_TOO_LARGE, text)
    if neighbours is not None and is_companion(neighbours.name):
        return file_set.examine_companion(fd, neighbours.name)
    head = os.pread(fd, HEAD_BYTES, 0)
    if head.startswith(TIFF_MAGICS):
        summary = tiff_structure.examine(fd)
        found = file_set.set_of(fd, summary, b"" if neighbours is None else neighbours.name)
        if found is not None and neighbours is None:
            text = "is one of the files of an OME-TIFF set, which can be read only where all of them are"
            raise BadStructureError(Reason.IMAGE_UNSUPPORTED, text)
        return found or summary
    if head.startswith(PNG_MAGIC):
        return raster_structure.examine_png(fd, size)
    if head.startswith(JPEG_MAGIC):
        return raster_structure.examine_jpeg(fd, size)
    if head.startswith(CZI_MAGIC):
        return examine_czi(fd)
    if head.startswith(OLE_MAGIC):
        return examine_ole(fd, size)
    if not head:
        raise StillOpenError("it is empty")
    if not any(head):
        raise StillOpenError("its first bytes have not been written yet")
    if any(magic.startswith(head) for magic in MAGICS):
        raise StillOpenError(f"it has {size} bytes only")
    text = f"is not an image that this installation reads; it reads {FORMATS}"
    raise BadStructureError(Reason.IMAGE_UNSUPPORTED, text)


def _open_fault(error: StillOpenError, name: str) -> Fault:
    text = f"{name} is incomplete: {error}; copy it again when its writer is done"
    return Fault(Reason.IMAGE_INCOMPLETE, text, {"file": name})


def _bad_fault(error: BadStructureError, name: str) -> Fault:
    return Fault(error.reason, f"{name} {error}", {"file": name})
