"""Accelerators by their makers' published figures: what bounds the time of a step, and what an hour costs."""

import dataclasses

PRICED = "list prices of 2025, on demand, in the United States (cloud.google.com/tpu/pricing); not looked up since"


@dataclasses.dataclass(frozen=True)
class Chip:
    """One accelerator.

    Attributes:
      flops: FLOP/s of dense bfloat16 products.
      memory: bytes of its HBM; bandwidth: bytes/s from and to it.
      links: bytes/s that it sends to others of its slice, over all its links; network: to other slices, over the
        data-centre network, its part of what its host has. None where it is not published.
      price: US dollars an hour (see `PRICED`); None where it is not known.
      slice_type: accelerator type of its smallest slice, for libtpu; none where nothing can be compiled for it (of v4
        libtpu gives two devices a chip, which no machine has).
      slices: the bounds of its slices, where there are only some.
    """

    flops: float
    memory: int | None = None
    bandwidth: float | None = None
    links: float | None = None
    network: float | None = None
    price: float | None = None
    slice_type: str = ""
    slices: tuple[str, ...] = ()


GIB = 1 << 30
_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
TPUS = {
    # docs.cloud.google.com/tpu/docs/v4, /v5e, /v5p, /v6e. Interconnects are published both ways together, or one way in
    # Gbit/s: a chip sends half of the former. Of v4: six links of 50 GB/s (Jouppi et al. 2023, table 4).
    "v4": Chip(275e12, 32 * GIB, 1200e9, 300e9, None, 3.22),
    "v5e": Chip(197e12, 16 * GIB, 819e9, 200e9, 6.4e12 / 8 / 256, 1.20, "v5litepod-8", _FLAT),
    "v5p": Chip(459e12, 95 * GIB, 2765e9, 600e9, 50e9 / 8, 4.20, "v5p-8"),
    "v6e": Chip(918e12, 32 * GIB, 1600e9, 400e9, 25.6e12 / 8 / 256, 2.70, "v6e-8", _FLAT),
}
KINDS = {
    # device_kind begins with -> the chip. Of GPUs: the makers' data sheets.
    "NVIDIA H200": Chip(989e12, bandwidth=4800e9, links=450e9),
    "NVIDIA H100 80GB HBM3": Chip(989e12, bandwidth=3350e9, links=450e9),  # SXM; PCIe and NVL boards are slower
    "NVIDIA A100": Chip(312e12),
    "NVIDIA L40S": Chip(362e12, bandwidth=864e9),
    "NVIDIA GeForce RTX 4090": Chip(165e12, bandwidth=1008e9),
    "TPU v4": TPUS["v4"],
    "TPU v5 lite": TPUS["v5e"],
    "TPU v5p": TPUS["v5p"],
    "TPU v6 lite": TPUS["v6e"],
}


def of_kind(device_kind: str) -> Chip | None:
    """The chip of a JAX device, None where it is not known."""
    # v4i and NVL boards are others; JAX calls v5p "TPU v5"
    known = {"TPU v4 lite": None, "NVIDIA H200 NVL": None, "TPU v5": TPUS["v5p"]}
    if device_kind in known:
        return known[device_kind]
    return next((chip for name, chip in KINDS.items() if device_kind.startswith(name)), None)
