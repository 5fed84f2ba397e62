"""PEFT folders: LoRA adapters in and out (`adapter_config.json`, `adapter_model.safetensors`).

Names are those that peft gives the model as transformers holds it in memory; the table of weights is `names`'. What an
adapter computes is `vlm_jax.adapters.lora`'s.
"""

import dataclasses
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from vlm_jax.adapters.lora import Lora
from vlm_jax.checkpoint import beside_adapters, peft_targets, pth, reduction_file, weight_files
from vlm_jax.checkpoint.files import check_target, write_json, written_whole
from vlm_jax.checkpoint.names import hub_name, memory_name, name_table
from vlm_jax.checkpoint.peft_settings import MERGE, SETTINGS, read_settings
from vlm_jax.checkpoint.peft_targets import Targets
from vlm_jax.errors import InputError, gathered
from vlm_jax.models import families
from vlm_jax.models.config import VLMConfig
from vlm_jax.models.parameters import Flat, abstract_parameters
from vlm_jax.models.weight_names import WeightName
from vlm_jax.processing.image_processors import ImageProcessor
from vlm_jax.processing.token_budget import TokenBudget

WEIGHTS = beside_adapters.ADAPTERS[0]
_PREFIX = "base_model.model."
_PARTS = {"a": "lora_A", "b": "lora_B"}


def is_peft_folder(path: Path) -> bool:
    return (path / SETTINGS).is_file()


def write(
    target: Path,
    config: VLMConfig,
    lora: Lora,
    parameters: Flat,
    *,
    base: str,
    connector: Flat | None = None,
    budget: TokenBudget | None = None,
    images: ImageProcessor | None = None,
) -> None:
    """Writes the adapters among `parameters` as a PEFT folder.

    Args:
      connector: all of it, where it was trained beside the adapters: of an assembled model `final_connector.pth` in the
        folder, of a Qwen-VL peft's `modules_to_save`.
      base: the name or path of the model they were trained on, written as `base_model_name_or_path`.
      budget: how many visual tokens they were trained to see, where that or the base's is not all.
      images: the image processor that the budget is of, if need be.

    Raises:
      InputError: the target is in the way, there are no adapters, or a connector for which the family has no place
        beside them.
    """
    check_target(target)
    family = families.of(config)
    saved = list(family.connector_modules(config))
    if connector and not (saved or family.connector_files):
        raise InputError(
            f"{target}: the connector was trained too, and a {families.title_of(family)} has no place for it beside "
            "adapters; write the whole model instead (--format=hf)"
        )
    tensors: dict[str, np.ndarray] = {}
    modules = []
    for entry in _kernels(config):
        place = entry.path.removesuffix("/kernel")
        for part, name in _PARTS.items():
            array = parameters.get(f"{place}/adapter/{part}")
            if array is None:
                continue
            host = np.asarray(array, np.float32)
            for index, tensor in enumerate(entry.tensors()):
                module = memory_name(tensor).removesuffix(".weight")
                layer = host if entry.layers is None else host[index]
                tensors[f"{_PREFIX}{module}.{name}.weight"] = np.ascontiguousarray(layer.T)
                modules += [module] if part == "a" else []
    if not tensors:
        raise InputError(f"{target}: nothing to write: the model has no adapters")
    with written_whole(target) as folder:
        if budget is not None:
            reduction_file.write(folder, budget, images, always=True)
        settings = {**_settings(config, lora, modules), "base_model_name_or_path": base}
        if connector and saved:
            settings["modules_to_save"] = saved
            tensors |= _module_tensors(config, connector)
        write_json(folder / SETTINGS, settings)
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
        (folder / WEIGHTS).chmod(0o644)
        if connector and not saved:
            pth.write(folder / family.connector_files[0], _connector_tensors(config, connector))


def read_connector(path: Path, config: VLMConfig) -> Flat:
    """As `beside_adapters.connector_of`, from a state dict."""
    return beside_adapters.connector_of(pth.read(path), config, where=str(path))


def _module_tensors(config: VLMConfig, connector: Flat) -> dict[str, np.ndarray]:
    """The connector as peft saves a module of `modules_to_save`, float32."""
    found = {}
    for entry in name_table(config):
        if not entry.path.startswith("connector/"):
            continue
        array = np.asarray(connector[entry.path], np.float32)
        for number, name in enumerate(entry.tensors()):
            one = entry.transform.write(array if entry.layers is None else array[number])
            found[_PREFIX + memory_name(name)] = np.ascontiguousarray(one)
    return found


