"""Names of files that results are saved under."""

from __future__ import annotations

_LONGEST = 120  # bytes of UTF-8; file systems allow 255, and number and suffix come on top


def saved_stem(number: int, source: str) -> str:
    """Give a name for the files of an event, safe on every file system.

    The number makes it unique, whatever is left of the image's own name.

    >>> saved_stem(7, "plate 1/../A01.tif")
    '00000007_plate_1_.._A01.tif'
    """
    return f"{number:08d}_{without_tricks(source)}"


def without_tricks(name: str) -> str:
    """Give the end of a name with nothing in it that means something to a file system or a shell.

    >>> without_tricks("plate 1/A:01")
    'plate_1_A_01'
    """
    safe = "".join(char if char.isalnum() or char in "._-" else "_" for char in name)
    return safe.encode("utf-8", "replace")[-_LONGEST:].decode("utf-8", "ignore")
