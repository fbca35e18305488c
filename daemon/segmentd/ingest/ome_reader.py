"""Reads what an OME-XML refers to: once from start to end, without a tree; nothing that it names is opened.

A document type definition is refused, since entities can be made to expand without end.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, NoReturn
from xml.parsers import expat

from segmentd.errors import Reason
from segmentd.ingest.tiff_ome import DOCTYPE_TEXT, clean
from segmentd.ingest.verdict import BadStructureError, StillOpenError

MAX_MEMBERS = 10_000
MAX_NAME_BYTES = 255
CHUNK_BYTES = 1 << 20

_PLACE = ["OME", "Image", "Pixels", "TiffData", "UUID"]
_BY_PLACE = {tuple(_PLACE[:length]): _PLACE[length - 1] for length in (1, 2, 4, 5)}
_DIGITS = re.compile(r"\d{1,9}")


@dataclass(slots=True)
class NamedFile:
    """A file with planes: its UUID (empty where the XML does not say), and how many images it must have."""

    uuid: str
    images: int


@dataclass(slots=True)
class References:
    """What an OME-XML refers to.

    Attributes
    ----------
    uuid : str
        Of the file that the XML lies in; empty where it does not say.
    metadata_file, metadata_uuid : bytes, str
        The file with the metadata, where this one has none of its own; empty where it has.
    files : dict
        Those that have planes, by name; in their order in the XML.
    own : bytes
        The name in `files` that stands for this file itself, which may have been renamed since; empty if
        none does.
    first : bytes
        The name in `files` of the one with the first plane: first image, lowest T, Z and C.
    """

    uuid: str = ""
    metadata_file: bytes = b""
    metadata_uuid: str = ""
    files: dict[bytes, NamedFile] = field(default_factory=dict)
    own: bytes = b""
    first: bytes = b""

    def leader_for(self, name: bytes) -> bytes:
        """Name of the file that stands for the set, as far as this XML, which lies in `name`, tells."""
        if self.metadata_file:
            return self.metadata_file
        return name if self.first == self.own or is_companion(name) else self.first


def is_companion(name: bytes) -> bool:
    """Whether a name is that of a file with nothing but the metadata of a set."""
    return name.lower().endswith(b".companion.ome")


def read_references(xml: bytes, name: bytes, *, brief: bool = False) -> References:
    """Read what the OME-XML in the file `name` refers to; `brief` leaves out all planes.

    Raises
    ------
    StillOpenError
        The text ends before its last element.
    BadStructureError
        It names files outside its folder or too many of them, or is damaged.
    """
    reader = _Reader(name, brief)
    parser = expat.ParserCreate("utf-8")
    parser.buffer_text = True
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    parser.StartDoctypeDeclHandler = _no_doctype
    try:
        for start in range(0, len(xml), CHUNK_BYTES):
            parser.Parse(xml[start : start + CHUNK_BYTES], False)
    except _EnoughError:
        return reader.finished()
    except expat.ExpatError as error:
        refuse(f"has OME-XML that cannot be read ({error}); save it again")
    try:
        parser.Parse(b"", True)
    except expat.ExpatError as error:
        raise StillOpenError(f"its OME-XML ends too early ({error})") from error
    return reader.finished()


class _EnoughError(Exception):
    """What was wanted has been read."""


class _Reader:
    """Takes what the parser tells; `finished` returns what it came to."""

    def __init__(self, name: bytes, brief: bool = False) -> None:
        self._name = name
        self._brief = brief
        self._path: list[str] = []
        self._deeper = 0  # elements below those of interest
        self._found = References()
        self._image = -1
        self._place: tuple[int, ...] = ()  # of the first plane of a TiffData
        self._images = 1
        self._uuid: list[str] | None = None
        self._file_name = ""
        self._named = False
        self._first: tuple[tuple[int, ...], bytes] | None = None
        self._names: dict[str, bytes] = {}  # by UUID

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if self._deeper or len(self._path) == len(_PLACE):
            self._deeper += 1
            return
        self._path.append(tag.rpartition(":")[2])
        if self._path == ["OME", "BinaryOnly"]:
            self._found.metadata_file = checked_name(attributes.get("MetadataFile", ""))
            self._found.metadata_uuid = attributes.get("UUID", "")
        match _BY_PLACE.get(tuple(self._path)):
            case "OME":
                self._found.uuid = attributes.get("UUID", "")
            case "Image":
                if self._brief:
                    raise _EnoughError
                self._image += 1
            case "TiffData":
                self._begin_planes(attributes)
            case "UUID" if not self._named:
                self._uuid, self._file_name = [], attributes.get("FileName", "")

    def text(self, text: str) -> None:
        if self._uuid is not None:
            self._uuid.append(text)

    def end(self, _: str) -> None:
        if self._deeper:
            self._deeper -= 1
            return
        match _BY_PLACE.get(tuple(self._path)):
            case "UUID" if self._uuid is not None:
                self._name_file("".join(self._uuid).strip(), self._file_name)
                self._uuid, self._named = None, True
            case "TiffData" if not self._named:  # planes of this file itself
                self._take(self._name, self._found.uuid)
                self._found.own = self._name
        self._path.pop()

    def finished(self) -> References:
        found = self._found
        if self._first is not None:
            found.first = self._first[1]
        return found

    def _begin_planes(self, attributes: dict[str, str]) -> None:
        first = _number(attributes, "IFD", 0)
        count = _number(attributes, "PlaneCount", _number(attributes, "NumPlanes", 1))
        self._images = first + max(1, count)
        self._place = (self._image, *(_number(attributes, f"First{axis}", 0) for axis in "TZC"))
        self._named = False

    def _name_file(self, uuid: str, file_name: str) -> None:
        name = checked_name(file_name) if file_name else self._names.get(uuid, b"")
        own = uuid == self._found.uuid if self._found.uuid else name == self._name
        if not name:
            if not own:
                refuse("has planes in a file without a name; save the set again")
            name = self._name
        if self._names.setdefault(uuid, name) != name and uuid:
            refuse(f"gives two files the same UUID ({clean(uuid)}); save the set again")
        self._take(name, uuid)
        if own:
            self._found.own = name

    def _take(self, name: bytes, uuid: str) -> None:
        files = self._found.files
        known = files.setdefault(name, NamedFile(uuid, 0))
        if known.uuid != uuid:
            text = f"gives {clean(name.decode('utf-8', 'replace'))} two different UUIDs; save the set again"
            refuse(text)
        if len(files) > MAX_MEMBERS:
            text = f"is part of a set of more than {MAX_MEMBERS} files; save it as fewer files"
            raise BadStructureError(Reason.IMAGE_TOO_LARGE, text)
        known.images = max(known.images, self._images)
        if self._first is None or self._place < self._first[0]:
            self._first = self._place, name


def checked_name(text: str) -> bytes:
    """Return the name of a file in the same folder; anything that leads elsewhere is refused."""
    name = text.encode()
    if text in ("", ".", "..") or len(name) > MAX_NAME_BYTES or re.search(r"[/\\\x00]", text):
        shown = clean(text) or "no name"
        refuse(f"refers to a file outside its folder ({shown}); save the set in one folder", unsupported=True)
    return name


def _number(attributes: dict[str, str], name: str, default: int) -> int:
    text = attributes.get(name)
    if text is None:
        return default
    if not _DIGITS.fullmatch(text):
        refuse(f"has OME-XML without a proper {name}; save it again")
    return int(text)


def _no_doctype(*_: Any) -> NoReturn:
    refuse(DOCTYPE_TEXT)


def refuse(text: str, *, unsupported: bool = False) -> NoReturn:
    """Raise what is wrong with the XML."""
    raise BadStructureError(Reason.IMAGE_UNSUPPORTED if unsupported else Reason.IMAGE_CORRUPT, text)
