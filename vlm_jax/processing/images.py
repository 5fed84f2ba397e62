"""Pictures: opening them safely, the size they are resized to, and their patches as uint8.

The rules are Qwen2-VL's (`smart_resize`, bicubic on uint8, patches grouped by merged unit) and bit-equal to
transformers' Pillow processor. Normalisation happens on the device (`vlm_jax.models.vision`).

EXIF orientation is applied (as a person sees the picture), transparency is laid on white (as transformers' processor
does). Grey of 16 bits keeps its high byte, as viewers show it; transformers would clip it to white. Remote addresses
are never fetched: what a record or a visitor names may be anything.
"""

import base64
import binascii
import io
import math
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import PIL.Image
import PIL.ImageOps
from jaxtyping import UInt8

from vlm_jax.errors import InputError

MAX_ASPECT = 200
"""Qwen2-VL refuses pictures more elongated than this."""

Source = str | Path | bytes | PIL.Image.Image | np.ndarray


def open_image(source: Source | Any) -> PIL.Image.Image:
    """Opens and fully decodes a picture. Returns upright RGB.

    Args:
      source: a path, a `data:` URI, encoded bytes, a PIL image, or a uint8 array [height, width, 3] of RGB or
        [height, width] of grey.

    Raises:
      InputError: missing, unreadable, truncated, of several frames or pages, larger than Pillow's decompression-bomb
        limit, a remote address, or an array of another shape or type.
    """
    name = describe(source)
    if isinstance(source, np.ndarray):
        source = _of_array(source)
    elif not isinstance(source, Source):
        raise InputError(
            f"{name}: no picture; give a path, encoded bytes, a data URI, a PIL image or a uint8 NumPy array"
        )
    if isinstance(source, str) and source.lower().startswith("file://"):
        source = unquote(urlsplit(source).path)
    if isinstance(source, str) and "://" in source[:16] and not source.lower().startswith("data:"):
        raise InputError(f"{name}: remote pictures are not fetched; download it and give its path")
    try:
        image = source if isinstance(source, PIL.Image.Image) else PIL.Image.open(_stream(source))
        # Pillow only warns above its limit, and a warnings filter is not a thread's own: the limit is held here.
        if PIL.Image.MAX_IMAGE_PIXELS and math.prod(image.size) > PIL.Image.MAX_IMAGE_PIXELS:
            raise PIL.Image.DecompressionBombError
        if image is source:
            return _to_rgb(PIL.ImageOps.exif_transpose(image))  # a copy: the caller's picture stays as it is
        refuse_animation(image)
        image.load()
        PIL.ImageOps.exif_transpose(image, in_place=True)
        return _to_rgb(image)
    except FileNotFoundError:
        raise InputError(f"{name}: no such picture") from None
    except IsADirectoryError:
        raise InputError(f"{name}: is a folder, not a picture") from None
    except (PIL.UnidentifiedImageError, binascii.Error):
        raise InputError(f"{name}: not a picture that Pillow can read") from None
    except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning):
        raise InputError(
            f"{name}: more than {PIL.Image.MAX_IMAGE_PIXELS // 10**6} million pixels; scale it down first"
        ) from None
    except InputError:
        raise
    except Exception as error:  # what a broken file makes a decoder raise is not a fixed list
        raise InputError(f"{name}: unreadable ({' '.join(str(error).split())})") from None


def refuse_animation(image: PIL.Image.Image) -> None:
    """Raises ValueError for a file of several frames or pages: none of them is surely the one that is meant.

    Phones write JPEGs (MPO) with a preview or a depth map behind the photograph: those are pictures.
    """
    if image.format in ("GIF", "WEBP", "PNG", "TIFF", "AVIF") and (frames := getattr(image, "n_frames", 1)) > 1:
        raise ValueError(f"it has {frames} frames or pages; save the one that is meant as a picture")


def describe(source: Source | Any) -> str:
    """How an error message names a picture."""
    if isinstance(source, bytes):
        return f"picture of {len(source)} bytes"
    if isinstance(source, PIL.Image.Image):
        return getattr(source, "filename", "") or f"PIL image {source.size}"
    if isinstance(source, np.ndarray):
        return f"NumPy array {source.shape} of {source.dtype}"
    if not isinstance(source, str | Path):
        return f"an object of type {type(source).__module__}.{type(source).__qualname__}"
    text = str(source)
    return text if len(text) <= 200 else text[:60] + "…"


def smart_resize(height: int, width: int, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """The (height, width) Qwen2-VL resizes to: multiples of `factor`, the area within bounds, the ratio kept.

    Raises:
      InputError: an aspect ratio above 200.
    """
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise InputError(f"aspect ratio {max(height, width) / min(height, width):.0f} is above {MAX_ASPECT}")
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
) -> UInt8[np.ndarray, "units merge_unit values"]:
    """Resizes to (height, width) and cuts into patches, grouped by merged unit.

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
    return str(source)


def _of_array(pixels: np.ndarray) -> PIL.Image.Image:
    """Refuses what could be read in more than one way: a range of values, an order of channels or of axes."""
    name = describe(pixels)
    if pixels.dtype != np.uint8:
        raise InputError(f"{name}: pixels of an array are uint8, 0 to 255; scale and convert it: .astype(numpy.uint8)")
    if not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)) or not pixels.size:
        raise InputError(f"{name}: an array is [height, width, 3] of RGB or [height, width] of grey, one picture")
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
        image = image.convert("RGBA")
        image = PIL.Image.alpha_composite(PIL.Image.new("RGBA", image.size, (255, 255, 255, 255)), image)
    return image if image.mode == "RGB" else image.convert("RGB")
