"""A person's own images as items of a corpus: a folder with image files, or records of any form that show some.

Each is copied into the corpus under the digest of its bytes, so that one that is there twice is asked about once.
"""

import hashlib
import io
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import PIL.Image

from data_pipeline import sources
from data_pipeline.corpus import splits
from data_pipeline.corpus.stages.stage import Item, Settings
from data_pipeline.corpus.stages.topics import plain
from data_pipeline.records import images_of
from vlm_jax import locations
from vlm_jax.errors import InputError

ENDINGS = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp"}
"""Of the kinds of image that teachers are shown; what is of another kind is left out."""


def items(settings: Settings, target: Path) -> tuple[list[Item], list[str]]:
    """(an item for each image, in the order of their digests; notes of those that cannot be used).

    Args:
      target: the corpus's folder of images, into which they are copied.

    Raises:
      InputError: there are none, or records that cannot be read.
    """
    found: dict[str, Item] = {}
    notes = _not_followed(Path(settings["context"]["images"]))
    for name, source, content in _contents(settings["context"]["images"]):
        path = _kept(content, target)
        if path is None:
            notes.append(f"{name}: {_unusable(content)}")
            continue
        digest = path.stem
        source = settings["context"]["image_source"] or source
        share = settings["context"]["held_out"]
        split = splits.split_of(digest, {"test": share, "train": 1 - share}, settings["seed"])
        found.setdefault(
            digest,
            {"id": f"image-{digest[:16]}", "image": path.name, "image_source": source, "file": name, "split": split},
        )
    if not found:
        reasons = notes[:5] or [f"{settings['context']['images']}: holds no images"]
        raise InputError(["config.context.images: no image can be used", *reasons])
    return [found[digest] for digest in sorted(found)], notes


def of_topics(
    settings: Settings, topics: Sequence[Item], chosen: Collection[str], target: Path
) -> tuple[list[Item], list[str]]:
    """(an item of the split photo for each real image of a chosen topic; notes of what cannot be used).

    Args:
      topics: all that there are, which folders in `config.held_out.photographs` are named as: by name or id.
      chosen: ids of those that are gone on with.
      target: as of `items`.

    Raises:
      InputError: no folder is named as a topic.
    """
    place = Path(settings["held_out"]["photographs"])
    by_name = {
        plain(name): topic for topic in topics for name in (topic["local_name"], topic["name"], topic["id"]) if name
    }
    folders = sorted(path for path in place.iterdir() if path.is_dir() and not path.name.startswith("."))
    known = {folder: by_name[plain(folder.name)] for folder in folders if plain(folder.name) in by_name}
    if not known:
        raise InputError(
            f"config.held_out.photographs: {place} holds no folder that is named as a topic, such as "
            f"{topics[0]['name']!r}; --until=topics makes the topics, in stages/01-topics.jsonl"
        )
    notes = [f"{folder.name}: is no topic of this corpus" for folder in folders if folder not in known]
    found: dict[str, Item] = {}
    for folder, topic in known.items():
        for name, _, content in _contents(str(folder)) if topic["id"] in chosen else ():
            path = _kept(content, target)
            if path is None:
                notes.append(f"{folder.name}/{name}: {_unusable(content)}")
                continue
            identity = f"{topic['id']}/photo-{path.stem[:16]}"
            common = {"id": identity, "topic": topic["id"], "name": topic["name"], "split": "photo"}
            found[identity] = {**common, "image": path.name, "image_source": "photograph"}
    return [found[identity] for identity in sorted(found)], notes


def _kept(content: bytes | None, target: Path) -> Path | None:
    """The file in a folder of images that has this content, named by its digest; None where it is no image."""
    if content is None or not (ending := ending_of(content)):
        return None
    path = target / f"{hashlib.sha256(content).hexdigest()}.{ending}"
    if not path.is_file():
        partial = path.with_name(f".{path.name}.partial")
        partial.write_bytes(content)
        partial.replace(path)
    return path


def _unusable(content: bytes | None) -> str:
    return "is missing" if content is None else "cannot be opened, or is no JPEG, PNG or WebP"


def _not_followed(folder: Path) -> list[str]:
    """Notes of folders that are links: they may lead anywhere, or round in a circle."""
    links = (
        [path for path in sorted(folder.rglob("*")) if path.is_symlink() and path.is_dir()] if folder.is_dir() else []
    )
    return [f"{path.relative_to(folder)}: is a link to a folder, which is not followed" for path in links]


def _contents(place: str) -> Iterator[tuple[str, str, bytes | None]]:
    """(name, source, bytes or None) of every image of a folder or of records."""
    if Path(place).is_dir():
        for path in sorted(path for path in Path(place).rglob("*") if path.is_file() and not path.name.startswith(".")):
            name = path.relative_to(place)
            yield str(name), name.parts[0] if len(name.parts) > 1 else Path(place).name, _read(str(path))
        return
    records, errors = sources.read_several([place], [], training=False)
    if errors:
        raise InputError(errors)
    for record in records:
        source = str((record.provenance or {}).get("image_source") or Path(place).stem)
        for number, image in enumerate(images_of(record)):
            content = image if isinstance(image, bytes) else _read(image)
            yield f"{record.id}, image {number}", source, content


def _read(path: str) -> bytes | None:
    try:
        return locations.read_bytes(path)
    except (OSError, InputError):
        return None


def ending_of(content: bytes) -> str:
    """By what is in the file, which must open to its end; "" where it cannot be used."""
    try:
        with PIL.Image.open(io.BytesIO(content)) as image:
            image.load()
            return ENDINGS.get(image.format or "", "")
    except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError):
        return ""
