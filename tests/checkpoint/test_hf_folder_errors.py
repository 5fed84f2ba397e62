"""Everything that is wrong with a Hugging Face folder is said at once, each error in one line."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from tests.checkpoint.folders import VOCAB, change_json, change_tensors, read, tensors
from vlm_jax.checkpoint import description
from vlm_jax.errors import InputError


def errors(folder: Path) -> list[str]:
    """What reading the folder says is wrong, each in one line."""
    with pytest.raises(InputError) as caught:
        read(folder)
    assert all(line and "\n" not in line for line in caught.value.lines)
    return caught.value.lines


def processor_errors(folder: Path) -> list[str]:
    with pytest.raises(InputError) as caught:
        description.read_processor(folder, description.read_config(folder))
    assert all(line and "\n" not in line for line in caught.value.lines)
    return caught.value.lines


def test_missing_and_truncated_shards_are_all_named(sharded):
    files = sorted(sharded.glob("*.safetensors"))
    files[0].unlink()
    files[3].unlink()
    files[4].write_bytes(files[4].read_bytes()[:-10])
    files[5].write_bytes(b"")
    found = errors(sharded)
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
    (line,) = errors(folder)
    assert line.startswith(f"{path}: unreadable or truncated safetensors (")


def test_a_missing_a_surplus_and_a_misshapen_tensor_are_listed_together(folder):
    def spoil(held):
        del held["model.layers.1.mlp.up_proj.weight"]
        del held["visual.merger.ln_q.weight"]
        held["model.layers.0.self_attn.q_proj.weight"] = torch.zeros(32, 24)
        held["model.layers.2.mlp.up_proj.weight"] = torch.zeros(2)

    change_tensors(folder, spoil)
    assert errors(folder) == [
        f"{folder}: tensor visual.merger.ln_q.weight is missing",
        f"{folder}: tensor model.layers.0.self_attn.q_proj.weight has shape (32, 24), config.json implies (32, 32)",
        f"{folder}: tensor model.layers.1.mlp.up_proj.weight is missing",
        f"{folder}: tensors no part of the model takes: model.layers.2.mlp.up_proj.weight",
    ]


def test_a_transposed_tensor_is_not_taken(folder):
    name = "model.layers.0.mlp.up_proj.weight"
    change_tensors(folder, lambda held: held.update({name: held[name].T.contiguous()}))
    assert errors(folder) == [f"{folder}: tensor {name} has shape (32, 48), config.json implies (48, 32)"]


def test_a_missing_head_is_missed_only_where_it_is_not_tied(made, tmp_path):
    untied = Path(shutil.copytree(made(tied=False), tmp_path / "untied"))
    change_tensors(untied, lambda held: held.pop("lm_head.weight"))
    assert errors(untied) == [f"{untied}: tensor lm_head.weight is missing"]


def test_weights_of_another_kind_of_number_are_named(folder):
    def spoil(held):
        held["model.norm.weight"] = held["model.norm.weight"].to(torch.int8)
        name = "model.layers.1.input_layernorm.weight"
        held[name] = held[name].double()

    change_tensors(folder, spoil)
    advice = "this reads F32, BF16 and F16 weights; save it again with one of these as dtype"
    assert sorted(errors(folder)) == [
        f"{folder}: model.layers.{{}}.input_layernorm.weight is F64; {advice}",
        f"{folder}: model.norm.weight is I8; {advice}",
    ]


@pytest.mark.parametrize(
    ("first", "second", "common"),
    [("half", "float", "float32"), ("bfloat16", "float", "float32"), ("half", "bfloat16", "float32")],
)
def test_layers_in_several_dtypes_are_held_in_one_that_has_all_values(folder, first, second, common):
    name = "model.layers.{}.mlp.up_proj.weight"

    def change(held):
        for layer, dtype in enumerate((first, second)):
            held[name.format(layer)] = getattr(held[name.format(layer)], dtype)()

    change_tensors(folder, change)
    stored, held = tensors(folder), read(folder)
    kernel = held["decoder/layers/layer/mlp/up_proj/kernel"]
    assert kernel.dtype == common
    for layer in (0, 1):
        np.testing.assert_array_equal(np.asarray(kernel[layer]), stored[name.format(layer)].float().numpy().T)


def test_many_errors_are_cut_off_with_their_number(folder):
    change_tensors(folder, lambda held: [held.pop(name) for name in list(held)[:-1]])
    found = errors(folder)
    assert len(found) == 21
    assert found[-1] == f"{folder}: … and {len(tensors(folder)) + 55 - 1 - 20} more errors"


def test_a_tensor_that_its_shard_does_not_hold_is_missing(sharded):
    index = sharded / "model.safetensors.index.json"
    change_json(
        index, lambda held: held["weight_map"].update({"model.norm.weight": "model-00001-of-00009.safetensors"})
    )
    path = next(path for path in sharded.glob("*.safetensors") if b'"model.norm.weight"' in path.read_bytes())
    path.write_bytes(path.read_bytes().replace(b'"model.norm.weight"', b'"model.norx.weight"'))
    assert errors(sharded) == [
        f"{sharded}: tensor model.norm.weight is missing",
        f"{sharded}: tensors no part of the model takes: model.norx.weight",
    ]


def test_a_folder_without_safetensors_is_told_by_what_it_holds(folder):
    weights = folder / "model.safetensors"
    weights.rename(folder / "weights.pth")
    nothing = f"{folder}: no model.safetensors, no model.safetensors.index.json, no pytorch_model.bin and no "
    nothing += "pytorch_model.bin.index.json"
    assert errors(folder) == [f"{nothing}; it holds weights.pth"]
    (folder / "weights.pth").rename(folder / "model-00001-of-00002.safetensors")
    assert errors(folder) == [f"{nothing}; it holds model-00001-of-00002.safetensors"]
    (folder / "model-00001-of-00002.safetensors").unlink()
    assert errors(folder) == [nothing]


@pytest.mark.parametrize(
    "name", ["../model.safetensors", "/etc/passwd", "sub/model.safetensors", "", 5, ["model.safetensors"], None]
)
def test_an_index_that_points_elsewhere_is_refused(sharded, name):
    index = sharded / "model.safetensors.index.json"
    change_json(index, lambda held: held["weight_map"].update({"model.norm.weight": name}))
    assert errors(sharded) == [f"{index}: shard names must be plain file names, got {name!r}"]


@pytest.mark.parametrize("held", ["{}", '{"weight_map": []}'])
def test_an_index_without_a_map_is_refused(sharded, held):
    index = sharded / "model.safetensors.index.json"
    index.write_text(held)
    assert errors(sharded) == [f"{index}: holds no weight_map"]


def test_a_broken_index_is_named(sharded):
    index = sharded / "model.safetensors.index.json"
    index.write_text('{"weight_map": {')
    (line,) = errors(sharded)
    assert line.startswith(f"{index}: unreadable JSON (")


@pytest.mark.parametrize("model_type", ["mllama", "gemma3", "vit", None])
def test_another_architecture_is_named(folder, model_type):
    change_json(folder / "config.json", lambda held: held.update(model_type=model_type))
    assert errors(folder) == [
        f"{folder}/config.json: model_type is {model_type!r}; this version reads "
        "'qwen2_5_vl' (Qwen2.5-VL), 'qwen2_vl' (Qwen2-VL), 'qwen3_vl' (Qwen3-VL), "
        "'llava' (LLaVA with a Qwen2 or Qwen3 decoder), "
        "'llava_next' (LLaVA-NeXT with a Qwen2 or Qwen3 decoder), 'vlm_jax_assembled' (assembled here)"
    ]


def test_the_tower_of_another_family_is_told_by_what_only_that_has(folder):
    change_json(folder / "config.json", lambda held: held.update(model_type="qwen2_vl"))
    keys = ("fullatt_block_indexes", "intermediate_size", "out_hidden_size", "window_size")
    named = ", ".join(f"vision_config.{key}" for key in keys)
    reason = "belongs to Qwen2.5-VL, and model_type is 'qwen2_vl'; one of them is another model's"
    assert errors(folder) == [f"{folder}/config.json: {named} {reason}"]


def test_another_architecture_is_named_before_its_image_processor_is_looked_for(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "mllama"}')
    assert errors(tmp_path)[0].startswith(f"{tmp_path}/config.json: model_type is 'mllama'")


def test_a_missing_config_is_named(folder):
    (folder / "config.json").unlink()
    assert errors(folder) == [
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
    assert errors(folder) == [f"{folder}/config.json: {reason}"]


def test_shapes_that_the_file_leaves_out_are_the_defaults_of_its_architecture(folder):
    def drop(held):
        del held["text_config"]["num_hidden_layers"], held["text_config"]["vocab_size"], held["vision_config"]["depth"]

    change_json(folder / "config.json", drop)
    config = description.read_config(folder)
    assert (config.decoder.layers, config.decoder.vocab, config.vision.depth) == (80, 152064, 32)
    missing = f"{folder}: tensor visual.blocks.2.norm1.weight is missing"  # the file has two
    assert missing in errors(folder)


def test_shapes_that_cannot_be_are_listed_together(folder):
    def spoil(held):
        held["text_config"].update(num_hidden_layers=0, num_key_value_heads=-2)
        held["vision_config"].update(num_heads=0)

    change_json(folder / "config.json", spoil)
    assert errors(folder) == [
        f"{folder}/config.json: text_config.num_hidden_layers is 0; wanted a whole number from 1 to 4,096",
        f"{folder}/config.json: text_config.num_key_value_heads is -2; wanted a whole number from 1 to 4,096",
        f"{folder}/config.json: vision_config.num_heads is 0; wanted a whole number from 1 to 4,096",
    ]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000; wanted a whole number from 1 to 4,096"),
        ({"num_hidden_layers": 2.0}, "num_hidden_layers is 2.0; wanted a whole number"),
        ({"num_hidden_layers": True}, "num_hidden_layers is True; wanted a whole number"),
        ({"vocab_size": "640"}, "vocab_size is '640'; wanted a whole number"),
        ({"initializer_range": "relu"}, "initializer_range is 'relu'; wanted a number above 0"),
        ({"rope_theta": float("nan")}, "rope_theta is nan; wanted a number above 0"),
        ({"rms_norm_eps": float("inf")}, "rms_norm_eps is inf; wanted a number above 0"),
        ({"image_token_id": -1}, "image_token_id is -1; wanted the id of a token"),
        ({"vision_config": {"fullatt_block_indexes": [[0], 3]}}, "vision_config.fullatt_block_indexes is [[0], 3]"),
        ({"rope_scaling": {"mrope_section": "16"}}, "rope_scaling.mrope_section is '16'; wanted a list of whole"),
        ({"rope_scaling": [1]}, "rope_scaling is [1]; wanted a JSON object"),
        ({"text_config": "x" * 10**6}, "wanted a JSON object"),
    ],
)
def test_settings_of_another_type_are_told_by_their_keys(folder, change, error):
    change_json(folder / "config.json", lambda held: held.update(change))
    reported = errors(folder)
    assert len(reported) == 1 and error in reported[0] and len(reported[0]) < 400


def test_shapes_that_contradict_each_other_are_listed_together(folder):
    def spoil(held):
        held["text_config"]["rope_parameters"]["mrope_section"] = [2, 2, 2]
        held["vision_config"].update(out_hidden_size=48, num_heads=8, window_size=100)

    change_json(folder / "config.json", spoil)
    assert errors(folder) == [
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
            {"use_sliding_window": True, "max_window_layers": 1},
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
    assert errors(folder) == [f"{folder}/config.json: {reason}"]


def test_a_config_of_another_size_than_the_weights_is_told_by_shapes(folder):
    change_json(folder / "config.json", lambda held: held["text_config"].update(vocab_size=VOCAB + 64))
    assert errors(folder) == [
        f"{folder}: tensor model.embed_tokens.weight has shape (320, 32), config.json implies (384, 32)"
    ]


# --- tokenizer and image settings -------------------------------------------------------------------------------------


def test_a_tokenizer_without_a_chat_template_is_named(folder):
    change_json(folder / "tokenizer_config.json", lambda held: held.pop("chat_template"))
    line = f"{folder}: the tokenizer has no chat template, and there is no chat_template.json"
    assert processor_errors(folder) == [line]
    (folder / "chat_template.json").write_text("{}")
    assert processor_errors(folder) == [line]


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
    assert processor_errors(folder) == [
        f"{folder}: the tokenizer gives <|image_pad|> the id {ids['<|image_pad|>']}, config.json says 7{copy}",
        f"{folder}: the tokenizer gives <|vision_end|> the id {ids['<|vision_end|>']}, config.json says 8{copy}",
        f"{folder}: the tokenizer has {len(AutoTokenizer.from_pretrained(folder))} tokens, the model only 270",
    ]


def test_a_folder_without_a_tokenizer_is_named(folder):
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"):
        (folder / name).unlink()
    assert processor_errors(folder) == [
        f"{folder}: no tokenizer.json (or vocab.json and merges.txt); copy the tokenizer's files too"
    ]


def test_a_broken_tokenizer_file_is_named(folder):
    (folder / "tokenizer.json").write_text('{"model":')
    (line,) = processor_errors(folder)
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
            "{}: config.json has patch and merge size (14, 2), the image processor (16, 2), which is of "
            "Qwen3-VL, and the model is a Qwen2.5-VL; copy both files from one model",
        ),
        (
            {"merge_size": 4},
            "{}: config.json has patch and merge size (14, 2), the image processor (14, 4); copy both files "
            "from one model",
        ),
    ],
)
def test_an_image_processor_of_another_kind_is_named(folder, change, line):
    change_json(folder / "preprocessor_config.json", lambda held: held.update(change))
    assert errors(folder) == [line.format(folder)]


def test_missing_image_rules_are_named(folder):
    (folder / "preprocessor_config.json").unlink()
    line = f"{folder}: no preprocessor_config.json (or processor_config.json) that describes the images"
    assert errors(folder) == [line]
    (folder / "processor_config.json").write_text('{"processor_class": "Qwen2_5_VLProcessor"}')
    assert errors(folder) == [line]


@pytest.mark.parametrize("held", ["{", "[]", '"text"', '{"image_processor": [1]}'])
def test_broken_image_rules_are_named(folder, held):
    path = folder / "preprocessor_config.json"
    path.write_text(held)
    (line,) = errors(folder)
    assert line.startswith(f"{path}: ")
