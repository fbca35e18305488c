"""A network as a model: made of a package's metadata and its network, kept in a `.segmodel` of its own.

The network is an ONNX file, or of old packages the graph that `segmentd.models.tf_saved_model` makes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from segmentd.compute.network import NetworkSpec
from segmentd.compute.tensorflow_graph import is_graph
from segmentd.models import bundle, json_text, onnx_check, tf_check
from segmentd.models.description import SEMANTIC, Description
from segmentd.models.onnx_check import Shape
from segmentd.records import ModelCard

DEFAULT_BORDER_PX = 32
MAX_TILE_PX = 1 << 13
MAX_TILE_PIXELS = 1 << 26
_ONNX = "network/model.onnx"
_GRAPH = "network/graph.pb"
_SPEC = "network/spec.json"
_AXES = ("z", "y", "x", "channels")


@dataclass(frozen=True)
class NetworkModel:
    """A model in memory: its card, the checked network, how to feed it.

    `source` holds the metadata of the package that it came in, as bytes that nobody reads again.
    """

    card: ModelCard
    network: bytes
    spec: NetworkSpec
    source: Mapping[str, bytes] = field(default_factory=dict)


def build(
    description: Description, network: bytes, name: str, source: Mapping[str, bytes] | None = None
) -> NetworkModel:
    """Join metadata and network, after checking that they speak of the same.

    Parameters
    ----------
    description : Description
        What the package says.
    network : bytes
        An ONNX file, or a TensorFlow graph.
    name : str
        Display name where the package has none.
    source : mapping, optional
        See `NetworkModel`.

    Raises
    ------
    ValueError
        Saying what does not fit.
    """
    spec = _spec(description, *_checked(network))
    semantic = description.task == SEMANTIC
    display_name = description.name or name
    card = ModelCard(
        id=bundle.slug(display_name),
        display_name=display_name,
        kind=bundle.NETWORK if semantic else bundle.REGRESSION,
        feature_set="",
        classes=description.classes(spec.outputs) if semantic else (),
        channel_count=spec.channels,
        channels=tuple(f"channel {number}" for number in range(1, spec.channels + 1)),
        channel=None,
        channel_index=None,
        pixel_type=description.pixel_types[0],
        pixel_size=description.pixel_size,
        border_px=_border(description.border_px, spec),
        normalization="none",
        seed=0,
        digest="",
        description=description.told(),
        pixel_types=description.pixel_types,
        bgr=description.bgr and spec.channels == 3,
        volume=spec.tile_depth > 0,
        postprocessing=description.postprocessing,
    )
    return seal(card, network, spec, source or {})


def seal(card: ModelCard, network: bytes, spec: NetworkSpec, source: Mapping[str, bytes]) -> NetworkModel:
    """The model with its digest filled in."""
    return NetworkModel(bundle.sealed(card, _members(network, spec, source)), network, spec, source)


def save(model: NetworkModel, path: Path) -> None:
    """Write a model file so that it is either there whole or not at all."""
    bundle.write_container(model.card, _members(model.network, model.spec, model.source), path)


def from_container(container: bundle.Container) -> NetworkModel:
    """The network in a container, checked like one from outside; MODEL_UNUSABLE where it breaks a rule."""
    card, members = container.card, container.members
    with bundle.refusing(container.source, "import the network again from its source"):
        spec = NetworkSpec(**json_text.parse(members.get(_SPEC, b""), _SPEC))
        network = members[_GRAPH] if _GRAPH in members else members[_ONNX]
        _check_spec(spec, card, *_checked(network))
    container.check_digest()
    kept = {
        name.removeprefix(bundle.SOURCE_FOLDER): data
        for name, data in members.items()
        if name.startswith(bundle.SOURCE_FOLDER)
    }
    return NetworkModel(card, network, spec, kept)


def check_border(border_px: int, spec: NetworkSpec) -> None:
    """ValueError where a border leaves nothing of the network's tile."""
    if 2 * border_px >= min(spec.tile_height, spec.tile_width):
        raise ValueError(
            f"a border of {border_px} px leaves nothing of tiles of {spec.tile_height} x {spec.tile_width} px"
        )
    if 2 * spec.border_planes >= max(1, spec.tile_depth):
        raise ValueError(f"{spec.border_planes} planes of border leave nothing of {spec.tile_depth} planes")


def _checked(network: bytes) -> tuple[Shape, Shape]:
    """Shapes of what a network takes and makes, after every check of it."""
    checked = tf_check.check(network) if is_graph(network) else onnx_check.check(network)
    return checked.input_shape, checked.output_shape


def _members(network: bytes, spec: NetworkSpec, source: Mapping[str, bytes]) -> dict[str, bytes]:
    kept = {f"{bundle.SOURCE_FOLDER}{name}": data for name, data in source.items()}
    return {
        _GRAPH if is_graph(network) else _ONNX: network,
        _SPEC: json.dumps(asdict(spec), indent=1, sort_keys=True).encode(),
        **kept,
    }


