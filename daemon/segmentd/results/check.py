"""Checks that published results are still there and as they were.

All are looked for, and their size compared. Digests are taken of the newest ones, as far as a budget of
bytes reaches: they are what a power cut may have hit. The digest of any other is taken before its pixels
are given to anybody (`segmentd.rpc.pixels`).
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass

from segmentd import telemetry
from segmentd.errors import Reason, SegmentdError
from segmentd.results.contents import digest_of, stamp_of
from segmentd.results.image_reader import START
from segmentd.results.inside import is_gone_with_its_image
from segmentd.results.journal import Journal
from segmentd.results.published import PublishedFile, ResultFault

DIGEST_BYTES = 256 << 20
_AT_ONCE = 200

_log = telemetry.get_logger(__name__)


@dataclass
class Check:
    """A run over result files: the budget that is left, and what was found so far."""

    budget_bytes: int = DIGEST_BYTES
    files: int = 0
    digests: int = 0
    missing: int = 0
    damaged: int = 0
    example: bytes = b""

    def look(self, files: Sequence[PublishedFile]) -> list[tuple[PublishedFile, ResultFault]]:
        """Look at some files; returns those whose state is another one than the journal says."""
        found = [(file, self._fault_of(file)) for file in files]
        for file, fault in found:
            self.files += 1
            self.missing += fault is ResultFault.MISSING
            self.damaged += fault is ResultFault.DAMAGED
            if fault is not ResultFault.NONE:
                self.example = self.example or file.path
        return [(file, fault) for file, fault in found if fault != file.fault]

    def _fault_of(self, file: PublishedFile) -> ResultFault:
        try:
            mode = os.stat(file.path).st_mode  # noqa: PTH116 (bytes)
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                return ResultFault.DAMAGED
            size = stamp_of(file.path).size_bytes
            if file.size_bytes not in (-1, size):
                return ResultFault.DAMAGED
            if size > self.budget_bytes:
                return ResultFault.NONE
            self.budget_bytes -= size
            self.digests += 1
            digest = digest_of(file.path)
        except OSError:
            return ResultFault.NONE if is_gone_with_its_image(file.path) else ResultFault.MISSING
        return ResultFault.NONE if digest == file.digest else ResultFault.DAMAGED


async def check_results(journal: Journal) -> Check:
    """Look at all result files, newest first, and note in the journal what is wrong."""
    check, place = Check(), START
    while page := await asyncio.to_thread(journal.newest_results, _AT_ONCE, place):
        place = page[-1][0]
        changes = await asyncio.to_thread(check.look, [file for _, file in page])
        if changes:
            await asyncio.to_thread(_note, journal, changes)
    if check.example:
        _log.warning(
            "published results are missing or damaged",
            missing=check.missing,
            damaged=check.damaged,
            example=check.example,
            files=check.files,
            digests=check.digests,
        )
    else:
        _log.info("published results checked", files=check.files, digests=check.digests)
    return check


def _note(journal: Journal, changes: Sequence[tuple[PublishedFile, ResultFault]]) -> None:
    try:
        journal.note_faults(changes)
    except SegmentdError as error:
        if error.reason is not Reason.DISK_FULL:
            raise
        _log.warning("the state of results could not be noted", why=error.message)
