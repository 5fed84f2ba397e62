"""PyTorch state dicts (`.pth`, `.pt`, `.bin`) in and out, without PyTorch and without running what a pickle holds.

A file that `torch.save` writes is a zip archive: a pickle that names tensors, and their bytes. Here the pickle may
build tensors and dictionaries and nothing else; whatever else it asks for is refused. Which tensor is which parameter
is `names`' and `peft_folder`'s.
"""

import collections
import io
import math
import pickle
import struct
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from vlm_jax.errors import InputError

SUFFIXES = (".pth", ".pt", ".bin")
_DTYPES = {
    "FloatStorage": np.dtype(np.float32),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "DoubleStorage": np.dtype(np.float64),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}
_STORAGES = {dtype: name for name, dtype in _DTYPES.items()}
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_WRAPPED = 4
"""How deep a state dict may lie in wrappers; one that holds itself would have no end."""
_PICKLE = 64 << 20
"""The most bytes of a pickle, which names tensors and does not hold them: some hundred a tensor."""
_PREFIXES = ("module.", "_orig_mod.")
# What bitsandbytes leaves beside a 4- or 8-bit weight.
_BITSANDBYTES = (".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map", ".SCB", ".weight_format")


def is_state_dict(path: Path) -> bool:
    return path.suffix in SUFFIXES and path.is_file()


