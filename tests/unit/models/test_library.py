"""Changes of the models folder where nothing can be written."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from segmentd.errors import Reason, SegmentdError
from segmentd.models import bundle, versions
from segmentd.models.library import Library
from segmentd.models.registry import Registry

from ..tiny_model import model, save


@pytest.fixture
def library(tmp_path: Path) -> Library:
    save(tmp_path / "models" / "cells.segmodel")
    return Library(Registry(tmp_path / "models", lambda path: bundle.load(path).card, lambda path: None))


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (errno.ENOSPC, Reason.DISK_FULL),
        (errno.EDQUOT, Reason.DISK_FULL),
        (errno.EROFS, Reason.RESULTS_NOT_WRITABLE),
    ],
)
async def test_what_cannot_be_written_says_why_and_changes_nothing(
    library: Library, monkeypatch: pytest.MonkeyPatch, code: int, reason: Reason
) -> None:
    def fail(path: Path) -> None:
        raise OSError(code, os.strerror(code))

    folder = library.registry.folder
    await library.take_in(model(1), "cells", overwrite=True)
    before = (folder / "cells.segmodel").read_bytes()
    monkeypatch.setattr(versions, "sync", fail)
    monkeypatch.setattr("shutil.copyfile", lambda source, target: fail(target))
    for change in (
        library.take_in(model(2), "cells", overwrite=True),
        library.clone("cells", "Copy"),
        library.roll_back("cells"),
    ):
        with pytest.raises(SegmentdError) as error:
            await change
        assert error.value.reason is reason
        assert str(folder) in error.value.message
    assert (folder / "cells.segmodel").read_bytes() == before
    assert not list(folder.glob(f".*{versions.STAGED_SUFFIX}"))
