"""What all watches share."""

from __future__ import annotations

from dataclasses import dataclass, field

from segmentd.pipeline import Engine
from segmentd.process.claims import Claim, Claims
from segmentd.records import WatchSpec
from segmentd.results.early_planes import EarlyStore
from segmentd.results.feed import Feed
from segmentd.results.journal import Journal
from segmentd.workers import WorkerPool


@dataclass(frozen=True)
class Parts:
    """What all watches share: what computes, decodes, remembers, tells subscribers, and what is ours.

    `early` limits what is kept of images that are not complete.
    """

    engine: Engine
    pool: WorkerPool
    journal: Journal
    feed: Feed
    claims: Claims
    early: EarlyStore = field(default_factory=EarlyStore)

    def claim_of(self, spec: WatchSpec) -> Claim:
        """Make the claim of a watch on its folders; it is not held yet."""
        return self.claims.claim(spec.folder, spec.results, subject=f"watch '{spec.id}'")
