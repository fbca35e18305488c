"""Names of files that results are saved under."""

from __future__ import annotations

_LONGEST = 120  # bytes of UTF-8; file systems allow 255, and number and suffix come on top


def saved_stem(number: int, source: str) -> str:
    """Give a name for the files of an event, safe on every file system.

    The number makes it unique, whatever is left of the image's own name.

    >>> saved_stem(7, "plate 1/../A01.tif")
    '00000007_plate_1_.._A01.tif'
    """
    safe = "".join(char if char.isalnum() or char in "._-" else "_" for char in source)
    short = safe.encode("utf-8", "replace")[-_LONGEST:].decode("utf-8", "ignore")
    return f"{number:08d}_{short}"
