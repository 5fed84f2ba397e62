"""Which files of a data set's repository are a split, by the conventions of the datasets library.

First what the card (README.md) says under `configs:`, else what the files and their folders are called. Where that
leaves a choice, it is refused with the names to choose from. Error lines begin with `name`, the address without its
split.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from data_pipeline.sources import csv_files
from data_pipeline.sources.imagefolder import METADATA
from data_pipeline.sources.parquet_files import SUFFIXES as PARQUET_SUFFIXES
from data_pipeline.sources.webdataset_files import SUFFIXES as TAR_SUFFIXES
from vlm_jax.errors import InputError

LINE_SUFFIXES = (".jsonl", ".ndjson")
KINDS = {
    "parquet": PARQUET_SUFFIXES,
    "webdataset": TAR_SUFFIXES,
    "JSON lines": LINE_SUFFIXES,
    "JSON": (".json",),
    "CSV": csv_files.SUFFIXES,
}
SUFFIXES = tuple(suffix for suffixes in KINDS.values() for suffix in suffixes)
ON_DISK = "download it (`hf download --repo-type dataset`) and name the folder"
NOT_READ = f"no file in it is of a kind that is read ({', '.join(SUFFIXES)}); {ON_DISK}"
Splits = Mapping[str, Sequence[str]]
"""{split: its files}."""

_ABOUT = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "config.json", "croissant.json"}
_SHARD = re.compile(r"(?:.*/)?(?P<split>\w[\w.]*)-\d{5}-of-\d{5}(?:-[\w-]+)?\.\w+")
_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_READ = ("config_name", "data_files", "data_dir")
_ASIDE = ("default", "description", "features", "version", "license", "dataset_info")  # say nothing of how it is read


def kind_of(name: str, files: Sequence[str]) -> str:
    """The one kind, of `KINDS`, of some files.

    Raises:
      InputError: there are several, or one that is not read.
    """
    found: dict[str | None, str] = {}
    for file in files:
        kind = next((kind for kind, suffixes in KINDS.items() if file.lower().endswith(suffixes)), None)
        found.setdefault(kind, file)
    if None in found:
        raise InputError(f"{name}: {found[None]} is of no kind that is read from the hub ({', '.join(SUFFIXES)})")
    if len(found) > 1:
        examples = ", ".join(str(file) for file in found.values())
        raise InputError(
            f"{name}: has data of several kinds ({examples}); name the file, or several by a pattern with *"
        )
    return str(next(iter(found)))


def data_files(name: str, files: Sequence[str]) -> list[str]:
    """The files that hold data, by their names.

    Raises:
      InputError: they describe images that lie beside them.
    """
    shown = [file for file in files if not any(part.startswith((".", "_")) for part in file.split("/"))]
    chosen = [file for file in shown if file.lower().endswith(SUFFIXES) and file.rpartition("/")[2] not in _ABOUT]
    for file in chosen:
        if file.rpartition("/")[2] in (*METADATA, "metadata.parquet"):
            raise InputError(f"{name}: is an ImageFolder ({file}), which is read from a disk; {ON_DISK}")
    return chosen


def named_files(name: str, files: Sequence[str], pattern: str) -> list[str]:
    """The files that a pattern of the repository names: `**` passes through folders, `*` does not.

    Raises:
      InputError: there is none.
    """
    from fsspec.utils import glob_translate

    fits = re.compile(glob_translate(pattern.removeprefix("./").lstrip("/")))
    if found := [file for file in files if fits.match(file)]:
        return sorted(found)
    near = difflib.get_close_matches(pattern, files, n=1)
    raise InputError(f"{name}: has no file {pattern!r}" + (f"; did you mean {near[0]}?" if near else ""))


def configs_of(name: str, files: Sequence[str], card: Mapping[str, Any], config: str) -> Splits | None:
    """The splits of a config of the card; None where the card names no files.

    Args:
      config: its name; "" for the one that is the default, or the only one.

    Raises:
      InputError: it is not there, is one of several, or asks for what is not done here.
    """
    listed = card.get("configs")
    listed = [one for one in listed if isinstance(one, Mapping)] if isinstance(listed, list) else []
    if not listed:
        return None
    configs = {str(one.get("config_name", "default")): one for one in listed}
    if not config:
        defaults = [key for key, one in configs.items() if one.get("default") is True or key == "default"]
        if len(configs) > 1 and len(defaults) != 1:
            raise InputError(f"{name}: has the configs {_listed(configs)}; name one: {name}/{next(iter(configs))}")
        config = defaults[0] if len(defaults) == 1 else next(iter(configs))
    if config not in configs:
        raise InputError(f"{name}: has no config {config!r}; the configs are {_listed(configs)}")
    chosen = configs[config]
    if unknown := [str(key) for key in chosen if key not in (*_READ, *_ASIDE)]:
        raise InputError(
            f"{name}: the card's config {config!r} has {', '.join(map(repr, unknown))}, which is not read; name the "
            "files instead"
        )
    folder = str(chosen.get("data_dir") or "").strip("/")
    inside = [file for file in files if not folder or file.startswith(f"{folder}/")]
    if chosen.get("data_files") is None:
        return splits_by_name(name, data_files(name, inside))
    return {
        split: list(dict.fromkeys(f for one in patterns for f in named_files(name, files, _joined(folder, one))))
        for split, patterns in _patterns(name, config, chosen["data_files"]).items()
    }


def _joined(folder: str, pattern: str) -> str:
    return f"{folder}/{pattern}" if folder else pattern


def _patterns(name: str, config: str, value: Any) -> dict[str, list[str]]:
    """{split: patterns} from any of the ways in which `data_files` may be written."""
    if isinstance(value, list) and all(isinstance(one, Mapping) for one in value):
        value = {one.get("split", "train"): one.get("path") for one in value}
    by_split = value if isinstance(value, Mapping) else {"train": value}
    found = {str(split): [one] if isinstance(one, str) else one for split, one in by_split.items()}
    for patterns in found.values():
        if not (isinstance(patterns, list) and patterns and all(isinstance(one, str) for one in patterns)):
            raise InputError(
                f"{name}: the card's config {config!r} has 'data_files' that cannot be read; name the files"
            )
        if outside := [one for one in patterns if "://" in one or ".." in one.split("/")]:
            raise InputError(f"{name}: the card's config {config!r} names {outside[0]}, outside of the data set")
    return found


def splits_by_name(name: str, files: Sequence[str]) -> Splits:
    """Splits by what the files are called (`data/train-00000-of-00002.parquet`), or else the words in their paths.

    Where nothing names a split, all are `train`.

    Raises:
      InputError: a file could be of several splits, or some are of a split and others of none.
    """
    sharded = {file: match["split"] for file in files if (match := _SHARD.fullmatch(file))}
    if len(sharded) == len(files):
        return _turned(sharded)
    found: dict[str, str] = {}
    unclear = []
    for file in files:
        splits = _splits_in(file) if len(_splits_in(file)) < 2 else _splits_in(file.rpartition("/")[2])
        if len(splits) == 1:
            found[file] = splits[0]
        else:
            unclear.append(file)
    if not found:
        return {"train": sorted(files)}
    if unclear:
        raise InputError(
            f"{name}: cannot tell of which split {_listed(unclear)} is; name the file, or several by a pattern with *"
        )
    return _turned(found)


def _splits_in(path: str) -> list[str]:
    words = re.split(r"[-._ 0-9/]+", path.lower())
    return [split for split, synonyms in _WORDS.items() if any(word in synonyms for word in words)]


def _turned(split_of: Mapping[str, str]) -> Splits:
    splits: dict[str, list[str]] = {}
    for file in sorted(split_of):
        splits.setdefault(split_of[file], []).append(file)
    return splits


def converted(name: str, files: Sequence[str], config: str) -> Splits:
    """The splits of a config in the branch `refs/convert/parquet`, where files are `CONFIG/SPLIT/0000.parquet`.

    Raises:
      InputError: none is there, several are, or the hub has converted only a part.
    """
    configs: dict[str, dict[str, str]] = {}
    for file in files:
        parts = file.split("/")
        if len(parts) == 3 and file.lower().endswith(PARQUET_SUFFIXES):
            configs.setdefault(parts[0], {})[file] = parts[1]
    if not configs:
        raise InputError(f"{name}: {NOT_READ}")
    if not config and len(configs) > 1:
        raise InputError(f"{name}: has the configs {_listed(configs)}; name one: {name}/{next(iter(configs))}")
    config = config or next(iter(configs))
    if config not in configs:
        raise InputError(f"{name}: has no config {config!r}; the configs are {_listed(configs)}")
    return _turned(configs[config])


def split_of(name: str, splits: Splits, split: str) -> str:
    """The split that is meant.

    Raises:
      InputError: it is not there, or none is named and there are several.
    """
    if not split and len(splits) > 1:
        raise InputError(f"{name}: has the splits {_listed(splits)}; name one: {name}#{next(iter(splits))}")
    if split and split not in splits:
        raise InputError(f"{name.partition('#')[0]}: has no split {split!r}; the splits are {_listed(splits)}")
    return split or next(iter(splits))


def _listed(names: Any) -> str:
    shown = list(names)
    return ", ".join(shown[:12]) + (f" and {len(shown) - 12} more" if len(shown) > 12 else "")
