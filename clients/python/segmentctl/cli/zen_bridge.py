"""`segmentctl zen-bridge`: segment what ZEN acquires, while it acquires."""

from __future__ import annotations

import json
import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segmentctl.cli.connection import connected, fail, note

if TYPE_CHECKING:
    from segmentctl.bridges.frames import Counts, Frame, FrameResult
    from segmentctl.bridges.zen.assembly import Position


class WhenFull(StrEnum):
    """What happens when the daemon falls behind."""

    DROP_OLDEST = "drop-oldest"
    DROP_NEWEST = "drop-newest"
    WAIT = "wait"


_TOKEN_VARIABLE = "ZEN_CONTROL_TOKEN"


def zen_bridge(
    context: typer.Context,
    model: Annotated[str, typer.Option(help="Id or display name of the model.")],
    zen: Annotated[
        str, typer.Option(metavar="HOST:PORT", envvar="ZEN_ADDRESS", help="Where the ZEN API listens.")
    ] = "localhost:5002",
    zen_token_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help=f"File with the control token; {_TOKEN_VARIABLE} can hold it."),
    ] = None,
    zen_ca: Annotated[
        Path | None,
        typer.Option(metavar="FILE", envvar="ZEN_CA", help="Root certificate of the ZEN API (PEM)."),
    ] = None,
    zen_name: Annotated[
        str,
        typer.Option(help="Name in ZEN's certificate if it is not that of --zen: often localhost."),
    ] = "",
    experiment: Annotated[
        str, typer.Option(metavar="ID", help="Only this experiment; by default whatever runs.")
    ] = "",
    channel: Annotated[
        list[int] | None,
        typer.Option(
            min=0, help="ZEN's channel to use, from 0; again for a model of several. Default: the first ones."
        ),
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Take parts of frames as the camera reads them out.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", file_okay=False, help="Save labels and confidence of each plane here."),
    ] = None,
    min_confidence: Annotated[
        int, typer.Option(min=0, max=100, help="Labels below this confidence in percent become 0.")
    ] = 0,
    postprocessing: Annotated[str, typer.Option(help="none, or crf. Default: the model's own.")] = "",
    queue: Annotated[int, typer.Option(min=1, help="How many planes may wait for the daemon.")] = 64,
    when_full: Annotated[
        WhenFull, typer.Option(help="What happens when more than --queue planes wait.")
    ] = WhenFull.DROP_OLDEST,
    count: Annotated[int | None, typer.Option(min=1, help="Stop after so many planes.")] = None,
    idle: Annotated[
        float | None, typer.Option(metavar="S", min=0.1, help="Stop when ZEN sent nothing for S seconds.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON for each plane.")] = False,
) -> None:
    """Segment what ZEN acquires, plane by plane, while the experiment runs (ZEN API, ZEN 3.11 or later).

    Runs until Ctrl-C, --count or --idle. The exit code is 1 if a plane did not come to labels.
    """
    from segmentctl.bridges.zen.bridge import ZenBridge
    from segmentctl.bridges.zen.stream import ZenConnection, ZenError

    token = _token(zen_token_file)
    with (
        connected(context) as client,
        ZenBridge(
            ZenConnection(zen, token, zen_ca, zen_name),
            client,
            model,
            _Results(out, as_json),
            experiment=experiment,
            channels=tuple(channel or ()),
            partial=partial,
            on_note=note,
            on_failure=_Failures(),
            on_pace=_tell_pace,
            capacity=queue,
            when_full=when_full.value,
            min_confidence=min_confidence,
            postprocessing=postprocessing,
        ) as bridge,
    ):
        note(f"Waiting for frames of ZEN at {zen}; Ctrl-C ends.")
        try:
            bridge.run(count, idle)
        except ZenError as error:
            fail(str(error))
        except KeyboardInterrupt:  # how a bridge without an end is ended
            note("Ending; Ctrl-C once more drops what still waits.")
            bridge.finish()
        note(_summary(bridge))
        if bridge.lost:
            raise typer.Exit(1)


def _token(path: Path | None) -> str:
    try:
        text = path.read_text(encoding="utf-8") if path else os.environ.get(_TOKEN_VARIABLE, "")
    except (OSError, UnicodeDecodeError) as error:
        fail(f"{path} cannot be read: {error}")
    token = text.strip()
    if not token or not token.isascii() or not token.isprintable():
        where = str(path) if path else f"--zen-token-file and {_TOKEN_VARIABLE}"
        fail(f"There is no control token in {where}. Copy it from the settings of the ZEN API.")
    return token


class _Results:
    """Saves and prints results."""

    def __init__(self, out: Path | None, as_json: bool) -> None:
        self._out, self._as_json = out, as_json

    def __call__(self, result: FrameResult) -> None:
        files = [] if self._out is None else _save(result, self._out)
        print(_json_line(result, files) if self._as_json else _text_line(result), flush=True)


def _save(result: FrameResult, out: Path) -> list[Path]:
    from segmentctl.cli.names import saved_stem, without_tricks
    from segmentctl.cli.saving import save_planes
    from segmentd.imagefile import PixelSize

    position: Position = result.frame.source
    folder = out / without_tricks(position.experiment or "experiment")
    stem = folder / saved_stem(position.number, position.name)
    again = 1
    while stem.with_name(f"{stem.name}.labels.ome.tif").exists():  # the experiment was run once more
        again += 1
        stem = folder / f"{saved_stem(position.number, position.name)}-{again}"
    size = None
    if position.pixel_size is not None:
        size = PixelSize(x_um=1e6 * position.pixel_size[0], y_um=1e6 * position.pixel_size[1])
    return save_planes(stem, result.summary.classes, result.labels, result.confidence, pixel_size=size)


def _json_line(result: FrameResult, files: list[Path]) -> str:
    from dataclasses import asdict

    from segmentctl.cli.messages import as_dict

    fields: dict[str, Any] = asdict(result.frame.source)
    fields |= {"name": result.frame.name, "seconds": round(result.seconds, 4)}
    fields |= {"files": [str(path) for path in files], "segmentation": as_dict(result.summary)}
    return json.dumps(fields)


def _text_line(result: FrameResult) -> str:
    from segmentctl.cli.messages import seconds_text, shares_text

    position, summary = result.frame.source, result.summary
    parts = [
        f"{position.number:>6}",
        result.frame.name,
        f"{summary.height} x {summary.width}",
        shares_text(summary),
        f"confidence {summary.mean_confidence:.1f} %",
        seconds_text(result.seconds),
    ]
    return "  ".join(parts)


class _Failures:
    """Tells why planes fail: each reason once."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def __call__(self, frame: Frame, error: Exception) -> None:
        reason = getattr(error, "reason", type(error).__name__)
        if reason not in self._told:
            self._told.add(reason)
            note(f"{frame.name} was not segmented: {error} (Said once; the number at the end counts all.)")


def _tell_pace(behind: bool, counts: Counts) -> None:
    if behind:
        note(f"segmentd falls behind ZEN: {counts}. A larger --queue bridges bursts.")
    else:
        note(f"segmentd has caught up with ZEN: {counts}.")


def _summary(bridge: Any) -> str:
    told = {
        "not complete": bridge.unfinished,
        "malformed": bridge.malformed,
        "missed in interruptions": bridge.missing,
    }
    rest = "".join(f", {count} {what}" for what, count in told.items() if count)
    return f"{bridge.counts}{rest}."
