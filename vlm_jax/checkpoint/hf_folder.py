"""Hugging Face folders: weights in and out, and the small files that travel with them.

Everything a folder lacks is found from headers before a byte of weights is read, and reported together. A folder is
written beside its place and renamed into it, so none is ever seen half-written.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import jax
import numpy as np
from safetensors import SafetensorError, safe_open

from vlm_jax.checkpoint import description, parts, pth, safetensors_file
from vlm_jax.checkpoint.files import check_target, copy_assets, read_json, written_whole
from vlm_jax.checkpoint.names import Entry, file_name, hub_name, memory_name, name_table
from vlm_jax.checkpoint.source import PYTORCH
from vlm_jax.checkpoint.stop_tokens import write_end_of_turn
from vlm_jax.deferred import Deferred
from vlm_jax.errors import InputError
from vlm_jax.models.config import VLMConfig
from vlm_jax.models.parameters import Flat, abstract_parameters
from vlm_jax.processing.processor import Pictures

SHARD_BYTES = 5 * 10**9
Readable = jax.Array | np.ndarray | Deferred
_DTYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}


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
      place: puts an array of a path on its devices, under its path or, where it is packed, several. It reads as much
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
    views = {
        path: pth.read(path) if pth.is_state_dict(path) else safetensors_file.mapped(path)
        for path in {path for path, _ in places.values()}
    }
    return _joined(config, {name: views[path].get(key) for name, (path, key) in places.items()})


def from_tensors(tensors: Mapping[str, np.ndarray], config: VLMConfig, *, where: str) -> dict[str, Deferred]:
    """All parameters, none of them put together yet, from tensors by their names in either layout.

    Raises:
      InputError: missing, surplus or misshapen tensors, all of them listed.
    """
    table, stored = name_table(config), {hub_name(name): tensor for name, tensor in tensors.items()}
    described = {name: _shape_and_dtype(tensor) for name, tensor in stored.items()}
    if faults := _mismatches(where, config, table, described):
        raise InputError(faults)
    return _joined(config, stored)


def to_tensors(config: VLMConfig, parameters: Mapping[str, Readable]) -> Iterator[tuple[str, np.ndarray]]:
    """(name as transformers has it in memory, tensor) of every parameter, a tied head included."""
    for entry in name_table(config):
        for index, name in enumerate(entry.tensors()):
            yield memory_name(name), _tensor(parameters, entry, None if entry.layers is None else index)
    if config.decoder.tied:
        yield "lm_head.weight", np.asarray(parameters["embedding"])


def check_weights(folder: Path, config: VLMConfig) -> None:
    """Raises what `read_parameters` would, from the headers alone: quick, whatever the size."""
    _checked(folder, config)


def tensor_names(folder: Path, name_of: Callable[[str], str | None]) -> set[str]:
    """The names that `name_of` gives the tensors of a folder.

    Raises:
      InputError: files are missing or cannot be read.
    """
    paths, faults = _locate(folder)
    described = _described(paths, faults)
    return {name for tensors in described.values() for key in tensors if (name := name_of(key)) is not None}


Described = dict[str, tuple[tuple[int, ...], str]]
"""{tensor: (shape, dtype as safetensors names it)}."""


def _described(paths: Iterable[Path], faults: list[str]) -> dict[Path, Described]:
    """What each file holds, by its own names; raises `faults`, and those of unreadable files."""
    found = {}
    for path in paths:
        try:
            if pth.is_state_dict(path):
                found[path] = {name: _shape_and_dtype(tensor) for name, tensor in pth.read(path).items()}
                continue
            with safe_open(path, "np") as file:
                views = {key: file.get_slice(key) for key in file.keys()}
                found[path] = {key: (tuple(view.get_shape()), view.get_dtype()) for key, view in views.items()}
        except (SafetensorError, OSError) as error:
            faults.append(f"{path}: unreadable or truncated safetensors ({error}); copy or download it again")
    if faults:
        raise InputError(faults)
    return found


def _shape_and_dtype(tensor: np.ndarray) -> tuple[tuple[int, ...], str]:
    return tensor.shape, _DTYPES.get(str(tensor.dtype), str(tensor.dtype))


def _checked(folder: Path, config: VLMConfig) -> dict[str, tuple[Path, str]]:
    """{name in the table: (file, name in it)} of a folder that has all tensors, of the right shapes."""
    paths, faults = weight_files(folder)
    places: dict[str, tuple[Path, str]] = {}
    described: Described = {}
    for path, tensors in _described(paths, faults).items():
        for key, known in tensors.items():
            name = paths[path](key)
            if name is None:
                continue
            if name in places:
                faults.append(f"{path}: tensor {key} stands in the folder twice; remove the stale file or copy")
            places[name], described[name] = (path, key), known
    if faults := faults + _mismatches(str(folder), config, name_table(config), described):
        raise InputError(faults)
    return places


def write_folder(
    target: Path,
    config: VLMConfig,
    parameters: Mapping[str, Readable],
    assets: Path,
    *,
    images: Pictures | None = None,
    trained: bool = False,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Writes a folder in the hub's layout.

    Args:
      parameters: of those that are deferred, one layer is read at a time.
      assets: a folder whose small files (`ASSETS`) are carried along.
      images: picture rules to write in place of the carried ones: the budget the model was trained with.
      trained: whether the model learned to end its turns as the chat template does; it is made to stop there.

    Raises:
      InputError: the target exists and is not empty.
    """
    check_target(target)
    reasons = []
    if config.assembled:
        reasons = parts.not_in_llava(config, images or description.read_pictures(assets, config))
    if reasons:
        raise InputError([f"{target}: {reason}; take format orbax, or pth for the weights alone" for reason in reasons])
    with written_whole(target) as folder:
        copy_assets(assets, folder)
        description.name_dtype(folder / "config.json", {parameters[entry.path].dtype for entry in name_table(config)})
        description.write_pictures(folder, images, config)
        if trained:
            write_end_of_turn(folder, description.read_processor(folder, config))
        _write_weights(folder, config, parameters, shard_bytes)


