"""Reads and writes the zip container of a model without trusting a word of it.

Members are stored or deflated, named plainly, not too many and not too large; sizes are counted while
inflating, never taken from a header. Writing is deterministic: fixed times, sorted names.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Mapping
from itertools import pairwise
from typing import BinaryIO

from segmentd.errors import Reason, SegmentdError

MAX_MEMBERS = 256
MAX_INFLATED_BYTES = 4 * 2**30
MAX_RATIO = 200
RATIO_FREE_BYTES = 10 * 2**20
_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}(/[A-Za-z0-9._-]{1,100}){0,3}")
_CHUNK_BYTES = 1 << 20
_FIXED_TIME = (1980, 1, 1, 0, 0, 0)


def _refuse(source: str, what: str) -> SegmentdError:
    return SegmentdError(
        Reason.MODEL_UNUSABLE, f"{source}: {what}; it is not a model file that can be used, export it again"
    )


def write_archive(target: BinaryIO, members: Mapping[str, bytes]) -> None:
    """Write members to `target` as a deterministic zip."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(members):
            info = zipfile.ZipInfo(name, _FIXED_TIME)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o600 << 16
            archive.writestr(info, members[name])


def read_archive(file: BinaryIO, source: str) -> dict[str, bytes]:
    """Read all members of a zip.

    Parameters
    ----------
    file : binary file
        Positioned anywhere.
    source : str
        What to call it in an error.

    Raises
    ------
    SegmentdError
        MODEL_UNUSABLE, saying which rule the archive breaks.
    """
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise _refuse(source, f"is not a zip archive ({error})") from error
    with archive:
        infos = archive.infolist()
        _check_directory(infos, source)
        compressed = sum(info.compress_size for info in infos)
        budget = min(MAX_INFLATED_BYTES, max(RATIO_FREE_BYTES, MAX_RATIO * compressed))
        members: dict[str, bytes] = {}
        for info in infos:
            members[info.filename] = _inflate(archive, info, budget, source)
            budget -= len(members[info.filename])
    return members


def _check_directory(infos: list[zipfile.ZipInfo], source: str) -> None:
    if len(infos) > MAX_MEMBERS:
        raise _refuse(source, f"has {len(infos)} members (at most {MAX_MEMBERS})")
    names = [info.filename for info in infos]
    if len({name.casefold() for name in names}) != len(names):
        raise _refuse(source, "has two members of one name")
    for info in infos:
        parts = info.filename.split("/")
        if not _NAME.fullmatch(info.filename) or ".." in parts or "." in parts:
            raise _refuse(source, f"has a member with the unsafe name {info.filename!r}")
        if info.flag_bits & 0x1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _refuse(source, f"member {info.filename} is encrypted or packed in an unknown way")
        kind = (info.external_attr >> 16) & 0o170000
        if kind not in (0, 0o100000):
            raise _refuse(source, f"member {info.filename} is a link or a special file")
    # Overlapping members are how small archives inflate to anything (CVE-2024-0450).
    spans = sorted((info.header_offset, info.header_offset + 30 + info.compress_size) for info in infos)
    for (_, end), (start, _) in pairwise(spans):
        if start < end:
            raise _refuse(source, "has overlapping members")


def _inflate(archive: zipfile.ZipFile, info: zipfile.ZipInfo, budget: int, source: str) -> bytes:
    out = io.BytesIO()
    try:
        with archive.open(info) as member:
            while chunk := member.read(_CHUNK_BYTES):
                if out.tell() + len(chunk) > budget:
                    raise _refuse(source, "inflates to far more than a model holds")
                out.write(chunk)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError) as error:
        raise _refuse(source, f"member {info.filename} is damaged ({error})") from error
    return out.getvalue()
