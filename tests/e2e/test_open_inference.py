"""The Open Inference Protocol: by its messages, and by the unmodified client of Triton in its own process."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import pytest

from segmentd.oip import open_inference_pb2 as pb
from segmentd.oip import open_inference_pb2_grpc

from ..unit import tiny_model
from .daemon import DaemonProcess
from .scene import Scene
from .wire import refusal

pytestmark = pytest.mark.e2e
# tritonclient needs an older protobuf than our own dependencies: it has an environment of its own.
TRITON_PYTHON = os.environ.get("SEGMENTD_TRITON_PYTHON", "")
needs_tritonclient = pytest.mark.skipif(
    not TRITON_PYTHON, reason="needs SEGMENTD_TRITON_PYTHON, a Python that has tritonclient[grpc]"
)
SHM = Path("/dev/shm")
IMAGE = np.random.default_rng(1).integers(0, 256, (3, 70, 90)).repeat(5, 1).repeat(5, 2).astype(np.uint8)[0]


class Face:
    """A daemon with the face on, and a stub of it."""

    def __init__(self, daemon: DaemonProcess) -> None:
        self.daemon = daemon
        self.channel = grpc.insecure_channel(daemon.address, [("grpc.max_receive_message_length", 1 << 28)])
        self.stub = open_inference_pb2_grpc.GRPCInferenceServiceStub(self.channel)

    def infer(self, made: pb.ModelInferRequest) -> dict[str, npt.NDArray[Any]]:
        return outputs(self.stub.ModelInfer(made, timeout=60))


@pytest.fixture(scope="module")
def face(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Face]:
    folder = tmp_path_factory.mktemp("face")
    tiny_model.save(folder / "models" / "cells.segmodel")
    daemon = DaemonProcess(folder, folder / "models", [], server={"allow_shared_memory": True})
    daemon.open_inference = {"enabled": True, "echo_model": True}
    with daemon:
        made = Face(daemon)
        yield made
        made.channel.close()


@pytest.fixture
def shared(face: Face) -> Iterator[Path]:
    """A shared memory object with the image, registered as `frames`; the results fit behind it."""
    path = SHM / f"segmentd-test-{os.getpid()}"
    path.write_bytes(IMAGE.tobytes() + bytes(2 * IMAGE.size))
    face.stub.SystemSharedMemoryUnregister(pb.SystemSharedMemoryUnregisterRequest())
    face.stub.SystemSharedMemoryRegister(
        pb.SystemSharedMemoryRegisterRequest(name="frames", key=f"/{path.name}", byte_size=3 * IMAGE.size)
    )
    yield path
    path.unlink()


def request(model: str = "cells", image: npt.NDArray[np.uint8] = IMAGE, *names: str) -> pb.ModelInferRequest:
    made = pb.ModelInferRequest(model_name=model, id="7", raw_input_contents=[image.tobytes()])
    made.inputs.add(name="image", datatype="UINT8", shape=image.shape)
    for name in names:
        made.outputs.add(name=name)
    return made


def through_memory() -> pb.ModelInferRequest:
    made = request("cells", IMAGE, "confidence", "labels")
    del made.raw_input_contents[:]
    for number, tensor in enumerate((made.inputs[0], *made.outputs)):
        tensor.parameters["shared_memory_region"].string_param = "frames"
        tensor.parameters["shared_memory_byte_size"].int64_param = IMAGE.size
        tensor.parameters["shared_memory_offset"].int64_param = number * IMAGE.size
    return made


def outputs(answer: pb.ModelInferResponse) -> dict[str, npt.NDArray[Any]]:
    types = {"UINT8": np.uint8, "FP32": np.float32}
    assert len(answer.outputs) == len(answer.raw_output_contents)
    return {
        tensor.name: np.frombuffer(data, types[tensor.datatype]).reshape(tensor.shape)
        for tensor, data in zip(answer.outputs, answer.raw_output_contents, strict=True)
    }


def test_labels_are_those_of_the_other_door(face: Face) -> None:
    labels, confidence = face.daemon.client().segment(IMAGE, "cells", min_confidence=80)
    made = request("Cells", IMAGE, "scores", "labels", "confidence")
    made.parameters["min_confidence"].int64_param = 80
    answer = face.stub.ModelInfer(made, timeout=60)
    found = outputs(answer)
    assert [*found] == ["scores", "labels", "confidence"]
    np.testing.assert_array_equal(found["labels"], labels)
    np.testing.assert_array_equal(found["confidence"], confidence)
    assert {0, 1, 2} == {*np.unique(labels)}
    scores = found["scores"]
    assert scores.shape == (2, *IMAGE.shape)
    np.testing.assert_allclose(scores.sum(0), 1, atol=1e-6)
    np.testing.assert_array_equal(np.rint(100 * scores.max(0)), confidence)
    sure = labels > 0
    np.testing.assert_array_equal(scores.argmax(0)[sure] + 1, labels[sure])
    assert (answer.model_name, answer.model_version, answer.id) == ("cells", "1", "7")
    assert answer.parameters["device"].string_param == "cpu"
    assert answer.parameters["mean_confidence"].double_param == pytest.approx(confidence.mean())


def test_a_life_of_a_model(face: Face) -> None:
    stub = face.stub
    assert stub.ServerLive(pb.ServerLiveRequest()).live
    assert stub.ServerReady(pb.ServerReadyRequest()).ready
    stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="cells"))
    assert stub.ModelReady(pb.ModelReadyRequest(name="cells", version="1")).ready
    assert not stub.ModelReady(pb.ModelReadyRequest(name="cells", version="2")).ready
    assert not stub.ModelReady(pb.ModelReadyRequest(name="nuclei")).ready
    index = stub.RepositoryIndex(pb.RepositoryIndexRequest(ready=True))
    assert [(model.name, model.version, model.state) for model in index.models] == [
        ("echo", "1", "READY"),
        ("cells", "1", "READY"),
    ]
    about = stub.ModelMetadata(pb.ModelMetadataRequest(name="Cells"))
    assert (about.name, about.platform, [*about.versions]) == ("cells", "segmentd_forest", ["1"])
    assert [(t.name, t.datatype, [*t.shape]) for t in (*about.inputs, *about.outputs)] == [
        ("image", "UINT8", [1, -1, -1]),
        ("labels", "UINT8", [-1, -1]),
        ("confidence", "UINT8", [-1, -1]),
        ("scores", "FP32", [2, -1, -1]),
    ]
    stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="cells"))
    assert not stub.ModelReady(pb.ModelReadyRequest(name="cells")).ready
    (unloaded,) = stub.RepositoryIndex(pb.RepositoryIndexRequest()).models[1:]
    assert (unloaded.state, unloaded.reason) == ("UNAVAILABLE", "unloaded")
    assert {*face.infer(request())} == {"labels", "confidence"}  # loads it


def test_a_stream_answers_in_order_and_survives_what_is_wrong(face: Face) -> None:
    wrong = request("nuclei")
    final = request("echo")
    final.parameters["triton_enable_empty_final_response"].bool_param = True
    sent = [request(), wrong, request("echo", IMAGE, "labels"), final]
    answers = list(face.stub.ModelStreamInfer(iter(sent), timeout=60))
    assert [bool(answer.error_message) for answer in answers] == [False, True, True, False]
    assert "there is no model 'nuclei'" in answers[1].error_message
    assert answers[1].infer_response.id == "7"
    assert "'labels' must be one of image" in answers[2].error_message
    assert answers[3].infer_response.parameters["triton_final_response"].bool_param
    np.testing.assert_array_equal(outputs(answers[3].infer_response)["image"], IMAGE)


def test_planes_go_through_shared_memory(face: Face, shared: Path) -> None:
    expected = face.infer(request())
    answer = face.stub.ModelInfer(through_memory(), timeout=60)
    assert [*answer.raw_output_contents] == [b"", b""]
    assert answer.outputs[1].parameters["shared_memory_offset"].int64_param == 2 * IMAGE.size
    image, confidence, labels = np.fromfile(shared, np.uint8).reshape(3, *IMAGE.shape)
    np.testing.assert_array_equal(image, IMAGE)
    np.testing.assert_array_equal(labels, expected["labels"])
    np.testing.assert_array_equal(confidence, expected["confidence"])


@pytest.mark.parametrize("left", [0, IMAGE.size // 2, IMAGE.size, 2 * IMAGE.size + 5])
def test_a_region_that_is_truncated_does_not_hurt_the_daemon(face: Face, shared: Path, left: int) -> None:
    os.truncate(shared, left)
    refused = refusal(lambda: face.stub.ModelInfer(through_memory(), timeout=60))
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.reason == "REGION_TOO_SMALL"
    assert "was truncated; register it again" in refused.message
    assert shared.stat().st_size == left
    assert {*face.infer(request())} == {"labels", "confidence"}


def test_a_plane_may_be_larger_than_the_messages_of_the_other_door(face: Face) -> None:
    image = np.zeros((3000, 3000), np.uint8)
    np.testing.assert_array_equal(face.infer(request("echo", image))["image"], image)
    with pytest.raises(grpc.RpcError) as refused:
        face.infer(request("echo", np.zeros((9000, 9000), np.uint8)))
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_it_is_off_unless_set(scene: Scene) -> None:
    stub = open_inference_pb2_grpc.GRPCInferenceServiceStub(scene.wire.channel)
    with pytest.raises(grpc.RpcError) as refused:
        stub.ServerLive(pb.ServerLiveRequest())
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.slow
@needs_tritonclient
def test_the_stock_client_of_triton(face: Face, tmp_path: Path) -> None:
    labels, confidence = face.daemon.client().segment(IMAGE, "cells")
    np.savez(tmp_path / "expected.npz", image=IMAGE, labels=labels, confidence=confidence)
    script = Path(__file__).with_name("triton_script.py")
    assert "all of it works" in run_alone(script, face.daemon.address, "cells", tmp_path / "expected.npz")


@pytest.mark.slow
@needs_tritonclient
def test_the_example_and_what_the_pages_show(face: Face, repository: Path, tmp_path: Path) -> None:
    labels, _ = face.daemon.client().segment(IMAGE, "cells", min_confidence=50)
    np.save(tmp_path / "frame.npy", IMAGE)
    example = repository / "clients" / "examples" / "triton_client.py"
    said = run_alone(example, face.daemon.address, "cells", tmp_path / "frame.npy", tmp_path / "labels.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "labels.npy"), labels)
    assert f"'label 2': {np.count_nonzero(labels == 2)}" in said

    before = f"import numpy as np; frame = np.load({str(tmp_path / 'frame.npy')!r})\n"
    for page in ("README.md", "clients/any-language.md"):
        text = (repository / page).read_text(encoding="utf-8")
        (shown,) = (
            block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "triton" in block
        )
        ours = {"127.0.0.1:50051": face.daemon.address, '"nuclei"': '"cells"', "UINT16": "UINT8"}
        for theirs, own in ours.items():
            assert theirs in shown
            shown = shown.replace(theirs, own)
        (tmp_path / "shown.py").write_text(f"{before}{shown}\nprint(labels.shape)", encoding="utf-8")
        assert str(IMAGE.shape) in run_alone(tmp_path / "shown.py")


def run_alone(script: Path, *arguments: str | Path) -> str:
    """Run a script in a process of its own, as its messages and ours have the same names."""
    command = [TRITON_PYTHON, "-W", "error", script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout
