"""Shapes by name: published sizes of Qwen3-VL, Qwen2.5-VL and Qwen2-VL, of encoders and decoders that models are
assembled of, and small ones for machines without an accelerator."""

import dataclasses

from vlm_jax.models.config import DecoderConfig, VLMConfig
from vlm_jax.models.llava import shapes
from vlm_jax.models.llava.shapes import EncoderConfig
from vlm_jax.models.qwen3_vl.shapes import VisionConfig as Qwen3VisionConfig
from vlm_jax.models.qwen_vl.shapes import VisionConfig


def _qwen2(layers: int, hidden: int, heads: int, kv_heads: int, mlp: int, vocab: int, tied: bool):
    decoder = DecoderConfig(
        layers=layers, hidden=hidden, heads=heads, kv_heads=kv_heads, mlp=mlp, vocab=vocab, tied=tied
    )
    tower = VisionConfig(
        variant="qwen2_vl",
        depth=32,
        hidden=1280,
        heads=16,
        mlp=5120,
        out_hidden=hidden,
        window_size=28,
        global_blocks=tuple(range(32)),
    )
    return VLMConfig(vision=tower, decoder=decoder)


def _published(layers: int, hidden: int, heads: int, kv_heads: int, mlp: int, vocab: int, tied: bool, vision_mlp: int):
    return VLMConfig(
        vision=VisionConfig(depth=32, hidden=1280, heads=16, mlp=vision_mlp, out_hidden=hidden),
        decoder=DecoderConfig(
            layers=layers, hidden=hidden, heads=heads, kv_heads=kv_heads, mlp=mlp, vocab=vocab, tied=tied
        ),
    )


def _qwen3(layers: int, hidden: int, heads: int, mlp: int, tied: bool, large_tower: bool):
    """Of Qwen3-VL. The 2B and the 4B have one tower, the 8B and the 32B another."""
    tower = (27, 1152, 16, 4304) if large_tower else (24, 1024, 16, 4096)
    return VLMConfig(
        vision=Qwen3VisionConfig(*tower, out_hidden=hidden, deepstack=(8, 16, 24) if large_tower else (5, 11, 17)),
        decoder=DecoderConfig(
            layers=layers,
            hidden=hidden,
            heads=heads,
            kv_heads=8,
            mlp=mlp,
            vocab=151936,
            rope_theta=5_000_000.0,
            mrope_sections=(24, 20, 20),
            mrope_interleaved=True,
            tied=tied,
            own_head_dim=0 if hidden == heads * 128 else 128,
            qkv_bias=False,
            qk_norm=True,
        ),
    )


