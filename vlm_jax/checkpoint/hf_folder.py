"""Hugging Face folders: weights in and out, and the small files that travel with them.

Everything a folder lacks is found from headers before a byte of weights is read, and reported together. A folder is
written beside its place and renamed into it, so none is ever seen half-written.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vlm_jax.checkpoint import (
    chat_template,
    description,
    reduction_file,
    safetensors_file,
    tied_head,
    weight_files,
    weight_table,
)
from vlm_jax.checkpoint.files import check_target, copy_assets, written_whole
from vlm_jax.checkpoint.names import file_name, hub_name, memory_name, name_table
from vlm_jax.checkpoint.stop_tokens import write_end_of_turn
from vlm_jax.checkpoint.tied_head import EMBEDDING, HEAD
from vlm_jax.checkpoint.weight_files import Described
from vlm_jax.deferred import Deferred
from vlm_jax.errors import InputError
from vlm_jax.models import families
from vlm_jax.models.config import VLMConfig
from vlm_jax.models.parameters import Flat, abstract_parameters
from vlm_jax.models.weight_names import WeightName
from vlm_jax.processing.image_processors import ImageProcessor
from vlm_jax.processing.token_budget import ALL_TOKENS, TokenBudget

SHARD_BYTES = 5 * 10**9
Readable = jax.Array | np.ndarray | Deferred


def read_parameters(
    folder: Path,
    config: VLMConfig,
    *,
    dtype=None,
    place: Callable[[str, Deferred], Flat] = lambda path, array: {path: jax.device_put(array[...])},
) -> Flat:
    """All parameters of a folder.

    Args:
      dtype: cast to it; None keeps what the files hold.
      place: puts an array of a path on its devices, under its path or, where it is quantised, several. It reads as much
        of the array at a time as it wants; what it has read of a parameter is let go of before the next.

    Raises:
      InputError: missing or truncated shards, missing, surplus or misshapen tensors, all of them listed.
    """
    parameters = {}
    for path, array in deferred(folder, config).items():
        parameters |= place(path, array if dtype is None else array.astype(dtype))
    return parameters


def deferred(folder: Path, config: VLMConfig) -> dict[str, Deferred]:
    """All parameters of a folder, none of them read yet: their values stay in the mapped files.

    Raises:
      InputError: as `read_parameters`.
    """
    places = _checked(folder, config)
    views = {path: weight_files.mapped(path) for path in {path for path, _ in places.values()}}
    return _joined(config, {name: views[path].get(key) for name, (path, key) in places.items()})


def from_tensors(tensors: Mapping[str, np.ndarray], config: VLMConfig, *, where: str) -> dict[str, Deferred]:
    """All parameters, none of them put together yet, from tensors by their names in either layout.

    Raises:
      InputError: missing, surplus or misshapen tensors, all of them listed.
    """
    stored = {hub_name(name): tensor for name, tensor in tensors.items()}
    _tie(stored, config)
    described = {name: weight_files.shape_and_dtype(tensor) for name, tensor in stored.items()}
    errors = _mismatches(where, config, described)
    if not errors and tied_head.of_tensors(stored, config) != config:
        errors = [_head_differs(where)]
    if errors:
        raise InputError(errors)
    return _joined(config, stored)


def to_tensors(config: VLMConfig, parameters: Mapping[str, Readable]) -> Iterator[tuple[str, np.ndarray]]:
    """(name as transformers has it in memory, tensor) of every parameter, a tied head included."""
    for entry in name_table(config):
        for index, name in enumerate(entry.tensors()):
            yield memory_name(name), _tensor(parameters, entry, None if entry.layers is None else index)
    if config.decoder.tied:
        yield HEAD, np.asarray(parameters["embedding"])


def check_weights(folder: Path, config: VLMConfig) -> None:
    """Raises what `read_parameters` would, from the headers alone: quick, whatever the size."""
    _checked(folder, config)


def _checked(folder: Path, config: VLMConfig) -> dict[str, tuple[Path, str]]:
    """{name in the table: (file, name in it)} of a folder that has all tensors, of the right shapes."""
    paths, errors = weight_files.weight_files(folder)
    places: dict[str, tuple[Path, str]] = {}
    described: Described = {}
    for path, tensors in weight_files.described(paths, errors).items():
        for key, known in tensors.items():
            name = paths[path](key)
            if name is None:
                continue
            if name in places:
                errors.append(f"{path}: tensor {key} stands in the folder twice; remove the stale file or copy")
            places[name], described[name] = (path, key), known
    _tie(places, config)
    _tie(described, config)
    errors += _mismatches(str(folder), config, described)
    if not errors and tied_head.of_folder(folder, config) != config:
        errors.append(_head_differs(str(folder)))
    if errors:
        raise InputError(errors)
    return places


def _tie(stored: dict[str, Any], config: VLMConfig) -> None:
    """Of a tied model whose files hold the head alone, the head is the embeddings."""
    if config.decoder.tied and HEAD in stored and EMBEDDING not in stored:
        stored[EMBEDDING] = stored.pop(HEAD)


def _head_differs(where: str) -> str:
    return (
        f"{where}: {HEAD} differs from {EMBEDDING}, although config.json says {tied_head.FLAG}; set it to false at the "
        "top and in text_config"
    )


def write_folder(
    target: Path,
    config: VLMConfig,
    parameters: Mapping[str, Readable],
    assets: Path,
    *,
    images: ImageProcessor | None = None,
    budget: TokenBudget = ALL_TOKENS,
    budget_of: ImageProcessor | None = None,
    trained: bool = False,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Writes a folder in the hub's layout.

    Args:
      parameters: of those that are deferred, one layer is read at a time.
      assets: a folder whose small files (`ASSETS`) are carried along.
      images: the image processor to write in place of the carried ones: the budget the model was trained with.
      budget: how many visual tokens it was trained to see.
      budget_of: the image processor that the budget is of, where `images` is another.
      trained: whether the model learned to end its turns as the chat template does; it is made to stop there.

    Raises:
      InputError: the target exists and is not empty.
    """
    check_target(target)
    prepared = images or description.read_image_processor(assets, config)
    if reasons := families.of(config).not_in_hub_format(config, prepared):
        raise InputError([f"{target}: {reason}; take format orbax, or pth for the weights alone" for reason in reasons])
    with written_whole(target) as folder:
        copy_assets(assets, folder)
        description.name_dtype(folder / "config.json", {parameters[entry.path].dtype for entry in name_table(config)})
        tied_head.named_in(folder / "config.json", config.decoder.tied)
        description.write_image_processor(folder, images, config)
        reduction_file.write(folder, budget, budget_of)
        if trained:
            processor = description.read_processor(folder, config)
            write_end_of_turn(folder, processor)
            chat_template.write_for_processors(folder, processor.template or processor.tokenizer.chat_template)
        _write_weights(folder, config, parameters, shard_bytes)


