"""Image processors as checkpoints of training store them: the fields of one implementation, by their names."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from vlm_jax.errors import InputError
from vlm_jax.processing.image_processors import ImageProcessor
from vlm_jax.processing.image_processors.dynamic_resolution import DynamicResolution
from vlm_jax.processing.image_processors.fixed_views import FixedViews

IMPLEMENTATIONS = (DynamicResolution, FixedViews)
"""All that there are. No two have the same fields, which is how one is told from another."""


def to_json(images: ImageProcessor) -> dict[str, Any]:
    return dataclasses.asdict(images)  # type: ignore[call-overload]


def read(values: Mapping[str, Any]) -> ImageProcessor:
    """What `to_json` made of one, after a way through JSON.

    Raises:
      InputError: no implementation has these fields.
    """
    for kind in IMPLEMENTATIONS:
        fields = {field.name: field for field in dataclasses.fields(kind)}
        needed = {name for name, field in fields.items() if field.default is dataclasses.MISSING}
        # A field that came later has its default in what was stored before.
        if needed <= values.keys() <= fields.keys():
            return kind(**{name: _tuples(value) for name, value in values.items()})
    raise InputError(
        f"no image processor of this version has the settings {', '.join(sorted(values))}; it may be a newer one's"
    )


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
