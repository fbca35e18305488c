"""How `segmentctl top` looks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from segmentctl.cli.connection import printable
from segmentctl.cli.listing import id_of
from segmentctl.cli.messages import bytes_text, enum_text, seconds_text
from segmentctl.cli.top_numbers import History, Timing
from segmentd.v1.server_service_pb2 import Server
from segmentd.v1.watch_service_pb2 import Watch

BAR_CELLS = 20
CURVE = " ▁▂▃▄▅▆▇█"
STATE_STYLES = {"active": "green", "paused": "yellow", "failed": "red", "unreachable": "red"}
SHOWN_FAILURES = 3


def view(address: str, history: History, *, trouble: str = "", hint: str = "") -> RenderableType:
    """Draw everything.

    Parameters
    ----------
    address : str
        Where the daemon is.
    history : History
        At least one answer.
    trouble : str
        Why there is nothing newer.
    hint : str
        What keys do.
    """
    answer = history.last
    parts: list[RenderableType] = [_headline(address, answer.server, hint)]
    if trouble:
        parts.append(Text(printable(f"no answer: {trouble}"), style="bold red"))
    parts += [
        _framed("queue", _queue(history)),
        _framed("folders", _folders(answer.watches)),
        _framed("devices", _devices(history)),
        _framed(_times_title(history), _times(history.timings())),
    ]
    if answer.server.recent_failures:
        parts.append(_framed("last failures", _failures(answer.server.recent_failures)))
    return Group(*parts)


def _framed(title: str, content: RenderableType) -> Panel:
    return Panel(content, title=title, title_align="left", border_style="dim", padding=(0, 1))


def _headline(address: str, server: Server, hint: str) -> Table:
    line = Table.grid(expand=True)
    line.add_column()
    line.add_column(justify="right")
    running = seconds_text(server.uptime.ToTimedelta().total_seconds())
    left = Text.assemble(("segmentd ", "bold"), f"{server.version}  {address}  running for {running}")
    line.add_row(left, Text(hint, style="dim"))
    return line


def _queue(history: History) -> Table:
    server = history.last.server
    lines = Table.grid(padding=(0, 2))
    slots = max(server.slot_count, server.planes_in_flight, 1)
    in_work = Text(f"{server.planes_in_flight} of {slots} in work  ")
    lines.add_row(Text("planes"), in_work + _bar(server.planes_in_flight / slots))
    lines.add_row(Text("waiting"), Text(f"{server.waiting_count:,} images"))
    speed = f"{server.images_per_minute:,} images/min, {server.megapixels_per_second:.2f} Mpx/s  "
    lines.add_row(Text("last minute"), Text(speed) + Text(curve(history.speeds), style="cyan"))
    journal = f"{server.last_event_number:,} events, {bytes_text(server.journal_size_bytes)}"
    subscribers = "1 subscriber" if server.subscriber_count == 1 else f"{server.subscriber_count} subscribers"
    lines.add_row(Text("journal"), Text(f"{journal}; {subscribers}"))
    return lines


def _folders(watches: Sequence[Watch]) -> RenderableType:
    if not watches:
        return Text("No watches.")
    table = _table("watch", "state", "folder", ">waiting", ">done", ">failed", ">images/min", ">Mpx/s")
    for watch in watches:
        state = enum_text(watch, "state")
        table.add_row(
            Text(printable(id_of(watch.name))),
            Text(state, style=STATE_STYLES.get(state, "")),
            Text(printable(watch.folder_display)),
            Text(f"{watch.waiting_count:,}"),
            Text(f"{watch.done_count:,}"),
            Text(f"{watch.failed_count:,}", style="red" if watch.failed_count else ""),
            Text(f"{watch.images_per_minute:,}"),
            Text(f"{watch.megapixels_per_second:.2f}"),
        )
    told = [
        Text(printable(f"{id_of(watch.name)}: {reason}"), style="yellow")
        for watch in watches
        for reason in (watch.state_reason, *watch.warnings)
        if reason
    ]
    return Group(table, *told)


def _devices(history: History) -> Table:
    table = _table("device", "", ">threads", ">planes at work", "memory of models")
    for device in history.last.server.devices:
        load = history.load(device.name)
        table.add_row(
            Text(printable(device.name)),
            Text(printable(device.display_name)),
            Text(str(device.thread_count)),
            Text("-" if load is None else f"{load:.2f}"),
            _memory(device),
        )
        if device.reason:
            table.add_row("", Text(printable(device.reason), style="yellow"))
    return table


def _memory(device: Server.Device) -> Text:
    if not device.model_load_count:
        return Text("-")
    used = bytes_text(device.memory_used_bytes)
    models = f", {len(device.resident_models)} models"
    if not device.memory_budget_bytes:
        return Text(used + models)
    share = device.memory_used_bytes / device.memory_budget_bytes
    return Text(f"{used} of {bytes_text(device.memory_budget_bytes)}{models}  ") + _bar(share)


def _times_title(history: History) -> str:
    since = seconds_text(history.window) if history.window else ""
    return f"times, last {since}" if since else "times, since the start"


def _times(timings: Sequence[Timing]) -> RenderableType:
    """Two stages beside each other."""
    if not timings:
        return Text("Nothing was done.", style="dim")
    columns = ("stage", ">a second", ">mean", ">median", ">99 %")
    table = _table(*columns, "  ", *columns)
    half = -(-len(timings) // 2)
    for left, right in zip_longest(timings[:half], timings[half:]):
        table.add_row(*_timing(left), "", *(_timing(right) if right else ()))
    return table


def _timing(timing: Timing) -> list[Text]:
    rate = f"{timing.rate:.1f}" if timing.rate else "-"
    style = "bold" if timing.name == "latency" else ""
    durations = (timing.mean, timing.median, timing.p99)
    return [Text(timing.name, style=style), Text(rate), *(Text(time_text(one)) for one in durations)]


def time_text(seconds: float) -> str:
    """Give a time with two digits at least, down to microseconds."""
    if seconds < 1e-3:
        return f"{1e6 * seconds:.0f} µs"
    return f"{1e3 * seconds:.1f} ms" if seconds < 1e-2 else seconds_text(seconds)


def _failures(failures: Sequence[Server.Failure]) -> Table:
    table = Table.grid(padding=(0, 2))
    for failure in failures[:SHOWN_FAILURES]:
        image = f"{failure.segmentation.split('/')[1]}/{failure.source_display}"
        text = Text(printable(failure.message), overflow="ellipsis", no_wrap=True)
        table.add_row(
            Text(printable(image), style="red", no_wrap=True), Text(failure.reason, no_wrap=True), text
        )
    return table


def _table(*columns: str) -> Table:
    """Make a table; a name that begins with `>` is of a column that is aligned to the right."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in columns:
        right = name.startswith(">")
        table.add_column(name.removeprefix(">"), justify="right" if right else "left", overflow="fold")
    return table


def _bar(share: float) -> Text:
    filled = round(BAR_CELLS * min(max(share, 0.0), 1.0))
    return Text("█" * filled, style="green") + Text("░" * (BAR_CELLS - filled), style="dim")


def curve(values: Sequence[float]) -> str:
    """Draw values as a curve of a line's height, the largest one full."""
    top = max(values, default=0.0)
    steps = len(CURVE) - 1
    return "".join(CURVE[round(steps * value / top)] if top else CURVE[0] for value in values)
