"""The class that reads a folder's tokenizer is the one that AutoTokenizer would take."""

import json
import shutil

import pytest
from transformers import AutoTokenizer
from transformers.models.qwen2.tokenization_qwen2 import Qwen2Tokenizer

from vlm_jax.checkpoint.tokenizer_class import tokenizer_class

TEXT = "Ünïcode e\u0301, 12345 and\n\n  spaces <|im_end|> don't ไทย"


@pytest.mark.parametrize(
    ("change", "direct"),
    [
        ({}, True),
        ({"tokenizer_class": "Qwen2TokenizerFast"}, True),
        ({"tokenizer_class": "PreTrainedTokenizerFast"}, False),
        ({"tokenizer_class": None}, False),
        ({"auto_map": {"AutoTokenizer": [None, None]}}, False),
    ],
)
def test_a_tokenizer_is_read_as_autotokenizer_reads_it(base, tmp_path, change, direct):
    folder = shutil.copytree(base, tmp_path / "model")
    path = folder / "tokenizer_config.json"
    settings = {**json.loads(path.read_text()), "tokenizer_class": "Qwen2Tokenizer", **change}
    path.write_text(json.dumps({key: value for key, value in settings.items() if value is not None}))
    chosen = tokenizer_class(folder)
    assert chosen is (Qwen2Tokenizer if direct else AutoTokenizer)
    if direct:
        ours, theirs = (one.from_pretrained(str(folder), local_files_only=True) for one in (chosen, AutoTokenizer))
        assert type(ours) is type(theirs)
        assert ours(TEXT)["input_ids"] == theirs(TEXT)["input_ids"]
        assert (ours.eos_token_id, ours.chat_template) == (theirs.eos_token_id, theirs.chat_template)


def test_another_architectures_tokenizer_is_left_to_autotokenizer(base, tmp_path):
    folder = shutil.copytree(base, tmp_path / "model")
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_type": "llava"}))
    assert tokenizer_class(folder) is AutoTokenizer
