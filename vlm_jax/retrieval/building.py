"""Building an index: batch after batch into files of their own, so that an interrupted one goes on where it was."""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from vlm_jax.checkpoint.files import alone, read_json, write_json, write_text
from vlm_jax.errors import InputError
from vlm_jax.retrieval import passages
from vlm_jax.retrieval.encoder import Encoder
from vlm_jax.retrieval.index import (
    FORMAT,
    IMAGES,
    OWNERS,
    PASSAGES,
    SETTINGS,
    TEXTS,
    Index,
    check_encoder,
    read_settings,
)
from vlm_jax.retrieval.passages import Passage

BATCH = 256
"""Texts or images of a file of the unfinished index."""
_UNFINISHED, _PARTS = "unfinished.json", "parts"
Progress = Callable[[Iterable, int], Iterator]


def build(
    encoder: Encoder,
    passages_file: str | Path,
    output: str | Path,
    *,
    batch: int = BATCH,
    progress: Progress = lambda items, total: iter(items),
) -> Index:
    """Embeds all passages of a file and writes the index. The same call finishes an interrupted one; a finished one is
    opened as it is.

    Args:
      output: its folder.
      batch: texts or images between two writes.
      progress: passes batches on, of which there are `total`, and may show how far it is.

    Raises:
      InputError: passages that are none, an unreadable image, or a folder that holds an index of another encoder or of
        other passages, or something else.
    """
    source, folder = Path(passages_file), Path(output)
    found = passages.read(source)
    settings = _settings(encoder, found, source, folder)
    if folder.exists() and any(folder.iterdir()) and not any((folder / n).exists() for n in (SETTINGS, _UNFINISHED)):
        raise InputError(f"{folder}: exists and holds no index; name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder, "building an index"):
        if (folder / SETTINGS).is_file():
            _check_same(folder, read_settings(folder), settings, encoder)
            return Index(folder, read_settings(folder))
        if (folder / _UNFINISHED).is_file():
            begun = read_json(folder / _UNFINISHED)
            _check_same(folder, begun, settings, encoder)
            if begun["batch"] != batch:
                raise InputError(f"{folder}: was begun with a batch of {begun['batch']}, not {batch}; give that")
        else:
            write_json(folder / _UNFINISHED, settings | {"batch": batch})
        _embed(encoder, found, folder / _PARTS, batch, progress)
        _finish(folder, found, settings)
    return Index(folder, settings)


def _settings(encoder: Encoder, found: Sequence[Passage], source: Path, folder: Path) -> dict[str, Any]:
    counts = encoder.token_counts([passage.words for passage in found])
    return {
        "format": FORMAT,
        "encoder": {"name": encoder.name, "fingerprint": encoder.fingerprint(), "dimension": encoder.dimension},
        "passages": {
            "file": os.path.relpath(source, folder),
            "count": len(found),
            "words": passages.digest(found, source.parent),
            "images": passages.image_digest(found),
            "read_in_part": 0 if encoder.longest is None else sum(count > encoder.longest for count in counts),
        },
        "versions": {name: version(name) for name in ("vlm-jax", "jax", "numpy")},
    }


def _check_same(folder: Path, there: dict[str, Any], wanted: dict[str, Any], encoder: Encoder) -> None:
    check_encoder(folder, there, encoder)
    for key, what in (("words", "other passages"), ("images", "other pictures of the passages")):
        if there["passages"][key] != wanted["passages"][key]:
            raise InputError(f"{folder}: holds an index of {what}; name another folder, or remove it")


def _embed(encoder: Encoder, found: Sequence[Passage], parts: Path, batch: int, progress: Progress) -> None:
    parts.mkdir(exist_ok=True)
    texts = [passage.words for passage in found]
    images = [image for passage in found for image in passage.images]
    work = [("texts", texts, start) for start in range(0, len(texts), batch)]
    work += [("images", images, start) for start in range(0, len(images), batch)]
    for kind, items, start in progress(work, len(work)):
        part = parts / f"{kind}-{start:010d}.npy"
        if part.is_file():
            continue
        encode = encoder.encode_texts if kind == "texts" else encoder.encode_images
        vectors = encode(items[start : start + batch])
        partial = part.with_suffix(".partial")
        with partial.open("wb") as file:
            np.save(file, vectors)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(part)


def _finish(folder: Path, found: Sequence[Passage], settings: dict[str, Any]) -> None:
    """One file of each kind from its parts; `index.json` is last, and says that all others are there."""
    width = settings["encoder"]["dimension"]
    owners = [number for number, passage in enumerate(found) for _ in passage.images]
    for kind, name, count in (("texts", TEXTS, len(found)), ("images", IMAGES, len(owners))):
        whole = np.lib.format.open_memmap(folder / name, mode="w+", dtype=np.float32, shape=(count, width))
        filled = 0
        for part in sorted((folder / _PARTS).glob(f"{kind}-*.npy")):
            vectors = np.load(part)
            whole[filled : filled + len(vectors)] = vectors
            filled += len(vectors)
        whole.flush()
    np.save(folder / OWNERS, np.array(owners, np.int32))
    lines = []
    for passage in found:
        images = [os.path.relpath(image, folder) for image in passage.images]
        lines.append(json.dumps(passage.to_json() | ({"image": images} if images else {}), ensure_ascii=False))
    write_text(folder / PASSAGES, "".join(f"{line}\n" for line in lines))
    write_json(folder / SETTINGS, settings)
    (folder / _UNFINISHED).unlink()
    shutil.rmtree(folder / _PARTS)


def closing_line(index: Index, encoder: Encoder) -> str:
    """What a person is told at the end."""
    line = f"{index.folder}: {len(index.passages):,} passages, {len(index.images):,} images, by {encoder.name}"
    part = read_settings(index.folder)["passages"]["read_in_part"]
    return f"{line}; of {part:,} only the first {encoder.longest} tokens were read" if part else line
