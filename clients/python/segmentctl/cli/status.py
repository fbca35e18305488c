"""`segmentctl status`: the daemon, its folders, and what failed last."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from segmentctl.cli.connection import connected
from segmentctl.cli.listing import AsJson, id_of, print_json, show

if TYPE_CHECKING:
    from collections.abc import Sequence

    from segmentd.v1.server_service_pb2 import Server
    from segmentd.v1.watch_service_pb2 import Watch


def status(context: typer.Context, as_json: AsJson = False) -> None:
    """Show the daemon, its watched folders with state and speed, and the last images that failed.

    With --json: the server's fields, and `watches`.
    """
    with connected(context) as client:
        server, watches = client.server(), list(client.watches())
    if as_json:
        print_json(server, watches=watches)
        return
    show(("", ""), [(f"{name}:", value) for name, value in _server_rows(client.address, server)])
    typer.echo()
    columns: tuple[str, ...] = (
        "watch",
        "state",
        "folder",
        "noticed by",
        "done",
        "failed",
        "waiting",
        "images/min",
        "Mpx/s",
    )
    rows = [_watch_row(watch) for watch in watches]
    if any(watch.part_count for watch in watches):  # files of images in several files
        columns = (*columns, "parts")
        rows = [(*row, str(watch.part_count)) for row, watch in zip(rows, watches, strict=True)]
    show(columns, rows, empty="No watches.")
    if server.recent_failures:
        typer.echo()
        show(("last failures", "watch", "image", "reason"), _failure_rows(server.recent_failures))


def _server_rows(address: str, server: Server) -> list[tuple[str, str]]:
    from segmentctl.cli.messages import bytes_text, seconds_text

    rows = [
        ("address", address),
        ("version", server.version),
        ("running for", seconds_text(server.uptime.ToTimedelta().total_seconds())),
    ]
    for device in server.devices:
        reason = f" - {device.reason}" if device.reason else ""
        threads = "1 thread" if device.thread_count == 1 else f"{device.thread_count} threads"
        rows.append(("device", f"{device.name}, {device.display_name}, {threads}{reason}"))
        if device.model_load_count:
            rows.append((f"memory of {device.name}", _memory_text(device)))
        if device.batch_count:
            tiles = f"{device.batch_tile_count / device.batch_count:.1f} tiles each"
            rows.append((f"batches of {device.name}", f"{device.batch_count:,}, {tiles}"))
    speed = f"{server.images_per_minute} images, {server.megapixels_per_second:.2f} Mpx/s"
    return [
        *rows,
        ("in the last minute", speed),
        ("queue", f"{server.waiting_count} waiting images, {server.planes_in_flight} planes in work"),
        ("subscribers", str(server.subscriber_count)),
        ("last event", str(server.last_event_number)),
        ("oldest cursor", server.oldest_cursor),
        ("journal", f"{server.journal_id}, {bytes_text(server.journal_size_bytes)}"),
    ]


def _memory_text(device: Server.Device) -> str:
    from segmentctl.cli.messages import bytes_text

    limit = f" of {bytes_text(device.memory_budget_bytes)}" if device.memory_budget_bytes else ""
    models = ", ".join(device.resident_models) or "no model"
    return f"{models}; {bytes_text(device.memory_used_bytes)}{limit}, {device.model_load_count} loads so far"


def _watch_row(watch: Watch) -> tuple[str, ...]:
    from segmentctl.cli.messages import enum_text, with_reason

    return (
        id_of(watch.name),
        with_reason(enum_text(watch, "state"), watch.state_reason),
        watch.folder_display,
        with_reason(enum_text(watch, "mode"), watch.mode_reason),
        str(watch.done_count),
        str(watch.failed_count),
        str(watch.waiting_count),
        str(watch.images_per_minute),
        f"{watch.megapixels_per_second:.2f}",
    )


def _failure_rows(failures: Sequence[Server.Failure]) -> list[tuple[str, ...]]:
    return [
        (
            failure.create_time.ToDatetime().strftime("%Y-%m-%d %H:%M:%S UTC"),
            failure.segmentation.split("/")[1],
            failure.source_display,
            f"{failure.reason}: {failure.message}",
        )
        for failure in failures
    ]