def weight_files(folder: Path) -> tuple[dict[Path, Callable[[str], str | None]], list[str]]:
    """Each file of weights of a folder with what maps its names onto the table's (None: left out), and what is missing.

    Those of an assembled folder lie in other folders.
    """
    files, faults = {}, []
    for place, name_of in parts.places(folder):
        paths, missing = ([place], []) if place.name == parts.CONNECTOR else _locate(place)
        files |= dict.fromkeys(paths, name_of)
        faults += missing
    return files, faults


def _locate(folder: Path) -> tuple[list[Path], list[str]]:
    """The weight files by the folder's index (or its single file), and which of them are missing."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        weight_map = read_json(index).get("weight_map")
        if not isinstance(weight_map, dict):
            raise InputError(f"{index}: holds no weight_map")
        for name in weight_map.values():
            if not isinstance(name, str) or not name or Path(name).name != name:
                raise InputError(f"{index}: shard names must be plain file names, got {name!r}")
        paths = [folder / name for name in sorted(set(weight_map.values()))]
        return [path for path in paths if path.is_file()], [
            f"{path}: missing shard, named in {index.name}; copy or download it again"
            for path in paths
            if not path.is_file()
        ]
    single = folder / "model.safetensors"
    if not single.is_file() and (torch := folder / PYTORCH).is_file():
        return [torch], []  # many encoders of the hub come in no other form
    if not single.is_file():
        held = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".pth", ".pt", ".safetensors"))
        seen = f"; it holds {', '.join(held[:5])}" if held else ""
        raise InputError(f"{folder}: no model.safetensors and no model.safetensors.index.json{seen}")
    return [single], []


def _mismatches(where: str, config: VLMConfig, table: list[Entry], stored: Described) -> list[str]:
    """What is wrong with tensors of these (shape, dtype as safetensors names it), by the hub's names."""
    abstract = abstract_parameters(config)
    faults, wanted = [], set()
    for entry in table:
        shape = abstract[entry.path].shape
        shape = tuple(entry.transform.shape(shape if entry.layers is None else shape[1:]))
        dtypes = set()
        for name in entry.tensors():
            wanted.add(name)
            if name not in stored:
                faults.append(f"{where}: tensor {name} is missing")
                continue
            held, dtype = stored[name]
            dtypes.add(dtype)
            if held != shape:
                faults.append(f"{where}: tensor {name} has shape {held}, config.json implies {shape}")
        if len(dtypes) > 1:
            faults.append(f"{where}: the layers of {entry.name} differ in dtype: {', '.join(sorted(dtypes))}")
        odd = dtypes - {"F32", "BF16", "F16"}
        if odd:
            faults.append(f"{where}: {entry.name} is {', '.join(odd)}; this reads F32, BF16 and F16 weights")
    if config.decoder.tied:
        wanted.add("lm_head.weight")  # some writers store the tied head as well
    surplus = [name for name in stored if name not in wanted and not name.endswith("inv_freq")]
    if surplus:
        more = f" and {len(surplus) - 3} more" if len(surplus) > 3 else ""
        faults.append(f"{where}: tensors no part of the model takes: {', '.join(sorted(surplus)[:3])}{more}")
    if len(faults) > 20:
        faults = [*faults[:20], f"{where}: … and {len(faults) - 20} more faults"]
    return faults


def _joined(config: VLMConfig, tensors: Mapping[str, np.ndarray]) -> dict[str, Deferred]:
    """Parameters that are put together from the tensors of their layers, by hub names, as they are read."""

    def of(entry: Entry) -> Deferred:
        held = [tensors[name] for name in entry.tensors()]

        def read(layer: int | None, within: tuple[slice, ...]) -> np.ndarray:
            return entry.transform.read(held[layer or 0])[within]

        return Deferred(shapes[entry.path].shape, held[0].dtype, read, stacked=entry.layers is not None)

    shapes = abstract_parameters(config)
    return {entry.path: of(entry) for entry in name_table(config)}


def _tensor(parameters: Mapping[str, Readable], entry: Entry, index: int | None) -> np.ndarray:
    """One tensor of a parameter: all of it, or a layer's."""
    array = parameters[entry.path]
    return entry.transform.write(np.asarray(array if index is None else array[index]))


def _write_weights(folder: Path, config: VLMConfig, parameters: Mapping[str, Readable], shard_bytes: int) -> None:
    shards: list[list[tuple[str, Entry, int | None]]] = [[]]
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
        held = {"metadata": {"total_size": sum(sizes)}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(held, indent=2) + "\n")
