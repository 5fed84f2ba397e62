"""The file of a model folder that says how images are prepared: which one counts, and which of its settings do.

transformers writes the settings of an image processor to `preprocessor_config.json`, and since version 5 to
`processor_config.json` below "image_processor". Where a folder has both, the latter counts, as in transformers: it is
what a later save left. Every setting is computed, or known to leave the pixels alone, or refused by name.
"""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vlm_jax.errors import InputError
from vlm_jax.json_objects import object_of
from vlm_jax.locations import check_ends

NESTED, FLAT = "processor_config.json", "preprocessor_config.json"
WITHOUT_EFFECT = frozenset(
    {
        # Names of classes and of files, and what transformers' processors accept for a call: no pixel depends on them.
        "_auto_class",
        "_processor_class",
        "_valid_processor_keys",
        "auto_map",
        "data_format",
        "default_to_square",
        "device",
        "disable_grouping",
        "feature_extractor_type",
        "image_processor_type",
        "input_data_format",
        "fps",  # of videos, as are the next ones
        "max_frames",
        "min_frames",
        "model_input_names",
        "num_frames",
        "padding_side",
        "processor_class",
        "return_tensors",
        "use_fast",
    }
)
PIXELS = frozenset(
    {
        "do_convert_rgb",
        "do_normalize",
        "do_rescale",
        "do_resize",
        "image_mean",
        "image_std",
        "resample",
        "rescale_factor",
        "size",
    }
)
"""Settings of every image processor that decide on the values of pixels."""
RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
"""Pillow's filters by the numbers that `resample` has."""


def read(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The settings of a folder's image processor, and the file they are in.

    Raises:
      InputError: no file describes the image processor, or one is no JSON object.
    """
    path = folder / NESTED
    if path.is_file():
        settings = _json_object(path).get("image_processor")
        if settings is not None:
            if not isinstance(settings, dict):
                raise InputError(f"{path}: image_processor is no JSON object; copy the file again")
            return path, settings
    path = folder / FLAT
    if not path.is_file():
        raise InputError(f"{folder}: no {FLAT} (or {NESTED}) that describes the images")
    return path, _json_object(path)


def _json_object(path: Path) -> dict[str, Any]:
    try:
        check_ends(path)
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=object_of)
    except RecursionError:
        raise InputError(f"{path}: unreadable (it is nested too deeply)") from None
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: unreadable ({error})") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds no JSON object that describes the images")
    return content


def errors(settings: Mapping[str, Any], known: Iterable[str]) -> list[str]:
    """What of an image processor's settings is not computed, in words.

    Args:
      known: the settings that are, beside `PIXELS`. Null is no error of a key that is not known: it says of an effect
        that there is none. Of a switch it means false, as in transformers.
    """
    computed = {*known, *PIXELS}
    found = [
        f"{key} is {value!r}, which is not a known setting of this image processor; remove it, or set it to null if it "
        "changes no pixel"
        for key, value in settings.items()
        if value is not None and key not in computed | WITHOUT_EFFECT
    ]
    for key in sorted(computed):
        if key.startswith("do_") and not isinstance(settings.get(key), bool | None):
            found.append(f"{key} is {settings[key]!r}; wanted true or false")
    for key in ("do_resize", "do_convert_rgb"):
        # Processors that know no conversion write null for it; images are RGB or refused there as well.
        if settings.get(key, True) is False or (key == "do_resize" and settings.get(key, True) is None):
            done = {"do_resize": "resized", "do_convert_rgb": "converted to RGB"}[key]
            found.append(f"{key} is {json.dumps(settings[key])}, and images are always {done} here; set it to true")
    if settings.get("resample", 3) not in RESAMPLING:
        names = ", ".join(f"{number} ({name})" for number, name in RESAMPLING.items())
        found.append(f"resample is {settings['resample']!r}; known are {names}")
    if not _positive(factor := settings.get("rescale_factor", 1 / 255)):
        found.append(f"rescale_factor is {factor!r}; wanted a number above 0")
    return found


def normalisation(
    settings: Mapping[str, Any], mean: tuple[float, ...], std: tuple[float, ...]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, std) by which (pixel / 255 - mean) / std is what the image processor computes.

    Another `rescale_factor`, `do_rescale: false` and `do_normalize: false` are scaled into them:
    (pixel · f - m) / s = (pixel / 255 - m / 255f) / (s / 255f).

    Args:
      mean, std: those of the processor's class, where the file has none.

    Raises:
      ValueError: they are not three numbers each, or a deviation is not above 0.
    """
    mean, std = _triple(settings, "image_mean", mean), _triple(settings, "image_std", std)
    if min(std) <= 0:
        raise ValueError(f"image_std is {list(std)}; wanted numbers above 0")
    if not settings.get("do_normalize", True):
        mean, std = (0.0,) * 3, (1.0,) * 3
    factor = settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else 1.0
    if math.isclose(factor * 255, 1, rel_tol=1e-9):  # 0.00392156862745098 and the like: nothing to scale
        return mean, std
    return tuple(one / (255 * factor) for one in mean), tuple(one / (255 * factor) for one in std)


def _triple(settings: Mapping[str, Any], key: str, default: tuple[float, ...]) -> tuple[float, ...]:
    value = settings.get(key, default)
    values = tuple(value) if isinstance(value, list | tuple) else (value,) * 3
    numbers = [one for one in values if isinstance(one, int | float) and not isinstance(one, bool)]
    if len(values) != 3 or len(numbers) != 3 or not all(map(math.isfinite, numbers)):
        raise ValueError(f"{key} is {value!r}; wanted three numbers")
    return tuple(map(float, values))


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0
