"""What each example of a run takes of a row: measured from words and image headers, made to fit, and kept.

A second epoch measures nothing. Whatever cannot be used is an error or an entry of the ledger, as the settings say, and
never a silent change. In which order examples come is `mixture`'s, which of them share a row `packing`'s, and turning
them into arrays `loader`'s.
"""

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from jaxtyping import Int

from data_pipeline import fit
from data_pipeline.check import ALONE, Division, check_images
from data_pipeline.ledger import DROPPED, REPAIRED, Ledger
from data_pipeline.packing import as_array, bucket_of
from data_pipeline.parts import Part
from data_pipeline.records import Record, images_of
from data_pipeline.sources import Chain, Source, repeated_ids
from vlm_jax.errors import InputError
from vlm_jax.processing.example import Size
from vlm_jax.processing.image_cache import NO_CACHE, ImageCache, key_of
from vlm_jax.processing.processor import Grid, Processor, Text
from vlm_jax.processing.rows import RowSpec
from vlm_jax.processing.token_budget import TokenBudget

UNKNOWN, LEFT_OUT = -2, -1
CHUNK = 1024
"""Examples that are measured together."""
_TEXTS = 8192  # conversations that are kept tokenised between planning and loading


class Examples:
    """Examples by (part, index). Safe from several threads once the buckets are set."""

    def __init__(
        self,
        parts: Sequence[Part],
        ledger: Ledger,
        *,
        too_large: str = "error",
        on_error: str = "stop",
        decode: bool = False,
        cache: ImageCache = NO_CACHE,
        budgets: Sequence[TokenBudget] = (),
    ):
        """
        Args:
          budgets: of visual tokens, where examples are shown with others than the parts' processors have. Example
            (part, index) with the n-th of them, from 0, is (part + n · parts, index) in all that follows.
          too_large, on_error: as the settings `data.too_large` and `data.on_error` (`vlm_jax.training.config`).
          decode: decode every image when it is measured, which finds truncated files; otherwise headers are read.
          cache: of what is known of images from before.

        Raises:
          InputError: images cannot be made as much smaller as one of the budgets asks.
        """
        self.parts, self._ledger, self._cache = list(parts), ledger, cache
        self.too_large, self.on_error, self._decode = too_large, on_error, decode
        # Examples of which all stay share rows with others that are cut within the decoder.
        cuts = max((budget.cuts for budget in budgets), default=0)
        reduced = [part.processor.with_reduction(budget, cuts=cuts) for budget in budgets for part in parts]
        for processor in reduced:
            processor.check_budget()
        self._processors = reduced or [part.processor for part in parts]
        choosing = [one for one in self._processors if one.budget.on_device or one.budget.cuts]
        self._describes_rows = (choosing or self._processors)[0]
        lengths = [len(part.source) for part in parts] * max(1, len(budgets))
        columns = 3 + self._processors[0].cuts
        self.sizes = [np.full((length, columns), UNKNOWN, np.int64) for length in lengths]
        """Of each part [n, columns]: `Size.columns`; negative where unknown or left out."""
        self.visual = [np.full(length, LEFT_OUT, np.int64) for length in lengths]
        """Of each part [n]: visual tokens that the decoder sees; negative where not measured."""
        self.shown: list[list[tuple[str, ...]]] = [[()] * length for length in lengths]
        """Of each part, of each example that was measured: its images, by path or digest."""
        # How an example was made to fit: its own visual tokens at most, its own longest; 0 for the part's.
        self._budgets = [np.zeros(length, np.int32) for length in lengths]
        self._cuts = [np.zeros(length, np.int32) for length in lengths]
        self._limits: fit.Limits | None = None
        self.image_sizes: dict[str, tuple[int, int]] = {}
        """(width, height) in pixels of every image that was measured, by path, or by a digest of an embedded one."""
        self.visual_tokens: dict[str, int] = {}
        """How many visual tokens the tower made of each image when it was last measured."""
        self._texts: OrderedDict[tuple[int, int], Text] = OrderedDict()
        self._lock = threading.Lock()
        # Ids are compared only where all are read, in the order of the files: which of two is the second would
        # otherwise depend on where a run was gone on with.
        self._ids: set[tuple[int, int, str]] | None = None
        self._repeated: Counter[str] = Counter()  # by file, where that is no error
        self.errors: list[str] = []
        """Of what was measured so far, as far as they stop the run."""

    def __len__(self) -> int:
        return sum(len(part.source) for part in self.parts)

    @property
    def budget(self) -> TokenBudget:
        """Of those that rows are laid out for: one that chooses, where any does."""
        return self._describes_rows.budget

    def processor(self, part: int) -> Processor:
        """What prepares the examples of a part."""
        return self._processors[part]

    def row_spec(self, size: Size) -> RowSpec:
        """The arrays of rows of a size, which hold examples of all parts and budgets."""
        return self._describes_rows.row_spec(size)

    def measure(self, places: Int[np.ndarray, "n 2"], division: Division = ALONE) -> Int[np.ndarray, "n columns"]:
        """Sizes of examples, made to fit once `set_buckets` was called; negative for those that are left out.

        Args:
          division: of the images among processes, all of which measure the same places now.
        """
        unknown = [(part, index) for part, index in places.tolist() if self.sizes[part][index, 0] == UNKNOWN]
        new = list(dict.fromkeys((part % len(self.parts), index) for part, index in unknown))
        if new:
            self._measure(new, division)
        sizes = np.stack([self.sizes[part][index] for part, index in places.tolist()])
        if self._limits is not None:
            over = (bucket_of(sizes, self._limits) < 0) & (sizes[:, 0] >= 0)
            for row in np.flatnonzero(over).tolist():
                part, index = places[row].tolist()
                if (self.sizes[part][index] == sizes[row]).all():  # else an equal place before it was made to fit
                    self._make_fit(part, index)
                sizes[row] = self.sizes[part][index]
        return sizes

    def measure_or_stop(self, places: Int[np.ndarray, "n 2"]) -> Int[np.ndarray, "n columns"]:
        """As `measure`, while a run goes on.

        Raises:
          InputError: an example fits no row, and that is an error.
        """
        sizes = self.measure(places)
        if self.errors:
            raise InputError(self.errors)
        return sizes

    def measure_all(
        self,
        progress: Callable[..., Iterable] = lambda chunks, **_: chunks,
        division: Division = ALONE,
    ) -> None:
        """Measures every example, and compares ids; raises nothing: see `errors`."""
        if self._ids is None and all((sizes == UNKNOWN).all() for sizes in self.sizes):
            self._ids = set()
        every = [
            np.stack([np.full(len(sizes), part), np.arange(len(sizes))], axis=1)
            # One budget measures all; but each is made to fit by itself.
            for part, sizes in enumerate(self.sizes if self._limits is not None else self.sizes[: len(self.parts)])
        ]
        places = np.concatenate(every)
        chunks = [places[start : start + CHUNK] for start in range(0, len(places), CHUNK)]
        for chunk in progress(chunks, total=len(chunks)):
            self.measure(chunk, division)
        for name, count in self._repeated.items():
            self._ledger.note(name, REPAIRED, "repeated id", repeated_ids(name, count), count=count)

    def set_buckets(self, limits: Sequence[Size]) -> None:
        """From now on examples are made to fit one of these rows, as `too_large` says."""
        self._limits = as_array(limits)

    def read(self, part: int, index: int) -> tuple[Record, Text, list[Grid]]:
        """A measured example's record, its words, and how its images are cut.

        Raises:
          InputError: the record can no longer be read.
        """
        record, text = self._record_and_text(part, index)
        return record, text, self._grids(part, index, record)

    def longest(self, part: int, index: int) -> int | None:
        """After how many tokens an example is cut to fit its row; None where it is not."""
        return int(self._cuts[part][index]) or None

    def refuse(self, where: str, kind: str, errors: Sequence[str]) -> None:
        """Leaves a record out, or makes it an error, as `on_error` says.

        Raises:
          InputError: training has begun, and what was in order no longer is.
        """
        if self.on_error == "stop":
            if self._limits is not None:
                raise InputError(list(errors))
            self.errors += errors
        for error in errors:
            self._ledger.note(where, DROPPED, kind, error)

    def where(self, part: int, index: int) -> str:
        """A record that may be unreadable, as error lines name it."""
        named = self.parts[part % len(self.parts)]
        if hasattr(named.source, "identify"):
            return named.source.identify(index)[1]
        return f"{named.name}, entry {index + 1}"

    def _measure(self, places: Sequence[tuple[int, int]], division: Division) -> None:
        records, refused = self._read_all(places)
        unknown = [r for r in records.values() if any(_key(image) not in self.image_sizes for image in images_of(r))]
        errors_of_images = self._look_at_images([*refused, *unknown], division)
        for (part, index), record in records.items():
            wrong = [key for key in map(_key, images_of(record)) if key not in self.image_sizes]
            if wrong:
                if self.on_error == "drop":
                    errors = [f"{record.where}: {errors_of_images[key]}" for key in wrong]
                    self.refuse(record.where, "image", errors)
                continue
            try:
                text = self._tokenize(part, record)
                with_each = range(part, len(self.sizes), len(self.parts))
                grids = [self._grids(one, index, record) for one in with_each]
                sizes = [self._processors[one].size(text, cut) for one, cut in zip(with_each, grids, strict=True)]
            except InputError as error:
                self.refuse(record.where, "conversation", [f"{record.where}: {line}" for line in error.lines])
                continue
            self._keep_text((part, index), text)
            for one, size, cut in zip(with_each, sizes, grids, strict=True):
                self.sizes[one][index] = size.columns
                self._note_visual(one, index, record, cut)

    def _read_all(self, places: Sequence[tuple[int, int]]) -> tuple[dict[tuple[int, int], Record], list[Record]]:
        """The records that are in order, and of the others what names their images: one run reports all errors."""
        records: dict[tuple[int, int], Record] = {}
        refused: list[Record] = []
        for part, index in places:
            for sizes in self.sizes[part :: len(self.parts)]:
                sizes[index] = LEFT_OUT
            try:
                record = self.parts[part].source[index]
                if self._ids is not None and (part, self._file(part, index), record.id) in self._ids:
                    self._note_repeated(part, index, record)
            except InputError as error:
                self.refuse(self.where(part, index), "record", error.lines)
                if self.on_error == "stop" and (named := self._images_of_refused(part, index)):
                    refused.append(named)
                continue
            if self._ids is not None:
                self._ids.add((part, self._file(part, index), record.id))
            records[part, index] = record
        return records, refused

    def _look_at_images(self, records: Sequence[Record], division: Division) -> dict[str, str]:
        """Notes the sizes of all images of these records; {key: error} of those that cannot be used."""
        sizes, errors = check_images(records, decode=self._decode, cache=self._cache, division=division)
        self.image_sizes |= {_key(image): size for image, size in sizes.items()}
        if self.on_error == "stop":
            self.errors += errors
        bad = [image for image in dict.fromkeys(i for r in records for i in images_of(r)) if image not in sizes]
        return {_key(image): error.rpartition(" (used by ")[0] for image, error in zip(bad, errors, strict=True)}

    def _make_fit(self, part: int, index: int) -> None:
        size = Size.of(self.sizes[part][index].tolist())
        record, text = self._record_and_text(part, index)
        processor, where = self._processors[part], record.where
        largest = Size.of(self._limits[-1].tolist())
        most = processor.most_tokens
        least = "at least " if most is not None and size.tokens > 2 * most else ""  # more were not counted
        takes = (
            f"{where}: takes {least}{size.tokens} tokens, {size.patches} patch slots and {size.supervised} supervised "
            f"positions; the largest row holds {largest.tokens}, {largest.patches} and {largest.supervised}"
        )
        if size.above:
            takes += f" (above the cuts within the decoder {list(size.above)} tokens, of {list(largest.above)})"
        self.sizes[part][index] = LEFT_OUT
        if self.too_large == "error":
            # An error whatever becomes of unreadable records: too_large is a setting of its own.
            if bucket_of(np.array([[*size.columns[:3]]]), self._limits[:, :3])[0] >= 0:
                self.errors.append(
                    f"{takes}: rows are as long above a cut as most of the data takes, and this is mostly text; raise "
                    "batch.buckets, train for epochs, so that all of it is measured first, or set data.too_large"
                )
                return
            self.errors.append(
                f"{takes}: raise batch.sequence_length (or batch.patches, batch.supervised), allow longer rows by "
                "batch.max_sequence_length and batch.buckets, lower model.max_visual_tokens, or set data.too_large"
            )
            return
        if self.too_large == "shrink_images":
            sizes = [self.image_sizes[_key(image)] for image in images_of(record)]
            if fitted := fit.with_smaller_images(processor, text, sizes, self._limits):
                self._budgets[part][index] = fitted[1]
                self._note_visual(part, index, record, self._grids(part, index, record))
                reason = f"{takes}; its images have at most {fitted[1]} visual tokens each, before any are left out"
                self._note_fitted(part, index, fitted[0], where, "images shrunk", reason)
                return
        elif self.too_large == "truncate_text":
            grids, most = self._grids(part, index, record), min(size.tokens, largest.tokens)
            if fitted := fit.with_less_text(processor, text, grids, self._limits, most):
                self._cuts[part][index] = fitted[1]
                reason = f"{takes}; its last {size.tokens - fitted[0].tokens} tokens are cut off"
                self._note_fitted(part, index, fitted[0], where, "text cut", reason)
                return
        self._ledger.note(where, DROPPED, "too large", takes)

    def _note_fitted(self, part: int, index: int, size: Size, where: str, kind: str, reason: str) -> None:
        self.sizes[part][index] = size.columns
        self._ledger.note(where, REPAIRED, kind, reason)

    def _note_visual(self, part: int, index: int, record: Record, grids: Sequence[Grid]) -> None:
        processor = self._processors[part]
        self.visual[part][index] = sum(map(processor.visual_tokens, grids))
        self.shown[part][index] = tuple(map(_key, images_of(record)))
        seen = map(processor.images.tokens, grids)
        if part < len(self.parts):  # of several budgets the first tells how large images are seen
            self.visual_tokens |= dict(zip(self.shown[part][index], seen, strict=True))

    def _note_repeated(self, part: int, index: int, record: Record) -> None:
        """Counts an id that an earlier record has.

        Raises:
          InputError: the source insists that ids are unique.
        """
        source = self.parts[part].source
        source = source.source_of(index) if isinstance(source, Chain) else source
        if not isinstance(source, Source) or source.insists_on_ids:
            raise InputError(f"{record.where}: the id {record.id!r} is an earlier record's; give each its own")
        self._repeated[source.name] += 1

    def _file(self, part: int, index: int) -> int:
        source = self.parts[part].source
        return source.file_of(index) if isinstance(source, Chain) else 0

    def _grids(self, part: int, index: int, record: Record) -> list[Grid]:
        sizes = [self.image_sizes[_key(image)] for image in images_of(record)]
        return fit.grids(self._processors[part], sizes, int(self._budgets[part][index]))

    def _record_and_text(self, part: int, index: int) -> tuple[Record, Text]:
        part %= len(self.parts)
        record = self.parts[part].source[index]
        text = self._texts.get((part, index))
        if text is None:
            text = self._tokenize(part, record)
            self._keep_text((part, index), text)
        return record, text

    def _tokenize(self, part: int, record: Record) -> Text:
        """Its words, with what any of the budgets wants to know of them."""
        choosing = self._processors[part :: len(self.parts)]
        return max(choosing, key=lambda one: one.budget.by_question).tokenize(record.messages)

    def _keep_text(self, key: tuple[int, int], text: Text) -> None:
        with self._lock:
            self._texts[key] = text
            while len(self._texts) > _TEXTS:
                self._texts.popitem(last=False)

    def _images_of_refused(self, part: int, index: int) -> Record | None:
        source = self.parts[part].source
        images = source.images(index) if hasattr(source, "images") else []
        content = [{"type": "image", "image": image} for image in images]
        return Record("", [{"role": "user", "content": content}], where=self.where(part, index)) if images else None


def _key(image: str | bytes) -> str:
    """What an image is known by here: an embedded one is not held itself."""
    return key_of(image) or str(image)
