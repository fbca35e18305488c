"""Takes away results that a new version of their image did not replace, since they have other names."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from segmentd.errors import write_errors
from segmentd.results.durable import open_folder, remove
from segmentd.results.published import PublishedFile


def remove_superseded(folder: Path, before: Iterable[PublishedFile], now: Iterable[PublishedFile]) -> None:
    """Remove the results before of kinds that there are now under other names: in another format.

    Only what lies in the results folder is removed; the journal forgets it with the commit of the new ones.

    Parameters
    ----------
    folder : Path
        The results folder.
    before, now : iterable of PublishedFile
        Of the same image.

    Raises
    ------
    SegmentdError
        RESULTS_NOT_WRITABLE.
    """
    new = {file.kind: file.path for file in now}
    root = os.fsencode(folder.absolute()) + b"/"
    for file in before:
        if new.get(file.kind, file.path) == file.path or not file.path.startswith(root):
            continue
        *subfolders, name = file.path.removeprefix(root).split(b"/")
        with write_errors("results", folder):
            directory = open_folder(folder, subfolders)
            try:
                remove(name, directory)
            finally:
                os.close(directory)
