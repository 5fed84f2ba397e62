"""What was trained beside adapters and lies in their folder: whole modules that peft, LLaVA's and 2U1's trainers save.

    adapter_model.*                                    modules_to_save, among the adapters' tensors (peft)
    non_lora_state_dict.bin, non_lora_trainables.bin   what else was trained (2U1's Qwen-VL trainer, LLaVA)
    mm_projector.bin, …                                a connector by itself, by the names that its family has for it

Any other file of weights there is refused, but for what trainers keep in order to go on.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vlm_jax.checkpoint import pth, weight_files
from vlm_jax.checkpoint.names import hub_name, name_table
from vlm_jax.checkpoint.peft_settings import MERGE
from vlm_jax.checkpoint.tied_head import EMBEDDING, HEAD
from vlm_jax.errors import InputError, gathered
from vlm_jax.models import families
from vlm_jax.models.config import VLMConfig
from vlm_jax.models.parameters import Flat, abstract_parameters
from vlm_jax.models.weight_names import WeightName

ADAPTERS = ("adapter_model.safetensors", "adapter_model.bin")
"""The files of an adapter in peft's order: the first that is there counts."""
_OTHERS = ("non_lora_state_dict.bin", "non_lora_trainables.bin")
_TO_GO_ON = re.compile(r"(training_args|(optimizer|scheduler|scaler)(_\d+)?|rng_state.*)\.(bin|pt|pth)")
_PREFIX = "base_model.model."


def read(folder: Path, config: VLMConfig) -> Flat:
    """The parameters that lie beside an adapter in files of their own.

    Raises:
      InputError: a file of weights that is not known or belongs to another kind of model, tensors that no part of the
        model takes, or one parameter in two files: all of them listed.
    """
    flat, places, errors = {}, {}, []
    for path in sorted(path for path in folder.iterdir() if path.suffix in (*pth.SUFFIXES, ".safetensors", ".ckpt")):
        if path.name in ADAPTERS or _TO_GO_ON.fullmatch(path.name) or not path.is_file():
            continue
        with gathered(errors):
            parameters = _of_file(path, config)
            for name in sorted(parameters.keys() & flat.keys()):
                errors.append(f"{path}: holds {name}, and so does {places[name]}; remove the stale file")
            flat |= parameters
            places |= dict.fromkeys(parameters, path)
    if errors:
        raise InputError(errors)
    return flat


def _of_file(path: Path, config: VLMConfig) -> Flat:
    family = families.of(config)
    if path.name in family.connector_files:
        tensors = {family.name_in_connector(name) or name: tensor for name, tensor in pth.read(path).items()}
        return connector_of(tensors, config, where=str(path))
    for other in families.FAMILIES.values():
        if path.name in other.connector_files:
            raise InputError(
                f"{path}: is the connector of a {families.title_of(other)}, and the base of this adapter is a "
                f"{families.title_of(family)}; move it"
            )
    if path.name not in _OTHERS:
        raise InputError(
            f"{path}: weights beside an adapter under a name that is not known here; move the file if they are no part "
            f"of the model, else {MERGE}"
        )
    tensors = {name.removeprefix(_PREFIX): tensor for name, tensor in pth.read(path, may_be_empty=True).items()}
    connector = {short: tensors[name] for name in tensors if (short := family.name_in_connector(name)) is not None}
    others = {name: tensor for name, tensor in tensors.items() if family.name_in_connector(name) is None}
    flat = connector_of(connector, config, where=str(path)) if connector else {}
    return flat | whole_modules(others, config, where=str(path))


def connector_of(tensors: Mapping[str, np.ndarray], config: VLMConfig, *, where: str) -> Flat:
    """A connector that was saved by itself: the weights and biases of its linear layers, in their order.

    Names are the family's (`name_in_connector`); else weights and biases are taken in the order of their names,
    whatever they are. A row separator is `image_newline`.

    Raises:
      InputError: other layers or shapes than this model's connector has.
    """
    shapes = abstract_parameters(config)
    entries = [entry for entry in name_table(config) if entry.path.startswith("connector/")]
    entries += [entry for entry in name_table(config) if entry.path == "newline" and entry.name in tensors]
    flat = {}
    own = {families.of(config).name_in_connector(entry.name): entry for entry in entries}
    for kind in ("weight", "bias", "image_newline"):
        ours = [entry for entry in entries if entry.name.endswith(kind)]
        theirs = sorted((name for name in tensors if name.endswith(kind)), key=_counted)
        if set(theirs) <= own.keys():
            ours = [own[name] for name in theirs]
        for entry, name in zip(ours, theirs, strict=False):
            if tensors[name].shape == tuple(entry.transform.shape(shapes[entry.path].shape)):
                flat[entry.path] = entry.transform.read(tensors[name])
    if len(flat) != len(entries) or len(tensors) != len(entries):
        there = ", ".join(f"{name} {list(array.shape)}" for name, array in sorted(tensors.items())[:6])
        here = ", ".join(f"{entry.name} {list(entry.transform.shape(shapes[entry.path].shape))}" for entry in entries)
        raise InputError(f"{where}: holds {there}; the {config.connector} connector of this model has {here}")
    return flat


def _counted(name: str) -> list[Any]:
    """As a person sorts names with numbers in them."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def whole_modules(tensors: Mapping[str, np.ndarray], config: VLMConfig, *, where: str) -> Flat:
    """Parameters in place of the base's, from tensors of the model under any layout's names. Stacks must be whole.

    Raises:
      InputError: tensors that the model does not have or has in another shape, layers that are missing, or embeddings
        of a model whose output layer is tied to them: all of them listed.
    """
    stored = {hub_name(name.replace(".base_layer.", ".")): tensor for name, tensor in tensors.items()}
    shapes, errors, flat = abstract_parameters(config), [], {}
    if config.decoder.tied and (tables := sorted(stored.keys() & {EMBEDDING, HEAD})):
        errors.append(
            f"{where}: holds {', '.join(tables)}, and the model ties its output layer to its embeddings; {MERGE}"
        )
    for entry in name_table(config):
        names = entry.tensors()
        if not (missing := [name for name in names if name not in stored]):
            with gathered(errors):
                flat[entry.path] = _stacked(entry, stored, shapes[entry.path].shape, where)
        elif len(missing) < len(names):
            errors.append(f"{where}: {len(missing)} of the {len(names)} layers of {entry.name} are missing; {MERGE}")
    known = {name for entry in name_table(config) for name in entry.tensors()} | {EMBEDDING, HEAD}
    if surplus := sorted(stored.keys() - known):
        more = f" and {len(surplus) - 3} more" if len(surplus) > 3 else ""
        errors.append(f"{where}: tensors no part of the model takes: {', '.join(surplus[:3])}{more}")
    if errors:
        raise InputError(errors[:20])
    return flat


def _stacked(entry: WeightName, stored: Mapping[str, np.ndarray], shape: tuple[int, ...], where: str) -> np.ndarray:
    expected = tuple(entry.transform.shape(shape if entry.layers is None else shape[1:]))
    errors = []
    for name in entry.tensors():
        found, dtype = weight_files.shape_and_dtype(stored[name])
        if found != expected:
            errors.append(f"{where}: tensor {name} has shape {found}, the base's config.json implies {expected}")
        if dtype not in ("F32", "BF16", "F16"):
            errors.append(f"{where}: {name} is {dtype}; this reads F32, BF16 and F16 weights")
    if errors:
        raise InputError(errors)
    layers = [entry.transform.read(stored[name]) for name in entry.tensors()]
    return np.stack(layers) if entry.layers is not None else layers[0]
