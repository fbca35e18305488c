"""`inference.GRPCInferenceService`: what clients of Triton call, on the same engine as all else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from segmentd import __version__
from segmentd.engine.lanes import Lane
from segmentd.errors import Reason, SegmentdError
from segmentd.models import versions
from segmentd.models.registry import ModelEntry, ModelState, Registry
from segmentd.oip import open_inference_pb2 as pb
from segmentd.oip import open_inference_pb2_grpc
from segmentd.pipeline import Engine
from segmentd.records import ModelCard
from segmentd.rpc.access import is_local
from segmentd.rpc.faults import Context, bad_field, told
from segmentd.rpc.host_paths import without_folders
from segmentd.rpc.open_inference import inference, tensors
from segmentd.rpc.open_inference.inference import ECHO, ECHO_VERSION
from segmentd.rpc.open_inference.regions import Region, Regions
from segmentd.rpc.plane_call import PlaneCalls

SERVICE_NAME = "inference.GRPCInferenceService"
_STATES = {ModelState.ACTIVE: "READY", ModelState.LOADING: "LOADING"}


class OpenInferenceService(open_inference_pb2_grpc.GRPCInferenceServiceServicer):
    """Serves the Open Inference Protocol.

    Parameters
    ----------
    engine, planes
        What computes, and what takes planes of callers.
    allow_shared_memory : bool
        Whether callers on this machine may name regions of shared memory.
    with_echo : bool
        Whether there is the model `echo`, which gives images back.

    Attributes
    ----------
    ready : bool
        What ServerReady answers.
    """

    def __init__(
        self, engine: Engine, planes: PlaneCalls, allow_shared_memory: bool, with_echo: bool
    ) -> None:
        self._registry: Registry = engine.registry
        self._lane: Lane = engine.lane
        self._planes = planes
        self._allow_shared_memory = allow_shared_memory
        self._with_echo = with_echo
        self._regions = Regions()
        self.ready = False

    async def ServerLive(self, request: pb.ServerLiveRequest, context: Context) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, request: pb.ServerReadyRequest, context: Context) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=self.ready)

    async def ModelReady(self, request: pb.ModelReadyRequest, context: Context) -> pb.ModelReadyResponse:
        if self._is_echo(request.name):
            return pb.ModelReadyResponse(ready=request.version in ("", ECHO_VERSION))
        ready = await inference.is_ready(self._registry, request.name, request.version)
        return pb.ModelReadyResponse(ready=ready)

    async def ServerMetadata(
        self, request: pb.ServerMetadataRequest, context: Context
    ) -> pb.ServerMetadataResponse:
        extensions = ["model_repository", "parameters"]
        if self._allow_shared_memory:
            extensions.append("system_shared_memory")
        return pb.ServerMetadataResponse(name="segmentd", version=__version__, extensions=extensions)

    async def ModelMetadata(
        self, request: pb.ModelMetadataRequest, context: Context
    ) -> pb.ModelMetadataResponse:
        if self._is_echo(request.name):
            return _echo_metadata()
        entry = await self._registry.find(tensors.reference(request.name, "name"))
        version = await asyncio.to_thread(versions.current_number, entry.path)
        inference.check_version(entry.id, request.version, version)
        if entry.card is None:
            why = entry.fault.message if entry.fault else "it could not be read"
            raise SegmentdError(Reason.MODEL_UNUSABLE, f"model '{entry.id}': {why}", resource=entry.id)
        return _metadata(entry.id, version, entry.card)

    async def RepositoryIndex(
        self, request: pb.RepositoryIndexRequest, context: Context
    ) -> pb.RepositoryIndexResponse:
        answer = pb.RepositoryIndexResponse()
        if self._with_echo:
            answer.models.add(name=ECHO, version=ECHO_VERSION, state="READY")
        for entry in await self._registry.list():
            if request.ready and entry.state is not ModelState.ACTIVE:
                continue
            version = await asyncio.to_thread(versions.current_number, entry.path)
            state = _STATES.get(entry.state, "UNAVAILABLE")
            answer.models.add(name=entry.id, version=str(version), state=state, reason=_reason(entry))
        return answer

    async def RepositoryModelLoad(
        self, request: pb.RepositoryModelLoadRequest, context: Context
    ) -> pb.RepositoryModelLoadResponse:
        if request.parameters:
            raise bad_field(
                "parameters",
                "models are not made or changed by loading them; import one with segmentctl models import",
            )
        if not self._is_echo(request.model_name):
            entry = await self._registry.load(tensors.reference(request.model_name, "model_name"))
            await asyncio.to_thread(self._lane.pin, entry.path)
        return pb.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(
        self, request: pb.RepositoryModelUnloadRequest, context: Context
    ) -> pb.RepositoryModelUnloadResponse:
        if self._is_echo(request.model_name):
            raise bad_field("model_name", f"'{ECHO}' is part of the daemon and cannot be unloaded")
        await self._registry.unload(tensors.reference(request.model_name, "model_name"))
        return pb.RepositoryModelUnloadResponse()

    async def ModelInfer(self, request: pb.ModelInferRequest, context: Context) -> pb.ModelInferResponse:
        return await self._infer(request, context)

    async def ModelStreamInfer(
        self, request_iterator: AsyncIterator[pb.ModelInferRequest], context: Context
    ) -> AsyncIterator[pb.ModelStreamInferResponse]:
        async for request in request_iterator:
            try:
                answer = await self._infer(request, context)
            except Exception as error:
                # Of a stream that will get nothing else, the client is told by its status.
                if isinstance(error, SegmentdError) and error.reason is Reason.SHUTTING_DOWN:
                    raise
                failed = pb.ModelInferResponse(model_name=request.model_name, id=request.id)
                yield pb.ModelStreamInferResponse(error_message=told(error).message, infer_response=failed)
                continue
            if tensors.FINAL_WANTED in request.parameters:
                answer.parameters["triton_final_response"].bool_param = True
            yield pb.ModelStreamInferResponse(infer_response=answer)

    async def SystemSharedMemoryStatus(
        self, request: pb.SystemSharedMemoryStatusRequest, context: Context
    ) -> pb.SystemSharedMemoryStatusResponse:
        self._check_shared_memory(context)
        regions = [self._regions.get(request.name)] if request.name else self._regions.list()
        answer = pb.SystemSharedMemoryStatusResponse()
        for region in regions:
            status = answer.regions[region.name]
            status.name, status.key = region.name, region.key
            status.offset, status.byte_size = region.offset, region.size_bytes
        return answer

    async def SystemSharedMemoryRegister(
        self, request: pb.SystemSharedMemoryRegisterRequest, context: Context
    ) -> pb.SystemSharedMemoryRegisterResponse:
        self._check_shared_memory(context)
        self._regions.register(request.name, request.key, request.offset, request.byte_size)
        return pb.SystemSharedMemoryRegisterResponse()

    async def SystemSharedMemoryUnregister(
        self, request: pb.SystemSharedMemoryUnregisterRequest, context: Context
    ) -> pb.SystemSharedMemoryUnregisterResponse:
        self._check_shared_memory(context)
        if request.name:
            self._regions.unregister(request.name)
        else:
            self._regions.clear()
        return pb.SystemSharedMemoryUnregisterResponse()

    async def CudaSharedMemoryUnregister(
        self, request: pb.CudaSharedMemoryUnregisterRequest, context: Context
    ) -> pb.CudaSharedMemoryUnregisterResponse:
        return pb.CudaSharedMemoryUnregisterResponse()

    async def _infer(self, request: pb.ModelInferRequest, context: Context) -> pb.ModelInferResponse:
        def find(name: str) -> Region:
            self._check_shared_memory(context)
            return self._regions.get(name)

        if self._is_echo(request.model_name):
            return await inference.echo(request, find)
        return await inference.segment(self._planes, request, find, f"client {context.peer()}")

    def _is_echo(self, name: str) -> bool:
        return self._with_echo and name == ECHO

    def _check_shared_memory(self, context: Context) -> None:
        """NOT_ALLOWED unless the daemon allows shared memory and the caller is on this machine."""
        if not self._allow_shared_memory:
            raise SegmentdError(
                Reason.NOT_ALLOWED,
                "shared memory is not allowed by this daemon; send the values in the message, or set "
                "server.allow_shared_memory = true",
            )
        if not is_local(context.peer()):
            raise SegmentdError(
                Reason.NOT_ALLOWED,
                "shared memory is for callers on the daemon's own machine, over loopback or a Unix socket; "
                "send the values in the message",
            )


def _reason(entry: ModelEntry) -> str:
    if entry.fault is not None:
        return without_folders(entry.fault.message)
    return "unloaded" if entry.state is ModelState.UNLOADED else ""


def _metadata(name: str, version: int, card: ModelCard) -> pb.ModelMetadataResponse:
    answer = pb.ModelMetadataResponse(name=name, versions=[str(version)], platform=f"segmentd_{card.kind}")
    # A model for one channel finds it among any number.
    channels = -1 if card.channel is not None else card.channel_count
    datatype = tensors.datatype(card.pixel_type)
    answer.inputs.add(name=tensors.IMAGE, datatype=datatype, shape=[channels, -1, -1])
    if card.classes:
        answer.outputs.add(name=tensors.LABELS, datatype="UINT8", shape=[-1, -1])
        answer.outputs.add(name=tensors.CONFIDENCE, datatype="UINT8", shape=[-1, -1])
        answer.outputs.add(name=tensors.SCORES, datatype="FP32", shape=[len(card.classes), -1, -1])
    return answer


def _echo_metadata() -> pb.ModelMetadataResponse:
    answer = pb.ModelMetadataResponse(name=ECHO, versions=[ECHO_VERSION], platform="segmentd_echo")
    for tensor in (answer.inputs.add(), answer.outputs.add()):
        tensor.name, tensor.datatype = tensors.IMAGE, "UINT8"
        tensor.shape[:] = [-1, -1]
    return answer
