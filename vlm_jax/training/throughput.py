"""How fast a run is: tokens a second, the share of the devices' peak that a step reaches (MFU), memory."""

import time
from collections.abc import Sequence
from typing import Any

from vlm_jax.parallel import chips
from vlm_jax.processing.rows import Batch
from vlm_jax.training.flops import StepFlops, step_flops
from vlm_jax.training.trainer import Stage, Trainer

GB = 1 << 30


class Throughput:
    """Measures from one step to the next. `restart` after what is no part of a step (a save, say)."""

    def __init__(self, trainer: Trainer):
        self._trainer = trainer
        self._devices = trainer.mesh.local_devices
        chip = chips.of_kind(self._devices[0].device_kind)
        self._peak = chip.flops if chip else None
        self._flops: StepFlops | None = None
        self._clock = time.perf_counter()

    def describe(self) -> str | None:
        """What MFU is a share of, in a line; None where that is not known."""
        if not self._peak:
            return None
        kind = self._devices[0].device_kind
        return f"MFU is of {self._peak / 1e12:,.0f} TFLOP/s a device ({kind}, dense bfloat16)"

    def enter(self, stage: Stage) -> None:
        """What a step of this stage has to compute is worked out."""
        self._flops = step_flops(self._trainer.model, stage.trainable, self._trainer.selection.attach)
        self.restart()

    def restart(self) -> None:
        self._clock = time.perf_counter()

    def flops_of(self, batch: Batch) -> float:
        return self._flops.of_batch(batch)

    def after(self, tokens: float, visual_tokens: float, flops: float) -> dict[str, Any]:
        """The figures of the step that ends now, and took what has passed since the one before.

        Args:
          flops: `flops_of` its batch.
        """
        now, devices = time.perf_counter(), self._trainer.mesh.size
        seconds, self._clock = now - self._clock, now
        return {
            "seconds": seconds,
            "tokens_per_second": tokens / seconds,
            "text_tokens_per_second": (tokens - visual_tokens) / seconds / devices,
            "visual_tokens_per_second": visual_tokens / seconds / devices,
            "mfu": flops / seconds / self._peak / len(self._devices) if self._peak else None,
            "memory_gib": memory(self._devices),
        }


def memory(devices: Sequence) -> float | None:
    """The most that any of these devices has held at one time, in GiB; None where the platform does not tell."""
    peaks = [(device.memory_stats() or {}).get("peak_bytes_in_use") for device in devices]
    return None if None in peaks else max(peaks) / GB
