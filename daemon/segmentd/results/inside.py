"""Labels in the OME-Zarr that was segmented: a label image of its own in the image's group `labels`.

Nothing else in the image is touched but the list of its label images, which is replaced as a whole. Such
labels belong to the image: they are renamed, moved and deleted with it.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from segmentd import telemetry
from segmentd.errors import NO_ROOM
from segmentd.imagefile.zarr_image import ImageLayout, read_layout
from segmentd.results.contents import digest_of
from segmentd.results.durable import FOLDER_FLAGS, DurableFile, remove_abandoned, sync_folder
from segmentd.results.names import is_temporary
from segmentd.results.published import PublishedFile

GROUP = b"labels"
INSIDE_NAME = b"segmentd"
INSIDE = b"/" + GROUP + b"/" + INSIDE_NAME
"""What stands behind the path of an image in that of the labels in it."""

_log = telemetry.get_logger(__name__)
_DOCUMENT = b"zarr.json"
_MAX_DOCUMENT = 16 << 20
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class LabelsInside:
    """The group `labels` of an image, made if there is none.

    Parameters
    ----------
    image : int
        Descriptor of the image's folder, owned by the caller.
    path : Path
        Where that is.

    Attributes
    ----------
    layout : ImageLayout
        What the label image must have in common with the image.
    folder : int
        Descriptor of the group.

    Raises
    ------
    OSError
        The image cannot be written to.
    ValueError
        It is not one image in version 0.5, or has labels that are in the way.
    """

    def __init__(self, image: int, path: Path) -> None:
        self.path = path / os.fsdecode(GROUP) / os.fsdecode(INSIDE_NAME)
        try:
            self.layout: ImageLayout = read_layout(_read(image, _DOCUMENT))
        except FileNotFoundError as error:
            raise ValueError("it is not OME-Zarr 0.5") from error
        self._image = image
        try:
            os.mkdir(GROUP, dir_fd=image)
            self._made = True
        except FileExistsError:
            self._made = False
        self.folder = os.open(GROUP, FOLDER_FLAGS | os.O_NOFOLLOW, dir_fd=image)
        try:
            self._group = self._read_group()
            self._check_ours()
            remove_abandoned(self._names(), self.folder)
        except BaseException:
            self.close()
            raise

    def list_it(self) -> None:
        """Name the label image in the group's metadata, durably."""
        names = self._group["attributes"]["ome"]["labels"]
        name = os.fsdecode(INSIDE_NAME)
        if name not in names:
            names.append(name)
            document = DurableFile(self.folder, _DOCUMENT)
            try:
                document.file.write(json.dumps(self._group, indent=2).encode())
                document.seal()
                document.publish()
            finally:
                document.discard()
        sync_folder(self.folder)
        sync_folder(self._image)

    def close(self) -> None:
        """Let go of the group; if it was made in vain, it is removed."""
        if self.folder < 0:
            return
        os.close(self.folder)
        self.folder = -1
        if self._made:
            with contextlib.suppress(OSError):  # mostly because it is not empty
                os.rmdir(GROUP, dir_fd=self._image)

    def _names(self) -> list[bytes]:
        return [os.fsencode(name) for name in os.listdir(self.folder)]  # noqa: PTH208 (a descriptor)

    def _read_group(self) -> dict[str, Any]:
        """The metadata of the group, as they are or as they will be."""
        try:
            group = json.loads(_read(self.folder, _DOCUMENT))
        except FileNotFoundError:
            if any(name != INSIDE_NAME and not is_temporary(name) for name in self._names()):
                raise ValueError("its group `labels` has no metadata of version 0.5") from None
            ome: dict[str, Any] = {"version": "0.5", "labels": []}
            return {"zarr_format": 3, "node_type": "group", "attributes": {"ome": ome}}
        try:
            if not isinstance(group["attributes"]["ome"]["labels"], list):
                raise TypeError("they are no list")
        except (LookupError, TypeError) as error:
            raise ValueError(f"the metadata of its group `labels` are not understood ({error})") from error
        return dict(group)

    def _check_ours(self) -> None:
        """Labels of that name must be ours, or they stay."""
        try:
            ours = os.open(INSIDE_NAME, FOLDER_FLAGS | os.O_NOFOLLOW, dir_fd=self.folder)
        except FileNotFoundError:
            return
        try:
            attributes = json.loads(_read(ours, _DOCUMENT))["attributes"]
            if "segmentd" not in attributes:
                raise ValueError(f"its labels `{os.fsdecode(INSIDE_NAME)}` are somebody else's")
        except (FileNotFoundError, LookupError, TypeError) as error:
            raise ValueError(f"its labels `{os.fsdecode(INSIDE_NAME)}` are somebody else's") from error
        finally:
            os.close(ours)


def moved_along(
    files: Iterable[PublishedFile], old: bytes, new: bytes
) -> tuple[list[PublishedFile], list[PublishedFile]]:
    """Split the results of an image that was renamed: labels in it, under their new name, and the others."""
    inside, others = [], []
    for file in files:
        if file.path != old + INSIDE:
            others.append(file)
        elif Path(os.fsdecode(new + INSIDE)).is_dir() and digest_of(new + INSIDE) == file.digest:
            inside.append(replace(file, path=new + INSIDE))
    return inside, others


def is_gone_with_its_image(path: bytes) -> bool:
    """Whether a result was labels in an image that has been renamed or deleted."""
    return path.endswith(INSIDE) and not os.path.lexists(path.removesuffix(INSIDE))


def open_inside(image: int, path: Path) -> LabelsInside | None:
    """Open the group, or None where the image does not take labels; the log says why then."""
    try:
        return LabelsInside(image, path)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            raise
        why = (error.strerror if isinstance(error, OSError) else "") or str(error)
        _log.warning("labels go beside their image and not into it", image=os.fsencode(path), why=why)
        return None


def _read(folder: int, name: bytes) -> bytes:
    descriptor = os.open(name, _READ_FLAGS, dir_fd=folder)
    with open(descriptor, "rb") as file:  # noqa: PTH123 (a descriptor)
        data = file.read(_MAX_DOCUMENT + 1)
    if len(data) > _MAX_DOCUMENT:
        raise ValueError("its metadata are too long")
    return data
