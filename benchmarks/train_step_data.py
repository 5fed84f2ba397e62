"""What both sides of `train_step.py` are given: shapes of models, conversations with pictures, and the settings.

Needs neither JAX's devices nor PyTorch, so that each side's process loads only its own.
"""

import dataclasses
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image

from vlm_jax.checkpoint import description
from vlm_jax.models.config import VLMConfig
from vlm_jax.models.presets import PRESETS
from vlm_jax.processing.processor import Processor
from vlm_jax.processing.rows import Example

BASE = Path(__file__).resolve().parents[1] / "vlm_jax" / "assets" / "tiny_base"
"""Lends its tokenizer and the rules for pictures; its weights are not used."""

LEARNING_RATE, BETAS, EPSILON, CLIP_NORM = 1e-4, (0.9, 0.95), 1e-8, 1.0
"""AdamW without weight decay at a constant rate, behind a clip of the global norm."""
LORA_RANK, LORA_ALPHA = 16, 32.0
"""Adapters on every linear layer of the decoder, without dropout."""

WORDS = ("red", "blue", "green", "large", "small", "near", "far", "round", "left", "right")
QUESTION = "Look at the picture and describe in your own words what there is to see"


@dataclasses.dataclass(frozen=True)
class Settings:
    """One comparison.

    Attributes:
      folder: a checkpoint that both read; empty: random weights, drawn on the device by each side.
      lengths: ragged | mixed | equal.
      mode: full | lora | qlora.
      samples, steps: samples a step on average, and steps a turn: the data are samples × steps conversations.
      layouts: what is tried with transformers: padded, flat (all samples in one row, told apart by their positions).
    """

    preset: str
    folder: str
    lengths: str
    mode: str
    samples: int
    steps: int
    visual_tokens: int
    remat: bool
    device: str
    threads: int
    layouts: tuple[str, ...]


def _shape(preset: str, vocab: int, *, decoder: dict, vision: dict) -> VLMConfig:
    model = PRESETS[preset]
    return dataclasses.replace(
        model,
        decoder=dataclasses.replace(model.decoder, vocab=vocab, **decoder),
        vision=dataclasses.replace(model.vision, **vision),
    )


