"""Image processors as checkpoints of training store them: the fields of one implementation, by their names."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from vlm_jax.errors import InputError
from vlm_jax.processing.image_processors import ImageProcessor
from vlm_jax.processing.image_processors.dynamic_resolution import DynamicResolution
from vlm_jax.processing.image_processors.fixed_views import FixedViews

IMPLEMENTATIONS = (DynamicResolution, FixedViews)
"""All that there are."""
KIND = "kind"
"""The key of the implementation's name. Checkpoints of earlier versions have no such key: the two implementations that
there were are told from each other by their fields."""


def to_json(images: ImageProcessor) -> dict[str, Any]:
    """Raises TypeError for an implementation that is none of `IMPLEMENTATIONS`: it could not be read back."""
    if type(images) not in IMPLEMENTATIONS:
        raise TypeError(f"{type(images).__name__} is no image processor of stored.IMPLEMENTATIONS; add it there")
    return {**dataclasses.asdict(images), KIND: type(images).__name__}


def read(values: Mapping[str, Any]) -> ImageProcessor:
    """What `to_json` made of one, after a way through JSON.

    Raises:
      InputError: no implementation has these fields.
    """
    name = values.get(KIND) or (FixedViews if "image_size" in values else DynamicResolution).__name__
    settings = {key: _tuples(value) for key, value in values.items() if key != KIND}
    for kind in IMPLEMENTATIONS:
        fields = {field.name: field for field in dataclasses.fields(kind)}
        needed = {key for key, field in fields.items() if field.default is dataclasses.MISSING} or {"patch_size"}
        # A field that came later has its default in what was stored before.
        if kind.__name__ == name and needed <= settings.keys() <= fields.keys():
            return kind(**settings)
    raise InputError(
        f"no image processor of this version has the settings {', '.join(sorted(values))}; it may be a newer one's"
    )


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
