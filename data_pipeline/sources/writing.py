"""Records written in the formats that others train from.

A file appears whole or not at all. Each record is read back as it is written, by the same code that reads the format,
and must come out equal: what a format cannot hold is reported, never dropped. Reading is `data_pipeline.sources`; the
project's own JSON lines are also written by `data_pipeline.records`, without the reading back.
"""

import dataclasses
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipeline.records import TEXT_FIELDS, Record, from_json, images_of
from data_pipeline.sources import (
    arrayrecord_files,
    arrow_rows,
    imagefolder,
    llava,
    openai,
    parquet_files,
    sharegpt,
    table,
    text_writers,
)
from data_pipeline.sources.containers import Entries, Entry
from data_pipeline.sources.detection import FORMS
from data_pipeline.sources.forms import Form, Options
from vlm_jax import locations
from vlm_jax.errors import InputError
from vlm_jax.processing.images import describe


@dataclass(frozen=True)
class _Format:
    """How records become a file.

    Attributes:
      suffix: of the file's name; "" for a folder.
      to_entry: the entry of a record, its images as they are in the record.
      writer: takes the path and is given entries, then closed.
      form: what reads the entries.
      images: "inside" where the file holds them, "named" where it only names them, "either" as is asked for.
      hint: what the format loses.
    """

    suffix: str
    to_entry: Callable[[Record], dict[str, Any]]
    writer: Callable[[str], Any]
    form: str
    images: str
    hint: str = ""
    read_entry: Callable[[dict[str, Any]], Mapping[str, Any]] = dict


def _messages(record: Record) -> dict[str, Any]:
    return {"id": record.id, "messages": record.messages}


_MARKS = "blanks and line breaks beside an image, and lists of texts, are not kept"
_CELLS = "blanks at the ends of a cell are not kept"
_FORMATS = {
    "records": _Format(".jsonl", _messages, text_writers.Lines, "records", "either"),
    "openai": _Format(".jsonl", openai.to_entry, text_writers.Lines, "openai", "either"),
    "llava": _Format(".json", llava.to_entry, text_writers.List, "llava", "named", _MARKS),
    "sharegpt": _Format(".json", sharegpt.to_entry, text_writers.List, "sharegpt", "named", _MARKS),
    "table": _Format(".csv", table.to_row, text_writers.CommaSeparated, "table", "named", _CELLS),
    "imagefolder": _Format("", imagefolder.to_row, imagefolder.ImageFolderWriter, "table", "inside", _CELLS),
    "parquet": _Format(
        ".parquet",
        parquet_files.to_row,
        parquet_files.ParquetWriter,
        "sharegpt",
        "inside",
        read_entry=arrow_rows.plain_row,
    ),
    "arrayrecord": _Format(".array_record", _messages, arrayrecord_files.ArrayRecordWriter, "records", "inside"),
}
WRITTEN = tuple(_FORMATS)
"""The formats that can be written."""


def write(path: str | Path, records: Iterable[Record], *, format: str, embed: bool = False) -> None:
    """Writes records, one after the other: they may come from a generator.

    Images below the file's folder are named relative to it, others by their whole path; encoded files that are
    embedded stay as they are. Texts that follow each other in one message may come back as one.

    Args:
      path: the file, with the extension of its format; a folder for `imagefolder`. An older file is replaced, a folder
        must be empty or new.
      format: one of `WRITTEN`.
      embed: `records` and `openai` only: images go into the file, as data URIs. `parquet`, `arrayrecord` and
        `imagefolder` always hold the images.

    Raises:
      InputError: with an error for each record that the format cannot hold or whose image cannot be read; an id that
        is there twice; no records; an extension that would not be read again. Then nothing is written.
      OSError: the folder cannot be made or written.
    """
    name = os.fspath(path)
    file_format = _format(name, format, embed)
    target = Path(name)
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = locations.absolute(target if format == "imagefolder" else target.parent)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial{file_format.suffix}")
    errors: list[str] = []
    try:
        writer = file_format.writer(str(partial))
        try:
            reading = _ReadBack(file_format, folder)
            written, ids = 0, set()
            for record in records:
                where = record.where or f"record {record.id!r}"
                try:
                    if record.id in ids:
                        raise InputError(f"the id {record.id!r} is already that of another record; give it its own")
                    ids.add(record.id)
                    entry = _entry(record, file_format, folder, embed)
                    reading.check(record, entry, format)
                except InputError as error:
                    errors += [f"{where}: {line.removeprefix(f'{where}: ')}" for line in error.lines]
                    continue
                if not errors:
                    writer.write(entry)
                    written += 1
        finally:
            writer.close()
        if errors:
            raise InputError(errors)
        if not written:
            raise InputError(f"{name}: there are no records to write")
        if partial.is_file():
            with open(partial, "rb") as file:
                os.fsync(file.fileno())
        os.replace(partial, target)
    finally:
        if partial.is_dir():
            shutil.rmtree(partial)
        partial.unlink(missing_ok=True)


