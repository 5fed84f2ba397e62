"""`config.json` of CLIP and SigLIP folders that hold both halves.

Every setting is computed, or known to change no embedding, or refused by name.
"""

from collections.abc import Mapping
from typing import Any

from vlm_jax.errors import InputError
from vlm_jax.models import config_types
from vlm_jax.models.contrastive.shapes import VARIANTS, ContrastiveConfig, TextConfig
from vlm_jax.models.llava.config_json import ACTIVATIONS, DEFAULTS, read_encoder
from vlm_jax.models.llava.family import of_encoder
from vlm_jax.processing.image_processors.fixed_views import FixedViews

_TEXT_DEFAULTS: dict[str, dict[str, Any]] = {
    # transformers' class defaults: files of the hub name only what differs from them.
    "clip": {
        "vocab_size": 49408,
        "hidden_size": 512,
        "intermediate_size": 2048,
        "num_hidden_layers": 12,
        "num_attention_heads": 8,
        "max_position_embeddings": 77,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
        "eos_token_id": 49407,
    },
    "siglip": {
        "vocab_size": 32000,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "max_position_embeddings": 64,
        "hidden_act": "gelu_pytorch_tanh",
        "layer_norm_eps": 1e-6,
        "eos_token_id": 49407,
    },
}
_VISION = {"num_channels", "image_size", "patch_size", "vision_use_head"}
_PROJECTION = 512
"""CLIP's `projection_dim` where the file has none."""
_LEGACY_END = 2
_HALVES = ("text_config", "vision_config")
# What older versions of transformers write into every config: of training, of generation, of classifying.
_WITHOUT_EFFECT = frozenset(
    """_name_or_path architectures attention_dropout bad_words_ids begin_suppress_tokens bos_token_id
    chunk_size_feed_forward decoder_start_token_id diversity_penalty do_sample dropout dtype early_stopping
    encoder_no_repeat_ngram_size exponential_decay_length_penalty finetuning_task forced_bos_token_id
    forced_eos_token_id gradient_checkpointing id2label initializer_factor initializer_range is_encoder_decoder
    label2id length_penalty logit_scale_init_value max_length min_length model_type no_repeat_ngram_size num_beam_groups
    num_beams num_return_sequences output_attentions output_hidden_states output_scores pad_token_id prefix
    problem_type projection_dim remove_invalid_values repetition_penalty return_dict return_dict_in_generate
    sep_token_id suppress_tokens task_specific_params temperature tf_legacy_loss tie_word_embeddings tokenizer_class
    top_k top_p torch_dtype torchscript transformers_version transformers_weights typical_p use_bfloat16
    use_cache""".split()
)
_ONLY: dict[str, tuple[Any, ...]] = {
    "add_cross_attention": (False,),
    "cross_attention_hidden_size": (None,),
    "is_decoder": (False,),
    "pruned_heads": ({},),
    "tie_encoder_decoder": (False,),
}
"""Settings that are computed at these values alone."""


def is_contrastive(config: Mapping[str, Any]) -> bool:
    """Whether a `config.json` is of a folder with both halves, whatever else is wrong with it."""
    return config.get("model_type") in VARIANTS


def read_contrastive(config: Mapping[str, Any], where: str) -> ContrastiveConfig:
    """Both halves of a parsed `config.json`.

    Raises:
      InputError: another architecture, a folder of one half, or settings that are not computed: all of them.
    """
    variant = config.get("model_type")
    if variant not in VARIANTS:
        raise InputError(
            f"{where}: model_type is {variant!r}; wanted {' or '.join(map(repr, VARIANTS))}, with images and texts"
        )
    if errors := config_types.errors(config):
        raise InputError([f"{where}: {error}" for error in errors])
    text, vision = (_half(config, name, variant, where) for name in _HALVES)
    errors = _unknown(config, {*_HALVES, *(f"{name}_dict" for name in _HALVES)}, "")
    errors += _unknown(text, {*_TEXT_DEFAULTS[variant], "projection_size"}, "text_config.")
    errors += _unknown(vision, {*DEFAULTS[variant], *_VISION}, "vision_config.")
    errors += _not_computed(variant, text, vision)
    if errors:
        raise InputError([f"{where}: {error}" for error in errors])
    out = config.get("projection_dim") or _PROJECTION
    if variant == "siglip":
        out = text.get("projection_size") or text["hidden_size"]
    shapes = ContrastiveConfig(
        read_encoder(
            {**vision, "model_type": variant},
            f"{where}, vision_config",
            out_hidden=out,
            final_norm=True,
            pooling_head=False,
        ),
        TextConfig(
            variant=variant,
            depth=text["num_hidden_layers"],
            hidden=text["hidden_size"],
            heads=text["num_attention_heads"],
            mlp=text["intermediate_size"],
            vocab=text["vocab_size"],
            length=text["max_position_embeddings"],
            out=out,
            activation=text["hidden_act"],
            norm_eps=text["layer_norm_eps"],
            end_token=None if variant == "siglip" or text["eos_token_id"] == _LEGACY_END else text["eos_token_id"],
        ),
    )
    if errors := shapes.inconsistencies():
        raise InputError([f"{where}: {error}" for error in errors])
    return shapes


def image_processor(settings: Mapping[str, Any], config: ContrastiveConfig) -> FixedViews:
    """Of an image processor's settings, for the encoder of images."""
    return of_encoder(settings, config.vision)


def _half(config: Mapping[str, Any], name: str, variant: str, where: str) -> dict[str, Any]:
    defaults = (_TEXT_DEFAULTS if name == "text_config" else DEFAULTS)[variant]
    given, whole = config.get(name) or {}, config.get(f"{name}_dict")
    if not isinstance(given, Mapping) or not isinstance(whole, Mapping | None):
        raise InputError(f"{where}: {name} and {name}_dict must be JSON objects")
    settings = {**defaults, **{key: value for key, value in given.items() if value is not None}}
    # Of older files. As in transformers it counts, with the defaults of what it does not name, over the other.
    return settings if whole is None or variant != "clip" else {**settings, **defaults, **whole}


def _unknown(settings: Mapping[str, Any], computed: set[str], inside: str) -> list[str]:
    errors = []
    for key, value in settings.items():
        if key in computed or key in _WITHOUT_EFFECT:
            continue
        if key not in _ONLY:
            errors.append(f"{inside}{key} is {value!r}, which is not a known setting of CLIP or SigLIP; remove it")
        elif value not in _ONLY[key]:
            errors.append(f"{inside}{key} is {value!r}, which is not implemented; known is {_ONLY[key][0]!r}")
    return errors


def _not_computed(variant: str, text: Mapping[str, Any], vision: Mapping[str, Any]) -> list[str]:
    errors = []
    if text["hidden_act"] not in ACTIVATIONS:
        errors.append(f"text_config.hidden_act is {text['hidden_act']!r}; known are {', '.join(ACTIVATIONS)}")
    if variant == "siglip" and vision["vision_use_head"] is not True:
        errors.append(
            f"vision_config.vision_use_head is {vision['vision_use_head']!r}: without the head images have no embedding"
        )
    for key, least in (("max_position_embeddings", 2), ("eos_token_id", 0)):
        value = text[key]
        if key == "eos_token_id" and variant != "clip":
            continue
        if type(value) is not int or value < least:
            errors.append(f"text_config.{key} is {value!r}; wanted a whole number from {least}")
    return errors