def _spec(description: Description, taken: Shape, made: Shape) -> NetworkSpec:
    for shape, what in ((taken, "takes"), (made, "makes")):
        if len(shape) not in (4, 5):
            raise ValueError(
                f"it {what} an array of {len(shape)} axes; planes have four (batch, {', '.join(_AXES[1:])}), "
                "volumes five"
            )
        if shape[0] not in (None, 1):
            raise ValueError(f"it {what} {shape[0]} tiles at once; the first axis must be free, or 1")
    last = description.channels_last
    free = (None,) * (len(taken) - 2)
    *space, channels = _agreed(
        description.input_shape, _image(taken, last), (*free, description.channels), "InputShape", "takes"
    )
    *same, outputs = _agreed(
        description.output_shape, _image(made, last), (*space, None), "OutputShape", "makes"
    )
    if same != space:
        raise ValueError(f"it makes {same} of {space} pixels; they must be the same")
    if max(space) > MAX_TILE_PX or math.prod(space) > MAX_TILE_PIXELS:
        raise ValueError(f"its tiles of {space} pixels are too large; export it with smaller ones")
    return NetworkSpec(
        task=description.task,
        tile_height=space[-2],
        tile_width=space[-1],
        channels=channels,
        outputs=outputs,
        batch_free=taken[0] is None,
        size_free=_image(taken, last)[-3:-1] == (None, None),
        channels_last=last,
        scale_by_bit_depth=description.scale_by_bit_depth,
        softmax=description.softmax,
        source=description.source,
        tile_depth=space[0] if len(space) == 3 else 0,
        border_planes=description.border_planes,
    )


def _image(shape: Shape, channels_last: bool) -> Shape:
    """The axes (z,) y, x, channels."""
    return shape[1:] if channels_last else (*shape[2:], shape[1])


def _agreed(
    described: tuple[int, ...] | None, network: Shape, otherwise: Shape, key: str, verb: str
) -> list[int]:
    """Sizes of (z,) y, x and channels on which metadata and network agree."""
    said = described or otherwise
    names = _AXES[-len(network) :]
    shown = [size if size is not None else "any" for size in network]
    if len(said) != len(network):
        raise ValueError(f"the metadata say {key} {list(said)}, but the network {verb} {shown} ({names})")
    sizes = []
    for name, *known in zip(names, network, said, otherwise, strict=True):
        sizes_known = {size for size in known if size is not None}
        if len(sizes_known) > 1:
            raise ValueError(
                f"the metadata say {key} {list(said)}, but the network {verb} {shown} ({', '.join(names)})"
            )
        if not sizes_known:
            raise ValueError(f"{key} must say how many {name} the network {verb}")
        sizes.append(sizes_known.pop())
    return sizes


def _border(border_px: int | None, spec: NetworkSpec) -> int:
    edge = min(spec.tile_height, spec.tile_width)
    border = min(DEFAULT_BORDER_PX, edge // 8) if border_px is None else border_px
    check_border(border, spec)
    return border


def _check_spec(spec: NetworkSpec, card: ModelCard, taken: Shape, made: Shape) -> None:
    """A container from outside must hold what `build` would have made."""
    numbers = (spec.tile_height, spec.tile_width, spec.channels, spec.outputs)
    flags = (spec.batch_free, spec.size_free, spec.channels_last, spec.scale_by_bit_depth, spec.softmax)
    planes = (spec.tile_depth, spec.border_planes)
    if not all(
        type(number) is int and low <= number <= MAX_TILE_PX
        for low, some in ((1, numbers), (0, planes))
        for number in some
    ):
        raise ValueError(f"{_SPEC} has impossible sizes {list(numbers)}")
    if not all(type(flag) is bool for flag in flags) or not isinstance(spec.source, str):
        raise ValueError(f"{_SPEC} has flags that are neither true nor false")
    if (card.kind == bundle.NETWORK) != (spec.task == SEMANTIC) or spec.task not in (
        "semantic",
        "regression",
    ):
        raise ValueError(f"{_SPEC} says {spec.task!r}, the card {card.kind!r}")
    described = Description(
        name=card.display_name,
        text="",
        task=spec.task,
        source=spec.source,
        input_shape=(*spec.tile_shape, spec.channels),
        output_shape=(*spec.tile_shape, spec.outputs),
        border_planes=spec.border_planes,
        channels_last=spec.channels_last,
        scale_by_bit_depth=spec.scale_by_bit_depth,
        softmax=spec.softmax,
    )
    if _spec(described, taken, made) != spec or card.channel_count != spec.channels:
        raise ValueError(f"{_SPEC} does not fit the network")
    if card.kind == bundle.NETWORK and len(card.classes) != spec.outputs:
        raise ValueError(
            f"the network tells {spec.outputs} classes apart, the card names {len(card.classes)}"
        )
    if card.volume is not (spec.tile_depth > 0):
        raise ValueError("the card says planes of a network for volumes, or volumes of one for planes")
    if card.pixel_type not in card.pixel_types:
        raise ValueError("the card does not name the pixel types that the network takes")
    check_border(card.border_px, spec)
