"""Hugging Face folders go in and out without a changed bit, and everything wrong with one is said at once."""

import json
import shutil
import stat
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, GenerationConfig, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from tests.checkpoint.folders import (
    IMAGES,
    VOCAB,
    change_json,
    change_tensors,
    flat_config,
    memory_name,
    save_folder,
    tensors,
)
from vlm_jax.checkpoint import description, hf_folder, safetensors_file
from vlm_jax.deferred import Deferred
from vlm_jax.errors import InputError
from vlm_jax.models.hf_config import from_hf, to_hf
from vlm_jax.processing.processor import image_settings_json, read_image_settings

SHARD = "20KB"
QUESTION = [{"role": "user", "content": "a few words"}]


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """Folders by their properties, made once; tests that change one copy it."""
    held = {}

    def make(**properties) -> Path:
        key = tuple(sorted(properties.items(), key=str))
        if key not in held:
            held[key] = tmp_path_factory.mktemp("made") / "source"
            save_folder(held[key], **properties)
        return held[key]

    return make


@pytest.fixture
def folder(made, tmp_path) -> Path:
    """A tied, single-file folder of the test's own."""
    return Path(shutil.copytree(made(), tmp_path / "model"))


@pytest.fixture
def sharded(made, tmp_path) -> Path:
    return Path(shutil.copytree(made(shard=SHARD), tmp_path / "sharded"))


def read(folder: Path, **settings):
    return hf_folder.read_parameters(folder, description.read_config(folder), **settings)


def equal(first, second) -> None:
    assert set(first) == set(second)
    for path, array in first.items():
        assert array.dtype == second[path].dtype, path
        assert np.asarray(array).tobytes() == np.asarray(second[path]).tobytes(), path


