"""Conversions and merges hold a layer or so at a time, and a quantised load never the whole model."""

import dataclasses
import functools
import tracemalloc

import jax
import numpy as np
import pytest

import vlm_jax
from benchmarks import conversion_memory as measured
from vlm_jax.adapters import quantised
from vlm_jax.checkpoint import description, hf_folder
from vlm_jax.checkpoint.model_source import open_model
from vlm_jax.models.parameters import abstract_parameters
from vlm_jax.models.presets import PRESETS

MB = 10**6


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A checkpoint of 0.2 GB whose largest layer is 4 MB, its size in bytes, and an adapter for it."""
    folder = tmp_path_factory.mktemp("wide")
    small = PRESETS["small"]
    shapes = dataclasses.replace(
        small,
        decoder=dataclasses.replace(
            small.decoder, hidden=1024, layers=12, mlp=2048, heads=32, mrope_sections=(4, 6, 6)
        ),
        vision=dataclasses.replace(small.vision, out_hidden=1024),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "wide", shapes)
        size = measured.make_checkpoint(folder / "base", "wide")
    measured.make_adapter(folder / "adapter", folder / "base")
    assert size > 200 * MB
    return folder, size


def peak_of(do) -> int:
    """Bytes that NumPy and Python held at one time meanwhile; mapped files do not count."""
    tracemalloc.start()
    try:
        do()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("dtype", ["keep", "float32"])
def test_hugging_face_to_hugging_face_holds_a_few_layers(wide, tmp_path, dtype):
    folder, _ = wide
    assert peak_of(lambda: vlm_jax.export(folder / "base", tmp_path / "out", dtype=dtype)) < 60 * MB
    if dtype == "keep":
        assert measured.same(folder / "base", tmp_path / "out")
    else:
        ours, theirs = measured.tensors(tmp_path / "out"), measured.tensors(folder / "base")
        assert all(np.array_equal(tensor, theirs[name].astype(np.float32)) for name, tensor in ours.items())


def test_a_merge_goes_tensor_by_tensor_and_is_pefts(wide, tmp_path):
    folder, _ = wide
    adapters = sum(path.stat().st_size for path in (folder / "adapter").iterdir())
    peak = peak_of(lambda: vlm_jax.export(folder / "adapter", tmp_path / "out"))
    assert peak < 2 * adapters + 60 * MB
    changed, wrong = measured.merged_as_peft_does(folder / "base", folder / "adapter", tmp_path / "out")
    assert wrong == 0 and changed == sum(
        tensor.ndim == 2 and "embed_tokens" not in name for name, tensor in measured.tensors(folder / "base").items()
    )


@pytest.mark.evidence
def test_conversions_in_processes_of_their_own_stay_far_below_the_model(wide, tmp_path):
    folder, size = wide
    out, _, _ = measured.convert(folder / "base", tmp_path / "run", "orbax", devices=8)
    back, _, _ = measured.convert(tmp_path / "run", tmp_path / "back", "hf")
    assert measured.same(folder / "base", tmp_path / "back")
    # Python with its libraries is 140 MB of it.
    assert max(out, back) < 140 * MB + size / 2


def test_each_device_is_given_its_part_and_the_host_holds_no_more(wide):
    folder, _ = wide
    mesh = jax.make_mesh((8,), ("fsdp",), devices=jax.devices()[:8])
    largest = []

    def place(path, array):
        axis = jax.sharding.PartitionSpec(*[None] * (array.ndim - 1), "fsdp" if array.shape[-1] % 8 == 0 else None)
        sharding = jax.sharding.NamedSharding(mesh, axis)

        def part(index):
            stored = array[index]
            largest.append(stored.nbytes)
            return stored

        return {path: jax.make_array_from_callback(array.shape, sharding, part)}

    parameters = open_model(str(folder / "base")).read(place=place)
    assert max(largest) == max(array.nbytes for array in parameters.values()) // 8
    whole = hf_folder.deferred(folder / "base", description.read_config(folder / "base"))
    for path in ("embedding", "decoder/layers/layer/mlp/down_proj/kernel"):
        np.testing.assert_array_equal(parameters[path], whole[path])


@pytest.mark.parametrize("adapter", [False, True])
def test_a_quantised_load_never_holds_the_model_beside_it(wide, monkeypatch, adapter):
    folder, size = wide
    before, live, one = sum(array.nbytes for array in jax.live_arrays()), [], quantised._quantise

    def watched(kernel, kind):
        live.append(sum(array.nbytes for array in jax.live_arrays()) - before)
        assert kernel.ndim == 2
        return one(kernel, kind)

    monkeypatch.setattr(quantised, "_quantise", watched)
    model = vlm_jax.load(folder / ("adapter" if adapter else "base"), dtype="bfloat16", quantise="nf4")
    packed = sum(array.nbytes for array in model.parameters.values())
    assert len(live) > 12 * 7 and max(live) < packed + 30 * MB < size / 2
    shapes = abstract_parameters(model.config, attach=[functools.partial(quantised.attach, kind="nf4")])
    assert {path: array.shape for path, array in model.parameters.items()} == {
        path: leaf.shape for path, leaf in shapes.items()
    }
