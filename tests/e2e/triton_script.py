"""What users of tritonclient do, with the unmodified package: `triton_script.py ADDRESS MODEL EXPECTED.npz`.

Imports nothing of ours, and runs in any environment that has `tritonclient[grpc]`.
"""

from __future__ import annotations

import asyncio
import os
import queue
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException, shared_memory

ADDRESS, MODEL, EXPECTED = sys.argv[1:]
EXPECTED_FILE = np.load(EXPECTED)
IMAGE, LABELS, CONFIDENCE = (EXPECTED_FILE[name] for name in ("image", "labels", "confidence"))


def image_input(image: Any = IMAGE, datatype: str = "UINT8") -> triton.InferInput:
    tensor = triton.InferInput("image", image.shape, datatype)
    tensor.set_data_from_numpy(image)
    return tensor


def check(result: triton.InferResult) -> None:
    np.testing.assert_array_equal(result.as_numpy("labels"), LABELS)
    np.testing.assert_array_equal(result.as_numpy("confidence"), CONFIDENCE)


def refused(call: Callable[[], object], status: str, text: str) -> None:
    try:
        call()
    except InferenceServerException as error:
        assert (error.status() or "").endswith(status), error
        assert text in error.message(), error
    else:
        raise AssertionError(f"not refused: {text}")


def health_and_models(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    metadata = client.get_server_metadata()
    assert metadata.name == "segmentd"
    assert "system_shared_memory" in metadata.extensions
    client.load_model(MODEL)
    assert client.is_model_ready(MODEL)
    assert not client.is_model_ready("nothing")
    states = {model.name: model.state for model in client.get_model_repository_index().models}
    assert states == {"echo": "READY", MODEL: "READY"}
    about = client.get_model_metadata(MODEL, as_json=True)
    assert about["inputs"][0] == {"name": "image", "datatype": "UINT8", "shape": ["1", "-1", "-1"]}


def unary(client: triton.InferenceServerClient) -> None:
    result = client.infer(MODEL, [image_input()], request_id="frame 7", client_timeout=60)
    check(result)
    assert result.get_response().id == "frame 7"
    check(client.infer(MODEL, [image_input(IMAGE[None])], model_version="1"))
    wanted = [triton.InferRequestedOutput("scores")]
    scores = client.infer(MODEL, [image_input()], outputs=wanted).as_numpy("scores")
    np.testing.assert_array_equal(scores.argmax(0) + 1, LABELS)
    sure = client.infer(MODEL, [image_input()], parameters={"min_confidence": 80}).as_numpy("labels")
    np.testing.assert_array_equal(sure, np.where(CONFIDENCE >= 80, LABELS, 0))
    answers: queue.Queue[Any] = queue.Queue()
    client.async_infer(MODEL, [image_input()], lambda result, error: answers.put((result, error)))
    result, error = answers.get(timeout=60)
    assert error is None, error
    check(result)


def stream(client: triton.InferenceServerClient) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for number in range(4):
        model = "nothing" if number == 2 else MODEL
        client.async_stream_infer(
            model, [image_input()], request_id=str(number), enable_empty_final_response=number == 3
        )
    got = [answers.get(timeout=60) for _ in range(4)]
    client.stop_stream()
    for number in (0, 1, 3):
        check(got[number][0])
        assert got[number][0].get_response().id == str(number)
    assert "there is no model 'nothing'" in str(got[2][1])


async def with_asyncio() -> None:
    async with triton_aio.InferenceServerClient(ADDRESS) as client:
        check(await client.infer(MODEL, [image_input()]))


def memory(client: triton.InferenceServerClient) -> None:
    client.unregister_system_shared_memory()
    client.unregister_cuda_shared_memory()
    size, key = IMAGE.nbytes, f"/segmentd-triton-{os.getpid()}"
    region = shared_memory.create_shared_memory_region("frames", key, 3 * size)
    try:
        shared_memory.set_shared_memory_region(region, [IMAGE])
        client.register_system_shared_memory("frames", key, 3 * size)
        assert [*client.get_system_shared_memory_status().regions] == ["frames"]
        tensor = triton.InferInput("image", IMAGE.shape, "UINT8")
        tensor.set_shared_memory("frames", size)
        outputs = [triton.InferRequestedOutput(name) for name in ("labels", "confidence", "scores")]
        for number, output in enumerate(outputs[:2], 1):
            output.set_shared_memory("frames", size, offset=number * size)
        result = client.infer(MODEL, [tensor], outputs=outputs)
        for number, expected in enumerate((LABELS, CONFIDENCE), 1):
            found = shared_memory.get_contents_as_numpy(region, np.uint8, IMAGE.shape, offset=number * size)
            np.testing.assert_array_equal(found, expected)
            del found
        assert result.as_numpy("scores").shape == (2, *IMAGE.shape)
        os.truncate(f"/dev/shm{key}", size - 1)
        refused(lambda: client.infer(MODEL, [tensor]), "INVALID_ARGUMENT", "was truncated; register it again")
        assert client.is_server_live()
        refused(
            lambda: client.register_system_shared_memory("frames", key, 1),
            "ALREADY_EXISTS",
            "is registered already",
        )
        client.unregister_system_shared_memory("frames")
        refused(lambda: client.infer(MODEL, [tensor]), "INVALID_ARGUMENT", "register it first")
    finally:
        shared_memory.destroy_shared_memory_region(region)


def errors(client: triton.InferenceServerClient) -> None:
    image, other = image_input(), IMAGE.astype(np.float32)
    invalid = "INVALID_ARGUMENT"
    refused(lambda: client.infer("nothing", [image]), "NOT_FOUND", "there is no model 'nothing'")
    refused(lambda: client.infer(MODEL, [image], model_version="9"), "NOT_FOUND", "is at version 1")
    refused(
        lambda: client.infer(MODEL, [image], parameters={"bordr": 1}), invalid, "known are min_confidence"
    )
    refused(lambda: client.infer(MODEL, [image_input(other, "FP32")]), invalid, "trained on uint8")
    refused(lambda: client.infer(MODEL, [image_input(IMAGE[None, None])]), invalid, "no batch")
    wrong = [triton.InferRequestedOutput("mask")]
    refused(lambda: client.infer(MODEL, [image], outputs=wrong), invalid, "labels, confidence, scores")
    large = image_input(np.zeros((9000, 9000), np.uint8))
    refused(lambda: client.infer("echo", [large]), "RESOURCE_EXHAUSTED", "larger than max")
    refused(lambda: client.infer("echo", [image], client_timeout=1e-6), "DEADLINE_EXCEEDED", "Deadline")


def main() -> None:
    with triton.InferenceServerClient(ADDRESS) as client:
        for part in (health_and_models, unary, stream, memory, errors):
            part(client)
            print(part.__name__, "works")
        asyncio.run(with_asyncio())
        client.unload_model(MODEL)
        assert not client.is_model_ready(MODEL)
    print("all of it works")


if __name__ == "__main__":
    main()
