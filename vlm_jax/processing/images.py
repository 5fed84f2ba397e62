"""Images: opening them safely, the size they are resized to, and their patches as uint8.

The rules are Qwen2-VL's (`smart_resize`, bicubic on uint8, patches grouped by visual token) and bit-equal to
transformers' Pillow processor. Normalisation happens on the device (each family's tower).

EXIF orientation is applied (as a person sees the image), transparency is laid on white (as transformers' processor
does). Grey of 16 bits keeps its high byte, as viewers show it; transformers would clip it to white. Remote addresses
are never fetched: what a record or a visitor names may be anything. For the same reason only `FORMATS` are tried:
Pillow knows others, some of which it has another program read (PostScript), and what a name ends in is not looked at.
"""

import base64
import binascii
import contextlib
import io
import math
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import numpy as np
import PIL.Image
import PIL.ImageOps
from jaxtyping import UInt8

from vlm_jax import locations
from vlm_jax.errors import InputError

MAX_ASPECT = 200
"""Qwen2-VL refuses images more elongated than this."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")
"""Pillow's names of what is read: rasters that it decodes by itself. MPO, of phones, is among JPEG."""

BYTES_A_PIXEL = 16
"""Of memory while an image is decoded, turned and resized, about: 1.3 GB were seen for 88 million pixels."""
AT_ONCE = 128 << 20
"""Pixels that a process decodes at once, all its threads together: 2 GB at 16 bytes each, which is an estimate."""

_STRIP = 1 << 22
"""Pixels of an image that are laid on white at once."""

Result = TypeVar("Result")
Source = str | Path | bytes | PIL.Image.Image | np.ndarray


class NamedBytes(bytes):
    """Encoded bytes of an image that errors call by a name, as that which they came with."""

    name: str

    @classmethod
    def called(cls, name: str, data: bytes) -> "NamedBytes":
        named = cls(data)
        named.name = name
        return named


def open_image(source: Source | Any) -> PIL.Image.Image:
    """Opens and fully decodes an image. Returns upright RGB.

    Args:
      source: a path, a `data:` URI, encoded bytes, a PIL image, or a uint8 array [height, width, 3] of RGB or
        [height, width] of grey.

    Raises:
      InputError: missing, unreadable, truncated, of none of `FORMATS`, of several frames or pages, larger than Pillow's
        decompression-bomb limit, a remote address, or an array of another shape or type.
    """
    return with_image(source, lambda image: image)


def with_image(source: Source | Any, then: Callable[[PIL.Image.Image], Result]) -> Result:
    """`then(open_image(source))`, the image decoded and used while no more than `AT_ONCE` pixels are.

    A larger image than that is decoded alone. Errors are those of `open_image` and of `then`.
    """
    name = describe(source)
    if isinstance(source, np.ndarray):
        source = _of_array(source)
    elif not isinstance(source, Source):
        raise InputError(
            f"{name}: no image; give a path, encoded bytes, a data URI, a PIL image or a uint8 NumPy array"
        )
    with contextlib.ExitStack() as stack:
        with _explained_errors(name):
            image = source if isinstance(source, PIL.Image.Image) else header(source)
            # Pillow only warns above its limit, and a warnings filter is not a thread's own: the limit is held here.
            if PIL.Image.MAX_IMAGE_PIXELS and math.prod(image.size) > PIL.Image.MAX_IMAGE_PIXELS:
                raise PIL.Image.DecompressionBombError
            stack.enter_context(_turns.of(math.prod(image.size)))
            if image is source:
                upright = _to_rgb(PIL.ImageOps.exif_transpose(image))  # a copy: the caller's image stays as it is
            else:
                refuse_animation(image)
                image.load()
                PIL.ImageOps.exif_transpose(image, in_place=True)
                upright = _to_rgb(image)
            del image
        return then(upright)


def header(source: str | Path | bytes) -> PIL.Image.Image:
    """An image of which the size is known, and which is decoded when it is used.

    Raises:
      InputError: a remote address, a data URI of another kind, a pipe or a device.
      PIL.UnidentifiedImageError, OSError and others: what Pillow and the disk have to say.
    """
    if isinstance(source, str) and source.lower().startswith("file://"):
        source = unquote(urlsplit(source).path)
    if isinstance(source, str) and "://" in source[:16] and not source.lower().startswith("data:"):
        raise InputError(f"{describe(source)}: remote images are not fetched; download it and give its path")
    return PIL.Image.open(_stream(source), formats=FORMATS)


@contextlib.contextmanager
def _explained_errors(name: str) -> Iterator[None]:
    """Puts what is wrong with an image into a line that begins with its name."""
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{name}: no such image") from None
    except IsADirectoryError:
        raise InputError(f"{name}: is a folder, not an image") from None
    except (PIL.UnidentifiedImageError, binascii.Error):
        raise InputError(f"{name}: not an image of a format that is read ({', '.join(FORMATS)})") from None
    except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning):
        raise InputError(
            f"{name}: more than {PIL.Image.MAX_IMAGE_PIXELS // 10**6} million pixels; scale it down first"
        ) from None
    except InputError:
        raise
    except Exception as error:  # what a broken file makes a decoder raise is not a fixed list
        raise InputError(f"{name}: unreadable ({' '.join(str(error).split())})") from None


