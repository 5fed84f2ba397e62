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
from vlm_jax.parallel.chips import TPUS


@dataclasses.dataclass(frozen=True)
class Topology:
    """A slice such as `v5e:2x4`, or several of them, `2*v5e:4x4`, that a data-centre network joins."""

    name: str
    generation: str
    bounds: tuple[int, ...]
    slices: int = 1

    @property
    def chips(self) -> int:
        """Of all slices."""
        return self.slices * math.prod(self.bounds)

    @property
    def memory(self) -> int:
        """Bytes a chip has."""
        return TPUS[self.generation].memory

    def devices(self) -> list:
        """The chips, as JAX devices to compile for, a slice after the other.

        Raises:
          InputError: libtpu is missing, or knows no such slice.
        """
        from jax.experimental import topologies

        options = {}
        if math.prod(self.bounds) == 1:
            options["chips_per_host_bounds"] = [1] * 3
        if self.slices > 1:
            options["num_slices"] = self.slices
        one = self.name.rpartition("*")[2]
        try:
            devices = list(topologies.get_topology_desc(one, platform="tpu", **options).devices)
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"--topology={self.name}: libtpu knows no such slice ({reason})") from error
        if len(devices) != self.chips:
            raise InputError(f"--topology={self.name}: libtpu gives {len(devices)} devices for {self.chips} chips")
        return devices


def parse(text: str) -> Topology:
    """`v5e:2x4`, `v5p:2x2x2`, `v5e:1x1`, `2*v5e:4x4`.

    Raises:
      InputError: no such form, an unknown generation, or one that has no such slice.
    """
    known = [name for name, chip in TPUS.items() if chip.slice_type]
    found = re.fullmatch(r"(?:(\d+)\*)?(\w+):(\d+(?:x\d+){1,2})", text)
    if not found or found[2] not in known:
        raise InputError(
            f"--topology={text}: wanted a generation of {', '.join(known)} and its bounds, such as v5e:2x4 or "
            "v5p:2x2x2, or several such slices, 2*v5e:4x4"
        )
    slices, bounds = int(found[1] or 1), tuple(int(size) for size in found[3].split("x"))
    if 0 in (slices, *bounds):
        raise InputError(f"--topology={text}: slices and bounds are at least 1")
    if (forms := TPUS[found[2]].slices) and found[3] not in forms:
        raise InputError(f"--topology={text}: slices of {found[2]} are {', '.join(forms)}")
    return Topology(text, found[2], bounds, slices)


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
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", TPUS[topology.generation].slice_type)
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    os.environ["JAX_PLATFORMS"] = "cpu"
