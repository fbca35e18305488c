"""The command `segmentd-bench`. Modules of benchmarks are imported when their command runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segmentd_bench import options, outcome

app = typer.Typer(
    name="segmentd-bench",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _segmentd_bench() -> None:
    """Measure segmentd on this machine: to size a machine, to compare, to watch latency under load.

    Every figure comes after a warm-up and from repeats, as median and spread; every result names the
    processor, its cores and the versions. Run it on a machine that does nothing else.
    """


@app.command()
def throughput(
    features: Annotated[
        str | None,
        typer.Option(
            help="Feature sets: basic25, basic33, deep64, deep128, deep256, deep50, deep70; default: basic25."
        ),
    ] = None,
    tile: Annotated[str, typer.Option(help="Edges of the tile in pixels, without border, or auto.")] = "auto",
    threads: Annotated[str, typer.Option(help="Numbers of threads, or all for all cores.")] = "all",
    classes: Annotated[str | None, typer.Option(help="Numbers of classes; default: 3.")] = None,
    trees: Annotated[str | None, typer.Option(help="Numbers of trees in the forest; default: 25.")] = None,
    size: Annotated[
        int, typer.Option(min=64, max=32_768, help="Edge of the synthetic plane in pixels.")
    ] = 2048,
    image: Annotated[
        Path | None, options.file("FILE", "Take the first plane of this image instead of a synthetic one.")
    ] = None,
    model: Annotated[
        Path | None,
        options.file("FILE.segmodel", "Take this model; features, classes and trees are its own then."),
    ] = None,
    vgg19_weights: Annotated[
        Path | None,
        options.file(
            "FILE", "Weights of VGG19 for deep sets (.h5, from Keras); default: what Keras has cached."
        ),
    ] = None,
    device: Annotated[
        str,
        typer.Option(
            help="cpu, cuda (an NVIDIA card; also told as a share of what is possible on paper), "
            "or auto: what the daemon would take."
        ),
    ] = "auto",
    at_once: options.AtOnce = 1,
    repeats: options.Repeats = 5,
    as_json: options.AsJson = False,
    plot: options.Plot = None,
) -> None:
    """Megapixels a second, from memory to memory.

    From a plane in memory to labels and confidence in memory; the pixels of a plane count once, whatever
    its channels. Mpx/s is by the clock, Mpx/CPU s by the CPU time of all threads together: what one core
    does. Stages are nanoseconds a pixel. Options with several values take them comma separated (--tile
    128,256,auto --threads 1,2); all combinations run, and the best is on top in the JSON.

    Without --model, a model is trained on strokes in three materials of a synthetic texture; the more
    nodes its forest has, the longer a pixel takes, so compare figures only at like numbers of nodes.
    """
    options.choice("--device", device, options.DEVICES)
    if model is not None:
        features, classes, trees = _of_model(model, features, classes, trees)
    sets = options.choices(
        "--features", features or "basic25", options.FEATURE_SETS + options.DEEP_FEATURE_SETS
    )
    tiles, thread_counts = options.tiles(tile), options.threads(threads)
    class_counts = options.numbers("--classes", classes or "3", 2, 255)
    tree_counts = options.numbers("--trees", trees or "25", 1, 100_000)

    def run() -> outcome.Measured:
        from segmentd_bench import throughput

        matrix = throughput.Matrix(sets, tiles, thread_counts, class_counts, tree_counts, device, at_once)
        given = throughput.Given(image, model, vgg19_weights)
        return throughput, throughput.run(matrix, given, size, repeats)

    outcome.measured(run, as_json, plot)


def _of_model(
    path: Path, features: str | None, classes: str | None, trees: str | None
) -> tuple[str, str, str]:
    """What the model is; an option that says otherwise is refused."""
    from segmentd.models import bundle

    with outcome.reported():
        model = bundle.load(path)
    own = (model.card.feature_set, str(len(model.card.classes)), str(model.forest.tree_count))
    for name, given, of_model in zip(
        ("features", "classes", "trees"), (features, classes, trees), own, strict=True
    ):
        if given not in (None, of_model):
            raise options.refused(f"--{name}", f"{given} is not what --model has: {of_model}; leave it out")
    return own


@app.command()
def compare(
    image: Annotated[Path | None, options.file("FILE", "Compare on this image; needs --labels.")] = None,
    labels: Annotated[
        Path | None,
        options.file("FILE", "Strokes to train on: a label image of the size of --image, 0 = unlabelled."),
    ] = None,
    features: options.OneFeatureSet = "basic25",
    size: Annotated[
        int, typer.Option(min=128, max=8192, help="Edge of the synthetic plane in pixels, without --image.")
    ] = 1024,
    threads: Annotated[
        int,
        typer.Option(min=1, max=options.MOST_THREADS, help="Threads of segmentd; the others use their own."),
    ] = 1,
    repeats: options.Repeats = 5,
    as_json: options.AsJson = False,
    plot: options.Plot = None,
) -> None:
    """Speed beside the usual pipeline and other programs.

    The usual pipeline is scipy filters and scikit-learn's forest with the same features. Others are
    scikit-image's trainable segmentation and, where they are installed, APOC and convpaint. All learn
    from the same labels and take turns on the same plane.

    "x our CPU time" is how many times the CPU seconds of segmentd a program needs, the fair figure
    whatever the number of threads; "same labels" is the share of pixels that it labels as segmentd does.
    """
    if (image is None) != (labels is None):
        raise options.refused("--image", "and --labels go together: give both or neither")
    feature_set = options.choice("--features", features, options.FEATURE_SETS)

    def run() -> outcome.Measured:
        from segmentd_bench import compare

        return compare, compare.run(image, labels, feature_set, size, repeats, threads)

    outcome.measured(run, as_json, plot)


@app.command()
def latency(
    size: Annotated[int, typer.Option(min=64, max=16_384, help="Edge of a frame in pixels.")] = 1232,
    rate: Annotated[
        float, typer.Option(min=0.01, max=1000, help="Frames a second that the camera writes.")
    ] = 2.0,
    frames: Annotated[
        int | None,
        typer.Option(min=1, max=100_000, help="Frames to write; default: 60, or 100 with --saturate."),
    ] = None,
    saturate: Annotated[
        bool, typer.Option("--saturate", help="All frames at once instead: how much throughput is left.")
    ] = False,
    repeats: Annotated[int, typer.Option(min=1, max=100, help="With --saturate: how often.")] = 3,
    features: options.OneFeatureSet = "basic25",
    threads: options.Threads = None,
    device: options.Device = "auto",
    limit: options.Limit = 600.0,
    folder: options.Folder = None,
    as_json: options.AsJson = False,
    plot: options.Plot = None,
) -> None:
    """From file closed to result, for a camera at work.

    Starts a daemon, writes square uint16 TIFF frames into its hot folder at a steady rate, and times at
    a gRPC subscriber on the same machine when the head, the first block of pixels and the whole result
    come: half of the frames are faster than p50, 95 and 99 of 100 faster than p95 and p99. Overhead is
    what is not computing. Says when the daemon falls behind, that is when the wait grows from frame to
    frame, and how many frames a second it sustains.

    With --saturate, all frames appear at once, and the megapixels a second from the first to the last
    result stand beside those of computing alone, measured in turns in the same run.
    """
    options.check_device(device)
    feature_set = options.choice("--features", features, options.FEATURE_SETS)
    count = frames or (100 if saturate else 60)

    def run() -> outcome.Measured:
        from segmentd.settings.values import usable_cores
        from segmentd_bench import latency
        from segmentd_bench import saturate as saturation

        plan = latency.Plan(size, count, feature_set, threads or usable_cores(), limit, folder)
        if saturate:
            return saturation, saturation.run(plan, repeats)
        return latency, latency.run(plan, rate)

    outcome.measured(run, as_json, plot)


@app.command()
def wire(
    size: Annotated[int, typer.Option(min=64, max=16_384, help="Edge of the plane in pixels.")] = 4096,
    features: options.OneFeatureSet = "basic25",
    threads: options.Threads = None,
    repeats: options.Repeats = 5,
    limit: options.Limit = 600.0,
    folder: options.Folder = None,
    as_json: options.AsJson = False,
    plot: options.Plot = None,
) -> None:
    """How fast pixels travel over gRPC.

    One large uint16 plane goes through a real daemon; the client is on the same machine. Then each kind
    of call is timed in turns: a subscription with pixels and a read, raw and packed (zstd), and a plane
    that the client submits. MiB/s counts pixels before packing, a byte each for label and confidence and
    two for the submitted pixel; what packing saves shows as MiB on the wire. Of a submitted plane,
    compute is apart: MiB/s is of the transfer alone. Last, the plane, up to 32 MiB of it, goes there and
    back over the Open Inference Protocol with a model that only echoes it: in messages, and through shared
    memory, into which the client copies it.
    """
    feature_set = options.choice("--features", features, options.FEATURE_SETS)

    def run() -> outcome.Measured:
        from segmentd.settings.values import usable_cores
        from segmentd_bench import wire

        return wire, wire.run(size, feature_set, threads or usable_cores(), repeats, limit, folder)

    outcome.measured(run, as_json, plot)


@app.command()
def load(
    subscribers: Annotated[
        int, typer.Option(min=1, max=400, help="How many subscribe, half with pixels.")
    ] = 50,
    slow: Annotated[int, typer.Option(min=0, max=400, help="How many of them pause after each event.")] = 5,
    stopped: Annotated[
        int, typer.Option(min=0, max=400, help="How many of them stop reading until the very end.")
    ] = 5,
    pause_ms: Annotated[
        float, typer.Option(min=1, max=10_000, help="Pause of a slow one, milliseconds.")
    ] = 100.0,
    folders: Annotated[int, typer.Option(min=1, max=64, help="Folders that are watched.")] = 4,
    images: Annotated[int, typer.Option(min=1, max=1000, help="Images for each folder and round.")] = 25,
    size: Annotated[int, typer.Option(min=32, max=2048, help="Edge of an image in pixels.")] = 256,
    threads: options.Threads = None,
    repeats: Annotated[int, typer.Option(min=1, max=100, help="Rounds.")] = 3,
    limit: options.Limit = 600.0,
    folder: options.Folder = None,
    as_json: options.AsJson = False,
    plot: options.Plot = None,
) -> None:
    """Many subscribers and many folders at one daemon.

    Some subscribers are slow, some stop reading. Nobody may miss an event or get one twice, and those who
    do not read must not hold up the others nor fill the daemon's memory. The lag is from durable at the
    daemon to complete at a live subscriber; files a second count until the last live subscriber has
    everything. All subscribers share this machine with the daemon, in one process. Exit code 1 if an
    event is missing or out of order.
    """
    if slow + stopped >= subscribers:
        raise options.refused("--subscribers", "must be more than --slow and --stopped together")

    def run() -> outcome.Measured:
        from segmentd.settings.values import usable_cores
        from segmentd_bench import load

        plan = load.Plan(
            subscribers,
            slow,
            stopped,
            pause_ms / 1000,
            folders,
            images,
            size,
            repeats,
            threads or usable_cores(),
            limit,
            folder,
        )
        return load, load.run(plan)

    if not outcome.measured(run, as_json, plot).get("complete"):
        raise typer.Exit(outcome.FAILED)


def main() -> None:
    """Run the command line and exit: 0 fine, 1 failed, 2 wrong usage."""
    app(prog_name="segmentd-bench")