def _small(
    hidden: int, layers: int, vision_hidden: int, depth: int, heads: int, kv_heads: int, rope_theta: float = 1e6
):
    head_dim = hidden // heads
    width = head_dim // 8
    return VLMConfig(
        vision=VisionConfig(
            depth=depth,
            hidden=vision_hidden,
            heads=4,
            mlp=vision_hidden * 5 // 2,
            out_hidden=hidden,
            # every second block sees the whole image
            global_blocks=tuple(range(1, depth, 2)),
        ),
        decoder=DecoderConfig(
            layers=layers,
            hidden=hidden,
            heads=heads,
            kv_heads=kv_heads,
            mlp=hidden * 5 // 2,
            vocab=4096,
            # the published proportion of t, h and w: 2 : 3 : 3 eighths of half the head
            mrope_sections=(head_dim // 2 - 6 * width // 2, 3 * width // 2, 3 * width // 2),
            rope_theta=rope_theta,
            tied=True,
        ),
        # The published 0.02 suits widths of thousands; narrow layers learn several times faster from larger weights.
        init_std=0.06,
    )


def _small_qwen3(other: VLMConfig) -> VLMConfig:
    """Of Qwen3-VL, as large as one of Qwen2.5-VL; heads together wider than the width, as in the 4B and the 32B."""
    vision, decoder = other.vision, other.decoder
    head_dim = decoder.hidden // decoder.heads
    side = head_dim // 2 // 3
    tower = Qwen3VisionConfig(
        depth=vision.depth,
        hidden=vision.hidden,
        heads=vision.heads,
        mlp=vision.mlp,
        out_hidden=vision.out_hidden,
        # at equal distances, the last block apart, as published
        deepstack=tuple(range(vision.depth // 3 - 1, vision.depth - 1, vision.depth // 3))[:3],
        position_rows=16**2,
    )
    text = dataclasses.replace(
        decoder,
        own_head_dim=head_dim,
        heads=2 * decoder.kv_heads,
        mrope_sections=(head_dim // 2 - 2 * side, side, side),
        mrope_interleaved=True,
        qkv_bias=False,
        qk_norm=True,
    )
    return dataclasses.replace(other, vision=tower, decoder=text)


PRESETS: dict[str, VLMConfig] = {
    "tiny": _small(hidden=128, layers=3, vision_hidden=96, depth=4, heads=4, kv_heads=2),
    # Rows and columns turn by the slower frequencies of M-RoPE. With the published theta, a grid of 4 × 4 visual tokens
    # turns columns by less than 0.001 radians: where a thing lies could not be told, and is not learned.
    "mini": _small(hidden=192, layers=4, vision_hidden=128, depth=4, heads=6, kv_heads=2, rope_theta=30.0),
    "small": _small(hidden=256, layers=6, vision_hidden=192, depth=6, heads=8, kv_heads=2),
    "3b": _published(36, 2048, 16, 2, 11008, 151936, True, 3420),
    "7b": _published(28, 3584, 28, 4, 18944, 152064, False, 3420),
    "32b": _published(64, 5120, 40, 8, 27648, 152064, False, 3456),
    "72b": _published(80, 8192, 64, 8, 29568, 152064, False, 3456),
    "qwen2-2b": _qwen2(28, 1536, 12, 2, 8960, 151936, True),
    "qwen2-7b": _qwen2(28, 3584, 28, 4, 18944, 152064, False),
    "qwen2-72b": _qwen2(80, 8192, 64, 8, 29568, 152064, False),
    "qwen3-vl-2b": _qwen3(28, 2048, 16, 6144, tied=True, large_tower=False),
    "qwen3-vl-4b": _qwen3(36, 2560, 32, 9728, tied=True, large_tower=False),
    "qwen3-vl-8b": _qwen3(36, 4096, 32, 12288, tied=False, large_tower=True),
    "qwen3-vl-32b": _qwen3(64, 5120, 64, 25600, tied=False, large_tower=True),
}


PRESETS |= {f"qwen3-vl-{size}": _small_qwen3(PRESETS[size]) for size in ("tiny", "mini", "small")}
_PREFIXES = {"qwen2_5_vl": "", "qwen2_vl": "qwen2-", "qwen3_vl": "qwen3-vl-"}


def of_family(family: str) -> dict[str, VLMConfig]:
    """The presets of a family whose models are not put together from parts, by their sizes' names; none of another."""
    prefix = _PREFIXES.get(family)
    named = {name: config for name, config in PRESETS.items() if config.family == family and prefix is not None}
    return {name.removeprefix(prefix or ""): config for name, config in named.items()}


ENCODERS: dict[str, EncoderConfig] = {
    # as assembled models take them: CLIP's features before its last layer, as LLaVA does
    "vit-base-patch32-384": EncoderConfig(
        "vit", 12, 768, 12, 3072, 0, 384, 32, norm_eps=1e-12, pooler=True, keep_class=True, final_norm=True
    ),
    "clip-vit-large-patch14-336": EncoderConfig(
        "clip",
        23,
        1024,
        16,
        4096,
        0,
        336,
        14,
        unused_layers=1,
        activation="quick_gelu",
        norm_eps=1e-5,
        pixel_mean=VisionConfig.pixel_mean,
        pixel_std=VisionConfig.pixel_std,
    ),
    "siglip-so400m-patch14-384": EncoderConfig(
        "siglip", 27, 1152, 16, 4304, 0, 384, 14, activation="gelu_pytorch_tanh"
    ),
}
DECODERS: dict[str, DecoderConfig] = {
    name: DecoderConfig(layers, hidden, heads, kv, mlp, vocab, mrope_sections=(hidden // heads // 2,), tied=tied)
    for name, layers, hidden, heads, kv, mlp, vocab, tied in (
        ("qwen2.5-0.5b", 24, 896, 14, 2, 4864, 151936, True),
        ("qwen2.5-1.5b", 28, 1536, 12, 2, 8960, 151936, True),
        ("qwen2.5-3b", 36, 2048, 16, 2, 11008, 151936, True),
        ("qwen2.5-7b", 28, 3584, 28, 4, 18944, 152064, False),
        ("qwen2.5-14b", 48, 5120, 40, 8, 13824, 152064, False),
        ("qwen2.5-32b", 64, 5120, 40, 8, 27648, 152064, False),
        ("qwen2.5-72b", 80, 8192, 64, 8, 29568, 152064, False),
    )
} | {
    name: DecoderConfig(
        layers,
        hidden,
        heads,
        8,
        mlp,
        151936,
        mrope_sections=(64,),
        tied=tied,
        own_head_dim=0 if hidden == heads * 128 else 128,
        qkv_bias=False,
        qk_norm=True,
    )
    for name, layers, hidden, heads, mlp, tied in (
        ("qwen3-0.6b", 28, 1024, 16, 3072, True),
        ("qwen3-1.7b", 28, 2048, 16, 6144, True),
        ("qwen3-4b", 36, 2560, 32, 9728, True),
        ("qwen3-8b", 36, 4096, 32, 12288, False),
        ("qwen3-14b", 40, 5120, 40, 17408, False),
        ("qwen3-32b", 64, 5120, 64, 25600, False),
    )
}


def assembled(encoder: str, decoder: str, *, connector: str = "mlp", tiles: bool = False) -> VLMConfig:
    """The shapes of a model of these two."""
    tower = dataclasses.replace(ENCODERS[encoder], out_hidden=DECODERS[decoder].hidden)
    tower = dataclasses.replace(tower, keep_class=False) if tiles else tower
    return shapes.assembled(tower, DECODERS[decoder], connector=connector, newline=tiles)


PRESETS |= {
    "vit-qwen2.5-3b": assembled("vit-base-patch32-384", "qwen2.5-3b"),
    "clip-qwen2.5-7b": assembled("clip-vit-large-patch14-336", "qwen2.5-7b"),
    "siglip-qwen2.5-3b": assembled("siglip-so400m-patch14-384", "qwen2.5-3b"),
}


def with_vocabulary(config: VLMConfig, vocab: int, ids: dict[str, int]) -> VLMConfig:
    """The same shapes around another tokenizer, given its special tokens' ids."""
    return dataclasses.replace(
        config,
        decoder=dataclasses.replace(config.decoder, vocab=vocab),
        image_token=ids["<|image_pad|>"],
        video_token=ids["<|video_pad|>"],
        vision_start_token=ids["<|vision_start|>"],
        vision_end_token=ids["<|vision_end|>"],
    )
