"""Files that callers name by their path."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from segmentd.errors import Reason, SegmentdError
from segmentd.training_jobs.taking_in import copy_named


def test_only_files_below_the_roots_are_taken_and_of_others_nothing_is_told(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "a.tif").write_bytes(b"pixels")
    (tmp_path / "secret").write_bytes(b"secret")
    (root / "link").symlink_to(tmp_path / "secret")
    target = tmp_path / "target"
    copy_named(os.fsencode(root / "a.tif"), [root], target)
    assert target.read_bytes() == b"pixels"
    for name in ("secret", "missing", "root/../secret", "root/../missing", "root/link"):
        with pytest.raises(SegmentdError) as refused:
            copy_named(os.fsencode(tmp_path / name), [root], target)
        assert refused.value.reason is Reason.FOLDER_OUTSIDE_ROOTS, name
    with pytest.raises(SegmentdError) as refused:
        copy_named(os.fsencode(root / "missing"), [root], target)
    assert refused.value.reason is Reason.IMAGE_VANISHED
