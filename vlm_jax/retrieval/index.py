"""Passages with their vectors in a folder: opened, checked against the encoder, and searched.

    index.json         which encoder, which passages, which versions made it
    passages.jsonl     the passages themselves
    texts.npy          [passages, d] float32: of the words of each
    images.npy         [images, d] float32: of the images of all, in the order of the passages
    image_owners.npy   [images] int32: the passage that each belongs to

`building` writes such folders; `search` compares vectors, and `fusion` makes one order of several.
"""

import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int, Int32

from vlm_jax.checkpoint.files import read_json
from vlm_jax.errors import InputError
from vlm_jax.retrieval import fusion, passages
from vlm_jax.retrieval.encoder import Encoder
from vlm_jax.retrieval.search import Search, open_search

FORMAT = 1
SETTINGS, PASSAGES = "index.json", "passages.jsonl"
TEXTS, IMAGES, OWNERS = "texts.npy", "images.npy", "image_owners.npy"
DEPTH = 100
"""Passages that each channel finds at least, of which fusion makes an order."""


@dataclasses.dataclass(frozen=True)
class Ranking:
    """How passages are ordered for a question.

    Attributes:
      method: of `fusion.METHODS`: weighted, or rrf (reciprocal rank fusion).
      weights: of `fusion.CHANNELS`; those of 0 are not looked at, nor are those for which a question has nothing.
      normalise: of `fusion.NORMALISATIONS`, for weighted.
      depth: passages that each channel finds, of which one order is made. As many as there are gives the exact order.
    """

    method: str = "weighted"
    weights: Mapping[str, float | int] = dataclasses.field(default_factory=lambda: dict.fromkeys(fusion.CHANNELS, 1.0))
    normalise: str = "minmax"
    depth: int = DEPTH

    def __post_init__(self):
        errors = []
        for name, value, known in (
            ("fusion", self.method, fusion.METHODS),
            ("normalise", self.normalise, fusion.NORMALISATIONS),
        ):
            if value not in known:
                errors.append(f"{name} is {value!r}; known are {', '.join(known)}")
        if self.depth < 1:
            errors.append(f"depth is {self.depth}; wanted at least 1")
        if errors:
            raise InputError(errors)
        fusion.checked_weights(self.weights)


