"""The review of what a corpus folder holds now: read again where a build has made the corpus anew meanwhile."""

from pathlib import Path

from data_pipeline.review.corpus import left_out, read_items
from data_pipeline.review.log import ReviewLog
from data_pipeline.review.session import Conflict, Options, Review
from data_pipeline.review.summary import lines, summarise
from vlm_jax.errors import InputError


class CurrentReview:
    """One review of a corpus over its builds. A build writes `manifest.json` last, which tells it apart."""

    def __init__(self, folder: Path, log: ReviewLog, options: Options):
        """
        Args:
          log: open for adding to.

        Raises:
          InputError: as `read_items`.
        """
        self._folder, self._log, self._options = folder, log, options
        self._build = self._manifest()
        self._read()

    def __call__(self) -> Review:
        """The review of the newest build.

        Raises:
          Conflict: it cannot be read.
        """
        build = self._manifest()
        if build != self._build:
            leases = self.review.leases
            try:
                self._read()
            except InputError as error:
                raise Conflict(f"the corpus was made again and cannot be read now: {error.lines[0]}") from None
            self.review.leases = leases
            self._build = build
        return self.review

    def summary(self) -> list[str]:
        """What the review came to, as lines."""
        return lines(summarise(self._items, self._log.entries, self._left_out))

    def _read(self) -> None:
        items, built_without = read_items(self._folder), left_out(self._folder)
        review = Review(self._folder, items, self._log, self._options)
        self._items, self._left_out, self.review = items, built_without, review

    def _manifest(self) -> tuple[int, ...] | None:
        try:
            status = (self._folder / "manifest.json").stat()
        except OSError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns
