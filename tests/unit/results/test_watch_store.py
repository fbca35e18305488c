"""Watches in the journal's database."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from segmentd.results.journal import Journal
from segmentd.results.watch_store import WatchStore


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal.open(tmp_path / "journal")
    yield opened
    opened.close()


def test_watches_and_pauses_survive(journal: Journal, tmp_path: Path) -> None:
    store = WatchStore(journal)
    assert (store.watches(), store.paused()) == ({}, frozenset())
    odd = {"folder": os.fsdecode(b"/in/\xff \n"), "outputs": ["labels"], "tile": None, "settle_seconds": 0.1}
    store.save("b", odd)
    store.save("a", {"folder": "/a"})
    store.save("a", {"folder": "/a", "tile": 64})
    store.set_paused("b", True)
    store.set_paused("b", True)
    store.set_paused("of-the-file", True)
    journal.close()
    again = Journal.open(tmp_path / "journal")
    try:
        store = WatchStore(again)
        assert store.watches() == {"a": {"folder": "/a", "tile": 64}, "b": odd}
        assert store.paused() == {"b", "of-the-file"}
        store.set_paused("of-the-file", False)
        store.delete("b")
        store.delete("unknown")
        assert (list(store.watches()), store.paused()) == (["a"], frozenset())
    finally:
        again.close()
