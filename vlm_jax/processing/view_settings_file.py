"""The image processors of encoders of fixed resolution: from a folder's file to `views.ViewSettings`, and back."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlm_jax.errors import InputError
from vlm_jax.processing import image_processor_file
from vlm_jax.processing.views import ViewSettings

# Means and deviations that transformers' classes have where a file names none.
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_CROP = 224
"""Likewise the `crop_size` of those that crop."""


def read_view_settings(
    folder: Path, *, image_size: int, patch_size: int, class_token: bool, keep_class: bool
) -> ViewSettings:
    """Picture rules of a folder whose `config.json` has an encoder of these sizes.

    Raises:
      InputError: no `preprocessor_config.json` (or `processor_config.json` of transformers 5), a kind of processor that
        is not known, or settings that do not suit the encoder.
    """
    path, processor = image_processor_file.read(folder)
    try:
        kind = _kind(processor)
        if faults := _not_computed(processor, kind):
            raise InputError([f"{path}: {fault}" for fault in faults])
        settings = _settings(processor, kind, image_size, patch_size, class_token, keep_class)
    except InputError:
        raise
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise InputError(f"{path}: picture settings that cannot be used ({error})") from None
    if faults := settings.faults():
        raise InputError([f"{path}: {fault}" for fault in faults])
    return settings


# A kind of processor, and its settings beside `image_processor_file.PIXELS`. `background` is this package's own.
_KINDS = {
    "CLIP": ("do_center_crop", "crop_size"),
    "Siglip": (),
    "ViT": (),
    "LlavaNext": ("do_center_crop", "crop_size", "do_pad", "image_grid_pinpoints"),
    "Llava": ("do_center_crop", "crop_size", "do_pad", "background"),
}


def _kind(processor: Mapping[str, Any]) -> str:
    named = processor.get("image_processor_type") or processor.get("feature_extractor_type") or "ViTImageProcessor"
    kind = next(
        (kind for kind in _KINDS if named.startswith((f"{kind}ImageProcessor", f"{kind}FeatureExtractor"))), None
    )
    if kind is None:
        raise ValueError(
            f"image_processor_type is {named!r}; known are {', '.join(f'{kind}ImageProcessor' for kind in _KINDS)}"
        )
    return kind


def _not_computed(processor: Mapping[str, Any], kind: str) -> list[str]:
    # A file may say of what its kind does not do that it is not done.
    unused = {key for key in ("do_center_crop", "do_pad") if processor.get(key) is False and key not in _KINDS[kind]}
    unused |= {"crop_size"} if "do_center_crop" in unused else set()
    settings = {key: value for key, value in processor.items() if key not in unused}
    found = image_processor_file.faults(settings, _KINDS[kind])
    for key in ("do_rescale", "do_normalize"):
        if not processor.get(key, True):
            found.append(f"{key} is {json.dumps(processor[key])}; encoders see rescaled and normalised pixels only")
    if isinstance(factor := processor.get("rescale_factor"), int | float) and abs(factor - 1 / 255) > 1e-9:
        found.append(f"rescale_factor {factor} is not 1/255")
    return found


def _settings(
    processor: Mapping[str, Any], kind: str, image_size: int, patch_size: int, class_token: bool, keep_class: bool
) -> ViewSettings:
    size, crop = processor.get("size", 224), processor.get("crop_size")
    cropped = kind in ("CLIP", "Llava", "LlavaNext") and processor.get("do_center_crop", True)
    if isinstance(size, int):  # of older files
        size = {"shortest_edge": size} if cropped else {"height": size, "width": size}
    edge = size.get("shortest_edge")
    if cropped:
        crop = crop or _CROP
        view = (crop, crop) if isinstance(crop, int) else (crop["height"], crop["width"])
        if not edge and (size["height"], size["width"]) != view:
            raise ValueError(f"size {dict(size)} is not the crop's; wanted a shortest_edge, or the size of a view")
    else:
        if edge and kind != "LlavaNext" and not processor.get("do_pad"):
            raise ValueError(
                f"size is {dict(size)} and nothing is cropped, so pictures would not be square; wanted height and width"
            )
        view = (edge, edge) if edge else (size["height"], size["width"])
    if view != (image_size, image_size):
        raise ValueError(f"views are {view[0]} × {view[1]} pixels, config.json has image_size {image_size}")
    mean, std = image_processor_file.normalisation(
        processor, *(_CLIP if kind in ("CLIP", "Llava", "LlavaNext") else _HALF)
    )
    settings = ViewSettings(
        image_size=image_size,
        patch_size=patch_size,
        class_token=class_token,
        keep_class=keep_class,
        mode="squash",
        mean=mean,
        std=std,
        resample=processor.get("resample", 2 if kind == "ViT" else 3),
    )
    if kind == "LlavaNext":
        pinpoints = tuple(tuple(one) for one in processor.get("image_grid_pinpoints") or ())
        if edge not in (None, image_size):
            raise ValueError(f"size {edge} differs from the view's {image_size}")
        return dataclasses.replace(settings, mode="anyres", pinpoints=pinpoints)
    if kind == "Llava" and processor.get("do_pad", False):
        if edge not in (None, image_size):
            raise ValueError(f"size {edge} differs from the crop of {image_size}, and padded pictures are not cropped")
        colour = tuple(processor.get("background") or settings.mean_colour)
        return dataclasses.replace(settings, mode="letterbox", background=colour)
    if cropped and edge:
        return dataclasses.replace(settings, mode="crop", shortest_edge=0 if edge == image_size else edge)
    return settings


def view_settings_json(settings: ViewSettings) -> dict[str, Any]:
    """`preprocessor_config.json` of these rules. `background` stands in it only where transformers has another."""
    size = settings.image_size
    square, edge = {"height": size, "width": size}, {"shortest_edge": settings.shortest_edge or size}
    processor: dict[str, Any] = {
        "do_convert_rgb": True,
        "do_resize": True,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(settings.mean),
        "image_std": list(settings.std),
        "resample": settings.resample,
    }
    if settings.mode == "squash":
        kind = "ViTImageProcessor" if settings.resample == 2 else "SiglipImageProcessor"
        return processor | {"image_processor_type": kind, "size": square}
    processor |= {"size": edge, "crop_size": square, "do_center_crop": True}
    if settings.mode == "crop":
        return processor | {"image_processor_type": "CLIPImageProcessor"}
    if settings.mode == "anyres":
        pinpoints = [list(one) for one in settings.pinpoints]
        return processor | {"image_processor_type": "LlavaNextImageProcessor", "image_grid_pinpoints": pinpoints}
    own = {} if settings.background == settings.mean_colour else {"background": list(settings.background)}
    return processor | {"image_processor_type": "LlavaImageProcessor", "do_pad": True, **own}
