"""A table of weight names against the tensors that are there: what is wrong with them, and parameters made of them.

Which names a model's parameters have is the models' (`vlm_jax.models.weight_names`), which files hold the tensors is
`weight_files`'.
"""

import functools
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from vlm_jax.checkpoint.weight_files import Described
from vlm_jax.deferred import Deferred
from vlm_jax.models.weight_names import WeightName


def mismatches(
    where: str,
    table: Sequence[WeightName],
    shapes: Mapping[str, Any],
    stored: Described,
    *,
    also: Collection[str] = (),
) -> list[str]:
    """What is wrong with tensors of these (shape, dtype as safetensors names it), by the table's names.

    Args:
      shapes: {path: what has a shape} of every parameter in the table.
      also: names that may be there beside the table's.
    """
    errors, expected = [], set(also)
    for entry in table:
        shape = shapes[entry.path].shape
        shape = tuple(entry.transform.shape(shape if entry.layers is None else shape[1:]))
        dtypes = set()
        for name in entry.tensors():
            expected.add(name)
            if name not in stored:
                errors.append(f"{where}: tensor {name} is missing")
                continue
            stored_shape, dtype = stored[name]
            dtypes.add(dtype)
            if stored_shape != shape:
                errors.append(f"{where}: tensor {name} has shape {stored_shape}, config.json implies {shape}")
        odd = dtypes - {"F32", "BF16", "F16"}
        if odd:
            errors.append(
                f"{where}: {entry.name} is {', '.join(sorted(odd))}; this reads F32, BF16 and F16 weights; save "
                "it again with one of these as dtype"
            )
    surplus = [name for name in stored if name not in expected and not name.endswith("inv_freq")]
    if surplus:
        more = f" and {len(surplus) - 3} more" if len(surplus) > 3 else ""
        errors.append(f"{where}: tensors no part of the model takes: {', '.join(sorted(surplus)[:3])}{more}")
    if len(errors) > 20:
        errors = [*errors[:20], f"{where}: … and {len(errors) - 20} more errors"]
    return errors


def joined(
    table: Sequence[WeightName], shapes: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> dict[str, Deferred]:
    """Parameters that are put together from the tensors of their layers, by the table's names, as they are read."""

    def of(entry: WeightName) -> Deferred:
        layer_tensors = [tensors[name] for name in entry.tensors()]
        # Layers that were saved in several dtypes are held in one that has the values of all.
        dtype = functools.reduce(jnp.promote_types, [tensor.dtype for tensor in layer_tensors])

        def read(layer: int | None, within: tuple[slice, ...]) -> np.ndarray:
            return entry.transform.read(layer_tensors[layer or 0])[within].astype(dtype, copy=False)

        return Deferred(shapes[entry.path].shape, dtype, read, stacked=entry.layers is not None)

    return {entry.path: of(entry) for entry in table}
