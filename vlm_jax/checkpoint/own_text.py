"""The tokenizer and chat template that a trainer wrote beside weights whose base lies elsewhere.

They are those that the weights were trained with: a template of the trainer's own, tokens that were added. They count
before the base's, as where transformers is given the adapter's folder.
"""

import shutil
from pathlib import Path
from typing import Any

from vlm_jax.checkpoint import chat_template
from vlm_jax.checkpoint.description import holds_tokenizer
from vlm_jax.checkpoint.files import copy_assets, folder_of_this_process, read_json, write_json

TOKENIZER = ("tokenizer*", "vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json")
TEMPLATE = ("chat_template*", f"{chat_template.FURTHER}/*.jinja")
_SETTINGS, _KEY = "tokenizer_config.json", "chat_template"


def assets_with(folder: Path, assets: Path) -> Path:
    """The base's small files with what `folder` has of tokenizer and template in place of theirs.

    Raises:
      InputError: a file of either is no JSON.
    """
    tokenizer = _files(folder, TOKENIZER) if holds_tokenizer(folder) else []
    template = _files(folder, TEMPLATE)
    if all(_same(path, assets / path.relative_to(folder)) for path in (*tokenizer, *template)):
        return assets
    copy = folder_of_this_process()
    copy_assets(assets, copy)
    settings, below = _settings(folder) if tokenizer else {}, _settings(copy)
    # A template inside the tokenizer's settings is as much the trainer's as one in a file of its own.
    replaces_template = bool(template or settings.get(_KEY))
    if tokenizer:
        _replace(copy, folder, TOKENIZER, tokenizer)
        inherited = {} if replaces_template or not below.get(_KEY) else {_KEY: below[_KEY]}
        write_json(copy / _SETTINGS, (settings or below) | inherited)
    if replaces_template:
        _replace(copy, folder, TEMPLATE, template)
        if (copy / chat_template.NESTED).is_file():
            processor = read_json(copy / chat_template.NESTED)
            processor.pop(_KEY, None)
            write_json(copy / chat_template.NESTED, processor)
    return copy


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / _SETTINGS
    return read_json(path) if path.is_file() else {}


def _files(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    return [path for pattern in patterns for path in sorted(folder.glob(pattern)) if path.is_file()]


def _same(path: Path, other: Path) -> bool:
    return other.is_file() and path.read_bytes() == other.read_bytes()


def _replace(copy: Path, folder: Path, patterns: tuple[str, ...], files: list[Path]) -> None:
    for path in _files(copy, patterns):
        path.unlink()
    for path in files:
        target = copy / path.relative_to(folder)
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, target)
