"""Reads and writes the zip container of a model without trusting a word of it.

Members are stored or deflated, named plainly, not too many and not too large; sizes are counted while
inflating, never taken from a header. Writing is deterministic: fixed times, sorted names.
"""

from __future__ import annotations

import io
import re
import shutil
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
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


def write_archive(target: BinaryIO, members: Mapping[str, bytes | Path]) -> None:
    """Write members, from memory or from files, to `target` as a deterministic zip."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(members):
            info = zipfile.ZipInfo(name, _FIXED_TIME)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o600 << 16
            content = members[name]
            if isinstance(content, bytes):
                archive.writestr(info, content)
                continue
            info.compress_type = zipfile.ZIP_STORED  # images are packed already
            info.file_size = content.stat().st_size
            with content.open("rb") as source, archive.open(info, "w") as member:
                shutil.copyfileobj(source, member, _CHUNK_BYTES)


def read_archive(
    file: BinaryIO, source: str, names: re.Pattern[str] = _NAME, leave_out: str | None = None
) -> dict[str, bytes]:
    r"""Read all members of a zip.

    Parameters
    ----------
    file : binary file
        Positioned anywhere.
    source : str
        What to call it in an error.
    names : pattern
        What members may be called; `\` separates folders as `/` does.
    leave_out : str, optional
        Members whose names start like this are not read.

    Raises
    ------
    SegmentdError
        MODEL_UNUSABLE, saying which rule the archive breaks.
    """
    with _opened(file, source, names) as (archive, infos):
        wanted = [info for info in infos if leave_out is None or not _plain_name(info).startswith(leave_out)]
        compressed = sum(info.compress_size for info in wanted)
        budget = min(MAX_INFLATED_BYTES, max(RATIO_FREE_BYTES, MAX_RATIO * compressed))
        members: dict[str, bytes] = {}
        for info in wanted:
            out = io.BytesIO()
            _inflate(archive, info, budget, source, out)
            members[_plain_name(info)] = out.getvalue()
            budget -= out.tell()
    return members


def has_member(file: BinaryIO, name: str) -> bool:
    """Whether a file is a zip with a member of that name."""
    try:
        with zipfile.ZipFile(file) as archive:
            return name in archive.namelist()
    except (zipfile.BadZipFile, ValueError, OSError):
        return False


def copy_member(file: BinaryIO, source: str, name: str, target: BinaryIO, limit: int) -> None:
    """Inflate one member into another file, at most `limit` bytes; MODEL_UNUSABLE as `read_archive`."""
    with _opened(file, source, _NAME) as (archive, infos):
        for info in infos:
            if _plain_name(info) == name:
                budget = min(limit, max(RATIO_FREE_BYTES, MAX_RATIO * info.compress_size))
                _inflate(archive, info, budget, source, target)
                return
    raise _refuse(source, f"lacks {name}")


@contextmanager
def _opened(
    file: BinaryIO, source: str, names: re.Pattern[str]
) -> Iterator[tuple[zipfile.ZipFile, list[zipfile.ZipInfo]]]:
    """A zip whose directory has been checked."""
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise _refuse(source, f"is not a zip archive ({error})") from error
    with archive:
        if len(archive.infolist()) > MAX_MEMBERS:
            raise _refuse(source, f"has {len(archive.infolist())} members (at most {MAX_MEMBERS})")
        infos = [info for info in archive.infolist() if not _is_empty_folder(info)]
        _check_directory(infos, source, names)
        _check_places(file, archive, infos, source)
        yield archive, infos


def _is_empty_folder(info: zipfile.ZipInfo) -> bool:
    """Whether an entry only says that there is a folder; nothing is unpacked, so nothing comes of it."""
    return info.is_dir() and info.file_size == 0


def _plain_name(info: zipfile.ZipInfo) -> str:
    return info.orig_filename.replace("\\", "/")


def _check_directory(infos: list[zipfile.ZipInfo], source: str, allowed: re.Pattern[str]) -> None:
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


def _inflate(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, budget: int, source: str, out: BinaryIO
) -> None:
    size = 0
    try:
        with archive.open(info) as member:
            while chunk := member.read(_CHUNK_BYTES):
                size += len(chunk)
                if size > budget:
                    raise _refuse(source, "inflates to far more than a model holds")
                out.write(chunk)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError) as error:
        raise _refuse(source, f"member {info.filename} is damaged ({error})") from error
