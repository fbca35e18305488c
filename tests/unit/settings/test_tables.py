"""Watches that come over the API follow the rules of the configuration file, in its words."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from segmentd.errors import ConfigurationError, Reason, SegmentdError
from segmentd.settings import check_watch, given_keys
from segmentd.settings.schema import WatchSettings


def watch(**keys: Any) -> dict[str, Any]:
    return {"id": "a", "folder": "/in", "model": "m", **keys}


def problems(*others: WatchSettings, **keys: Any) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        check_watch(watch(**keys), {f"watches/{other.id}": other for other in others}, ())
    return caught.value.problems


def test_problems_name_the_bare_key_value_and_rule() -> None:
    assert problems(tile=3, settle_seconds=-1.0) == [
        "settle_seconds = -1.0: must be >= 0",
        "tile = 3: must be >= 16",
    ]
    assert problems(outputs=["x"])[0].startswith('outputs[0] = "x": must be one of')
    assert problems(results="/in") == ['results = "/in": must not be the watched folder']


@pytest.mark.parametrize("path", ["in", "./in", "~/in", "~root/in"])
def test_paths_must_be_absolute(path: str) -> None:
    assert problems(folder=path) == [f'folder = "{path}": must be an absolute path']


def test_folders_of_another_watch_are_taken() -> None:
    other = check_watch({"id": "b", "folder": "/b", "model": "m"}, {}, ())
    assert problems(other, folder="/b/../b") == ['folder = "/b": must differ from watches/b.folder']
    assert problems(other, results="/b/segmented") == [
        'results = "/b/segmented": must differ from the results folder of watches/b'
    ]


def test_all_folders_must_lie_in_the_roots_wherever_links_lead(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "in").mkdir(parents=True)
    (root / "link").symlink_to(tmp_path)
    check_watch(watch(folder=str(root / "in")), {}, [root])
    for keys in ({"folder": str(tmp_path)}, {"folder": str(root / "link")}, {"results": str(tmp_path / "x")}):
        with pytest.raises(SegmentdError, match=r"must lie in a folder of server\.roots") as caught:
            check_watch(watch(**{"folder": str(root / "in"), **keys}), {}, [root])
        assert caught.value.reason is Reason.FOLDER_OUTSIDE_ROOTS


def test_given_keys_make_the_same_watch_again() -> None:
    odd = os.fsdecode(b"/in/\xff")
    keys = watch(folder=odd, outputs=["labels"], settle_seconds=1.5, border=None, recursive=False)
    settings = check_watch(keys, {}, ())
    assert given_keys(settings) == keys
    assert check_watch(given_keys(settings), {}, ()) == settings
