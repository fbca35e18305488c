"""A network as a model: made of a package's metadata and its ONNX file, kept in a `.segmodel` of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from segmentd.compute.network import NetworkSpec
from segmentd.models import bundle, json_text, onnx_check
from segmentd.models.description import SEMANTIC, Description
from segmentd.models.onnx_check import Shape
from segmentd.records import ModelCard

DEFAULT_BORDER_PX = 32
MAX_TILE_PX = 1 << 13
_ONNX = "network/model.onnx"
_SPEC = "network/spec.json"
_AXES = "y, x, channels"


@dataclass(frozen=True)
class NetworkModel:
    """A model in memory: its card, the checked ONNX file, how to feed it.

    `source` holds the metadata of the package that it came in, as bytes that nobody reads again.
    """

    card: ModelCard
    onnx: bytes
    spec: NetworkSpec
    source: Mapping[str, bytes] = field(default_factory=dict)


def build(
    description: Description, onnx: bytes, name: str, source: Mapping[str, bytes] | None = None
) -> NetworkModel:
    """Join metadata and network, after checking that they speak of the same.

    Parameters
    ----------
    description : Description
        What the package says.
    onnx : bytes
        The network.
    name : str
        Display name where the package has none.
    source : mapping, optional
        See `NetworkModel`.

    Raises
    ------
    ValueError
        Saying what does not fit.
    """
    checked = onnx_check.check(onnx)
    spec = _spec(description, checked.input_shape, checked.output_shape)
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
        description=description.text,
        pixel_types=description.pixel_types,
        bgr=description.bgr and spec.channels == 3,
    )
    return seal(card, onnx, spec, source or {})


def seal(card: ModelCard, onnx: bytes, spec: NetworkSpec, source: Mapping[str, bytes]) -> NetworkModel:
    """The model with its digest filled in."""
    return NetworkModel(bundle.sealed(card, _members(onnx, spec, source)), onnx, spec, source)


def save(model: NetworkModel, path: Path) -> None:
    """Write a model file so that it is either there whole or not at all."""
    bundle.write_container(model.card, _members(model.onnx, model.spec, model.source), path)


def from_container(container: bundle.Container) -> NetworkModel:
    """The network in a container, checked like one from outside; MODEL_UNUSABLE where it breaks a rule."""
    card, members = container.card, container.members
    with bundle.refusing(container.source, "import the network again from its source"):
        spec = NetworkSpec(**json_text.parse(members.get(_SPEC, b""), _SPEC))
        checked = onnx_check.check(members[_ONNX])
        _check_spec(spec, card, checked.input_shape, checked.output_shape)
    container.check_digest()
    kept = {
        name.removeprefix(bundle.SOURCE_FOLDER): data
        for name, data in members.items()
        if name.startswith(bundle.SOURCE_FOLDER)
    }
    return NetworkModel(card, members[_ONNX], spec, kept)


def check_border(border_px: int, spec: NetworkSpec) -> None:
    """ValueError where a border leaves nothing of the network's tile."""
    if 2 * border_px >= min(spec.tile_height, spec.tile_width):
        raise ValueError(
            f"a border of {border_px} px leaves nothing of tiles of {spec.tile_height} x {spec.tile_width} px"
        )


def _members(onnx: bytes, spec: NetworkSpec, source: Mapping[str, bytes]) -> dict[str, bytes]:
    kept = {f"{bundle.SOURCE_FOLDER}{name}": data for name, data in source.items()}
    return {_ONNX: onnx, _SPEC: json.dumps(asdict(spec), indent=1, sort_keys=True).encode(), **kept}


def _spec(description: Description, taken: Shape, made: Shape) -> NetworkSpec:
    for shape, what in ((taken, "takes"), (made, "makes")):
        if len(shape) == 5:
            raise ValueError("it takes volumes; networks for planes [y, x, channels] can be used")
        if len(shape) != 4:
            raise ValueError(f"it {what} an array of {len(shape)} axes; images have four: batch, {_AXES}")
        if shape[0] not in (None, 1):
            raise ValueError(f"it {what} {shape[0]} tiles at once; the first axis must be free, or 1")
    last = description.channels_last
    height, width, channels = _agreed(
        description.input_shape,
        _image(taken, last),
        (None, None, description.channels),
        "InputShape",
        "takes",
    )
    announced = (height, width, None)
    *same, outputs = _agreed(description.output_shape, _image(made, last), announced, "OutputShape", "makes")
    if [*same] != [height, width]:
        raise ValueError(f"it makes {same[0]} x {same[1]} px of {height} x {width}; they must be the same")
    if max(height, width) > MAX_TILE_PX:
        raise ValueError(f"its tiles of {height} x {width} px are larger than {MAX_TILE_PX}")
    return NetworkSpec(
        task=description.task,
        tile_height=height,
        tile_width=width,
        channels=channels,
        outputs=outputs,
        batch_free=taken[0] is None,
        size_free=_image(taken, last)[:2] == (None, None),
        channels_last=last,
        scale_by_bit_depth=description.scale_by_bit_depth,
        softmax=description.softmax,
        source=description.source,
    )


def _image(shape: Shape, channels_last: bool) -> Shape:
    """The axes y, x, channels."""
    _, *rest = shape
    return tuple(rest) if channels_last else (rest[1], rest[2], rest[0])


def _agreed(
    described: tuple[int, ...] | None, network: Shape, otherwise: Shape, key: str, verb: str
) -> tuple[int, int, int]:
    """Sizes of y, x and channels on which metadata and network agree."""
    if described is not None and len(described) == 4:
        raise ValueError(f"{key} {list(described)} is that of volumes, but the network {verb} planes")
    sizes = []
    for axis, (own, said, else_said) in enumerate(
        zip(network, described or (None,) * 3, otherwise, strict=True)
    ):
        known = {size for size in (own, said, else_said) if size is not None}
        if len(known) > 1:
            shown = [size if size is not None else "any" for size in network]
            text = list(described) if described else list(otherwise)
            raise ValueError(f"the metadata say {key} {text}, but the network {verb} {shown} ({_AXES})")
        if not known:
            raise ValueError(f"{key} must say how many {_AXES.split(', ')[axis]} the network {verb}")
        sizes.append(known.pop())
    return sizes[0], sizes[1], sizes[2]


def _border(border_px: int | None, spec: NetworkSpec) -> int:
    edge = min(spec.tile_height, spec.tile_width)
    if border_px is None:
        return min(DEFAULT_BORDER_PX, edge // 8)
    check_border(border_px, spec)
    return border_px


def _check_spec(spec: NetworkSpec, card: ModelCard, taken: Shape, made: Shape) -> None:
    """A container from outside must hold what `build` would have made."""
    numbers = (spec.tile_height, spec.tile_width, spec.channels, spec.outputs)
    flags = (spec.batch_free, spec.size_free, spec.channels_last, spec.scale_by_bit_depth, spec.softmax)
    if not all(type(number) is int and 0 < number <= MAX_TILE_PX for number in numbers):
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
        input_shape=(spec.tile_height, spec.tile_width, spec.channels),
        output_shape=(spec.tile_height, spec.tile_width, spec.outputs),
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
    if card.pixel_type not in card.pixel_types:
        raise ValueError("the card does not name the pixel types that the network takes")
    check_border(card.border_px, spec)
