"""Data sets on disk or in a store, read into records and written from them.

`open_source` gives a data set of any size as a sequence that is read as it is used, `read` all of its records at once,
`scan` one after the other with all errors gathered; `write` is the way back. A file is taken apart by what kind it is
(`opening`, and a module for each kind) and its entries are understood by what form they are in (`detection`, and a
module for each form). The rules of a conversation are `data_pipeline.records`'; whether images exist and open is
`data_pipeline.check`'s.
"""

import dataclasses
import difflib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from data_pipeline.records import Record
from data_pipeline.sources import containers
from data_pipeline.sources.chain import Chain
from data_pipeline.sources.columns import RenamedEntries
from data_pipeline.sources.detection import FORMS, detect
from data_pipeline.sources.forms import ANSWERS, Options
from data_pipeline.sources.opening import KINDS, folder_of, open_entries
from data_pipeline.sources.source import Source
from data_pipeline.sources.writing import WRITTEN, write
from vlm_jax import locations
from vlm_jax.errors import InputError, gathered

__all__ = ["ANSWERS", "FORMATS", "WRITTEN", "Chain", "Source", "open_source", "read", "read_several", "scan", "write"]

_OWN_ID = "give each record its own, or name the format if these are not this project's records"

FORMATS = ("auto", *FORMS, *KINDS)


def open_source(
    path: str | Path,
    *,
    format: str = "auto",
    image_root: str | Path | None = None,
    training: bool = True,
    answer: str = "majority",
    seed: int = 0,
    columns: Mapping[str, str] | None = None,
    question: str = "",
) -> Source:
    """Opens a data set without reading its records.

    Args:
      path: a file or folder, here or in a store (`gs://`). Also: VQAv2's `questions.json+annotations.json` (found
        beside the questions if they have their published names), a TFDS folder with `#split`, shards by a pattern
        with `*`, a data set on the hub (`hub.FORM`), which is downloaded.
      format: one of `FORMATS`, a form of entries or a kind of file; `auto` tells both from the extension and the keys.
      image_root: the folder that relative image paths start from; by default the file's own.
      training: every conversation must end with an answer. An evaluation set may end with the question.
      answer: where several answers are given, the one to train on: the `majority`'s, the `first`, or one `sampled`.
      seed: of the sampled answers.
      columns: our name to the column or key of the data that holds it, `{"image": "img_path"}`.
      question: asked by entries that ask nothing themselves: captions, and images in folders by class.

    Raises:
      InputError: the file cannot be read at all: missing, empty, not UTF-8, broken JSON, of an unknown or ambiguous
        format, without the keys of its format or a column that is named, without answers to train on, or an image root
        that is not a folder.
    """
    name = os.fspath(path)
    if format not in FORMATS:
        nearest = difflib.get_close_matches(format, FORMATS, n=1)
        raise InputError(
            f"unknown format {format!r} for {name}; the formats are {', '.join(FORMATS)}"
            + (f". Is {nearest[0]!r} meant?" if nearest else "")
        )
    if answer not in ANSWERS:
        raise InputError(f"unknown answer {answer!r} for {name}; the answer to train on is one of {', '.join(ANSWERS)}")
    with containers.opening(name):
        entries = open_entries(name, format if format in KINDS else "auto", question)
        root = entries.folder or folder_of(entries.path) if image_root is None else os.fspath(image_root)
    if image_root is not None and not locations.is_folder(root):
        raise InputError(f"{root}: the image root of {name} is not a folder{containers.did_you_mean(root)}")
    if columns or question:
        entries = RenamedEntries(entries, columns or {}, question)
    options = Options(name, locations.absolute(root), image_root is not None, training, answer, seed)
    form = format if format in FORMS else detect(entries)
    entries = FORMS[form].expanded(entries)
    return Source(entries, FORMS[form](entries, options), form, options)


