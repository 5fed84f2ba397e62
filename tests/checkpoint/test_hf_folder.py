"""Hugging Face folders go in and out without a changed bit; what is wrong with one: `test_hf_folder_errors`."""

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
    SHARD,
    change_json,
    change_tensors,
    flat_config,
    memory_name,
    read,
    tensors,
)
from vlm_jax.checkpoint import description, hf_folder, safetensors_file
from vlm_jax.deferred import Deferred
from vlm_jax.errors import InputError
from vlm_jax.models.hf_config import from_hf, to_hf
from vlm_jax.processing.image_processors.dynamic_resolution import DynamicResolution

QUESTION = [{"role": "user", "content": "a few words"}]


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
    # In NumPy: XLA has no conversion from float16 for processors without F16C.
    exact = np.asarray(read(source)["decoder/norm/scale"]).astype(np.float32)
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
def test_image_bounds_are_read_in_every_spelling(tmp_path, held, name):
    held = {"image_processor_type": "Qwen2VLImageProcessorFast", "patch_size": 14, "merge_size": 2, **held}
    nested = {"processor_class": "Qwen2_5_VLProcessor", "image_processor": held}
    (tmp_path / name).write_text(json.dumps(nested if name.startswith("processor") else held))
    settings = description.image_processor_by(tmp_path, DynamicResolution.from_json)
    assert (settings.min_pixels, settings.max_pixels) == (3136, 50176) == (IMAGES.min_pixels, IMAGES.max_pixels)


def test_a_sound_folder_gives_a_processor_with_its_rules(folder):
    config = description.read_config(folder)
    processor = description.read_processor(folder, config)
    assert processor.images == IMAGES
    assert (processor.window_side, processor.image_token) == (4, config.image_token)
    assert description.read_processor(folder, config, visual_tokens=9).images == IMAGES.with_token_range((1, 9))
    assert description.read_processor(folder, config, visual_tokens=(3, 9)).images == IMAGES.with_token_range((3, 9))


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
    trained = IMAGES.with_token_range((2, 30))
    hf_folder.write_folder(tmp_path / "out", description.read_config(folder), read(folder), folder, images=trained)
    assert description.image_processor_by(tmp_path / "out", DynamicResolution.from_json) == trained
    theirs = Qwen2VLImageProcessorPil.from_pretrained(tmp_path / "out")
    assert dict(theirs.size) == {"shortest_edge": 2 * 28 * 28, "longest_edge": 30 * 28 * 28}
    assert (theirs.patch_size, theirs.merge_size) == (14, 2)
    assert (tuple(theirs.image_mean), tuple(theirs.image_std)) == (IMAGES.mean, IMAGES.std)


def test_an_unchanged_budget_leaves_the_image_processor_as_it_was(folder, tmp_path):
    settings = IMAGES.to_json("Qwen2_5_VLProcessor") | {"processor_class": "Qwen2VLProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
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
    assert caught.value.lines == [f"{target}: exists and is not empty; remove it or name another target"]
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