def _connector_tensors(config: VLMConfig, connector: Flat) -> Iterator[tuple[str, np.ndarray]]:
    name_of = families.of(config).name_in_connector
    for entry in name_table(config):
        if entry.path in connector and (name := name_of(entry.name)) is not None:
            yield name, np.ascontiguousarray(entry.transform.write(np.asarray(connector[entry.path])))


def _settings(config: VLMConfig, lora: Lora, modules: list[str]) -> dict[str, Any]:
    elsewhere = f"({'|'.join(families.of(config).modules)})"
    decoder_only = not any(re.search(rf"\.{elsewhere}\.", module) for module in modules)
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "use_rslora": lora.rslora,
        "bias": "none",
        "inference_mode": True,
        # Last names alone would match the tower's layers too; serving programs want last names where it is possible.
        "target_modules": sorted({module.rpartition(".")[2] for module in modules} if decoder_only else modules),
    }
    return settings | ({"exclude_modules": rf".*\.{elsewhere}\..*"} if decoder_only else {})


def read(folder: Path, config: VLMConfig) -> tuple[Lora, Flat]:
    """The kind of an adapter, with the targets that its tensors have, and its parameters, float32 on the host.

    What was trained as a whole beside the adapters, in their file or in one of its own, is among the parameters. A
    layer of a stack that the settings leave out gets zeros, which change nothing.

    Raises:
      InputError: another kind of adapter, missing, misshapen or unknown tensors: all of them listed.
    """
    settings, errors = read_settings(folder), []
    path, lora, flat, beside = _weights(folder), settings.lora, {}, {}
    tensors = _tensors(path)
    saved = {name: tensor for name, tensor in tensors.items() if _is_saved(name, settings.modules_to_save)}
    with gathered(errors):
        low_rank = {name: tensor for name, tensor in tensors.items() if name not in saved}
        lora, flat = from_tensors(low_rank, config, lora, where=str(path), targets=settings.targets)
    with gathered(errors):
        beside = _saved_modules(saved, config, settings.modules_to_save, where=str(path))
    with gathered(errors):
        others = beside_adapters.read(folder, config)
        twice = sorted(others.keys() & beside.keys())
        errors += [f"{folder}: {name} is in {path.name} and in a file of its own; remove one" for name in twice]
        beside |= others
    if errors:
        raise InputError(errors)
    return lora, flat | beside


def _weights(folder: Path) -> Path:
    paths = [folder / name for name in beside_adapters.ADAPTERS]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise InputError(f"{paths[0]}: is missing, and so is {paths[1].name}; copy the whole adapter folder")
    return path


def _tensors(path: Path) -> dict[str, np.ndarray]:
    if pth.is_state_dict(path):
        return pth.read(path)
    with weight_files.readable(path), safe_open(path, "np") as file:
        return {key: file.get_tensor(key) for key in file.keys()}


def _module(name: str) -> str:
    """The module of a tensor, as peft has it inside its own."""
    return name.removeprefix(_PREFIX).rpartition(".")[0]


def _is_saved(name: str, modules: Collection[str]) -> bool:
    """Whether a tensor is one of `modules_to_save`, which are ends of the names of modules, as peft compares them."""
    parents = _module(name).split(".")
    places = [".".join(parents[: count + 1]) for count in range(len(parents))]
    return ".lora_" not in name and any(place.endswith(module) for place in places for module in modules)


def _saved_modules(
    tensors: Mapping[str, np.ndarray], config: VLMConfig, modules: Collection[str], *, where: str
) -> Flat:
    """The parameters of `modules_to_save`, all of which must be there."""
    flat, errors = {}, []
    with gathered(errors):
        plain = {name.removeprefix(_PREFIX): tensor for name, tensor in tensors.items()}
        flat = beside_adapters.whole_modules(plain, config, where=where)
    found = {module for module in modules if any(_is_saved(name, [module]) for name in tensors)}
    expected = {
        entry.path: entry.tensors()[0]
        for entry in name_table(config)
        if any(_is_saved(memory_name(tensor), found) for tensor in entry.tensors())
    }
    missing = [name for path, name in expected.items() if path not in flat]
    if missing and not errors:
        errors.append(f"{where}: modules_to_save names modules whose tensors are missing: {', '.join(missing[:3])}")
    errors += [
        f"{where}: modules_to_save names {module}, of which there is no tensor; {MERGE}"
        for module in modules
        if module not in found
    ]
    if errors:
        raise InputError(errors)
    return flat


