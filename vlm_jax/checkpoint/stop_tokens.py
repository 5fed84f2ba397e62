"""What ends an answer: read from a model folder and its chat template, and written into what is exported.

Base models stop at the end of a text alone by their `generation_config.json`, and have a chat template whose turns
end with another token. That end is what training on conversations teaches; what would follow it is another's turn.
"""

from pathlib import Path
from typing import Any

from vlm_jax.checkpoint.files import read_json, write_json
from vlm_jax.checkpoint.generation_settings import CONFIG, GENERATION_CONFIG, PENALTY, settings_in
from vlm_jax.errors import InputError
from vlm_jax.processing.processor import Processor


def stop_tokens(assets: Path, processor: Processor) -> tuple[int, ...]:
    """`eos_token_id` as transformers finds it, and the token that ends a turn of the template.

    Raises:
      InputError: an `eos_token_id` that is no token id and no list of them.
    """
    ends, end_of_turn = _ends_of_text(assets, processor), processor.end_of_turn()
    return ends if end_of_turn is None or end_of_turn in ends else (*ends, end_of_turn)


def write_end_of_turn(folder: Path, processor: Processor) -> None:
    """Makes the `generation_config.json` of a trained model stop where its turns end, if it does not yet."""
    ends = _ends_of_text(folder, processor)
    stops = stop_tokens(folder, processor)
    if stops == ends:
        return
    path, config = folder / GENERATION_CONFIG, settings_in(folder / CONFIG)
    # Without the file transformers takes these from config.json.
    own = {key: config[key] for key in ("bos_token_id", "pad_token_id", PENALTY) if key in config}
    generation: dict[str, Any] = read_json(path) if path.is_file() else own
    write_json(path, generation | {"eos_token_id": list(stops)})


def _ends_of_text(assets: Path, processor: Processor) -> tuple[int, ...]:
    """`eos_token_id` of generation_config.json, else of config.json (its top, else its text_config), else the
    tokenizer's."""
    for name in (GENERATION_CONFIG, CONFIG):
        path = assets / name
        value = settings_in(path).get("eos_token_id")
        if value is not None:
            tokens = tuple(value) if isinstance(value, list) else (value,)
            if not all(type(token) is int and 0 <= token < 2**31 for token in tokens):
                raise InputError(f"{path}: eos_token_id must be a token id or a list of them, got {value!r}")
            return tokens
    return (processor.tokenizer.eos_token_id,)
