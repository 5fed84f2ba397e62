"""Deferred parameters into an Orbax checkpoint and out of one: piece by piece, on no device.

Orbax knows how to save and restore arrays that are in memory. What is deferred goes into the same format, and comes
from it, by a type handler of its own, so that a checkpoint is restored like any other and any other can be converted.
"""

import contextlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import PurePath
from typing import Any

import numpy as np
import orbax.checkpoint as ocp
import tensorstore

from vlm_jax.deferred import Deferred
from vlm_jax.models.parameters import nest, unnest

CHUNK_BYTES = 16 << 20
"""The largest piece that is compressed, and later decompressed, at one time: what holds a part of an array reads little
more than that part."""


class DeferredHandler(ocp.type_handlers.NumpyHandler):
    """Writes a `Deferred` as a NumPy array is written, a chunk at a time, and restores arrays as `Deferred`."""

    def __init__(self, reading: Callable[[], AbstractContextManager] = contextlib.nullcontext) -> None:
        """
        Args:
          reading: what every read of a restored array happens in.
        """
        super().__init__(deepcopy_host_arrays=False)
        self._reading = reading
        self._whole: dict[str, np.ndarray] = {}

    async def deserialize(
        self, infos: Sequence[ocp.type_handlers.ParamInfo], args: Sequence[ocp.RestoreArgs] | None = None
    ) -> list[Deferred]:
        opened = []
        for info in infos:
            spec = ocp.type_handlers.get_json_tspec_read(info, use_ocdbt=bool(info.is_ocdbt_checkpoint))
            stored = await tensorstore.open(tensorstore.Spec(spec), open=True, context=info.ts_context)
            opened.append(self._deferred(info.name, stored))
        return opened

    def _deferred(self, name: str, stored: tensorstore.TensorStore) -> Deferred:
        by_layer = stored.ndim > 1 and stored.chunk_layout.read_chunk.shape[0] == 1

        def read(layer: int | None, within: tuple[slice, ...]) -> np.ndarray:
            part = within if layer is None else (layer, *within)
            with self._reading():
                if by_layer or layer is None:
                    return stored[part].read().result()
                # A chunk holds several layers, as training saves them: all of it is decompressed for any of them.
                if name not in self._whole:
                    self._whole.clear()
                    self._whole[name] = stored.read().result()
            return self._whole[name][part]

        return Deferred(stored.shape, stored.dtype.numpy_dtype, read, stacked=stored.ndim > 1)

    async def _open_and_write(self, value: Deferred, tspec: dict[str, Any], ts_context: tensorstore.Context) -> None:
        stored = await tensorstore.open(tensorstore.Spec(tspec), create=True, open=True, context=ts_context)
        chunk = stored.chunk_layout.write_chunk.shape
        starts = (range(0, size, step) for size, step in zip(value.shape, chunk, strict=True))
        for corner in itertools.product(*starts):
            part = tuple(
                slice(at, min(at + step, size)) for at, step, size in zip(corner, chunk, value.shape, strict=True)
            )
            await stored[part].write(value[part])


def arguments(parameters: Mapping[str, Deferred]) -> ocp.args.CheckpointArgs:
    """What Orbax is given, with `handlers`, to save deferred parameters by paths."""
    layers_apart = {
        path: ocp.SaveArgs(chunk_byte_size=CHUNK_BYTES, shard_axes=(0,) if leaf.stacked else ())
        for path, leaf in parameters.items()
    }
    return ocp.args.PyTreeSave(nest(parameters), save_args=nest(layers_apart))


def handlers(item: str) -> ocp.handlers.DefaultCheckpointHandlerRegistry:
    """Handlers of a checkpoint whose item of that name is of deferred parameters, which are only to be saved."""
    registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
    registry.add(item, ocp.args.PyTreeSave, _handler())
    return registry


def restore(
    path: PurePath, abstract: Mapping[str, Any], reading: Callable[[], AbstractContextManager]
) -> dict[str, Deferred]:
    """The parameters that were saved at a path, deferred.

    Args:
      abstract: {path: anything with shape and dtype} of them.
      reading: what every read happens in: it may put errors into words.
    """
    restore_args = {path: ocp.RestoreArgs(restore_type=Deferred) for path in abstract}
    request = ocp.args.PyTreeRestore(nest(dict(abstract)), restore_args=nest(restore_args))
    return unnest(_handler(reading).restore(path, args=request))


def _handler(reading: Callable[[], AbstractContextManager] = contextlib.nullcontext) -> ocp.PyTreeCheckpointHandler:
    # A registry of types by itself: what is written shall say that it is of NumPy arrays, as another type already does.
    types = ocp.type_handlers.create_type_handler_registry((Deferred, DeferredHandler(reading)))
    return ocp.PyTreeCheckpointHandler(type_handler_registry=types)
