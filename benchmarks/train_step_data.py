"""What both sides of `train_step.py` are given: shapes of models, conversations with images, and the settings.

Needs neither JAX's devices nor PyTorch, so that each side's process loads only its own.
"""

import dataclasses
import random
import statistics
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image

from vlm_jax.checkpoint import description
from vlm_jax.models.config import VLMConfig
from vlm_jax.models.presets import PRESETS
from vlm_jax.processing.example import Example
from vlm_jax.processing.processor import Processor

BASE = Path(__file__).resolve().parents[1] / "vlm_jax" / "assets" / "tiny_base"
"""Lends its tokenizer and the rules for images; its weights are not used."""

LEARNING_RATE, BETAS, EPSILON, CLIP_NORM = 1e-4, (0.9, 0.95), 1e-8, 1.0
"""AdamW without weight decay at a constant rate, behind a clip of the global norm."""
LORA_RANK, LORA_ALPHA = 16, 32.0
"""Adapters on every linear layer of the decoder, without dropout."""

WORDS = ("red", "blue", "green", "large", "small", "near", "far", "round", "left", "right")
QUESTION = "Look at the image and describe in your own words what there is to see"
_NORMAL = statistics.NormalDist()


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
    """The data: one turn each, with images as they come out of a camera or a screenshot.

    ragged: one sample in ten has no image, one in twenty two, the others one. Sides follow an area between 80² and
    1,000² pixels (log-uniform) and a log-normal aspect ratio; answers are log-normal, from a word to some hundred
    (median 30, sigma 1.2), as in instruction data that mixes short answers to questions with descriptions.
    mixed: in about the proportions of LLaVA-1.5's mixture: two thirds short answers (1 to 5 words) and a quarter
    descriptions (60 to 250) about an image as above, the rest long texts without one (300 to 1,000 words).
    equal: an image of 336 × 336 pixels and an answer of 40 words in each.

    Everything is drawn from equal parts of its distribution, so that few samples are spread as many would be.
    """
    rng, chooser = np.random.default_rng(0), random.Random(0)
    count = settings.samples * settings.steps
    drawn = {"equal": _equal, "mixed": _mixed, "ragged": _ragged}[settings.lengths]
    images, words = zip(*map(drawn, _shares(rng, count), _shares(rng, count)), strict=True)
    sides = map(_sides, _shares(rng, sum(images)), _shares(rng, sum(images)))
    for shown, length in zip(images, words, strict=True):
        sizes = [(336, 336) if settings.lengths == "equal" else next(sides) for _ in range(shown)]
        yield [
            {
                "role": "user",
                "content": [
                    *({"type": "image", "image": _image(rng, side)} for side in sizes),
                    {"type": "text", "text": QUESTION},
                ],
            },
            # One order of words or another has as many tokens; the first is written without a space before it.
            {"role": "assistant", "content": " ".join([WORDS[0], *_some(chooser, length - 1)])},
        ]


def _shares(rng: np.random.Generator, count: int) -> list[float]:
    """The middles of `count` equal parts of 0 to 1, shuffled."""
    return ((rng.permutation(count) + 0.5) / count).tolist()


def _ragged(kind: float, length: float) -> tuple[int, int]:
    """Images and words of a sample, from shares of their distributions."""
    words = round(30 * np.exp(1.2 * _NORMAL.inv_cdf(length)))
    return 0 if kind < 0.1 else 1 if kind < 0.95 else 2, min(max(1, words), 400)


def _mixed(kind: float, length: float) -> tuple[int, int]:
    low, high = (1, 6) if kind < 0.67 else (60, 251) if kind < 0.94 else (300, 1001)
    return int(kind < 0.94), int(low + length * (high - low))


def _equal(kind: float, length: float) -> tuple[int, int]:
    return 1, 40


def _some(chooser: random.Random, count: int) -> list[str]:
    words = [WORDS[number % len(WORDS)] for number in range(count)]
    chooser.shuffle(words)
    return words


def _sides(area: float, ratio: float) -> tuple[int, int]:
    """Of an image, from shares of the two distributions."""
    pixels, aspect = 80**2 * (1000 / 80) ** (2 * area), np.exp(0.4 * _NORMAL.inv_cdf(ratio))
    return max(60, int((pixels * aspect) ** 0.5)), max(60, int((pixels / aspect) ** 0.5))


def _image(rng: np.random.Generator, sides: tuple[int, int]) -> PIL.Image.Image:
    coarse = PIL.Image.fromarray(rng.integers(0, 256, (12, 12, 3)).astype(np.uint8))
    return coarse.resize(sides, PIL.Image.Resampling.BICUBIC)


def examples(settings: Settings) -> list[Example]:
    processor = processor_of(settings)
    return [processor.encode(messages) for messages in conversations(settings)]
