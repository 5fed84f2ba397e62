"""Images that are nearly the same: a perceptual hash that knows flips, compared all with all.

The hash is Zauner's pHash (2010): the signs of the lowest 8 × 8 frequencies of a 32 × 32 grey image against their
median. Recompression, scaling, blur and brightness change 0 to 2 of its 64 bits, a crop of 4 % up to 16; different
photographs differ in 20 and more.
"""

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import scipy.fft
from jaxtyping import UInt64

from data_pipeline.corpus.filters.pair import Pair, text_hash
from vlm_jax.errors import InputError

MOST_BITS = 8
"""Bits in which two hashes of one image may differ."""
_SIDE, _LOW = 32, 8
_BLOCK = 2048
_FLIPS = ((1, 1), (1, -1), (-1, 1), (-1, -1))  # rows, columns


def image_hash(image: str | Path | bytes) -> UInt64[np.ndarray, " 4"]:
    """The hashes of an image as it is, and flipped left to right, top to bottom, and both.

    One transform does for all: a flip changes the sign of every second row or column of it.

    Raises:
      InputError: what is no image that can be read.
    """
    try:
        with PIL.Image.open(io.BytesIO(image) if isinstance(image, bytes) else image) as opened:
            opened.draft("L", (4 * _SIDE, 4 * _SIDE))
            grey = opened.convert("L").resize((_SIDE, _SIDE), PIL.Image.Resampling.LANCZOS)
    except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError) as error:
        name = "an embedded image" if isinstance(image, bytes) else str(image)
        raise InputError(f"{name}: cannot be read as an image ({error}); replace it or remove its pairs") from error
    frequencies = scipy.fft.dctn(np.asarray(grey, np.float64), type=2)[:_LOW, :_LOW]
    odd = np.where(np.arange(_LOW) % 2, -1.0, 1.0)
    variants = []
    for rows, columns in _FLIPS:
        turned = frequencies * (odd[:, None] if rows < 0 else 1) * (odd[None, :] if columns < 0 else 1)
        bits = (turned > np.median(turned)).ravel()
        variants.append(np.packbits(bits).view(">u8")[0])
    return np.array(variants, np.uint64)


def image_hashes(images: Iterable[str]) -> dict[str, UInt64[np.ndarray, " 4"]]:
    """{image: its hashes}, each image read once.

    Raises:
      InputError: with all images that cannot be read.
    """
    found, errors = {}, []
    for image in dict.fromkeys(images):
        try:
            found[image] = image_hash(image)
        except InputError as error:
            errors += error.lines
    if errors:
        raise InputError(errors)
    return found


def near_pairs(
    hashes: UInt64[np.ndarray, "n 4"], others: UInt64[np.ndarray, "m 4"] | None = None, bits: int = MOST_BITS
) -> list[tuple[int, int, int]]:
    """(row, row of the others, bits that differ) wherever at most `bits` do, in the best of the four flips.

    Without `others` all pairs of one list, the smaller row first. Time grows with n × m, memory does not.
    """
    alone = others is None
    against = hashes if alone else others
    found = []
    for start in range(0, len(hashes), _BLOCK):
        for opposite in range(start if alone else 0, len(against), _BLOCK):
            one, other = hashes[start : start + _BLOCK], against[opposite : opposite + _BLOCK]
            nearest = np.min([np.bitwise_count(one[:, :1] ^ other[None, :, flip]) for flip in range(4)], axis=0)
            for row, column in np.argwhere(nearest <= bits):
                if not alone or start + row < opposite + column:
                    found.append((int(start + row), int(opposite + column), int(nearest[row, column])))
    return sorted(found)


def near_images(hashes: Mapping[str, UInt64[np.ndarray, " 4"]], bits: int = MOST_BITS) -> dict[str, str]:
    """{an image that gives way: the one that stays}. Which does is decided by a hash of its name."""
    images = sorted(hashes, key=lambda image: (text_hash(image), image))
    if not images:
        return {}
    near: dict[int, list[int]] = {}
    for one, other, _ in near_pairs(np.stack([hashes[image] for image in images]), bits=bits):
        near.setdefault(other, []).append(one)
    given_way: dict[str, str] = {}
    for place, image in enumerate(images):
        staying = [images[other] for other in near.get(place, ()) if images[other] not in given_way]
        if staying:
            given_way[image] = staying[0]
    return given_way


def near_image(pair: Pair, survivor: str | None) -> str:
    """Why a pair's image is one too many."""
    return "" if survivor is None else f"near-duplicate image: of {survivor}"


def shown(pairs: Sequence[Pair]) -> list[str]:
    """The images of pairs, each once, in their order."""
    return list(dict.fromkeys(pair.image for pair in pairs if pair.image))
