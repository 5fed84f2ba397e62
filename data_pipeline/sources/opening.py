"""Which kind of file a path is, told by its extension and, for a folder, by what lies in it.

What the entries in it mean is `detection`'s.
"""

import difflib
import fnmatch
import os
import re
from pathlib import Path

from data_pipeline.sources import csv_files, hub, hub_splits, json_files, vqa
from data_pipeline.sources.arrayrecord_files import MARKS, ArrayRecordEntries
from data_pipeline.sources.arrow_files import SUFFIXES as ARROW_SUFFIXES
from data_pipeline.sources.arrow_files import ArrowEntries, is_saved
from data_pipeline.sources.containers import Entries, did_you_mean, opening
from data_pipeline.sources.imagefolder import METADATA, ClassFolderEntries, ImageFolderEntries, classes_in
from data_pipeline.sources.parquet_files import SUFFIXES as PARQUET_SUFFIXES
from data_pipeline.sources.parquet_files import ParquetEntries
from data_pipeline.sources.tfds_folders import MARK as TFDS_MARK
from data_pipeline.sources.tfds_folders import TfdsEntries
from data_pipeline.sources.webdataset_files import SUFFIXES as TAR_SUFFIXES
from data_pipeline.sources.webdataset_files import WebDatasetEntries, expanded
from vlm_jax import locations
from vlm_jax.errors import InputError

KINDS = ("imagefolder", "parquet", "arrayrecord", "tfds", "arrow", "webdataset")
"""Kinds of file that may be asked for by name; JSON and CSV follow from the form that is asked for."""
LINE_SUFFIXES = (".jsonl", ".ndjson")
SUFFIXES = (".json", *LINE_SUFFIXES, *csv_files.SUFFIXES, *PARQUET_SUFFIXES, *ARROW_SUFFIXES, *TAR_SUFFIXES, MARKS[0])
_BEGINNINGS = {
    b"PAR1": ("a Parquet file", "correct its extension"),
    b"PK\x03\x04": ("a zip archive or an Excel sheet", "unpack it, or save the sheet as CSV"),
    b"\x1f\x8b": ("compressed with gzip", "unpack it"),
    b"\x89PNG": ("an image", "name the file that describes the images"),
    b"\xff\xd8\xff": ("an image", "name the file that describes the images"),
}
_CORPUS, _FINISHED = (".corpus", "run.json"), ("corpus.json", "manifest.json")
"""Files of a corpus folder that say that it is one, drawn or by teachers, and that it is whole."""
_SHARD = re.compile(r"[-.]\d{5}-of-\d{5}")


def open_entries(path: str, kind: str = "auto", question: str = "") -> Entries:
    """Opens a file or folder of any kind.

    Args:
      path: also `questions.json+annotations.json`; a corpus or a TFDS folder with `#split`, a corpus without for its
        train; several shards by a pattern (`train-*.parquet`); or a data set on the hub (`hub.FORM`).
      kind: one of `KINDS`, or anything else for what the path says.
      question: what is asked of images that lie in folders by class; "" for nothing.

    Raises:
      InputError: it is not there, empty, of no known kind, or not what its name says.
    """
    if hub.is_address(path):
        return _open_hub(path, kind)
    if kind == "auto" and (split := corpus_split(path)):
        return _open_text(split)
    if kind == "auto":
        kind = _kind(path)
    if kind == "text" and not locations.is_remote(path) and not os.path.exists(path) and (hint := hub.hint(path)):
        raise InputError(f"{path}: no such file{did_you_mean(path)}{hint}")
    if kind == "imagefolder":
        if not locations.is_folder(path):
            raise InputError(f"{path}: an ImageFolder is a folder with {' or '.join(METADATA)}{did_you_mean(path)}")
        if not any(name in locations.names_in(path) for name in METADATA) and (classes := classes_in(path)):
            return ClassFolderEntries(path, classes, question)
        return ImageFolderEntries(path)
    if kind == "tfds":
        return TfdsEntries(path)
    if kind == "webdataset":
        if "{" in path and not locations.is_file(path):
            return WebDatasetEntries(path, expanded(path))
        return WebDatasetEntries(path, _shards(path, TAR_SUFFIXES, together=True))
    if kind == "arrow":
        return ArrowEntries(path)
    if kind == "parquet":
        return ParquetEntries(path, _shards(path, PARQUET_SUFFIXES))
    if kind == "arrayrecord":
        return ArrayRecordEntries(path, _shards(path, MARKS))
    return _open_text(path)


def corpus_split(path: str) -> str:
    """The records file of a corpus folder that scripts/generate_corpus.py made, alone or with `#split`; "" of others.

    Raises:
      InputError: the corpus is not finished, or has no such split.
    """
    folder, _, split = path.partition("#") if "#" in path and not os.path.exists(path) else (path, "", "")
    if locations.is_remote(folder) or not any(os.path.isfile(f"{folder}/{mark}") for mark in _CORPUS):
        return ""
    if not any(os.path.isfile(f"{folder}/{name}") for name in _FINISHED):
        raise InputError(f"{folder}: is a corpus that is not finished; run scripts/generate_corpus.py on it again")
    file = f"{folder}/{split or 'train'}.jsonl"
    if not os.path.isfile(file):
        names = sorted(
            Path(name).stem for name in os.listdir(folder) if name.endswith(".jsonl") and name != "review.jsonl"
        )
        raise InputError(f"{path}: the corpus has no split {split or 'train'!r}; the splits are {', '.join(names)}")
    return file


def folder_of(path: str) -> str:
    """The folder that relative names in a data set start from."""
    folder = path.partition("#")[0] if "#" in path and not os.path.exists(path) else path
    return folder if locations.is_folder(folder) else locations.parent(folder)


