"""Reads the metadata of Zarr arrays, versions 2 and 3, as far as OME-Zarr needs them. No library here.

Only what is known is let through: types, codecs, grids. A library that meets more might do more.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from segmentd.errors import Reason
from segmentd.ingest import tree
from segmentd.ingest.verdict import BadStructureError, StillOpenError

MAX_DOCUMENT_BYTES = 8 << 20
MAX_AXES = 8
MAX_UNIT_BYTES = 1 << 30
# As of TIFF; larger integers do not fit.
PIXELS = frozenset(("bool", "int8", "uint8", "int16", "uint16", "uint32", "float16", "float32", "float64"))
V2_TYPE = re.compile(r"[<>|][biuf][1248]")
V2_COMPRESSORS = frozenset({"blosc", "zlib", "gzip", "zstd", "lz4", "bz2"})
V3_CODECS = frozenset({"bytes", "transpose", "blosc", "gzip", "zstd", "crc32c"})
SHARDING = "sharding_indexed"


@dataclass(frozen=True, slots=True)
class ArrayMetadata:
    """One array.

    Attributes
    ----------
    path : str
        Path of the array in the image.
    version : int
        2 or 3, of the Zarr format.
    shape, chunks, unit : tuple of int
        Of the array, of what one file holds, and of what is decoded together (smaller in shards).
    dtype : numpy.dtype
        Type of the pixels.
    fill_stated : bool
        Whether the metadata say what stands for chunks that are not there.
    first, separator : str
        How names of chunks begin, and what is between their numbers.
    document : bytes
        The metadata, checked.
    """

    path: str
    version: int
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    unit: tuple[int, ...]
    dtype: np.dtype[Any]
    fill_stated: bool
    first: str
    separator: str
    document: bytes

    @property
    def grid(self) -> tuple[int, ...]:
        """Number of chunks along each axis."""
        return tuple(-(-n // chunk) for n, chunk in zip(self.shape, self.chunks, strict=True))

    def chunks_in(self, files: Iterable[str]) -> Iterator[tuple[tuple[int, ...], str]]:
        """Which files of an image are chunks of this array: their place in the grid, and their path."""
        root = f"{self.path}/"
        for name in files:
            index = self.chunk(name.removeprefix(root)) if name.startswith(root) else None
            if index is not None:
                yield index, name

    def chunk(self, name: str) -> tuple[int, ...] | None:
        """Which chunk a file is, by its path in the array; None for other files."""
        if not name.startswith(self.first):
            return None
        parts = name.removeprefix(self.first).split(self.separator)
        if len(parts) != len(self.shape) or not all(part.isdecimal() and len(part) < 10 for part in parts):
            return None
        index = tuple(int(part) for part in parts)
        return index if all(n < end for n, end in zip(index, self.grid, strict=True)) else None


def read_document(fd: int, path: str) -> dict[str, Any] | None:
    """Read a JSON object of the image; None where it is not there."""
    data = _bytes(fd, path)
    return None if data is None else _parsed(data, path)


def read_array(fd: int, path: str) -> ArrayMetadata:
    """Read and check the metadata of the array at a path.

    Raises
    ------
    StillOpenError
        They are not there, or not yet whole.
    BadStructureError
        They are wrong, or ask for something that is not supported.
    """
    for name, parse in (("zarr.json", _version_3), (".zarray", _version_2)):
        data = _bytes(fd, f"{path}/{name}")
        if data is not None:
            return _checked(parse(path, data, _parsed(data, f"{path}/{name}")))
    raise StillOpenError(f"it has no metadata of its array '{path}' yet")


def _bytes(fd: int, path: str) -> bytes | None:
    data = tree.read_file(fd, path.encode("utf-8", "surrogateescape"), 0, MAX_DOCUMENT_BYTES + 1)
    if data is not None and len(data) > MAX_DOCUMENT_BYTES:
        raise BadStructureError(Reason.IMAGE_TOO_LARGE, f"has metadata beyond all measure in {path}")
    return data


def _parsed(data: bytes, path: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except RecursionError as error:
        raise corrupt(f"{path} is nested too deeply") from error
    except ValueError as error:
        raise StillOpenError(f"its {path} is no JSON ({error})") from error
    if not isinstance(value, dict):
        raise corrupt(f"{path} holds no JSON object")
    return value


def corrupt(text: str) -> BadStructureError:
    """Metadata that contradict their own format."""
    return BadStructureError(Reason.IMAGE_CORRUPT, f"has wrong metadata: {text}; save it again")


def unsupported(text: str) -> BadStructureError:
    """Metadata that are right, but ask for more than is read."""
    return BadStructureError(Reason.IMAGE_UNSUPPORTED, text)


def _version_2(path: str, data: bytes, value: dict[str, Any]) -> ArrayMetadata:
    kind = value.get("dtype")
    if value.get("zarr_format") != 2 or not isinstance(kind, str):
        raise corrupt(f"no array of version 2 in {path}")
    if not V2_TYPE.fullmatch(kind):
        raise _strange_type(kind)
    compressor = value.get("compressor")
    if compressor is not None and _name(compressor, "id") not in V2_COMPRESSORS:
        raise _strange_codec(_name(compressor, "id"))
    if value.get("filters"):
        raise unsupported("is stored with filters, which are not supported; save it without")
    if value.get("order", "C") not in ("C", "F"):
        raise corrupt(f"no order in {path}")
    separator = value.get("dimension_separator", ".")
    chunks = _sizes(value.get("chunks"), path)
    return ArrayMetadata(
        path=path,
        version=2,
        shape=_sizes(value.get("shape"), path),
        chunks=chunks,
        unit=chunks,
        dtype=np.dtype(kind),
        fill_stated=value.get("fill_value") is not None,
        first="",
        separator=separator if separator in (".", "/") else _no_separator(path),
        document=data,
    )


def _version_3(path: str, data: bytes, value: dict[str, Any]) -> ArrayMetadata:
    if value.get("zarr_format") != 3 or value.get("node_type") != "array":
        raise corrupt(f"no array of version 3 in {path}")
    kind, grid, names = value.get("data_type"), value.get("chunk_grid"), value.get("chunk_key_encoding")
    if not isinstance(kind, str) or kind not in PIXELS:
        raise _strange_type(kind)
    if value.get("storage_transformers"):
        raise unsupported("is stored in a way that is not supported (storage transformers)")
    if _name(grid) != "regular" or _name(names) not in ("default", "v2"):
        raise unsupported(
            "has chunks that are not regular, which is not supported; save it with regular ones"
        )
    default = _name(names) == "default"
    separator = _settings(names).get("separator", "/" if default else ".")
    if separator not in (".", "/"):
        _no_separator(path)
    chunks = _sizes(_settings(grid).get("chunk_shape"), path)
    return ArrayMetadata(
        path=path,
        version=3,
        shape=_sizes(value.get("shape"), path),
        chunks=chunks,
        unit=_unit(value.get("codecs"), chunks, path),
        dtype=np.dtype(kind),
        fill_stated=value.get("fill_value") is not None,
        first=f"c{separator}" if default else "",
        separator=separator,
        document=data,
    )


def _unit(codecs: object, chunks: tuple[int, ...], path: str) -> tuple[int, ...]:
    """Check the codecs; return what is decoded together."""
    if not isinstance(codecs, list) or not 0 < len(codecs) < 9:
        raise corrupt(f"no codecs in {path}")
    names = [_name(codec) for codec in codecs]
    if names == [SHARDING]:
        settings = _settings(codecs[0])
        for key in ("codecs", "index_codecs"):
            inner = settings.get(key)
            if not isinstance(inner, list) or not 0 < len(inner) < 9:
                raise corrupt(f"no {key} of shards in {path}")
            _check_codecs([_name(codec) for codec in inner])
        unit = _sizes(settings.get("chunk_shape"), path)
        if len(unit) != len(chunks) or any(n % part for n, part in zip(chunks, unit, strict=True)):
            raise corrupt(f"shards in {path} that are no multiple of their chunks")
        return unit
    _check_codecs(names)
    return chunks


def _check_codecs(names: list[str]) -> None:
    for name in names:
        if name not in V3_CODECS:
            raise _strange_codec(name)


def _checked(array: ArrayMetadata) -> ArrayMetadata:
    if not len(array.shape) == len(array.chunks) == len(array.unit):
        raise corrupt(f"chunks of other dimensions than the array in {array.path}")
    if array.dtype.name not in PIXELS:
        raise _strange_type(array.dtype.name)
    if math.prod(array.unit) * array.dtype.itemsize > MAX_UNIT_BYTES:
        text = f"has chunks of more than {MAX_UNIT_BYTES} bytes; save it with smaller ones"
        raise BadStructureError(Reason.IMAGE_TOO_LARGE, text)
    return array


def _sizes(value: object, path: str) -> tuple[int, ...]:
    if not isinstance(value, list) or not 2 <= len(value) <= MAX_AXES:
        raise corrupt(f"no shape of 2 to {MAX_AXES} dimensions in {path}")
    if not all(type(n) is int and 0 < n < 2**31 for n in value):
        raise corrupt(f"impossible lengths in {path}")
    return tuple(value)


def _name(value: object, key: str = "name") -> str:
    if isinstance(value, str):
        return value
    name = value.get(key) if isinstance(value, dict) else None
    return name if isinstance(name, str) else ""


def _settings(value: object) -> dict[str, Any]:
    found = value.get("configuration") if isinstance(value, dict) else None
    return found if isinstance(found, dict) else {}


def _no_separator(path: str) -> str:
    raise corrupt(f"a strange separator of chunks in {path}")


def _strange_type(kind: object) -> BadStructureError:
    text = str(kind)[:40]
    return unsupported(f"has pixels of type {text}, which is not supported; save it as 8-bit or 16-bit")


def _strange_codec(name: str) -> BadStructureError:
    known = ", ".join(sorted((V2_COMPRESSORS | V3_CODECS) - {"bytes", "transpose", "crc32c"}))
    return unsupported(
        f"is stored with the codec '{name[:40]}'; supported are {known}: save it with one of them"
    )