def _like_3b(hidden: int, heads: int, layers: int, depth: int, vision_heads: int, vocab: int) -> VLMConfig:
    """Qwen2.5-VL-3B, narrower and with fewer layers: every width but the keys' is one share of its own."""
    model = PRESETS["3b"]
    share = hidden / model.decoder.hidden
    pairs = hidden // heads // 2
    return _shape(
        "3b",
        vocab,
        decoder={
            "layers": layers,
            "hidden": hidden,
            "heads": heads,
            "mlp": round(model.decoder.mlp * share),
            "mrope_sections": (pairs - 2 * (3 * pairs // 8), 3 * pairs // 8, 3 * pairs // 8),
        },
        vision={
            "depth": depth,
            "hidden": round(model.vision.hidden * share),
            "heads": vision_heads,
            "mlp": round(model.vision.mlp * share / 16) * 16,
            "out_hidden": hidden,
            "global_blocks": (depth - 1,),
        },
    )


SHAPES: dict[str, VLMConfig] = {
    "tiny": _shape("tiny", 1792, decoder={"layers": 2}, vision={"depth": 2, "global_blocks": (1,)}),
    # An eighth and three eighths of the 3B's widths, and about its share of parameters (8 %) in the vocabulary. Beside
    # what its decoder computes for a visual token the tower computes 1.4 and 1.0 times as much; the 3B's 0.9.
    "5m": _like_3b(hidden=256, heads=8, layers=3, depth=3, vision_heads=5, vocab=1792),
    "100m": _like_3b(hidden=768, heads=12, layers=7, depth=6, vision_heads=6, vocab=11520),
    # with a tower that computes 3.2 times as much
    "5m-tower": _shape("small", 1792, decoder={"layers": 4}, vision={"depth": 4, "global_blocks": (1, 3)}),
    # deep and narrow, as small language models are, with Qwen2.5's own vocabulary: 58 M of the parameters
    "100m-vocab": _shape(
        "3b",
        151936,
        decoder={"layers": 16, "hidden": 384, "heads": 6, "kv_heads": 2, "mlp": 1024, "mrope_sections": (8, 12, 12)},
        vision={
            "depth": 8,
            "hidden": 320,
            "heads": 5,
            "mlp": 856,
            "out_hidden": 384,
            "global_blocks": (3, 7),
        },
    ),
    "3b": PRESETS["3b"],
}


def model_of(preset: str) -> VLMConfig:
    """The shapes, with the special tokens of the tokenizer that is used."""
    base = description.read_config(BASE)
    tokens = ("image_token", "video_token", "vision_start_token", "vision_end_token")
    return dataclasses.replace(SHAPES[preset], **{name: getattr(base, name) for name in tokens})


def processor_of(settings: Settings) -> Processor:
    return description.read_processor(BASE, description.read_config(BASE), (4, settings.visual_tokens))


def conversations(settings: Settings) -> Iterator[list[dict]]:
    """The data: one turn each, with pictures as they come out of a camera or a screenshot.

    ragged: one sample in ten has no picture, one in twenty two, the others one. Sides follow an area between 80² and
    1,000² pixels (log-uniform) and a log-normal aspect ratio; answers are log-normal, from a word to some hundred
    (median 30, sigma 1.2), as in instruction data that mixes short answers to questions with descriptions.
    mixed: in about the proportions of LLaVA-1.5's mixture: two thirds short answers (1 to 5 words) and a quarter
    descriptions (60 to 250) about a picture as above, the rest long texts without one (300 to 1,000 words).
    equal: a picture of 336 × 336 pixels and an answer of 40 words in each.
    """
    rng, chooser = np.random.default_rng(0), random.Random(0)
    for _ in range(settings.samples * settings.steps):
        if settings.lengths == "equal":
            sides, words = [(336, 336)], 40
        elif settings.lengths == "mixed":
            kind = rng.choice(3, p=[0.67, 0.27, 0.06])
            sides = [] if kind == 2 else [_sides(rng)]
            words = int(rng.integers(*[(1, 6), (60, 251), (300, 1001)][kind]))
        else:
            sides = [_sides(rng) for _ in range(rng.choice([0, 1, 2], p=[0.1, 0.85, 0.05]))]
            words = int(np.clip(round(np.exp(rng.normal(np.log(30), 1.2))), 1, 400))
        yield [
            {
                "role": "user",
                "content": [
                    *({"type": "image", "image": _picture(rng, side)} for side in sides),
                    {"type": "text", "text": QUESTION},
                ],
            },
            # One order of words or another has as many tokens; the first is written without a space before it.
            {"role": "assistant", "content": " ".join([WORDS[0], *_some(chooser, words - 1)])},
        ]


def _some(chooser: random.Random, count: int) -> list[str]:
    held = [WORDS[number % len(WORDS)] for number in range(count)]
    chooser.shuffle(held)
    return held


def _sides(rng: np.random.Generator) -> tuple[int, int]:
    area, ratio = np.exp(rng.uniform(np.log(80**2), np.log(1000**2))), np.exp(rng.normal(0, 0.4))
    return max(60, int((area * ratio) ** 0.5)), max(60, int((area / ratio) ** 0.5))


def _picture(rng: np.random.Generator, sides: tuple[int, int]) -> PIL.Image.Image:
    coarse = PIL.Image.fromarray(rng.integers(0, 256, (12, 12, 3)).astype(np.uint8))
    return coarse.resize(sides, PIL.Image.Resampling.BICUBIC)


def examples(settings: Settings) -> list[Example]:
    processor = processor_of(settings)
    return [processor.encode(messages) for messages in conversations(settings)]
