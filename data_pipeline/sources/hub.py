"""Data sets on the Hugging Face hub, by name: `hf://datasets/ORG/NAME[@REVISION][/CONFIG or /FILE][#SPLIT]`.

The revision becomes a commit first, and the files of the split are downloaded into the hub's cache. They are not read
over the network row by row: training reads in random order for many epochs, which would fetch a whole row group for
each image, every time. From the cache, workers and later runs read without the hub, and without any network.
"""

import dataclasses
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.sources import hub_splits
from data_pipeline.sources.containers import Entries, Entry, did_you_mean
from vlm_jax import hub
from vlm_jax.errors import InputError

SCHEME = "hf://"
FORM = "hf://datasets/ORG/NAME[@REVISION][/CONFIG or /FILE][#SPLIT]"
CONVERTED = "refs/convert/parquet"
_ID = r"(?P<repo>[A-Za-z0-9][\w.-]*/\w[\w.-]*)(?:@(?P<revision>refs/(?:convert|pr)/[^/#@\s]+|[^/#@\s]+))?"
_ADDRESS = re.compile(rf"hf://datasets/{_ID}(?:/(?P<inside>[^#]*))?(?:#(?P<split>[^#/\s]+))?")
_BARE = re.compile(rf"{_ID}(?:/(?P<inside>[\w.-]+))?#(?P<split>[\w.-]+)")
_VERSION = re.compile(r"\d+(\.\d+)+")
_IMAGES = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff")


@dataclass(frozen=True)
class Address:
    """What an address names.

    Attributes:
      base: `hf://datasets/ORG/NAME[@REVISION]`, as error lines begin.
      revision: None for the main branch.
      inside: a config, or a file or a pattern of files; "" for neither.
      split: "" for the only one.
    """

    base: str
    repo: str
    revision: str | None
    inside: str
    split: str

    @property
    def names_files(self) -> bool:
        return "*" in self.inside or "/" in self.inside or self.inside.lower().endswith(hub_splits.SUFFIXES)


@dataclass(frozen=True)
class Fetched:
    """The files of a split, on this machine.

    Attributes:
      path: the address with the commit: what error lines name.
      kind: one of `hub_splits.KINDS`.
      content: a digest of what the files hold.
      stem: what entries without an id are called by; it does not change with the commit.
    """

    path: str
    kind: str
    files: tuple[str, ...]
    content: str
    stem: str


def is_address(path: str) -> bool:
    """Whether a path names a data set on the hub: it begins with hf://, or is `ORG/NAME#SPLIT` and cannot be a path.

    It could be one where there is such a file or folder, or a folder ORG; where it begins like a path; and where its
    last part is a version (of a TFDS folder) or has the extension of a data file.
    """
    if path.startswith(SCHEME):
        return True
    return bool(_BARE.fullmatch(path)) and not _could_be_a_path(path)


def hint(path: str) -> str:
    """The end of the line about a file that is not there, where its name could be that of a data set; else ""."""
    if not re.fullmatch(_ID, path) or _could_be_a_path(path):
        return ""
    return f"; a data set on the hub is named hf://datasets/{path}"


def _could_be_a_path(path: str) -> bool:
    before = path.partition("#")[0]
    last = before.rpartition("/")[2]
    known = last.lower().endswith((*hub_splits.SUFFIXES, ".arrow", ".array_record"))
    there = os.path.exists(path) or os.path.exists(before) or os.path.isdir(before.partition("/")[0])
    return there or known or bool(_VERSION.fullmatch(last))


def parsed(path: str) -> Address:
    """
    Raises:
      InputError: it is no address of a data set.
    """
    match = (_ADDRESS if path.startswith(SCHEME) else _BARE).fullmatch(path)
    if match is None:
        raise InputError(f"{path}: is no address of a data set; it is {FORM}")
    revision = match["revision"]
    revision = revision and revision.replace("%2F", "/").replace("%2f", "/")
    base = f"{SCHEME}datasets/{match['repo']}" + (f"@{match['revision']}" if revision else "")
    address = Address(base, match["repo"], revision, (match["inside"] or "").strip("/"), match["split"] or "")
    if address.names_files and address.split:
        raise InputError(f"{path}: names files, which have no split; leave out #{address.split}")
    return address


def fetch(path: str) -> Fetched:
    """Downloads what an address names, or finds it in the cache.

    Raises:
      InputError: the hub does not give it, or it leaves open which files are meant.
    """
    address = parsed(path)
    near = "" if path.startswith(SCHEME) else did_you_mean(path.partition("#")[0])
    with hub.answering(path, address.repo, address.revision, kind="data set", local="file or folder", near=near):
        commit, tree, card = _listed(address)
        if address.names_files:
            files = hub_splits.named_files(address.base, list(tree), address.inside)
            return _downloaded(address, commit, tree, "", files)
        splits = _splits(address, list(tree), card)
        if not splits and address.revision is None:
            address = dataclasses.replace(address, revision=CONVERTED)
            commit, tree, _ = _converted(address)
            splits = hub_splits.converted(address.base, list(tree), address.inside)
        if not splits:
            raise InputError(f"{address.base}: {hub_splits.NOT_READ}")
        chosen = address.base + (f"/{address.inside}" if address.inside else "")
        split = hub_splits.split_of(chosen, splits, address.split)
        return _downloaded(address, commit, tree, split, splits[split])


