"""The metadata of `.czseg` and `.czmodel` files: an XML document with the root `Model`.

Of `Postprocessing`, a conditional random field becomes the model's default. `ColorHandling` tells what the
other program makes of colour images: here they go into networks for three channels as they are, and are
refused by others, so making them grey is named among what is not used, as are unknown elements.
"""

from __future__ import annotations

from xml.etree import ElementTree

from segmentd.models.description import PIXEL_TYPES, SEMANTIC, Description, colors_of, names_of, text_of
from segmentd.records import PixelType

MAX_BYTES = 1 << 20
MAX_BORDER = 4096
MAX_EDGE = 1 << 14
NETWORK = "DeepNeuralNetwork"
_COLOR_PARTS = ("colR", "colG", "colB")
_KNOWN = frozenset(
    (
        "BorderSize",
        "Channels",
        "ColorHandling",
        "Description",
        "FeatureExtractor",
        "Id",
        "ModelName",
        "Postprocessing",
        "ScaleInputsByBitdepth",
        "Status",
        "TotalTileHeight",
        "TotalTileWidth",
        "TrainingClasses",
    )
)
# Without spaces, in small letters.
_POSTPROCESSINGS = {
    "": "none",
    "none": "none",
    "crf": "crf",
    "densecrf": "crf",
    "conditionalrandomfield": "crf",
    "conditionalrandomfields": "crf",
}
# Pixel type: ours, and how many channels of the network it fills.
_PIXEL_TYPES = {
    "Gray8": (PixelType.UINT8, 1),
    "Gray16": (PixelType.UINT16, 1),
    "Gray32Float": (PixelType.FLOAT32, 1),
    "Bgr24": (PixelType.UINT8, 3),
    "Bgr48": (PixelType.UINT16, 3),
    "Bgr96Float": (PixelType.FLOAT32, 3),
}


def read(data: bytes) -> Description:
    """Read the XML of a `.czseg` or `.czmodel` file.

    Raises
    ------
    ValueError
        Saying which element breaks which rule.
    """
    root = _parse(data)
    extractor = _text(root, "FeatureExtractor")
    if extractor != NETWORK:
        raise ValueError(
            f"it is not a network but a forest on {extractor or 'unnamed'} features, whose content only the "
            "program that made it can read; train the forest again here from the same images and labels"
        )
    channels, pixel_types = _channels(root)
    names, colors = _classes(root)
    height, width = _number(root, "TotalTileHeight", MAX_EDGE), _number(root, "TotalTileWidth", MAX_EDGE)
    if (height is None) != (width is None):
        raise ValueError("TotalTileHeight and TotalTileWidth must both be there or both be missing")
    postprocessing, ignored = _other(root)
    return Description(
        name=text_of(_text(root, "ModelName"), "ModelName")[:200],
        text=text_of(_text(root, "Description"), "Description"),
        task=SEMANTIC,
        source=f"czseg {root.get('Version', '1')[:20]}",
        input_shape=(height, width, channels) if height and width else None,
        border_px=_number(root, "BorderSize", MAX_BORDER),
        class_names=names,
        colors=colors,
        channels=channels,
        pixel_types=pixel_types,
        scale_by_bit_depth=_flag(root, "ScaleInputsByBitdepth"),
        postprocessing=postprocessing,
        ignored=ignored,
    )


def _parse(data: bytes) -> ElementTree.Element:
    if not data or len(data) > MAX_BYTES:
        raise ValueError(f"the XML is missing or larger than {MAX_BYTES} bytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("the XML is not UTF-8") from None
    if "<!" in text.replace("<!--", ""):
        raise ValueError("the XML declares entities or a document type, which no such file needs")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ValueError(f"the XML is damaged ({error})") from None
    if root.tag != "Model":
        raise ValueError(f"the XML describes {root.tag!r}, not a Model")
    return root


def _text(root: ElementTree.Element, name: str) -> str:
    found = root.findall(name)
    if len(found) > 1:
        raise ValueError(f"{name} is given twice")
    return (found[0].text or "").strip() if found else ""


def _number(root: ElementTree.Element, name: str, high: int) -> int | None:
    text = _text(root, name)
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 9 and int(text) <= high):
        raise ValueError(f"{name} must be a whole number from 0 to {high}, not {text[:40]!r}")
    return int(text)


def _flag(root: ElementTree.Element, name: str) -> bool:
    text = _text(root, name).lower()
    if text not in ("", "true", "false"):
        raise ValueError(f"{name} must be true or false, not {text[:40]!r}")
    return text != "false"


def _other(root: ElementTree.Element) -> tuple[str, tuple[str, ...]]:
    """The post-processing, and what is not used."""
    wanted = _text(root, "Postprocessing")
    known = _POSTPROCESSINGS.get("".join(wanted.lower().split()))
    ignored = [] if known else [f"Postprocessing {text_of(wanted[:60], 'Postprocessing')}"]
    if (handling := _text(root, "ColorHandling")) not in ("", "SplitRgb"):
        ignored.append(f"ColorHandling {text_of(handling[:60], 'ColorHandling')}")
    ignored += [text_of(entry.tag[:60], "an element") for entry in root if entry.tag not in _KNOWN]
    return known or "none", tuple(dict.fromkeys(ignored))


def _channels(root: ElementTree.Element) -> tuple[int, tuple[PixelType, ...]]:
    """How many channels the network takes, and the pixel types that all of them allow."""
    total = 0
    allowed = set(PixelType)
    for item in root.findall("Channels/Item"):
        types = item.get("PixelType", "").split()
        unknown = [name for name in types if name not in _PIXEL_TYPES]
        if unknown or not types:
            raise ValueError(
                f"pixel type {' '.join(unknown)[:60] or 'missing'} is not supported; models for "
                f"{', '.join(_PIXEL_TYPES)} can be used"
            )
        counts = {_PIXEL_TYPES[name][1] for name in types}
        if len(counts) > 1:
            raise ValueError(f"one channel is both grey and colour: {' '.join(types)[:60]}")
        total += counts.pop()
        allowed &= {_PIXEL_TYPES[name][0] for name in types}
    if not total or not allowed:
        raise ValueError("Channels must have an Item for each channel, with a pixel type common to all")
    return total, tuple(kind for kind in PIXEL_TYPES if kind in allowed)


def _classes(root: ElementTree.Element) -> tuple[tuple[str, ...], tuple[str, ...] | None]:
    """Names and colours in the order of their labels; None where none has a colour."""
    items = root.findall("TrainingClasses/Item")
    if [item.get("LabelValue", "").strip() for item in items] != [str(n + 1) for n in range(len(items))]:
        raise ValueError("TrainingClasses must have the labels 1, 2, ... in this order")
    names = names_of([item.get("Name", "") for item in items], "TrainingClasses")
    if not any(item.get(part) for item in items for part in _COLOR_PARTS):
        return names, None
    return names, colors_of([_color(item) for item in items], "colours of TrainingClasses")


def _color(item: ElementTree.Element) -> str:
    parts = [item.get(name, "") for name in _COLOR_PARTS]
    if not all(part.isascii() and part.isdecimal() and len(part) < 4 and int(part) < 256 for part in parts):
        raise ValueError(f"colours of TrainingClasses must be 0 to 255, not {parts}")
    return "#" + "".join(f"{int(part):02X}" for part in parts)
