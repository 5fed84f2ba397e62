"""Configs of Qwen-VL folders as several versions of transformers write them: their shapes are those it reads."""

import json
import random

import pytest
from transformers import AutoConfig

from vlm_jax.errors import InputError
from vlm_jax.models.hf_config import from_hf

FAMILIES = ("qwen2_5_vl", "qwen2_vl")
SPARSE = {"in_chans": 3, "model_type": "qwen2_vl", "spatial_patch_size": 14}
ROPE = {"type": "default", "rope_type": "default", "mrope_section": [16, 24, 24]}
# The sizes of the 7B as transformers 4.4x saves them: what equals a class default is left out.
DECODER = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
}
TOWERS = {
    "qwen2_vl": (
        {},
        SPARSE,
        {"depth": 6, "embed_dim": 640},
        {"mlp_ratio": 2},
        {"rope_theta": 500.0, "num_attention_heads": 16},
        {"rope_scaling": {"rope_theta": 900.0}, "rope_parameters": {"rope_theta": 700.0}},
    ),
    "qwen2_5_vl": (
        {"hidden_size": 1280},
        {"hidden_size": 1280, "in_chans": 3, "spatial_patch_size": 14},
        {"hidden_size": 640, "num_heads": 8, "fullatt_block_indexes": [1, 3]},
        {"hidden_size": 1280, "window_size": 56, "intermediate_size": 3456},
    ),
}


def shapes(config_json):
    """What transformers makes of a config.json, by our names."""
    config = AutoConfig.for_model(**json.loads(json.dumps(config_json)))
    text, vision = config.text_config, config.vision_config
    expected = {
        "depth": vision.depth,
        "heads": vision.num_heads,
        "patch_size": vision.patch_size,
        "temporal_patch_size": vision.temporal_patch_size,
        "merge_size": vision.spatial_merge_size,
        "channels": vision.in_channels,
        "rope_theta": vision.rope_parameters["rope_theta"],
    }
    if config.model_type == "qwen2_vl":
        expected |= {"hidden": vision.embed_dim, "out_hidden": vision.hidden_size}
        expected["mlp"] = int(vision.embed_dim * vision.mlp_ratio)
    else:
        expected |= {"hidden": vision.hidden_size, "out_hidden": vision.out_hidden_size}
        expected |= {"mlp": vision.intermediate_size, "window_size": vision.window_size}
        expected["global_blocks"] = tuple(vision.fullatt_block_indexes)
    decoder = {
        "layers": text.num_hidden_layers,
        "hidden": text.hidden_size,
        "heads": text.num_attention_heads,
        "kv_heads": text.num_key_value_heads,
        "mlp": text.intermediate_size,
        "vocab": text.vocab_size,
        "norm_eps": text.rms_norm_eps,
        "rope_theta": text.rope_parameters["rope_theta"],
        "tied": bool(config.tie_word_embeddings),
    }
    return expected, decoder


def check(config_json):
    tower, decoder = shapes(config_json)
    config = from_hf(config_json)
    assert {key: getattr(config.vision, key) for key in tower} == tower
    assert {key: getattr(config.decoder, key) for key in decoder} == decoder


@pytest.mark.parametrize("nested", [False, True], ids=["flat", "nested"])
@pytest.mark.parametrize(("family", "tower"), [(family, tower) for family in FAMILIES for tower in TOWERS[family]])
def test_what_a_file_leaves_out_is_the_default_of_transformers_class(family, tower, nested):
    text = {**DECODER, "rope_scaling": dict(ROPE)}
    check({"model_type": family, "vision_config": tower, **({"text_config": text} if nested else text)})


@pytest.mark.parametrize("family", FAMILIES)
def test_any_setting_may_be_left_out(family):
    text = {
        **DECODER,
        "vocab_size": 1024,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e4,
        "tie_word_embeddings": True,
        "max_position_embeddings": 128000,
        "head_dim": None,
    }
    consistent = {"hidden_size", "num_attention_heads", "num_key_value_heads"}  # must divide each other
    chance = random.Random(0)
    for _ in range(20):
        kept = {key: value for key, value in text.items() if key in consistent or chance.random() < 0.5}
        tower = {
            key: value for key, value in TOWERS[family][2].items() if key == "hidden_size" or chance.random() < 0.5
        }
        check({"model_type": family, "vision_config": tower, "rope_scaling": dict(ROPE), **kept})


