"""Mesh, sharding rules, and the warning about an accelerator that is not used."""

import dataclasses

import jax
import pytest
from jax.sharding import PartitionSpec

from vlm_jax.errors import InputError
from vlm_jax.models.parameters import abstract_parameters
from vlm_jax.models.presets import PRESETS
from vlm_jax.parallel import mesh as meshes
from vlm_jax.parallel.rules import parameter_shardings, partition


def test_the_axis_left_open_takes_the_devices_that_are_left():
    mesh = meshes.make_mesh(meshes.MeshShape(data=-1, fsdp=2, tensor=2))
    assert dict(mesh.shape) == {"data": 2, "fsdp": 2, "tensor": 2}


@pytest.mark.parametrize(
    "shape, line",
    [
        (meshes.MeshShape(3, 1, 1), "wants 3 devices; this run has 8"),
        (meshes.MeshShape(-1, 3, 1), "wants 6 devices; this run has 8"),
        (meshes.MeshShape(-1, -1, 1), "at most one is -1"),
        (meshes.MeshShape(0, 1, 1), "sizes are positive"),
    ],
)
def test_a_mesh_that_does_not_fit_the_devices_is_refused_with_the_numbers(shape, line):
    with pytest.raises(InputError, match=line):
        meshes.make_mesh(shape)


def test_every_large_matrix_of_a_published_model_is_split_over_both_axes_and_small_ones_are_not():
    mesh = meshes.make_mesh(meshes.MeshShape(data=1, fsdp=4, tensor=2))
    shapes = abstract_parameters(PRESETS["3b"])
    shardings = parameter_shardings(shapes, mesh)
    for path, leaf in shapes.items():
        spec = shardings[path].spec
        if path.endswith("/kernel") and "patch_embed" not in path:
            assert "fsdp" in spec, path
            assert ("tensor" in spec) == (not path.startswith("vision/") or "mlp" in path), path
        if path.endswith("/scale"):
            assert spec == PartitionSpec(), path
        shardings[path].shard_shape(leaf.shape)  # raises where an axis does not divide


def test_a_dimension_an_axis_does_not_divide_stays_whole():
    mesh = meshes.make_mesh(meshes.MeshShape(data=1, fsdp=4, tensor=2))
    assert partition("embedding", (1001, 512), mesh) == PartitionSpec(None, "fsdp")


def test_an_accelerator_that_jax_does_not_use_is_noticed(monkeypatch):
    import glob

    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    monkeypatch.setattr(glob, "glob", lambda pattern: ["/dev/nvidia0"] if "nvidia" in pattern else [])
    assert "ACCEL=cuda" in meshes.idle_accelerator()
    monkeypatch.setattr(glob, "glob", lambda pattern: ["/dev/accel0"] if "accel" in pattern else [])
    monkeypatch.setattr("os.path.exists", lambda path: False)
    assert "ACCEL=tpu" in meshes.idle_accelerator()
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")  # asked for: no warning
    assert meshes.idle_accelerator() is None


@dataclasses.dataclass(frozen=True)
class Device:
    """Of a slice; meshes ask nothing else of it."""

    number: int
    slice_index: int
    platform: str = "tpu"


def test_slices_differ_in_the_data_axis_alone():
    devices = [Device(number, number % 2) for number in range(8)]  # as they come, by turns
    mesh = meshes.make_mesh(meshes.MeshShape(2, -1, 2), devices)
    assert [[device.slice_index for device in part.flat] for part in mesh.devices] == [[0] * 4, [1] * 4]
    assert meshes.slice_count(meshes.make_mesh(meshes.MeshShape(4, 2, 1), devices)) == 2
    meshes.make_mesh(meshes.MeshShape(1, -1), devices[::2])  # one slice
    for shape in (meshes.MeshShape(1, 8), meshes.MeshShape(1, 4, 2), meshes.MeshShape(1, 1, 8)):
        with pytest.raises(InputError, match="among 2 slices, .* 4 devices of a slice; take --config.mesh.data=2, or"):
            meshes.make_mesh(shape, devices)
