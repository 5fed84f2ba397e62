"""What chips have to send each other where parameters are divided (FSDP, ZeRO 3), to be held against what they do send.

Each kernel is gathered in the dtype it is computed with: forwards, once more where its product is computed again, and
once more for the gradient that passes through it; the gradient of one that trains is scattered once. Tables of words
are gathered once for the output layer, whose forward and backward pass are one (`loss`), and their gradient is
scattered; looking words up needs rows of them, which count nothing here. All of that is asked for by each part of a
batch (`batch.gradient_accumulation`). Where a mesh has a data axis besides, the parts of gradients are summed over it,
once a step. Bytes are those that rings send.
"""

import re

from vlm_jax.adapters.lora import is_seed
from vlm_jax.models.parameters import is_unused
from vlm_jax.training.flops import gradients_pass
from vlm_jax.training.trainer import Stage, Trainer

STACKS = ("vision/blocks/", "decoder/layers/")
"""Layers that `train.remat` is about."""
_AGAIN = {"projections": "/mlp/", "attention": "", "full": ""}
"""Whose products are computed again, of layers that keep some but not all of them (`models.remat`)."""


def needed_bytes(trainer: Trainer, stage: Stage | None = None) -> int:
    """Bytes that each device has to send in a step; of the last stage where none is given."""
    stage = stage or trainer.stages[-1]
    return round(sum(_of(trainer, stage.trainable, path) for path in trainer.abstract))


def _of(trainer: Trainer, trainable: frozenset[str], path: str) -> float:
    leaf, spec, ways = trainer.abstract[path], trainer.shardings[path].spec, trainer.mesh.shape
    axes = {axis for names in spec if names for axis in ((names,) if isinstance(names, str) else names)}
    if is_seed(path) or is_unused(path):
        return 0.0
    whole = leaf.size / (ways["tensor"] if "tensor" in axes else 1)
    # Adapters are computed with in the dtype of x as well; packed kernels go round as they are.
    width = trainer.dtype.itemsize if leaf.dtype.kind not in "iu" else leaf.dtype.itemsize
    parts = ways["fsdp"] if "fsdp" in axes else 1
    times = _gathers(trainer, trainable, path) + (path in trainable)
    sent = trainer.config.batch.gradient_accumulation * times * whole * width * (parts - 1) / parts
    if path in trainable and (data := ways["data"]) > 1:
        sent += 2 * whole / parts * width * (data - 1) / data
    return sent


def _gathers(trainer: Trainer, trainable: frozenset[str], path: str) -> int:
    """How often a parameter is wanted whole."""
    part = path.split("/")[0]
    if part in ("embedding", "head"):
        return int(part == "head" or trainer.model.decoder.tied)
    passes = gradients_pass(trainable).get(part, False)
    remade = _AGAIN.get(trainer.remat)
    again = remade is not None and path.startswith(STACKS) and re.search(remade, path) is not None
    return 1 + passes * (1 + again)
