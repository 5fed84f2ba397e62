"""Which of transformers' classes reads the tokenizer of a folder.

AutoTokenizer loads the settings of every architecture and, where it is installed, PyTorch: seconds before a first
answer. Where the folder's files alone settle what it would choose, that class is loaded by itself.
"""

from pathlib import Path

from vlm_jax.checkpoint.files import read_json

QWEN = ("qwen2", "qwen2_vl", "qwen2_5_vl")
"""Values of `model_type` whose tokenizer AutoTokenizer takes to be Qwen2Tokenizer."""


def tokenizer_class(folder: Path):
    """AutoTokenizer, or the class that it would choose. Raises InputError for JSON that cannot be read."""
    paths = [folder / "config.json", folder / "tokenizer_config.json"]
    if all(path.is_file() for path in paths):
        config_json, tokenizer_json = map(read_json, paths)
        named = tokenizer_json.get("tokenizer_class") in ("Qwen2Tokenizer", "Qwen2TokenizerFast")
        if named and "auto_map" not in tokenizer_json and config_json.get("model_type") in QWEN:
            from transformers.models.qwen2.tokenization_qwen2 import Qwen2Tokenizer

            return Qwen2Tokenizer
    from transformers import AutoTokenizer

    return AutoTokenizer