def _format(name: str, format: str, embed: bool) -> _Format:
    if format not in _FORMATS:
        raise InputError(f"unknown format {format!r} to write {name}; the formats are {', '.join(WRITTEN)}")
    file_format = _FORMATS[format]
    if locations.is_remote(name):
        raise InputError(f"{name}: records are written to a disk only; write them there and copy the file")
    if file_format.suffix and Path(name).suffix != file_format.suffix:
        raise InputError(f"{name}: {format} is written to a file that ends in {file_format.suffix}; name it so")
    if embed and file_format.images == "named":
        raise InputError(f"{name}: {format} names images by their paths; only records and openai can embed them")
    if file_format.suffix == "" and os.path.isdir(name) and os.listdir(name):
        raise InputError(f"{name}: the folder is not empty; remove it or name another")
    if file_format.suffix == "" and os.path.isfile(name) or file_format.suffix and os.path.isdir(name):
        raise InputError(f"{name}: is a {'file' if os.path.isfile(name) else 'folder'} already; name another")
    return file_format


def _entry(record: Record, file_format: _Format, folder: str, embed: bool) -> dict[str, Any]:
    if file_format.images == "named" and any(isinstance(image, bytes) for image in images_of(record)):
        raise InputError(
            "shows an embedded image, and this format names images by their paths; write it as records, openai, "
            "parquet, arrayrecord or imagefolder"
        )
    inside = file_format.images == "inside" or embed
    shown = _with_images(record, _embedded if inside else lambda image: _relative(image, folder))
    fields = {name: getattr(record, name) for name in ("answers", *TEXT_FIELDS, "provenance")}
    return {**file_format.to_entry(shown), **{name: value for name, value in fields.items() if value is not None}}


def _with_images(record: Record, change: Callable[[str | bytes], str | bytes]) -> Record:
    messages = []
    for message in record.messages:
        content = message["content"]
        if not isinstance(content, str):
            content = [
                {**part, "image": change(part["image"])} if part["type"] == "image" else part for part in content
            ]
        messages.append({**message, "content": content})
    return dataclasses.replace(record, messages=messages)


def _relative(image: str | bytes, folder: str) -> str | bytes:
    return image if isinstance(image, bytes) else locations.below(image, folder) or image


def _embedded(image: str | bytes) -> bytes:
    try:
        return image if isinstance(image, bytes) else locations.read_bytes(image)
    except InputError:
        raise
    except Exception as error:  # a store's client raises what it likes
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise InputError(f"the image {describe(image)} cannot be read ({reason})") from None


class _ReadBack:
    """Reads each entry as it will be read from the file, and compares."""

    def __init__(self, file_format: _Format, folder: str):
        self._file_format, self._folder = file_format, folder
        self._forms: dict[bool, Form] = {}

    def check(self, record: Record, entry: dict[str, Any], format: str) -> None:
        training = record.messages[-1]["role"] == "assistant"
        row = self._file_format.read_entry(entry)
        if training not in self._forms:
            options = Options("", self._folder, False, training, "first", 0)
            self._forms[training] = FORMS[self._file_format.form](_SingleEntry(row), options)
        converted = {**self._forms[training](row), "id": entry["id"]}
        where = record.where or f"record {record.id!r}"
        back = from_json(converted, where=where, image_root=self._folder, training=training)
        lost = [
            name
            for name in ("messages", "answers", *TEXT_FIELDS, "provenance")
            if _comparable(name, back, self._file_format) != _comparable(name, record, self._file_format)
        ]
        if lost:
            hint = f" ({self._file_format.hint})" if self._file_format.hint else ""
            raise InputError(
                f"{format} cannot hold its {', '.join(lost)} without a change{hint}; write it as records or arrayrecord"
            )


class _SingleEntry(Entries):
    """An entry that is not in a file yet."""

    def __init__(self, entry: Mapping[str, Any]):
        self._entry = entry

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Entry:
        return Entry(1, "entry 1", self._entry)


def _comparable(name: str, record: Record, file_format: _Format) -> Any:
    if name != "messages":
        return getattr(record, name) or None
    turns = []
    for message in record.messages:
        content = message["content"]
        parts: list[tuple[str, Any]] = []
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            if part["type"] == "image":
                # What is embedded comes back as bytes; that they are those of the file needs no second reading.
                parts.append(("image", None if file_format.images != "named" else part["image"]))
            elif parts and parts[-1][0] == "text":
                parts[-1] = ("text", parts[-1][1] + part["text"])
            elif part["text"]:
                parts.append(("text", part["text"]))
        turns.append((message["role"], parts, message.get("weight", 1)))
    return turns
