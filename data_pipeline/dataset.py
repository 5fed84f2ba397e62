"""What a run learns from, in the order of its stages: parts → measure → fit → pack → load.

Training, validation and `scripts/inspect_data.py` share this one object. Each stage is a module that can be read alone:
`parts`, `measure`, `fit` with `buckets`, `packing`, `loader`.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from data_pipeline import identity, run_length
from data_pipeline.buckets import Costs, choose_buckets, examples_in
from data_pipeline.check import ALONE, Division
from data_pipeline.image_loader import ImageLoader
from data_pipeline.ledger import Ledger
from data_pipeline.loader import WHOLE, Batches, PlannedRows, Shard, make_loader
from data_pipeline.measure import UNKNOWN, Examples
from data_pipeline.measured import MeasuredSets, key_of
from data_pipeline.mixture import Component, Mixture
from data_pipeline.packing import WINDOW, Bucket, Course, Plan
from data_pipeline.parts import Part, open_parts
from vlm_jax import locations
from vlm_jax.errors import InputError
from vlm_jax.models.config import VLMConfig
from vlm_jax.processing.image_cache import NO_CACHE, ImageCache
from vlm_jax.processing.processor import Processor
from vlm_jax.processing.rows import Batch
from vlm_jax.processing.token_schedule import DRAWN, TokenSchedule

_SAMPLED_WINDOWS = 4  # that row sizes are chosen from, where not everything is measured first


class Dataset:
    """The data of a run.

    Attributes:
      parts: what it is made of.
      mixture: in which order their examples come.
      examples: what each takes of a row.
      ledger: what was left out or changed.
      images: decodes them.
      complete: whether every example is measured before the first step.
      sample: how many are looked at to choose row sizes, where not all of one part are.
      buckets: the shapes of its batches, once they are chosen.
      schedule: of visual tokens, where examples are shown with several budgets.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        settings: Mapping[str, Any],
        *,
        seed: int,
        complete: bool = True,
        sample: int = 0,
        ledger: Ledger | None = None,
        cache: ImageCache = NO_CACHE,
        schedule: TokenSchedule | None = None,
    ):
        """As `open_dataset`, of parts that are open; nothing is measured yet."""
        self.schedule = schedule
        self._budgets = () if schedule is None else schedule.budgets
        self.parts, self.ledger = list(parts), ledger or Ledger()
        self._seed, self._shuffle = seed, settings["shuffle"]
        self.images = ImageLoader(
            parts[0].processor.images, workers=settings["workers"], cache_bytes=settings["cache_mb"] * 2**20
        )
        count = sum(len(part.source) for part in parts)
        self.decodes = count <= settings["decode_check_up_to"]
        """Whether every image is decoded before the first step."""
        self.examples = Examples(
            parts,
            self.ledger,
            too_large=settings["too_large"],
            on_error=settings["on_error"],
            decode=self.decodes,
            cache=cache,
            budgets=self._budgets,
        )
        self.mixture = Mixture([part.component for part in parts], seed=seed, shuffle=settings["shuffle"])
        # Where a bad record stops the run all errors are known before the first step.
        self.complete = complete or settings["on_error"] == "stop"
        self.sample = sample or min(_SAMPLED_WINDOWS * WINDOW, count)
        self.buckets: list[Bucket] = []
        self._records: dict[str, Any] | None = None
        self._cache = cache

    @property
    def errors(self) -> list[str]:
        """Of what was measured so far, as far as they stop a run."""
        return self.examples.errors

    def measure(
        self,
        progress: Callable[..., Iterable] = lambda chunks, **_: chunks,
        division: Division = ALONE,
    ) -> None:
        """Measures all examples, or the sample. Raises nothing: see `errors`."""
        if self.complete:
            self.examples.measure_all(progress, division)
        else:
            places = self.mixture.take(0, self.sample)
            for budget in range(max(1, len(self._budgets))):
                self.examples.measure(places + [budget * len(self.parts), 0], division)

    @property
    def turns_of_an_epoch(self) -> tuple[int, ...]:
        """The `Course.turns` of one epoch, or of the sample where not all is measured."""
        count = self.mixture.examples if self.complete else self.sample
        return run_length.course_of(count, steps=0, epochs=1, schedule=self.schedule).turns

    def take(self, start: int, count: int, turns: Sequence[int] | None = None) -> Int[np.ndarray, "count 2"]:
        """Which examples the run shows from place `start` on: `Mixture.take`, with the budgets of the schedule.

        Args:
          turns: as of a `Course`; None: `turns_of_an_epoch`.
        """
        places = self.mixture.take(start, count)
        if self.schedule is not None:
            turns = self.turns_of_an_epoch if turns is None else turns
            places[:, 0] += len(self.parts) * self.schedule.at(start, count, turns)
        return places

    def measure_once(self, sets: MeasuredSets, progress: Callable[..., Iterable] = lambda chunks, **_: chunks) -> None:
        """As `measure`, in a process of its own, with what is known of this data from before."""
        known = {"seed": self._seed, "decode": self.decodes, "budgets": self._budgets}
        key = key_of(self.parts, **known) if self.complete else None
        beside = sets.restore(self.examples, key)
        if beside:
            self._records = beside["records"]
        self.measure(progress)
        if not beside and not self.errors and not self.ledger.counts:
            sets.keep(self.examples, key, self._cache, {"records": self.records()})

    def choose_buckets(self, batch: Mapping[str, int], model: VLMConfig, *, rows_multiple: int) -> list[Bucket]:
        """The shapes of batches of a run, from its settings, its data, and what the model costs a token and a patch.

        Raises:
          InputError: nothing to train on, patches that are no multiple of a window, or (where that stops a run) every
            example that fits no row.
        """
        sizes = self._sampled_sizes()
        if not len(sizes):
            raise InputError(self._nothing_left("can be trained on"))
        buckets = choose_buckets(
            sizes,
            rows=batch["rows"],
            tokens=batch["sequence_length"],
            max_sequence_length=max(batch["max_sequence_length"], batch["sequence_length"]),
            count=batch["buckets"],
            patches=batch["patches"],
            supervised=batch["supervised"],
            block_slots=model.vision.block_slots,
            rows_multiple=rows_multiple,
            costs=Costs.of(model, self.examples.budget),
            every=_usable(np.concatenate(self.examples.sizes)) if self.complete else None,
        )
        self.fit(buckets)
        return buckets

    def fit(self, buckets: Sequence[Bucket]) -> None:
        """Makes the examples fit shapes that are decided, as `data.too_large` says.

        Raises:
          InputError: where that stops a run, every example that fits no row; or none fits.
        """
        self.buckets = list(buckets)
        self.examples.set_buckets([bucket.size for bucket in buckets])
        self.measure()
        if self.errors:
            raise InputError(self.errors)
        if not len(_usable(np.concatenate(self.examples.sizes))):
            raise InputError(self._nothing_left(f"fits a row (data.too_large is {self.examples.too_large!r})"))

    def plan(
        self,
        *,
        steps: int,
        epochs: int,
        shuffle: bool | None = None,
        position: Mapping[str, Any] | None = None,
        before: tuple[int, int] | None = None,
    ) -> Plan:
        """The batches of a run of `steps`, or of so many epochs where steps is 0.

        Args:
          shuffle: instead of the setting: whether rows of a window are put into another order.
          position: of a run that goes on (`Batches.get_state`).
          before: the steps and epochs that it had, where they were others.
        """
        count = self.mixture.examples

        def plan(course: Course) -> Plan:
            return Plan(
                functools.partial(self.take, turns=course.turns),
                self.examples.measure_or_stop,
                self.buckets,
                seed=self._seed,
                shuffle=self._shuffle if shuffle is None else shuffle,
                **dataclasses.asdict(course),
                epoch=count,
            )

        def course_of(steps: int, epochs: int) -> Course:
            return run_length.course_of(
                count, steps=steps, epochs=epochs, schedule=self.schedule, examples_of=self._examples_of
            )

        requested = course_of(steps, epochs)
        if position is None:
            return plan(requested)
        if before is None or before == (steps, epochs):
            course = run_length.course_in(position["plan"], requested)
        else:
            earlier = run_length.course_in(position["plan"], course_of(*before))
            course = run_length.changed_course(plan, earlier, requested, position["plan"], position["next"])
        chosen = plan(course)
        chosen.restore(position["plan"])
        return chosen

    def batch_shapes(self) -> list[Batch]:
        """Padding in the shape of each bucket's batches, over all hosts: what the step is compiled for."""
        return [self.examples.row_spec(bucket.size).batch(bucket.rows) for bucket in self.buckets]

    def batches(self, plan: Plan, *, steps: int | None = None, threads: int = 4, shard: Shard = WHOLE) -> Batches:
        """An iterator over the batches of a plan, or over its first `steps`."""
        count = len(plan) if steps is None else steps
        rows = PlannedRows(self.examples, self.images, self.ledger, plan, count, shard)
        name = lambda place: self.examples.where(*place)  # noqa: E731
        return make_loader(rows, plan, name, epoch=self.mixture.examples, threads=threads)

    def records(self) -> dict[str, Any] | None:
        """The records in little (`identity`); None where there are too many, or not all were measured."""
        if self._records is None and self.complete:
            self._records = identity.written_down(self.parts, _words)
        return self._records

    def fingerprint(self) -> str:
        """Identifies the records: the parts' shares, and a sample of the words and of the images' sizes."""
        budgets = [part.processor.images.identity for part in self.parts]
        digest = hashlib.sha256(f"({_as_written_before(self.mixture.components)}, {budgets!r})".encode())
        for part in self.parts:
            # Of data on the hub: all that the files hold.
            digest.update("".join(getattr(part.source, "contents", ())).encode())
            count = len(part.source)
            for index in np.unique(np.linspace(0, count - 1, min(count, 256)).astype(int)).tolist():
                try:
                    record = part.source[index]
                except InputError:
                    continue
                digest.update(repr((record.id, [_words(message) for message in record.messages])).encode())
                weights = [(turn, one["weight"]) for turn, one in enumerate(record.messages) if "weight" in one]
                if weights:
                    digest.update(repr(weights).encode())
        return digest.hexdigest()[:16]

    def close(self) -> None:
        """Ends the processes that decode images."""
        self.images.close()

    def _examples_of(self, budget: int, steps: float) -> float:
        """How many examples with a budget of the schedule so many steps show, about."""
        places = self.mixture.take(0, _SAMPLED_WINDOWS * WINDOW)  # of little data, over and over
        sizes = self.examples.measure(places + [budget * len(self.parts), 0])
        return examples_in(_usable(sizes), self.buckets, steps) * len(sizes) / max(len(_usable(sizes)), 1)

    def _sampled_sizes(self) -> np.ndarray:
        """[n, 3] of what was measured and can be used, each example as often as the mixture shows it."""
        if self.schedule is not None:  # with each budget as often as it is to be
            places = self.mixture.take(0, self.sample)
            places[:, 0] += len(self.parts) * dataclasses.replace(self.schedule, order=DRAWN).at(0, self.sample)
            return _usable(self.examples.measure(places))
        if self.complete and len(self.parts) == 1:
            return _usable(self.examples.sizes[0])
        return _usable(self.examples.measure(self.mixture.take(0, self.sample)))

    def _nothing_left(self, what: str) -> list[str]:
        """The error lines of data without a usable example: how many were left out of which kind, and each reason."""
        names = ", ".join(part.name for part in self.parts)
        looked_at = sum(int((sizes[:, 0] != UNKNOWN).sum()) for sizes in self.examples.sizes)
        looked_at //= max(1, len(self._budgets))
        counts = self.ledger.summary() or "see the errors"
        return [f"{names}: no example {what}; of {looked_at:,} looked at: {counts}", *self.ledger.reasons()]


