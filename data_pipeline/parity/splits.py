"""Splits of MPA's four data sets, by whole images: what is trained on, what is watched meanwhile, what is tested.

The official files are read by `data_pipeline.sources`; what a model is asked of a split, and how an answer is scored,
is `vlm_jax.evaluation.benchmarks`'.
"""

import dataclasses
import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_pipeline.records import Record, images_of, write_records
from vlm_jax import locations
from vlm_jax.errors import InputError, gathered


@dataclass(frozen=True)
class Splits:
    """Records by split, each about one image, which is in one split only.

    Raises:
      InputError: with a line for each image that is in two splits.
    """

    train: list[Record]
    dev: list[Record]
    test: list[Record]

    def __post_init__(self) -> None:
        first: dict[str, str] = {}
        both: dict[str, str] = {}
        for split, records in self.named().items():
            for record in records:
                for image in images_of(record):
                    name = _identity(image)
                    if (earlier := first.setdefault(name, split)) != split:
                        both.setdefault(name, f"the image {name} is in {earlier} and in {split}; leave it out of one")
        if both:
            raise InputError(list(both.values()))

    def named(self) -> dict[str, list[Record]]:
        """{split: records}, empty ones too."""
        return {"train": self.train, "dev": self.dev, "test": self.test}


@dataclass(frozen=True)
class Rule:
    """How a data set is split.

    Attributes:
      benchmark: the data set in `vlm_jax.evaluation.benchmarks`, which has the form of its files and where its images
        are.
      files: those that are split, read together.
      test: the share of their images that is set aside first; 0 where the test set is a file of its own.
      dev: the share of the images that are left.
      one_question_an_image: of the train split.
      official_test: the split of the benchmark that is the test set; "" where there is none with answers.
      tested_on: the test set in words.
    """

    benchmark: str
    files: tuple[str, ...]
    test: float
    dev: float
    one_question_an_image: bool
    official_test: str
    tested_on: str

    def make(self, records: Sequence[Record], seed: int, official_test: Sequence[Record] = ()) -> Splits:
        """`make` by this rule."""
        return make(
            records,
            test=self.test,
            dev=self.dev,
            one_question_an_image=self.one_question_an_image,
            seed=seed,
            official_test=official_test,
        )


SPLITS: Mapping[str, Rule] = {
    "textvqa": Rule(
        benchmark="textvqa",
        files=("TextVQA_0.5.1_train.json",),
        test=0.0,
        dev=0.15,
        one_question_an_image=False,
        official_test="val",
        tested_on="the official validation split, TextVQA_0.5.1_val.json: 5,000 questions",
    ),
    "stvqa": Rule(
        benchmark="stvqa",
        files=("train_task_1.json",),
        test=0.15,
        dev=0.15,
        one_question_an_image=True,
        official_test="",
        tested_on="15 % of the training images of task 1, all of their questions: the official test has no answers",
    ),
    # That train and val are one set here, and 15 % of it dev, is ours: MPA's paths have the images of both in one
    # folder, train-val, and no share is published.
    "chartqa": Rule(
        benchmark="chartqa",
        files=("train_human.json", "train_augmented.json", "val_human.json", "val_augmented.json"),
        test=0.0,
        dev=0.15,
        one_question_an_image=True,
        official_test="test",
        tested_on="the official test split, test_human.json and test_augmented.json: 2,500 questions",
    ),
    "okvqa": Rule(
        benchmark="okvqa",
        files=("OpenEnded_mscoco_train2014_questions.json",),
        test=0.0,
        dev=0.15,
        one_question_an_image=False,
        official_test="val",
        tested_on="the official validation split, OpenEnded_mscoco_val2014_questions.json: 5,046 questions",
    ),
}
"""{data set: its rule}, after MPA: 85:15 of the training images, twice where the test set is taken from them too."""


def make(
    records: Sequence[Record],
    *,
    test: float,
    dev: float,
    one_question_an_image: bool,
    seed: int,
    official_test: Sequence[Record] = (),
) -> Splits:
    """Splits records by whole images.

    Which images a split gets follows from the seed and the images' names alone: not from the order of the records,
    nor from the folder that the data set lies in. An image is known by its path, or by its content where the record
    holds it. A share is one of images, rounded, halves up. Within a split, records stay in the order they came in.

    Args:
      test: the share of the images that is set aside first; 0 where the test set is a file of its own.
      dev: the share of those that are left, which does not change the test split.
      one_question_an_image: the train split keeps one question of each image, picked by a hash of the seed, the
        image's name and the question's words, as no one has said which MPA keeps. dev and test keep all.
      official_test: the test set, where it is a file of its own.

    Returns:
      Splits of the same records, with images by their whole paths.

    Raises:
      InputError: all together, with a line each: a share that is not between 0 and 1, shares that do not sum to less
        than 1, a record without an image or with several, an id that is there twice, an image of the official test
        set that is split as well. Then, a split that gets no image although it has a share.
    """
    errors = _errors_in_shares(test, dev)
    if test and official_test:
        errors.append(f"test is {test}, and there is an official test set too; set test to 0, or leave that set out")
    by_image = _by_image(records, errors)
    aside = [record for group in _by_image(official_test, errors).values() for record in group]
    if not records:
        errors.append("there are no records to split")
    if errors:
        raise InputError(errors)

    names = _names(by_image)
    ranked = sorted(by_image, key=lambda image: (_digest(seed, names[image]), image))
    test_count = _count(test, len(ranked))
    dev_count = _count(dev, len(ranked) - test_count)
    _check_counts({"test": (test, test_count), "dev": (dev, dev_count)}, len(ranked))
    ends = (test_count, test_count + dev_count)
    groups = {"test": ranked[: ends[0]], "dev": ranked[ends[0] : ends[1]], "train": ranked[ends[1] :]}
    split = {name: [record for image in images for record in by_image[image]] for name, images in groups.items()}
    if one_question_an_image:
        split["train"] = [
            min(by_image[image], key=lambda record: (_digest(seed, names[image], _question(record)), record.id))
            for image in groups["train"]
        ]
    place = {record.id: number for number, record in enumerate(records)}
    ordered = {name: sorted(kept, key=lambda record: place[record.id]) for name, kept in split.items()}
    place = {record.id: number for number, record in enumerate(official_test)}
    return Splits(ordered["train"], ordered["dev"], ordered["test"] or sorted(aside, key=lambda one: place[one.id]))


