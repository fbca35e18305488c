"""Frames to segmentd and labels back with Triton's own client: `pip install "tritonclient[grpc]"`.

    python triton_client.py 127.0.0.1:50051 nuclei frame.npy labels.npy

The daemon needs `[open_inference] enabled = true`. With `server.allow_shared_memory = true`, and on the same
machine, frames go through shared memory, which is many times as fast as messages.
"""

from __future__ import annotations

import os
import sys
from types import TracebackType
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException, shared_memory

# numpy's names of pixel types and the protocol's
DATATYPES = {"uint8": "UINT8", "uint16": "UINT16", "int16": "INT16", "uint32": "UINT32", "float32": "FP32"}


def segment(client: triton.InferenceServerClient, model: str, frame: Any) -> tuple[Any, Any]:
    """Labels and confidence (Y, X) of a frame, array (Y, X) or (C, Y, X); it travels in the message."""
    image = triton.InferInput("image", frame.shape, DATATYPES[frame.dtype.name])
    image.set_data_from_numpy(np.ascontiguousarray(frame))
    result = client.infer(model, [image], parameters={"min_confidence": 50}, client_timeout=60)
    return result.as_numpy("labels"), result.as_numpy("confidence")


class SharedFrames:
    """The same through shared memory, for frames of one size: made once, used for every frame."""

    def __init__(self, client: triton.InferenceServerClient, model: str, like: Any) -> None:
        self._client, self._model = client, model
        self._size, self._pixels = like.nbytes, like.shape[-2] * like.shape[-1]
        self._name = f"frames-{os.getpid()}"
        total = self._size + 2 * self._pixels
        self._memory = shared_memory.create_shared_memory_region(self._name, f"/{self._name}", total)
        client.register_system_shared_memory(self._name, f"/{self._name}", total)
        self._image = triton.InferInput("image", like.shape, DATATYPES[like.dtype.name])
        self._image.set_shared_memory(self._name, self._size)
        self._outputs = [triton.InferRequestedOutput(name) for name in ("labels", "confidence")]
        for number, output in enumerate(self._outputs):
            output.set_shared_memory(self._name, self._pixels, offset=self._size + number * self._pixels)

    def segment(self, frame: Any) -> tuple[Any, Any]:
        """Labels and confidence (Y, X) of a frame."""
        shared_memory.set_shared_memory_region(self._memory, [np.ascontiguousarray(frame)])
        self._client.infer(self._model, [self._image], outputs=self._outputs, client_timeout=60)
        found = shared_memory.get_contents_as_numpy(
            self._memory, np.uint8, [2, *frame.shape[-2:]], offset=self._size
        ).copy()  # the next frame takes the same place
        return found[0], found[1]

    def __enter__(self) -> SharedFrames:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.unregister_system_shared_memory(self._name)
        shared_memory.destroy_shared_memory_region(self._memory)


def main() -> None:
    """Segment one frame both ways."""
    address, model, source, target = sys.argv[1:]
    frame = np.load(source)
    with triton.InferenceServerClient(address) as client:
        client.load_model(model)  # not needed: the first frame would load it
        labels, confidence = segment(client, model, frame)
        if "system_shared_memory" in client.get_server_metadata().extensions:
            with SharedFrames(client, model, frame) as shared:
                labels, confidence = shared.segment(frame)
    np.save(target, labels)
    values, counts = np.unique(labels, return_counts=True)
    print({f"label {value}": int(count) for value, count in zip(values, counts, strict=True)})
    print(f"mean confidence {confidence.mean():.0f} %")


if __name__ == "__main__":
    try:
        main()
    except InferenceServerException as error:
        sys.exit(f"refused: {error}")
