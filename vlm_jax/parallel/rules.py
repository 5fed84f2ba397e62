"""Where each parameter lies on the mesh: one short table from paths to axes.

`embed` (the residual width) is split over `fsdp`, what fans out from it (heads, MLP, vocabulary) over `tensor`. A
dimension that an axis does not divide stays whole, and small arrays are replicated.
"""

import math
import re

from jax.sharding import Mesh, NamedSharding, PartitionSpec

LOGICAL = {"embed": "fsdp", "fan": "tensor", None: None}

RULES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    # path pattern -> logical names of the trailing dimensions (a leading [layers] axis is never split)
    (r"embedding$", ("fan", "embed")),
    (r"head$", ("embed", "fan")),
    (r"decoder/.*attention/[qkv]_proj/kernel$", ("embed", "fan")),
    (r"decoder/.*attention/o_proj/kernel$", ("fan", "embed")),
    (r"mlp/(gate|up)_proj/kernel$", ("embed", "fan")),
    (r"mlp/down_proj/kernel$", ("fan", "embed")),
    (r"mlp/fc1/kernel$", ("embed", "fan")),
    (r"mlp/fc2/kernel$", ("fan", "embed")),
    # The tower's q, k and v are one product whose thirds a tensor axis would cut across.
    (r"vision/.*(qkv|proj)/kernel$", ("embed", None)),
    (r"connector/(.*/)?fc1/kernel$", ("embed", "fan")),
    (r"connector/(.*/)?fc2/kernel$", ("fan", "embed")),
    (r"connector/proj/kernel$", ("embed", "fan")),
    (r"vision/positions/table$", (None, "embed")),
    (r"reducer/kernel$", ("embed", "fan")),
)

SMALL = 1 << 14
"""Parameters of fewer values are replicated: splitting them costs more messages than it saves memory."""


def partition(path: str, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    """The axes of one parameter."""
    if math.prod(shape) < SMALL:
        return PartitionSpec()
    # What stands in the place of a kernel, or beside it, lies as the kernel would.
    kernel = re.sub(r"/(nibbles|codes|scales)$", "", re.sub(r"adapter/[ab]$", "kernel", path))
    for pattern, names in RULES:
        if re.search(pattern, kernel):
            if path.endswith("/adapter/a"):  # [in, rank]
                names = (names[0], None)
            elif path.endswith("/adapter/b"):  # [rank, out]
                names = (None, names[1])
            elif path.endswith("/nibbles"):  # [in / 64, 32, out]
                names = (names[0], None, names[1])
            axes = [None] * (len(shape) - len(names)) + [LOGICAL[name] for name in names]
            return PartitionSpec(
                *(
                    axis if axis and size % mesh.shape[axis] == 0 else None
                    for axis, size in zip(axes, shape, strict=True)
                )
            )
    return PartitionSpec()


def parameter_shardings(shapes: dict, mesh: Mesh) -> dict[str, NamedSharding]:
    """{path: sharding} for {path: anything with a shape}."""
    return {path: NamedSharding(mesh, partition(path, leaf.shape, mesh)) for path, leaf in shapes.items()}
