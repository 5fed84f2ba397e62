"""Safetensors files, tensor by tensor: mapped to be read, and written with no more than one tensor in memory.

The safetensors library reads a tensor into memory of its own, and wants all of a file's tensors at once to write it.
Whether a file is whole is for `safetensors.safe_open` to say, which those who read a folder ask first.
"""

import json
import math
import os
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

import ml_dtypes
import numpy as np

from vlm_jax.deferred import copy_into

DTYPES = {"F32": np.dtype(np.float32), "BF16": np.dtype(ml_dtypes.bfloat16), "F16": np.dtype(np.float16)}
"""Those of weights, by their names in a file, in the order the library puts tensors of a file in."""
NAMES = {dtype: name for name, dtype in DTYPES.items()}


def header(path: Path) -> tuple[dict[str, dict], int]:
    """({tensor: its `dtype`, `shape` and `data_offsets`}, where the data begins) of a file that is whole."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        tensors = json.loads(file.read(length))
    tensors.pop("__metadata__", None)
    return tensors, 8 + length


def mapped(path: Path) -> dict[str, np.ndarray]:
    """{name: tensor} of a whole file, as views of the file: nothing is read until a value is looked at.

    Tensors of other dtypes than `DTYPES` are left out.
    """
    tensors, start = header(path)
    data = np.memmap(path, np.uint8, "r", offset=0)
    views = {}
    for name, tensor in tensors.items():
        if tensor["dtype"] in DTYPES:
            begin, end = (start + offset for offset in tensor["data_offsets"])
            views[name] = data[begin:end].view(DTYPES[tensor["dtype"]]).reshape(tensor["shape"])
    return views


def write(
    path: Path, described: Mapping[str, tuple[np.dtype, tuple[int, ...]]], tensors: Iterable[tuple[str, np.ndarray]]
) -> None:
    """Writes a file of the bytes that the library's `save_file` writes.

    Args:
      described: {name: (dtype, shape)} of every tensor.
      tensors: each of them once, in any order; taken one at a time and let go of.
    """
    order, entries, end = list(DTYPES), {"__metadata__": {"format": "pt"}}, 0
    for name in sorted(described, key=lambda name: (order.index(NAMES[described[name][0]]), name)):
        dtype, shape = described[name]
        start, end = end, end + math.prod(shape) * dtype.itemsize
        entries[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    head = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    head += b" " * (-len(head) % 8)
    waiting = set(described)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        file.truncate(8 + len(head) + end)
        for name, tensor in tensors:
            if (tensor.dtype, tensor.shape) != described[name]:
                raise ValueError(f"{name} is {tensor.dtype} {tensor.shape}, described as {described[name]}")
            file.seek(8 + len(head) + entries[name]["data_offsets"][0])
            file.write(_contiguous(tensor).reshape(-1).view(np.uint8).data)
            waiting.remove(name)
            del tensor  # it may be a view of much, which goes before the next is read
    if waiting:
        raise ValueError(f"{path}: {len(waiting)} tensors were not given, such as {min(waiting)}")
    os.chmod(path, 0o644)


def _contiguous(tensor: np.ndarray) -> np.ndarray:
    if tensor.flags.c_contiguous:
        return tensor
    laid_out = np.empty(tensor.shape, tensor.dtype)
    copy_into(laid_out, tensor)
    return laid_out
