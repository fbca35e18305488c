"""The API as other languages see it: the daemon, its models and watches, and how it refuses."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from segmentctl import DaemonError
from segmentd.v1 import model_service_pb2 as models_pb
from segmentd.v1 import pixels_pb2, server_service_pb2
from segmentd.v1 import segmentation_service_pb2 as pb
from segmentd.v1 import watch_service_pb2 as watches_pb

from .images import CLASSES
from .scene import Scene
from .wire import Wire, refusal

pytestmark = pytest.mark.e2e
INVALID, MISSING = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION


def test_the_server_tells_what_it_is(scene: Scene) -> None:
    server = scene.client.server()
    assert (server.name, server.last_event_number) == ("server", 5)
    assert server.version
    assert [device.name for device in server.devices] == ["cpu"]
    assert server.devices[0].thread_count >= 1
    assert server.start_time.seconds > 0
    assert scene.results["2.tif"].cursor.startswith(server.journal_id)
    with scene.client.subscribe("hot", server.oldest_cursor, timeout=30, metadata_only=True) as stream:
        assert next(stream).number == 1
    refused = refusal(lambda: scene.wire.server.GetServer(server_service_pb2.GetServerRequest(name="x")))
    assert (refused.code, refused.reason, refused.fields) == (INVALID, "BAD_FIELD", ["name"])


def test_health_is_serving_for_every_service(scene: Scene) -> None:
    health = health_pb2_grpc.HealthStub(scene.wire.channel)
    services = [f"segmentd.v1.{name}Service" for name in ("Model", "Watch", "Segmentation", "Server")]
    for service in ("", *services):
        answer = health.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as unknown:
        health.Check(health_pb2.HealthCheckRequest(service="segmentd.v1.Nothing"))
    assert unknown.value.code() is MISSING


def test_reflection_is_off_unless_asked_for(scene: Scene) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(scene.wire.channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    with pytest.raises(grpc.RpcError) as refused:
        list(stub.ServerReflectionInfo(iter([request])))
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


# ------------------------------------------------------------ models and watches


def test_models_are_listed_by_id_page_by_page(scene: Scene) -> None:
    scene.client.load_model("spare")
    scene.client.unload_model("spare")  # whatever other tests have done with it
    listed = list(scene.client.models())
    assert [model.name for model in listed] == [
        f"models/{name}" for name in ("blobs", "broken", "spare", "twin-a", "twin-b")
    ]
    states = {model.name: model.state for model in listed}
    assert states["models/blobs"] == models_pb.Model.STATE_ACTIVE
    assert states["models/broken"] == models_pb.Model.STATE_FAILED
    assert "broken.segmodel" in listed[1].state_reason
    assert states["models/spare"] == models_pb.Model.STATE_UNLOADED
    request, paged = models_pb.ListModelsRequest(page_size=2), []
    while True:
        page = scene.wire.models.ListModels(request)
        paged.append([model.name for model in page.models])
        request.page_token = page.next_page_token
        if not page.next_page_token:
            break
    assert [len(page) for page in paged] == [2, 2, 1]
    assert [*chain.from_iterable(paged)] == [model.name for model in listed]


def test_a_model_says_what_it_takes_and_tells_apart(scene: Scene) -> None:
    model = scene.client.model("blobs")
    assert model.pixel_type == pixels_pb2.PIXEL_TYPE_UINT16
    assert (model.channel_count, model.kind, model.feature_set) == (1, "forest", "basic25")
    assert (model.normalization, model.device) == ("none", "cpu")
    assert [entry.display_name for entry in model.classes] == list(CLASSES)
    assert [entry.value for entry in model.classes] == [1, 2]
    assert model.border_pixels >= 32  # four sigma of the widest filter
    assert model.create_time.seconds > 0
    assert model.digest == scene.results["2.tif"].segmentation.model_digest
    assert scene.client.model("A spare model").name == "models/spare"


def test_models_are_loaded_and_unloaded(scene: Scene) -> None:
    assert scene.client.load_model("spare").state == models_pb.Model.STATE_ACTIVE
    assert scene.client.load_model("spare").device == "cpu"
    assert scene.client.unload_model("A spare model").state == models_pb.Model.STATE_UNLOADED
    assert scene.client.unload_model("spare").device == ""


def test_the_model_of_an_active_watch_stays(scene: Scene) -> None:
    with pytest.raises(DaemonError) as refused:
        scene.client.unload_model("blobs")
    assert (refused.value.reason, refused.value.code) == ("MODEL_IN_USE", "FAILED_PRECONDITION")
    assert scene.client.model("blobs").state == models_pb.Model.STATE_ACTIVE


def test_watches(scene: Scene) -> None:
    listed = list(scene.client.watches())
    assert [watch.name for watch in listed] == ["watches/another", "watches/hot"]
    watch = scene.client.watch("hot")
    assert Path(watch.folder_display) == scene.daemon.hot
    assert Path(watch.results_folder_display) == scene.daemon.results
    assert (watch.model, list(watch.outputs)) == ("models/blobs", ["labels", "confidence"])
    assert (watch.state, watch.recursive) == (watches_pb.Watch.STATE_ACTIVE, True)
    assert watch.mode in (watches_pb.Watch.MODE_EVENTS, watches_pb.Watch.MODE_POLL)
    assert watch.settle_duration.ToTimedelta().total_seconds() == pytest.approx(0.2)
    assert (watch.done_count, watch.failed_count, watch.waiting_count) == (4, 1, 0)
    assert scene.client.watch("another").min_confidence == 60


# ------------------------------------------------------------ refusals


def call(service: str, method: str, request: object) -> Callable[[Wire], object]:
    return lambda wire: getattr(getattr(wire, service), method)(request)


def get_model(name: str) -> Callable[[Wire], object]:
    return call("models", "GetModel", models_pb.GetModelRequest(name=name))


def load_model(name: str) -> Callable[[Wire], object]:
    return call("models", "LoadModel", models_pb.LoadModelRequest(name=name))


def list_models(**fields: Any) -> Callable[[Wire], object]:
    return call("models", "ListModels", models_pb.ListModelsRequest(**fields))


def get_watch(name: str) -> Callable[[Wire], object]:
    return call("watches", "GetWatch", watches_pb.GetWatchRequest(name=name))


def list_watches(**fields: Any) -> Callable[[Wire], object]:
    return call("watches", "ListWatches", watches_pb.ListWatchesRequest(**fields))


def segmentations(**fields: Any) -> Callable[[Wire], object]:
    return call("segmentations", "ListSegmentations", pb.ListSegmentationsRequest(**fields))


def get_segmentation(name: str) -> Callable[[Wire], object]:
    return call("segmentations", "GetSegmentation", pb.GetSegmentationRequest(name=name))


def read(name: str) -> Callable[[Wire], object]:
    return call("segmentations", "ReadSegmentation", pb.ReadSegmentationRequest(name=name))


def subscribe(**fields: Any) -> Callable[[Wire], object]:
    return call("segmentations", "SubscribeSegmentations", pb.SubscribeSegmentationsRequest(**fields))


REFUSED = {
    "no such model": (get_model("models/none"), MISSING, "MODEL_NOT_FOUND"),
    "ambiguous": (get_model("models/Twin"), INVALID, "MODEL_AMBIGUOUS"),
    "not a model": (get_model("watches/hot"), INVALID, "BAD_FIELD"),
    "a path": (load_model("models//etc/x"), INVALID, "BAD_FIELD"),
    "a file": (load_model("models/x.segmodel"), INVALID, "BAD_FIELD"),
    "broken": (load_model("models/broken"), PRECONDITION, "MODEL_UNUSABLE"),
    "model token": (list_models(page_token="?"), INVALID, "BAD_FIELD"),
    "model page size": (list_models(page_size=-1), INVALID, "BAD_FIELD"),
    "no such watch": (get_watch("watches/x"), MISSING, "WATCH_NOT_FOUND"),
    "no name": (get_watch(""), INVALID, "BAD_FIELD"),
    "watch token": (list_watches(page_token="x"), INVALID, "BAD_FIELD"),
    "list of nothing": (segmentations(parent="watches/x"), MISSING, "WATCH_NOT_FOUND"),
    "list of what": (segmentations(parent="hot"), INVALID, "BAD_FIELD"),
    "list token": (segmentations(parent="watches/-", page_token="-3"), INVALID, "BAD_FIELD"),
    "no number": (get_segmentation("watches/hot/segmentations/x"), MISSING, "SEGMENTATION_NOT_FOUND"),
    "later": (get_segmentation("watches/hot/segmentations/s99"), MISSING, "SEGMENTATION_NOT_FOUND"),
    "of another": (get_segmentation("watches/another/segmentations/s1"), MISSING, "SEGMENTATION_NOT_FOUND"),
    "no name of one": (get_segmentation("segmentations/s1"), INVALID, "BAD_FIELD"),
    "read nothing": (read("watches/hot/segmentations/s0"), MISSING, "SEGMENTATION_NOT_FOUND"),
    "subscribe to nothing": (subscribe(parent="watches/x"), MISSING, "WATCH_NOT_FOUND"),
    "subscribe to what": (subscribe(), INVALID, "BAD_FIELD"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refusals_have_code_reason_and_details(scene: Scene, what: str) -> None:
    act, code, reason = REFUSED[what]
    refused = refusal(lambda: act(scene.wire))
    assert (refused.code, refused.reason) == (code, reason)
    assert refused.message
    if reason == "BAD_FIELD":
        assert refused.fields
    if reason.endswith("_NOT_FOUND"):
        resource = refused.details["ResourceInfo"]
        assert resource.resource_type.startswith("segmentd/")
        assert resource.resource_name


def test_messages_beyond_the_limit_are_refused(scene: Scene) -> None:
    head = pb.SegmentPlaneRequest.Head(
        model="models/blobs",
        pixel_type=pixels_pb2.PIXEL_TYPE_UINT16,
        channel_count=1,
        height=2000,
        width=2000,
    )
    requests = [pb.SegmentPlaneRequest(head=head), pb.SegmentPlaneRequest(pixels=bytes(5 << 20))]
    with pytest.raises(grpc.RpcError) as refused:
        list(scene.wire.segmentations.SegmentPlane(iter(requests)))
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