class _Turns:
    """Has threads wait while the pixels that others decode, together with theirs, would be too many."""

    def __init__(self, most: int):
        self._most, self._in_use, self._changed = most, 0, threading.Condition()

    @contextlib.contextmanager
    def of(self, pixels: int) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._in_use or self._in_use + pixels <= self._most)
            self._in_use += pixels
        try:
            yield
        finally:
            with self._changed:
                self._in_use -= pixels
                self._changed.notify_all()


_turns = _Turns(AT_ONCE)


def refuse_animation(image: PIL.Image.Image) -> None:
    """Raises ValueError for a file of several frames or pages: none of them is surely the one that is meant.

    Phones write JPEGs (MPO) with a preview or a depth map behind the photograph: those are images.
    """
    if image.format in ("GIF", "WEBP", "PNG", "TIFF", "AVIF") and (frames := getattr(image, "n_frames", 1)) > 1:
        raise ValueError(f"it has {frames} frames or pages; save the one that is meant as an image")


def describe(source: Source | Any) -> str:
    """How an error message names an image."""
    if isinstance(source, NamedBytes):
        return source.name
    if isinstance(source, bytes):
        return f"image of {len(source)} bytes"
    if isinstance(source, PIL.Image.Image):
        return getattr(source, "filename", "") or f"PIL image {source.size}"
    if isinstance(source, np.ndarray):
        return f"NumPy array {source.shape} of {source.dtype}"
    if not isinstance(source, str | Path):
        return f"an object of type {type(source).__module__}.{type(source).__qualname__}"
    text = str(source)
    return text if len(text) <= 200 else text[:60] + "…"


def is_too_long(width: int, height: int) -> bool:
    """Whether one side is more than `MAX_ASPECT` times the other."""
    return max(width, height) > MAX_ASPECT * min(width, height)


def check_aspect(width: int, height: int) -> None:
    """Raises InputError for an image that `is_too_long`."""
    if is_too_long(width, height):
        raise InputError(f"aspect ratio {max(height, width) / min(height, width):.0f} is above {MAX_ASPECT}")


def smart_resize(height: int, width: int, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """The (height, width) Qwen2-VL resizes to: multiples of `factor`, the area within bounds, the ratio kept.

    Raises:
      InputError: an aspect ratio above 200.
    """
    check_aspect(width, height)
    # Python's round (half to even), as in the reference.
    tall, wide = round(height / factor) * factor, round(width / factor) * factor
    if tall * wide > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        tall = max(factor, math.floor(height / shrink / factor) * factor)
        wide = max(factor, math.floor(width / shrink / factor) * factor)
    elif tall * wide < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        tall = math.ceil(height * grow / factor) * factor
        wide = math.ceil(width * grow / factor) * factor
    return tall, wide


def patchify(
    image: PIL.Image.Image, height: int, width: int, patch_size: int, merge_size: int
) -> UInt8[np.ndarray, "tokens patches_per_token values"]:
    """Resizes to (height, width) and cuts into patches, grouped by visual token.

    Units and the patches within one run row by row; a patch's values are ordered C, ph, pw.
    """
    if image.size != (width, height):
        image = image.resize((width, height), PIL.Image.Resampling.BICUBIC)
    unit = patch_size * merge_size
    pixels = np.asarray(image).reshape(height // unit, merge_size, patch_size, width // unit, merge_size, patch_size, 3)
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 4, 6, 2, 5)).reshape(
        (height // unit) * (width // unit), merge_size**2, 3 * patch_size**2
    )


def _stream(source: str | Path | bytes):
    if isinstance(source, bytes):
        return io.BytesIO(source)
    if isinstance(source, str) and source.lower().startswith("data:"):
        header, comma, payload = source.partition(",")
        if not comma or not header.endswith(";base64"):
            raise InputError(f"{describe(source)}: a data URI must read data:image/…;base64,…")
        return io.BytesIO(base64.b64decode("".join(payload.split()), validate=True))
    locations.check_ends(source)
    return str(source)


def _of_array(pixels: np.ndarray) -> PIL.Image.Image:
    """Refuses what could be read in more than one way: a range of values, an order of channels or of axes."""
    name = describe(pixels)
    if pixels.dtype != np.uint8:
        raise InputError(f"{name}: pixels of an array are uint8, 0 to 255; scale and convert it: .astype(numpy.uint8)")
    if not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)) or not pixels.size:
        raise InputError(f"{name}: an array is [height, width, 3] of RGB or [height, width] of grey, one image")
    return PIL.Image.fromarray(np.ascontiguousarray(pixels))


def _to_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    if image.mode.startswith("I;16"):
        image = PIL.Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        low, high = image.getextrema()
        if low < 0 or high > 255:
            raise ValueError(
                f"its values run from {low:g} to {high:g}, which no rule maps to grey; save it with 8 bits a channel"
            )
    if "A" in image.getbands() or image.info.get("transparency") is not None:
        return _on_white(image.convert("RGBA"))
    return image if image.mode == "RGB" else image.convert("RGB")


def _on_white(image: PIL.Image.Image) -> PIL.Image.Image:
    """RGBA laid on white, some rows at a time: whole, the white and what is made of it are two more images."""
    width, height = image.size
    rows = max(1, _STRIP // width)
    laid = PIL.Image.new("RGB", image.size)
    for top in range(0, height, rows):
        strip = image.crop((0, top, width, min(top + rows, height)))
        white = PIL.Image.new("RGBA", strip.size, (255, 255, 255, 255))
        laid.paste(PIL.Image.alpha_composite(white, strip).convert("RGB"), (0, top))
    return laid
