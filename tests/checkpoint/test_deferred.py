"""Deferred arrays give what NumPy gives; files and checkpoints written from them are what the libraries write."""

import jax
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
import pytest
from safetensors.numpy import save_file

from tests.checkpoint.folders import save_folder, tensors
from vlm_jax.checkpoint import description, hf_folder, run_folder, safetensors_file
from vlm_jax.checkpoint.model_source import open_model
from vlm_jax.deferred import Deferred, copy_into
from vlm_jax.models.parameters import unnest
from vlm_jax.processing.image_processors.dynamic_resolution import DynamicResolution

KEYS = [
    (),
    ...,
    1,
    -1,
    slice(1, 3),
    (slice(None), slice(2, 5)),
    (2, slice(None), slice(1, 4)),
    (slice(0, 2), slice(3, None), 1),
    (..., 0),
    (0, ..., slice(-2, None)),
    slice(3, 1),
]


@pytest.mark.parametrize("stacked", [True, False])
@pytest.mark.parametrize("key", KEYS, ids=str)
def test_parts_are_those_of_the_array(stacked, key):
    array, asked = np.arange(4 * 6 * 5, dtype=np.float32).reshape(4, 6, 5), []

    def read(layer, within):
        asked.append(layer)
        return array[within] if layer is None else array[layer][within]

    deferred = Deferred(array.shape, array.dtype, read, stacked=stacked)
    part = deferred[key]
    np.testing.assert_array_equal(part, array[key])
    assert (part.shape, part.dtype) == (array[key].shape, array.dtype)
    layers = np.arange(4)[key[0] if isinstance(key, tuple) and key and key[0] is not ... else slice(None)]
    if isinstance(key, int | slice):
        layers = np.arange(4)[key]
    assert asked == (np.atleast_1d(layers).tolist() if stacked else [None])


def test_whole_arrays_are_memory_of_their_own_that_jax_takes_over():
    held = np.ones((2, 3, 4), np.float32)
    for stacked in (True, False):
        read = (lambda layer, within: held[layer][within]) if stacked else (lambda layer, within: held[within])
        whole = np.asarray(Deferred(held.shape, held.dtype, read, stacked=stacked))
        assert not np.shares_memory(whole, held) and whole.ctypes.data % 64 == 0
        assert jax.device_put(whole).unsafe_buffer_pointer() == whole.ctypes.data


def test_a_cast_is_of_each_part():
    held = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    deferred = Deferred(held.shape, held.dtype, lambda layer, within: held[layer][within], stacked=True)
    narrow = deferred.astype("bfloat16")
    assert narrow.dtype == ml_dtypes.bfloat16 and narrow.nbytes == deferred.nbytes // 2 and narrow.size == 24
    np.testing.assert_array_equal(narrow[1, :, 2], held.astype(ml_dtypes.bfloat16)[1, :, 2])
    np.testing.assert_array_equal(np.asarray(narrow, np.float32), held.astype(ml_dtypes.bfloat16).astype(np.float32))
    assert deferred.astype(np.float32) is deferred


@pytest.mark.parametrize("shape", [(70, 33), (33, 70), (1, 5), (64, 64)])
def test_turned_matrices_are_copied_whole(shape):
    source = np.random.default_rng(0).integers(0, 999, shape)
    target = np.empty(shape[::-1], source.dtype)
    copy_into(target, source.T)
    np.testing.assert_array_equal(target, source.T)


def test_a_safetensors_file_is_the_librarys_byte_for_byte_in_whatever_order_tensors_come(tmp_path):
    rng = np.random.default_rng(0)
    held = {
        "b.weight": rng.normal(size=(3, 5)).astype(ml_dtypes.bfloat16),
        "a.weight": rng.normal(size=(7,)).astype(np.float16),
        "z": rng.normal(size=(2, 3)).astype(np.float32),
        "a.bias": rng.normal(size=(1,)).astype(ml_dtypes.bfloat16),
        "empty": np.zeros((0, 4), np.float32),
        "ชื่อ": np.ones((), np.float32),
    }
    described = {name: (tensor.dtype, tensor.shape) for name, tensor in held.items()}
    save_file(held, tmp_path / "theirs", metadata={"format": "pt"})
    for number, order in enumerate((list(held), list(reversed(held)))):
        safetensors_file.write(tmp_path / f"{number}", described, ((name, held[name]) for name in order))
        assert (tmp_path / f"{number}").read_bytes() == (tmp_path / "theirs").read_bytes()
    views = safetensors_file.mapped(tmp_path / "theirs")
    assert views.keys() == held.keys()
    for name, tensor in held.items():
        np.testing.assert_array_equal(views[name], tensor)
        assert not tensor.size or isinstance(views[name], np.memmap)
    with pytest.raises(ValueError, match="1 tensors were not given, such as b.weight"):
        safetensors_file.write(tmp_path / "x", described, ((name, held[name]) for name in list(held)[1:]))
    with pytest.raises(ValueError, match="described as"):
        safetensors_file.write(tmp_path / "x", described, iter([("b.weight", held["z"])]))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "source"
    save_folder(folder)
    return folder


def test_a_deferred_checkpoint_is_one_that_orbax_restores_by_itself(base, tmp_path):
    config = description.read_config(base)
    run_folder.write_run_folder(
        tmp_path / "run", base, hf_folder.deferred(base, config), description.read_image_processor(base, config)
    )
    held = unnest(ocp.StandardCheckpointer().restore(tmp_path / "run" / "checkpoints" / "0" / "parameters"))
    for path, array in hf_folder.read_parameters(base, config).items():
        np.testing.assert_array_equal(held[path], array)
    assert {type(leaf) for leaf in open_model(str(tmp_path / "run")).deferred().values()} == {Deferred}


def test_a_checkpoint_of_arrays_whose_chunks_hold_several_layers_is_converted_as_well(base, tmp_path):
    config = description.read_config(base)
    run_folder.write_assets(tmp_path / "run", base)
    checkpoints = run_folder.Checkpoints(tmp_path / "run")
    checkpoints.save(
        0,
        hf_folder.read_parameters(base, config),
        run_folder.settings_json(description.image_processor_by(base, DynamicResolution.from_json)),
    )
    checkpoints.close()
    source = open_model(str(tmp_path / "run"))
    hf_folder.write_folder(tmp_path / "back", config, source.deferred(), base)
    back, held = tensors(tmp_path / "back"), tensors(base)
    assert back.keys() == held.keys() and all(back[name].equal(tensor) for name, tensor in held.items())
    for path, array in source.read().items():
        np.testing.assert_array_equal(array, source.deferred()[path])


def test_a_checkpoint_that_breaks_while_it_is_read_is_named(base, tmp_path):
    config = description.read_config(base)
    run_folder.write_run_folder(
        tmp_path / "run", base, hf_folder.deferred(base, config), description.read_image_processor(base, config)
    )
    deferred = open_model(str(tmp_path / "run")).deferred()
    for path in (tmp_path / "run" / "checkpoints" / "0" / "parameters").rglob("d/*"):
        path.write_bytes(b"")
    with pytest.raises(hf_folder.InputError, match=r"checkpoints/0: damaged or unreadable checkpoint"):
        for array in deferred.values():
            array[...]
