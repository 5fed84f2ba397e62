"""A model folder in the forms that people have it: as published, and as versions of transformers save it again.

The small files come from a folder of published metadata, or from one made here; the weights are small and random, under
a `config.json` that differs from the metadata's in a few widths and the number of layers.
"""

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForImageTextToText, AutoTokenizer
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.processing_utils import ProcessorMixin

import vlm_jax
from tests.tiny_models import VOCAB, reference_inputs
from vlm_jax.models import families
from vlm_jax.models.hf_config import to_hf
from vlm_jax.processing.new_tokenizer import write_tokenizer

FORMS = ("as published", "saved by transformers 4.4x", "saved by transformers 5")
TEXT: dict = {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 2, "num_hidden_layers": 2}
TEXT |= {"num_key_value_heads": 1}
TOWER = {
    "qwen2_5_vl": {"hidden_size": 64, "out_hidden_size": 256},
    "qwen2_vl": {"embed_dim": 64, "hidden_size": 256},
    "qwen3_vl": {"hidden_size": 64, "intermediate_size": 128, "out_hidden_size": 256},
}
# Class defaults of transformers 4.46, which its `save_pretrained` leaves out of the file.
DEFAULTS = {
    "vocab_size": 152064,
    "num_hidden_layers": 80,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1e6,
    "tie_word_embeddings": False,
    "use_sliding_window": False,
    "use_cache": True,
}
TOWER_DEFAULTS = {
    "depth": 32,
    "num_heads": 16,
    "mlp_ratio": 4,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "window_size": 112,
    "intermediate_size": 3420,
    "fullatt_block_indexes": [7, 15, 23, 31],
    "hidden_act": {"qwen2_5_vl": "silu", "qwen2_vl": "quick_gelu"},
}
# Qwen3-VL's own, in parts of a file.
DEEPER = {
    "text_config": {
        "vocab_size": 151936, "hidden_size": 4096, "head_dim": 128, "rms_norm_eps": 1e-6, "attention_bias": False,
        "hidden_act": "silu", "attention_dropout": 0.0, "initializer_range": 0.02, "use_cache": True,
    },
    "vision_config": {
        "depth": 27, "num_heads": 16, "in_channels": 3, "patch_size": 16, "spatial_merge_size": 2,
        "temporal_patch_size": 2, "num_position_embeddings": 2304, "deepstack_visual_indexes": [8, 16, 24],
        "hidden_act": "gelu_pytorch_tanh",
    },
}  # fmt: skip
WORDS = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"


def small_config(config_json: dict) -> dict:
    """A published `config.json` with small widths and few layers; all else as it is."""
    tower = config_json["vision_config"] | TOWER[config_json["model_type"]]
    if "text_config" in config_json:  # a layer behind each of which DeepStack adds something, and one more
        text = config_json["text_config"] | TEXT | {"num_hidden_layers": 4}
        return config_json | {"text_config": text, "vision_config": tower}
    return config_json | TEXT | {"vision_config": tower}


def make_metadata(folder: Path, config) -> dict:
    """Writes metadata in the published form, of a tokenizer made here whose own template knows words alone.

    Returns the config.json that goes with it.
    """
    texts = ["What is it called? In which country does it stand? A spoon, a cat, a rocket."] * 8
    ids = write_tokenizer(folder, texts, VOCAB)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": settings["chat_template"]}))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": WORDS}))
    tokens = {f"{name}_token_id": ids[f"<|{name}|>"] for name in ("vision_start", "vision_end")}
    tokens |= {f"{name}_token_id": ids[f"<|{name}_pad|>"] for name in ("image", "video")}
    ends = {"bos_token_id": ids["<|endoftext|>"], "eos_token_id": ids["<|im_end|>"]}
    generation = {"eos_token_id": [ids["<|im_end|>"], ids["<|endoftext|>"]], "do_sample": True, "temperature": 1e-6}
    images = families.of(config).new_image_processor()
    area = images.factor**2
    processor = {"patch_size": images.patch_size, "temporal_patch_size": 2, "merge_size": 2}
    if config.family == "qwen3_vl":
        processor |= {"size": {"shortest_edge": 4 * area, "longest_edge": 64 * area}}
        processor |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    else:
        processor |= {"min_pixels": 4 * area, "max_pixels": 64 * area}
    processor |= {"image_processor_type": "Qwen2VLImageProcessorFast"}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    (folder / "generation_config.json").write_text(json.dumps(generation))
    config_json = to_hf(config)
    if "text_config" in config_json:
        text = config_json["text_config"] | ends | {"vocab_size": VOCAB}
        return config_json | tokens | {"text_config": text}
    return config_json | tokens | ends | {"vocab_size": VOCAB}


