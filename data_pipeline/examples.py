"""The examples of a run: what each takes of a row, how it is made to fit, and the example itself.

Records are read when they are asked for; sizes are worked out from words and picture headers and kept, so that a second
epoch measures nothing. Whatever cannot be used is a fault or an entry of the ledger, as the settings say, and never a
silent change. In which order examples come is `mixture`'s, which of them share a row `packing`'s.
"""

import dataclasses
import hashlib
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from data_pipeline.check import check_images
from data_pipeline.ledger import DROPPED, REPAIRED, Ledger
from data_pipeline.packing import as_array, bucket_of
from data_pipeline.pictures import Pictures
from data_pipeline.records import Record, images_of
from data_pipeline.sources import Chain, Source, repeated_ids
from vlm_jax.errors import InputError
from vlm_jax.processing.processor import Grid, Processor, Text
from vlm_jax.processing.rows import Example, Size

UNKNOWN, LEFT_OUT = -2, -1
_TEXTS = 8192  # conversations that are kept tokenised between planning and loading


@runtime_checkable
class Records(Protocol):
    """Records by number, each read when it is asked for: `data_pipeline.sources.Source`, or a list."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Record: ...


@dataclasses.dataclass
class Part:
    """One data set of a run.

    Attributes:
      source: its records.
      processor: with the visual tokens that its pictures may have.
    """

    name: str
    source: Records
    processor: Processor


class Examples:
    """Examples by (part, index). Safe from several threads once the buckets are set."""

    def __init__(
        self,
        parts: Sequence[Part],
        pictures: Pictures,
        ledger: Ledger,
        *,
        too_large: str = "error",
        on_error: str = "stop",
        decode: bool = False,
    ):
        """
        Args:
          too_large, on_error: as the settings `data.too_large` and `data.on_error` (`vlm_jax.training.config`).
          decode: decode every picture when it is measured, which finds truncated files; otherwise headers are read.
        """
        self.parts, self._pictures, self._ledger = list(parts), pictures, ledger
        self.too_large, self._on_error, self._decode = too_large, on_error, decode
        self.sizes = [np.full((len(part.source), 3), UNKNOWN, np.int64) for part in parts]
        """Of each part [n, 3]: tokens, patch slots, supervised positions; negative where unknown or left out."""
        self.visual = [np.full(len(part.source), LEFT_OUT, np.int64) for part in parts]
        """Of each part [n]: visual tokens; negative where not measured."""
        # How an example was made to fit: its own visual tokens at most, its own longest; 0 for the part's.
        self._budgets = [np.zeros(len(part.source), np.int32) for part in parts]
        self._cuts = [np.zeros(len(part.source), np.int32) for part in parts]
        self._limits: Int[np.ndarray, "buckets 3"] | None = None
        # By path, or by a digest of an embedded picture: the pictures themselves are not held.
        self._picture_sizes: dict[str, tuple[int, int]] = {}
        self._seen: dict[str, int] = {}
        self._texts: OrderedDict[tuple[int, int], Text] = OrderedDict()
        self._lock = threading.Lock()
        # Ids are compared only where all are read, in the order of the files: which of two is the second would
        # otherwise depend on where a run was gone on with.
        self._ids: set[tuple[int, int, str]] | None = None
        self._repeated: Counter[str] = Counter()  # by file, where that is no fault
        self.faults: list[str] = []
        """Of what was measured so far, as far as they stop the run."""

    def __len__(self) -> int:
        return sum(len(part.source) for part in self.parts)

    @property
    def picture_sizes(self) -> dict[str, tuple[int, int]]:
        """(width, height) in pixels of every picture that was measured, by path or digest."""
        return self._picture_sizes

    @property
    def visual_tokens(self) -> dict[str, int]:
        """How many visual tokens each picture was given when it was last measured."""
        return self._seen

    def measure(self, places: Int[np.ndarray, "n 2"]) -> Int[np.ndarray, "n 3"]:
        """Sizes of examples, made to fit once `set_buckets` was called; negative for those that are left out."""
        new = [
            (part, index)
            for part, index in dict.fromkeys(map(tuple, places.tolist()))
            if self.sizes[part][index, 0] == UNKNOWN
        ]
        if new:
            self._measure(new)
        sizes = np.stack([self.sizes[part][index] for part, index in places.tolist()])
        if self._limits is not None:
            over = (bucket_of(sizes, self._limits) < 0) & (sizes[:, 0] >= 0)
            for row in np.flatnonzero(over).tolist():
                part, index = places[row].tolist()
                if (self.sizes[part][index] == sizes[row]).all():  # else an equal place before it was made to fit
                    self._make_fit(part, index)
                sizes[row] = self.sizes[part][index]
        return sizes

    def measure_or_stop(self, places: Int[np.ndarray, "n 2"]) -> Int[np.ndarray, "n 3"]:
        """As `measure`, while a run goes on.

        Raises:
          InputError: an example fits no row, and that is an error.
        """
        sizes = self.measure(places)
        if self.faults:
            raise InputError(self.faults)
        return sizes

    def measure_all(self, progress: Callable[..., Iterable] = lambda chunks, **_: chunks) -> None:
        """Measures every example, and compares ids; raises nothing: see `faults`."""
        if self._ids is None and all((held == UNKNOWN).all() for held in self.sizes):
            self._ids = set()
        every = [
            np.stack([np.full(len(held), part), np.arange(len(held))], axis=1) for part, held in enumerate(self.sizes)
        ]
        places = np.concatenate(every)
        chunks = [places[start : start + 1024] for start in range(0, len(places), 1024)]
        for chunk in progress(chunks, total=len(chunks)):
            self.measure(chunk)
        for name, count in self._repeated.items():
            self._ledger.note(name, REPAIRED, "repeated id", repeated_ids(name, count), count=count)

    def set_buckets(self, limits: Sequence[Size]) -> None:
        """From now on examples are made to fit one of these rows, as `too_large` says."""
        self._limits = as_array(limits)

    def load(self, places: Sequence[tuple[int, int]]) -> list[Example | None]:
        """Examples; None for one that has become unreadable since it was measured, where that stops nothing.

        Raises:
          InputError: that, where it stops the run; or a worker process died.
        """
        wanted, plans = [], []
        results: list[Example | None] = []
        for part, index in places:
            try:
                record, text = self._record_and_text(part, index)
                grids = self._grids(part, index, record)
            except InputError as error:
                self._refuse(self.where(part, index), "unreadable", error.faults)
                plans.append(None)
                continue
            keys = list(zip(images_of(record), grids, strict=True))
            plans.append((part, index, record, text, keys))
            wanted += keys
        found = iter(self._pictures.patches(wanted))
        for plan in plans:
            if plan is None:
                results.append(None)
                continue
            part, index, record, text, keys = plan
            patches = [next(found) for _ in keys]
            faults = [fault for one in patches if isinstance(one, InputError) for fault in one.faults]
            if faults:
                self._refuse(record.where, "unreadable", [f"{record.where}: {fault}" for fault in faults])
                results.append(None)
                continue
            processor = self.parts[part].processor
            pictures = [processor.picture_of(one, grid) for one, (_, grid) in zip(patches, keys, strict=True)]
            cut = int(self._cuts[part][index]) or None
            results.append(processor.lay_out(text, pictures, longest=cut))
        return results

    def _measure(self, places: Sequence[tuple[int, int]]) -> None:
        records: dict[tuple[int, int], Record] = {}
        fresh: list[Record] = []  # with pictures that were not looked at yet
        for part, index in places:
            self.sizes[part][index] = LEFT_OUT
            try:
                record = self.parts[part].source[index]
                if self._ids is not None and (part, self._file(part, index), record.id) in self._ids:
                    self._note_repeated(part, index, record)
            except InputError as error:
                self._refuse(self.where(part, index), "record", error.faults)
                if self._on_error == "stop" and (named := self._images_of_refused(part, index)):
                    fresh.append(named)  # all faults are told in one run: its pictures' too
                continue
            if self._ids is not None:
                self._ids.add((part, self._file(part, index), record.id))
            records[part, index] = record
        fresh += [r for r in records.values() if any(_key(image) not in self._picture_sizes for image in images_of(r))]
        sizes, faults = check_images(fresh, decode=self._decode)
        self._picture_sizes |= {_key(image): size for image, size in sizes.items()}
        if self._on_error == "stop":
            self.faults += faults
        faulty = [image for image in dict.fromkeys(i for r in fresh for i in images_of(r)) if image not in sizes]
        told = {_key(image): fault.rpartition(" (used by ")[0] for image, fault in zip(faulty, faults, strict=True)}
        for (part, index), record in records.items():
            wrong = [key for key in map(_key, images_of(record)) if key not in self._picture_sizes]
            if wrong:
                if self._on_error == "drop":
                    self._refuse(record.where, "picture", [f"{record.where}: {told[key]}" for key in wrong])
                continue
            try:
                text = self.parts[part].processor.tokenize(record.messages)
                grids = self._grids(part, index, record)
                size = self.parts[part].processor.size(text, grids)
            except InputError as error:
                self._refuse(record.where, "conversation", [f"{record.where}: {fault}" for fault in error.faults])
                continue
            self._keep_text((part, index), text)
            self.sizes[part][index] = dataclasses.astuple(size)
            self._note_visual(part, index, record, grids)

    def _make_fit(self, part: int, index: int) -> None:
        size = Size(*self.sizes[part][index].tolist())
        record, text = self._record_and_text(part, index)
        where, largest = record.where, Size(*self._limits[-1].tolist())
        most = self.parts[part].processor.most_tokens
        least = "at least " if most is not None and size.tokens > 2 * most else ""  # more were not counted
        asked = (
            f"{where}: takes {least}{size.tokens} tokens, {size.patches} patch slots and {size.supervised} supervised "
            f"positions; the largest row holds {largest.tokens}, {largest.patches} and {largest.supervised}"
        )
        self.sizes[part][index] = LEFT_OUT
        if self.too_large == "error":
            # An error whatever becomes of unreadable records: too_large is a setting of its own.
            self.faults.append(
                f"{asked}: raise batch.tokens (or batch.patches, batch.supervised), allow longer rows by "
                "batch.context and batch.buckets, lower model.max_visual_tokens, or set data.too_large"
            )
            return
        if self.too_large == "shrink_images":
            fitted = self._shrunk(part, index, record, text)
            if fitted is not None:
                self.sizes[part][index] = dataclasses.astuple(fitted)
                self._note_visual(part, index, record, self._grids(part, index, record))
                reason = f"{asked}; its pictures have at most {self._budgets[part][index]} visual tokens each"
                self._ledger.note(where, REPAIRED, "pictures shrunk", reason)
                return
        elif self.too_large == "truncate_text":
            fitted = self._cut(part, index, record, text, min(size.tokens, largest.tokens))
            if fitted is not None:
                self.sizes[part][index] = dataclasses.astuple(fitted)
                lost = f"{asked}; its last {size.tokens - fitted.tokens} tokens are cut off"
                self._ledger.note(where, REPAIRED, "text cut", lost)
                return
        self._ledger.note(where, DROPPED, "too large", asked)

    def _shrunk(self, part: int, index: int, record: Record, text: Text) -> Size | None:
        """The size with the largest pictures that fit, or None where not even the smallest do."""
        processor = self.parts[part].processor
        low, high = processor.images.budget
        best = None
        while low <= high:
            budget = (low + high) // 2
            self._budgets[part][index] = budget
            size = processor.size(text, self._grids(part, index, record))
            if bucket_of(as_array([size]), self._limits)[0] >= 0:
                best, low = (size, budget), budget + 1
            else:
                high = budget - 1
        self._budgets[part][index] = 0 if best is None else best[1]
        return None if best is None else best[0]

    def _cut(self, part: int, index: int, record: Record, text: Text, most: int) -> Size | None:
        """The size with as much of the text as fits, or None: a cut that would go through a picture, or leave nothing
        to learn, is none."""
        processor, grids = self.parts[part].processor, self._grids(part, index, record)
        low, high, best = 1, most, None
        while low <= high:
            longest = (low + high) // 2
            try:
                size = processor.size(text, grids, longest=longest)
            except InputError:
                low = longest + 1
                continue
            if bucket_of(as_array([size]), self._limits)[0] >= 0:
                best, low = (size, longest), longest + 1
            else:
                high = longest - 1
        self._cuts[part][index] = 0 if best is None else best[1]
        return None if best is None else best[0]

    def _note_visual(self, part: int, index: int, record: Record, grids: Sequence[Grid]) -> None:
        counts = [self.parts[part].processor.images.tokens(grid) for grid in grids]
        self.visual[part][index] = sum(counts)
        self._seen |= dict(zip(map(_key, images_of(record)), counts, strict=True))

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
        processor, budget = self.parts[part].processor, int(self._budgets[part][index])
        if budget:
            least = min(budget, processor.images.budget[0])
            processor = processor.with_budget((max(1, least), budget))
        return [processor.grid(*self._picture_sizes[_key(image)]) for image in images_of(record)]

    def _record_and_text(self, part: int, index: int) -> tuple[Record, Text]:
        record = self.parts[part].source[index]
        text = self._texts.get((part, index))
        if text is None:
            text = self.parts[part].processor.tokenize(record.messages)
            self._keep_text((part, index), text)
        return record, text

    def _keep_text(self, key: tuple[int, int], text: Text) -> None:
        with self._lock:
            self._texts[key] = text
            while len(self._texts) > _TEXTS:
                self._texts.popitem(last=False)

    def _refuse(self, where: str, kind: str, faults: Sequence[str]) -> None:
        if self._on_error == "stop":
            if self._limits is not None:
                raise InputError(list(faults))  # training has begun: what was in order no longer is
            self.faults += faults
        for fault in faults:
            self._ledger.note(where, DROPPED, kind, fault)

    def _images_of_refused(self, part: int, index: int) -> Record | None:
        source = self.parts[part].source
        images = source.images(index) if hasattr(source, "images") else []
        content = [{"type": "image", "image": image} for image in images]
        return Record("", [{"role": "user", "content": content}], where=self.where(part, index)) if images else None

    def where(self, part: int, index: int) -> str:
        """A record that may be unreadable, as fault lines name it."""
        source = self.parts[part].source
        if hasattr(source, "identify"):
            return source.identify(index)[1]
        return f"{self.parts[part].name}, entry {index + 1}"


def _key(image: str | bytes) -> str:
    return image if isinstance(image, str) else f"embedded:{hashlib.blake2b(image, digest_size=16).hexdigest()}"
