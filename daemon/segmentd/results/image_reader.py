"""What the journal knows of images and result files, read through the connections of `EventReader`."""

from __future__ import annotations

from segmentd.records import FileStamp
from segmentd.results import images, published
from segmentd.results.events import EventReader
from segmentd.results.images import ImageOutcome, ImageRow, ImageState, stamp_text
from segmentd.results.published import Place, PublishedFile, ResultFaults

START: Place = (2**63 - 1, b"")
"""The place before the newest result file, for `newest_results`."""


class ImageReader(EventReader):
    """Reads images from a journal file that is open for writing elsewhere in this process."""

    def next_version(self, watch: str, path: bytes, content_digest: str) -> int:
        """Return the version under which this content of a path is to be published."""
        with self._connection() as connection:
            image = images.find_image(connection, watch, path)
        if image is None:
            return 1
        same = content_digest != "" and content_digest == image.content_digest
        return max(1, image.version) if same else image.version + 1

    def results_of(self, watch: str, path: bytes) -> tuple[PublishedFile, ...]:
        """Return the result files of an image, as they were published."""
        with self._connection() as connection:
            image = images.find_image(connection, watch, path)
        return image.files if image else ()

    def has_results(self, watch: str, path: bytes) -> bool:
        """Whether the results of an image are there; where somebody deleted them, a touch makes new ones."""
        return all(published.is_there(file) for file in self.results_of(watch, path))

    def find_by_file(self, watch: str, stamp: FileStamp) -> list[ImageRow]:
        """Return the images of a watch, done or ignored, that were this very file, under whatever name."""
        with self._connection() as connection:
            return images.find_by_file(connection, watch, stamp)

    def failed_before(self, outcome: ImageOutcome) -> bool:
        """Whether this very file failed before for the same reason, so that nobody need be told again."""
        with self._connection() as connection:
            image = images.find_image(connection, outcome.watch, outcome.path)
        return (
            image is not None
            and outcome.fault is not None
            and (image.state, image.stamp) == (ImageState.FAILED, stamp_text(outcome.stamp))
            and (image.reason, image.message) == (outcome.fault.reason, outcome.fault.message)
        )

    def counts(self, watch: str) -> dict[ImageState, int]:
        """Count a watch's images by how they ended."""
        with self._connection() as connection:
            return images.count_states(connection, watch)

    def is_new(self, watch: str) -> bool:
        """Whether the first look at a watch's folder is still to be finished."""
        with self._connection() as connection:
            row = connection.execute("SELECT 1 FROM first_looks WHERE watch = ?", (watch,)).fetchone()
        return row is None

    def newest_results(self, limit: int, before: Place = START) -> list[tuple[Place, PublishedFile]]:
        """List result files, newest first, each with the place after which the list goes on."""
        with self._connection() as connection:
            return published.newest(connection, before, limit)

    def result_faults(self, watch: str) -> ResultFaults:
        """Return how many result files of a watch were found missing or damaged."""
        with self._connection() as connection:
            return published.faults(connection, watch)
