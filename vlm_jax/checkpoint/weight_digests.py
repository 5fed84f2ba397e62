"""What tells weights apart: digests of whole tensors, and spots of each for when reading all would take too long."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vlm_jax.checkpoint import digests, pth, weight_files

_SPOT = 4096  # bytes of each tensor, at its beginning and in its middle, that are looked at


def of_tensors(place: Path) -> dict[str, int]:
    """{tensor: CRC-32 of its bytes} of a folder of weights or a state dict, however they are divided into files."""
    if place.is_file():
        return digests.of_arrays(pth.read(place))
    found = {}
    for path in weight_files.weight_files(place)[0]:
        found |= digests.of_arrays(weight_files.mapped(path))
    return found


def spots_of(place: Path) -> Iterator[tuple[str, int, list[bytes]]]:
    """Of each tensor in a folder of safetensors or a state dict: its name, its size in bytes, and some of them."""
    if place.is_file():
        for name, tensor in pth.read(place).items():
            flat = tensor.reshape(-1).view(np.uint8)
            starts = (0, len(flat) // 2)
            yield name, len(flat), [flat[start : start + _SPOT].tobytes() for start in starts]
        return
    # In the order of the index or of the parts, wherever they lie.
    for path in weight_files.weight_files(place)[0]:
        if pth.is_state_dict(path):
            yield from spots_of(path)
            continue
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
            for name, tensor in sorted(header.items()):
                if name == "__metadata__":
                    continue
                start, end = tensor["data_offsets"]
                spots = []
                for at in (start, (start + end) // 2):
                    file.seek(8 + length + at)
                    spots.append(file.read(min(_SPOT, end - at)))
                yield f"{name} {tensor['dtype']} {tensor['shape']}", end - start, spots