def scan(
    source: Source, errors: list[str], refused: list[Record] | None = None, notes: list[str] | None = None
) -> Iterator[tuple[int, Record]]:
    """The records of a source that are in order, one after the other, each with its number.

    An id that an earlier record has is an error of this project's own records; in other programs' files it gets a
    number in brackets, which follows from the order of the file.

    Args:
      errors: takes one line for each error of the others.
      refused: takes, for each entry that is not among the records, a record with nothing but the images it names, so
        that `data_pipeline.check` can tell their errors in the same run.
      notes: takes one line on how many ids were made unique, if any were.
    """
    first: dict[str, int] = {}
    times: Counter[str] = Counter()
    for index in range(len(source)):
        record, wrong = None, []
        try:
            record = source[index]
            identifier, where = record.id, record.where
        except InputError as error:
            wrong += error.lines
            identifier, where = source.identify(index)
        if identifier is not None and (earlier := first.setdefault(identifier, index)) != index:
            if source.insists_on_ids:
                wrong.append(f"{where}: the id {identifier!r} is already that of {source.place(earlier)}; {_OWN_ID}")
            elif record is not None:
                record = dataclasses.replace(record, id=_free_id(identifier, times, first, index))
        if not wrong and record is not None:
            yield index, record
            continue
        errors += wrong
        if refused is not None and (images := source.images(index)):
            parts = [{"type": "image", "image": image} for image in images]
            refused.append(Record("", [{"role": "user", "content": parts}], where=where))
    if times and notes is not None:
        notes.append(repeated_ids(source.name, times.total()))


def repeated_ids(name: str, count: int, other: str = "an earlier record") -> str:
    """The line on ids of a file that are not unique."""
    are = "1 record has an id" if count == 1 else f"{count:,} records have ids"
    return f"{name}: {are} that {other} has; they are told apart by their order"


def _free_id(identifier: str, times: Counter[str], ids_in_use: dict[str, int], index: int) -> str:
    """The next id after one that is taken, which it takes."""
    while True:
        times[identifier] += 1
        free = f"{identifier} ({times[identifier] + 1})"
        if ids_in_use.setdefault(free, index) == index:
            return free


def read(
    path: str | Path,
    *,
    format: str = "auto",
    image_root: str | Path | None = None,
    training: bool = True,
    answer: str = "majority",
    seed: int = 0,
    columns: Mapping[str, str] | None = None,
    question: str = "",
    refused: list[Record] | None = None,
    notes: list[str] | None = None,
) -> tuple[list[Record], list[str]]:
    """Reads a data set whole.

    Args and errors are those of `open_source`; `refused` and `notes` are those of `scan`.

    Returns:
      The records that are in order, and one line for each error of the others: where it is and what to do. Images are
      not opened.
    """
    source = open_source(
        path,
        format=format,
        image_root=image_root,
        training=training,
        answer=answer,
        seed=seed,
        columns=columns,
        question=question,
    )
    errors: list[str] = []
    return [record for _, record in scan(source, errors, refused, notes)], errors


def read_several(names: Iterable[str | Path], notes: list[str], **options: Any) -> tuple[list[Record], list[str]]:
    """Reads several data sets whole, as one in which every id is unique.

    As within one file, an id that is given twice is an error of this project's own records alone; records of other
    programs' files get a number in brackets. Ours keep their ids wherever their file stands among the others.

    Args:
      notes: takes one line for each file on how many ids were made unique, if any were.
      options: the other arguments of `open_source`, for every data set.

    Returns:
      The records that are in order, in the order of the files, and one line for each error of the others and of the
      data sets that cannot be read at all.
    """
    errors: list[str] = []
    parts: list[tuple[Source, list[Record]]] = []
    for name in names:
        with gathered(errors):
            source = open_source(name, **options)
            parts.append((source, [record for _, record in scan(source, errors, notes=notes)]))
    ids_in_use: dict[str, int] = {}
    own = [record for source, part in parts if source.insists_on_ids for record in part]
    for number, record in enumerate(own):
        if (earlier := ids_in_use.setdefault(record.id, number)) != number:
            errors.append(f"{record.where}: the id {record.id!r} is already that of {own[earlier].where}; {_OWN_ID}")
    times: Counter[str] = Counter()
    number = len(own)
    for source, part in parts:
        if source.insists_on_ids:
            continue
        repeated = 0
        for place, record in enumerate(part):
            number += 1
            if ids_in_use.setdefault(record.id, number) != number:
                part[place] = dataclasses.replace(record, id=_free_id(record.id, times, ids_in_use, number))
                repeated += 1
        if repeated:
            notes.append(repeated_ids(source.name, repeated, "a record of another file"))
    return [record for _, part in parts for record in part], errors
