"""Tokenizers made on the machine: what transformers reads of their files, and that the same texts give the same."""

import json
import unicodedata

from tokenizers import Tokenizer
from transformers import AutoTokenizer

from vlm_jax.processing.new_tokenizer import CHAT_TEMPLATE, SPECIAL_TOKENS, write_tokenizer

from .conftest import TEXTS, photo_texts


def test_the_tokenizer_loads_in_transformers_and_encodes_as_its_file_does(tokenizer_folder):
    loaded = AutoTokenizer.from_pretrained(tokenizer_folder)
    file = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    marked = "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|> a<|im_end|>\n<|endoftext|>"
    for text in [*TEXTS, *photo_texts(), marked, "e\u0301", "a \n b", "I'll we'VE 123", "\r\n\r\n"]:
        ids = loaded(text)["input_ids"]
        assert ids == file.encode(text).ids, text
        assert loaded.decode(ids) == unicodedata.normalize("NFC", text)
    assert len(loaded) == file.get_vocab_size() == 640
    assert (loaded.eos_token, loaded.pad_token, loaded.bos_token) == ("<|im_end|>", "<|endoftext|>", None)
    assert loaded.chat_template == CHAT_TEMPLATE


def test_a_tokenizer_rebuilt_from_its_vocabulary_and_merges_alone_is_the_same(tokenizer_folder, tmp_path):
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((tokenizer_folder / name).read_bytes())
    whole, rebuilt = (AutoTokenizer.from_pretrained(folder) for folder in (tokenizer_folder, tmp_path))
    for text in TEXTS:
        assert whole(text)["input_ids"] == rebuilt(text)["input_ids"]


def test_special_tokens_are_the_last_ids_and_one_token_each(tmp_path):
    ids = write_tokenizer(tmp_path, ["a few words"], 300)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert list(ids) == list(SPECIAL_TOKENS)
    assert sorted(ids.values()) == list(range(len(loaded) - len(ids), len(loaded)))
    for token, number in ids.items():
        assert loaded(token)["input_ids"] == [number]
        assert loaded.decode([number], skip_special_tokens=True) == ""


def test_writing_a_tokenizer_twice_gives_the_same_files(tokenizer_folder, tmp_path):
    write_tokenizer(tmp_path, photo_texts(), 640)
    for path in tmp_path.iterdir():
        if path.name == "tokenizer.json":  # the order in which its vocabulary is written is not fixed
            first, second = (json.loads(file.read_text()) for file in (path, tokenizer_folder / path.name))
            assert first == second
        else:
            assert path.read_bytes() == (tokenizer_folder / path.name).read_bytes(), path.name
