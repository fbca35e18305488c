"""The tables of the configuration: one model for each, every key with its type, range and default.

The text under a key is its documentation; `segmentd check-config` shows it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from segmentd.records import ResultForm, SegmentOptions, WatchSpec
from segmentd.settings.values import (
    MOVE,
    AbsolutePath,
    After,
    Listen,
    Memory,
    ModelReference,
    RelativePath,
    RequireGpu,
    Slug,
    check_compression,
    check_confidence,
    check_labels_inside,
    check_results_format,
    check_with_image,
    data_home,
    split_listen,
    usable_cores,
)

Text = Annotated[str, Field(min_length=1)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]


class Table(BaseModel):
    """A table of the file: immutable, unknown keys refused, no conversion between types."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class ServerSettings(Table):
    """`[server]`: where and how the API is offered."""

    listen: Listen = "127.0.0.1:50051"
    """address of the API, HOST:PORT; with port 0 the system chooses one; beyond this machine, TLS and
    token_file or client_ca are needed"""
    unix_socket: AbsolutePath | None = None
    """socket file to listen on too, mode 0660; with listen = "", it is the only way in"""
    tls_certificate: AbsolutePath | None = None
    """certificate of the server with those that vouch for it (PEM); with tls_key, TLS is on"""
    tls_key: AbsolutePath | None = None
    """key of the certificate (PEM, without a passphrase)"""
    client_ca: AbsolutePath | None = None
    """authorities (PEM): only clients with a certificate of theirs are let in"""
    token_file: AbsolutePath | None = None
    """file with the tokens that clients must send (TOML); made at the first start"""
    roots: Annotated[tuple[AbsolutePath, ...], Field(strict=False)] = ()
    """folders that watched folders must lie in; empty: any folder"""
    reflection: bool = False
    """tell clients the API's own description (gRPC reflection)"""
    # A block of 1 MiB of pixels with its fields must fit.
    max_receive_mib: Annotated[int, Field(ge=2, le=1024)] = 4
    """largest message accepted, in MiB; default with [open_inference]: 64"""
    admin_over_network: bool = False
    """allow changes of models, watches and trainings from other machines; needs roots"""
    allow_shared_memory: bool = False
    """take and give pixels through shared memory of clients on this machine; needs [open_inference]"""

    @property
    def host(self) -> str:
        """Host of `listen`, an IPv6 address without its brackets."""
        return split_listen(self.listen)[0]

    @property
    def port(self) -> int:
        """Port of `listen`; 0 lets the system choose one."""
        return split_listen(self.listen)[1]


class OpenInferenceSettings(Table):
    """`[open_inference]`: the Open Inference Protocol beside the API, for clients of Triton."""

    enabled: bool = False
    """answer the Open Inference Protocol, too"""
    echo_model: bool = False
    """offer the model echo there, which gives images back; for measuring"""


class DeviceSettings(Table):
    """`[device]`: what computes."""

    prefer: Literal["auto", "cpu", "cuda"] = "auto"
    """device to use where there is one; results name the one that made them"""
    require_gpu: RequireGpu = False
    """refuse to compute on the CPU"""
    memory_budget: Memory = "50%"
    """memory that loaded models may take on a GPU: a size such as 4GiB, or a share of what is free"""
    give_back_seconds: Seconds | None = None
    """take a model off the GPU that no plane has used for so long; left out: when the room is needed"""
    threads: Annotated[int, Field(ge=1, le=1024)] = Field(default_factory=usable_cores)
    """threads that compute on the CPU; default: every usable core"""


class ModelSettings(Table):
    """`[models]`: where trained models lie."""

    folder: AbsolutePath = Field(default_factory=lambda: data_home() / "models")
    """folder of the models: NAME.segmodel, and networks as .czann, .czseg, .czmodel or .onnx"""
    training_folder: AbsolutePath | None = None
    """folder of trainings, their images and labels; default: training, beside the folder of the journal"""
    vgg19_weights: AbsolutePath | None = None
    """file of VGG19 weights (.h5, from Keras) for the deep feature sets; left out: what Keras has cached"""


class TrainingSettings(Table):
    """`[training]`: what trainings run on."""

    device: Literal["cpu", "cuda", "auto"] = "cpu"
    """what trains forests: cpu, cuda (a card, through the extra cuml), or auto: a card where there is one"""


class JournalSettings(Table):
    """`[journal]`: where the daemon remembers, and for how long."""

    folder: AbsolutePath = Field(default_factory=lambda: data_home() / "journal")
    """folder of the journal; on a local disk"""
    retention_days: Annotated[float, Field(gt=0)] | None = None
    """days that subscribers can go back; left out: for ever"""
    retention_events: Annotated[int, Field(ge=1)] | None = None
    """results that subscribers can go back; left out: all"""


