"""From files to batches: open the parts, measure, plan the rows, then a Grain pipeline that loads them.

What a batch holds is described in `vlm_jax.processing.rows`. A run's position in its data is one number and a small
plan, so that any number of threads, workers and hosts sees the same batches in the same order.
"""

import dataclasses
import difflib
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import grain
import numpy as np

from data_pipeline import identity, run_length, sources
from data_pipeline.buckets import Costs, choose_buckets
from data_pipeline.examples import UNKNOWN, Examples, Part
from data_pipeline.ledger import Ledger
from data_pipeline.mixture import Mixture
from data_pipeline.mixture import Part as Share
from data_pipeline.packing import WINDOW, Bucket, Course, Plan
from data_pipeline.pictures import Pictures
from data_pipeline.sources.columns import faults_of as columns_faults
from vlm_jax import locations
from vlm_jax.errors import InputError, gathered
from vlm_jax.models.config import VLMConfig
from vlm_jax.models.parameters import multiplications
from vlm_jax.processing.processor import Processor
from vlm_jax.processing.rows import Size, assemble, stack

_NAMED = 4  # batches that can still be named once they were given out
_LOST = 20  # batches in a row of which nothing can be read, before a run that leaves out faults stops
_SAMPLED_WINDOWS = 4  # that row sizes are chosen from, where not everything is measured first


PART = {"path": "", "weight": 1.0, "seed": 0, "max_visual_tokens": 0}
"""What a part of a mixture may say, beside `SHARED`; 0 visual tokens: the model's."""
SHARED = ("format", "image_root", "answer", "share", "columns", "question")
"""Settings of all data that a part may have otherwise."""


@dataclasses.dataclass
class Dataset:
    """What a run learns from, opened; measured as far as the settings ask for it before the first step."""

    examples: Examples
    mixture: Mixture
    ledger: Ledger
    pictures: Pictures
    complete: bool
    """Whether every example is measured."""
    sample: int
    """How many are looked at to choose row sizes, where not all of one part are."""


def nearest(key: str, known: Iterable[str]) -> str:
    """The end of a fault line about a key that is not known."""
    close = difflib.get_close_matches(key, list(known), n=1)
    return f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"


