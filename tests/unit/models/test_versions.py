from __future__ import annotations

import os
from pathlib import Path

import pytest

from segmentd.errors import SegmentdError
from segmentd.models import versions


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cells.segmodel"


def publish(path: Path, content: str) -> None:
    staged = versions.staged_path(path.parent)
    staged.write_text(content)
    versions.publish(staged, path)


def contents(path: Path) -> list[str]:
    return [version.path.read_text() for version in versions.older(path)]


def test_each_version_takes_the_name_and_the_ones_before_are_kept(path: Path) -> None:
    for number, content in enumerate("abc", 1):
        publish(path, content)
        assert (path.read_text(), versions.current_number(path)) == (content, number)
    assert contents(path) == ["a", "b"]
    assert versions.find(path, 3) == path
    assert versions.find(path, 2).read_text() == "b"
    with pytest.raises(SegmentdError, match="is not kept; older ones that are: 1, 2"):
        versions.find(path, 4)
    assert [entry.name for entry in path.parent.iterdir() if entry.name.endswith(".part")] == []


def test_only_the_last_versions_are_kept(path: Path) -> None:
    for number in range(versions.KEPT + 5):
        publish(path, str(number))
    assert contents(path) == [str(number) for number in range(4, versions.KEPT + 4)]
    assert versions.current_number(path) == versions.KEPT + 5


def test_a_replaced_version_has_the_number_of_the_one_before(path: Path) -> None:
    publish(path, "a")
    publish(path, "b")
    staged = versions.staged_path(path.parent)
    staged.write_text("B")
    versions.replace(staged, path)
    assert (path.read_text(), versions.current_number(path), contents(path)) == ("B", 2, ["a"])


def test_a_crash_between_keeping_and_renaming_does_not_count(path: Path) -> None:
    publish(path, "a")
    publish(path, "b")
    versions.keep(path)  # and then the power is cut
    assert (versions.current_number(path), contents(path)) == (2, ["a"])
    publish(path, "c")
    assert (versions.current_number(path), contents(path)) == (3, ["a", "b"])


def test_a_deleted_model_keeps_its_versions_unless_purged(path: Path) -> None:
    publish(path, "a")
    publish(path, "b")
    versions.delete(path, purge=False)
    assert not path.exists()
    assert versions.deleted(path.parent, "cells") == path
    assert contents(path) == ["a", "b"]
    publish(path, "c")
    assert (versions.current_number(path), versions.deleted(path.parent, "cells")) == (3, None)
    versions.delete(path, purge=True)
    assert versions.deleted(path.parent, "cells") is None
    assert versions.kept(path) == []


def test_without_hard_links_versions_are_copies(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "link", refuse)
    publish(path, "a")
    publish(path, "b")
    assert (path.read_text(), contents(path)) == ("b", ["a"])


def test_what_a_killed_process_left_is_removed(path: Path) -> None:
    publish(path, "a")
    versions.staged_path(path.parent).write_text("half")
    versions.remove_staged(path.parent)
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["cells.segmodel"]
