"""Which names in a watched folder are inputs. Names are bytes, as the file system has them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from fnmatch import translate

IMAGE_SUFFIXES = tuple(
    b".tif .tiff .btf .tf2 .tf8 .png .jpg .jpeg .czi .txm .txrm .xrm .companion.ome".split()
)
# An image that is a folder: nothing in it is an image of its own.
STORE_SUFFIX = b".zarr"
RESULT_SUFFIXES = (
    b".labels.ome.tif",
    b".confidence.ome.tif",
    b".classes.ome.tif",
    b".overlay.png",
    b".thumbnail.png",
    b".network.ome.tif",
)
TEMPORARY_SUFFIXES = tuple(b".part .partial .filepart .crdownload .download .tmp .temp .swp .bak ~".split())
TEMPORARY_PREFIXES = (b".", b"~$", b"~tmp")


def is_temporary(name: bytes) -> bool:
    """Whether a name is one that programs use while they write: such files are never taken.

    A leading dot covers rsync (`.NAME.XXXXXX`), Syncthing (`.syncthing.NAME.tmp`) and hidden files.

    Examples
    --------
    >>> is_temporary(b"scan.tif.part"), is_temporary(b".scan.tif.x7Kq2a"), is_temporary(b"scan.tif")
    (True, True, False)
    """
    lowered = name.lower()
    return lowered.startswith(TEMPORARY_PREFIXES) or lowered.endswith(TEMPORARY_SUFFIXES)


def is_own_result(name: bytes) -> bool:
    """Whether a name is one that this daemon gives to results."""
    return name.lower().replace(b".ome.zarr", b".ome.tif").endswith(RESULT_SUFFIXES)


def is_store(name: bytes) -> bool:
    """Whether a folder of this name, or at this path, is one image (OME-Zarr)."""
    return name.lower().endswith(STORE_SUFFIX)


def is_image(name: bytes) -> bool:
    """Whether a name ends like an image file's; other files are no inputs, and no failures either."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def input_filter(include: Iterable[str]) -> Callable[[bytes], bool]:
    """Return the test of whether a relative path is an input of a watch.

    Parameters
    ----------
    include : iterable of str
        Patterns with `*`, `?` and `[...]`; upper and lower case are the same. One must match the file
        name or the whole relative path (where `*` also matches `/`).

    Examples
    --------
    >>> wanted = input_filter(["day1/*.tif", "*.PNG"])
    >>> [wanted(path) for path in (b"day1/a.tif", b"day2/a.tif", b"day2/a.png", b"day1/a.tif.part")]
    [True, False, True, False]
    """
    pattern = re.compile("|".join(translate(glob.lower()) for glob in include) or r"(?!)")

    def wanted(relative: bytes) -> bool:
        *parents, name = relative.split(b"/")
        if not (is_image(name) or is_store(name)) or is_temporary(name) or is_own_result(name):
            return False
        if any(parent.startswith(b".") or is_store(parent) for parent in parents):
            return False
        texts = (os.fsdecode(name).lower(), os.fsdecode(relative).lower())
        return any(pattern.match(text) for text in texts)

    return wanted


def printable(path: bytes) -> str:
    r"""Return a path for people and messages: bytes that are no text and control characters are escaped.

    Examples
    --------
    >>> print(printable(b"a/\xc2\xb5.tif"), printable(b"\xff\n.tif"))
    a/µ.tif \xff\n.tif
    """
    text = path.decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
