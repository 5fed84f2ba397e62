"""Every published size: the name table against transformers' own model, without allocating either."""

import dataclasses

import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from vlm_jax.checkpoint.names import file_name, hub_name, memory_name, name_table
from vlm_jax.models.hf_config import from_hf, to_hf
from vlm_jax.models.parameters import abstract_parameters
from vlm_jax.models.presets import DECODERS, ENCODERS, PRESETS, assembled

PUBLISHED = {
    # what the model cards say of all parameters, in billions
    "3b": 3.75,
    "7b": 8.29,
    "32b": 33.5,
    "72b": 73.4,
    "qwen2-2b": 2.21,
    "qwen2-7b": 8.29,
    "qwen2-72b": 73.4,
    "qwen3-vl-2b": 2.13,
    "qwen3-vl-4b": 4.44,
    "qwen3-vl-8b": 8.77,
    "qwen3-vl-32b": 33.4,
}


# Of encoders (as transformers builds them beside a decoder) and text models, in billions.
ENCODER_SIZES = {
    "vit-base-patch32-384": 0.0889,
    "clip-vit-large-patch14-336": 0.3035,
    "siglip-so400m-patch14-384": 0.4126,
}
DECODER_SIZES = {
    "qwen2.5-0.5b": 0.494,
    "qwen2.5-1.5b": 1.544,
    "qwen2.5-3b": 3.086,
    "qwen2.5-7b": 7.616,
    "qwen2.5-14b": 14.77,
    "qwen2.5-32b": 32.76,
    "qwen2.5-72b": 72.71,
    "qwen3-0.6b": 0.596,
    "qwen3-1.7b": 1.721,
    "qwen3-4b": 4.022,
    "qwen3-8b": 8.191,
    "qwen3-14b": 14.77,
    "qwen3-32b": 32.76,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_name_table_covers_every_tensor_of_a_published_size_once_each_way(name):
    config = PRESETS[name]
    assert from_hf(to_hf(config)) == config
    assert covered(config, to_hf(config)) / 1e9 == pytest.approx(PUBLISHED[name], rel=0.01)


@pytest.mark.parametrize("encoder", ENCODER_SIZES)
@pytest.mark.parametrize("tiles", [False, True], ids=["llava", "llava-next"])
def test_the_name_table_covers_every_encoder_of_an_assembled_model(encoder, tiles):
    check_assembled(encoder, "qwen2.5-0.5b", tiles)


@pytest.mark.parametrize("decoder", DECODER_SIZES)
def test_the_name_table_covers_every_decoder_of_an_assembled_model(decoder):
    check_assembled("clip-vit-large-patch14-336", decoder, False)


def test_all_presets_of_parts_are_held_against_transformers():
    assert ENCODERS.keys() == ENCODER_SIZES.keys() and DECODERS.keys() == DECODER_SIZES.keys()


def check_assembled(encoder: str, decoder: str, tiles: bool) -> None:
    config = assembled(encoder, decoder, tiles=tiles)
    held = to_hf(config) | ({"image_grid_pinpoints": [[768, 768]]} if tiles else {})
    vision = config.vision
    assert from_hf(held, vision.pixel_mean, vision.pixel_std) == dataclasses.replace(config)
    hidden = config.decoder.hidden
    connector = (vision.hidden + 1) * hidden + (hidden + 1) * hidden + (hidden if tiles else 0)
    total = covered(config, held)
    assert (total - connector) / 1e9 == pytest.approx(ENCODER_SIZES[encoder] + DECODER_SIZES[decoder], rel=0.005)


def covered(config, held) -> int:
    """Checks the table of a model against transformers', and returns its parameters."""
    with torch.device("meta"):
        theirs = AutoModelForImageTextToText.from_config(AutoConfig.for_model(**held))
    expected = {key: tuple(tensor.shape) for key, tensor in theirs.state_dict().items()}
    if config.decoder.tied:
        del expected["lm_head.weight"]
    shapes, found, paths = abstract_parameters(config), {}, set()
    for entry in name_table(config):
        assert entry.path not in paths, entry.path
        paths.add(entry.path)
        shape = shapes[entry.path].shape
        tensors = entry.tensors()
        assert entry.layers is None or shape[0] == entry.layers == len(tensors)
        for tensor in tensors:
            assert tensor not in found, tensor
            assert hub_name(memory_name(tensor)) == tensor == hub_name(file_name(tensor, config))
            found[tensor] = tuple(entry.transform.shape(shape if entry.layers is None else shape[1:]))
    assert paths == set(shapes)
    assert {memory_name(tensor): shape for tensor, shape in found.items()} == expected
    return sum(leaf.size for leaf in shapes.values())
