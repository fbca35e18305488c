"""What kind of file it is, by its first bytes, and whether its structure is closed. No decoder here."""

from __future__ import annotations

import os

from segmentd.errors import Reason, SegmentdError
from segmentd.ingest import raster_structure, tiff_structure
from segmentd.ingest.czi_structure import CZI_MAGIC, CziSummary, examine_czi
from segmentd.ingest.ole_structure import OLE_MAGIC, OleSummary, examine_ole
from segmentd.ingest.raster_structure import JpegSummary, PngSummary
from segmentd.ingest.tiff_structure import TiffSummary
from segmentd.ingest.verdict import (
    CLOSED,
    MAX_FILE_BYTES,
    BadStructureError,
    StillOpenError,
    Structure,
    Verdict,
)
from segmentd.records import Fault

TIFF_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
JPEG_MAGIC = b"\xff\xd8\xff"
HEAD_BYTES = 16

MAGICS = (*TIFF_MAGICS, PNG_MAGIC, JPEG_MAGIC, CZI_MAGIC, OLE_MAGIC)

Summary = TiffSummary | PngSummary | JpegSummary | CziSummary | OleSummary


def check(fd: int, name: str) -> Structure:
    """Check a file through its descriptor; `name` is what messages call it."""
    try:
        summary = _examine(fd)
    except StillOpenError as error:
        return still_open(error, name)
    except BadStructureError as error:
        return Structure(Verdict.BAD, _bad_fault(error, name))
    if isinstance(summary, CziSummary) and summary.pending:
        return Structure(Verdict.CLOSED, announced_changes=True)
    return CLOSED


def still_open(error: StillOpenError, name: str) -> Structure:
    """Return the verdict for a file that may still be growing."""
    return Structure(Verdict.OPEN, _open_fault(error, name))


def examine(fd: int, name: str) -> Summary:
    """Return what the check learned of a closed file, for its reader.

    Raises
    ------
    SegmentdError
        `IMAGE_INCOMPLETE` where the structure is open, else the reason why it cannot be read.
    """
    try:
        return _examine(fd)
    except StillOpenError as error:
        fault = _open_fault(error, name)
    except BadStructureError as error:
        fault = _bad_fault(error, name)
    raise SegmentdError(Reason(fault.reason), fault.message, **fault.metadata)


def _examine(fd: int) -> Summary:
    size = os.fstat(fd).st_size
    if size > MAX_FILE_BYTES:
        text = f"has {size} bytes; {MAX_FILE_BYTES} are allowed: split it"
        raise BadStructureError(Reason.IMAGE_TOO_LARGE, text)
    head = os.pread(fd, HEAD_BYTES, 0)
    if head.startswith(TIFF_MAGICS):
        return tiff_structure.examine(fd)
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
    text = (
        "is not an image that this installation reads; it reads TIFF, OME-TIFF, CZI, TXM, TXRM, PNG and JPEG"
    )
    raise BadStructureError(Reason.IMAGE_UNSUPPORTED, text)


def _open_fault(error: StillOpenError, name: str) -> Fault:
    text = f"{name} is incomplete: {error}; copy it again when its writer is done"
    return Fault(Reason.IMAGE_INCOMPLETE, text, {"file": name})


def _bad_fault(error: BadStructureError, name: str) -> Fault:
    return Fault(error.reason, f"{name} {error}", {"file": name})
