"""Small Qwen2.5-VL folders that transformers saves, and ways to change what is in them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from vlm_jax.checkpoint import description, hf_folder
from vlm_jax.processing.image_processors.dynamic_resolution import DynamicResolution
from vlm_jax.processing.new_tokenizer import write_tokenizer

VOCAB = 320
SHARD = "20KB"
"""For folders of many files."""
IMAGES = DynamicResolution().with_token_range((4, 64))
# No two sides that meet are equal, so that a tensor read the wrong way round has another shape.
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": VOCAB,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [1, 1, 2]},
}
VISION = {
    "depth": 2,
    "hidden_size": 16,
    "intermediate_size": 20,
    "num_heads": 2,
    "out_hidden_size": 32,
    "fullatt_block_indexes": [1],
}


def read(folder: Path, **settings):
    return hf_folder.read_parameters(folder, description.read_config(folder), **settings)


def save_folder(
    folder: Path, *, tied: bool = True, dtype: torch.dtype = torch.float32, shard: str | None = None, seed: int = 0
) -> dict[str, torch.Tensor]:
    """Writes a whole folder; `shard` is the size of a weight file. Returns its tensors by their hub names."""
    ids = write_tokenizer(folder, ["a few words to merge, a few words more"] * 3, VOCAB)
    ends = {"bos_token_id": ids["<|endoftext|>"], "eos_token_id": ids["<|im_end|>"]}
    config = Qwen2_5_VLConfig(
        text_config=TEXT | ends,
        vision_config=VISION,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=tied,
    )
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(config).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():  # norms are made all ones and biases all zeros, alike in every layer
            parameter.normal_()
    model.save_pretrained(folder, **({"max_shard_size": shard} if shard else {}))
    (folder / "preprocessor_config.json").write_text(json.dumps(IMAGES.to_json("Qwen2_5_VLProcessor")))
    return tensors(folder)


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a folder as stored."""
    stored: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        loaded = load_file(path)
        assert not set(loaded) & set(stored)
        stored |= loaded
    return stored


def change_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    """Rewrites the single weight file after `change` has worked on the dictionary of its tensors."""
    stored = load_file(folder / "model.safetensors")
    change(stored)
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})


def change_json(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    stored = json.loads(path.read_text(encoding="utf-8"))
    change(stored)
    path.write_text(json.dumps(stored), encoding="utf-8")


def memory_name(name: str) -> str:
    """A hub name as transformers ≥ 4.52 holds it in memory, and as some of its versions saved it."""
    for hub, memory in (("model.", "model.language_model."), ("visual.", "model.visual.")):
        if name.startswith(hub):
            return memory + name.removeprefix(hub)
    return name


def flat_config(folder: Path) -> dict[str, Any]:
    """The folder's nested `config.json` in the form of the hub's files."""
    stored = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    text = stored.pop("text_config")
    text.pop("model_type")
    rope = text.pop("rope_parameters")
    vision = stored.pop("vision_config")
    for name in ("rope_parameters", "model_type", "in_channels"):
        vision.pop(name)
    scaling = {
        "rope_theta": rope["rope_theta"],
        "rope_scaling": {"type": "mrope", "mrope_section": rope["mrope_section"]},
    }
    vision |= {"in_chans": 3, "spatial_patch_size": vision["patch_size"]}
    stored["torch_dtype"] = stored.pop("dtype")
    return {**stored, **text, **scaling, "vision_config": vision}
