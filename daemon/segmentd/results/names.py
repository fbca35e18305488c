"""Names of result files: one name for each input and kind, bounded, inside the results folder."""

from __future__ import annotations

import hashlib
import re

from segmentd.errors import Reason, SegmentdError

SUFFIXES = {
    "labels": b".labels.ome.tif",
    "confidence": b".confidence.ome.tif",
    "classes": b".classes.ome.tif",
    "overlay": b".overlay.png",
    "thumbnail": b".thumbnail.png",
    "image": b".network.ome.tif",
}
PICTURES = ("overlay", "thumbnail")
ZARR = "ome-zarr"
CZI = "czi"
_ENDINGS = {"ome-tiff": b".ome.tif", ZARR: b".ome.zarr", CZI: b".czi"}

_NAME_MAX = 255  # bytes; the limit of nearly every file system
_STEM_MAX = _NAME_MAX - max(len(suffix) for suffix in SUFFIXES.values()) - 1  # .ome.zarr is longer
_DIGEST_LENGTH = 32
_TEMPORARY = re.compile(rb"\..*\.segmentd-[0-9a-f]{8}\.part", re.DOTALL)


def source_parts(source: bytes) -> list[bytes]:
    """Split an input's relative path; a path that could leave its folder is refused.

    Raises
    ------
    SegmentdError
        BAD_FIELD for an absolute path and for empty, `.` and `..` parts.
    """
    parts = source.split(b"/")
    if b"\0" in source or any(part in (b"", b".", b"..") for part in parts):
        raise SegmentdError(
            Reason.BAD_FIELD,
            f"{source!r} is not a path below the watched folder, so it has no place among the results. "
            "Use a relative path without empty, '.' and '..' parts.",
            field="source",
        )
    return parts


def result_name(name: bytes, kind: str, container: str = "ome-tiff") -> bytes:
    """Name of the result file of an input file, both without folders.

    The input's name is kept whole, extension included, so that no two inputs of a folder share a result.
    A name that would become too long ends in a part of its SHA-256 instead; such stems have a length that
    no whole name reaches here, so the two sorts cannot meet.

    Examples
    --------
    >>> result_name(b"a.tif", "labels"), result_name(b"a.tif", "labels", "czi")
    (b'a.tif.labels.ome.tif', b'a.tif.labels.czi')
    """
    suffix = _suffix(kind, container)
    if len(name) < _STEM_MAX:
        return name + suffix
    digest = hashlib.sha256(name).hexdigest()[:_DIGEST_LENGTH].encode()
    room = _STEM_MAX - _DIGEST_LENGTH - 1
    return _cut(name, room).ljust(room, b"~") + b"~" + digest + suffix


def container_of(path: bytes) -> str:
    """Tell the format of a result from its name."""
    return next((name for name, ending in _ENDINGS.items() if path.endswith(ending)), "ome-tiff")


def _suffix(kind: str, container: str) -> bytes:
    return SUFFIXES[kind].replace(b".ome.tif", _ENDINGS[container])


def temporary_name(name: bytes, token: bytes) -> bytes:
    """Name under which a result is written; `token` is eight hex digits."""
    ending = b".segmentd-" + token + b".part"
    return b"." + _cut(name, _NAME_MAX - 1 - len(ending)) + ending


def is_temporary(name: bytes) -> bool:
    """Whether a file name is one of `temporary_name`."""
    return _TEMPORARY.fullmatch(name) is not None


def is_result_folder(name: bytes) -> bool:
    """Whether a folder's name is that of a result, so that nothing else is inside."""
    return container_of(name) == ZARR and split_result_name(name) is not None


def _cut(name: bytes, limit: int) -> bytes:
    """Shorten a name without splitting a UTF-8 character (some file systems refuse half ones)."""
    if len(name) <= limit:
        return name
    while limit > 0 and name[limit] & 0xC0 == 0x80:
        limit -= 1
    return name[:limit]


def split_result_name(name: bytes) -> tuple[bytes, str] | None:
    """Split a file name of `result_name` into what stands for the input, and the kind; None for others.

    Examples
    --------
    >>> split_result_name(b"a.tif.labels.ome.tif")
    (b'a.tif', 'labels')
    """
    for kind in SUFFIXES:
        suffix = _suffix(kind, container_of(name))
        if name.endswith(suffix) and len(name) > len(suffix) and not name.startswith(b"."):
            return name.removesuffix(suffix), kind
    return None


def source_name(stem: bytes, described: str) -> bytes | None:
    """Name of the input file whose results begin with `stem`.

    Parameters
    ----------
    stem : bytes
        See `split_result_name`.
    described : str
        The name in the result file, which tells what the stem of a long name does not.

    Returns
    -------
    bytes or None
        None for a long name that is not text.
    """
    if len(stem) < _STEM_MAX:
        return stem
    name = described.encode("utf-8", "replace")
    return name if result_name(name, "labels") == stem + SUFFIXES["labels"] else None
