"""Devices of a TPU that is not there: programs can be compiled for them, not run.

Needs the `libtpu` package (the `tpu` extra). What is compiled, and what the compiler says of it, is `program_cost`'s.
"""

import dataclasses
import importlib.util
import math
import os
import re
import sys

from vlm_jax.errors import InputError

GENERATIONS = {
    # name: (accelerator type of its smallest slice, memory a chip)
    "v4": ("v4-8", 32),
    "v5e": ("v5litepod-8", 16),
    "v5p": ("v5p-8", 95),
    "v6e": ("v6e-8", 32),
}
"""From Google's pages on each generation; memory in units of 2³⁰ bytes."""


@dataclasses.dataclass(frozen=True)
class Topology:
    """A slice such as `v5e:2x4`."""

    name: str
    generation: str
    bounds: tuple[int, ...]

    @property
    def chips(self) -> int:
        return math.prod(self.bounds)

    @property
    def memory(self) -> int:
        """Bytes a chip has."""
        return GENERATIONS[self.generation][1] << 30

    def devices(self) -> list:
        """The chips, as JAX devices to compile for.

        Raises:
          InputError: libtpu is missing, or knows no such slice.
        """
        from jax.experimental import topologies

        options = {}
        if self.chips == 1:
            options["chips_per_host_bounds"] = [1] * 3
        try:
            devices = list(topologies.get_topology_desc(self.name, platform="tpu", **options).devices)
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"--topology={self.name}: libtpu knows no such slice ({reason})") from error
        if len(devices) != self.chips:
            raise InputError(f"--topology={self.name}: libtpu gives {len(devices)} devices for {self.chips} chips")
        return devices


def parse(text: str) -> Topology:
    """`v5e:2x4`, `v5p:2x2x2`, `v5e:1x1`.

    Raises:
      InputError: no such form, or an unknown generation.
    """
    found = re.fullmatch(r"(\w+):(\d+(?:x\d+){1,2})", text)
    if not found or found[1] not in GENERATIONS:
        raise InputError(
            f"--topology={text}: wanted a generation of {', '.join(GENERATIONS)} and its bounds, such as v5e:2x4 or "
            "v5p:2x2x2"
        )
    bounds = tuple(int(size) for size in found[2].split("x"))
    if 0 in bounds:
        raise InputError(f"--topology={text}: bounds are at least 1")
    return Topology(text, found[1], bounds)


def prepare(topology: Topology) -> None:
    """Sets what libtpu reads from the environment. Must come before JAX is loaded.

    Raises:
      InputError: libtpu is not installed.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise InputError(
            f"compiling for a TPU needs libtpu: {sys.executable} -m pip install 'vlm-jax[tpu]', on Linux "
            "with an x86_64 CPU"
        )
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # this is no TPU machine: there is nobody to ask
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", GENERATIONS[topology.generation][0])
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    os.environ["JAX_PLATFORMS"] = "cpu"
