"""What a model folder asks of every answer: `generation_config.json`, as far as it changes the likeliest tokens.

Which token ends an answer is `stop_tokens`'s. How long it may be and how tokens are drawn are settings of each call
here, so the folder's are passed over (docs/answers.md). What is left changes what a greedy answer says: the penalty for
repetition is honoured, and anything else is refused by name rather than answered differently from transformers.
"""

import math
from pathlib import Path
from typing import Any

from vlm_jax.checkpoint.files import read_json
from vlm_jax.errors import InputError

GENERATION_CONFIG, CONFIG = "generation_config.json", "config.json"
PENALTY = "repetition_penalty"

_PASSED_OVER = frozenset(
    {
        # Read elsewhere, or about encoders and decoders apart.
        *("eos_token_id", "bos_token_id", "pad_token_id", "decoder_start_token_id"),
        # Of draws, and how long answers are: given with each call.
        *("do_sample", "temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff"),
        *("max_length", "max_new_tokens", "renormalize_logits", "length_penalty", "early_stopping"),
        # How transformers computes the same tokens, and what it returns beside them.
        *("use_cache", "use_mtp", "cache_implementation", "cache_config", "max_cache_len", "return_legacy_cache"),
        *("compile_config", "disable_compile", "continuous_batching_config", "low_memory", "prefill_chunk_size"),
        *("output_attentions", "output_hidden_states", "output_scores", "output_logits", "return_dict_in_generate"),
        *("is_assistant", "num_assistant_tokens", "num_assistant_tokens_schedule", "assistant_confidence_threshold"),
        *("prompt_lookup_num_tokens", "max_matching_ngram_size", "assistant_early_exit", "assistant_lookbehind"),
        *("target_lookbehind", "assistant_ensemble_weight", "speculation_type", "num_return_sequences"),
        # Who wrote the file, and what Qwen's own code keeps in it.
        *("_from_model_config", "transformers_version", "chat_format", "max_window_size"),
    }
)
_CHANGES: dict[str, Any] = {
    # key: the value with which it changes nothing, beside null, false and an empty list
    **dict.fromkeys(("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "min_length", "min_new_tokens"), 0),
    **dict.fromkeys((PENALTY, "encoder_repetition_penalty", "num_beams", "num_beam_groups", "guidance_scale"), 1),
    **dict.fromkeys(("penalty_alpha", "diversity_penalty"), 0),
    **dict.fromkeys(("bad_words_ids", "force_words_ids", "constraints", "sequence_bias", "stop_strings"), None),
    **dict.fromkeys(("forced_bos_token_id", "forced_eos_token_id", "suppress_tokens", "begin_suppress_tokens"), None),
    **dict.fromkeys(("exponential_decay_length_penalty", "watermarking_config", "dola_layers", "max_time"), None),
    **dict.fromkeys(("token_healing", "remove_invalid_values"), None),
}


def repetition_penalty(assets: Path) -> float:
    """The penalty that a folder's answers have unless a call gives another; 1 is none.

    Raises:
      InputError: a penalty that is no number above 0, and every setting that would change answers and is not honoured.
    """
    path, errors, penalty = assets / GENERATION_CONFIG, [], 1.0
    if not path.is_file():
        path = assets / CONFIG
    for key, value in settings_in(path).items():
        # Most keys of a config.json are not about answers.
        if key in _PASSED_OVER or value is False or value in ([], {}) or (path.name == CONFIG and key not in _CHANGES):
            continue
        if key == PENALTY:
            if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < math.inf:
                penalty = float(value)
            else:
                errors.append(f"{path}: {PENALTY} must be a number above 0, got {value!r}; correct or remove it")
        elif key not in _CHANGES:
            errors.append(
                f"{path}: {key} {_shown(value)} is not known, and may change answers; remove it from the file if it "
                "does not"
            )
        elif value != _CHANGES[key]:
            errors.append(
                f"{path}: {key} {_shown(value)} changes answers and is not supported; remove it from the file to "
                "answer without"
            )
    if errors:
        raise InputError(errors)
    return penalty


def settings_in(path: Path) -> dict[str, Any]:
    """The settings of a generation_config.json; of a config.json those of its top, or else of its text_config, as
    transformers finds them where the other file is missing. {} where there is no such file."""
    settings = read_json(path) if path.is_file() else {}
    parts = (settings.get("text_config"), settings) if path.name == CONFIG else (settings,)
    return {key: value for part in parts if isinstance(part, dict) for key, value in part.items() if value is not None}


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
