"""Takes layers out of a Qwen2-VL or Qwen2.5-VL folder: a smaller model, which a training has to mend."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vlm_jax.checkpoint import safetensors_file
from vlm_jax.checkpoint.files import read_json, write_json, written_whole
from vlm_jax.errors import InputError

WEIGHTS = "model.safetensors"
_DECODER, _TOWER = "model.layers.", "visual.blocks."


def without_layers(source: Path, target: Path, *, decoder: Sequence[int], tower: Sequence[int]) -> None:
    """Writes the folder `target`: `source` without some layers, everything else as it is.

    Args:
      source: a Hugging Face folder with its weights in one file, named as the hub has them.
      decoder, tower: layers of the decoder and of the vision tower to leave out.

    Raises:
      InputError: the source has no such file, or not these layers.
    """
    if not (source / WEIGHTS).is_file():
        raise InputError(f"{source}: has no {WEIGHTS}")
    config = read_json(source / "config.json")
    vision = config["vision_config"]
    kept = {
        _DECODER: _left(source, "decoder", config["num_hidden_layers"], decoder),
        _TOWER: _left(source, "vision tower", vision["depth"], tower),
    }
    config["num_hidden_layers"] = config["max_window_layers"] = len(kept[_DECODER])
    vision["depth"] = len(kept[_TOWER])
    if whole := vision.get("fullatt_block_indexes"):  # blocks that see all of the image are counted anew
        vision["fullatt_block_indexes"] = [new for new, old in enumerate(kept[_TOWER]) if old in whole]
    tensors = {}
    for name, tensor in safetensors_file.mapped(source / WEIGHTS).items():
        if new_name := _renamed(name, kept):
            tensors[new_name] = tensor
    with written_whole(target) as folder:
        shutil.copytree(source, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(WEIGHTS, "README.md"))
        write_json(folder / "config.json", config)
        described = {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
        safetensors_file.write(folder / WEIGHTS, described, tensors.items())


def parameters_of(folder: Path) -> int:
    """How many numbers the weights of a folder are; those of a tied head count once."""
    tensors, _ = safetensors_file.header(folder / WEIGHTS)
    return sum(int(np.prod(tensor["shape"])) for tensor in tensors.values())


def _left(source: Path, part: str, layers: int, out: Sequence[int]) -> list[int]:
    if wrong := sorted(set(out) - set(range(layers))):
        raise InputError(f"{source}: its {part} has layers 0 to {layers - 1}, not {', '.join(map(str, wrong))}")
    if not (left := [layer for layer in range(layers) if layer not in out]):
        raise InputError(f"{source}: all layers of its {part} would go; leave one")
    return left


def _renamed(name: str, kept: dict[str, list[int]]) -> str | None:
    """The name of a tensor in the smaller model; None of one that is left out."""
    for prefix, layers in kept.items():
        if name.startswith(prefix):
            layer, _, rest = name.removeprefix(prefix).partition(".")
            return f"{prefix}{layers.index(int(layer))}.{rest}" if int(layer) in layers else None
    return name
