"""WebDataset shards: tar files whose members are samples, those of one basename together, read without unpacking.

An index of where each member lies is made once from the tar's headers; a sample is then a few reads at random. Of a
sample, `.json` gives the keys, images become `image` (or `images`, where the JSON has that key), `.txt` and `.cls`
are columns of these names, and `question.txt` is the column `question`. Data is never written to disk.
"""

import bisect
import itertools
import os
import re
import tarfile
from collections.abc import Mapping, Sequence
from typing import Any

from data_pipeline.sources import json_files
from data_pipeline.sources.containers import ByteRanges, Entries, Entry, opening
from vlm_jax import locations
from vlm_jax.errors import InputError

SUFFIXES = (".tar",)
IMAGES = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm")
TEXTS = ("txt", "cls")
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_MEMBER = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)")
_IS_THE_IMAGE = re.compile(r"(?:images?|imgs?)?[._-]?\d*")
"""What may stand before the extension of a sample's image: another name is another column, such as a mask."""

Member = tuple[str, int, int]
"""Extension in lower case; first byte and the byte after the last in the tar."""


def expanded(path: str) -> list[str]:
    """The names of a pattern such as `shard-{000..003}.tar`; numbers keep their width."""
    match = _RANGE.search(path)
    if match is None:
        return [path]
    first, last = int(match[1]), int(match[2])
    if last < first:
        raise InputError(f"{path}: the range {match[0]} ends before it begins")
    numbers = (f"{number:0{len(match[1])}}" for number in range(first, last + 1))
    return [name for number in numbers for name in expanded(path[: match.start()] + number + path[match.end() :])]


class WebDatasetEntries(Entries):
    """The samples of one shard or of several in order."""

    def __init__(self, path: str, files: Sequence[str]):
        """
        Raises:
          InputError: a shard is missing, no tar, only a part of one, compressed, or holds what is no sample.
        """
        self.path, self._files = path, list(files)
        self._ranges = [ByteRanges(file) for file in self._files]
        self._samples: list[tuple[str, tuple[Member, ...]]] = []
        counts, errors = [], []
        for file in self._files:
            try:
                samples = _samples_of(file)
            except InputError as error:
                errors += error.lines
                continue
            self._samples += samples
            counts.append(len(samples))
        if errors:
            raise InputError(errors)
        if not self._samples:
            raise InputError(f"{path}: holds no entries")
        self._ends = list(itertools.accumulate(counts))

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Entry:
        key, members = self._samples[index]
        ranges = self._ranges[bisect.bisect_right(self._ends, index)]
        try:
            return Entry(index + 1, self.place(index), _value(key, members, ranges))
        except InputError as error:
            return Entry(index + 1, self.place(index), error=str(error))

    def place(self, index: int) -> str:
        file = self._files[bisect.bisect_right(self._ends, index)]
        return f"{os.path.basename(file)}, " * (len(self._files) > 1) + f"sample {self._samples[index][0]!r}"


def _samples_of(file: str) -> list[tuple[str, tuple[Member, ...]]]:
    """(basename, members) of each sample of a shard."""
    members: list[tuple[str, Member]] = []
    errors = []
    with opening(file), locations.open_binary(file) as content:
        length = content.seek(0, 2)
        content.seek(0)
        if not length:
            raise InputError(f"{file}: is empty (0 bytes); copy it again")
        if content.read(2) == b"\x1f\x8b":
            raise InputError(f"{file}: is compressed with gzip, so samples cannot be read at random; gunzip it")
        content.seek(0)
        try:
            with tarfile.open(fileobj=content, mode="r:") as tar:
                for member in tar:
                    name = member.name
                    if member.isdir() or os.path.basename(name).startswith((".", "__")):
                        continue
                    match = _MEMBER.fullmatch(name)
                    if not member.isreg() or member.issparse() or match is None:
                        what = "has no extension" if match is None else "is no regular file"
                        errors.append(f"{file}: its member {name!r} {what}; leave it out of the shard")
                        continue
                    end = member.offset_data + member.size
                    if end > length:
                        raise tarfile.ReadError("unexpected end of data")
                    members.append((match[1], (match[2].lower(), member.offset_data, end)))
        except tarfile.TarError as error:
            raise InputError(f"{file}: is no tar file, or a part of one; copy it again ({error})") from None
    if errors:
        raise InputError(errors)
    grouped = itertools.groupby(members, key=lambda item: item[0])
    return [(key, tuple(member for _, member in group)) for key, group in grouped]


def _value(key: str, members: Sequence[Member], ranges: ByteRanges) -> dict[str, Any]:
    """A sample as the forms read it."""
    value: dict[str, Any] = {}
    texts, images = {}, []
    for extension, start, end in members:
        column, _, kind = extension.rpartition(".")
        if kind in IMAGES and not _IS_THE_IMAGE.fullmatch(column):
            raise InputError(
                f"holds a .{extension} beside what is read; its images are .{kind}, or numbered (0.{kind}, 1.{kind}): "
                f"leave it out of the shard, or call it .{kind} if it is the image"
            )
        if kind in IMAGES:
            images.append(ranges.read(start, end))
        elif extension == "json":
            value = _json(ranges.read(start, end))
        elif kind in TEXTS:
            try:
                texts[column or kind] = ranges.read(start, end).decode("utf-8").strip()
            except UnicodeDecodeError:
                raise InputError(f"its .{extension} is not UTF-8; save it as UTF-8") from None
        else:
            raise InputError(
                f"holds a .{extension}; of a sample {', '.join(('json', *TEXTS, *IMAGES))} are read: leave it out"
            )
    doubled = [name for name in texts if name in value]
    if doubled:
        raise InputError(f"has {', '.join(map(repr, doubled))} in its .json and as a file; keep one")
    value = {"id": key, **value, **texts}
    if images:
        where = "images" if "images" in value else "image"
        named = value.get(where)
        count = len(named) if isinstance(named, list) else len(images) if named in (None, "") else 1
        if count != len(images):
            raise InputError(f"names {count} images in its .json and holds {len(images)}; they must be the same")
        value[where] = images if where == "images" or len(images) > 1 else images[0]
    return value


def _json(content: bytes) -> dict[str, Any]:
    try:
        value = json_files.parse(content.decode("utf-8-sig"))
    except (InputError, UnicodeDecodeError) as error:
        raise InputError(f"its .json is broken ({error})") from None
    if not isinstance(value, Mapping):
        raise InputError("its .json is no object")
    return dict(value)
