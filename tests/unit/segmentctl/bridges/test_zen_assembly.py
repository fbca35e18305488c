"""Messages of ZEN to planes: parts in any order, colours, channels, messages that contradict themselves."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from segmentctl.bridges.zen import assembly
from segmentctl.bridges.zen.assembly import Assembler, BadFrameError

from ....e2e.bridges.fake_zen import message, partly, zen

Pixels = npt.NDArray[np.generic]


def picture(seed: int, shape: tuple[int, ...] = (6, 8), dtype: str = "uint16") -> Pixels:
    return np.random.default_rng(seed).integers(0, 250, shape).astype(dtype)


@pytest.mark.parametrize("lines", [1, 4])
def test_parts_may_come_in_any_order_and_twice(lines: int) -> None:
    image = picture(1)
    parts = partly(message(image, z=3), lines)
    order = [*np.random.default_rng(0).permutation(len(parts) - 1), 0, len(parts) - 1]
    assembler = Assembler(1)
    planes = [assembler.add(parts[index]) for index in order]
    assert planes[:-1] == [None] * (len(order) - 1)
    frame = planes[-1]
    assert frame is not None
    assert frame.name == "s0_m0_t0_z3"
    assert np.array_equal(frame.image, image[np.newaxis])


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_colours_become_red_green_blue(dtype: str) -> None:
    blue_first = picture(2, (6, 8, 3), dtype)
    frame = Assembler(3).add(message(blue_first))
    assert frame is not None
    assert frame.image.dtype == dtype
    assert np.array_equal(frame.image, np.moveaxis(blue_first[:, :, ::-1], 2, 0))


def test_channels_in_the_order_that_was_asked_for() -> None:
    assembler = Assembler(2, (4, 1))
    assert assembler.add(message(picture(1), c=1)) is None
    assert assembler.add(message(picture(9), c=0)) is None
    frame = assembler.add(message(picture(4), c=4))
    assert frame is not None
    assert np.array_equal(frame.image, np.stack([picture(4), picture(1)]))
    assert assembler.skipped == {0}


def test_what_never_completes_is_bounded_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assembly, "MOST_UNFINISHED", 3)
    planes, parts = Assembler(2), Assembler(1)
    for time in range(5):
        planes.add(message(picture(time), t=time, c=0))
        parts.add(partly(message(picture(time), t=time), 2)[0])
    assert (planes.unfinished, parts.unfinished) == (2, 2)
    planes.give_up()
    parts.give_up()
    assert (planes.unfinished, parts.unfinished) == (5, 5)


def changed(**fields: int) -> zen.FrameData:
    data = message(picture(1))
    for path, value in fields.items():
        target, name = data, path
        while "__" in name:
            outer, _, name = name.partition("__")
            target = getattr(target, outer)
        setattr(target, name, value)
    return data


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (changed(pixel_data__pixel_type=3), "type 3"),
        (changed(pixel_data__size__height=5), "96 bytes instead of 80"),
        (changed(pixel_data__start_position__y=1), "not inside a frame of 8 x 6"),
        (changed(pixel_data__start_position__x=-1), "not inside"),
        (changed(pixel_data__size__width=0), "not inside"),
        (changed(frame_size__width=1 << 30, frame_size__height=1 << 30), "larger than 1 GiB"),
        (changed(frame_size__height=3), "not inside"),
    ],
)
def test_a_message_that_contradicts_itself_is_refused(data: zen.FrameData, text: str) -> None:
    with pytest.raises(BadFrameError, match=text):
        Assembler(1).add(data)


def test_frames_whose_size_changes_are_refused() -> None:
    assembler = Assembler(1)
    assembler.add(partly(message(picture(1)), 2)[0])
    with pytest.raises(BadFrameError, match="different sizes"):
        assembler.add(partly(message(picture(1, (4, 8))), 2)[0])
    two = Assembler(2)
    two.add(message(picture(1), c=0))
    with pytest.raises(BadFrameError, match="different sizes"):
        two.add(message(picture(1, (4, 8)), c=1))


def test_names_and_numbers_are_those_that_travel() -> None:
    file = zen.DESCRIPTOR
    assert file.package == "zen_api.acquisition.v1beta"
    (service,) = file.services_by_name.values()
    assert service.name == "ExperimentStreamingService"
    assert [method.name for method in service.methods] == ["MonitorExperiment", "MonitorAllExperiments"]
    numbers = {
        name: {field.name: field.number for field in message.fields}
        for name, message in file.message_types_by_name.items()
    }
    one, every = [f"ExperimentStreamingServiceMonitor{what}" for what in ("Experiment", "AllExperiments")]
    assert numbers == {
        f"{one}Request": {"experiment_id": 1, "channel_index": 2, "enable_raw_data": 3},
        f"{one}Response": {"frame_data": 1},
        f"{every}Request": {"channel_index": 1, "enable_raw_data": 2},
        f"{every}Response": {"frame_data": 1},
        "FrameData": {
            "experiment_id": 1,
            "frame_number": 2,
            "frame_position": 3,
            "frame_size": 4,
            "frame_stage_position": 5,
            "scaling": 6,
            "pixel_data": 7,
        },
        "FramePosition": {axis: number for number, axis in enumerate("xyztsmch", 1)},
        "FrameStagePosition": {"x": 1, "y": 2, "z": 3},
        "Scaling": {"x": 1, "y": 2},
        "FramePixelData": {"start_position": 1, "size": 2, "pixel_type": 3, "raw_data": 4},
        "IntSize": {"width": 1, "height": 2},
        "IntPoint": {"x": 1, "y": 2},
    }
    values = {value.name: value.number for value in file.enum_types_by_name["PixelType"].values}
    assert {name.rpartition("_")[2]: number for name, number in values.items()} == {
        "UNSPECIFIED": 0,
        "GRAY8": 1,
        "GRAY16": 2,
        "BGR24": 4,
        "BGR48": 5,
    }
