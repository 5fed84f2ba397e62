"""What a run is at one moment: its parameters and optimizer, how far it is, and where in its data."""

import dataclasses
from typing import Any

from vlm_jax.models.parameters import Flat


@dataclasses.dataclass
class RunState:
    """Changed by the loop after every step; hooks read it.

    Attributes:
      step: how many are done.
      trainable, frozen: {path: array} of the parameters; optimizer_state: of the stage that trains now.
      position: of the data, behind the last step.
      losses: of the finite steps since the last checkpoint.
      skipped: how many steps in a row had a loss or gradient that is not finite, up to now.
      ended: whether a hook has asked for the end of the run.
    """

    step: int
    trainable: Flat
    optimizer_state: Any
    frozen: Flat
    position: dict[str, Any] | None = None
    losses: list[float] = dataclasses.field(default_factory=list)
    skipped: int = 0
    ended: bool = False

    @property
    def parameters(self) -> Flat:
        return {**self.trainable, **self.frozen}
