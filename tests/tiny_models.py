"""Small folders of both families with random weights, made by transformers: what the package is compared with."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from vlm_jax.models.families import FAMILIES
from vlm_jax.processing.chat import image_parts, image_source
from vlm_jax.processing.new_tokenizer import write_tokenizer

PHOTOS = Path(__file__).parent / "data" / "photos"
VOCAB = 640
ONE_LAYER = {"layers": 1, "depth": 1, "global_blocks": (0,), "max_visual_tokens": 16}
"""What `save_tiny` makes the smallest model of."""


def save_tiny(
    folder: Path,
    *,
    family: str = "qwen2_5_vl",
    layers: int = 3,
    heads: int = 4,
    kv_heads: int = 2,
    head_dim: int = 16,
    hidden: int = 0,
    tied: bool = True,
    depth: int = 4,
    global_blocks: tuple[int, ...] = (1, 3),
    max_visual_tokens: int = 64,
    seed: int = 0,
) -> Qwen2_5_VLForConditionalGeneration | Qwen2VLForConditionalGeneration:
    """Writes a folder with weights, tokenizer and processor; returns transformers' model of it."""
    texts = [json.dumps(json.loads((PHOTOS / "photos.json").read_text()), ensure_ascii=False)]
    ids = write_tokenizer(folder, texts, VOCAB)
    hidden = hidden or heads * head_dim
    torch.manual_seed(seed)
    made_by = {
        "qwen2_5_vl": (Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration),
        "qwen2_vl": (Qwen2VLConfig, Qwen2VLForConditionalGeneration),
        "qwen3_vl": (Qwen3VLConfig, Qwen3VLForConditionalGeneration),
    }
    make_config, make_model = made_by[family]
    config = make_config(
        text_config={
            "hidden_size": hidden,
            "intermediate_size": 2 * hidden,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "vocab_size": VOCAB,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, **_sections(family, head_dim)},
            **({"head_dim": head_dim} if family == "qwen3_vl" else {}),
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
        },
        vision_config=_tower(depth, hidden, global_blocks)[family],
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=tied,
    )
    model = make_model(config).eval()
    _draw(model)
    model.save_pretrained(folder)
    settings = FAMILIES[family].new_image_processor().with_token_range((4, max_visual_tokens))
    (folder / "preprocessor_config.json").write_text(json.dumps(settings.to_json("Qwen2_5_VLProcessor")))
    return model


def _sections(family: str, head_dim: int) -> dict:
    if family == "qwen3_vl":  # as published, of the first 60 of 64 frequencies: a few are left over for time
        side = (head_dim // 2 - 1) // 3
        return {"mrope_section": [head_dim // 2 - 2 * side, side, side], "mrope_interleaved": True}
    return {"mrope_section": [head_dim // 8, 3 * head_dim // 16, 3 * head_dim // 16]}


def _tower(depth: int, hidden: int, global_blocks: tuple[int, ...]) -> dict[str, dict]:
    return {
        "qwen2_5_vl": {
            "depth": depth,
            "hidden_size": 32,
            "intermediate_size": 68,
            "num_heads": 2,
            "out_hidden_size": hidden,
            "fullatt_block_indexes": list(global_blocks),
        },
        "qwen2_vl": {"depth": depth, "embed_dim": 32, "mlp_ratio": 3, "num_heads": 2, "hidden_size": hidden},
        "qwen3_vl": {
            "depth": depth,
            "hidden_size": 32,
            "intermediate_size": 68,
            "num_heads": 2,
            "out_hidden_size": hidden,
            "num_position_embeddings": 36,
            "deepstack_visual_indexes": [block for block in global_blocks if block < depth],
        },
    }


def _draw(model) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Freshly made norms are all one and biases all zero, which would hide a swapped pair of them.
            if ("norm" in name or "ln_q" in name) and name.endswith("weight"):
                parameter.normal_(1.0, 0.2)
            elif name.endswith("bias"):
                parameter.normal_(0.0, 0.2)
            else:
                parameter.normal_(0.0, parameter[0].numel() ** -0.5)


def reference_inputs(
    folder: Path, tokenizer, messages, *, template: str | None = None, generation_prompt: bool = False
) -> dict[str, torch.Tensor]:
    """What transformers' own processing feeds its model. (Its joint processor wants torchvision for videos.)"""
    text = tokenizer.apply_chat_template(
        messages, chat_template=template, tokenize=False, add_generation_prompt=generation_prompt
    )
    images = [Image.open(image_source(part)) for part in image_parts(messages)]
    inputs = {}
    if images:
        inputs = dict(Qwen2VLImageProcessorPil.from_pretrained(folder)(images, return_tensors="pt"))
        for count in (inputs["image_grid_thw"].prod(-1) // 4).tolist():
            text = text.replace("<|image_pad|>", "<|placeholder|>" * count, 1)
        text = text.replace("<|placeholder|>", "<|image_pad|>")
    tokens = tokenizer([text], return_tensors="pt")["input_ids"]
    is_image = (tokens == tokenizer.convert_tokens_to_ids("<|image_pad|>")).int()
    return {"input_ids": tokens, "mm_token_type_ids": is_image, **inputs}


def user(text: str, *images) -> dict:
    """A user's turn with images before its text."""
    return {
        "role": "user",
        "content": [*({"type": "image", "image": p} for p in images), {"type": "text", "text": text}],
    }


def assistant(text: str) -> dict:
    return {"role": "assistant", "content": text}


def noise(folder: Path, width: int, height: int, seed: int = 0) -> str:
    """An image of this size on disk."""
    path = folder / f"noise-{width}x{height}-{seed}.png"
    if not path.exists():
        pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    return str(path)
