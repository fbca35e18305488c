"""The package zarr, which is imported when the first OME-Zarr is written or read."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from segmentd.errors import Reason, SegmentdError

if TYPE_CHECKING:
    from zarr.core.buffer import Buffer
    from zarr.storage import LocalStore


def import_zarr() -> ModuleType:
    """Import the package; MISSING_EXTRA where it is not installed."""
    try:
        import zarr.storage
    except ImportError as error:
        raise SegmentdError(
            Reason.MISSING_EXTRA,
            'OME-Zarr needs the package zarr, which is not installed: pip install "segmentd[zarr]"',
            extra="zarr",
        ) from error
    return zarr


def folder_store(folder: Path) -> LocalStore:
    """Return a store that writes to a folder which is nobody else's.

    The package makes sure with hard links that a file is new, and not every file system has these.
    """
    from zarr.storage import LocalStore

    class FolderStore(LocalStore):
        async def set_if_not_exists(self, key: str, value: Buffer) -> None:
            if not await self.exists(key):
                await self.set(key, value)

    return FolderStore(folder)
