"""Which files hold the weights of a model folder, in transformers' order, and what their headers say.

The first that is there counts, and no other file of weights is opened, however many lie around: `model.safetensors`,
the shards of its index, `pytorch_model.bin`, the shards of its index. Which tensor is which parameter is `names`'; the
folders of an assembled model are `assembled_folder`'.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from vlm_jax.checkpoint import assembled_folder, pth, safetensors_file
from vlm_jax.checkpoint.files import read_json
from vlm_jax.checkpoint.source import PYTORCH
from vlm_jax.errors import InputError, gathered

SINGLE = "model.safetensors"
INDEX = ".index.json"
"""Added to the name of a single file: the index of the shards in its place."""
_NAMED = "transformers_weights"  # in config.json, since transformers 5: the file to read, whatever else is there
_WEIGHTS = (".bin", ".pth", ".pt", ".safetensors")
_DTYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}

Described = dict[str, tuple[tuple[int, ...], str]]
"""{tensor: (shape, dtype as safetensors names it)}."""


def weight_files(folder: Path) -> tuple[dict[Path, Callable[[str], str | None]], list[str]]:
    """Each file of weights of a folder with what maps its names onto the table's (None: left out), and what is missing.

    Those of an assembled folder lie in other folders.
    """
    files, errors = {}, []
    for place, name_of in assembled_folder.places(folder):
        paths, missing = ([place], []) if place.name == assembled_folder.CONNECTOR else located(place)
        files |= dict.fromkeys(paths, name_of)
        errors += missing
    return files, errors


def located(folder: Path) -> tuple[list[Path], list[str]]:
    """The files of weights in a folder, as transformers chooses them, and which of them are missing.

    Raises:
      InputError: there are none, or the index is broken.
    """
    named = _named(folder)
    for name in [named] if named else [SINGLE, SINGLE + INDEX, PYTORCH, PYTORCH + INDEX]:
        path = folder / name
        if not path.is_file():
            continue
        if not name.endswith(INDEX):
            return [path], []
        shards = _shards(path)
        missing = [shard for shard in shards if not shard.is_file()]
        return [shard for shard in shards if shard.is_file()], [
            f"{shard}: missing shard, named in {path.name}; copy or download it again" for shard in missing
        ]
    if named:
        raise InputError(f"{folder / named}: missing, and config.json names it as {_NAMED}; copy or download it again")
    found = sorted(path.name for path in folder.iterdir() if path.suffix in _WEIGHTS)
    listing = f"; it holds {', '.join(found[:5])}" if found else ""
    raise InputError(f"{folder}: no {SINGLE}, no {SINGLE + INDEX}, no {PYTORCH} and no {PYTORCH + INDEX}{listing}")


def _named(folder: Path) -> str | None:
    """The file that config.json says to read, None where it says nothing."""
    path = folder / "config.json"
    name = read_json(path).get(_NAMED) if path.is_file() else None
    if name is None:
        return None
    if not _is_plain(name) or not name.endswith((".safetensors", f".safetensors{INDEX}")):
        raise InputError(
            f"{path}: {_NAMED} is {name!r}; wanted the plain name of a .safetensors file, or of the index of several"
        )
    return name


def _is_plain(name: Any) -> bool:
    """Whether it is the name of a file in the folder itself, and can be one."""
    if not isinstance(name, str) or Path(name).name != name or name == ".." or "\0" in name:
        return False
    return 0 < len(name.encode("utf-8", "replace")) <= 255


def _shards(index: Path) -> list[Path]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict):
        raise InputError(f"{index}: holds no weight_map")
    for name in weight_map.values():
        if not _is_plain(name):
            raise InputError(f"{index}: shard names must be plain file names, got {name!r}")
    return [index.parent / name for name in sorted(set(weight_map.values()))]


def described(paths: Iterable[Path], errors: list[str]) -> dict[Path, Described]:
    """What each file holds, by its own names; raises `errors`, and those of unreadable files."""
    found = {}
    for path in paths:
        with gathered(errors), readable(path):
            if pth.is_state_dict(path):
                found[path] = {name: shape_and_dtype(tensor) for name, tensor in pth.read(path).items()}
                continue
            with safe_open(path, "np") as file:
                views = {key: file.get_slice(key) for key in file.keys()}
                found[path] = {key: (tuple(view.get_shape()), view.get_dtype()) for key, view in views.items()}
    if errors:
        raise InputError(errors)
    return found


def mapped(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a whole file by its own names, none of them read yet."""
    return pth.read(path) if pth.is_state_dict(path) else safetensors_file.mapped(path)


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Says of which file the safetensors library complains.

    Raises:
      InputError: in place of what it raises.
    """
    try:
        yield
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: unreadable or truncated safetensors ({error}); copy or download it again") from error


def shape_and_dtype(tensor: np.ndarray) -> tuple[tuple[int, ...], str]:
    return tensor.shape, _DTYPES.get(str(tensor.dtype), str(tensor.dtype))


def tensor_names(folder: Path, name_of: Callable[[str], str | None]) -> set[str]:
    """The names that `name_of` gives the tensors of a folder.

    Raises:
      InputError: files are missing or cannot be read.
    """
    paths, errors = located(folder)
    found = described(paths, errors)
    return {name for tensors in found.values() for key in tensors if (name := name_of(key)) is not None}
