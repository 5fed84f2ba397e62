"""The least time that a step can take, from its compiled program and the makers' figures of a chip: no measurement.

Each bound is what a step does over what a chip can do of it: products over its peak, bytes of its main memory over the
memory's bandwidth, bytes that it sends over its links. Whichever is longest bounds the step, and with it the share of
the peak that the model's own FLOPs reach (MFU, `flops`). What is not hidden behind other work comes on top.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from vlm_jax.models.config import VLMConfig
from vlm_jax.parallel.chips import Chip
from vlm_jax.parallel.collectives import BETWEEN
from vlm_jax.processing.example import Size
from vlm_jax.training.flops import Work

NAMES = {"products": "products", "memory": "main memory", "links": "links", "network": "network"}
"""Fields of `Bounds`, and what they are called: the network is that between slices."""


@dataclasses.dataclass(frozen=True)
class Bounds:
    """Seconds that a step takes at least, by what takes them; None where a chip's figure is not known.

    Attributes:
      mfu: the highest that these allow, of all devices' peak.
    """

    products: float
    memory: float | None
    links: float | None
    network: float | None
    mfu: float

    @property
    def longest(self) -> tuple[str, float]:
        """(which of them binds, its seconds)."""
        found = {name: seconds for name in NAMES if (seconds := getattr(self, name)) is not None}
        name = max(found, key=found.__getitem__)
        return name, found[name]

    def lines(self) -> list[str]:
        """For a report, and that it is an estimate."""
        found = {name: seconds for name in NAMES if (seconds := getattr(self, name)) is not None}
        lines = [f"{'bound of ' + NAMES[name]:<24}{1000 * seconds:9.1f} ms a step" for name, seconds in found.items()]
        return [*lines, f"{'MFU, at most':<24}{self.mfu:9.1%}, an estimate from the program and the makers' figures"]

    def summary(self) -> str:
        binding, seconds = self.longest
        return f"{NAMES[binding]} bound a step to {1000 * seconds:.0f} ms, and the MFU to {self.mfu:.0%}"


def bounds(
    chip: Chip,
    devices: int,
    *,
    products: float,
    traffic: float,
    sent: Mapping[str, tuple[int, int]],
    model: float,
) -> Bounds:
    """Of a compiled step.

    Args:
      products: FLOPs of all devices together, recomputation included; model: those that the model asks for.
      traffic: bytes of a chip's main memory; sent: `collectives.collectives`.
    """
    between = sum(size for kind, (_, size) in sent.items() if kind.endswith(BETWEEN))
    within = sum(size for kind, (_, size) in sent.items() if not kind.endswith(BETWEEN))

    def over(size: float, speed: float | None) -> float | None:
        return None if speed is None or not size else size / speed

    found = Bounds(
        products / devices / chip.flops,
        over(traffic, chip.bandwidth),
        over(within, chip.links),
        over(between, chip.network),
        0.0,
    )
    return dataclasses.replace(found, mfu=model / devices / chip.flops / found.longest[1])


def full_rows(size: Size, rows: int, model: VLMConfig, cuts: Sequence[int] = ()) -> Work:
    """The work of rows that are full: each one example with one image, as large as its slots hold one.

    Padding is no work, so of the slots those that windows leave empty count nothing.

    Args:
      cuts: the layers of the decoder behind which tokens are left out.
    """
    vision, ends = model.vision, (0, *cuts, model.decoder.layers)
    patches = size.patches
    if vision.global_blocks:  # else views of fixed size, which fill their slots
        most = size.patches // vision.patches_per_token  # tokens behind the tower: rows may hold fewer than that
        image = next((count for count in range(most) if vision.typical_slots(count) >= size.patches), most)
        patches = image * vision.patches_per_token
    blocks = patches // vision.block_slots if len(vision.global_blocks) < vision.depth else 0
    return Work(
        tokens=np.full(rows, size.tokens),
        images=np.full(rows, patches),
        windows=np.full(rows * blocks, vision.block_slots),
        supervised=rows * size.supervised,
        above=tuple(np.full(rows, tokens) for tokens in size.above),
        shares=tuple((stop - start) / ends[-1] for start, stop in itertools.pairwise(ends)),
    )