class Index:
    """Attributes:
    folder: where it lies.
    passages: all of them, in the order in which numbers count them.
    texts, images, owners: as in the files; mapped, not read.
    digest: tells indexes apart.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], backend: str = "device"):
        self.folder, self._settings, self._backend = folder, settings, backend
        self.passages = passages.read(folder / PASSAGES, images_are_there=False)
        arrays = {name: _array(folder / name) for name in (TEXTS, IMAGES, OWNERS)}
        self.texts, self.images, self.owners = arrays.values()
        count, width = settings["passages"]["count"], settings["encoder"]["dimension"]
        shapes = (self.texts.shape, self.images.shape[1:], self.owners.shape)
        if len(self.passages) != count or shapes != ((count, width), (width,), self.images.shape[:1]):
            raise InputError(f"{folder}: its files do not belong together; build it again")
        self._first = np.searchsorted(self.owners, np.arange(count + 1))
        self._most_images = int(np.diff(self._first).max(initial=1))

    @property
    def digest(self) -> str:
        return f"{self._settings['encoder']['fingerprint']}-{self._settings['passages']['words'][:16]}"

    @functools.cached_property
    def numbers(self) -> dict[str, int]:
        """{id: number} of the passages."""
        return {passage.id: number for number, passage in enumerate(self.passages)}

    @functools.cached_property
    def _searches(self) -> dict[str, Search]:
        return {"text": open_search(self.texts, self._backend), "image": open_search(self.images, self._backend)}

    def search(
        self,
        texts: Float32[np.ndarray, "q d"] | None,
        images: Sequence[Float32[np.ndarray, " d"] | None] | None,
        k: int,
        ranking: Ranking = Ranking(),
    ) -> list[Int[np.ndarray, " k"]]:
        """Numbers of the k best passages of each question, the best first; fewer where channels found fewer.

        Args:
          texts: vectors of the questions; None: none is looked at.
          images: of their images, None for a question without one; None: none is looked at.

        Raises:
          InputError: a question that no channel has anything for.
        """
        count = len(texts) if texts is not None else len(images or ())
        asked: dict[str, list[Any]] = {
            "text": list(texts) if texts is not None else [None] * count,
            "image": list(images) if images is not None else [None] * count,
        }
        weights = fusion.checked_weights(ranking.weights)
        found: list[dict[str, np.ndarray]] = [{} for _ in range(count)]
        for channel in weights:
            of, _, to = channel.partition("_to_")
            having = [number for number, vector in enumerate(asked[of]) if vector is not None]
            if not having or (to == "image" and not len(self.images)):
                continue
            queries = np.stack([asked[of][number] for number in having])
            for number, order in zip(having, self._nearest(to, queries, max(k, ranking.depth)), strict=True):
                found[number][channel] = order
        if lost := [number for number in range(count) if not found[number]]:
            raise InputError(
                f"question {lost[0] + 1} of {count} has nothing that a channel of weight above 0 looks at "
                f"({', '.join(weights)})"
            )
        return [
            self._fused(order, {of: asked[of][number] for of in asked}, weights, ranking)[:k]
            for number, order in enumerate(found)
        ]

    def _nearest(self, to: str, queries: Float32[np.ndarray, "q d"], depth: int) -> list[Int32[np.ndarray, " m"]]:
        """Passages in the order of their texts', or of their nearest images', similarity."""
        if to == "text":
            return list(self._searches["text"](queries, depth)[1])
        _, rows = self._searches["image"](queries, depth * self._most_images)
        orders = []
        for owners in self.owners[rows]:
            _, first = np.unique(owners, return_index=True)
            orders.append(owners[np.sort(first)][:depth])
        return orders

    def _fused(
        self,
        found: Mapping[str, Int[np.ndarray, " m"]],
        vectors: Mapping[str, Any],
        weights: Mapping[str, float],
        ranking: Ranking,
    ) -> Int[np.ndarray, " n"]:
        """The passages that channels found, the best first."""
        candidates = np.unique(np.concatenate(list(found.values())))
        if ranking.method == "rrf":
            return fusion.order_of(fusion.reciprocal_rank(found, weights, candidates), candidates)
        scores = {
            channel: self._scores(channel.partition("_to_")[2], vectors[channel.partition("_to_")[0]], candidates)
            for channel in found
        }
        return fusion.order_of(fusion.weighted(scores, weights, ranking.normalise), candidates)

    def _scores(self, to: str, query: np.ndarray, candidates: Int[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
        """Similarities of a question with these passages; NaN for one without images where images are looked at."""
        if to == "text":
            return _products(self.texts[candidates], query)
        scores = np.full(len(candidates), np.nan)
        for place, number in enumerate(candidates):
            rows = self.images[self._first[number] : self._first[number + 1]]
            if len(rows):
                scores[place] = _products(rows, query).max()
        return scores


def open_index(
    folder: str | Path, encoder: Encoder | None = None, *, passages_file: str | Path = "", backend: str = "device"
) -> Index:
    """An index, held against what it will be used with.

    Args:
      encoder: of the questions; None: vectors come from elsewhere.
      passages_file: the passages as they are now; "" for the file that it was built from, where that is still there.
      backend: of `search.BACKENDS`.

    Raises:
      InputError: no finished index, one built with another encoder, or of passages that have changed since.
    """
    folder = Path(folder)
    settings = read_settings(folder)
    if encoder is not None:
        check_encoder(folder, settings, encoder)
    source = Path(passages_file) if passages_file else folder / settings["passages"]["file"]
    if passages_file or source.is_file():
        now = passages.digest(passages.read(source), source.parent)
        if now != settings["passages"]["words"]:
            raise InputError(
                f"{folder}: is of other passages than {os.path.normpath(source)} holds now; build it again"
            )
    return Index(folder, settings, backend)


def read_settings(folder: Path) -> dict[str, Any]:
    """`index.json` of a finished index.

    Raises:
      InputError: there is none, or one of another version.
    """
    if not (folder / SETTINGS).is_file():
        raise InputError(f"{folder}: holds no finished index ({SETTINGS}); run scripts/build_index.py")
    settings = read_json(folder / SETTINGS)
    if settings.get("format") != FORMAT:
        raise InputError(
            f"{folder / SETTINGS}: format is {settings.get('format')!r}, this version reads {FORMAT}; build it again"
        )
    return settings


def check_encoder(folder: Path, settings: Mapping[str, Any], encoder: Encoder) -> None:
    """Raises InputError for an index built with another encoder."""
    known = settings["encoder"]
    if known["fingerprint"] != encoder.fingerprint():
        raise InputError(
            f"{folder}: an index built with another encoder ({known['name']}, fingerprint {known['fingerprint']}; "
            f"{encoder.name} has {encoder.fingerprint()}); give the one that it was built with, or build it again"
        )


def _array(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: missing or damaged ({error}); build the index again") from None


def _products(rows: np.ndarray, query: np.ndarray) -> Float64[np.ndarray, " n"]:
    """Inner products that are equal for equal rows, wherever they stand: BLAS rounds by place."""
    return (np.asarray(rows, np.float64) * np.asarray(query, np.float64)).sum(axis=-1)