def write(splits: Splits, folder: str | Path) -> dict[str, Path]:
    """Writes each split that has records to `train.jsonl`, `dev.jsonl` and `test.jsonl`; older ones are replaced.

    Images that are files are named by their whole paths, but relative to the folder where they lie below it.

    Returns:
      {split: its file}, of those that are written.

    Raises:
      InputError: a split has no records and its file is there, of an earlier call or of somebody else; nothing is
        written then.
      OSError: the folder cannot be made or written.
    """
    paths = {name: Path(folder) / f"{name}.jsonl" for name in splits.named()}
    if stale := [paths[name] for name, records in splits.named().items() if not records and paths[name].exists()]:
        raise InputError([f"{path}: is there, and this split has no records; remove the file" for path in stale])
    written = {name: records for name, records in splits.named().items() if records}
    for name, records in written.items():
        write_records(paths[name], records)
    return {name: paths[name] for name in written}


def _errors_in_shares(test: float, dev: float) -> list[str]:
    shares = {"test": test, "dev": dev}
    errors = [
        f"the share {name} is {share}; it must be at least 0 and below 1"
        for name, share in shares.items()
        if not 0 <= share < 1
    ]
    if not errors and test + dev >= 1:
        errors.append(f"the shares test {test} and dev {dev} sum to {test + dev:g}; they must sum to less than 1")
    return errors


def _check_counts(shares: Mapping[str, tuple[float, int]], images: int) -> None:
    of = f"{images:,} image{'s' if images != 1 else ''}"
    errors = [
        f"{name}: a share of {share} of {of} is none; give more images, or a larger share"
        for name, (share, count) in shares.items()
        if share and not count
    ]
    if sum(count for _, count in shares.values()) == images:
        taken = " and ".join(f"{name} {count}" for name, (_, count) in shares.items())
        errors.append(f"train: none of {of} is left ({taken}); give more images, or smaller shares")
    if errors:
        raise InputError(errors)


def _count(share: float, images: int) -> int:
    return math.floor(share * images + 0.5)


def _by_image(records: Iterable[Record], errors: list[str]) -> dict[str, list[Record]]:
    """The records about each image, which they name by its whole path; adds a line for each that is not about one."""
    found: dict[str, list[Record]] = defaultdict(list)
    ids: Counter[str] = Counter()
    for record in records:
        where = record.where or f"record {record.id!r}"
        ids[record.id] += 1
        with gathered(errors):
            images = images_of(record)
            if len(images) != 1:
                shown = f"shows {len(images)} images" if images else "shows no image"
                raise InputError(f"{where}: {shown}; what is split are questions about one image each")
            found[_identity(images[0])].append(_with_whole_path(record))
    errors += [f"the id {id!r} is that of {times} records; give each its own" for id, times in ids.items() if times > 1]
    return found


def _identity(image: str | bytes) -> str:
    """What an image is known by: its whole path, or a digest of the file that a record holds."""
    if isinstance(image, bytes):
        return f"sha256:{hashlib.sha256(image).hexdigest()}"
    return locations.join(locations.absolute(image), ".")


def _with_whole_path(record: Record) -> Record:
    messages = []
    for message in record.messages:
        content = message["content"]
        if not isinstance(content, str):
            content = [
                {**part, "image": _identity(part["image"])}
                if part["type"] == "image" and isinstance(part["image"], str)
                else part
                for part in content
            ]
        messages.append({**message, "content": content})
    return dataclasses.replace(record, messages=messages)


def _question(record: Record) -> str:
    texts = []
    for message in record.messages:
        if message["role"] == "user":
            content = message["content"]
            parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
            texts += [part["text"] for part in parts if part["type"] == "text"]
    return "\n".join(texts)


def _names(images: Collection[str]) -> dict[str, str]:
    """{image: the shortest end of its path that no other image's path has}: what stays when a data set is moved."""
    names: dict[str, str] = {}
    remaining, length = list(images), 1
    while remaining:
        ends: dict[str, list[str]] = defaultdict(list)
        for image in remaining:
            ends["/".join(image.split("/")[-length:])].append(image)
        names |= {group[0]: end for end, group in ends.items() if len(group) == 1}
        remaining = [image for group in ends.values() if len(group) > 1 for image in group]
        length += 1
    return names


def _digest(seed: int, *texts: str) -> str:
    text = "\0".join((str(seed), *texts))
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()