def test_of_two_kinds_of_rope_the_one_counts_that_transformers_takes():
    old = {"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 5e5}
    for own in ({"rope_scaling": old}, {"rope_parameters": old}, {"rope_scaling": old, "rope_parameters": dict(ROPE)}):
        check({"model_type": "qwen2_vl", "vision_config": {}, **DECODER, **json.loads(json.dumps(own))})


@pytest.mark.parametrize("where", ["top", "text", "both", "neither", "top denies"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_head_is_tied_as_transformers_ties_it(family, where):
    text = {**DECODER, "rope_scaling": dict(ROPE)}
    text |= {"tie_word_embeddings": True} if where in ("text", "both", "top denies") else {}
    top = {"top": True, "both": True, "top denies": False}.get(where)
    config_json = {"model_type": family, "vision_config": TOWERS[family][0], "text_config": text}
    check(config_json | ({} if top is None else {"tie_word_embeddings": top}))


BASE = {"model_type": "qwen2_vl", "vision_config": {}, **DECODER, "rope_scaling": ROPE}


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            {"rope_scaling": ROPE | {"mrope_interleaved": True}},
            "mrope_interleaved of rope_parameters is True",
        ),
        ({"rope_scaling": ROPE | {"factor": 4.0}}, "factor of rope_parameters is 4.0, which is not implemented; known"),
        ({"rope_scaling": ROPE | {"beta_fast": 32}}, "beta_fast of rope_parameters is 32, which is not implemented"),
        (
            {"layer_types": ["full_attention", "sliding_attention"]},
            "layer_types has sliding_attention; only",
        ),
        ({"rms_norm_eps": None}, "rms_norm_eps is None; wanted a number above 0"),
        (
            {"use_sliding_window": True, "max_window_layers": 21},
            "use_sliding_window is true; sliding-window",
        ),
        ({"head_dim": 64}, "head_dim is 64; Qwen2's decoder uses hidden_size over the heads, 128"),
        ({"quantization_config": {"quant_method": "awq"}}, "quantization_config is there (awq); quantised weights"),
        ({"quantization_config": {"load_in_4bit": True}}, "quantization_config is there (unknown); quantised weights"),
        ({"vision_config": {"in_chans": 1}}, "vision_config.in_chans is 1 and in_channels 3; set both to the same"),
        (
            {"vision_config": {"spatial_patch_size": 16}},
            "vision_config.spatial_patch_size is 16 and patch_size 14",
        ),
        (
            {"vision_config": {"num_attention_heads": 4}},
            "vision_config.num_attention_heads is 4; wanted it by the name",
        ),
        (
            {"vision_config": {"rope_scaling": {"type": "linear"}}},
            "vision_config.rope_parameters.rope_type is 'linear'",
        ),
        ({"vision_config": {"window_size": 112}}, "vision_config.window_size belongs to Qwen2.5-VL, and model_type"),
    ],
    ids=str,
)
def test_what_would_be_another_model_is_refused_by_name(change, line):
    with pytest.raises(InputError) as caught:
        from_hf(BASE | change)
    (error,) = caught.value.lines
    assert error.startswith(f"config.json: {line}")


def test_settings_that_change_nothing_are_no_reason_to_refuse():
    rope = ROPE | {"partial_rotary_factor": 1.0, "mrope_interleaved": False, "factor": 1.0, "beta": None}
    windows = {"use_sliding_window": True, "max_window_layers": 28}  # from a layer on that is not there
    assert from_hf(BASE | windows) == from_hf(BASE)
    more = {"layer_types": ["full_attention"] * 28, "head_dim": 128, "quantization_config": None, "unsloth_fixed": True}
    assert from_hf(BASE | {"rope_scaling": rope} | more) == from_hf(BASE)
