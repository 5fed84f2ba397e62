"""The records of a corpus folder as a reviewer meets them: texts, images, and why a filter doubted them.

Every image must lie in the folder, by its name and where links lead: the page serves nothing else. How records are
read is `data_pipeline.sources`'; which of them are shown is `order`'s.
"""

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipeline import sources
from data_pipeline.records import Record, images_of
from data_pipeline.review.content import language_of, texts_of
from data_pipeline.review.log import LOG
from data_pipeline.values import json_type, quoted
from vlm_jax import locations
from vlm_jax.checkpoint.files import read_json
from vlm_jax.errors import InputError, gathered

_NAME = re.compile(r"[\w-][\w.-]*")
_BEFORE = 8  # letters of a digest that make a key; more are taken until keys differ


@dataclass(frozen=True)
class Item:
    """One record under review.

    Attributes:
      key: names it in addresses of the page; letters and digits.
      flags: why filters doubt it; empty where they do not.
      stratum: (topic or fact, task, language), which a sample is balanced by.
      language: of the record as a whole; '' where it is not known.
    """

    key: str
    record: Record
    split: str
    flags: tuple[str, ...]
    fact: str
    topic: str
    language: str

    @property
    def stratum(self) -> tuple[str, str, str]:
        record = self.record
        return self.topic or record.fact_id or self.fact, record.task or "", self.language


def read_items(folder: str | Path) -> list[Item]:
    """Reads every `<split>.jsonl` of a corpus folder: those of its manifest, or all there are where it has none.

    Raises:
      InputError: no corpus of this machine; or with every error of every record: what `data_pipeline.records` refuses,
        an id given twice, a field of provenance of the wrong type, an image that is not in the folder.
    """
    folder = corpus_folder(folder)
    files = _files(folder)
    records: list[tuple[str, Record]] = []
    errors: list[str] = []
    places: dict[str, str] = {}
    for path in files:
        found, wrong = sources.read(path, format="records", image_root=folder, training=False)
        errors += wrong
        for record in found:
            if (earlier := places.setdefault(record.id, record.where)) != record.where:
                errors.append(f"{record.where}: the id {record.id!r} is already that of {earlier}; give each its own")
        records += [(record.split or path.stem, record) for record in found]
    root = Path(os.path.realpath(folder))
    items = []
    for (split, record), key in zip(records, _keys([record.id for _, record in records]), strict=True):
        with gathered(errors):
            items.append(_item(key, record, split, folder, root))
    if errors:
        raise InputError(errors)
    return items


def _files(folder: Path) -> list[Path]:
    manifest = folder / "manifest.json"
    splits = read_json(manifest).get("splits") if manifest.exists() else None
    if splits is not None and not (isinstance(splits, dict) and all(_NAME.fullmatch(name) for name in splits)):
        raise InputError(f"{manifest}: 'splits' must be an object of names of splits; make the corpus again")
    if splits is not None:
        files = [folder / f"{name}.jsonl" for name in sorted(splits)]
    else:
        files = sorted(path for path in folder.glob("*.jsonl") if path.name != LOG and not path.name.startswith("."))
    if not files:
        raise InputError(f"{folder}: holds no records; a corpus folder has a <split>.jsonl for each split, and images/")
    return files


def left_out(folder: Path) -> dict[str, bool]:
    """Ids of the records that the build of a corpus left out since reviewers rejected them, and whether a filter
    doubted each. None where there is no manifest, or one of a build that did not name them.

    Raises:
      InputError: the manifest cannot be read.
    """
    manifest = folder / "manifest.json"
    review = read_json(manifest).get("review") if manifest.exists() else None
    named = review.get("left_out", {}) if isinstance(review, dict) else {}
    lists = [named.get(name, []) for name in ("unflagged", "flagged")] if isinstance(named, dict) else [named]
    if not all(isinstance(ids, list) and all(isinstance(one, str) for one in ids) for ids in lists):
        raise InputError(f"{manifest}: 'left_out' of 'review' must hold two lists of ids; make the corpus again")
    return {identifier: bool(doubted) for doubted, ids in enumerate(lists) for identifier in ids}


def corpus_folder(folder: str | Path) -> Path:
    """Raises InputError where it is no folder of this machine."""
    if locations.is_remote(str(folder)):
        raise InputError(f"{folder}: is in a store; copy the corpus to a folder of this machine to review it")
    if not os.path.isdir(folder):
        raise InputError(f"{folder}: is not a folder; give the folder of a corpus")
    return Path(os.path.abspath(folder))


def is_inside(path: str | Path, folder: str | Path) -> bool:
    """Whether a file, followed through every link, lies below a folder. It need not exist."""
    return locations.below(os.path.realpath(path), os.path.realpath(folder)) is not None


def _item(key: str, record: Record, split: str, folder: Path, root: Path) -> Item:
    errors = []
    for image in images_of(record):
        if isinstance(image, bytes):
            continue
        name = quoted(os.path.relpath(image, folder), 200)
        if locations.below(image, str(folder)) is None:
            errors.append(f"the image {name} is not in the corpus; move it into images/")
        elif not is_inside(image, root):
            errors.append(f"the image {name} is a link out of the corpus; put the file in its place")
        elif os.path.exists(image) and not os.path.isfile(image):
            errors.append(f"the image {name} is a folder, a pipe or a device; put a file in its place")
    provenance = record.provenance or {}
    flags = provenance.get("flags", [])
    if not isinstance(flags, list) or not all(isinstance(flag, str) for flag in flags):
        errors.append(f"'flags' of 'provenance' must be a list of texts, not {json_type(flags)}")
        flags = []
    values: dict[str, Any] = {name: provenance.get(name) or "" for name in ("fact", "topic", "language")}
    errors += [
        f"'{name}' of 'provenance' must be a text, not {json_type(value)}"
        for name, value in values.items()
        if not isinstance(value, str)
    ]
    if errors:
        raise InputError([f"{record.where}: {error}" for error in errors])
    values["language"] = values["language"] or language_of(texts_of(record).question)
    return Item(key, record, split, tuple(flags), **values)


def _keys(ids: Sequence[str]) -> list[str]:
    digests = [hashlib.sha256(one.encode("utf-8", "surrogatepass")).hexdigest() for one in ids]
    length = _BEFORE
    while len({digest[:length] for digest in digests}) < len(set(digests)):
        length += 4
    return [digest[:length] for digest in digests]
