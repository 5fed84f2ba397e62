"""A person's own images, without questions: found in folders and records, and known by the digest of their bytes.

Files stay where they are; what records hold inside themselves is written into the workdir. An image that cannot be read
or opened is left out with a note. What was found is kept in `images.jsonl`, so that a later start reads only what
changed.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipeline import sources
from data_pipeline.corpus.own_images import ending_of
from data_pipeline.marks import HALF_A_CHARACTER
from data_pipeline.records import Record, images_of
from data_pipeline.teachers.request import ImageFile
from vlm_jax import locations
from vlm_jax.checkpoint.files import write_text
from vlm_jax.errors import InputError

FOUND = "images.jsonl"
_MEDIA = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp"}


@dataclass(frozen=True)
class Image:
    """One image to be written about.

    Attributes:
      id: the first half of its digest.
      file: as a teacher is shown it.
      truth: question and answer that the data has about it, for MPA's files; None where it has none.
      number: what its questions are known by in the data, for MPA's files.
    """

    id: str
    file: ImageFile
    truth: tuple[str, str] | None = None
    number: int | str | None = None


def found(
    settings: Mapping[str, Any], workdir: Path, records: Sequence[Record] | None = None
) -> tuple[list[Image], list[str]]:
    """(the images, in the order of their digests; notes of those that cannot be used).

    Args:
      settings: `config.images`.
      workdir: where `images.jsonl` is kept, and images that lie in no file of their own.
      records: whose images are meant instead of those that the settings name.

    Raises:
      InputError: there are none that can be used, with the first reasons; or records that cannot be read.
    """
    known = _known(workdir / FOUND)
    lines: list[dict[str, Any]] = []
    images: dict[str, Image] = {}
    notes: list[str] = []
    for name, place, content, truth, number in _every(settings, records, notes):
        if HALF_A_CHARACTER.search(place):
            notes.append(f"{name}: has a name that is not UTF-8, which no file here can hold; rename it")
            continue
        try:
            line = _looked_at(place, content, known, workdir / "images")
        except OSError as error:
            notes.append(f"{name}: cannot be read ({error.strerror})")
            continue
        if line is None:
            notes.append(f"{name}: cannot be opened, or is no JPEG, PNG or WebP")
            continue
        lines.append(line)
        file = ImageFile(line["digest"], Path(line["path"]), _MEDIA[line["ending"]])
        images.setdefault(line["digest"], Image(line["digest"][:32], file, truth, number))
    if not images:
        where = settings["path"] or "the split to train on"
        raise InputError(
            [f"config.images.path: no image of {where} can be used", *(notes[:5] or [f"{where}: holds no images"])]
        )
    write_text(workdir / FOUND, "".join(json.dumps(line) + "\n" for line in lines))
    chosen = sorted(images, key=lambda digest: hashlib.sha256(f"most {digest}".encode()).digest())
    chosen = chosen[: settings["most"] or len(chosen)]
    return [images[digest] for digest in sorted(chosen)], notes


def _known(path: Path) -> dict[str, dict[str, Any]]:
    if not path.is_file():
        return {}
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {line["path"]: line for line in lines}


def _looked_at(
    place: str, content: bytes | None, known: Mapping[str, Mapping[str, Any]], folder: Path
) -> dict[str, Any] | None:
    """A line of `images.jsonl`; None of what is no image.

    Raises:
      OSError: the file cannot be read.
    """
    if content is not None:
        ending = ending_of(content)
        if not ending:
            return None
        digest = hashlib.sha256(content).hexdigest()
        path = folder / f"{digest}.{ending}"
        if not path.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(f".{path.name}.partial")
            partial.write_bytes(content)
            partial.replace(path)
        place = str(path)
    state = os.stat(place)
    version = [state.st_size, state.st_mtime_ns]
    earlier = known.get(place)
    if earlier is not None and earlier["version"] == version:
        os.close(os.open(place, os.O_RDONLY))  # it may not be read any more
        return dict(earlier)
    content = Path(place).read_bytes()
    ending = ending_of(content)
    if not ending:
        return None
    return {
        "path": place,
        "digest": hashlib.sha256(content).hexdigest(),
        "ending": ending,
        "version": version,
    }


_Entry = tuple[str, str, bytes | None, tuple[str, str] | None, int | str | None]
"""Name, path, bytes of one that lies in no file, and what the data asks about it under which number."""


def _every(settings: Mapping[str, Any], records: Sequence[Record] | None, notes: list[str]) -> Iterator[_Entry]:
    """All images that are meant; adds notes of folders that were not looked into."""
    if records is not None:
        yield from _of_records(records, "the split to train on")
        return
    for place in locations.named_in(settings["path"]):
        if not locations.is_remote(place) and Path(place).is_dir():
            files, told = _in_folder(place)
            if not files and told and not os.access(place, os.R_OK | os.X_OK):
                raise InputError(f"config.images.path: {place} cannot be read; give yourself permission to read it")
            notes += told
            for path in files:
                yield str(path.relative_to(place)), str(path.absolute()), None, None, None
            continue
        options: dict[str, Any] = {"format": settings["format"]}
        if settings["image_root"]:
            options["image_root"] = settings["image_root"]
        read, errors = sources.read(place, training=False, **options)
        if errors:
            raise InputError(errors)
        yield from _of_records(read, place)


def _in_folder(place: str) -> tuple[list[Path], list[str]]:
    """(files at any depth, links that lead nowhere among them; notes of folders that cannot be looked into)."""
    files, notes = [], []

    def unreadable(error: OSError) -> None:
        notes.append(f"{os.path.relpath(error.filename, place)}: cannot be read ({error.strerror})")

    for folder, names, own in os.walk(place, onerror=unreadable):
        names[:] = [name for name in names if not name.startswith(".")]  # thumbnails, and what programs keep there
        links = [name for name in names if os.path.islink(os.path.join(folder, name))]
        for name in links:
            path = os.path.relpath(os.path.join(folder, name), place)
            notes.append(f"{path}: is a link to a folder, which is not followed")
        files += [Path(folder, name) for name in own if not name.startswith(".") and not _is_special(folder, name)]
    return sorted(files), sorted(notes)


def _is_special(folder: str, name: str) -> bool:
    """Whether it is there and no file, such as a pipe that would be waited for."""
    path = Path(folder, name)
    try:
        return path.exists() and not path.is_file()
    except OSError:
        return False  # it is told when it is read


def _of_records(records: Sequence[Record], place: str) -> Iterator[_Entry]:
    shown = 0
    for record in records:
        for number, image in enumerate(images_of(record)):
            shown += 1
            name, truth = f"{record.where or record.id}, image {number}", _truth(record)
            if isinstance(image, bytes):
                yield name, "", image, truth, record.id
            elif locations.is_remote(image):
                yield name, "", locations.read_bytes(image), truth, record.id
            else:
                yield name, image, None, truth, record.id
    if records and not shown:
        raise InputError(
            f"config.images.path: {place} has {len(records):,} questions and no image; wanted a folder of images, or "
            "records that show some"
        )


def _truth(record: Record) -> tuple[str, str] | None:
    words = record.messages[0]["content"]
    if not isinstance(words, str):
        words = "".join(part["text"] for part in words if part["type"] == "text")
    answer = record.answers[0] if record.answers else None
    if answer is None and record.messages[-1]["role"] == "assistant":
        answer = str(record.messages[-1]["content"])
    return None if answer is None else (words, answer)
