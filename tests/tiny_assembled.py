"""Small encoders and a small text model as transformers saves them, and models assembled of both."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import (
    CLIPConfig,
    CLIPModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    SiglipConfig,
    SiglipModel,
    ViTConfig,
    ViTForImageClassification,
)

from tests.tiny_models import PHOTOS, VOCAB
from vlm_jax.checkpoint.assembly import Assembly, write
from vlm_jax.processing.new_tokenizer import write_tokenizer

# As Qwen2.5-Instruct's: words alone, and a system prompt where none is given.
TEMPLATE = (
    "{%- if messages[0]['role'] == 'system' -%}"
    "{{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' -}}"
    "{%- else -%}{{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' -}}{%- endif -%}"
    "{%- for message in messages -%}"
    "{%- if message.role in ('user', 'assistant') or (message.role == 'system' and not loop.first) -%}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' -}}"
    "{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
# As Qwen3's that thinks when asked to: thinking is left out of earlier turns, and an answer without has an empty block.
THINKING_TEMPLATE = (
    "{%- set ns = namespace(last=-1) -%}{%- for message in messages -%}{%- if message.role == 'user' -%}"
    "{%- set ns.last = loop.index0 -%}{%- endif -%}{%- endfor -%}"
    "{%- for message in messages -%}{{- '<|im_start|>' + message.role + '\\n' -}}"
    "{%- if message.role == 'assistant' and loop.index0 > ns.last -%}"
    "{{- '<think>\\n' + (message.reasoning_content or '') + '\\n</think>\\n\\n' -}}{%- endif -%}"
    "{{- message.content.split('</think>')[-1] + '<|im_end|>\\n' -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}"
    "{%- if enable_thinking is defined and enable_thinking is false -%}"
    "{{- '<think>\\n\\n</think>\\n\\n' -}}{%- endif -%}"
    "{%- endif -%}"
)
SIZE, PATCH = 30, 7
"""As with SigLIP-SO400M, patches do not fill a view."""
_SHAPES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2}
_VIEW = {"image_size": SIZE, "patch_size": PATCH}
_COMMON = {"do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "do_resize": True}
_HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
_CLIP = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
PREPROCESSORS = {
    "clip": {
        **_COMMON,
        **_CLIP,
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": SIZE},
        "crop_size": {"height": SIZE, "width": SIZE},
        "do_center_crop": True,
        "do_convert_rgb": True,
        "resample": 3,
    },
    "siglip": {
        **_COMMON,
        **_HALF,
        "image_processor_type": "SiglipImageProcessor",
        "size": {"height": SIZE, "width": SIZE},
        "resample": 3,
    },
    # as in google/vit-base-patch32-384, of an older transformers
    "vit": {"do_normalize": True, "do_resize": True, **_HALF, "size": SIZE},
}


def randomised(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Weights large enough to show a difference; fresh norms are all one and biases all zero."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name and name.endswith("weight"):
                parameter.normal_(1.0, 0.2)
            elif name.endswith("bias") or parameter.dim() < 2:
                parameter.normal_(0.0, 0.2)
            else:
                parameter.normal_(0.0, parameter[0].numel() ** -0.5)
    return model.eval()


def save_encoder(folder: Path, family: str) -> Path:
    """A whole CLIP or SigLIP with its text half, or a ViT that classifies: what encoders are published as."""
    text = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "vocab_size": 40,
    }
    text |= {"max_position_embeddings": 8, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    if family == "clip":
        model = CLIPModel(CLIPConfig(text_config=text, vision_config={**_SHAPES, **_VIEW}, projection_dim=16))
    elif family == "siglip":
        model = SiglipModel(SiglipConfig(text_config=text, vision_config={**_SHAPES, **_VIEW}))
    else:
        model = ViTForImageClassification(ViTConfig(**_SHAPES, **_VIEW, num_labels=3))
    randomised(model).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSORS[family]))
    return folder


def save_text_model(folder: Path, *, tied: bool = True, qwen3: bool = False) -> Path:
    """A Qwen2 or Qwen3 text model with its tokenizer and a template for words alone."""
    texts = [json.dumps(json.loads((PHOTOS / "photos.json").read_text()), ensure_ascii=False)]
    folder.mkdir(parents=True, exist_ok=True)
    ids = write_tokenizer(folder, texts, VOCAB)
    for path in folder.glob("chat_template*"):
        path.unlink()
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["chat_template"] = THINKING_TEMPLATE if qwen3 else TEMPLATE
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    make_config, make_model = (Qwen3Config, Qwen3ForCausalLM) if qwen3 else (Qwen2Config, Qwen2ForCausalLM)
    config = make_config(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=VOCAB,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        tie_word_embeddings=tied,
        bos_token_id=ids["<|endoftext|>"],
        eos_token_id=ids["<|im_end|>"],
        pad_token_id=ids["<|endoftext|>"],
        **({"head_dim": 24} if qwen3 else {}),
    )
    randomised(make_model(config)).save_pretrained(folder)
    return folder


def save_assembled(root: Path, family: str, *, tied: bool = True, qwen3: bool = False, **how) -> Path:
    """A folder of parts below `root`, with its parts beside it."""
    encoder, decoder = root / family, root / "-".join(["text", *["untied"] * (not tied), *["qwen3"] * qwen3])
    if not encoder.exists():
        save_encoder(encoder, family)
    if not decoder.exists():
        save_text_model(decoder, tied=tied, qwen3=qwen3)
    target = root / "-".join(["assembled", family, *(str(value) for value in how.values())])
    write(target, Assembly(str(encoder), str(decoder), **how))
    return target


def shapes_of_images() -> dict[str, Image.Image]:
    """Noise of many ratios: wide, tall, square, smaller than a view and larger."""
    rng = np.random.default_rng(0)
    sizes = ((90, 40), (40, 90), (28, 28), (20, 13), (61, 60), (200, 33), (29, 28), (57, 113))
    return {f"{w}x{h}": Image.fromarray(rng.integers(0, 256, (h, w, 3), np.uint8)) for w, h in sizes}