def equal_tensors(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert set(first) == set(second)
    for name, tensor in first.items():
        assert (tensor.dtype, tensor.shape) == (second[name].dtype, second[name].shape), name
        assert torch.equal(tensor.contiguous().view(torch.uint8), second[name].contiguous().view(torch.uint8)), name


# --- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False])
def test_parameters_are_the_tensors_of_the_files_turned_as_the_model_wants_them(made, tied):
    held, read_in = tensors(made(tied=tied)), read(made(tied=tied))
    for layer in range(2):
        for path, name in {
            "decoder/layers/layer/attention/q_proj/kernel": "model.layers.{}.self_attn.q_proj.weight",
            "decoder/layers/layer/attention/k_proj/bias": "model.layers.{}.self_attn.k_proj.bias",
            "decoder/layers/layer/mlp/down_proj/kernel": "model.layers.{}.mlp.down_proj.weight",
            "decoder/layers/layer/input_norm/scale": "model.layers.{}.input_layernorm.weight",
            "decoder/layers/layer/mlp_norm/scale": "model.layers.{}.post_attention_layernorm.weight",
            "vision/blocks/layer/qkv/kernel": "visual.blocks.{}.attn.qkv.weight",
            "vision/blocks/layer/norm2/scale": "visual.blocks.{}.norm2.weight",
            "vision/blocks/layer/mlp/gate_proj/bias": "visual.blocks.{}.mlp.gate_proj.bias",
        }.items():
            assert np.array_equal(read_in[path][layer], held[name.format(layer)].numpy().T), name
    patch = held["visual.patch_embed.proj.weight"].numpy()  # [d, C, T, ph, pw]
    for slice_ in range(2):
        kernel = read_in["vision/patch_embed/kernel"][slice_].reshape(3, 14, 14, 16)
        assert np.array_equal(kernel, patch[:, :, slice_].transpose(1, 2, 3, 0))
    assert ("head" in read_in) == (not tied) == ("lm_head.weight" in held)
    if not tied:
        assert np.array_equal(read_in["head"], held["lm_head.weight"].numpy().T)


@pytest.mark.parametrize("tied", [True, False])
def test_one_file_and_many_shards_read_equal(made, tied):
    single, many = made(tied=tied), made(tied=tied, shard=SHARD)
    assert len(list(many.glob("*.safetensors"))) > 5
    equal(read(single), read(many))


@pytest.mark.parametrize("tied", [True, False])
def test_both_layouts_of_names_read_equal(made, tmp_path, tied):
    other = Path(shutil.copytree(made(tied=tied), tmp_path / "memory"))

    def rename(held):
        for name in list(held):
            held[memory_name(name)] = held.pop(name)

    change_tensors(other, rename)
    assert {name.split(".")[1] for name in tensors(other) if name.startswith("model.")} == {"language_model", "visual"}
    equal(read(made(tied=tied)), read(other))


@pytest.mark.parametrize("tied", [True, False])
def test_the_flat_and_the_nested_form_of_config_json_read_equal(made, tied):
    nested = json.loads((made(tied=tied) / "config.json").read_text())
    flat = flat_config(made(tied=tied))
    assert "text_config" in nested and "text_config" not in flat and "hidden_size" in flat
    config = from_hf(flat)
    assert from_hf(nested) == config
    assert (config.decoder.tied, config.decoder.mrope_sections, config.decoder.kv_heads) == (tied, (1, 1, 2), 2)
    assert (config.vision.hidden, config.vision.global_blocks, config.vision.out_hidden) == (16, (1,), 32)
    assert from_hf(to_hf(config)) == config


@pytest.mark.parametrize("place", ["top", "text"])
def test_a_tied_head_may_be_said_in_either_place(folder, place):
    # transformers before 5 wrote it into text_config.
    held = json.loads((folder / "config.json").read_text())
    del held["tie_word_embeddings"]
    assert not from_hf(held).decoder.tied
    (held if place == "top" else held["text_config"])["tie_word_embeddings"] = True
    assert from_hf(held).decoder.tied


def test_settings_of_the_rotations_are_read_from_where_transformers_5_puts_them(folder):
    held = json.loads((folder / "config.json").read_text())
    held["text_config"]["rope_parameters"]["rope_theta"] = 5e5
    held["vision_config"]["rope_parameters"]["rope_theta"] = 2e4
    config = from_hf(held)
    assert (config.decoder.rope_theta, config.vision.rope_theta) == (5e5, 2e4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_weights_keep_their_dtype_unless_another_is_asked_for(made, dtype):
    source = made(dtype=dtype)
    kept = {str(array.dtype) for array in read(source).values()}
    assert kept == {str(dtype).removeprefix("torch.")}
    exact = read(source)["decoder/norm/scale"].astype(jnp.float32)
    assert np.array_equal(exact, tensors(source)["model.norm.weight"].float().numpy())
    assert {str(array.dtype) for array in read(source, dtype=jnp.float32).values()} == {"float32"}


def test_a_tied_head_that_is_stored_all_the_same_is_left_aside(folder, made):
    change_tensors(folder, lambda held: held.update({"lm_head.weight": held["model.embed_tokens.weight"].clone()}))
    equal(read(folder), read(made()))


def test_every_parameter_is_placed_once_as_it_is_read(folder):
    placed = []

    def place(path, array):
        placed.append(path)
        assert isinstance(array, Deferred) and array[...].flags.c_contiguous
        return {path: jnp.asarray(array[...])}

    read_in = read(folder, place=place)
    assert sorted(placed) == sorted(read_in)


def test_the_pixels_are_normalised_as_the_image_processor_says(folder):
    change_json(
        folder / "preprocessor_config.json", lambda held: held.update(image_mean=[0.5] * 3, image_std=[0.25] * 3)
    )
    vision = description.read_config(folder).vision
    assert (vision.pixel_mean, vision.pixel_std) == ((0.5,) * 3, (0.25,) * 3)


@pytest.mark.parametrize(
    "held",
    [
        {"min_pixels": 3136, "max_pixels": 50176},
        {"size": {"shortest_edge": 3136, "longest_edge": 50176}},
        {"size": {"min_pixels": 3136, "max_pixels": 50176}},
        {"min_pixels": 3136, "max_pixels": 50176, "size": {"shortest_edge": 1, "longest_edge": 2}},
    ],
)
@pytest.mark.parametrize("name", ["preprocessor_config.json", "processor_config.json"])
def test_picture_bounds_are_read_in_every_spelling(tmp_path, held, name):
    held = {"image_processor_type": "Qwen2VLImageProcessorFast", "patch_size": 14, "merge_size": 2, **held}
    nested = {"processor_class": "Qwen2_5_VLProcessor", "image_processor": held}
    (tmp_path / name).write_text(json.dumps(nested if name.startswith("processor") else held))
    settings = read_image_settings(tmp_path)
    assert (settings.min_pixels, settings.max_pixels) == (3136, 50176) == (IMAGES.min_pixels, IMAGES.max_pixels)


# --- writing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("shard_bytes", [hf_folder.SHARD_BYTES, 20_000])
def test_what_is_written_is_byte_for_byte_what_was_read_and_opens_in_transformers(
    made, tmp_path, dtype, tied, shard_bytes
):
    source, target = made(tied=tied, dtype=dtype), tmp_path / "out" / "model"
    config = description.read_config(source)
    hf_folder.write_folder(target, config, read(source), source, shard_bytes=shard_bytes)

    equal_tensors(tensors(source), tensors(target))
    files = sorted(path.name for path in target.glob("*.safetensors"))
    if shard_bytes == 20_000:
        index = json.loads((target / "model.safetensors.index.json").read_text())
        assert files == [f"model-{n:05d}-of-{len(files):05d}.safetensors" for n in range(1, len(files) + 1)]
        assert len(files) > 3
        assert set(index["weight_map"].values()) == set(files)
        assert set(index["weight_map"]) == set(tensors(source))
        assert index["metadata"]["total_size"] == sum(t.nbytes for t in tensors(source).values())
        largest = max(tensor.nbytes for tensor in tensors(source).values())
        for name in files:
            assert (target / name).stat().st_size < max(20_000, largest) + 8_000  # the header comes on top
    else:
        assert files == ["model.safetensors"]
    equal(read(source), read(target))

    opened, info = Qwen2_5_VLForConditionalGeneration.from_pretrained(target, dtype="auto", output_loading_info=True)
    assert not any(info.values()), info
    original = Qwen2_5_VLForConditionalGeneration.from_pretrained(source, dtype="auto")
    equal_tensors(original.state_dict(), opened.state_dict())
    assert opened.dtype == dtype


def test_names_in_memory_layout_are_written_in_the_hubs(folder, made, tmp_path):
    def rename(held):
        for name in list(held):
            held[memory_name(name)] = held.pop(name)

    change_tensors(folder, rename)
    hf_folder.write_folder(tmp_path / "out", description.read_config(folder), read(folder), folder)
    equal_tensors(tensors(made()), tensors(tmp_path / "out"))


def test_the_small_files_are_carried_as_they_are_and_nothing_else_is(folder, tmp_path):
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "added_tokens.json").write_text("{}")
    (folder / "optimizer.pt").write_bytes(b"large")
    (folder / "pytorch_model.bin").write_bytes(b"large")
    (folder / "tokenizer_notes").mkdir()
    hf_folder.write_folder(tmp_path / "out", description.read_config(folder), read(folder), folder)
    carried = {path.name for path in (tmp_path / "out").iterdir()}
    assert carried == {path.name for path in folder.iterdir()} - {
        "optimizer.pt",
        "pytorch_model.bin",
        "tokenizer_notes",
    }
    assert {"config.json", "generation_config.json", "tokenizer.json", "vocab.json", "merges.txt"} < carried
    for name in carried - {"model.safetensors"}:
        assert (tmp_path / "out" / name).read_bytes() == (folder / name).read_bytes(), name
    GenerationConfig.from_pretrained(tmp_path / "out")
    assert (
        AutoTokenizer.from_pretrained(tmp_path / "out")("a few")["input_ids"]
        == (AutoTokenizer.from_pretrained(folder)("a few")["input_ids"])
    )


@pytest.mark.parametrize("nested", [False, True])
def test_the_budget_a_model_was_trained_with_is_what_transformers_will_use(folder, tmp_path, nested):
    if nested:  # as transformers 5 saves a processor
        settings = json.loads((folder / "preprocessor_config.json").read_text())
        held = {"processor_class": "Qwen2_5_VLProcessor", "image_processor": settings}
        (folder / "processor_config.json").write_text(json.dumps(held))
        (folder / "preprocessor_config.json").unlink()
    trained = IMAGES.with_budget((2, 30))
    hf_folder.write_folder(tmp_path / "out", description.read_config(folder), read(folder), folder, images=trained)
    assert read_image_settings(tmp_path / "out") == trained
    theirs = Qwen2VLImageProcessorPil.from_pretrained(tmp_path / "out")
    assert dict(theirs.size) == {"shortest_edge": 2 * 28 * 28, "longest_edge": 30 * 28 * 28}
    assert (theirs.patch_size, theirs.merge_size) == (14, 2)
    assert (tuple(theirs.image_mean), tuple(theirs.image_std)) == (IMAGES.mean, IMAGES.std)


def test_an_unchanged_budget_leaves_the_image_processor_as_it_was(folder, tmp_path):
    (folder / "preprocessor_config.json").write_text(json.dumps(image_settings_json(IMAGES) | {"note": "kept"}))
    hf_folder.write_folder(tmp_path / "out", description.read_config(folder), read(folder), folder, images=IMAGES)
    carried = (tmp_path / "out" / "preprocessor_config.json").read_bytes()
    assert carried == (folder / "preprocessor_config.json").read_bytes()


def test_a_folder_is_written_into_an_empty_one_and_readable_like_any_other(folder, tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    hf_folder.write_folder(target, description.read_config(folder), read(folder), folder)
    equal_tensors(tensors(folder), tensors(target))
    assert stat.S_IMODE(target.stat().st_mode) == 0o755


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_target_that_is_in_the_way_is_refused_and_left_alone(folder, tmp_path, kind):
    target = tmp_path / "out"
    if kind == "folder":
        target.mkdir()
    kept = target / "notes.txt" if kind == "folder" else target
    kept.write_text("mine")
    with pytest.raises(InputError) as caught:
        hf_folder.write_folder(target, description.read_config(folder), read(folder), folder)
    assert caught.value.faults == [f"{target}: exists and is not empty; remove it or name another target"]
    assert kept.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "out"]


@pytest.mark.parametrize("failure", [OSError("no space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("existing", [True, False])
def test_a_failure_while_writing_leaves_nothing_behind(folder, tmp_path, monkeypatch, failure, existing):
    target, written = tmp_path / "out", []
    if existing:
        target.mkdir()
    write = safetensors_file.write

    def fails_at_the_third(*arguments, **settings):
        written.append(arguments[0])
        if len(written) == 3:
            raise failure
        write(*arguments, **settings)

    monkeypatch.setattr(safetensors_file, "write", fails_at_the_third)
    with pytest.raises(type(failure)):
        hf_folder.write_folder(target, description.read_config(folder), read(folder), folder, shard_bytes=20_000)
    assert len(written) == 3 and written[0].parent != target
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", *(["out"] if existing else [])]
    assert not existing or not list(target.iterdir())


# --- what is wrong with a folder --------------------------------------------------------------------------------------


def faults(folder: Path) -> list[str]:
    """What reading the folder says is wrong, each in one line."""
    with pytest.raises(InputError) as caught:
        read(folder)
    assert all(fault and "\n" not in fault for fault in caught.value.faults)
    return caught.value.faults


def processor_faults(folder: Path) -> list[str]:
    with pytest.raises(InputError) as caught:
        description.read_processor(folder, description.read_config(folder))
    assert all(fault and "\n" not in fault for fault in caught.value.faults)
    return caught.value.faults


def test_missing_and_truncated_shards_are_all_named(sharded):
    files = sorted(sharded.glob("*.safetensors"))
    files[0].unlink()
    files[3].unlink()
    files[4].write_bytes(files[4].read_bytes()[:-10])
    files[5].write_bytes(b"")
    found = faults(sharded)
    index = "model.safetensors.index.json"
    assert found[:2] == [f"{files[n]}: missing shard, named in {index}; copy or download it again" for n in (0, 3)]
    assert len(found) == 4
    for n, line in zip((4, 5), found[2:], strict=True):
        assert line.startswith(f"{files[n]}: unreadable or truncated safetensors (")


@pytest.mark.parametrize("keep", [0, 5, 100, 0.5, -1])
def test_a_truncated_weight_file_is_named(folder, keep):
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep) if isinstance(keep, float) else keep])
    (line,) = faults(folder)
    assert line.startswith(f"{path}: unreadable or truncated safetensors (")


def test_a_missing_a_surplus_and_a_misshapen_tensor_are_listed_together(folder):
    def spoil(held):
        del held["model.layers.1.mlp.up_proj.weight"]
        del held["visual.merger.ln_q.weight"]
        held["model.layers.0.self_attn.q_proj.weight"] = torch.zeros(32, 24)
        held["model.layers.2.mlp.up_proj.weight"] = torch.zeros(2)

    change_tensors(folder, spoil)
    assert faults(folder) == [
        f"{folder}: tensor visual.merger.ln_q.weight is missing",
        f"{folder}: tensor model.layers.0.self_attn.q_proj.weight has shape (32, 24), config.json implies (32, 32)",
        f"{folder}: tensor model.layers.1.mlp.up_proj.weight is missing",
        f"{folder}: tensors no part of the model takes: model.layers.2.mlp.up_proj.weight",
    ]


def test_a_transposed_tensor_is_not_taken(folder):
    name = "model.layers.0.mlp.up_proj.weight"
    change_tensors(folder, lambda held: held.update({name: held[name].T.contiguous()}))
    assert faults(folder) == [f"{folder}: tensor {name} has shape (32, 48), config.json implies (48, 32)"]


def test_a_missing_head_is_missed_only_where_it_is_not_tied(made, tmp_path):
    untied = Path(shutil.copytree(made(tied=False), tmp_path / "untied"))
    change_tensors(untied, lambda held: held.pop("lm_head.weight"))
    assert faults(untied) == [f"{untied}: tensor lm_head.weight is missing"]


def test_weights_of_another_kind_of_number_are_named(folder):
    name = "model.layers.{}.input_layernorm.weight"

    def spoil(held):
        held[name.format(0)] = held[name.format(0)].half()
        held["model.norm.weight"] = held["model.norm.weight"].to(torch.int8)

    change_tensors(folder, spoil)
    assert faults(folder) == [
        f"{folder}: model.norm.weight is I8; this reads F32, BF16 and F16 weights",
        f"{folder}: the layers of {name} differ in dtype: F16, F32",
    ]


def test_many_faults_are_cut_off_with_their_number(folder):
    change_tensors(folder, lambda held: [held.pop(name) for name in list(held)[:-1]])
    found = faults(folder)
    assert len(found) == 21
    assert found[-1] == f"{folder}: … and {len(tensors(folder)) + 55 - 1 - 20} more faults"


def test_a_tensor_that_its_shard_does_not_hold_is_missing(sharded):
    index = sharded / "model.safetensors.index.json"
    change_json(
        index, lambda held: held["weight_map"].update({"model.norm.weight": "model-00001-of-00009.safetensors"})
    )
    path = next(path for path in sharded.glob("*.safetensors") if b'"model.norm.weight"' in path.read_bytes())
    path.write_bytes(path.read_bytes().replace(b'"model.norm.weight"', b'"model.norx.weight"'))
    assert faults(sharded) == [
        f"{sharded}: tensor model.norm.weight is missing",
        f"{sharded}: tensors no part of the model takes: model.norx.weight",
    ]


def test_a_folder_without_safetensors_is_told_by_what_it_holds(folder):
    weights = folder / "model.safetensors"
    weights.rename(folder / "weights.pth")
    nothing = f"{folder}: no model.safetensors and no model.safetensors.index.json"
    assert faults(folder) == [f"{nothing}; it holds weights.pth"]
    (folder / "weights.pth").rename(folder / "model-00001-of-00002.safetensors")
    assert faults(folder) == [f"{nothing}; it holds model-00001-of-00002.safetensors"]
    (folder / "model-00001-of-00002.safetensors").unlink()
    assert faults(folder) == [nothing]


@pytest.mark.parametrize(
    "name", ["../model.safetensors", "/etc/passwd", "sub/model.safetensors", "", 5, ["model.safetensors"], None]
)
def test_an_index_that_points_elsewhere_is_refused(sharded, name):
    index = sharded / "model.safetensors.index.json"
    change_json(index, lambda held: held["weight_map"].update({"model.norm.weight": name}))
    assert faults(sharded) == [f"{index}: shard names must be plain file names, got {name!r}"]


@pytest.mark.parametrize("held", ["{}", '{"weight_map": []}'])
def test_an_index_without_a_map_is_refused(sharded, held):
    index = sharded / "model.safetensors.index.json"
    index.write_text(held)
    assert faults(sharded) == [f"{index}: holds no weight_map"]


def test_a_broken_index_is_named(sharded):
    index = sharded / "model.safetensors.index.json"
    index.write_text('{"weight_map": {')
    (line,) = faults(sharded)
    assert line.startswith(f"{index}: unreadable JSON (")


@pytest.mark.parametrize("model_type", ["mllama", "qwen3_vl", "vit", None])
def test_another_architecture_is_named(folder, model_type):
    change_json(folder / "config.json", lambda held: held.update(model_type=model_type))
    assert faults(folder) == [
        f"{folder}/config.json: model_type is {model_type!r}; this version reads "
        "'qwen2_5_vl' (Qwen2.5-VL), 'qwen2_vl' (Qwen2-VL), 'llava' (LLaVA with a Qwen2 decoder), "
        "'llava_next' (LLaVA-NeXT with a Qwen2 decoder), 'vlm_jax_assembled' (assembled here)"
    ]


def test_the_tower_of_another_family_is_told_by_what_it_lacks(folder):
    change_json(folder / "config.json", lambda held: held.update(model_type="qwen2_vl"))
    assert faults(folder) == [f"{folder}/config.json: misses vision_config.embed_dim"]


def test_another_architecture_is_named_before_its_image_processor_is_looked_for(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "mllama"}')
    assert faults(tmp_path)[0].startswith(f"{tmp_path}/config.json: model_type is 'mllama'")


def test_a_missing_config_is_named(folder):
    (folder / "config.json").unlink()
    assert faults(folder) == [
        f"{folder}/config.json: missing; a model folder holds config.json, weights and tokenizer files"
    ]


@pytest.mark.parametrize(
    ("held", "reason"),
    [
        (b"", "unreadable JSON (Expecting value: line 1 column 1 (char 0))"),
        (b'{"model_type":', "unreadable JSON (Expecting value: line 1 column 15 (char 14))"),
        (b"\xff\xfe{}", "unreadable JSON ('utf-8' codec can't decode byte 0xff in position 0: invalid start byte)"),
        (b"[1, 2]", "holds no JSON object"),
    ],
)
def test_a_broken_config_is_named(folder, held, reason):
    (folder / "config.json").write_bytes(held)
    assert faults(folder) == [f"{folder}/config.json: {reason}"]


def test_missing_shapes_are_listed_in_one_line(folder):
    def drop(held):
        del held["text_config"]["num_hidden_layers"], held["text_config"]["vocab_size"], held["vision_config"]["depth"]

    change_json(folder / "config.json", drop)
    assert faults(folder) == [f"{folder}/config.json: misses vision_config.depth, num_hidden_layers, vocab_size"]


def test_shapes_that_cannot_be_are_listed_together(folder):
    def spoil(held):
        held["text_config"].update(num_hidden_layers=0, num_key_value_heads=-2)
        held["vision_config"].update(num_heads=0)

    change_json(folder / "config.json", spoil)
    assert faults(folder) == [
        f"{folder}/config.json: vision heads is 0; wanted a whole number above 0",
        f"{folder}/config.json: decoder layers is 0; wanted a whole number above 0",
        f"{folder}/config.json: decoder kv_heads is -2; wanted a whole number above 0",
    ]


def test_shapes_that_contradict_each_other_are_listed_together(folder):
    def spoil(held):
        held["text_config"]["rope_parameters"]["mrope_section"] = [2, 2, 2]
        held["vision_config"].update(out_hidden_size=48, num_heads=8, window_size=100)

    change_json(folder / "config.json", spoil)
    assert faults(folder) == [
        f"{folder}/config.json: vision out_hidden_size 48 differs from the decoder's hidden_size 32",
        f"{folder}/config.json: mrope_section [2, 2, 2] must sum to half the head dim 8",
        f"{folder}/config.json: vision hidden_size 16 over 8 heads must give a head dim divisible by 4",
        f"{folder}/config.json: window_size 100 is not a multiple of patch × merge",
    ]


@pytest.mark.parametrize(
    ("part", "setting", "reason"),
    [
        ("text_config", {"hidden_act": "gelu"}, "hidden_act is 'gelu'; Qwen2's decoder uses 'silu'"),
        ("vision_config", {"hidden_act": "gelu"}, "vision_config.hidden_act is 'gelu'; Qwen2.5-VL uses 'silu'"),
        (
            "text_config",
            {"use_sliding_window": True},
            "use_sliding_window is true; sliding-window layers are not implemented",
        ),
        (
            "text_config",
            {"rope_parameters": {"rope_type": "yarn", "factor": 4.0}},
            "rope_type 'yarn' is not implemented; known: 'default', 'mrope'",
        ),
    ],
)
def test_a_setting_that_is_not_computed_is_refused(folder, part, setting, reason):
    change_json(folder / "config.json", lambda held: held[part].update(setting))
    assert faults(folder) == [f"{folder}/config.json: {reason}"]


def test_a_config_of_another_size_than_the_weights_is_told_by_shapes(folder):
    change_json(folder / "config.json", lambda held: held["text_config"].update(vocab_size=VOCAB + 64))
    assert faults(folder) == [
        f"{folder}: tensor model.embed_tokens.weight has shape (320, 32), config.json implies (384, 32)"
    ]


# --- tokenizer and picture rules --------------------------------------------------------------------------------------


def test_a_sound_folder_gives_a_processor_with_its_rules(folder):
    config = description.read_config(folder)
    processor = description.read_processor(folder, config)
    assert processor.images == IMAGES
    assert (processor.window_units, processor.image_token) == (4, config.image_token)
    assert description.read_processor(folder, config, visual_tokens=9).images == IMAGES.with_budget((1, 9))
    assert description.read_processor(folder, config, visual_tokens=(3, 9)).images == IMAGES.with_budget((3, 9))


@pytest.mark.parametrize("place", ["chat_template.json", "chat_template.jinja"])
def test_a_chat_template_beside_the_tokenizer_is_used(folder, place):
    template = "{% for message in messages %}[{{ message['content'] }}]{% endfor %}"
    expected = description.read_processor(folder, description.read_config(folder)).tokenizer("[a few words]")[
        "input_ids"
    ]
    change_json(folder / "tokenizer_config.json", lambda held: held.pop("chat_template"))
    held = json.dumps({"chat_template": template}) if place.endswith("json") else template
    (folder / place).write_text(held)
    processor = description.read_processor(folder, description.read_config(folder))
    assert processor.encode(QUESTION).input_ids.tolist() == expected


def test_a_tokenizer_without_a_chat_template_is_named(folder):
    change_json(folder / "tokenizer_config.json", lambda held: held.pop("chat_template"))
    line = f"{folder}: the tokenizer has no chat template, and there is no chat_template.json"
    assert processor_faults(folder) == [line]
    (folder / "chat_template.json").write_text("{}")
    assert processor_faults(folder) == [line]


def test_ids_and_sizes_that_disagree_with_the_config_are_listed_together(folder):
    def spoil(held):
        held.update(image_token_id=7, vision_end_token_id=8)
        held["text_config"]["vocab_size"] = 270

    change_json(folder / "config.json", spoil)
    ids = {
        token: AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids(token)
        for token in ("<|image_pad|>", "<|vision_end|>")
    }
    copy = "; one of them is of another model: copy both from one"
    assert processor_faults(folder) == [
        f"{folder}: the tokenizer gives <|image_pad|> the id {ids['<|image_pad|>']}, config.json says 7{copy}",
        f"{folder}: the tokenizer gives <|vision_end|> the id {ids['<|vision_end|>']}, config.json says 8{copy}",
        f"{folder}: the tokenizer has {len(AutoTokenizer.from_pretrained(folder))} tokens, the model only 270",
    ]


def test_a_folder_without_a_tokenizer_is_named(folder):
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"):
        (folder / name).unlink()
    assert processor_faults(folder) == [
        f"{folder}: no tokenizer.json (or vocab.json and merges.txt); copy the tokenizer's files too"
    ]


def test_a_broken_tokenizer_file_is_named(folder):
    (folder / "tokenizer.json").write_text('{"model":')
    (line,) = processor_faults(folder)
    assert line.startswith(f"{folder}: no readable tokenizer (")


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            {"image_processor_type": "CLIPImageProcessor"},
            "{}/preprocessor_config.json: image_processor_type is 'CLIPImageProcessor'; wanted Qwen2VLImageProcessor",
        ),
        (
            {"patch_size": 16},
            "{}: config.json has patch and merge size (14, 2), the image processor (16, 2)",
        ),
        (
            {"merge_size": 4},
            "{}: config.json has patch and merge size (14, 2), the image processor (14, 4)",
        ),
    ],
)
def test_an_image_processor_of_another_kind_is_named(folder, change, line):
    change_json(folder / "preprocessor_config.json", lambda held: held.update(change))
    assert faults(folder) == [line.format(folder)]


def test_missing_picture_rules_are_named(folder):
    (folder / "preprocessor_config.json").unlink()
    line = f"{folder}: no preprocessor_config.json (or processor_config.json) that describes the pictures"
    assert faults(folder) == [line]
    (folder / "processor_config.json").write_text('{"processor_class": "Qwen2_5_VLProcessor"}')
    assert faults(folder) == [line]


@pytest.mark.parametrize("held", ["{", "[]", '"text"', '{"image_processor": [1]}'])
def test_broken_picture_rules_are_named(folder, held):
    path = folder / "preprocessor_config.json"
    path.write_text(held)
    (line,) = faults(folder)
    assert line.startswith(f"{path}: ")
