"""PEFT folders: LoRA adapters in and out (`adapter_config.json`, `adapter_model.safetensors`).

Names are those that peft gives the model as transformers holds it in memory; the table of weights is `names`'. What an
adapter computes is `vlm_jax.adapters.lora`'s.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from vlm_jax.adapters.lora import Lora
from vlm_jax.checkpoint import pth
from vlm_jax.checkpoint.files import check_target, read_json, write_json, written_whole
from vlm_jax.checkpoint.names import Entry, hub_name, memory_name, name_table
from vlm_jax.errors import InputError
from vlm_jax.models.config import VLMConfig
from vlm_jax.models.parameters import Flat, abstract_parameters

WEIGHTS, SETTINGS = "adapter_model.safetensors", "adapter_config.json"
CONNECTOR = "final_connector.pth"
"""Beside the adapters of an assembled model: the connector that was trained with them."""
_PREFIX = "base_model.model."
_PARTS = {"a": "lora_A", "b": "lora_B"}
# Settings that change what an adapter computes, and the values at which they do not.
_PLAIN: dict[str, tuple[Any, ...]] = {
    "bias": ("none", None),
    "use_dora": (False, None),
    "modules_to_save": (None, []),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    "fan_in_fan_out": (False, None),
    "lora_bias": (False, None),
    "trainable_token_indices": (None, []),
    "target_parameters": (None, []),
    "layer_replication": (None, []),
    "use_qalora": (False, None),
}


def is_peft_folder(path: Path) -> bool:
    return (path / SETTINGS).is_file()


def write(
    target: Path, config: VLMConfig, lora: Lora, parameters: Flat, *, base: str, connector: Flat | None = None
) -> None:
    """Writes the adapters among `parameters` as a PEFT folder.

    Args:
      connector: of an assembled model, where it was trained beside the adapters: `final_connector.pth` in the folder.
      base: the name or path of the model they were trained on, written as `base_model_name_or_path`.

    Raises:
      InputError: the target is in the way, or there are no adapters.
    """
    check_target(target)
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
        write_json(folder / SETTINGS, {**_settings(lora, modules), "base_model_name_or_path": base})
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
        (folder / WEIGHTS).chmod(0o644)
        if connector:
            pth.write(folder / CONNECTOR, _connector_tensors(config, connector))


def read_connector(path: Path, config: VLMConfig) -> Flat:
    """A connector that was saved by itself: the weights and biases of its linear layers, in their order.

    Names are a Sequential's (`0.weight`, `2.weight`), or whatever sorts alike; a row separator is `image_newline`.

    Raises:
      InputError: other layers or shapes than this model's connector has.
    """
    held, shapes = pth.read(path), abstract_parameters(config)
    wanted = [entry for entry in name_table(config) if entry.path.startswith("connector/")]
    wanted += [entry for entry in name_table(config) if entry.path == "newline" and entry.name in held]
    flat = {}
    for kind in ("weight", "bias", "image_newline"):
        ours = [entry for entry in wanted if entry.name.endswith(kind)]
        theirs = sorted((name for name in held if name.endswith(kind)), key=_counted)
        for entry, name in zip(ours, theirs, strict=False):
            if held[name].shape == tuple(entry.transform.shape(shapes[entry.path].shape)):
                flat[entry.path] = entry.transform.read(held[name])
    if len(flat) != len(wanted) or len(held) != len(wanted):
        there = ", ".join(f"{name} {list(array.shape)}" for name, array in sorted(held.items())[:6])
        here = ", ".join(f"{entry.name} {list(entry.transform.shape(shapes[entry.path].shape))}" for entry in wanted)
        raise InputError(f"{path}: holds {there}; the {config.connector} connector of this model has {here}")
    return flat


def _connector_tensors(config: VLMConfig, connector: Flat) -> Iterator[tuple[str, np.ndarray]]:
    for entry in name_table(config):
        if entry.path == "newline" and entry.path in connector:
            yield entry.name, np.asarray(connector[entry.path])
        elif entry.path in connector:
            _, part, kind = entry.name.rsplit(".", 2)
            place = {"linear_1": "0.", "linear_2": "2.", "linear": ""}[part]
            yield f"{place}{kind}", np.ascontiguousarray(entry.transform.write(np.asarray(connector[entry.path])))


def _counted(name: str) -> list[Any]:
    """As a person sorts names with numbers in them."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def _settings(lora: Lora, modules: list[str]) -> dict[str, Any]:
    elsewhere = r"(visual|vision_tower|multi_modal_projector)"
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


