"""`segmentctl tail`: follow results as they come."""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segmentctl.cli.connection import connected, fail, note, printable

if TYPE_CHECKING:
    from segmentctl.errors import DaemonError
    from segmentctl.subscription import Result, Subscription
    from segmentd.v1.segmentation_service_pb2 import Segmentation


class From(StrEnum):
    """Where to start without a cursor."""

    NEW = "new"
    OLDEST = "oldest"


def tail(
    context: typer.Context,
    watch: Annotated[str, typer.Option(metavar="ID", help="Only results of this watch.")] = "-",
    start: Annotated[
        From, typer.Option("--from", help="Start with the next result, or the oldest that is kept.")
    ] = From.NEW,
    since: Annotated[
        str | None, typer.Option(metavar="CURSOR", help="Go on after this cursor, whatever --from says.")
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, help="Stop after so many results.")] = None,
    timeout: Annotated[
        float | None,
        typer.Option(min=0, help="Stop after so many seconds; with --count, exit 1 if results are missing."),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="One line of JSON for each result: Segmentation, number and cursor."),
    ] = False,
    previews: Annotated[
        bool,
        typer.Option("--previews", help="Show planes of images in work, too; not counted, not saved."),
    ] = False,
    save: Annotated[
        Path | None,
        typer.Option(metavar="DIR", file_okay=False, help="Save labels and confidence of each result here."),
    ] = None,
) -> None:
    """Follow results as they become durable; a restart of the daemon is bridged without a gap."""
    with (
        connected(context) as client,
        client.subscribe(
            watch,
            since,
            start.value,
            metadata_only=save is None,
            previews=previews,
            timeout=timeout,
            on_interruption=_Interruptions(),
        ) as results,
    ):
        try:
            seen = _follow(results, count, _event_printer(as_json), save)
        except KeyboardInterrupt:  # how following without an end is ended
            raise typer.Exit(0 if count is None else 1) from None
    if count is not None and seen < count:
        fail(f"{seen} of {count} results came within {timeout:g} s.")


def _follow(
    results: Subscription, count: int | None, show: Callable[[Result], None], save: Path | None
) -> int:
    seen = 0
    for result in results:
        if save is not None and not result.preview:
            _save(result, save)
        show(result)
        seen += not result.preview
        if seen == count:
            break
    return seen


class _Interruptions:
    """Tells when the stream broke: once for each cause, not for every attempt."""

    def __init__(self) -> None:
        self._told: tuple[str, float] | None = None

    def __call__(self, error: DaemonError, delay: float) -> None:
        from segmentctl.errors import UNREACHABLE

        now = time.monotonic()
        if self._told is None or self._told[0] != error.reason or now - self._told[1] > 60:
            gone = f"The daemon at {error.metadata.get('address')} is gone."
            note(
                f"{gone if error.reason == UNREACHABLE else error.message} Following goes on when it is back."
            )
            self._told = (error.reason, now)


def _event_printer(as_json: bool) -> Callable[[Result], None]:
    from segmentctl.cli.messages import event_line

    if as_json:
        return lambda result: print(event_line(result), flush=True)
    from segmentctl.cli.tables import console

    output = console()
    return lambda result: output.print(_event_text(result), soft_wrap=True)


def _event_text(result: Result) -> str:
    from rich.markup import escape

    from segmentctl.cli.messages import seconds_text, shares_text, source_text

    segmentation = result.segmentation
    source = escape(source_text(segmentation))
    head = f"[dim]{result.number:>6}[/dim]  "
    if segmentation.state == segmentation.STATE_FAILED and result.error is not None:
        reason = escape(printable(f"{result.error.reason}: {result.error.message}"))
        return f"{head}[bold red]failed[/bold red]  {source}  {reason}"
    if segmentation.state == segmentation.STATE_RENAMED:
        before = escape(printable(segmentation.renamed_from_display))
        return f"{head}[yellow]renamed[/yellow] {source}  was {before}"
    parts = [
        source,
        f"{segmentation.height} x {segmentation.width}",
        escape(shares_text(segmentation)),
        f"confidence {segmentation.mean_confidence:.1f} %",
        "" if result.preview else seconds_text(segmentation.latency.ToTimedelta().total_seconds()),
        escape(printable(segmentation.device)),
    ]
    if segmentation.HasField("drift"):
        parts.append(_drift_text(segmentation.drift))
    if result.preview:
        return f"{'':>8}[cyan]preview[/cyan] {'  '.join(parts)}"
    return f"{head}[green]done[/green]    {'  '.join(parts)}"


def _drift_text(drift: Segmentation.Drift) -> str:
    from rich.markup import escape

    if not drift.alarm:
        return (
            "[green]looks as usual again[/green]"
            if not drift.adopted
            else "[green]the usual look now[/green]"
        )
    first = drift.measures[0]
    told = f"{first.name} {first.value:.1f} % instead of {first.usual_value:.1f} %"
    return f"[bold yellow]images look different: {escape(printable(told))}[/bold yellow]"


def _save(result: Result, folder: Path) -> None:
    from segmentctl.cli.names import saved_stem
    from segmentctl.cli.saving import save_planes

    segmentation = result.segmentation
    if result.labels is None:
        if segmentation.state == segmentation.STATE_SUCCEEDED and result.error is not None:
            note(f"{segmentation.source_display}: nothing to save. {result.error.message}")
        return
    stem = folder / saved_stem(result.number, segmentation.source_display)
    try:
        save_planes(stem, segmentation.classes, result.labels, result.confidence)
    except OSError as error:
        fail(f"{folder} cannot be written: {error.strerror or error}. Make room, or save elsewhere.")
