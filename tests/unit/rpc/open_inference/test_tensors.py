"""What a request of the Open Inference Protocol may say, and what callers are told of what it may not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from segmentd.errors import Reason, SegmentdError
from segmentd.oip import open_inference_pb2 as pb
from segmentd.records import PixelType, SegmentOptions
from segmentd.rpc.open_inference import tensors
from segmentd.rpc.open_inference.regions import Region

Change = Callable[[pb.ModelInferRequest], object]
PIXELS = np.arange(12, dtype=np.uint16).reshape(3, 4)


def request() -> pb.ModelInferRequest:
    made = pb.ModelInferRequest(model_name="cells", raw_input_contents=[PIXELS.tobytes()])
    made.inputs.add(name="image", datatype="UINT16", shape=PIXELS.shape)
    return made


def no_region(name: str) -> Region:
    raise SegmentdError(Reason.REGION_UNKNOWN, f"no region {name}")


def understand(made: pb.ModelInferRequest) -> tuple[tensors.Input, list[tensors.Wanted], tensors.Announced]:
    wanted = tensors.read_outputs(made, tensors.OUTPUTS, ("labels", "confidence"), no_region)
    image = tensors.read_input(made, no_region)
    return image, wanted, tensors.announced(made, image, wanted, "client x")


def test_a_plain_request() -> None:
    image, wanted, plane = understand(request())
    assert (image.datatype, image.shape, image.size_bytes) == ("UINT16", (3, 4), 24)
    assert [output.name for output in wanted] == ["labels", "confidence"]
    assert (plane.model, plane.pixel_type, plane.shape) == ("cells", PixelType.UINT16, (1, 3, 4))
    assert plane.options == SegmentOptions()
    assert not plane.with_scores
    np.testing.assert_array_equal(plane.values(np.frombuffer(PIXELS, np.uint8))[0], PIXELS)


def test_channels_outputs_and_parameters() -> None:
    made = request()
    made.inputs[0].shape[:] = [2, 3, 2]
    for name in ("scores", "labels"):
        made.outputs.add(name=name)
    for name, value in (("min_confidence", 60), ("border", 0), ("tile", 256)):
        made.parameters[name].int64_param = value
    made.parameters["postprocessing"].string_param = "crf"
    made.parameters["confidence"].string_param = "marginal"
    made.parameters[tensors.FINAL_WANTED].bool_param = True
    _, wanted, plane = understand(made)
    assert [output.name for output in wanted] == ["scores", "labels"]
    assert plane.shape == (2, 3, 2)
    assert plane.with_scores
    assert plane.options == SegmentOptions(
        border_px=0, tile_px=256, min_confidence=60, postprocessing="crf", confidence="marginal"
    )


def parameter(name: str, **value: object) -> Change:
    return lambda made: made.parameters[name].CopyFrom(pb.InferParameter(**value))


def on_input(name: str, **value: object) -> Change:
    return lambda made: made.inputs[0].parameters[name].CopyFrom(pb.InferParameter(**value))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda made: made.ClearField("inputs"), "must be one input 'image'; sent were: none"),
        (lambda made: made.inputs.add(name="mask"), "sent were: 'image', 'mask'"),
        (lambda made: setattr(made.inputs[0], "name", "x"), "sent were: 'x'"),
        (lambda made: setattr(made.inputs[0], "datatype", "FP64"), "'FP64' must be one of UINT8, UINT16"),
        (lambda made: made.inputs[0].shape.extend([1, 1]), "no batch"),
        (lambda made: made.inputs[0].shape.__setitem__(0, -3), "must be"),
        (lambda made: made.inputs[0].shape.__setitem__(0, 0), "must be"),
        (lambda made: made.inputs[0].shape.__setitem__(0, 1 << 40), "axis Y: 1099511627776 must be 1 to"),
        (lambda made: made.inputs[0].shape.insert(0, 65), "axis C: 65 must be 1 to 64"),
        (lambda made: made.raw_input_contents.append(b""), "in one entry"),
        (lambda made: made.ClearField("raw_input_contents"), "in one entry"),
        (lambda made: made.inputs[0].contents.uint_contents.append(1), "not `contents`"),
        (
            lambda made: made.raw_input_contents.__setitem__(0, b"x" * 23),
            "23 bytes were sent; 3 x 4 values UINT16 are 24",
        ),
        (lambda made: made.outputs.add(name="mask"), "'mask' must be one of labels, confidence, scores"),
        (lambda made: [made.outputs.add(name="labels") for _ in range(2)], "each once"),
        (
            lambda made: (
                made.outputs.add(name="labels")
                .parameters["classification"]
                .CopyFrom(pb.InferParameter(int64_param=3))
            ),
            "'classification' is not offered",
        ),
        (lambda made: setattr(made, "model_name", ""), "must be the id or display name"),
        (lambda made: setattr(made, "model_name", "/etc/x"), "not by a path"),
        (parameter("bordr", int64_param=3), "'bordr' is not known; known are min_confidence, border"),
        (parameter("border", int64_param=-1), "parameters.border: -1 must be 0 to 4096"),
        (parameter("border", bool_param=True), "must be a whole number"),
        (parameter("border", string_param="3"), "must be a whole number"),
        (parameter("tile", int64_param=15), "must be 16 to 16384"),
        (parameter("min_confidence", uint64_param=101), "must be 0 to 100"),
        (parameter("postprocessing", string_param="x"), "must be one of none, crf"),
        (parameter("postprocessing", int64_param=1), "must be a text"),
        (parameter("confidence", string_param="x"), "must be map or marginal"),
        (parameter("confidence", string_param="marginal"), "needs postprocessing 'crf'"),
        (on_input("shared_memory_region", int64_param=1), "must be a text"),
    ],
)
def test_what_is_refused_says_what_it_must_be(change: Change, message: str) -> None:
    made = request()
    change(made)
    with pytest.raises(SegmentdError, match=message) as refused:
        understand(made)
    assert refused.value.reason is Reason.BAD_FIELD


def test_regions_are_looked_up() -> None:
    made = request()
    on_input("shared_memory_region", string_param="frames")(made)
    with pytest.raises(SegmentdError, match="no region frames"):
        understand(made)
