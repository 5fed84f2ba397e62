"""The device mesh: axes `data`, `fsdp`, `tensor`; a batch is split over data × fsdp. Slices differ in `data` alone.

Which parameter lies where is decided in `rules`.
"""

import dataclasses
import math

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from vlm_jax.deferred import Deferred
from vlm_jax.errors import InputError
from vlm_jax.models.config import VLMConfig
from vlm_jax.processing.rows import Batch

AXES = ("data", "fsdp", "tensor")


@dataclasses.dataclass(frozen=True)
class MeshShape:
    """Devices along each axis; one of them may be -1: what is left."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1

    def over(self, devices: int) -> tuple[int, int, int]:
        """The sizes of the axes on so many devices; raises InputError when they do not multiply to that number."""
        sizes = dataclasses.astuple(self)
        known = math.prod(size for size in sizes if size != -1)
        if sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
            raise InputError(f"mesh {dict(zip(AXES, sizes, strict=True))}: sizes are positive, at most one is -1")
        data, fsdp, tensor = (max(1, devices // known) if size == -1 else size for size in sizes)
        if data * fsdp * tensor != devices:
            raise InputError(
                f"mesh {dict(zip(AXES, (data, fsdp, tensor), strict=True))} wants {data * fsdp * tensor} devices; "
                f"this run has {devices}"
            )
        return data, fsdp, tensor


def make_mesh(shape: MeshShape, devices: list | None = None) -> Mesh:
    """Raises InputError when the axes do not multiply to the number of devices."""
    devices = sorted(jax.devices() if devices is None else devices, key=_slice)
    sizes = shape.over(len(devices))
    check_slices(sizes, len({_slice(device) for device in devices}))
    return Mesh(np.asarray(devices).reshape(sizes), AXES, axis_types=(AxisType.Auto,) * 3)


def check_slices(sizes: tuple[int, int, int], slices: int) -> None:
    """Raises InputError unless slices differ in the data axis alone: what is divided within a step goes over links."""
    data, fsdp, tensor = sizes
    if data % slices:
        a_slice = data * fsdp * tensor // slices
        raise InputError(
            f"mesh {dict(zip(AXES, sizes, strict=True))} divides parameters or heads among {slices} slices, and the "
            f"network between them is too slow for that: fsdp × tensor go over the {a_slice} devices of a slice; "
            f"take --config.mesh.data={slices}, or a multiple of it, with --config.mesh.fsdp=-1"
        )


def _slice(device) -> int:
    """The slice of a TPU device; what is no TPU is one."""
    return getattr(device, "slice_index", None) or 0


def slice_count(mesh: Mesh) -> int:
    """Slices of TPUs that a mesh lies on."""
    return len({_slice(device) for device in mesh.devices.flat})


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows over data × fsdp; every other axis whole."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def row_shards(mesh: Mesh) -> int:
    """Among how many groups of devices the rows of a batch are divided."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def check_rows(mesh: Mesh, rows: int, parts: int = 1) -> None:
    """Raises InputError unless a batch of `rows`, in so many parts, divides over the mesh, and so over processes."""
    processes = len({device.process_index for device in mesh.devices.flat})
    check_division((mesh.shape["data"], mesh.shape["fsdp"], mesh.shape["tensor"]), rows, parts, processes)


def check_division(sizes: tuple[int, int, int], rows: int, parts: int, processes: int) -> None:
    """What `check_rows` does, of axes as `MeshShape.over` gives them: for a mesh whose devices are elsewhere."""
    data, fsdp, tensor = sizes
    ways = data * fsdp * parts
    if rows % ways:
        divided = f", in {parts} parts" if parts > 1 else ""
        raise InputError(
            f"batch.rows {rows} does not divide over data × fsdp = {data} × {fsdp}{divided}; take a multiple of {ways}"
        )
    if data * fsdp % processes:
        raise InputError(
            f"data × fsdp = {data} × {fsdp} does not divide among {processes} processes: each loads rows of its own; "
            f"take a mesh.tensor within the {data * fsdp * tensor // processes} devices of one"
        )


def check_heads(mesh: Mesh, model: VLMConfig) -> None:
    """Raises InputError unless the tensor axis divides the heads it splits."""
    ways, decoder, vision = mesh.shape["tensor"], model.decoder, model.vision
    if decoder.kv_heads % ways or vision.heads % ways:
        raise InputError(
            f"mesh.tensor {ways} does not divide the decoder's {decoder.kv_heads} key-value heads and the tower's "
            f"{vision.heads} heads; take at most {math.gcd(decoder.kv_heads, vision.heads)}, and the rest as mesh.fsdp"
        )


def spread(array: np.ndarray | jax.Array | Deferred, sharding: NamedSharding, dtype=None) -> jax.Array:
    """An array that every process has, onto the devices of all: each process puts down the parts of its own.

    A part is cast to `dtype` by itself, so that of what is deferred a process reads its own parts and no others.
    """
    dtype = dtype or array.dtype
    if isinstance(array, jax.Array):
        return jax.device_put(array.astype(dtype), sharding)
    return jax.make_array_from_callback(array.shape, sharding, lambda part: np.asarray(array[part], dtype))


def to_devices(batch: Batch, mesh: Mesh) -> Batch:
    """This process's rows become its part of the global batch."""
    sharding = batch_sharding(mesh)
    return jax.tree.map(lambda array: jax.make_array_from_process_local_data(sharding, array), batch)


def describe_devices() -> str:
    """The machine, in words: "8 × TPU v5 lite" or "cpu"."""
    devices = jax.devices()
    kind = devices[0].device_kind
    return f"{len(devices)} × {kind}" if devices[0].platform != "cpu" else f"CPU ({len(devices)} JAX device(s))"


def idle_accelerator() -> str | None:
    """What accelerator this machine shows although JAX runs on the CPU, or None.

    A wheel without CUDA, or a driver that did not load, makes JAX fall back to the CPU, a hundred times slower.
    """
    import glob
    import os

    if jax.default_backend() != "cpu" or os.environ.get("JAX_PLATFORMS") == "cpu":
        return None
    if glob.glob("/dev/nvidia[0-9]*") or os.path.exists("/proc/driver/nvidia/version"):
        return "an NVIDIA GPU is visible; install the CUDA build: make setup ACCEL=cuda"
    if glob.glob("/dev/accel*") or glob.glob("/dev/vfio/[0-9]*"):
        return "a TPU is visible; install the TPU build: make setup ACCEL=tpu"
    return None