class WatchSettings(Table):
    """`[[watch]]`: one watched folder. Times are in seconds, border and tile in pixels."""

    id: Slug
    """name of the watch in the API and in logs"""
    folder: AbsolutePath
    """folder whose images are segmented"""
    model: ModelReference
    """id, display name or file (NAME.segmodel, NAME.czann...) of the model"""
    include: Annotated[tuple[Text, ...], Field(strict=False, min_length=1)] = ("*",)
    """patterns of file names, such as *.tif"""
    recursive: bool = True
    """watch subfolders too"""
    results: AbsolutePath | None = None
    """folder for the results, subfolders mirrored; default: FOLDER/segmented"""
    outputs: Annotated[
        tuple[Literal["labels", "confidence", "classes", "overlay", "thumbnail"], ...],
        Field(strict=False, min_length=1),
    ] = ("labels", "confidence")
    """files to write for each image: labels, confidence, classes, overlay, thumbnail"""
    with_image: Annotated[bool, AfterValidator(check_with_image)] = False
    """put the channels of the image in front of those of the classes"""
    results_format: Annotated[
        Literal["ome-tiff", "ome-zarr", "czi"], AfterValidator(check_results_format)
    ] = "ome-tiff"
    """what labels, confidence and classes are written as; ome-zarr needs the extra zarr, czi the extra czi"""
    compression: Annotated[Literal["deflate", "zstd"] | None, AfterValidator(check_compression)] = None
    """of results: deflate (any reader) or zstd (smaller); default: deflate in OME-TIFF, zstd in the others"""
    labels_inside: Annotated[bool, AfterValidator(check_labels_inside)] = False
    """write labels of an OME-Zarr 0.5 into it, as labels/segmentd, and not beside the other results"""
    settle_seconds: Annotated[float, Field(ge=0, le=86_400)] = 2.0
    """how long a file must be quiet before it counts as complete"""
    give_up_seconds: Seconds | None = None
    """how long an incomplete file may stay quiet before it fails; default: 5 x settle_seconds, at least 5"""
    poll_seconds: Seconds = 2.0
    """time between looks at the folder where it is polled"""
    poll: Literal["auto", "always", "never"] = "auto"
    """poll the folder: where events cannot be had (auto), always, or never"""
    rescan_seconds: Seconds = 60.0
    """time between looks at the whole folder beside events"""
    existing: Literal["process", "ignore"] = "process"
    """what to do with files that are there when the watch is new"""
    pixel_size_tolerance: Annotated[float, Field(ge=0, le=10)] | None = None
    """largest difference between pixel sizes of image and model, as a share (0.1 is 10 %); left out: any"""
    min_confidence: Annotated[int, Field(ge=0, le=100)] = 0
    """percent of confidence below which a pixel gets no label"""
    border: Annotated[int, Field(ge=0, le=4096)] | None = None
    """pixels of overlap around each tile; default: the reach of the model's filters"""
    tile: Annotated[int, Field(ge=16, le=16_384)] | None = None
    """edge of a tile in pixels, without the border; left out: chosen for the machine"""
    postprocessing: Literal["none", "crf"] | None = None
    """what is done before labels are decided: nothing, or a conditional random field; default: the model's"""
    confidence: Annotated[Literal["map", "marginal"], AfterValidator(check_confidence)] = "map"
    """with postprocessing = "crf": 100 everywhere (map), or the probability after the field (marginal)"""
    drift_alarm: bool = True
    """warn when confidence or shares of classes leave those of the images before (lamp, focus, stain)"""
    as_it_grows: bool = False
    """segment complete planes of stacks that are still being written, and send them as previews"""
    priority: Annotated[int, Field(ge=-1000, le=1000)] = 0
    """watches with a higher number go first"""
    marker_file: RelativePath | None = None
    """file that must be in the folder, to tell a share from its empty mount point"""
    after: After = "keep"
    """what happens to an image that is done: keep, or move:DIR"""

    @property
    def move_to(self) -> Path | None:
        """Where `after` moves images to; None for keep."""
        return Path(self.after.removeprefix(MOVE)) if self.after.startswith(MOVE) else None

    @property
    def results_folder(self) -> Path:
        """Where results go: `results`, or `segmented` in the watched folder."""
        return self.results if self.results is not None else self.folder / "segmented"

    @property
    def give_up(self) -> float:
        """Seconds after which an incomplete file that no longer grows has failed."""
        return self.give_up_seconds if self.give_up_seconds is not None else max(5 * self.settle_seconds, 5.0)

    def spec(self) -> WatchSpec:
        """Return the watch as the daemon runs it, with the defaults filled in."""
        return WatchSpec(
            id=self.id,
            folder=self.folder,
            model=self.model,
            results=self.results_folder,
            include=self.include,
            recursive=self.recursive,
            outputs=self.outputs,
            with_image=self.with_image,
            form=ResultForm(self.compression, self.results_format, self.labels_inside),
            settle_seconds=self.settle_seconds,
            give_up_seconds=self.give_up,
            poll_seconds=self.poll_seconds,
            poll=self.poll,
            rescan_seconds=self.rescan_seconds,
            existing=self.existing,
            priority=self.priority,
            options=SegmentOptions(
                border_px=self.border,
                tile_px=self.tile,
                min_confidence=self.min_confidence,
                postprocessing=self.postprocessing,
                confidence=self.confidence,
                pixel_size_tolerance=self.pixel_size_tolerance,
            ),
            marker_file=self.marker_file,
            move_to=self.move_to,
            as_it_grows=self.as_it_grows,
        )
