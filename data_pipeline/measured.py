"""What was measured of a whole data set, kept in the user's cache folder: a second start reads no record again.

It is known by everything that it follows from: the files of the data and their stamps (`locations.stamp`), the settings
that they are read with, the tokenizer, the template and the image processor, and the versions of what tokenises. Of
images that changed since, the examples that show them are measured anew. Only data without error or remark is kept,
of files that hold all of it; for anything else everything is measured as the first time.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import time
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.measure import UNKNOWN, Examples
from data_pipeline.parts import Part
from vlm_jax import locations
from vlm_jax.processing.image_cache import ImageCache, settled
from vlm_jax.processing.token_budget import TokenBudget

_VERSION = 1  # of what is kept and of how things are measured here
_SELF_CONTAINED = ("records", "llava", "sharegpt", "openai", "table", "alpaca", "query_response", "prompt_completion")
"""Formats whose files hold all that is measured, but for the images; others look into files beside them."""
_MOST = 2_000_000  # examples that are kept
_THREADS = 16  # that ask for stamps: in a store each is an answer to wait for
_FORGOTTEN = 180 * 86_400  # seconds without use


class MeasuredSets:
    """A folder of measured data sets. Anything that is wrong with a file of it makes it as if it were not there."""

    def __init__(self, folder: Path | None):
        self._folder = folder

    @classmethod
    def of_user(cls) -> "MeasuredSets":
        """The one in the user's cache (`locations.user_cache`)."""
        return cls(locations.user_cache("measured"))

    def restore(self, examples: Examples, key: str | None) -> dict[str, Any] | None:
        """Gives examples the sizes that they had, but for those whose images changed.

        Returns:
          What `keep` was given beside them, where nothing changed, else {}; None where nothing is known.
        """
        path = self._path(key)
        if path is None or not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            images = json.loads(arrays["images"].tobytes())
            beside = json.loads(arrays["beside"].tobytes())
            os.utime(path)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
            return None
        with ThreadPoolExecutor(_THREADS) as pool:
            changed = [
                now != then for now, then in zip(pool.map(_stamp, images["paths"]), images["stamps"], strict=True)
            ]
        return {} if _apply(examples, arrays, images["paths"], np.array(changed, bool)) else beside

    def keep(self, examples: Examples, key: str | None, cache: ImageCache, beside: Mapping[str, Any]) -> None:
        """Writes down what was measured, unless an image is so new that its stamp cannot be relied on."""
        path = self._path(key)
        if path is None or sum(map(len, examples.sizes)) > _MOST:
            return
        paths = list(examples.image_sizes)
        known = cache.known(paths)
        if any(image not in known for image in paths):
            return
        number = {image: index for index, image in enumerate(paths)}
        arrays: dict[str, np.ndarray] = {
            "images": _text({"paths": paths, "stamps": [known[image].stamp for image in paths]}),
            "image_sizes": np.array([examples.image_sizes[image] for image in paths], np.int64).reshape(-1, 2),
            "image_tokens": np.array([examples.visual_tokens.get(image, 0) for image in paths], np.int64),
            "beside": _text(beside),
        }
        for part, sizes in enumerate(examples.sizes):
            shown = examples.shown[part]
            arrays[f"sizes{part}"], arrays[f"visual{part}"] = sizes, examples.visual[part]
            arrays[f"counts{part}"] = np.array([len(images) for images in shown], np.int64)
            arrays[f"shown{part}"] = np.array([number[image] for images in shown for image in images], np.int64)
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._forget(path.parent)
            unfinished = path.with_name(f".{path.name}.{os.getpid()}.npz")
            np.savez(unfinished, **arrays)
            unfinished.rename(path)

    def _path(self, key: str | None) -> Path | None:
        return None if self._folder is None or key is None else self._folder / f"{key}.npz"

    def _forget(self, folder: Path) -> None:
        for path in folder.glob("*.npz"):
            if path.stat().st_mtime < time.time() - _FORGOTTEN:
                path.unlink()


def _apply(examples: Examples, arrays: Mapping[str, np.ndarray], paths: Sequence[str], changed: np.ndarray) -> bool:
    """Returns whether any image changed."""
    for index in np.flatnonzero(~changed).tolist():
        width, height = arrays["image_sizes"][index].tolist()
        examples.image_sizes[paths[index]] = (width, height)
        examples.visual_tokens[paths[index]] = int(arrays["image_tokens"][index])
    for part, sizes in enumerate(examples.sizes):
        counts, shown = arrays[f"counts{part}"], arrays[f"shown{part}"]
        if arrays[f"sizes{part}"].shape != sizes.shape:
            raise ValueError("another number of examples under one key")
        owner = np.repeat(np.arange(len(counts)), counts)
        stale = np.zeros(len(counts), bool)
        stale[owner[changed[shown]]] = True
        sizes[:] = np.where(stale[:, None], UNKNOWN, arrays[f"sizes{part}"])
        examples.visual[part][:] = arrays[f"visual{part}"]
        ends = np.cumsum(counts)
        for index in range(len(counts)):
            place = shown[ends[index] - counts[index] : ends[index]]
            examples.shown[part][index] = tuple(paths[number] for number in place.tolist())
    return bool(changed.any())


def key_of(parts: Sequence[Part], *, seed: int, decode: bool, budgets: Sequence[TokenBudget] = ()) -> str | None:
    """What the measured sizes of these parts are known by; None where they follow from more than can be told."""
    facts: list[Any] = [_VERSION, decode, seed, *map(repr, budgets)]
    facts += [importlib.metadata.version(name) for name in ("transformers", "tokenizers", "jinja2", "vlm-jax")]
    for part in parts:
        processor = part.processor
        backend = getattr(processor.tokenizer, "backend_tokenizer", None)
        if backend is None:
            return None
        root = part.settings.get("image_root")
        facts.append(locations.absolute(root) if root else "")
        facts.append([part.settings, processor.template, processor.most_tokens, processor.image_token])
        facts.append([repr(processor.images), repr(processor.budget), processor.window_side, len(part.source)])
        facts.append(hashlib.sha256(backend.to_str().encode()).hexdigest())
        for source in getattr(part.source, "sources", ()):
            if source.format not in _SELF_CONTAINED or not Path(source.name).is_file():
                return None
            stamp, modified = locations.stamp(source.name)
            if not settled(modified):
                return None
            facts.append([locations.absolute(source.name), source.format, stamp])
    return hashlib.sha256(json.dumps(facts, default=str, sort_keys=True).encode()).hexdigest()[:32]


def _stamp(image: str) -> str | None:
    if image.startswith("embedded:"):
        return ""  # it lies in the file of the data
    try:
        return locations.stamp(image)[0]
    except Exception:  # of several types: a disk's, a store's
        return None


def _text(value: Any) -> np.ndarray:
    return np.frombuffer(json.dumps(value).encode(), np.uint8)
