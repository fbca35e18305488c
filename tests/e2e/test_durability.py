"""What survives a power cut: the order of system calls, and disks that fail to sync."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from segmentd.v1.watch_service_pb2 import Watch

from .daemon import DaemonProcess, wait_until
from .following import fill, temporaries
from .images import write_blobs
from .syscalls import Call, read_trace, strace

pytestmark = pytest.mark.e2e
CALLS = "write,pwrite64,fsync,fdatasync,rename,renameat,renameat2,sendmsg"
NAMES = ["a.tif", "b.tif", "c.tif"]


def last(calls: Sequence[Call], what: str, wanted: Callable[[Call], bool]) -> Call:
    found = [call for call in calls if wanted(call) and call.result >= 0]
    assert found, f"no {what}"
    return found[-1]


def before(calls: Sequence[Call], call: Call) -> list[Call]:
    return [other for other in calls if other.end < call.begin]


def assert_durable_before_told(
    calls: Sequence[Call], results: Path, journal: Path, number: int, source: str
) -> None:
    """Follow the calls of one image backwards from the message that told a subscriber of it."""
    name = f"watches/hot/segmentations/s{number}"
    told = [call for call in calls if call.name == "sendmsg" and name in call.text]
    assert told, f"nobody was told of {name}"
    wal = str(journal / "journal.sqlite-wal")
    synced = last(before(calls, told[0]), "sync of the journal", lambda call: is_sync(call, wal))
    logged = [call for call in before(calls, synced) if call.name == "pwrite64" and call.path == wal]
    written = [call for call in logged if source in call.text]
    assert written, f"the journal was told of {source} after its last sync"
    folder = last(before(calls, written[-1]), "sync of the folder", lambda call: is_sync(call, str(results)))
    for kind in ("labels", "confidence"):
        ending = f'"{source}.{kind}.ome.tif"'
        renamed = last(before(calls, folder), f"rename to {ending}", lambda call, e=ending: e in call.text)
        temporary = str(results / renamed.text.split('"')[1])
        synced = last(
            before(calls, renamed), f"sync of {temporary}", lambda call, t=temporary: is_sync(call, t)
        )
        writes = [call for call in calls if call.name == "write" and call.path == temporary]
        assert writes, f"nothing was written to {temporary}"
        assert all(call.end < synced.begin for call in writes), f"{temporary} was written to after its sync"


def is_sync(call: Call, path: str) -> bool:
    return call.name in ("fsync", "fdatasync") and call.path == path


def test_results_are_durable_before_anybody_hears_of_them(
    place: Callable[..., DaemonProcess], tmp_path: Path
) -> None:
    """Write, sync, rename, sync the folder, commit with a sync, only then the event; for each image."""
    daemon, trace = place(), tmp_path / "trace"
    daemon.prefix = strace(trace, CALLS)
    with daemon, daemon.client() as client:
        with client.subscribe("hot", start="oldest", timeout=60, metadata_only=True) as results:
            for seed, name in enumerate(NAMES):
                write_blobs(daemon.hot / name, seed)
            sources = [next(results).segmentation.source_display for _ in NAMES]
        daemon.stop()
    calls = read_trace(trace)
    assert sorted(sources) == NAMES
    for number, source in enumerate(sources, 1):
        assert_durable_before_told(calls, daemon.results, daemon.folder / "journal", number, source)


def once(daemon: DaemonProcess, names: set[str]) -> None:
    """Wait until all images are done, each once, with results that are there."""
    with daemon.client() as client:
        with client.subscribe("hot", start="oldest", timeout=60) as results:
            got = [next(results) for _ in names]
        assert {result.segmentation.source_display for result in got} == names
        assert all(result.labels is not None for result in got)
        assert client.server().last_event_number == len(names)


@pytest.mark.slow
def test_a_result_that_cannot_be_synced_is_written_anew(
    place: Callable[..., DaemonProcess], tmp_path: Path
) -> None:
    """A second fsync would succeed although the data is lost; so there is none on the same file."""
    daemon, trace = place(), tmp_path / "trace"
    with daemon:
        daemon.stop()
    daemon.results.mkdir()  # else the first syncs are those of new folders
    daemon.prefix = strace(trace, "fsync", "-e", "inject=fsync:error=EIO")
    names = fill(daemon.hot, 3, 90)
    with daemon.start(), daemon.client() as client:
        state = Watch.STATE_FAILED
        wait_until(lambda: client.watch("hot").state == state, "the watch says that it waits")
        wait_until(lambda: len(read_trace(trace)) >= 8, "it has been tried again")
        watch = client.watch("hot")
        assert (watch.done_count, watch.failed_count, watch.waiting_count) == (0, 0, len(names))
        assert list(daemon.results.glob("*.tif")) == []
        daemon.stop()
    tried = [call.path for call in read_trace(trace)]
    assert all(".segmentd-" in path for path in tried)
    assert len(set(tried)) == len(tried)
    daemon.prefix = []
    with daemon.start():
        once(daemon, names)
        assert temporaries(daemon.results) == []


@pytest.mark.slow
def test_a_journal_that_cannot_be_synced_ends_the_daemon_and_nothing_is_lost(
    place: Callable[..., DaemonProcess], tmp_path: Path
) -> None:
    daemon = place()
    with daemon:
        once(daemon, fill(daemon.hot, 2, 90))
        daemon.stop()
    daemon.prefix = strace(tmp_path / "trace", "fdatasync", "-e", "inject=fdatasync:error=EIO:when=2+")
    names = fill(daemon.hot, 6, 90)
    daemon.launch()
    assert daemon.wait_for_exit(60) not in (0, None)
    assert "journal" in daemon.log_end()
    daemon.prefix = []
    with daemon.start():
        once(daemon, names)
        assert temporaries(daemon.results) == []
