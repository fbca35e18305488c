"""Reads and writes the zip container of a model without trusting a word of it.

Members are stored or deflated, named plainly, not too many and not too large; sizes are counted while
inflating, never taken from a header. Writing is deterministic: fixed times, sorted names.
"""

from __future__ import annotations

import io
import re
import struct
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
# Packages of other makers also name members `modelid=<guid>` or after a licence file.
FOREIGN_NAME = re.compile(r"[\w.=(){}+, -]{1,100}(/[\w.=(){}+, -]{1,100}){0,3}")
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_STREAMED = 0x8  # sizes stand behind the member, zeros in its header
_IN_EXTRA_FIELD = 0xFFFFFFFF  # sizes of zip64
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


def read_archive(file: BinaryIO, source: str, names: re.Pattern[str] = _NAME) -> dict[str, bytes]:
    """Read all members of a zip.

    Parameters
    ----------
    file : binary file
        Positioned anywhere.
    source : str
        What to call it in an error.
    names : pattern
        What members may be called, with `/` between folders; a backslash counts as one.

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
        _check_directory(infos, source, names)
        _check_places(file, archive, infos, source)
        compressed = sum(info.compress_size for info in infos)
        budget = min(MAX_INFLATED_BYTES, max(RATIO_FREE_BYTES, MAX_RATIO * compressed))
        members: dict[str, bytes] = {}
        for info in infos:
            data = _inflate(archive, info, budget, source)
            members[_plain_name(info)] = data
            budget -= len(data)
    return members


def _plain_name(info: zipfile.ZipInfo) -> str:
    return info.orig_filename.replace("\\", "/")


def _check_directory(infos: list[zipfile.ZipInfo], source: str, allowed: re.Pattern[str]) -> None:
    if len(infos) > MAX_MEMBERS:
        raise _refuse(source, f"has {len(infos)} members (at most {MAX_MEMBERS})")
    names = [_plain_name(info) for info in infos]
    if len({name.casefold() for name in names}) != len(names):
        raise _refuse(source, "has two members of one name")
    for info, name in zip(infos, names, strict=True):
        parts = name.split("/")
        if not allowed.fullmatch(name) or ".." in parts or "." in parts:
            raise _refuse(source, f"has a member with the unsafe name {name!r}")
        if info.flag_bits & 0x1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _refuse(source, f"member {name} is encrypted or packed in an unknown way")
        kind = (info.external_attr >> 16) & 0o170000
        if kind not in (0, 0o100000):
            raise _refuse(source, f"member {name} is a link or a special file")


def _check_places(
    file: BinaryIO, archive: zipfile.ZipFile, infos: list[zipfile.ZipInfo], source: str
) -> None:
    """Members must not overlap, which is how small archives inflate to anything (CVE-2024-0450)."""
    spans = [(archive.start_dir, archive.start_dir)]
    alike = True
    for info in infos:
        file.seek(info.header_offset)
        header = file.read(_LOCAL_HEADER.size)
        if len(header) < _LOCAL_HEADER.size:
            raise _refuse(source, f"member {_plain_name(info)} is damaged")
        magic, _, flags, method, _, _, crc, packed, size, name_size, extra_size = _LOCAL_HEADER.unpack(header)
        elsewhere = flags & _STREAMED or _IN_EXTRA_FIELD in (packed, size)
        same = (crc, packed, size) == (info.CRC, info.compress_size, info.file_size)
        alike &= magic == b"PK\x03\x04" and method == info.compress_type and bool(same or elsewhere)
        end = info.header_offset + _LOCAL_HEADER.size + name_size + extra_size + info.compress_size
        spans.append((info.header_offset, end))
    for (_, end), (start, _) in pairwise(sorted(spans)):
        if start < end:
            raise _refuse(source, "has overlapping members")
    if not alike:
        raise _refuse(source, "describes a member in two different ways")


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
