"""LLaVA, LLaVA-NeXT and models that are assembled here as a family: an encoder, a projector, a text model of Qwen."""

from collections.abc import Mapping
from typing import Any

from vlm_jax.models.config import VLMConfig
from vlm_jax.models.decoder_json import QWEN2_TOKENIZER
from vlm_jax.models.family import Family
from vlm_jax.models.llava import names
from vlm_jax.models.llava.config_json import TITLES, from_llava, to_llava
from vlm_jax.models.llava.tower import EncoderTower, LinearProjector, Projector
from vlm_jax.processing.image_processors.fixed_views import FixedViews


def image_processor(settings: Mapping[str, Any], config: VLMConfig) -> FixedViews:
    """Of an image processor's settings, for a model's encoder."""
    return of_encoder(settings, config.vision)


def of_encoder(settings: Mapping[str, Any], encoder) -> FixedViews:
    return FixedViews.from_json(
        settings,
        image_size=encoder.image_size,
        patch_size=encoder.patch_size,
        class_token=bool(encoder.class_slots),
        keep_class=encoder.keep_class,
    )


def _grid_pinpoints(images: FixedViews) -> dict[str, Any]:
    """What LLaVA-NeXT's `config.json` repeats of the image processor."""
    return {"image_grid_pinpoints": [list(size) for size in images.pinpoints]} if images.pinpoints else {}


def _not_in_hub_format(config: VLMConfig, images: FixedViews) -> list[str]:
    reasons = []
    if config.connector != "mlp":
        reasons.append(f"the format of LLaVA has no {config.connector} connector, only two layers with GELU between")
    if images.mode == "letterbox" and images.background != images.mean_colour:
        reasons.append(
            f"images are letter-boxed on {images.background}, and transformers' LLaVA pads with the encoder's mean "
            f"colour {images.mean_colour} alone"
        )
    if config.newline != (images.mode == "anyres"):
        reasons.append("row separators and tiles belong together in LLaVA-NeXT")
    return reasons


LLAVA = Family(
    model_types=TITLES,
    tower=EncoderTower,
    connectors={"mlp": Projector, "linear": LinearProjector},
    read_config=from_llava,
    write_config=to_llava,
    weight_names=names.names,
    read_image_processor=image_processor,
    modules=("vision_tower", "multi_modal_projector"),
    tokenizers=dict.fromkeys(("qwen2", "qwen3"), QWEN2_TOKENIZER),  # of the text models that are assembled
    repeated_in_config=_grid_pinpoints,
    placeholders=("<image>", "<|image_pad|>"),
    name_in_table=names.in_table,
    name_in_memory=names.in_memory,
    name_in_file=names.in_file,
    connector_files=("final_connector.pth", "mm_projector.bin"),
    name_in_connector=names.in_connector,
    processor_beside_adapters=False,
    not_in_hub_format=_not_in_hub_format,
)
