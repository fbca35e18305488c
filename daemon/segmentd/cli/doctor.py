"""`segmentd doctor`: what works on this machine, in plain words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segmentd.cli import exits

if TYPE_CHECKING:
    from segmentd.models.files import AnyModel
    from segmentd.process.gpu_probe import Probe
    from segmentd.process.machine import Check
    from segmentd.settings import DeviceSettings, Settings


def doctor(
    config: Annotated[
        Path | None,
        typer.Option(help="Configuration whose folders are looked at; default: as `segmentd run`."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what works here: processor, cards, memory, extras, folders, and a test segmentation on each device.

    Changes nothing. The exit code is 0 where all that is needed works, 1 where something fails, 78 where the
    configuration is bad.
    """
    from segmentd.settings import load

    with exits.reported():
        settings = load(config)
        checks = list(_checks(settings))
    failed = _report(checks, as_json)
    if failed:
        raise typer.Exit(exits.ExitCode.FAILED)


def _checks(settings: Settings) -> Iterator[Check]:
    from segmentd.process import machine

    yield _processor(settings.device)
    yield machine.memory()
    yield from _cards(settings.device)
    yield from machine.extras()
    yield machine.folder("models", settings.models.folder, write=True)
    yield machine.folder("journal", settings.journal.folder, write=True)
    for watch in settings.watch:
        yield _watched(f"watch {watch.id}", watch.folder)
        yield machine.folder(f"results of {watch.id}", watch.results_folder, write=True)
    yield machine.inotify()
    yield from _test_segmentations(settings.device)


def _processor(settings: DeviceSettings) -> Check:
    from segmentd.compute.packets import Kernel, choose_kernel
    from segmentd.engine.lane import processor_name
    from segmentd.process.machine import Check, State

    kernel = choose_kernel()
    text = f"{processor_name()}, {settings.threads} of its threads are used, kernel {kernel}"
    if kernel in (Kernel.SIMD, Kernel.PLAIN):
        return Check("processor", State.NOTE, text, "one with AVX2 would be several times as fast")
    return Check("processor", State.OK, text)


def _cards(settings: DeviceSettings) -> Iterator[Check]:
    from segmentd.process import gpu_probe
    from segmentd.process.machine import Check, State

    driver = gpu_probe.driver_version()
    yield Check("driver", State.OK, driver or "no NVIDIA driver: everything is computed on the CPU")
    found = _found_cards()
    for number, card in enumerate(found.cards):
        room = f"{card.free / 2**30:.1f} of {card.total / 2**30:.1f} GiB are free"
        what = f"not used, {card.fault}" if card.fault else "gives the CPU's labels"
        state = State.NOTE if card.fault else State.OK
        yield Check(f"card cuda:{number}", state, f"{card.name}: {room}; {what}")
    if not found.cards:
        state = State.NOTE if driver else State.OK
        yield Check("card", state, f"none that can be used: {found.reason}")
    if settings.require_gpu and all(card.fault for card in found.cards):
        advice = "set device.require_gpu to false"
        yield Check("device.require_gpu", State.FAILED, "there is no card that can be used", advice)


def _found_cards() -> Probe:
    from segmentd.process import gpu_probe

    if not gpu_probe.has_cupy():
        return gpu_probe.Probe(reason=gpu_probe.NO_CUPY)
    from segmentd.engine.cuda_check import find_cards

    return find_cards()


def _watched(about: str, path: Path) -> Check:
    """A watched folder must be there, and may be one that sends no events."""
    import os
    from dataclasses import replace

    from segmentd.ingest.mounts import why_no_events
    from segmentd.process import machine

    check = machine.folder(about, path, write=False)
    why = why_no_events(os.fsencode(path))
    if check.state is machine.State.OK and why:
        return replace(check, text=f"{check.text}; it is polled: {why}")
    return check


def _test_segmentations(settings: DeviceSettings) -> Iterator[Check]:
    """A small forest and a small network on a made-up plane, on the CPU and on every other device."""
    import importlib.util

    from segmentd.engine import selftest

    yield from _test_segmentation(settings, selftest.test_model(), "test")
    if importlib.util.find_spec("onnxruntime") is not None:
        from segmentd.engine import selftest_network

        yield from _test_segmentation(settings, selftest_network.test_network(), "network")


def _test_segmentation(settings: DeviceSettings, model: AnyModel, what: str) -> Iterator[Check]:
    import tempfile

    from segmentd.engine import selftest
    from segmentd.engine.comparison import compare
    from segmentd.models import files
    from segmentd.process.machine import Check, State

    plane = selftest.made_up_plane(1, model.card.pixel_type)
    with tempfile.TemporaryDirectory(prefix="segmentd-doctor-") as folder:
        path = Path(folder) / "self-test.segmodel"
        files.save(model, path)
        for found in compare(model, path, [plane], settings, with_kernels=False):
            about = f"{what} on {found.name}"
            if found.agrees:
                yield Check(about, State.OK, f"{found.mpx_per_s:.1f} megapixels a second, the same labels")
            else:
                differ = f"{found.different:,} of {found.pixels:,} labels differ from the CPU's"
                yield Check(
                    about, State.FAILED, found.fault or differ, 'leave the device out: prefer = "cpu"'
                )


def _report(checks: list[Check], as_json: bool) -> int:
    """Print all checks; returns how many failed."""
    from dataclasses import asdict

    from segmentd import __version__
    from segmentd.cli import show
    from segmentd.process.machine import State

    failed = sum(check.state is State.FAILED for check in checks)
    if as_json:
        print(json.dumps({"version": __version__, "ok": not failed, "checks": [asdict(c) for c in checks]}))
        return failed
    width = max(len(check.about) for check in checks)
    marks = {State.OK: " ok ", State.NOTE: "note", State.FAILED: "FAIL"}
    for check in checks:
        show.line(f"{marks[check.state]}  {check.about:<{width}}  {check.text}")
        if check.advice:
            show.line(f"      {'':<{width}}  -> {check.advice}")
    notes = sum(check.state is State.NOTE for check in checks)
    end = f"{failed} thing(s) do not work" if failed else "All that is needed works"
    show.line(f"{end}; {notes} note(s).")
    return failed
