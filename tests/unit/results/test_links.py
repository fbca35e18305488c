from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from segmentd.errors import Reason, SegmentdError
from segmentd.results.links import link_results
from segmentd.results.published import PublishedFile


def publish(folder: Path, name: str, kind: str, content: bytes) -> PublishedFile:
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.{kind}.ome.tif"
    path.write_bytes(content)
    return PublishedFile(kind, bytes(path), hashlib.sha256(content).hexdigest(), len(content))


@pytest.mark.parametrize("links", [True, False])
def test_results_get_the_new_name_beside_the_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:

        def refuse(*_: object, **__: object) -> None:
            raise OSError(errno.EPERM, "no links here")

        monkeypatch.setattr(os, "link", refuse)
    files = [publish(tmp_path, "a.tif", kind, kind.encode()) for kind in ("labels", "confidence")]
    linked = link_results(tmp_path, b"sub/b\xff.tif", files)
    assert [(file.kind, file.digest) for file in linked] == [(file.kind, file.digest) for file in files]
    for old, new in zip(files, linked, strict=True):
        assert new.path == bytes(tmp_path) + b"/sub/b\xff.tif." + new.kind.encode() + b".ome.tif"
        assert Path(os.fsdecode(new.path)).read_bytes() == new.kind.encode()
        assert os.path.samefile(old.path, new.path) is links  # noqa: PTH121
    (tmp_path / "next").write_bytes(b"another version")
    (tmp_path / "next").replace(os.fsdecode(files[0].path))
    assert Path(os.fsdecode(linked[0].path)).read_bytes() == b"labels"


def test_a_link_made_before_a_crash_is_made_again_and_replaces_what_was_there(tmp_path: Path) -> None:
    file = publish(tmp_path, "a.tif", "labels", b"labels")
    (tmp_path / "b.tif.labels.ome.tif").write_bytes(b"of an image that was there before")
    for _ in range(2):
        (linked,) = link_results(tmp_path, b"b.tif", [file])
        assert Path(os.fsdecode(linked.path)).read_bytes() == b"labels"
        names = sorted(path.name for path in tmp_path.iterdir())
        assert names == ["a.tif.labels.ome.tif", "b.tif.labels.ome.tif"], "no temporary file is left"


def test_what_is_gone_or_is_another_version_is_not_linked(tmp_path: Path) -> None:
    gone = publish(tmp_path, "a.tif", "labels", b"labels")
    other = publish(tmp_path, "a.tif", "confidence", b"confidence")
    Path(os.fsdecode(gone.path)).unlink()
    Path(os.fsdecode(other.path)).write_bytes(b"version 2")
    assert link_results(tmp_path, b"b.tif", [gone, other]) == []
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif.confidence.ome.tif"]


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    file = publish(tmp_path, "a.tif", "labels", b"labels")
    monkeypatch.setattr(os, "link", fail)
    with pytest.raises(SegmentdError) as caught:
        link_results(tmp_path, b"b.tif", [file])
    assert caught.value.reason is Reason.DISK_FULL
