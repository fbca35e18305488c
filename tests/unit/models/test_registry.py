"""The registry: how models are found, when they are loaded anew, and when they must stay."""

from __future__ import annotations

from pathlib import Path

import pytest

from segmentd.errors import Reason, SegmentdError
from segmentd.models import bundle
from segmentd.models.registry import ModelState, Registry
from segmentd.records import ModelCard

from .. import tiny_model


class Device:
    """Where models go; remembers what was asked of it."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []

    def load(self, path: Path) -> ModelCard:
        self.calls.append(("load", path.name))
        return bundle.load(path).card

    def unload(self, path: Path) -> None:
        self.calls.append(("unload", path.name))


@pytest.fixture
def device() -> Device:
    return Device()


@pytest.fixture
def registry(tmp_path: Path, device: Device) -> Registry:
    return Registry(tmp_path, device.load, device.unload)


async def refused(registry: Registry, reference: str) -> SegmentdError:
    with pytest.raises(SegmentdError) as error:
        await registry.find(reference)
    return error.value


async def test_models_are_found_by_id_name_and_path(
    registry: Registry, tmp_path: Path, device: Device
) -> None:
    tiny_model.save(tmp_path / "file.segmodel", "cells", "My Cells")
    elsewhere = tiny_model.save(tmp_path / "other" / "x.segmodel", "spots", "Spots")
    for reference in ("cells", "My Cells", str(tmp_path / "file.segmodel")):
        assert (await registry.find(reference)).path == tmp_path / "file.segmodel"
    assert (await registry.find(str(elsewhere))).id == "spots"
    assert device.calls == []


async def test_an_id_goes_before_a_display_name(registry: Registry, tmp_path: Path) -> None:
    tiny_model.save(tmp_path / "a.segmodel", "cells", "Nuclei")
    tiny_model.save(tmp_path / "b.segmodel", "nuclei", "cells")
    assert (await registry.find("cells")).path.name == "a.segmodel"


async def test_a_name_of_several_models_is_refused_with_their_paths(
    registry: Registry, tmp_path: Path
) -> None:
    paths = [tiny_model.save(tmp_path / f"{name}.segmodel", name, "Twin") for name in ("a", "b")]
    error = await refused(registry, "Twin")
    assert error.reason is Reason.MODEL_AMBIGUOUS
    for path in paths:
        assert str(path) in error.message


async def test_two_models_with_one_id_are_listed_under_an_id_of_their_own(
    registry: Registry, tmp_path: Path
) -> None:
    paths = [tiny_model.save(tmp_path / f"{seed}.segmodel", "a", "A", seed) for seed in (0, 1)]
    ids = {entry.id: entry.path for entry in await registry.list()}
    assert ids == {f"a-{tiny_model.model(seed).card.digest[:8]}": paths[seed] for seed in (0, 1)}
    for name, path in ids.items():
        assert (await registry.find(name)).path == path
    for reference in ("a", "A"):
        error = await refused(registry, reference)
        assert error.reason is Reason.MODEL_AMBIGUOUS
        assert all(name in error.message for name in ids)
    paths[1].unlink()
    assert [entry.id for entry in await registry.list()] == ["a"]


async def test_a_model_that_lies_in_two_places_is_one(registry: Registry, tmp_path: Path) -> None:
    tiny_model.save(tmp_path / "a.segmodel")
    copy = tiny_model.save(tmp_path / "elsewhere" / "copy.segmodel")
    await registry.load(str(copy))
    (entry,) = await registry.list()
    assert (entry.id, entry.path, entry.state) == ("cells", copy, ModelState.ACTIVE)
    assert await registry.find("cells") is entry


async def test_a_broken_file_takes_no_id_from_a_model(registry: Registry, tmp_path: Path) -> None:
    path = tiny_model.save(tmp_path / "good.segmodel")
    (tmp_path / "cells.segmodel").write_bytes(b"x")
    listed = await registry.list()
    assert [entry.id == "cells" for entry in listed] == [True, False]
    assert listed[1].id.startswith("cells-")
    assert (await registry.find("cells")).path == path


async def test_what_is_not_there_says_what_is(registry: Registry, tmp_path: Path) -> None:
    tiny_model.save(tmp_path / "cells.segmodel")
    error = await refused(registry, "spots")
    assert (error.reason, error.metadata["resource"]) == (Reason.MODEL_NOT_FOUND, "spots")
    assert "known: cells" in error.message
    assert (await refused(registry, str(tmp_path / "spots.segmodel"))).reason is Reason.MODEL_NOT_FOUND
    assert [entry.id for entry in await registry.list()] == ["cells"]


async def test_a_missing_folder_has_no_models(tmp_path: Path, device: Device) -> None:
    registry = Registry(tmp_path / "missing", device.load, device.unload)
    assert await registry.list() == []
    assert "known: none" in (await refused(registry, "cells")).message


async def test_the_list_follows_the_folder(registry: Registry, tmp_path: Path) -> None:
    for name in ("b", "a"):
        tiny_model.save(tmp_path / f"{name}.segmodel", name, name)
    (tmp_path / "broken.segmodel").write_bytes(b"x")
    (tmp_path / ".a.segmodel.77.part").write_bytes(b"x")
    listed = await registry.list()
    assert [entry.id for entry in listed] == ["a", "b", "broken"]
    states = [entry.state for entry in listed]
    assert states == [ModelState.UNLOADED, ModelState.UNLOADED, ModelState.FAILED]
    assert listed[2].fault is not None
    assert listed[2].fault.reason == Reason.MODEL_UNUSABLE
    (tmp_path / "a.segmodel").unlink()
    tiny_model.save(tmp_path / "broken.segmodel", "mended", "Mended")
    assert [entry.id for entry in await registry.list()] == ["b", "mended"]


async def test_loading_twice_is_loading_once(registry: Registry, tmp_path: Path, device: Device) -> None:
    tiny_model.save(tmp_path / "cells.segmodel")
    assert (await registry.load("cells")).state is ModelState.ACTIVE
    async with registry.lease("Cells") as lease:
        assert (lease.card.id, lease.path) == ("cells", tmp_path / "cells.segmodel")
    assert device.calls == [("load", "cells.segmodel")]


async def test_a_changed_file_is_loaded_anew_when_it_is_next_used(
    registry: Registry, tmp_path: Path, device: Device
) -> None:
    path = tiny_model.save(tmp_path / "cells.segmodel")
    first = (await registry.load("cells")).card
    tiny_model.save(path, seed=1)
    async with registry.lease("cells") as lease:
        assert first is not None
        assert lease.card.digest == tiny_model.model(1).card.digest != first.digest
    assert device.calls == [("load", path.name)] * 2


async def test_a_bad_new_file_does_not_disturb_the_model_in_use(
    registry: Registry, tmp_path: Path, device: Device
) -> None:
    path = tiny_model.save(tmp_path / "cells.segmodel")
    await registry.load("cells")
    path.write_bytes(b"half a model")
    for _ in range(2):
        async with registry.lease("cells") as lease:
            assert lease.card.digest == tiny_model.model().card.digest
    entry = await registry.find("cells")
    assert entry.state is ModelState.ACTIVE
    assert entry.fault is not None
    assert len(device.calls) == 2, "the bad file is tried once"
    path.unlink()
    async with registry.lease("cells") as lease:
        assert lease.card.id == "cells"


async def test_a_bad_file_is_refused_and_loaded_once_it_is_mended(registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "cells.segmodel"
    path.write_bytes(b"no model")
    for reference in ("cells", str(path)):
        with pytest.raises(SegmentdError) as error:
            await registry.load(reference)
        assert error.value.reason is Reason.MODEL_UNUSABLE
    tiny_model.save(path)
    assert (await registry.load("cells")).state is ModelState.ACTIVE
    assert (await registry.find("cells")).fault is None


async def test_a_leased_model_stays(registry: Registry, tmp_path: Path, device: Device) -> None:
    tiny_model.save(tmp_path / "cells.segmodel")
    async with registry.lease("cells"), registry.lease("cells"):
        with pytest.raises(SegmentdError, match="in use by 2") as error:
            await registry.unload("cells")
    assert error.value.reason is Reason.MODEL_IN_USE
    assert (await registry.find("cells")).state is ModelState.ACTIVE
    assert (await registry.unload("cells")).state is ModelState.UNLOADED
    assert (await registry.unload("cells")).state is ModelState.UNLOADED
    assert device.calls == [("load", "cells.segmodel"), ("unload", "cells.segmodel")]


async def test_a_lease_ends_with_its_block_also_on_errors(registry: Registry, tmp_path: Path) -> None:
    tiny_model.save(tmp_path / "cells.segmodel")
    with pytest.raises(ZeroDivisionError):
        async with registry.lease("cells"):
            raise ZeroDivisionError
    assert (await registry.unload("cells")).state is ModelState.UNLOADED
