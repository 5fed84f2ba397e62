"""Every published size: the name table against transformers' own model, without allocating either."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from vlm_jax.checkpoint.names import hub_name, memory_name, name_table
from vlm_jax.models.config import from_hf, to_hf
from vlm_jax.models.parameters import abstract_parameters
from vlm_jax.models.presets import PRESETS

PUBLISHED = {
    # what the model cards say of all parameters, in billions
    "3b": 3.75,
    "7b": 8.29,
    "32b": 33.5,
    "72b": 73.4,
    "qwen2-2b": 2.21,
    "qwen2-7b": 8.29,
    "qwen2-72b": 73.4,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_name_table_covers_every_tensor_of_a_published_size_once_each_way(name):
    config = PRESETS[name]
    assert from_hf(to_hf(config)) == config
    held = to_hf(config)
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
            assert hub_name(memory_name(tensor)) == tensor
            found[tensor] = tuple(entry.transform.shape(shape if entry.layers is None else shape[1:]))
    assert paths == set(shapes)
    assert {memory_name(tensor): shape for tensor, shape in found.items()} == expected
    assert sum(leaf.size for leaf in shapes.values()) / 1e9 == pytest.approx(PUBLISHED[name], rel=0.01)
