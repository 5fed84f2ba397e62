"""Whether a model's output layer is its token embeddings, which its weights decide where they and a flag disagree.

As transformers 5 reads it: `tie_word_embeddings` at the top of config.json or in its text_config ties. A stored head
that differs from the embeddings (trained apart, written by ZeRO-3) is a layer of its own all the same; and where the
head alone is stored, it is the embeddings.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vlm_jax.checkpoint import weight_files
from vlm_jax.checkpoint.files import copy_assets, folder_of_this_process, read_json, write_json
from vlm_jax.errors import InputError
from vlm_jax.models.config import VLMConfig

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
"""By the table's names (`names`)."""
FLAG = "tie_word_embeddings"
_ROWS = 4096  # of a table, compared at one time


def of_folder(folder: Path, config: VLMConfig) -> VLMConfig:
    """`config` with the head that the weights of a folder have. Files that cannot be read are for others to report."""
    if not config.decoder.tied:
        return config
    try:
        files, _ = weight_files.weight_files(folder)
        places = {
            name: (path, key)
            for path, tensors in weight_files.described(files, []).items()
            for key in tensors
            if (name := files[path](key)) in (EMBEDDING, HEAD)
        }
    except InputError:  # `check_weights` tells of them, together with all other errors
        return config
    return of_tensors({name: weight_files.mapped(path).get(key) for name, (path, key) in places.items()}, config)


def of_tensors(tensors: Mapping[str, Any], config: VLMConfig) -> VLMConfig:
    """As `of_folder`, by tensors under the table's names."""
    embedding, head = tensors.get(EMBEDDING), tensors.get(HEAD)
    if not config.decoder.tied or embedding is None or head is None or _equal(embedding, head):
        return config
    return dataclasses.replace(config, decoder=dataclasses.replace(config.decoder, tied=False))


def _equal(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two tables hold the same numbers; the first rows tell those that do not."""
    if one.shape != other.shape:
        return False
    starts = range(0, one.shape[0], _ROWS) if one.ndim else [0]
    rows = (slice(start, start + _ROWS) for start in starts)
    return all(np.array_equal(one[row].astype(np.float32), other[row].astype(np.float32)) for row in rows)


def named_in(path: Path, tied: bool) -> None:
    """Makes a config.json say, at its top and in its text_config, whether the head is tied."""
    config_json = read_json(path)
    text = config_json.get("text_config")
    levels = [config_json, *([text] if isinstance(text, dict) else [])]
    flags = [bool(level.get(FLAG, False)) for level in levels if FLAG in level or level is config_json]
    if all(flag == tied for flag in flags):
        return
    for level in levels:
        level[FLAG] = tied
    write_json(path, config_json)


def assets_saying(assets: Path, tied: bool) -> Path:
    """A copy of a model's small files whose config.json says `tied`, on this machine, for as long as the process lives.

    What is trained or written from a model whose flag is wrong carries these files along.
    """
    folder = folder_of_this_process()
    copy_assets(assets, folder)
    named_in(folder / "config.json", tied)
    return folder