def save(folder: Path, form: str, metadata: Path, config_json: dict):
    """Writes a folder with random weights in one of `FORMS`; returns transformers' model of it.

    Args:
      metadata: a folder with all small files but config.json; config_json: what to write for that.
    """
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(AutoConfig.for_model(**json.loads(json.dumps(config_json))))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = 0.2 if parameter.dim() < 2 else parameter[0].numel() ** -0.5
            parameter.normal_(float("norm" in name or "ln_q" in name) if name.endswith("weight") else 0.0, scale)
    model = model.eval()
    folder.mkdir(parents=True)
    if form == FORMS[2]:
        model.save_pretrained(folder, max_shard_size="20MB")
        AutoTokenizer.from_pretrained(metadata).save_pretrained(folder)
        shutil.copy(metadata / "generation_config.json", folder)
        # Beside the older file, which stays behind where a folder is saved over the one it was loaded from.
        shutil.copy(metadata / "preprocessor_config.json", folder)
        processor = Qwen2VLImageProcessorPil.from_pretrained(metadata).to_dict()
        (folder / "processor_config.json").write_text(json.dumps({"image_processor": processor}))
        (folder / "chat_template.jinja").write_text(ProcessorMixin.get_processor_dict(metadata)[0]["chat_template"])
        return model
    model.save_pretrained(folder, max_shard_size="20MB")
    for path in folder.glob("*.json"):
        if "index" not in path.name:
            path.unlink()
    for path in metadata.iterdir():
        if path.name not in ("config.json", "model.safetensors.index.json"):
            shutil.copyfile(path, folder / path.name)
    if form == FORMS[1]:
        config_json = sparse(config_json)
        path = folder / "preprocessor_config.json"
        processor = json.loads(path.read_text())
        bounds = {key: processor[key] for key in ("min_pixels", "max_pixels") if key in processor} or processor["size"]
        path.write_text(json.dumps(processor | {"size": bounds, "do_resize": True, "resample": 3, "do_rescale": True}))
        added = AutoTokenizer.from_pretrained(metadata).get_added_vocab()
        (folder / "added_tokens.json").write_text(json.dumps(added))
    (folder / "config.json").write_text(json.dumps(config_json))
    return model


def sparse(config_json: dict) -> dict:
    """As transformers 4.46 saves it: without what equals a class default, and with RoPE's type said twice."""
    family, vision = config_json["model_type"], config_json["vision_config"]
    if family == "qwen3_vl":
        parts = {
            name: {key: value for key, value in config_json[name].items() if usual.get(key, ...) != value}
            for name, usual in DEEPER.items()
        }
        return config_json | parts
    usual = TOWER_DEFAULTS | {"hidden_act": TOWER_DEFAULTS["hidden_act"][family]}
    tower = {key: value for key, value in vision.items() if usual.get(key, ...) != value}
    rope = config_json["rope_scaling"] | {"type": "default", "rope_type": "default"}
    kept = {key: value for key, value in config_json.items() if DEFAULTS.get(key, ...) != value}
    return kept | {"vision_config": tower | {"model_type": family}, "rope_scaling": rope}


def reference(folder: Path, messages, *, generation_prompt: bool = False) -> dict[str, torch.Tensor]:
    """What transformers' processor of a folder feeds its model: its template, its image processor, its tokenizer."""
    template = ProcessorMixin.get_processor_dict(folder)[0].get("chat_template")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return reference_inputs(folder, tokenizer, messages, template=template, generation_prompt=generation_prompt)


@dataclasses.dataclass
class Difference:
    """How far a folder read here is from transformers' reading of it, the worst of several conversations."""

    prompts: bool = False
    pixels: float = 0.0
    logits: float = 0.0
    answers: bool = False


def compare(
    folder: Path, theirs, conversations: Sequence, questions: Sequence, *, tokens: int = 16, scanned: bool = False
) -> Difference:
    """Holds a folder against transformers' model of it.

    Args:
      conversations: for logits, whose difference is relative to the largest; questions: for greedy answers.
      scanned: whether layers are scanned in their stacks, as on an accelerator, which compiles many sooner.
    """
    ours, worst = vlm_jax.load(folder, dtype="float32"), Difference()
    if scanned:
        ours._decoder.one_by_one = False
    for messages in conversations:
        inputs, example = reference(folder, messages), ours.encode(messages)
        if example.input_ids.tolist() != inputs["input_ids"][0].tolist():
            worst.prompts = True
            continue
        if "pixel_values" in inputs:
            expected = inputs["pixel_values"].numpy()
            worst.pixels = max(worst.pixels, float(np.abs(pixels(ours.processor.images, example) - expected).max()))
        with torch.no_grad():
            expected = theirs(**inputs).logits[0].numpy()
        difference = np.abs(ours.logits(messages) - expected).max() / np.abs(expected).max()
        worst.logits = max(worst.logits, float(difference))
    for question in questions:
        inputs = reference(folder, question, generation_prompt=True)
        with torch.no_grad():
            made = theirs.generate(**inputs, max_new_tokens=tokens, do_sample=False)
        answer = ours.processor.decode(made[0, inputs["input_ids"].shape[1] :].tolist())
        worst.answers |= ours.generate(question, max_new_tokens=tokens) != answer
    return worst


def pixels(settings, example) -> np.ndarray:
    """[patches, C · T · ph · pw] of an example, as transformers' processor orders them."""
    patches = np.concatenate([one.patches.reshape(-1, 3, settings.patch_size**2) for one in example.images])
    values = (patches / 255 - np.reshape(settings.mean, (3, 1))) / np.reshape(settings.std, (3, 1))
    return np.repeat(values[:, :, None], 2, axis=2).reshape(len(values), -1)
