"""Which linear layers an adapter's settings cover, and which of those its file has no tensors for.

peft gives a layer without tensors a fresh adapter, which changes nothing, and a warning: so a file that was cut short
computes something else than was trained. Which layers are covered is peft's rule (`check_target_module_exists`).
"""

import dataclasses
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from vlm_jax.checkpoint.names import hub_name, memory_name, name_table
from vlm_jax.models.config import VLMConfig

KEYS = ("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern")
_LISTED = 3


@dataclasses.dataclass(frozen=True)
class Targets:
    """The layers that settings cover.

    Attributes:
      modules: ends of the names of modules, or one pattern of whole names; () where nothing is said.
      excluded: likewise, of those that are not covered after all.
      layers: numbers of the layers that ends of names cover; None for all.
      stacks: the names of the lists that those layers are in; () for any.
    """

    modules: tuple[str, ...] | str = ()
    excluded: tuple[str, ...] | str = ()
    layers: tuple[int, ...] | None = None
    stacks: tuple[str, ...] = ()

    def covers(self, module: str) -> bool:
        """Whether a module, by its whole name in the base, has an adapter."""
        if _named(self.excluded, module) or not _named(self.modules, module):
            return False
        if isinstance(self.modules, str) or self.layers is None or module in self.modules:
            return True
        patterns = [rf"(?:^|.*?\.){stack}\.(\d+)\." for stack in self.stacks] or [r".*?\.[^.]*\.(\d+)\."]
        layer = next(filter(None, (re.match(pattern, module) for pattern in patterns)), None)
        return layer is not None and int(layer[1]) in self.layers


def of_settings(settings: Mapping[str, Any], path: Path, errors: list[str]) -> Targets:
    """The targets of an `adapter_config.json`, values of another type reported among the errors."""
    names = {}
    for key in KEYS[:2]:
        value = settings.get(key) or ()
        if not isinstance(value, (str, list, tuple)) or not all(isinstance(name, str) for name in value):
            errors.append(f"{path}: {key} is {value!r}; wanted a list of names of modules, or a pattern")
            value = ()
        names[key] = value if isinstance(value, str) else tuple(value)
        if isinstance(value, str) and not _compiles(value):
            errors.append(f"{path}: {key} is {value!r}, which is no regular expression")
            names[key] = ()
    layers = settings.get(KEYS[2])
    layers = [layers] if isinstance(layers, int) and not isinstance(layers, bool) else layers or None
    if layers is not None and not (isinstance(layers, list) and all(type(layer) is int for layer in layers)):
        errors.append(f"{path}: {KEYS[2]} is {layers!r}; wanted a list of numbers of layers")
        layers = None
    return Targets(*names.values(), None if layers is None else tuple(layers), _stacks(settings, path, errors))


def _stacks(settings: Mapping[str, Any], path: Path, errors: list[str]) -> tuple[str, ...]:
    value = settings.get(KEYS[3]) or []
    stacks = [value] if isinstance(value, str) else value
    if isinstance(stacks, list) and all(isinstance(stack, str) and _compiles(stack) for stack in stacks):
        return tuple(stacks)
    errors.append(f"{path}: {KEYS[3]} is {value!r}; wanted a list of names of lists of layers")
    return ()


def left_out(targets: Targets, modules: Mapping[tuple[str, int | None], str], config: VLMConfig) -> list[str]:
    """What is covered and has no tensors, as errors that name no file.

    A stack of layers of which some are there and others are not, and an end of a name of which nothing is there.

    Args:
      modules: {(path of the kernel, layer): name in the file} of those that have tensors.
    """
    missing = []
    for entry in name_table(config):
        there = {layer: name for (path, layer), name in modules.items() if path == entry.path and layer is not None}
        if not there or entry.layers is None:
            continue
        layer, name = next(iter(there.items()))
        others = [name.replace(f".{layer}.", f".{number}.", 1) for number in range(entry.layers) if number not in there]
        missing += [other for other in others if targets.covers(other)]
    errors = []
    if missing:
        more = f" and {len(missing) - _LISTED} more" if len(missing) > _LISTED else ""
        errors.append(
            f"target_modules covers {', '.join(missing[:_LISTED])}{more}, and there are no tensors for "
            f"{'them' if len(missing) > 1 else 'it'}; copy the whole adapter again, or name the layers it has in "
            "layers_to_transform"
        )
    return errors + _absent(targets, modules.values(), config)


def _absent(targets: Targets, modules: Collection[str], config: VLMConfig) -> list[str]:
    if isinstance(targets.modules, str):
        return []
    whole = {
        name.removesuffix(".weight")
        for entry in name_table(config)
        if entry.path.endswith("/kernel")
        for tensor in entry.tensors()
        for name in (tensor, memory_name(tensor))
    }
    there = {name for module in modules for name in (module, hub_name(module))}
    covered = [
        name for name in targets.modules if any(_named((name,), module) and targets.covers(module) for module in whole)
    ]
    return [
        f"target_modules names {name}, of which there are no tensors; copy the whole adapter again, or remove the name"
        for name in covered
        if not any(_named((name,), module) for module in there)
    ]


def _named(names: tuple[str, ...] | str, module: str) -> bool:
    if isinstance(names, str):
        return bool(names) and re.fullmatch(names, module) is not None
    return any(module == name or module.endswith(f".{name}") for name in names)


def _compiles(pattern: str) -> bool:
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True