def _checked_part(name: str, given: Any, faults: list[str]) -> dict[str, Any]:
    """The settings of a part of a mixture that are in order; what is wrong with the others is added to `faults`."""
    place = f"config.data.mixture.{name}"
    if not isinstance(given, Mapping):
        faults.append(f"{place} is {given!r}; wanted settings such as {{'path': 'mine.jsonl', 'weight': 1.0}}")
        return {}
    known = [*PART, *SHARED]
    faults += [f"{place}: no setting {key!r}; " + nearest(key, known) for key in given if key not in known]
    sound = {key: value for key, value in given.items() if key in known}

    def want(key: str, good: Callable[[Any], bool], wanted: str) -> None:
        if key in sound and not good(sound[key]):
            faults.append(f"{place}.{key} is {sound.pop(key)!r}; wanted {wanted}")

    def whole(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and value >= 0

    want("path", lambda value: isinstance(value, str) and bool(value), "a file or folder")
    if "path" not in given:
        faults.append(f"{place}: no path; wanted a file or folder")
    want("weight", lambda value: isinstance(value, int | float) and not isinstance(value, bool), "a number above 0")
    want("seed", whole, "0 or more")
    want("max_visual_tokens", whole, "0 (the model's) or more")
    want("format", lambda value: value in sources.FORMATS, f"one of {', '.join(sources.FORMATS)}")
    want("image_root", lambda value: isinstance(value, str), "a folder")
    want("answer", lambda value: value in sources.ANSWERS, f"one of {', '.join(sources.ANSWERS)}")
    if "columns" in sound and (wrong := columns_faults(sound["columns"], f"{place}.columns")):
        faults += wrong
        del sound["columns"]
    want("question", lambda value: isinstance(value, str), "a text")
    want("share", lambda value: isinstance(value, int | float) and 0 < value <= 1, "a share above 0, up to 1")
    return sound


def open_parts(data: Mapping[str, Any], processor: Processor, *, seed: int) -> tuple[list[Part], list[Share]]:
    """Opens the parts that the settings name: `data.mixture`, or `data.path` as the only one.

    Args:
      seed: the run's, which chooses the records where `data.share` takes some of them.

    Raises:
      InputError: with the faults of all parts.
    """
    named = dict(data["mixture"]) or {"data": {"path": data["path"]}}
    parts, shares = [], []
    faults = columns_faults(data["columns"], "config.data.columns")
    if faults:
        raise InputError(faults)
    images = processor.images
    for name, given in named.items():
        defaults = {**PART, **{key: data[key] for key in SHARED}}
        settings = {**defaults, **_checked_part(name, given, faults)}
        if not settings["path"]:
            continue
        held = []
        for path in [settings["path"]] if Path(settings["path"]).exists() else settings["path"].split(","):
            with gathered(faults):
                held.append(
                    sources.open_source(
                        path.strip(),
                        format=settings["format"],
                        image_root=settings["image_root"] or None,
                        answer=settings["answer"],
                        seed=settings["seed"],
                        columns=settings["columns"],
                        question=settings["question"],
                    )
                )
        if held:
            chain = sources.Chain(held, share=settings["share"], seed=seed)
            budget = settings["max_visual_tokens"]
            least = max(1, min(budget, images.budget[0]))
            own = processor.with_budget((least, budget)) if budget else processor
            parts.append(Part(settings["path"] if len(named) == 1 else name, chain, own))
            shares.append(Share(name, len(chain), float(settings["weight"]), settings["seed"]))
    if faults:
        raise InputError(faults)
    return parts, shares


def open_dataset(
    data: Mapping[str, Any],
    processor: Processor,
    *,
    ledger: Ledger,
    complete: bool,
    seed: int,
    sample: int = 0,
    progress: Callable[..., Iterable] = lambda chunks, **_: chunks,
) -> tuple[Dataset, list[str]]:
    """Opens what `data` names (the settings of `vlm_jax.training.config`) and measures it.

    Args:
      complete: measure every example now. It is also done where a faulty record stops the run (`data.on_error`), so
        that all faults are known before the first step. Otherwise a sample is, and the rest while training runs.
      sample: how many examples; 0 for a few windows.

    Returns:
      The data set, and every fault of what was measured.
    """
    parts, shares = open_parts(data, processor, seed=seed)
    pictures = Pictures(
        processor.images,
        workers=data["workers"],
        cache_bytes=data["cache_mb"] * 2**20,
    )
    examples = Examples(
        parts,
        pictures,
        ledger,
        too_large=data["too_large"],
        on_error=data["on_error"],
        decode=data["decode_check"],
    )
    mixture = Mixture(shares, seed=seed, shuffle=data["shuffle"])
    complete = complete or data["on_error"] == "stop"
    sample = sample or min(_SAMPLED_WINDOWS * WINDOW, len(examples))
    if complete:
        examples.measure_all(progress)
    else:
        examples.measure(mixture.take(0, sample))
    return Dataset(examples, mixture, ledger, pictures, complete, sample), examples.faults


def measured_sizes(dataset: Dataset) -> np.ndarray:
    """[n, 3] of what was measured and can be used, each example as often as the mixture shows it."""
    held = dataset.examples.sizes
    if not dataset.complete or len(held) > 1:
        sizes = dataset.examples.measure(dataset.mixture.take(0, dataset.sample))
    else:
        sizes = held[0]
    return _usable(sizes)


def row_buckets(dataset: Dataset, batch: Mapping[str, int], model: VLMConfig, *, rows_multiple: int) -> list[Bucket]:
    """The shapes of batches of a run, from its settings, its data, and what the model costs a token and a patch.

    Raises:
      InputError: nothing to train on, patches that are no multiple of a window, or (where that stops a run) every
        example that fits no row.
    """
    sizes = measured_sizes(dataset)
    if not len(sizes):
        raise InputError(_nothing_left(dataset, "can be trained on"))
    buckets = choose_buckets(
        sizes,
        rows=batch["rows"],
        tokens=batch["tokens"],
        context=max(batch["context"], batch["tokens"]),
        count=batch["buckets"],
        patches=batch["patches"],
        supervised=batch["supervised"],
        block_slots=model.vision.block_slots,
        rows_multiple=rows_multiple,
        costs=Costs(*multiplications(model)),
        every=_usable(np.concatenate(dataset.examples.sizes)) if dataset.complete else None,
    )
    fit(dataset, buckets)
    return buckets


def fit(dataset: Dataset, buckets: Sequence[Bucket]) -> None:
    """Makes the examples fit shapes that are decided, as `data.too_large` says.

    Raises:
      InputError: where that stops a run, every example that fits no row; or none fits.
    """
    dataset.examples.set_buckets([bucket.size for bucket in buckets])
    if dataset.complete:
        dataset.examples.measure_all()
    else:
        dataset.examples.measure(dataset.mixture.take(0, dataset.sample))
    if dataset.examples.faults:
        raise InputError(dataset.examples.faults)
    if not len(_usable(np.concatenate(dataset.examples.sizes))):
        how = f"fits a row (data.too_large is {dataset.examples.too_large!r})"
        raise InputError(_nothing_left(dataset, how))


def _nothing_left(dataset: Dataset, what: str) -> list[str]:
    """The fault lines of a data set without a usable example: how many were left out of which kind, and each reason."""
    names = ", ".join(part.name for part in dataset.examples.parts)
    looked_at = sum(int((sizes[:, 0] != UNKNOWN).sum()) for sizes in dataset.examples.sizes)
    counts = dataset.ledger.summary() or "see the faults"
    return [f"{names}: no example {what}; of {looked_at:,} looked at: {counts}", *dataset.ledger.reasons()]


def remedy(count: int) -> str:
    """What may be done about records that cannot be used, instead of mending them."""
    return (
        f"or train without {'this record' if count == 1 else 'such records'}: --config.data.on_error=drop leaves out "
        "what cannot be used, and notes each with its reason in the run's ledger.jsonl"
    )


def _usable(sizes: np.ndarray) -> np.ndarray:
    return sizes[(sizes >= 0).all(axis=1)]


def plan_run(
    dataset: Dataset,
    buckets: Sequence[Bucket],
    *,
    steps: int,
    epochs: int,
    seed: int,
    shuffle: bool,
    position: Mapping[str, Any] | None = None,
    before: tuple[int, int] | None = None,
) -> Plan:
    """The batches of a run of `steps`, or of so many epochs where steps is 0.

    Args:
      position: of a run that goes on (`Batches.get_state`).
      before: the steps and epochs that it had, where they were others.
    """
    examples = dataset.mixture.examples

    def plan(course: Course) -> Plan:
        return Plan(
            dataset.mixture.take,
            dataset.examples.measure_or_stop,
            buckets,
            seed=seed,
            shuffle=shuffle,
            **dataclasses.asdict(course),
            epoch=examples,
        )

    asked = run_length.course_of(examples, steps=steps, epochs=epochs)
    if position is None:
        return plan(asked)
    if before is None or before == (steps, epochs):
        course = run_length.course_in(position["plan"], asked)
    else:
        held = run_length.course_of(examples, steps=before[0], epochs=before[1])
        held = run_length.course_in(position["plan"], held)
        course = run_length.changed_course(plan, held, asked, position["plan"], position["next"])
    chosen = plan(course)
    chosen.restore(position["plan"])
    return chosen


def records_of(dataset: Dataset) -> dict[str, Any] | None:
    """The records in little (`identity`); None where there are too many, or not all were measured."""
    return identity.written_down(dataset.examples.parts, _words) if dataset.complete else None


def fingerprint(dataset: Dataset) -> str:
    """Identifies the records of a data set: the parts' shares, and a sample of the words and of the pictures' sizes."""
    budgets = [part.processor.images.identity for part in dataset.examples.parts]
    digest = hashlib.sha256(repr((dataset.mixture.parts, budgets)).encode())
    for part in dataset.examples.parts:
        digest.update("".join(part.source.contents).encode())  # of the hub's: all that the files hold
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


def _words(message: Mapping[str, Any]) -> tuple[str, Any]:
    content = message["content"]
    if isinstance(content, str):
        return message["role"], content
    # Pictures by name and length: the set may move to another folder.
    return message["role"], [
        part.get("text")
        if part["type"] == "text"
        else len(part["image"])
        if isinstance(part["image"], bytes)
        else (Path(part["image"]).name, locations.size(part["image"]) if locations.is_file(part["image"]) else 0)
        for part in content
    ]


@dataclasses.dataclass(frozen=True)
class Shard:
    """Which rows of each batch this process loads."""

    index: int = 0
    count: int = 1


class Batches(grain.DatasetIterator):
    """Batches in order; its state is a number and from where the plan can be made again."""

    def __init__(
        self,
        loaded: grain.DatasetIterator,
        plan: Plan,
        count: int,
        name: Callable[[tuple[int, int]], str],
        examples: int,
    ):
        """`examples`: of an epoch."""
        super().__init__()
        self._loaded, self._plan, self._count, self._name = loaded, plan, count, name
        self._next = self._seen = 0
        self._examples = examples

    def __next__(self) -> dict[str, np.ndarray]:
        if self._next >= self._count:
            raise StopIteration
        batch = next(self._loaded)
        self._seen += sum(map(len, self._plan[self._next].rows))
        self._next += 1
        self._plan.let_go(self._next - _NAMED)
        return batch

    @property
    def epochs(self) -> float:
        """How often the data was seen by now."""
        return self._seen / self._examples

    def records(self, number: int) -> list[str]:
        """The records of one of the last few batches, as fault lines name them."""
        return [self._name(place) for row in self._plan[number].rows for place in row]

    def get_state(self) -> dict[str, Any]:
        plan = self._plan.state(self._next)
        return {"loaded": self._loaded.get_state(), "next": self._next, "seen": self._seen, "plan": plan}

    def set_state(self, state: dict[str, Any]) -> None:
        self._plan.restore(state["plan"])
        self._loaded.set_state(state["loaded"])
        self._next = state["next"]
        self._seen = state.get("seen", state["plan"]["window"] * WINDOW)  # earlier versions counted windows alone


def make_loader(
    dataset: Dataset,
    plan: Plan,
    steps: int,
    *,
    patch_values: int,
    merge_unit: int,
    threads: int = 4,
    shard: Shard = Shard(),
) -> Batches:
    """An iterator over `steps` batches. Each process gets its share of the rows of every batch, the same everywhere."""

    class Rows:
        """Planned batches as Grain reads them."""

        def __len__(self) -> int:
            return steps

        def __getitem__(self, number: int) -> dict[str, np.ndarray]:
            return load(plan[number])

    lost = 0  # batches in a row of which nothing could be read

    def load(planned) -> dict[str, np.ndarray]:
        nonlocal lost
        capacity = plan.buckets[planned.bucket].size
        local = len(planned.rows) // shard.count
        rows = planned.rows[shard.index * local : (shard.index + 1) * local]
        loaded = dataset.examples.load([place for row in rows for place in row])
        if loaded:
            lost = lost + 1 if all(example is None for example in loaded) else 0
        if lost >= min(_LOST, steps):
            raise InputError(
                [
                    f"nothing of {lost} batches in a row can be read; is the disk still there?",
                    *dataset.ledger.reasons(),
                ]
            )
        following = iter(loaded)
        held = [[example for example in (next(following) for _ in row) if example is not None] for row in rows]
        for row, examples in zip(rows, held, strict=True):
            if not sum((example.size for example in examples), Size(0, 0, 0)).fits(capacity):
                places = ", ".join(dataset.examples.where(*place) for place in row)
                raise InputError(
                    f"{places}: no longer fit the row they were planned into: the data is not what it was when the run "
                    "began; put it back, or begin a new run"
                )
        return stack([assemble(one, capacity, patch_values=patch_values, merge_unit=merge_unit) for one in held])

    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    loading = iter(grain.MapDataset.source(Rows()).to_iter_dataset(options))
    return Batches(loading, plan, steps, lambda place: dataset.examples.where(*place), dataset.mixture.examples)
