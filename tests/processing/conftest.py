"""Tokenizers made on the machine, as folders: the input tests need a real one, and nothing may be downloaded."""

import json
from pathlib import Path

import pytest

from vlm_jax.processing.new_tokenizer import write_tokenizer

PHOTOS = Path(__file__).parents[1] / "data" / "photos"
TEXTS = [
    "What is the cat called?",
    "แมวตัวนี้ชื่ออะไร",
    "น้ำพริกอ่องกับข้าวเหนียว ๒๕๖๙",
    "👩‍🚀🚀 emoji, 😀",
    "  two spaces before and after  ",
    "lines\nand\n\nmore lines\n",
    "tabs\tand \\ 'quotes' \"double\" {{ braces }} {% raw %}",
    "<image> <|box_start|>(1,2)<|box_end|>",
    "naïve café — “Zürich” 東京",
    "",
    "x",
]


def photo_texts() -> list[str]:
    entries = json.loads((PHOTOS / "photos.json").read_text(encoding="utf-8"))
    return [turn["value"] for entry in entries for turn in entry["conversations"]]


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory) -> Path:
    """A tokenizer of 640 tokens trained on the questions and answers about the photographs."""
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder, photo_texts(), 640)
    return folder


@pytest.fixture(scope="session")
def merging_tokenizer_folder(tmp_path_factory) -> Path:
    """One that has tokens of several line breaks and spaces, as the published one has."""
    folder = tmp_path_factory.mktemp("merging_tokenizer")
    runs = ["word\n\nword", "word\n\n\nword", "word \n\nword", "word\n \nword", "word  word   word"] * 100
    ids = write_tokenizer(folder, photo_texts() + runs, 700)
    vocab = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    assert {"ĊĊ", "ĊĠĊ", "ĠĠ"} <= set(vocab) and len(vocab) < min(ids.values()) + 1
    return folder