def open_dataset(
    settings: Mapping[str, Any],
    processor: Processor,
    *,
    seed: int,
    complete: bool = True,
    sample: int = 0,
    ledger: Ledger | None = None,
    cache: ImageCache = NO_CACHE,
    progress: Callable[..., Iterable] = lambda chunks, **_: chunks,
    division: Division = ALONE,
    sets: MeasuredSets | None = None,
    schedule: TokenSchedule | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Dataset:
    """Opens what `data` names and measures it; what is wrong with the records is in the `errors` of the result.

    Args:
      settings: the group `data` (`vlm_jax.training.config`).
      complete: measure every example now. It is also done where a bad record stops the run (`data.on_error`).
        Otherwise a sample is, and the rest while training runs.
      sample: how many examples; 0 for a few windows.
      cache: of what is known of images from before.
      progress: passes chunks on, and shows how far they are.
      division: of the images among processes that open the same data.
      sets: what was measured of whole data sets before.
      schedule: of visual tokens; None: all with the processor's own budget.
      say: called with a line where only the headers of images are looked at before the first step.

    Raises:
      InputError: files that cannot be opened.
    """
    parts = open_parts(settings, processor, seed=seed)
    dataset = Dataset(
        parts,
        settings,
        seed=seed,
        complete=complete,
        sample=sample,
        ledger=ledger,
        cache=cache,
        schedule=schedule,
    )
    if not dataset.decodes and (limit := settings["decode_check_up_to"]):
        say(
            f"{len(dataset.examples):,} examples are more than data.decode_check_up_to={limit:,}: only the headers of "
            "their images are read now; each is decoded as training comes to it"
        )
    if division.count == 1 and sets is not None:
        dataset.measure_once(sets, progress)
    else:
        # Processes that look at images together must do so at the same examples.
        dataset.measure(progress, division)
    return dataset


def remedy(count: int) -> str:
    """What may be done about records that cannot be used, instead of mending them."""
    return (
        f"or train without {'this record' if count == 1 else 'such records'}: --config.data.on_error=drop leaves out "
        "what cannot be used, and notes each with its reason in the run's ledger.jsonl"
    )


def _as_written_before(components: Sequence[Component]) -> str:
    """The components as fingerprints of earlier versions have them: their runs go on."""
    return repr(components).replace("Component(name=", "Part(name=")


def _usable(sizes: np.ndarray) -> np.ndarray:
    return sizes[(sizes >= 0).all(axis=1)]


def _words(message: Mapping[str, Any]) -> tuple[str, Any]:
    content = message["content"]
    if isinstance(content, str):
        return message["role"], content
    # Images by name and length: the set may move to another folder.
    return message["role"], [
        part.get("text")
        if part["type"] == "text"
        else len(part["image"])
        if isinstance(part["image"], bytes)
        else (Path(part["image"]).name, locations.size(part["image"]) if locations.is_file(part["image"]) else 0)
        for part in content
    ]