def _splits(address: Address, files: Sequence[str], card: Mapping[str, Any]) -> hub_splits.Splits:
    """The splits that an address leaves; none where no file is of a kind that is read."""
    name, config = address.base, address.inside
    if address.revision == CONVERTED:
        return hub_splits.converted(name, files, config)
    if (splits := hub_splits.configs_of(name, files, card, config)) is not None:
        return splits
    found = hub_splits.data_files(name, files)
    if found and config:
        raise InputError(f"{name}: its card lists no configs, so there is no {config!r}; leave it out")
    return hub_splits.splits_by_name(name, found) if found else {}


def _converted(address: Address) -> tuple[str, Mapping[str, str], Mapping[str, Any]]:
    from huggingface_hub import errors

    try:
        return _listed(address)
    except errors.RevisionNotFoundError:
        raise InputError(f"{address.base}: {hub_splits.NOT_READ}") from None


def _listed(address: Address) -> tuple[str, Mapping[str, str], Mapping[str, Any]]:
    """The commit of a revision, {file: the id of its content}, and what the card says."""
    import huggingface_hub
    from huggingface_hub.repocard import metadata_load

    # Listing alone would not be kept for when the hub is away.
    folder = Path(
        huggingface_hub.snapshot_download(
            address.repo,
            repo_type="dataset",
            revision=address.revision,
            allow_patterns=["README.md", ".gitattributes"],
        )
    )
    listed = huggingface_hub.get_cached_repo_tree(address.repo, repo_type="dataset", revision=folder.name)
    try:
        card = metadata_load(folder / "README.md") if (folder / "README.md").is_file() else None
    except Exception as error:  # of YAML's, or that it is no object
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{address.base}: the card README.md cannot be read ({reason}); name the files") from None
    return folder.name, {file.path: file.blob_id for file in listed}, card or {}


def _downloaded(address: Address, commit: str, tree: Mapping[str, str], split: str, files: Sequence[str]) -> Fetched:
    import huggingface_hub

    kind = hub_splits.kind_of(address.base, files)
    patterns = [re.sub(r"([*?\[])", r"[\1]", file) for file in files]
    if kind not in ("parquet", "webdataset"):  # their images are files of their own, below the data
        for folder in dict.fromkeys(file.rpartition("/")[0] for file in files):
            patterns += [f"{folder}/*.{suffix}" if folder else f"*.{suffix}" for suffix in _IMAGES]
    snapshot = huggingface_hub.snapshot_download(
        address.repo, repo_type="dataset", revision=commit, allow_patterns=patterns
    )
    inside = address.inside
    if not address.names_files:  # the extension is read from it
        inside = "/".join(filter(None, [inside, f"{split}*{os.path.splitext(files[0])[1]}"]))
    digest = hashlib.sha256(repr([(file, tree[file]) for file in files]).encode())
    return Fetched(
        path=f"{SCHEME}datasets/{address.repo}@{commit}/{files[0] if len(files) == 1 else inside}",
        kind=kind,
        files=tuple(os.path.join(snapshot, *file.split("/")) for file in files),
        content=digest.hexdigest()[:16],
        stem="-".join(filter(None, [address.repo.rpartition("/")[2], "" if address.names_files else split])),
    )


class HubEntries(Entries):
    """The entries of a split's files, one file after the other."""

    def __init__(self, fetched: Fetched, parts: Sequence[Entries]):
        self.path, self.content, self._stem = fetched.path, fetched.content, fetched.stem
        self.folder = os.path.dirname(fetched.files[0])
        self.key, self.header, self.lists = parts[0].key, parts[0].header, parts[0].lists
        if len(parts) > 1 and any(part.key or part.lists for part in parts):
            raise InputError(f"{self.path}: {len(parts)} files that are objects with lists; name one of them")
        self._parts = list(parts)
        self._ends = np.cumsum([len(part) for part in parts])
        self._names = [os.path.basename(part.path) for part in parts]

    @property
    def stem(self) -> str:
        return self._stem

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Entry:
        number, within = self._inside(index)
        entry = self._parts[number][within]
        return Entry(index + 1, self.place(index), entry.value, entry.error)

    def place(self, index: int) -> str:
        number, within = self._inside(index)
        named = f"{self._names[number]}, " if len(self._parts) > 1 else ""
        return named + self._parts[number].place(within)

    def _inside(self, index: int) -> tuple[int, int]:
        number = int(np.searchsorted(self._ends, index, side="right"))
        return number, index - (int(self._ends[number - 1]) if number else 0)
