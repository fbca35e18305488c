"""`segmentd rebuild-journal`: a journal anew from the results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segmentd.cli import exits

if TYPE_CHECKING:
    from segmentd.cli.show import Step
    from segmentd.records import Segmentation, WatchSpec
    from segmentd.results.images import ImageOutcome
    from segmentd.results.journal import Journal
    from segmentd.results.rebuild import FoundResults
    from segmentd.settings import Settings

    Entry = tuple[ImageOutcome, list[Segmentation]]

_BATCH = 100
_SHOWN = 20


def rebuild_journal(
    config: Annotated[
        Path | None, typer.Option(help="Configuration file (TOML); default: SEGMENTD_CONFIG, else built-in.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also replace a journal that is sound; it is kept aside.")
    ] = False,
) -> None:
    """Make a new journal from the results of all watches in the configuration, after the old one was lost.

    Images whose results are there are not segmented again. Failures, versions and times of work are not
    in the results and are forgotten; cursors of the old journal are refused. The daemon must not run. The
    old journal stays beside the new one, as journal.sqlite.old-N.
    """
    with exits.reported():
        from segmentd.settings import load

        settings = load(config)

        from segmentd.results.journal_schema import lock_folder

        with lock_folder(settings.journal.folder):
            _refuse_sound(settings.journal.folder, force)
            _rebuild(settings)


def _refuse_sound(folder: Path, force: bool) -> None:
    """Refuse to replace a journal that can be used, or that a newer version can."""
    from segmentd.errors import Reason, SegmentdError
    from segmentd.results.journal_schema import FILE_NAME, open_writer

    path = folder / FILE_NAME
    if force or not path.exists():
        return
    try:
        open_writer(path).close()
    except SegmentdError as error:
        if error.reason is not Reason.JOURNAL_DAMAGED:
            raise
        return
    raise SegmentdError(
        Reason.JOURNAL_NOT_WRITABLE,
        f"the journal {path} is sound, and a new one would forget versions, failures and all cursors. "
        "Start the daemon with it, or give --force.",
        path=str(path),
    )


def _rebuild(settings: Settings) -> None:
    import shutil

    from segmentd.cli import show
    from segmentd.results.journal import Journal
    from segmentd.results.rebuild import find_results, put_in_place

    folder = settings.journal.folder
    building = folder / "rebuilding"
    if building.exists():
        shutil.rmtree(building)
    models = _model_ids(settings.models.folder)
    found = [(spec, results) for spec in settings.watch_specs() for results in find_results(spec.results)]
    found.sort(key=lambda pair: pair[1].made)
    skipped: list[str] = []
    journal = Journal.open(building)
    try:
        with show.progress("images", len(found)) as step:
            done = _record(journal, found, models, skipped, step)
    finally:
        journal.close()
    aside = put_in_place(building, folder)
    rows = [(spec.id, str(done.get(spec.id, 0))) for spec in settings.watch_specs()]
    if rows:
        show.table("New journal", ("watch", "images"), rows)
    for text in skipped[:_SHOWN]:
        show.note(f"left out, to be segmented again: {text}")
    if len(skipped) > _SHOWN:
        show.note(f"... and {len(skipped) - _SHOWN} more")
    kept = f"; the old one is {aside}" if aside else ""
    show.line(f"The journal is {folder / 'journal.sqlite'}, id {journal.id}{kept}")


def _record(
    journal: Journal,
    found: list[tuple[WatchSpec, FoundResults]],
    models: dict[str, str],
    skipped: list[str],
    step: Step,
) -> dict[str, int]:
    """Write an entry for each image; returns how many there are of each watch."""
    from segmentd.errors import Reason, SegmentdError
    from segmentd.results.rebuild import rebuild_image

    entries: list[Entry] = []
    done: dict[str, int] = {}
    for number, (spec, results) in enumerate(found, 1):
        try:
            entries.append(rebuild_image(spec, results, models))
            done[spec.id] = done.get(spec.id, 0) + 1
        except SegmentdError as error:
            if error.reason is not Reason.RESULT_UNAVAILABLE:
                raise
            skipped.append(error.message)
        if len(entries) == _BATCH or number == len(found):
            journal.record_many(entries)
            entries = []
        step(number, results.stem.decode("utf-8", "backslashreplace"))
    return done


def _model_ids(folder: Path) -> dict[str, str]:
    """Ids of the models that are there, by digest; results name the digest only."""
    from segmentd.errors import SegmentdError
    from segmentd.models import files
    from segmentd.settings.values import MODEL_SUFFIXES

    ids = {}
    for path in sorted(folder.glob("[!.]*")):
        if path.suffix in MODEL_SUFFIXES:
            try:
                card = files.load(path).card
            except SegmentdError:  # of no use, so none of the results is from it as it is now
                continue
            ids[card.digest] = card.id
    return ids
