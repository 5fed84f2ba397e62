"""What is Qwen3-VL's own beside the parity of whole models: settings, stretched positions, and what is refused."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from PIL import Image
from transformers import AutoConfig
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.vision_utils import get_vision_interpolation_indices_and_weights

import vlm_jax
from tests.tiny_models import save_tiny
from vlm_jax.errors import InputError
from vlm_jax.models.hf_config import from_hf, to_hf
from vlm_jax.models.presets import PRESETS
from vlm_jax.models.qwen3_vl.family import QWEN3_VL
from vlm_jax.models.qwen3_vl.shapes import VisionConfig
from vlm_jax.models.qwen3_vl.tower import LearnedPositions
from vlm_jax.models.rope import mrope_angles

PUBLISHED = to_hf(PRESETS["qwen3-vl-8b"])


def changed(part, **settings):
    """The published config.json with other settings in a part of it; None leaves one out."""
    own = {**PUBLISHED[part], **settings}
    return {**PUBLISHED, part: {key: value for key, value in own.items() if value is not None}}


@pytest.mark.parametrize(
    "config_json",
    [
        PUBLISHED,
        {"model_type": "qwen3_vl", "text_config": {"hidden_size": 3584}},
        changed("text_config", rope_scaling=None, rope_theta=None),
        changed("text_config", head_dim=None, num_key_value_heads=None),
        changed("vision_config", deepstack_visual_indexes=[1], depth=3, num_position_embeddings=None),
        changed("vision_config", deepstack_visual_indexes=[]),
        changed("vision_config", rope_theta=500.0),
        changed("vision_config", rope_theta=500.0, rope_parameters={"rope_type": "axial", "rope_theta": 700.0}),
        changed("vision_config", rope_scaling={"rope_theta": 900.0}, rope_parameters={"rope_theta": 700.0}),
    ],
    ids=[
        *("published", "almost empty", "no rope", "no head dim", "one block", "no DeepStack"),
        *("tower's theta", "in its parameters", "in the older key"),
    ],
)
def test_shapes_are_those_that_transformers_reads(config_json):
    theirs = AutoConfig.for_model(**json.loads(json.dumps(config_json)))
    text, vision, ours = theirs.text_config, theirs.vision_config, from_hf(config_json)
    tower, decoder = ours.vision, ours.decoder
    assert (tower.depth, tower.hidden, tower.heads, tower.mlp, tower.out_hidden) == (
        vision.depth, vision.hidden_size, vision.num_heads, vision.intermediate_size, vision.out_hidden_size
    )  # fmt: skip
    assert (tower.position_rows, list(tower.deepstack)) == (
        vision.num_position_embeddings,
        list(vision.deepstack_visual_indexes),
    )
    assert (decoder.layers, decoder.heads, decoder.kv_heads, decoder.head_dim, decoder.mlp, decoder.vocab) == (
        text.num_hidden_layers, text.num_attention_heads, text.num_key_value_heads, text.head_dim,
        text.intermediate_size, text.vocab_size,
    )  # fmt: skip
    assert tower.rope_theta == vision.rope_parameters["rope_theta"]
    rope = text.rope_parameters
    assert decoder.rope_theta == rope["rope_theta"] and decoder.tied == bool(theirs.tie_word_embeddings)
    assert decoder.mrope_sections == tuple(rope.get("mrope_section", (24, 20, 20)))
    assert decoder.qk_norm and decoder.mrope_interleaved and not decoder.qkv_bias


@pytest.mark.parametrize(
    ("config_json", "reason"),
    [
        ({**PUBLISHED, "model_type": "qwen3_vl_moe"}, "mixture of experts, of which the dense ones are supported"),
        ({**PUBLISHED, "model_type": "qwen3_5"}, "'qwen3_5', Qwen3.5; this version reads"),
        ({**PUBLISHED, "model_type": "qwen3_omni_moe"}, "Qwen3-Omni"),
        (changed("text_config", num_experts=128), "text_config.num_experts is there: mixtures of experts"),
        (changed("text_config", attention_bias=True), "attention_bias is true"),
        (changed("text_config", model_type="qwen2"), "text_config.model_type is 'qwen2'"),
        (
            changed("text_config", rope_scaling={"rope_type": "default", "mrope_interleaved": False}),
            "mrope_interleaved of rope_parameters is False",
        ),
        (changed("vision_config", window_size=112), "window_size belongs to Qwen2.5-VL or Qwen2-VL"),
        (changed("vision_config", hidden_act="silu"), "hidden_act is 'silu'"),
        (changed("vision_config", deepstack_visual_indexes=[8, 27]), "wanted blocks from 0 to 26, ascending"),
        (changed("vision_config", deepstack_visual_indexes=[16, 8]), "wanted blocks from 0 to 26, ascending"),
        (changed("vision_config", deepstack_visual_indexes="8"), "wanted a list of whole numbers"),
        (changed("vision_config", num_position_embeddings=2300), "2300 is no square"),
        (
            {**PUBLISHED, "vision_config": {**PUBLISHED["vision_config"], "deepstack_visual_indexes": None}},
            "vision_config.deepstack_visual_indexes is null; wanted a list",
        ),
        # transformers takes these for the tower's own names, so they would change what is computed
        (changed("vision_config", num_attention_heads=8), "wanted it by the name num_heads, which is 16"),
        (changed("vision_config", num_hidden_layers=3, depth=None), "by the name depth, which is not there"),
        (changed("vision_config", rope_scaling={"rope_type": "linear"}), "rope_type is 'linear'; wanted 'axial'"),
        (changed("vision_config", rope_parameters={"rope_theta": None}), "rope_theta is null"),
        (
            changed("text_config", rope_scaling={"rope_type": "default", "mrope_section": [32, 32]}),
            "mrope_section is [32, 32]; wanted one of time, of rows and of columns",
        ),
        (changed("text_config", is_causal=False), "is_causal is false; attention in both directions"),
        (changed("text_config", num_hidden_layers=2), "has 3 blocks, and the decoder 2 layers"),
        ({**PUBLISHED, "quantization_config": {"quant_method": "fp8"}}, "(fp8); quantised weights are not read"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_computed_is_refused_by_name(config_json, reason):
    with pytest.raises(InputError) as error:
        from_hf(config_json)
    assert reason in str(error.value)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("qwen3")
    save_tiny(folder, family="qwen3_vl", layers=1, depth=1, global_blocks=(0,), max_visual_tokens=16)
    return folder


def test_a_thinking_checkpoint_is_refused_by_its_template(folder, tmp_path):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    template = json.loads((folder / "tokenizer_config.json").read_text())["chat_template"]
    (tmp_path / "chat_template.jinja").write_text(template + "{{ '<think>\n' }}")
    with pytest.raises(InputError, match="Thinking checkpoints of Qwen3-VL are not supported"):
        vlm_jax.load(tmp_path)


def test_an_image_processor_of_another_family_is_named(folder, tmp_path):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**settings, "patch_size": 14}))
    with pytest.raises(InputError, match="which is of Qwen2.5-VL or Qwen2-VL, and the model is a Qwen3-VL"):
        vlm_jax.load(tmp_path)


@pytest.mark.parametrize("size", [(300, 200), (61, 900), (33, 31), (640, 480)])
def test_pixels_are_those_of_transformers_by_the_published_settings(tmp_path, size):
    images = QWEN3_VL.new_image_processor()
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(images.to_json("Qwen3VLProcessor")))
    assert (images.patch_size, images.min_pixels, images.max_pixels) == (16, 256 * 256, 4096 * 4096)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8))
    theirs = Qwen2VLImageProcessorPil.from_pretrained(tmp_path)([image], return_tensors="np")
    grid = images.grid(*size)
    assert theirs["image_grid_thw"].tolist() == [[1, *(2 * side for side in grid)]]  # in patches, ours in tokens
    pixels = images.cut(image, grid).reshape(-1, 3, 1, 256).astype(np.float32) / 255
    expected = theirs["pixel_values"].reshape(-1, 3, 2, 256)
    np.testing.assert_allclose(np.repeat((pixels - 0.5) / 0.5, 2, axis=2), expected, atol=1e-6)


@pytest.mark.parametrize("grid", [(2, 2), (2, 4), (6, 10), (14, 2), (48, 48), (94, 50)])
def test_learned_positions_are_stretched_as_transformers_stretches_them(grid):
    """Of two images in one row, and padding: each has corners of its own."""
    side = 12
    config = VisionConfig(depth=1, hidden=8, heads=1, mlp=8, out_hidden=8, deepstack=(), position_rows=side**2)
    positions = LearnedPositions(config, std=1.0, dtype=jnp.float32, rngs=nnx.Rngs(0))
    grids = [(4, 6), grid]
    coords = np.concatenate([np.argwhere(np.ones(one)) for one in grids] + [np.zeros((4, 2), int)])
    ids = np.repeat([1, 2, 0], [24, grid[0] * grid[1], 4])
    found = np.asarray(positions(jnp.asarray(coords)[None], jnp.asarray(ids)[None], jnp.float32))[0]
    table, start = torch.tensor(np.asarray(positions.table[...])), 0
    for rows, columns in grids:
        indices, weights = get_vision_interpolation_indices_and_weights(
            torch.tensor([[1, rows, columns]]), num_grid_per_side=side, mode="bilinear", align_corners=True,
            spatial_merge_size=1, kwargs={},
        )  # fmt: skip
        expected = (table[indices] * weights[:, :, None]).sum(1).numpy()
        np.testing.assert_allclose(found[start : start + rows * columns], expected, atol=2e-6)
        start += rows * columns


def test_frequencies_take_turns_as_long_as_all_axes_have_some():
    positions = np.array([[[1000], [100], [10]]])
    angles = np.asarray(mrope_angles(jnp.asarray(positions), 128, 5e6, (24, 20, 20), interleaved=True))[0, 0]
    inverse = 5e6 ** -(np.arange(0, 128, 2) / 128)
    follows = np.where(np.arange(64) >= 60, 0, np.arange(64) % 3)
    np.testing.assert_allclose(angles, positions[0, follows, 0] * inverse, rtol=1e-5)
    assert np.bincount(follows).tolist() == [24, 20, 20]
