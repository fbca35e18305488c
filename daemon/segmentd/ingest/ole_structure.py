"""Structural check of OLE2 compound files, the container of TXM, TXRM and XRM: every used sector is there.

Follows the allocation table only; what streams there are is for the reader to find out.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from segmentd.errors import Reason
from segmentd.ingest.verdict import BadStructureError, StillOpenError

OLE_MAGIC = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
HEADER_BYTES = 512
SECTOR_SHIFTS = (9, 12)
MAX_TABLE_BYTES = 64 << 20
FREE, LAST_SECTOR = 0xFFFFFFFF, 0xFFFFFFFA
IN_HEADER = 109

# sector shift, number of table sectors, start of the list of table sectors and its number of sectors
_HEADER = struct.Struct("<30xH12xI20xII")


@dataclass(frozen=True, slots=True)
class OleSummary:
    """What the check learned: the size of a sector and how many are used."""

    sector_bytes: int
    used_sectors: int


def examine_ole(fd: int, size: int) -> OleSummary:
    """Check that all sectors that the allocation table calls used lie inside the file."""
    head = os.pread(fd, HEADER_BYTES, 0)
    if len(head) < HEADER_BYTES:
        raise StillOpenError(f"it has {size} bytes only")
    shift, tables, _, _ = _HEADER.unpack_from(head)
    if shift not in SECTOR_SHIFTS or head[28:30] != b"\xfe\xff" or not tables:
        raise BadStructureError(Reason.IMAGE_CORRUPT, "has a damaged header; save it again")
    sector_bytes = 1 << shift
    if tables * sector_bytes > MAX_TABLE_BYTES:
        text = f"has an allocation table of {tables} sectors, which is too large; split it"
        raise BadStructureError(Reason.IMAGE_TOO_LARGE, text)
    used = 0
    for number, sector in enumerate(_table_sectors(fd, head, sector_bytes, size)):
        entries = np.frombuffer(_sector(fd, sector, sector_bytes, size), "<u4")
        in_use = np.flatnonzero(entries != FREE)
        if len(in_use):
            used = number * len(entries) + int(in_use[-1]) + 1
    # Sector 0 follows the header, which takes a sector; the last one may be cut at the end of its stream.
    if used * sector_bytes >= size:
        raise StillOpenError(f"it uses {used} sectors of {sector_bytes} bytes, the file ends at byte {size}")
    return OleSummary(sector_bytes, used)


def _table_sectors(fd: int, head: bytes, sector_bytes: int, size: int) -> Iterator[int]:
    """Numbers of the sectors that hold the allocation table."""
    _, tables, following, lists = _HEADER.unpack_from(head)
    listed = list(struct.unpack_from(f"<{IN_HEADER}I", head, HEADER_BYTES - 4 * IN_HEADER))
    for _ in range(min(lists, -(-tables * 4 // sector_bytes) + 1)):
        if len(listed) >= tables:
            break
        *numbers, following = struct.unpack(
            f"<{sector_bytes // 4}I", _sector(fd, following, sector_bytes, size)
        )
        listed += numbers
    if len(listed) < tables:
        raise BadStructureError(Reason.IMAGE_CORRUPT, "has a damaged allocation table; save it again")
    yield from listed[:tables]


def _sector(fd: int, number: int, sector_bytes: int, size: int) -> bytes:
    if number > LAST_SECTOR:
        raise BadStructureError(Reason.IMAGE_CORRUPT, "has a damaged allocation table; save it again")
    data = os.pread(fd, sector_bytes, (number + 1) * sector_bytes)
    if len(data) < sector_bytes:
        raise StillOpenError(f"its allocation table lies beyond the end of the file at byte {size}")
    return data
