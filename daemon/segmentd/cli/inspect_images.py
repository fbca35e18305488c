"""`segmentd inspect`: what the daemon sees in an image, and what it would refuse."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segmentd.cli import exits

if TYPE_CHECKING:
    from segmentd.ingest.readers import OpenImage
    from segmentd.records import FrameInfo, PlaneIndex
    from segmentd.workers import WorkerPool

PREVIEW_EDGE = 1024
ROWS_PIXELS = 16 << 20
SHOWN_MEMBERS = 5


def inspect(
    images: Annotated[list[Path], typer.Argument(help="Images, or folders of images.", metavar="IMAGE")],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON: a list with one object an image.")
    ] = False,
    preview: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Draw a plane as PNG, with channels in their colours: the middle Z of the first scene and "
            "time. For one IMAGE.",
        ),
    ] = None,
) -> None:
    """Show what the daemon sees in images: axes, types, channels, pixel size, and whether they are complete.

    Of each image the structure is checked and one plane is decoded. An image that would be refused is
    reported with the reason; the exit code is 1 then.
    """
    with exits.reported():
        refused = _inspect(images, as_json, preview)
    if refused:
        raise typer.Exit(exits.ExitCode.FAILED)


def _inspect(images: list[Path], as_json: bool, preview: Path | None) -> int:
    from segmentd.cli import show
    from segmentd.cli.inputs import named_inputs
    from segmentd.workers import WorkerPool

    files = [path for path, _ in named_inputs(images, keep_paths=True)]
    if preview is not None and len(files) != 1:
        raise exits.UsageError(f"--preview draws one image, and {len(files)} are named")
    with WorkerPool(1) as pool:
        found = [_look(path, pool, preview) for path in files]
    if as_json:
        show.line(json.dumps(found, indent=1, ensure_ascii=False))
    else:
        for entry in found:
            for text in _lines(entry):
                show.line(text)
    if preview is not None and found[0]["refused"] is None:
        show.note(f"preview: {preview}")
    return sum(entry["refused"] is not None for entry in found)


def _look(path: Path, pool: WorkerPool, preview: Path | None) -> dict[str, Any]:
    """Everything that is told of one image, as JSON."""
    from segmentd.errors import SegmentdError
    from segmentd.ingest.readers import open_image

    found: dict[str, Any] = {"image": str(path), "refused": None, "note": _note(path), **_structure(path)}
    if found.get("part_of") and not found["refused"]:
        return found
    try:
        with open_image(pool, path) as image:
            found |= {"file_bytes": image.size_bytes, **_described(image.info)}
            found["members"] = [os.fsdecode(part.path) for part in image.parts]
            pixels = _thinned(image, _shown_plane(image.info))
            found["values"] = _values(pixels)
            if preview is not None:
                _draw(preview, pixels, image.info)
    except SegmentdError as error:
        found["refused"] = {"reason": error.reason.value, "message": error.message}
    return found


def _structure(path: Path) -> dict[str, Any]:
    """Whether the file is complete by its structure; nothing of one that is damaged or cannot be opened.

    Of a file of an OME-TIFF set also which file stands for the set.
    """
    from segmentd.ingest import confine, structure
    from segmentd.ingest.set_files import Neighbours
    from segmentd.ingest.verdict import Verdict

    try:
        fd = confine.open_image(path)
    except OSError:
        return {}  # opening the image says why
    try:
        folder = os.open(path.absolute().parent, confine.FOLDER_FLAGS)
        try:
            checked = structure.check(fd, path.name, Neighbours(folder, os.fsencode(path.name)))
        finally:
            os.close(folder)
    finally:
        os.close(fd)
    part: dict[str, Any] = {"part_of": os.fsdecode(checked.leader)} if checked.leader else {}
    if checked.leader and checked.fault is not None:
        part["refused"] = {"reason": checked.fault.reason, "message": checked.fault.message}
    if checked.verdict is Verdict.BAD:
        return part
    complete = checked.verdict in (Verdict.CLOSED, Verdict.PART)
    return {"complete": complete, "announced_changes": checked.announced_changes, **part}


def _note(path: Path) -> str | None:
    """Why a watch would pass over a file of this name, None where it would not."""
    from segmentd.ingest import names

    name = os.fsencode(path.name)
    if names.is_temporary(name):
        return "watches pass over it: its name is one of unfinished files"
    if names.is_own_result(name):
        return "watches pass over it: its name is one of results"
    if not names.is_image(name) and not names.is_store(name):
        endings = ", ".join(os.fsdecode(suffix) for suffix in (*names.IMAGE_SUFFIXES, names.STORE_SUFFIX))
        return f"watches pass over it: its name ends with none of {endings}"
    return None


def _described(info: FrameInfo) -> dict[str, Any]:
    colors = info.channel_colors or (None,) * info.channel_count
    axes = {"S": info.scenes, "T": info.size_t, "Z": info.size_z, "C": info.channel_count}
    size = info.pixel_size
    return {
        "format": info.format,
        "axes": {**axes, "Y": info.height, "X": info.width},
        "planes": info.plane_count,
        "pixel_type": info.pixel_type.value,
        "rgb": info.rgb,
        "channels": [
            {"name": name, "color": color} for name, color in zip(info.channel_names, colors, strict=True)
        ],
        "pixel_size_um": {"x": size.x_um, "y": size.y_um, "z": size.z_um},
        "scene_sizes": [{"height": height, "width": width} for height, width in info.scene_sizes],
    }


def _shown_plane(info: FrameInfo) -> PlaneIndex:
    from segmentd.records import PlaneIndex

    return PlaneIndex(z=info.size_z // 2)


def _thinned(image: OpenImage, index: PlaneIndex) -> Any:
    """Every second, third, ... pixel of a plane, so that its longer edge has at most 1024: (C, Y, X)."""
    import numpy as np

    info = image.info
    step = -(-max(info.height, info.width) // PREVIEW_EDGE)
    # A scene smaller than others is shown without what fills it up.
    height, width = info.scene_size(index.scene)
    if image.row_block == info.height:
        return image.read_plane(index).pixels[:, :height:step, :width:step]
    rows = max(1, ROWS_PIXELS // (info.width * info.channel_count * step)) * step
    bands = (
        image.read_rows(index, top, min(top + rows, height))[:, ::step, :width:step]
        for top in range(0, height, rows)
    )
    return np.concatenate(list(bands), axis=1)


def _values(pixels: Any) -> dict[str, Any]:
    """Range of the pixels that were looked at, and whether some are no numbers."""
    import numpy as np

    numbers = pixels[np.isfinite(pixels)]
    low, high = (numbers.min().item(), numbers.max().item()) if numbers.size else (None, None)
    return {"min": low, "max": high, "not_finite": numbers.size < pixels.size}


def _draw(file: Path, pixels: Any, info: FrameInfo) -> None:
    from segmentd.imagefile.preview import preview_png

    file.write_bytes(preview_png(pixels, rgb=info.rgb, colors=info.channel_colors))


def _lines(found: dict[str, Any]) -> list[str]:
    """What is printed of one image."""
    refused = found["refused"]
    if refused is not None:
        head = [f"{found['image']}: refused ({refused['reason']})", f"  why         {refused['message']}"]
        return head if "axes" not in found else [*head, *_facts(found)]
    if "part_of" in found:
        name = found["part_of"]
        return [
            f"{found['image']}: part of {name}",
            f"  note        it is no image of its own; inspect {name}",
        ]
    state = "complete, but its writer announced changes" if found["announced_changes"] else "complete"
    lines = [f"{found['image']}: {found['format']}, {state}", *_facts(found)]
    values = found["values"]
    beside = "; some are NaN or infinite" if values["not_finite"] else ""
    lines.append(f"  values      {_number(values['min'])} to {_number(values['max'])} in one plane{beside}")
    if found["note"]:
        lines.append(f"  note        {found['note']}")
    return lines


def _facts(found: dict[str, Any]) -> list[str]:
    axes = found["axes"]
    um = [found["pixel_size_um"][axis] for axis in "xyz"]
    size = " x ".join(f"{value:g}" for value in um if value is not None)
    channels = (
        entry["name"] + (f" {entry['color']}" if entry["color"] else "") for entry in found["channels"]
    )
    facts = {
        "axes": ", ".join(f"{axis} {length}" for axis, length in axes.items()),
        "planes": f"{found['planes']} of {axes['X']} x {axes['Y']} pixels",
        "type": found["pixel_type"] + (", colours" if found["rgb"] else ""),
        "channels": ", ".join(channels),
        "pixel size": f"{size} µm" if size else "not stated",
    }
    if found["members"]:
        shown = ", ".join(found["members"][:SHOWN_MEMBERS])
        more = ", ..." if len(found["members"]) > SHOWN_MEMBERS else ""
        facts["files"] = f"{1 + len(found['members'])}, all complete: this one, {shown}{more}"
    if found["scene_sizes"]:
        scenes = ", ".join(f"{one['width']} x {one['height']}" for one in found["scene_sizes"])
        facts["scenes"] = f"{scenes}; in results, smaller ones are filled up with label 0"
    return [f"  {name:<12}{text}" for name, text in facts.items()]


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:g}"