def _mismatches(where: str, config: VLMConfig, stored: Described) -> list[str]:
    # Some writers store a tied head as well: it is compared.
    also = {HEAD} if config.decoder.tied else set()
    return weight_table.mismatches(where, name_table(config), abstract_parameters(config), stored, also=also)


def _joined(config: VLMConfig, tensors: Mapping[str, np.ndarray]) -> dict[str, Deferred]:
    return weight_table.joined(name_table(config), abstract_parameters(config), tensors)


def _tensor(parameters: Mapping[str, Readable], entry: WeightName, index: int | None) -> np.ndarray:
    """One tensor of a parameter: all of it, or a layer's."""
    array = parameters[entry.path]
    return entry.transform.write(np.asarray(array if index is None else array[index]))


def _write_weights(folder: Path, config: VLMConfig, parameters: Mapping[str, Readable], shard_bytes: int) -> None:
    shards: list[list[tuple[str, WeightName, int | None]]] = [[]]
    sizes = [0]
    for entry in name_table(config):
        array = parameters[entry.path]
        for index, name in enumerate(file_name(tensor, config) for tensor in entry.tensors()):
            size = array.nbytes // (entry.layers or 1)
            if shards[-1] and sizes[-1] + size > shard_bytes:
                shards.append([])
                sizes.append(0)
            shards[-1].append((name, entry, None if entry.layers is None else index))
            sizes[-1] += size

    abstract, weight_map = abstract_parameters(config), {}
    for number, shard in enumerate(shards, start=1):
        name = "model.safetensors" if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        described = {}
        for tensor, entry, index in shard:
            shape = abstract[entry.path].shape
            shape = tuple(entry.transform.shape(shape if index is None else shape[1:]))
            described[tensor] = (np.dtype(parameters[entry.path].dtype), shape)
            weight_map[tensor] = name
        parts = ((tensor, _tensor(parameters, entry, index)) for tensor, entry, index in shard)
        safetensors_file.write(folder / name, described, parts)
    if len(shards) > 1:
        weights_index = {"metadata": {"total_size": sum(sizes)}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(weights_index, indent=2) + "\n")
