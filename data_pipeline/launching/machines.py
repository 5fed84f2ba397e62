"""The machines of Vertex AI that a job can be given, by short names: v5e-8, v6e-16, h100-8.

Machine types, topologies and hosts are those of Google's page "Configure compute resources" for serverless training
(tables of TPU v5e, TPU v6e and GPUs, read in November 2026). The client does not check them; an unknown name is refused
here. What is in a region, and what quota a project has, only Google knows.
"""

import dataclasses
from typing import Any

from vlm_jax.errors import InputError, nearest


@dataclasses.dataclass(frozen=True)
class Machine:
    """One entry.

    Attributes:
      type: Google's machine type of each host.
      chips: accelerators of all hosts together; JAX has as many devices.
      hosts: machines that the slice spans, each of which runs the program.
      topology: of a TPU slice, such as 4x4; "" for GPUs.
      accelerator: Google's name of the GPU; "" for TPUs.
    """

    name: str
    type: str
    chips: int
    hosts: int = 1
    topology: str = ""
    accelerator: str = ""

    @property
    def is_tpu(self) -> bool:
        return bool(self.topology)

    def spec(self) -> dict[str, Any]:
        """The machineSpec of a worker pool."""
        if self.is_tpu:
            return {"machineType": self.type, "tpuTopology": self.topology}
        return {"machineType": self.type, "acceleratorType": self.accelerator, "acceleratorCount": self.chips}


_ONE_HOST = {1: "1x1", 4: "2x2", 8: "2x4"}
_SLICES = {16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"}
"""Chips to topology. A slice of several hosts has four chips in each."""
_GPUS = {
    # name: (accelerator, {GPUs: machine type})
    "l4": ("NVIDIA_L4", {1: "g2-standard-12", 2: "g2-standard-24", 4: "g2-standard-48", 8: "g2-standard-96"}),
    "a100-40gb": ("NVIDIA_TESLA_A100", {count: f"a2-highgpu-{count}g" for count in (1, 2, 4, 8)}),
    "a100-80gb": ("NVIDIA_A100_80GB", {count: f"a2-ultragpu-{count}g" for count in (1, 2, 4, 8)}),
    "h100": ("NVIDIA_H100_80GB", {count: f"a3-highgpu-{count}g" for count in (1, 2, 4, 8)}),
    "h200": ("NVIDIA_H200_141GB", {8: "a3-ultragpu-8g"}),
}


def _all() -> dict[str, Machine]:
    made = []
    for generation, prefix in (("v5e", "ct5lp-hightpu"), ("v6e", "ct6e-standard")):
        for chips, topology in _ONE_HOST.items():
            made.append(Machine(f"{generation}-{chips}", f"{prefix}-{chips}t", chips, topology=topology))
        for chips, topology in _SLICES.items():
            made.append(Machine(f"{generation}-{chips}", f"{prefix}-4t", chips, chips // 4, topology))
    for name, (accelerator, types) in _GPUS.items():
        made += [Machine(f"{name}-{count}", types[count], count, accelerator=accelerator) for count in types]
    return {machine.name: machine for machine in made}


MACHINES = _all()


def find(name: str) -> Machine:
    """The machine of a name; raises InputError with the nearest where there is none."""
    if name not in MACHINES:
        raise InputError(f"--machine={name}: no such machine; {nearest(name, MACHINES)}")
    return MACHINES[name]
