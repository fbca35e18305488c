"""Where files lie on this machine is not for clients: the name has to do."""

from __future__ import annotations

import re

# A slash that begins an absolute path, and all folders after it. A folder's name may hold anything but a
# slash; in our sentences a path is ended by punctuation before a space, or by a quote or bracket.
_END = r"[:;,]\s|[\"'`)\]](?![\w-])|\n"
_FOLDERS = re.compile(rf"(?:(?<![\w./~-])|(?<=file://))/(?=[^\s/])(?:(?:(?!{_END})[^/])*(?<!\s)/)*")


def without_folders(text: str, *known: str) -> str:
    """Return a text for a client: of each absolute path only the name that it ends with.

    Errors name files by their whole path, since logs and commands on this machine need it; this is where
    they leave the machine.

    Parameters
    ----------
    text : str
        What is to be told.
    *known : str
        Folders that the client is told anyway; paths in them stay as they are.
    """
    stays = re.compile("|".join(rf"{re.escape(folder)}(?![\w-]|\.\w)" for folder in known) or "(?!)")
    return _FOLDERS.sub(lambda path: path[0] if stays.match(text, path.start()) else "", text)
