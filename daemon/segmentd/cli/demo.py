"""`segmentd demo`: the main job in small, for real."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segmentd.cli import exits

if TYPE_CHECKING:
    from segmentctl import Result

MARKER = ".segmentd-demo"
TIMEOUT_SECONDS = 120.0


def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything the demo makes.")] = Path("segmentd-demo"),
) -> None:
    """Train a model, start the daemon, drop images into a hot folder, and show what comes back.

    Uses real fluorescence micrographs that come with the package. Leaves the model, the configuration,
    labels, confidence and an overlay of each image, and the contact sheet demo.png. The exit code is 0
    only if every image came back through a gRPC subscription.
    """
    with exits.reported():
        _prepare(out)
        missing = _demo(out)
    if missing:
        raise typer.Exit(exits.ExitCode.FAILED)


def _prepare(out: Path) -> None:
    """An empty folder, or one of an earlier demo, which is made anew."""
    import shutil

    if out.exists() and any(out.iterdir()) and not (out / MARKER).exists():
        raise exits.UsageError(f"--out {out}: is not empty and not from an earlier demo; name another folder")
    out.mkdir(parents=True, exist_ok=True)
    (out / MARKER).touch()
    for name in ("hot", "models", "journal"):
        shutil.rmtree(out / name, ignore_errors=True)
        (out / name).mkdir()


def _demo(out: Path) -> int:
    from importlib.resources import as_file, files

    from segmentd.cli import demo_daemon, demo_sheet, show

    with as_file(files("segmentd") / "demo_data") as data:
        images = sorted((data / "images").glob("*.tif"))
        show.line("1. training a model from strokes on one image")
        model = _train(data, out)
        show.line(f"   {model}")
        show.line("2. starting the daemon")
        config = _write_config(out)
        with demo_daemon.running(config) as daemon:
            show.line(f"   serves on {daemon.address}, watches {out / 'hot'}")
            show.line(
                f"3. dropping {len(images)} images into the hot folder, waiting for them on a subscription"
            )
            results = _drop_and_collect(images, out, daemon.address)
        rows = [demo_sheet.row(result, data) for result in results]
        columns = [
            "file",
            "size",
            "classes",
            "confidence",
            "latency",
            "device",
            "labels against people's (mIoU)",
        ]
        show.table("What came back", columns, rows)
        sheet = demo_sheet.draw(results, data, out / "demo.png")
    show.line(f"look at {sheet}; labels, confidence and overlays are in {out / 'hot' / 'segmented'}")
    show.line(f"run it yourself: segmentd run --config {config}")
    missing = len(images) - sum(result.labels is not None for result in results)
    if missing:
        show.note(f"{missing} of {len(images)} images did not come back")
    return missing


def _train(data: Path, out: Path) -> str:
    from segmentd.cli import show
    from segmentd.cli.classes_file import read_classes
    from segmentd.models import bundle
    from segmentd.settings.values import usable_cores
    from segmentd.training_jobs import TrainingRequest, match_pairs, train_model
    from segmentd.workers import WorkerPool

    pairs, _ = match_pairs(data / "training" / "images", data / "training" / "labels")
    request = TrainingRequest(
        pairs, "Nuclei", classes=read_classes(data / "classes.toml"), threads=usable_cores()
    )
    with show.progress("training images", len(pairs)) as step, WorkerPool(1) as pool:
        model = train_model(request, pool, lambda what, done, total: step(done, what)).model
    bundle.save(model, out / "models" / "nuclei.segmodel")
    scores = model.card.scores
    return (
        f"{sum(scores['labelled_pixels']):,} labelled pixels, {model.card.feature_set}, out-of-bag accuracy "
        f"{100 * scores['out_of_bag_accuracy']:.1f} %, digest {model.card.digest[:12]}"
    )


def _write_config(out: Path) -> Path:
    config = out / "segmentd.toml"
    config.write_text(
        """\
[server]
listen = "127.0.0.1:0"

[models]
folder = "models"

[journal]
folder = "journal"

[[watch]]
id = "nuclei"
folder = "hot"
model = "nuclei"
outputs = ["labels", "confidence", "overlay"]
""",
        encoding="utf-8",
    )
    return config


def _drop_and_collect(images: list[Path], out: Path, address: str) -> list[Result]:
    """Copy the images while a subscription is open; returns what it brought, by file name."""
    import shutil

    from segmentctl import Client
    from segmentd.cli import show

    results: dict[str, Result] = {}
    with (
        Client(address) as client,
        client.subscribe("watches/nuclei", start="oldest", timeout=TIMEOUT_SECONDS) as subscription,
        show.progress("images", len(images)) as step,
    ):
        for image in images:
            shutil.copyfile(image, out / "hot" / image.name)
        for result in subscription:
            results[result.segmentation.source_display] = result
            step(len(results), result.segmentation.source_display)
            if len(results) == len(images):
                break
    for result in results.values():
        if result.segmentation.error.message:
            show.note(f"failed: {result.segmentation.error.message}")
    return [results[image.name] for image in images if image.name in results]
