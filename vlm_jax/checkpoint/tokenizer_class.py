"""Which of transformers' classes reads the tokenizer of a folder.

AutoTokenizer loads the settings of every architecture and, where it is installed, PyTorch: seconds before a first
answer. Where the folder's files alone settle what it would choose, that class is loaded by itself.
"""

import importlib
from pathlib import Path

from vlm_jax.checkpoint.files import read_json
from vlm_jax.models import families


def tokenizer_class(folder: Path):
    """AutoTokenizer, or the class that it would choose. Raises InputError for JSON that cannot be read."""
    paths = [folder / "config.json", folder / "tokenizer_config.json"]
    if all(path.is_file() for path in paths):
        config_json, tokenizer_json = map(read_json, paths)
        module, _, name = families.tokenizers().get(str(config_json.get("model_type")), "").rpartition(".")
        named = tokenizer_json.get("tokenizer_class") in (name, f"{name}Fast")
        if name and named and "auto_map" not in tokenizer_json:
            return getattr(importlib.import_module(module), name)
    from transformers import AutoTokenizer

    return AutoTokenizer
