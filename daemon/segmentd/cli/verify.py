"""`segmentd verify`: one model on every device there is, compared."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segmentd.cli import exits

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from segmentd.engine.comparison import Found
    from segmentd.models.files import AnyModel

# The plain formulas take their time.
LARGEST_PART_PX = 1024


def verify(
    model: Annotated[str, typer.Argument(help="Model file, or id or name of one in --models.")],
    images: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Images, or folders of images; without any, a made-up one.", metavar="[IMAGE]..."
        ),
    ] = None,
    models: Annotated[
        Path | None, typer.Option(help="Folder of models; default: the models folder of the daemon.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of the CPU; default: all cores.")
    ] = None,
    store: Annotated[
        bool,
        typer.Option("--store/--no-store", help="Keep the verdict in the model's card (.segmodel files)."),
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Run a model on every device and kernel of this machine, and compare labels and confidence.

    Compared with the plain formulas (scipy, one tree after the other), of the first plane of each image at
    most 1024 x 1024 pixels from its middle; networks and deep features with the CPU. The exit code is 1 where
    more than 1 in 100,000 labels differ, of networks 1 in 1,000, or a device fails.
    """
    with exits.reported():
        agree = _verify(model, images or [], models, threads, store, as_json)
    if not agree:
        raise typer.Exit(exits.ExitCode.FAILED)


def _verify(
    reference: str, images: list[Path], folder: Path | None, threads: int | None, store: bool, as_json: bool
) -> bool:
    from segmentd.cli import show
    from segmentd.cli.inputs import find_model
    from segmentd.engine.comparison import compare
    from segmentd.models import files
    from segmentd.settings import DeviceSettings, load

    path = find_model(reference, folder)
    model = files.load(path)
    planes = _planes(model, images) if images else [_made_up(model)]
    settings = DeviceSettings(threads=threads) if threads else DeviceSettings()
    found = compare(model, path, planes, settings, vgg19_weights=load(None).models.vgg19_weights)
    agree = all(one.agrees for one in found)
    verdict = _verdict(model, images, found, agree)
    stored = _store(path, verdict) if store else "not asked to"
    if as_json:
        print(json_module.dumps({**verdict, "model": str(path), "stored": not stored, "not_stored": stored}))
        return agree
    rows = [_row(one) for one in found]
    show.table(
        f"{model.card.display_name} ({path})", ["computed by", "equal labels", "confidence", "Mpx/s"], rows
    )
    if len(found) == 1:
        show.line("On this machine such a model runs in one way only: there is nothing to compare it with.")
    show.line(
        f"{'The same labels everywhere' if agree else 'Not the same labels everywhere'}: {_measure(found)}"
    )
    show.line(
        f"The verdict is not in the model's card: {stored}."
        if stored
        else "The model's card has the verdict."
    )
    return agree


def _planes(model: AnyModel, images: list[Path]) -> list[npt.NDArray[np.generic]]:
    """The middle of the first plane of each image, the channels that the model uses."""
    from segmentd.cli.inputs import named_inputs
    from segmentd.ingest.readers import open_image
    from segmentd.models.fit import used_channels
    from segmentd.records import PlaneIndex
    from segmentd.workers import WorkerPool

    planes = []
    with WorkerPool(1) as pool:
        for image, _ in named_inputs(images, keep_paths=True):
            with open_image(pool, image) as opened:
                info = opened.info
                channels = used_channels(
                    model.card, info.pixel_type, info.channel_names, image.name, info.rgb
                )
                height, width = info.scene_size(0)
                pixels = opened.read_plane(PlaneIndex()).pixels[channels, :height, :width]
            top, left = (max(0, (edge - LARGEST_PART_PX) // 2) for edge in pixels.shape[1:])
            planes.append(pixels[:, top : top + LARGEST_PART_PX, left : left + LARGEST_PART_PX])
    return planes


def _made_up(model: AnyModel) -> npt.NDArray[np.generic]:
    from segmentd.engine.selftest import made_up_plane

    return made_up_plane(model.card.channel_count, model.card.pixel_type)


def _verdict(model: AnyModel, images: list[Path], found: list[Found], agree: bool) -> dict[str, Any]:
    from datetime import UTC, datetime

    from segmentd import __version__

    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": __version__,
        "digest": model.card.digest,
        "images": [image.name for image in images],
        "agree": agree,
        "compared_with": found[0].name,
        "devices": [
            {
                "name": one.name,
                "fault": one.fault,
                "pixels": one.pixels,
                "equal_labels": one.equal_share,
                "largest_confidence_difference": one.confidence_difference,
                "mpx_per_s": round(one.mpx_per_s, 3),
            }
            for one in found
        ],
    }


def _store(path: Path, verdict: dict[str, Any]) -> str:
    """Keep the verdict; returns why not, or nothing."""
    from segmentd.errors import SegmentdError
    from segmentd.models import verification
    from segmentd.models.bundle import SUFFIX

    if path.suffix != SUFFIX:
        return f"{path.name} is a package of another maker, which is never changed"
    try:
        verification.store(path, verdict)
    except (SegmentdError, OSError) as error:
        return f"{path.name} cannot be written ({error})"
    return ""


def _row(found: Found) -> list[str]:
    if found.fault:
        return [found.name, "failed", found.fault, ""]
    share = f"{100 * found.equal_share:.4f} %"
    return [found.name, share, f"± {found.confidence_difference} %", f"{found.mpx_per_s:.2f}"]


def _measure(found: list[Found]) -> str:
    different = max(one.different for one in found)
    return (
        f"at most {different:,} of {found[0].pixels:,} pixels differ from what is computed by {found[0].name}"
    )