def read(path: Path, *, may_be_empty: bool = False) -> dict[str, np.ndarray]:
    """Tensors by name, mapped from the file; wrappers such as `{"state_dict": …}` and prefixes of distributed training
    are taken off.

    Args:
      may_be_empty: whether a state dict without tensors is one.

    Raises:
      InputError: no archive of tensors, one that is damaged, or holds anything but tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            (name,) = [name for name in archive.namelist() if name.endswith("/data.pkl")] or [None]
            if name is None:
                raise InputError(f"{path}: is a zip archive, but not one that torch.save wrote")
            state_dict = _Tensors(archive, name.removesuffix("data.pkl"), path).load()
    except zipfile.BadZipFile:
        with path.open("rb") as file:
            begun = file.read(4) == b"PK\x03\x04"
        message = "is no archive of torch.save (PyTorch before 1.6 wrote another format); load and save it again"
        if begun:
            message = "is cut short: the end of the archive is missing; copy it again"
        raise InputError(f"{path}: {message}") from None
    except InputError:
        raise
    except Exception as error:  # what a damaged pickle makes the unpickler raise is not a fixed list
        raise InputError(
            f"{path}: damaged or cut short ({type(error).__name__}: {' '.join(str(error).split())})"
        ) from None
    for _ in range(_WRAPPED):
        keys = _WRAPPERS if isinstance(state_dict, Mapping) else ()
        state_dict = next((state_dict[key] for key in keys if isinstance(state_dict.get(key), Mapping)), state_dict)
    if not isinstance(state_dict, Mapping) or not (state_dict or may_be_empty):
        raise InputError(f"{path}: holds no state dict")
    odd = [
        str(name) for name, value in state_dict.items() if not (isinstance(name, str) and isinstance(value, np.ndarray))
    ]
    if odd:
        raise InputError(f"{path}: holds more than tensors: {', '.join(odd[:3])}; save the state dict alone")
    quantised_tensors = [name for name in state_dict if name.endswith(_BITSANDBYTES) or ".quant_state." in name]
    if quantised_tensors:
        raise InputError(
            f"{path}: holds weights that bitsandbytes quantised ({quantised_tensors[0]}, …); dequantise them in "
            "PyTorch, or start from the original weights"
        )
    return {_plain(name): array for name, array in state_dict.items()}


def _plain(name: str) -> str:
    while prefix := next((prefix for prefix in _PREFIXES if name.startswith(prefix)), None):
        name = name.removeprefix(prefix)
    return name


class _Storage:
    """A type of storage as a pickle names it."""

    def __init__(self, dtype: np.dtype):
        self.dtype = dtype


class _Tensors(pickle.Unpickler):
    """Reads a pickle that may hold tensors, containers and plain values."""

    def __init__(self, archive: zipfile.ZipFile, root: str, path: Path):
        if archive.getinfo(f"{root}data.pkl").file_size > _PICKLE:
            raise InputError(f"{path}: more than {_PICKLE >> 20} MB beside its tensors; save the state dict alone")
        super().__init__(io.BytesIO(archive.read(f"{root}data.pkl")))
        self._archive, self._root, self._path = archive, root, path
        byteorder = f"{root}byteorder"
        if byteorder in archive.namelist() and archive.read(byteorder).strip() != b"little":
            raise InputError(f"{path}: was written on a big-endian machine; save it again on another")

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda tensor, requires_grad, hooks: tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter_with_state"):  # transformers 5 marks its parameters
            return lambda tensor, requires_grad, hooks, state: tensor
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if module == "torch" and name in _DTYPES:
            return _Storage(_DTYPES[name])
        raise InputError(f"{self._path}: holds {module}.{name}, and only tensors are read; save the state dict alone")

    def persistent_load(self, pid: Any) -> np.ndarray:
        kind, storage, key, _, count = pid
        if kind != "storage" or not isinstance(storage, _Storage):
            raise InputError(f"{self._path}: holds a tensor of a kind that is not read")
        entry = self._archive.getinfo(f"{self._root}data/{key}")
        if type(count) is not int or count < 0 or entry.file_size < count * storage.dtype.itemsize:
            raise ValueError("a storage is shorter than its tensors")
        if not count:
            return np.empty(0, storage.dtype)
        if entry.compress_type != zipfile.ZIP_STORED:  # a kilobyte of it may be gigabytes; torch.save writes none
            raise InputError(f"{self._path}: holds a compressed storage; save it again with torch.save")
        # As torch.save writes it: the bytes stay in the file until they are asked for.
        with self._path.open("rb") as file:
            file.seek(entry.header_offset + 26)
            name, extra = struct.unpack("<HH", file.read(4))
        offset = entry.header_offset + 30 + name + extra
        if offset + entry.file_size > self._path.stat().st_size:
            raise ValueError("a storage reaches beyond the file")
        return np.memmap(self._path, storage.dtype, "r", offset, (count,))


def _rebuild(storage: np.ndarray, offset: int, size: tuple, stride: tuple, *_: Any) -> np.ndarray:
    if not size:
        return storage[offset : offset + 1].reshape(())
    reach = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True)) + 1
    if 0 in size:
        return np.empty(size, storage.dtype)
    if offset < 0 or min(stride) < 0 or reach > storage.size:
        raise ValueError("a tensor reaches beyond its storage")
    if math.prod(size) > storage.size:  # strides of 0 make gigabytes of a kilobyte; a weight has its own values
        raise ValueError("a tensor is larger than its storage")
    strides = tuple(step * storage.itemsize for step in stride)
    return np.ascontiguousarray(np.lib.stride_tricks.as_strided(storage[offset:], size, strides, writeable=False))


def write(path: Path, tensors: Iterable[tuple[str, np.ndarray]]) -> None:
    """Writes a state dict that `torch.load(path, weights_only=True)` reads. `tensors` are taken one at a time."""
    pickled, number = [b"\x80\x02}("], 0
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, array in tensors:
            array = np.ascontiguousarray(array)
            with archive.open(f"archive/data/{number}", "w", force_zip64=True) as file:
                file.write(array.tobytes())
            pickled.append(_text(name) + _tensor(array, number))
            number += 1
        archive.writestr("archive/data.pkl", b"".join([*pickled, b"u."]))
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/version", "3\n")


def _tensor(array: np.ndarray, number: int) -> bytes:
    """Opcodes of `_rebuild_tensor_v2(storage, 0, size, stride, False, OrderedDict())`."""
    stride = [step // array.itemsize for step in array.strides]
    storage = b"(" + _text("storage") + _named("torch", _STORAGES[array.dtype]) + _text(str(number)) + _text("cpu")
    storage += _integer(array.size) + b"tQ"
    hooks = _named("collections", "OrderedDict") + b")R"
    sizes = b"(" + b"".join(map(_integer, array.shape)) + b"t(" + b"".join(map(_integer, stride)) + b"t"
    return _named("torch._utils", "_rebuild_tensor_v2") + b"(" + storage + _integer(0) + sizes + b"\x89" + hooks + b"tR"


def _text(value: str) -> bytes:
    encoded = value.encode("utf-8")
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def _named(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode("ascii")


def _integer(value: int) -> bytes:
    return b"J" + struct.pack("<i", value) if value < 2**31 else b"\x8a\x08" + struct.pack("<q", value)
