"""The model `echo` of the Open Inference Protocol: planes go as bytes or through shared memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile

import grpc
import numpy as np
import numpy.typing as npt

from segmentd.oip import open_inference_pb2 as pb
from segmentd.oip import open_inference_pb2_grpc
from segmentd_bench.errors import BenchmarkError

# Half of the largest message that the daemon takes here.
MAX_BYTES = 32 << 20
_REGION = "segmentd-bench"
_SHARED_MEMORY = Path("/dev/shm")
_OPTIONS = [("grpc.max_receive_message_length", 2 * MAX_BYTES), ("grpc.enable_http_proxy", 0)]


class Echo:
    """Sends the bytes of a plane and gets them back.

    Parameters
    ----------
    channel
        The connection; must take messages as large as the plane.
    plane : array (Y, X)
        At most `MAX_BYTES` of it are sent, in whole rows.
    region : uint8 array
        Shared memory, registered as a region: as much as is sent, twice.
    limit_s : float
        Seconds that a call may take.
    """

    def __init__(
        self,
        channel: grpc.Channel,
        plane: npt.NDArray[np.generic],
        region: npt.NDArray[np.uint8],
        limit_s: float,
    ) -> None:
        self._stub = open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        self._pixels = _sent(plane)
        self._region = region.reshape(2, *self._pixels.shape)
        self._limit_s = limit_s

    @property
    def moved_bytes(self) -> int:
        """Bytes there and back."""
        return 2 * self._pixels.size

    def as_bytes(self) -> None:
        """In the messages."""
        request = self._request()
        request.raw_input_contents.append(self._pixels.tobytes())
        answer = self._stub.ModelInfer(request, timeout=self._limit_s)
        self._check(np.frombuffer(answer.raw_output_contents[0], np.uint8).reshape(self._pixels.shape))

    def through_memory(self) -> None:
        """Written to the region, and found in it."""
        self._region[0] = self._pixels
        request = self._request()
        request.outputs.add(name="image")
        for number, parameters in enumerate((request.inputs[0].parameters, request.outputs[0].parameters)):
            parameters["shared_memory_region"].string_param = _REGION
            parameters["shared_memory_byte_size"].int64_param = self._pixels.size
            parameters["shared_memory_offset"].int64_param = number * self._pixels.size
        self._stub.ModelInfer(request, timeout=self._limit_s)
        self._check(self._region[1])

    def _request(self) -> pb.ModelInferRequest:
        request = pb.ModelInferRequest(model_name="echo")
        request.inputs.add(name="image", datatype="UINT8", shape=self._pixels.shape)
        return request

    def _check(self, found: npt.NDArray[np.uint8]) -> None:
        """The first and last rows: comparing all would be measured, too."""
        if (found[0] != self._pixels[0]).any() or (found[-1] != self._pixels[-1]).any():
            raise BenchmarkError("the model echo gave other pixels back than were sent")


@contextmanager
def opened(address: str, plane: npt.NDArray[np.generic], limit_s: float) -> Iterator[Echo]:
    """Connect and register a region for as long as the block runs; parameters as those of `Echo`."""
    size = 2 * _sent(plane).size
    with (
        NamedTemporaryFile(dir=_SHARED_MEMORY, prefix="segmentd-bench-") as file,
        grpc.insecure_channel(address, _OPTIONS) as channel,
    ):
        file.truncate(size)
        stub = open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        region = pb.SystemSharedMemoryRegisterRequest(name=_REGION, key=Path(file.name).name, byte_size=size)
        stub.SystemSharedMemoryRegister(region, timeout=limit_s)
        yield Echo(channel, plane, np.memmap(file.name, np.uint8, "r+", shape=size), limit_s)
        stub.SystemSharedMemoryUnregister(
            pb.SystemSharedMemoryUnregisterRequest(name=_REGION), timeout=limit_s
        )


def _sent(plane: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    """The rows that are sent, as bytes (Y, X)."""
    rows = np.ascontiguousarray(plane).view(np.uint8)
    return rows[: max(1, MAX_BYTES // rows.shape[1])]
