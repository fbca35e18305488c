"""Who may name regions of shared memory, and what clients of Triton call before they begin."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from segmentd.errors import Reason, SegmentdError
from segmentd.models.registry import ModelEntry, ModelState
from segmentd.oip import open_inference_pb2 as pb
from segmentd.records import Fault
from segmentd.rpc.open_inference.service import OpenInferenceService

LOCAL, SOCKET, REMOTE = "ipv4:127.0.0.1:41000", "unix:", "ipv4:192.0.2.7:41000"


def service(allowed: bool) -> OpenInferenceService:
    nothing: Any = SimpleNamespace(registry=None, lane=None)
    return OpenInferenceService(nothing, nothing, allow_shared_memory=allowed, with_echo=True)


def caller(peer: str) -> Any:
    return SimpleNamespace(peer=lambda: peer)


def infer(name: str) -> pb.ModelInferRequest:
    made = pb.ModelInferRequest(model_name="echo")
    tensor = made.inputs.add(name="image", datatype="UINT8", shape=[1, 1])
    tensor.parameters["shared_memory_region"].string_param = name
    tensor.parameters["shared_memory_byte_size"].int64_param = 1
    return made


@pytest.mark.parametrize(
    ("allowed", "peer", "message"),
    [
        (False, LOCAL, "server.allow_shared_memory = true"),
        (False, SOCKET, "server.allow_shared_memory = true"),
        (True, REMOTE, "over loopback or a Unix socket"),
    ],
)
async def test_shared_memory_is_for_this_machine_and_off_unless_allowed(
    allowed: bool, peer: str, message: str
) -> None:
    face, context = service(allowed), caller(peer)
    calls = (
        lambda: face.SystemSharedMemoryStatus(pb.SystemSharedMemoryStatusRequest(), context),
        lambda: face.SystemSharedMemoryRegister(
            pb.SystemSharedMemoryRegisterRequest(name="a", key="a", byte_size=1), context
        ),
        lambda: face.SystemSharedMemoryUnregister(pb.SystemSharedMemoryUnregisterRequest(), context),
        lambda: face.ModelInfer(infer("a"), context),
    )
    for call in calls:
        with pytest.raises(SegmentdError, match=message) as refused:
            await call()
        assert refused.value.reason is Reason.NOT_ALLOWED


@pytest.mark.parametrize("peer", [LOCAL, SOCKET])
async def test_callers_on_this_machine_may_register_and_forget(peer: str) -> None:
    face, context = service(True), caller(peer)
    await face.CudaSharedMemoryUnregister(pb.CudaSharedMemoryUnregisterRequest(), context)
    await face.SystemSharedMemoryUnregister(pb.SystemSharedMemoryUnregisterRequest(), context)
    status = await face.SystemSharedMemoryStatus(pb.SystemSharedMemoryStatusRequest(), context)
    assert not status.regions
    with pytest.raises(SegmentdError, match="register it first"):
        await face.ModelInfer(infer("a"), context)


async def test_why_a_model_is_not_there_names_no_folder(tmp_path: Path) -> None:
    path = tmp_path / "bad.czann"
    entry = ModelEntry(
        path, "bad", state=ModelState.FAILED, fault=Fault("MODEL_UNUSABLE", f"{path}: is empty")
    )

    async def entries() -> list[ModelEntry]:
        return [entry]

    engine: Any = SimpleNamespace(registry=SimpleNamespace(list=entries), lane=None)
    face = OpenInferenceService(engine, engine, allow_shared_memory=False, with_echo=False)
    (told,) = (await face.RepositoryIndex(pb.RepositoryIndexRequest(), caller(LOCAL))).models
    assert (told.state, told.reason) == ("UNAVAILABLE", "bad.czann: is empty")


async def test_extensions_say_what_is_allowed() -> None:
    for allowed in (False, True):
        answer = await service(allowed).ServerMetadata(pb.ServerMetadataRequest(), caller(LOCAL))
        assert ("system_shared_memory" in answer.extensions) is allowed
