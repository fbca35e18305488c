"""Watches over the API, with a real daemon: made, changed, paused, deleted, there after a restart."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from segmentctl import Client, DaemonError, Result
from segmentd.v1 import watch_service_pb2 as pb
from segmentd.v1.watch_service_pb2 import Watch

from .daemon import DaemonProcess, wait_until
from .images import write_blobs
from .wire import Wire, connected, refusal

pytestmark = pytest.mark.e2e
INVALID, MISSING = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
DENIED, PRECONDITION = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.FAILED_PRECONDITION


@pytest.fixture(scope="module")
def daemon(
    blobs_model: Path, renamed: Callable[[Path, str, str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DaemonProcess]:
    """A daemon with a watch of its configuration, roots, and models that give the same labels."""
    folder = tmp_path_factory.mktemp("api")
    models = folder / "models"
    models.mkdir()
    shutil.copy(blobs_model, models)
    for name in ("second", "third", "leaving"):
        renamed(models, name, f"The {name}")
    (folder / "roots").mkdir()
    watches = [{"id": "fixed", "folder": "roots/hot", "model": "blobs", "settle_seconds": 0.2}]
    (folder / "roots" / "hot").mkdir()
    with DaemonProcess(folder, models, watches, {"roots": ["roots"]}) as started:
        yield started


@pytest.fixture
def client(daemon: DaemonProcess) -> Iterator[Client]:
    with daemon.client() as made:
        yield made


@pytest.fixture
def wire(daemon: DaemonProcess) -> Iterator[Wire]:
    with connected(daemon.address) as made:
        yield made


@pytest.fixture
def folder(daemon: DaemonProcess, request: pytest.FixtureRequest) -> Path:
    """A new folder below the roots."""
    made = daemon.folder / "roots" / request.node.name.replace("_", "-")[:40]
    made.mkdir()
    return made


def results(client: Client, watch: str, count: int) -> list[Result]:
    """Wait for the first results of a watch."""
    with client.subscribe(watch, start="oldest", timeout=30) as stream:
        return [next(stream) for _ in range(count)]


def refused(act: Callable[[], object]) -> DaemonError:
    with pytest.raises(DaemonError) as error:
        act()
    return error.value


def test_a_watch_made_over_the_api_works_and_survives_a_restart(
    daemon: DaemonProcess, client: Client, folder: Path
) -> None:
    write_blobs(folder / "early.tif", 1)
    made = client.create_watch(
        "made", folder, "The second", settle_seconds=0.2, outputs=["labels"], tile=64, priority=3
    )
    assert (made.name, made.model, made.configured) == ("watches/made", "models/second", False)
    assert (made.tile_pixels, made.priority, list(made.outputs)) == (64, 3, ["labels"])
    assert (made.HasField("border_pixels"), made.recursive, made.existing) == (False, True, "process")
    assert made.give_up_duration.seconds == 5
    (result,) = results(client, "made", 1)
    assert (result.segmentation.source_display, result.segmentation.model) == ("early.tif", "models/second")
    assert (folder / "segmented" / "early.tif.labels.ome.tif").is_file()
    assert client.watch("made").images_per_minute == 1
    assert client.watch("made").megapixels_per_second > 0
    etag = client.watch("made").etag

    daemon.stop()
    write_blobs(folder / "late.tif", 2)
    daemon.start()
    again = client.watch("made")
    assert (again.etag, again.tile_pixels, again.state) == (etag, 64, Watch.STATE_ACTIVE)
    late = results(client, "made", 2)[1]
    assert late.segmentation.source_display == "late.tif"


def test_a_paused_watch_takes_up_nothing_until_it_is_resumed_also_over_a_restart(
    daemon: DaemonProcess, client: Client, folder: Path
) -> None:
    client.create_watch("pausing", folder, "third", settle_seconds=0.2)
    paused = client.pause_watch("pausing")
    assert paused.state == Watch.STATE_PAUSED
    assert client.pause_watch("pausing").etag == paused.etag
    write_blobs(folder / "a.tif", 3)
    client.pause_watch("fixed")
    daemon.stop()
    daemon.start()
    assert [client.watch(name).state for name in ("pausing", "fixed")] == [Watch.STATE_PAUSED] * 2
    assert client.resume_watch("fixed").state != Watch.STATE_PAUSED
    write_blobs(daemon.folder / "roots" / "hot" / "fixed.tif", 3)
    results(client, "fixed", 1)  # which came later than a.tif
    assert client.watch("pausing").done_count == 0
    client.unload_model("third")  # nothing but active watches holds a model
    assert client.resume_watch("pausing").state_reason == ""
    assert results(client, "pausing", 1)[0].segmentation.source_display == "a.tif"
    client.pause_watch("pausing")
    write_blobs(folder / "b.tif", 4)
    client.resume_watch("pausing")
    assert results(client, "pausing", 2)[1].segmentation.source_display == "b.tif"


def test_updates_take_effect_between_images_and_lose_none(client: Client, folder: Path) -> None:
    client.create_watch("changing", folder, "blobs", settle_seconds=0.1)
    count = 12
    for number in range(count):
        write_blobs(folder / f"{number:02}.tif", number)
        if number == 5:
            changed = client.update_watch("changing", model="second", min_confidence=100)
    assert (changed.model, changed.min_confidence) == ("models/second", 100)
    got = [result.segmentation for result in results(client, "changing", count)]
    assert sorted(one.source_display for one in got) == [f"{number:02}.tif" for number in range(count)]
    assert all(one.state == one.STATE_SUCCEEDED for one in got)
    # Written after the call: done in the new way. Before it: either way, one that was in work the old way.
    assert {one.model for one in got if one.source_display >= "06.tif"} == {"models/second"}
    unlabelled = [one.label_pixel_counts[0] for one in got if one.model == "models/second"]
    assert all(unlabelled)


def test_what_was_ignored_at_first_stays_so_when_a_watch_changes(client: Client, folder: Path) -> None:
    write_blobs(folder / "old.tif", 1)
    client.create_watch("ignoring", folder, "blobs", existing="ignore", settle_seconds=0.1)
    wait_until(lambda: client.watch("ignoring").ignored_count == 1, "the first look is over")
    client.pause_watch("ignoring")
    write_blobs(folder / "new.tif", 2)
    client.update_watch("ignoring", tile=64, include=["*.tif"])
    client.resume_watch("ignoring")
    assert results(client, "ignoring", 1)[0].segmentation.source_display == "new.tif"
    assert (client.watch("ignoring").done_count, client.watch("ignoring").ignored_count) == (1, 1)


def test_a_folder_of_another_daemon_is_refused(client: Client, folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # as another daemon does
        for only in (True, False):
            error = refused(lambda only=only: client.create_watch("x", folder, "blobs", validate_only=only))  # type: ignore[misc]
            assert (error.reason, error.code) == ("LOCKED", "FAILED_PRECONDITION")
            assert str(folder) in error.message
    finally:
        os.close(descriptor)
    client.create_watch("mine", folder, "blobs")
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with pytest.raises(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        client.delete_watch("mine")
        wait_until(lambda: is_free(descriptor), "the folder is given up")
    finally:
        os.close(descriptor)


def is_free(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def test_an_image_that_waits_is_taken_up_anew_when_its_watch_is_mended(client: Client, folder: Path) -> None:
    (folder / "blocked").write_text("a file where the results folder should be made")
    client.create_watch("waiting", folder, "blobs", results=folder / "blocked" / "x", settle_seconds=0.1)
    write_blobs(folder / "a.tif", 8)
    wait_until(lambda: client.watch("waiting").state == Watch.STATE_FAILED, "it says that it waits")
    client.update_watch("waiting", results=folder / "free")
    (result,) = results(client, "waiting", 1)
    assert result.segmentation.state == result.segmentation.STATE_SUCCEEDED
    assert (folder / "free" / "a.tif.labels.ome.tif").is_file()


def test_an_update_changes_what_its_mask_names(client: Client, wire: Wire, folder: Path) -> None:
    made = client.create_watch("masked", folder, "blobs", tile=64, border=40, recursive=False)
    changed = client.update_watch("masked", tile=None, min_confidence=7)
    assert (changed.HasField("tile_pixels"), changed.border_pixels, changed.recursive) == (False, 40, False)
    assert changed.etag != made.etag
    assert refused(lambda: client.update_watch("masked", etag=made.etag, tile=32)).reason == "WATCH_CHANGED"
    only = client.update_watch("masked", etag=changed.etag, validate_only=True, tile=32)
    assert only.tile_pixels == 32
    assert not client.watch("masked").HasField("tile_pixels")

    implied = pb.UpdateWatchRequest(watch=Watch(name="watches/masked", priority=5))
    assert wire.watches.UpdateWatch(implied).border_pixels == 40
    whole = pb.UpdateWatchRequest(
        watch=Watch(name="watches/masked", model="models/blobs"), update_mask=FieldMask(paths=["*"])
    )
    reset = wire.watches.UpdateWatch(whole)
    assert (reset.HasField("border_pixels"), reset.recursive, reset.priority) == (False, True, 0)
    for path, text in (("tile", "is no field"), ("state", "to pause")):
        request = pb.UpdateWatchRequest(
            watch=Watch(name="watches/masked"), update_mask=FieldMask(paths=[path])
        )
        no = refusal(lambda request=request: wire.watches.UpdateWatch(request))  # type: ignore[misc]
        assert (no.code, no.reason, no.fields) == (INVALID, "BAD_FIELD", ["update_mask"])
        assert text in no.message


def test_a_deleted_watch_leaves_results_and_history(
    daemon: DaemonProcess, client: Client, folder: Path
) -> None:
    client.create_watch("leaving", folder, "blobs", settle_seconds=0.1)
    write_blobs(folder / "a.tif", 4)
    (result,) = results(client, "leaving", 1)
    assert refused(lambda: client.delete_watch("leaving", etag="old")).reason == "WATCH_CHANGED"
    client.delete_watch("leaving")
    assert refused(lambda: client.watch("leaving")).reason == "WATCH_NOT_FOUND"
    assert (folder / "segmented" / "a.tif.labels.ome.tif").is_file()
    labels, _ = client.read(result.segmentation.name)
    np.testing.assert_array_equal(labels, result.labels)
    assert [one.name for one in client.segmentations("leaving")] == [result.segmentation.name]
    write_blobs(folder / "b.tif", 5)
    client.create_watch("leaving", folder, "blobs", settle_seconds=0.1)
    assert [one.segmentation.source_display for one in results(client, "leaving", 2)] == ["a.tif", "b.tif"]
    assert client.watch("leaving").done_count == 2


def test_a_watch_of_the_configuration_is_read_only(client: Client) -> None:
    assert client.watch("fixed").configured
    for act in (lambda: client.update_watch("fixed", tile=64), lambda: client.delete_watch("fixed")):
        error = refused(act)
        assert (error.reason, error.code) == ("WATCH_READ_ONLY", "FAILED_PRECONDITION")
        assert "configuration file" in error.message


def test_what_breaks_a_rule_is_refused(
    daemon: DaemonProcess, client: Client, wire: Wire, folder: Path
) -> None:
    roots = daemon.folder / "roots"
    outside = daemon.folder / "models"
    (roots / "link").symlink_to(outside)
    good: dict[str, Any] = {"folder": bytes(folder), "model": "models/blobs"}
    cases: list[tuple[dict[str, Any], grpc.StatusCode, str, list[str], str]] = [
        ({"folder": bytes(outside)}, DENIED, "FOLDER_OUTSIDE_ROOTS", [], "server.roots"),
        ({"folder": bytes(roots / "link")}, DENIED, "FOLDER_OUTSIDE_ROOTS", [], "server.roots"),
        ({"results_folder": bytes(outside)}, DENIED, "FOLDER_OUTSIDE_ROOTS", [], "results_folder"),
        ({"after": f"move:{outside}"}, DENIED, "FOLDER_OUTSIDE_ROOTS", [], "after"),
        ({"folder": b"hot"}, INVALID, "BAD_FIELD", ["watch.folder"], "must be an absolute path"),
        ({"folder": b""}, INVALID, "BAD_FIELD", ["watch.folder"], "must be given"),
        ({"folder": bytes(roots / "no")}, INVALID, "BAD_FIELD", ["watch.folder"], "exists"),
        ({"folder": bytes(roots / "hot")}, INVALID, "BAD_FIELD", ["watch.folder"], "watches/fixed"),
        ({"tile_pixels": 3}, INVALID, "BAD_FIELD", ["watch.tile_pixels"], "tile_pixels = 3: must be >= 16"),
        ({"outputs": ["x"]}, INVALID, "BAD_FIELD", ["watch.outputs"], 'outputs[0] = "x"'),
        ({"model": ""}, INVALID, "BAD_FIELD", ["watch.model"], "must be given"),
        ({"model": "models/none"}, MISSING, "MODEL_NOT_FOUND", [], "none"),
        ({"model": "models//etc/passwd"}, INVALID, "BAD_FIELD", ["watch.model"], "not by a path"),
    ]
    for fields, code, reason, named, text in cases:
        request = pb.CreateWatchRequest(watch=Watch(**{**good, **fields}), watch_id="refused")
        no = refusal(lambda request=request: wire.watches.CreateWatch(request))  # type: ignore[misc]
        assert (no.code, no.reason, no.fields) == (code, reason, named), fields
        assert text in no.message
    for name, reason in (("", "BAD_FIELD"), ("Not OK", "BAD_FIELD"), ("fixed", "WATCH_EXISTS")):
        request = pb.CreateWatchRequest(watch=Watch(**good), watch_id=name)
        assert refusal(lambda request=request: wire.watches.CreateWatch(request)).reason == reason  # type: ignore[misc]
    assert refused(lambda: client.watch("refused")).reason == "WATCH_NOT_FOUND"
    assert client.create_watch("refused", folder, "blobs", validate_only=True).name == "watches/refused"
    assert refused(lambda: client.watch("refused")).reason == "WATCH_NOT_FOUND"


def test_names_of_any_bytes_and_a_model_that_goes_away(
    daemon: DaemonProcess, client: Client, folder: Path
) -> None:
    odd = Path(os.fsdecode(os.fsencode(folder) + b"/\xff \n"))
    odd.mkdir()
    client.create_watch("odd", odd, "leaving", settle_seconds=0.1)
    write_blobs(odd / "a.tif", 6)
    assert results(client, "odd", 1)[0].segmentation.source_path == os.fsencode(odd / "a.tif")
    daemon.stop()
    (daemon.folder / "models" / "leaving.segmodel").unlink()
    daemon.start()
    watch = client.watch("odd")
    assert (watch.folder, watch.done_count, watch.state) == (os.fsencode(odd), 1, Watch.STATE_FAILED)
    assert "no model 'leaving'" in watch.state_reason
    write_blobs(odd / "b.tif", 7)
    assert client.update_watch("odd", model="blobs").state == Watch.STATE_ACTIVE
    assert results(client, "odd", 2)[1].segmentation.source_display == "b.tif"