def from_tensors(
    tensors: Mapping[str, np.ndarray], config: VLMConfig, lora: Lora, *, where: str, targets: Targets | None = None
) -> tuple[Lora, Flat]:
    """As `read`, from tensors by their names in a PEFT state dict; all that the targets cover must be there."""
    shapes = abstract_parameters(config)
    entries: dict[str, tuple[WeightName, int | None]] = {}
    for entry in _kernels(config):
        for index, tensor in enumerate(entry.tensors()):
            entries[tensor.removesuffix(".weight")] = (entry, None if entry.layers is None else index)
    flat: dict[str, np.ndarray] = {}
    seen: set[tuple[str, int | None]] = set()
    modules: dict[tuple[str, int | None], str] = {}
    errors = []
    for name, tensor in tensors.items():
        match = re.fullmatch(r"(?:base_model\.model\.)?(.*)\.lora_([AB])(?:\.[^.]+)?\.weight", name)
        module = hub_name(match[1]) if match else None
        if module not in entries:
            errors.append(f"{where}: tensor {name} {_why_not_read(name)}")
            continue
        entry, index = entries[module]
        features_in, features_out = shapes[entry.path].shape[-2:]
        shape = (lora.rank, features_in) if match[2] == "A" else (features_out, lora.rank)
        key = f"{entry.path.removesuffix('/kernel')}/adapter/{match[2].lower()}"
        if (key, index) in seen:
            errors.append(f"{where}: tensor {name} stands there twice")
        seen.add((key, index))
        modules[entry.path, index] = match[1]
        if tensor.shape != shape:
            errors.append(
                f"{where}: tensor {name} has shape {tensor.shape}; this base and rank {lora.rank} imply {shape}; was "
                "it trained on another base?"
            )
            continue
        whole = (shape[1], shape[0]) if index is None else (entry.layers, shape[1], shape[0])
        array = flat.setdefault(key, np.zeros(whole, np.float32))
        array[() if index is None else index] = tensor.astype(np.float32).T
    errors += [
        f"{where}: {_other(key)} is missing for {key}" for key, index in seen if (_other(key), index) not in seen
    ]
    if not flat and not errors:
        errors.append(f"{where}: holds no LoRA tensors")
    elif targets and not errors:
        errors += [f"{where}: {error}" for error in peft_targets.left_out(targets, modules, config)]
    if errors:
        raise InputError(errors[:20])
    places = sorted({key.rpartition("/adapter/")[0] for key in flat})
    return dataclasses.replace(lora, targets="|".join(map(re.escape, places))), flat


# What the tensors are of that no linear layer takes.
_NOT_READ = {
    r"\.lora_embedding_[AB]\b": "is of an adapter on the token embeddings, which is not read",
    r"\blm_head\.lora_[AB]\b": "is of an adapter on the output layer, which is not read",
    r"\bpatch_embed.*\.lora_[AB]\b": "is of an adapter on a convolution (patch embedding), which is not read",
    r"\.lora_magnitude_vector\b": "is DoRA's, which is not read",
    r"\.lora_[AB]\.(.*\.)?bias$": "is the bias of an adapter (lora_bias), which is not read",
    r"\.lora_(?![AB]\b)": "is of a kind of adapter that is not read",
    r"\b(embed_tokens|lm_head)\.(.*\.)?weight$": "is a whole table that was saved with the adapter (of a vocabulary "
    "that was resized, or with save_embedding_layers), which is not read",
}


def _why_not_read(name: str) -> str:
    for pattern, reason in _NOT_READ.items():
        if re.search(pattern, name):
            return f"{reason}; {MERGE}"
    return "belongs to no linear layer of the model; was it trained on another base?"


def parted(tensors: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(adapters, everything else) of a state dict; what else a PEFT model holds is given the names of its base."""
    adapters = {name: tensor for name, tensor in tensors.items() if ".lora_" in name}
    base = {
        name.removeprefix(_PREFIX).replace(".base_layer.", "."): tensor
        for name, tensor in tensors.items()
        if name not in adapters
    }
    return adapters, base


def _other(key: str) -> str:
    return key[:-1] + ("b" if key.endswith("/a") else "a")


def _kernels(config: VLMConfig) -> list[WeightName]:
    return [entry for entry in name_table(config) if entry.path.endswith("/kernel") and "patch_embed" not in entry.path]
