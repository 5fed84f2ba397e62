"""Where a model that answers lies: on one device, or divided among several that compute each layer together."""

import contextlib
import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding

from vlm_jax.errors import InputError
from vlm_jax.parallel.mesh import MeshShape, make_mesh
from vlm_jax.parallel.rules import partition


@dataclasses.dataclass(frozen=True)
class Placement:
    """Attributes:
    devices: of this process; of several each holds its heads, and its part of every MLP and table (the axis `tensor`
      of a training's mesh). What does not divide among them lies on each.
    """

    devices: tuple[jax.Device, ...]

    @property
    def mesh(self) -> Mesh | None:
        """None on one device."""
        return make_mesh(MeshShape(tensor=len(self.devices)), list(self.devices)) if len(self.devices) > 1 else None

    def put(self, path: str, array: Any) -> jax.Array:
        """A parameter, which is read from where it is now."""
        if (mesh := self.mesh) is None:
            return jax.device_put(array, self.devices[0])
        return jax.device_put(array, NamedSharding(mesh, partition(path, array.shape, mesh)))

    @contextlib.contextmanager
    def __call__(self):
        """A context in which programs run here."""
        mesh = self.mesh
        with jax.default_device(self.devices[0]), contextlib.nullcontext() if mesh is None else jax.set_mesh(mesh):
            yield


def placed(tensor: int) -> Placement:
    """On the first device of this process, or divided among the first `tensor`.

    Raises:
      InputError: there are not so many.
    """
    devices = jax.local_devices()
    if not 1 <= tensor <= len(devices):
        raise InputError(f"tensor is {tensor}: weights are divided among 1 to {len(devices)} devices here")
    return Placement(tuple(devices[:tensor]))


def groups(devices: Sequence[jax.Device], tensor: int) -> list[Placement]:
    """Of as many devices as divide into groups of `tensor`: one for each group."""
    return [Placement(tuple(devices[start : start + tensor])) for start in range(0, len(devices) - tensor + 1, tensor)]
