"""Every image of a data set looked at once before the first step, so that all errors are known together.

Returns the sizes that packing is planned with. Opening itself is `vlm_jax.processing.images.with_image`, the same
function that training uses; the records come from `data_pipeline.sources`. What was found out is kept in an
`ImageCache`, and the hosts of a pod divide the images among them.
"""

import dataclasses
import os
import stat
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import PIL.Image
from PIL.ExifTags import Base as ExifTag

from data_pipeline.records import Record, images_of
from data_pipeline.sources.containers import did_you_mean
from vlm_jax import locations
from vlm_jax.errors import InputError
from vlm_jax.processing.image_cache import NO_CACHE, ImageCache, ImageFacts, key_of, settled
from vlm_jax.processing.images import MAX_ASPECT, describe, header, is_too_long, refuse_animation, with_image

_NAMED_RECORDS = 3
_SUGGESTIONS = 20  # looking for the nearest name is slow, and with a wrong image root every image is missing
_MISSING = "no such image; correct the path or the image root"
_QUARTER_TURNS = (5, 6, 7, 8)  # EXIF orientations that swap width and height


@dataclasses.dataclass(frozen=True)
class Division:
    """How processes divide work that all of them need the result of.

    Attributes:
      total: adds up arrays of one shape over all processes; called by all of them, in the same order.
    """

    index: int = 0
    count: int = 1
    total: Callable[[np.ndarray], np.ndarray] = lambda array: array


ALONE = Division()
"""Of a process that does all of it."""


def check_images(
    records: Iterable[Record],
    *,
    decode: bool = True,
    threads: int = min(16, os.cpu_count() or 1),
    cache: ImageCache = NO_CACHE,
    division: Division = ALONE,
) -> tuple[dict[str | bytes, tuple[int, int]], list[str]]:
    """Checks each distinct image once: that it is there, opens, and is of a shape the model takes.

    Args:
      records: their images are checked; the texts were checked when the records were made.
      decode: decode all pixels, which finds truncated files. Without it no more is read than the upright size needs:
        a header for most formats, all of a PNG, whose EXIF may follow the pixels.
      threads: images opened at the same time; each holds one decoded image in memory.
      cache: an image that it knows and whose file has not changed is not opened.
      division: of the images among processes, which must all have the same records. An image that one of them finds
        bad is looked at by all, so that all say the same.

    Returns:
      Path (or the bytes of an embedded image) to (width, height) in pixels, upright by EXIF, of the images in order;
      and one line for each bad image: the file, the reason, and records that use it.
    """
    uses: dict[str | bytes, list[str]] = {}
    for record in records:
        for image in dict.fromkeys(images_of(record)):
            uses.setdefault(image, []).append(record.where or f"record {record.id!r}")
    images = list(uses)
    looked_at = _look_at(images[division.index :: division.count], decode, threads, cache)
    found = np.zeros((len(images), 2), np.int64)
    for place, result in zip(range(division.index, len(images), division.count), looked_at, strict=True):
        found[place] = (0, 0) if isinstance(result, str) else result
    found = division.total(found)
    reasons = dict(zip(images[division.index :: division.count], looked_at, strict=True))
    others = [image for image, size in zip(images, found, strict=True) if not size.any() and image not in reasons]
    reasons |= dict(zip(others, _look_at(others, decode, threads, cache), strict=True))

    sizes: dict[str | bytes, tuple[int, int]] = {}
    errors: list[str] = []
    for image, (width, height) in zip(images, found.tolist(), strict=True):
        reason = reasons.get(image)
        if width or not isinstance(reason, str):  # another process may have had trouble that this one has not
            sizes[image] = (width, height) if width else reason
            continue
        if reason.endswith(_MISSING) and len(errors) < _SUGGESTIONS:
            reason += did_you_mean(image)
        errors.append(f"{reason} (used by {_some(uses[image])})")
    return sizes, errors


def _look_at(
    images: Sequence[str | bytes], decode: bool, threads: int, cache: ImageCache
) -> list[tuple[int, int] | str]:
    """The upright size of each, or its error as `file: reason`."""
    keys = [key_of(image) for image in images]
    known = cache.known(key for key in keys if key is not None)
    fresh: dict[str, ImageFacts] = {}

    def look(image: str | bytes, key: str | None) -> tuple[int, int] | str:
        result = _examine(image, decode, known.get(key) if key is not None else None)
        if isinstance(result, str):
            return result
        if result.facts is not None and key is not None:
            fresh[key] = result.facts
        return result.size

    # The filter is one for all threads, so it is set around them: a decompression bomb is an error, not a warning.
    with warnings.catch_warnings(), ThreadPoolExecutor(threads) as pool:
        warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
        looked_at = list(pool.map(look, images, keys))
    cache.keep(fresh)
    return looked_at


@dataclasses.dataclass(frozen=True)
class _Examined:
    size: tuple[int, int]
    facts: ImageFacts | None = None
    """To be kept; None where that is known already, or the file may still change."""


def _examine(image: str | bytes, decode: bool, known: ImageFacts | None) -> _Examined | str:
    """The upright size, or the error as `file: reason`."""
    name = f"embedded image of {len(image)} bytes" if isinstance(image, bytes) else image
    try:
        if isinstance(image, str) and (reason := _not_a_file(image)):
            return f"{name}: {reason}"
        stamp, modified = locations.stamp(image) if isinstance(image, str) else ("", 0.0)
        if known and known.stamp == stamp and (known.decoded or not decode):
            return _Examined(known.size)
        content = locations.read_bytes(image) if isinstance(image, str) and locations.is_remote(image) else image
        width, height = with_image(content, lambda image: image.size) if decode else _header_size(content)
    except InputError as error:
        return f"{name}: {error.lines[0].removeprefix(describe(image) + ': ')}"
    except PIL.UnidentifiedImageError:
        return f"{name}: not an image in a format that can be read"
    # What a hostile or broken file makes a decoder raise is not a fixed list, and must not hide the other errors.
    except Exception as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return f"{name}: cannot be opened as an image ({' '.join(reason.split())})"
    if is_too_long(width, height):
        return f"{name}: is {width}x{height} pixels; one side may be at most {MAX_ASPECT} times the other: crop it"
    lasts = isinstance(image, bytes) or (bool(stamp) and settled(modified))
    return _Examined((width, height), ImageFacts(stamp, (width, height), decode) if lasts else None)


def _not_a_file(path: str) -> str | None:
    """Why a path cannot be an image, told before anything is opened: opening a pipe would wait for ever."""
    if locations.is_remote(path):
        return None if locations.is_file(path) else _MISSING
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return _MISSING
    except NotADirectoryError:
        return "no such image: a part of the path is a file, not a folder"
    except PermissionError:
        return "permission denied; make it readable"
    if stat.S_ISDIR(status.st_mode):
        return "is a folder where an image is expected"
    if not stat.S_ISREG(status.st_mode):
        return "is not a regular file"
    if status.st_size == 0:
        return "is empty (0 bytes); copy it again"
    if not os.access(path, os.R_OK):
        return "permission denied; make it readable"
    return None


def _header_size(image: str | bytes) -> tuple[int, int]:
    with header(image) as opened:
        refuse_animation(opened)
        width, height = opened.size
        turned = opened.getexif().get(ExifTag.Orientation) in _QUARTER_TURNS
    return (height, width) if turned else (width, height)


def _some(users: Sequence[str]) -> str:
    rest = len(users) - _NAMED_RECORDS
    return "; ".join(users[:_NAMED_RECORDS]) + (f"; and {rest} more" if rest > 0 else "")
