"""Who may call what: the scope of every call, and the interceptor that asks for it."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from urllib.parse import unquote

import grpc

from segmentd.errors import Reason, SegmentdError
from segmentd.rpc.handlers import around
from segmentd.rpc.tokens import Scope, Tokens

_V1 = "segmentd.v1."
_HEALTH = "/grpc.health.v1.Health/"
_OPEN_INFERENCE = "inference.GRPCInferenceService"
_BEARER = "bearer "

_CALLS = {
    Scope.READ: {
        _V1 + "ModelService": "GetModel ListModels ExportModel ListModelVersions",
        _V1 + "WatchService": "GetWatch ListWatches",
        _V1 + "SegmentationService": (
            "GetSegmentation ListSegmentations ReadSegmentation SubscribeSegmentations ListPostprocessings"
        ),
        _V1 + "ServerService": "GetServer",
        _V1 + "TrainingService": "ListFeatureSets GetTraining ListTrainings ReadTrainingLabels",
        _OPEN_INFERENCE: (
            "ServerLive ServerReady ModelReady ServerMetadata ModelMetadata RepositoryIndex "
            "SystemSharedMemoryStatus"
        ),
        "grpc.reflection.v1alpha.ServerReflection": "ServerReflectionInfo",
    },
    Scope.SUBMIT: {
        _V1 + "ModelService": "LoadModel",
        _V1 + "SegmentationService": "SegmentPlane",
        _V1 + "TrainingService": "SegmentTrainingImage SuggestTrainingRegions",
        _OPEN_INFERENCE: (
            "ModelInfer ModelStreamInfer RepositoryModelLoad SystemSharedMemoryRegister "
            "SystemSharedMemoryUnregister CudaSharedMemoryUnregister"
        ),
    },
    Scope.ADMIN: {
        _V1 + "ModelService": "UnloadModel ImportModel UpdateModel DeleteModel CloneModel RollbackModel",
        _V1 + "WatchService": "CreateWatch UpdateWatch PauseWatch ResumeWatch DeleteWatch",
        _V1 + "TrainingService": (
            "CreateTraining UpdateTraining DeleteTraining AddTrainingClass UpdateTrainingClass "
            "DeleteTrainingClass AddTrainingImage DeleteTrainingImage ImportTrainingLabels RunTraining "
            "CancelTraining ConvertSegmentationToLabels SaveTrainingModel"
        ),
        _OPEN_INFERENCE: "RepositoryModelUnload",
    },
}
SCOPES = {
    f"/{service}/{method}": scope
    for scope, services in _CALLS.items()
    for service, methods in services.items()
    for method in methods.split()
}
"""The scope of every call, by its full name; a call that is missing is refused to everybody."""


class Gate:
    """Decides about calls.

    Parameters
    ----------
    tokens : Tokens or None
        What callers must have; None asks for nothing.
    admin_over_network : bool
        Whether calls of scope ADMIN may come from other machines.
    """

    def __init__(self, tokens: Tokens | None, admin_over_network: bool) -> None:
        self._tokens = tokens
        self._admin_over_network = admin_over_network

    def check(self, method: str, metadata: Any, peer: str) -> None:
        """Let a call pass.

        Parameters
        ----------
        method : str
            `/SERVICE/METHOD`.
        metadata : iterable of (str, str or bytes)
            What the caller sent along.
        peer : str
            Where the caller is, as gRPC says it.

        Raises
        ------
        SegmentdError
            UNAUTHENTICATED without a valid token; NOT_ALLOWED where the token is not good for it, or
            the caller is not on this machine and must be.
        """
        if method.startswith(_HEALTH):
            return
        needed = SCOPES.get(method)
        name = method.rpartition("/")[2]
        if self._tokens is not None:
            scope = self._scope(self._tokens, metadata)
            if needed is not None and scope < needed:
                raise SegmentdError(
                    Reason.NOT_ALLOWED,
                    f"{name} needs a token of scope {needed.name.lower()}; "
                    f"the one sent is of scope {scope.name.lower()}",
                    scope=needed.name.lower(),
                )
        if needed is None:
            raise SegmentdError(Reason.NOT_ALLOWED, f"{name} is open to nobody")
        if needed is Scope.ADMIN and not self._admin_over_network and not is_local(peer):
            raise SegmentdError(
                Reason.NOT_ALLOWED,
                f"{name} changes the daemon and is not allowed from other machines; call it on the daemon's "
                "own machine, or set server.admin_over_network = true",
            )

    def _scope(self, tokens: Tokens, metadata: Any) -> Scope:
        sent = [value for key, value in metadata if key == "authorization"]
        if not sent:
            raise SegmentdError(
                Reason.UNAUTHENTICATED, "a token is needed: send it as metadata `authorization: Bearer TOKEN`"
            )
        value = sent[0] if len(sent) == 1 and isinstance(sent[0], str) else ""
        scope = tokens.scope_of(value[len(_BEARER) :]) if value.lower().startswith(_BEARER) else None
        if scope is None:
            raise SegmentdError(
                Reason.UNAUTHENTICATED, "the token is not valid; ask whoever looks after the daemon for one"
            )
        return scope


class AccessInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc,unused-ignore]
    """Asks the gate before each call; stands inside of what turns faults into statuses."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler: Any = await continuation(handler_call_details)
        method = handler_call_details.method

        def checked(context: Any) -> AbstractContextManager[None]:
            self._gate.check(method, context.invocation_metadata() or (), context.peer())
            return nullcontext()

        return around(handler, checked)


def is_local(peer: str) -> bool:
    """Return whether a caller, `unix:...`, `ipv4:HOST:PORT` or `ipv6:[HOST]:PORT`, is on this machine."""
    kind, _, where = unquote(peer).partition(":")
    if kind in ("unix", "unix-abstract"):
        return True
    try:
        address = ipaddress.ip_address(where.rpartition(":")[0].strip("[]").partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)
