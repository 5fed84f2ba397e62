"""Data sets on disk, read into records: `read` is all that other modules need.

Three forms are known: `llava` (conversations with `<image>` marks), `records` (this project's own) and `table`
(image, question, answer). Each may be a JSON list, JSON lines or, for the table, CSV: `containers` takes the file
apart, `llava` and `table` turn an entry into messages. The rules of a conversation are `data_pipeline.records`';
whether images exist and open is `data_pipeline.check`'s.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from data_pipeline.records import Record, from_json, images_named, json_type
from data_pipeline.sources import containers, llava, table
from vlm_jax.errors import InputError

# A converter gives the entry as `from_json` reads it, or raises InputError with faults that name no place.
_CONVERTERS: dict[str, Callable[[Mapping[str, Any], bool], Mapping[str, Any]]] = {
    "llava": llava.to_messages,
    "records": lambda entry, training: entry,
    "table": table.to_messages,
}
_KEYS = {"llava": "conversations", "records": "messages"}
FORMATS = ("auto", *_CONVERTERS)


def read(
    path: str | Path,
    *,
    format: str = "auto",
    image_root: str | Path | None = None,
    training: bool = True,
    refused: list[Record] | None = None,
) -> tuple[list[Record], list[str]]:
    """Reads a data set.

    Args:
      path: a `.json`, `.jsonl` or `.csv` file in UTF-8, with or without a byte order mark.
      format: one of `FORMATS`; `auto` decides from the extension and the keys of the entries.
      image_root: the folder that relative image paths start from; by default the file's own.
      training: every conversation must end with an answer. An evaluation set may end with the question.
      refused: takes, for each entry that is not among the records, a record with nothing but the images it names, so
        that `data_pipeline.check` can tell their faults in the same run.

    Returns:
      The records that are in order, and one line for each fault of the others: where it is and what to do. Images are
      not opened.

    Raises:
      InputError: the file cannot be read at all: missing, empty, not UTF-8, broken JSON, of an unknown format, a table
        without its columns, or an image root that is not a folder.
    """
    if format not in FORMATS:
        raise InputError(f"unknown format {format!r} for {path}; the formats are {', '.join(FORMATS)}")
    path = Path(path)
    root = path.parent if image_root is None else Path(image_root)
    entries = containers.read_entries(path)
    if not root.is_dir():
        raise InputError(f"{root}: the image root of {path} is not a folder{containers.did_you_mean(root)}")
    objects = [entry.value for entry in entries if isinstance(entry.value, Mapping)]
    if format == "auto":
        format = _detect(path, objects)
    if format == "table":
        table.check_columns(path, objects, training)
    elif objects and not any(_KEYS[format] in value for value in objects):
        raise InputError(
            f"{path}: no entry has {_KEYS[format]!r}, so it is not in the format {format!r}; "
            f"the first entry has {_keys(objects[0])}"
        )

    convert, absolute_root = _CONVERTERS[format], os.path.abspath(root)
    records: list[Record] = []
    faults: list[str] = []
    places: dict[str, str] = {}

    def keep_images(entry: containers.Entry, where: str) -> None:
        if refused is not None and isinstance(entry.value, Mapping):
            parts = [{"type": "image", "image": image} for image in images_named(entry.value, absolute_root)]
            refused.append(Record("", [{"role": "user", "content": parts}], where=where))

    for entry in entries:
        where = f"{path}, {entry.place}"
        if entry.fault is not None:
            faults.append(f"{where}: {entry.fault}")
            continue
        try:
            identifier, where = _identify(entry, where, path.stem)
            if (first := places.setdefault(identifier, entry.place)) != entry.place:
                raise InputError(f"the id {identifier!r} is already that of {first}; give each record its own")
            converted = {**convert(entry.value, training), "id": identifier}
        except InputError as error:
            faults += [f"{where}: {fault}" for fault in error.faults]
            keep_images(entry, where)
            continue
        try:
            records.append(from_json(converted, where=where, image_root=absolute_root, training=training))
        except InputError as error:
            faults += error.faults
            keep_images(entry, where)
    return records, faults


def doubled_ids(records: Iterable[Record]) -> list[str]:
    """A fault line for each record of several files whose id an earlier one has."""
    first: dict[str, Record] = {}
    return [
        f"{record.where}: the id {record.id!r} is already that of {first[record.id].where}"
        for record in records
        if first.setdefault(record.id, record) is not record
    ]


def _identify(entry: containers.Entry, where: str, stem: str) -> tuple[str, str]:
    """The id of an entry, and `where` with the id added if the file gives one."""
    if not isinstance(entry.value, Mapping):
        raise InputError(f"is {json_type(entry.value)} where an object is expected")
    given = entry.value.get("id")
    if given is None or given == "":
        return f"{stem}-{entry.number}", where
    if isinstance(given, bool) or not isinstance(given, (str, int)):
        raise InputError(f"the id is {json_type(given)}; it must be a text or a whole number")
    return str(given), f"{where} (id {str(given)!r})"


def _detect(path: Path, objects: list[Mapping[str, Any]]) -> str:
    """The form of the entries. With no entry to look at the choice does not matter: only faults are left to report."""
    if path.suffix.lower() in containers.CSV_SUFFIXES:
        return "table"
    if not objects:
        return "records"
    for value in objects:
        for form, key in _KEYS.items():
            if key in value:
                return form
        if len(set(value).intersection(table.COLUMNS)) >= 2:
            return "table"
    raise InputError(
        f"{path}: cannot tell its format: the first entry has {_keys(objects[0])}, but neither 'conversations' "
        "(llava), 'messages' (records) nor 'image', 'question', 'answer' (table)"
    )


def _keys(entry: Mapping[str, Any]) -> str:
    return ", ".join(repr(key) for key in list(entry)[:8]) or "no keys"