def _kind(path: str) -> str:
    name = path.rstrip("/").rpartition("/")[2]
    if "#" in name and not os.path.exists(path) and not locations.is_remote(path):
        return "arrow" if is_saved(path.rpartition("#")[0]) else "tfds"
    if locations.is_folder(path):
        names = locations.names_in(path)
        fits = {
            "imagefolder": any(file in names for file in METADATA),
            "tfds": TFDS_MARK in names and not is_saved(path),
            "arrow": is_saved(path),
            "webdataset": any(_is_one(file, TAR_SUFFIXES) for file in names),
            "parquet": any(_is_one(file, PARQUET_SUFFIXES) for file in names),
            "arrayrecord": TFDS_MARK not in names and any(_is_one(file, MARKS) for file in names),
        }
        found = [kind for kind, fit in fits.items() if fit]
        if len(found) > 1:
            raise InputError(f"{path}: is a folder that fits {' and '.join(found)}; give the format")
        if not found and classes_in(path):
            return "imagefolder"
        if not found:
            raise InputError(f"{path}: is a folder; name the data file in it")
        return found[0]
    if "*" in name:
        found = [file for file in _names(locations.parent(path)) if fnmatch.fnmatch(file, name)]
        if not found:
            raise InputError(f"{path}: no file fits the pattern")
        name = found[0]
    if _is_one(name, PARQUET_SUFFIXES):
        return "parquet"
    if _is_one(name, TAR_SUFFIXES):
        return "webdataset"
    if _is_one(name, ARROW_SUFFIXES):
        return "arrow"
    return "arrayrecord" if _is_one(name, MARKS) else "text"


def _open_hub(path: str, kind: str) -> Entries:
    if kind in KINDS and kind not in hub_splits.KINDS:
        raise InputError(f"{path}: the format {kind!r} is read from a disk; {hub_splits.ON_DISK}")
    fetched = hub.fetch(path)
    if kind in KINDS and kind != fetched.kind:
        raise InputError(f"{path}: its files are {fetched.kind}, not {kind!r}; leave the format out")
    if fetched.kind == "parquet":
        return hub.HubEntries(fetched, [ParquetEntries(fetched.path, fetched.files)])
    if fetched.kind == "webdataset":
        return hub.HubEntries(fetched, [WebDatasetEntries(fetched.path, fetched.files)])
    return hub.HubEntries(fetched, [_open_text(file) for file in fetched.files])


def _open_text(path: str) -> Entries:
    questions, annotations = path, ""
    if ".json+" in path and not locations.is_file(path):
        questions, _, annotations = path.partition(".json+")
        questions += ".json"
    suffix = Path(questions).suffix.lower()
    known = (".json", *LINE_SUFFIXES, *csv_files.SUFFIXES)
    if suffix not in known and locations.is_file(questions):
        nearest = difflib.get_close_matches(suffix, SUFFIXES, n=1)
        raise InputError(
            f"{questions}: unknown extension {suffix!r}; data sets are read from {', '.join(SUFFIXES)}"
            + (f". Is {nearest[0]} meant?" if nearest else "")
        )
    _check_is_text(questions)
    if suffix in csv_files.SUFFIXES:
        return csv_files.open_rows(questions)
    if suffix in LINE_SUFFIXES:
        return json_files.open_lines(questions)
    entries = json_files.open_document(questions)
    if annotations and entries.key != "questions":
        raise InputError(
            f"{questions}: has no list of 'questions', so no annotations can be added to it; name it alone"
        )
    if entries.key == "questions" and "annotations" not in entries.lists:
        beside = vqa.annotations_beside(questions)
        annotations = annotations or (beside if beside and locations.is_file(beside) else "")
    if annotations:
        entries.lists = {**entries.lists, "annotations": json_files.open_document(annotations, ("annotations",))}
    return entries


def _is_one(name: str, marks: tuple[str, ...]) -> bool:
    """Whether a name has one of the extensions, also before the number of a shard."""
    return _SHARD.sub("", name.lower()).endswith(marks)


def _shards(path: str, marks: tuple[str, ...], *, together: bool = False) -> list[str]:
    """The files of a path: itself, those in the folder, or those that fit the pattern.

    Args:
      together: the files of a folder are one set whatever they are called.

    Raises:
      InputError: there are none, or those of several sets.
    """
    folder, _, pattern = path.rpartition("/")
    if locations.is_folder(path):
        folder, pattern = path.rstrip("/"), "*"
    elif "*" not in pattern:
        return [path]
    start = folder or ("/" if path.startswith("/") else ".")
    names = [name for name in _names(start) if fnmatch.fnmatch(name, pattern) and _is_one(name, marks)]
    if not names:
        raise InputError(f"{path}: no file with {' or '.join(marks)} is there")
    sets = list(dict.fromkeys(_SHARD.sub("", name) for name in names))
    if len(sets) > 1 and pattern == "*" and not together:
        raise InputError(
            f"{path}: holds several sets ({', '.join(sets[:8])}); name one, or the files of one by a pattern with *"
        )
    return [f"{folder}/{name}" if folder or path.startswith("/") else name for name in names]


def _names(folder: str) -> list[str]:
    return locations.names_in(folder) if locations.is_folder(folder) else []


def _check_is_text(path: str) -> None:
    """That a file called JSON or CSV does not begin like a file of another kind.

    Raises:
      InputError: it is not there, or does.
    """
    with opening(path), locations.open_binary(path) as file:
        start = file.read(16)
    for beginning, (what, advice) in _BEGINNINGS.items():
        if start.startswith(beginning):
            raise InputError(f"{path}: is {what} whatever its name says; {advice}")