def read_settings(folder: Path) -> tuple[Lora, str]:
    """The kind of an adapter as `adapter_config.json` has it, but for its targets, and the base it names.

    Raises:
      InputError: no LoRA, or settings that this does not compute, all of them listed.
    """
    path = folder / SETTINGS
    held = read_json(path)
    if not isinstance(held, dict) or held.get("peft_type") != "LORA":
        raise InputError(
            f"{path}: peft_type is {held.get('peft_type') if isinstance(held, dict) else held!r}; only LORA is read"
        )
    faults = [
        f"{path}: {key} is {held[key]!r}, which is not read; merge the adapter with peft (merge_and_unload) instead"
        for key, plain in _PLAIN.items()
        if key in held and held[key] not in plain
    ]
    for key, kind in (("r", int), ("lora_alpha", (int, float))):
        if not isinstance(held.get(key), kind) or isinstance(held.get(key), bool) or held[key] <= 0:
            faults.append(f"{path}: {key} is {held.get(key)!r}; wanted a number above 0")
    if faults:
        raise InputError(faults)
    lora = Lora(held["r"], float(held["lora_alpha"]), rslora=bool(held.get("use_rslora")))
    return lora, held.get("base_model_name_or_path") or ""


def read(folder: Path, config: VLMConfig) -> tuple[Lora, Flat]:
    """The kind of an adapter, with the targets that its tensors have, and its parameters, float32 on the host.

    A layer of a stack that the adapter leaves out gets zeros, which change nothing.

    Raises:
      InputError: another kind of adapter, missing, misshapen or unknown tensors: all of them listed.
    """
    lora, _ = read_settings(folder)
    path = folder / WEIGHTS
    if not path.is_file():
        raise InputError(f"{path}: is missing; copy the whole adapter folder")
    try:
        with safe_open(path, "np") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: unreadable or truncated safetensors ({error}); copy it again") from error
    return from_tensors(tensors, config, lora, where=str(path))


def from_tensors(tensors: Mapping[str, np.ndarray], config: VLMConfig, lora: Lora, *, where: str) -> tuple[Lora, Flat]:
    """As `read`, from tensors by their names in a PEFT state dict."""
    shapes = abstract_parameters(config)
    wanted: dict[str, tuple[Entry, int | None]] = {}
    for entry in _kernels(config):
        for index, tensor in enumerate(entry.tensors()):
            wanted[tensor.removesuffix(".weight")] = (entry, None if entry.layers is None else index)
    flat: dict[str, np.ndarray] = {}
    seen: set[tuple[str, int | None]] = set()
    faults = []
    for name, tensor in tensors.items():
        match = re.fullmatch(r"(?:base_model\.model\.)?(.*)\.lora_([AB])(?:\.[^.]+)?\.weight", name)
        module = hub_name(match[1]) if match else None
        if module not in wanted:
            faults.append(
                f"{where}: tensor {name} belongs to no linear layer of the model; was it trained on another base?"
            )
            continue
        entry, index = wanted[module]
        features_in, features_out = shapes[entry.path].shape[-2:]
        shape = (lora.rank, features_in) if match[2] == "A" else (features_out, lora.rank)
        key = f"{entry.path.removesuffix('/kernel')}/adapter/{match[2].lower()}"
        if (key, index) in seen:
            faults.append(f"{where}: tensor {name} stands there twice")
        seen.add((key, index))
        if tensor.shape != shape:
            faults.append(
                f"{where}: tensor {name} has shape {tensor.shape}; this base and rank {lora.rank} imply {shape}; was "
                "it trained on another base?"
            )
            continue
        whole = (shape[1], shape[0]) if index is None else (entry.layers, shape[1], shape[0])
        array = flat.setdefault(key, np.zeros(whole, np.float32))
        array[() if index is None else index] = tensor.astype(np.float32).T
    faults += [
        f"{where}: {_other(key)} is missing for {key}" for key, index in seen if (_other(key), index) not in seen
    ]
    if not flat and not faults:
        faults.append(f"{where}: holds no LoRA tensors")
    if faults:
        raise InputError(faults[:20])
    places = sorted({key.rpartition("/adapter/")[0] for key in flat})
    return dataclasses.replace(lora, targets="|".join(map(re.escape, places))), flat


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


def _kernels(config: VLMConfig) -> list[Entry]:
    return [entry for entry in name_table(config) if entry.path.endswith("/kernel") and "patch_embed" not in entry.path]
