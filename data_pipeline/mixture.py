"""In which order the examples of one or several parts are seen: exact shares, and the same for a seed always.

Position n of a run is a part and a place in it, worked out from n alone. Reading is `sources`', which examples share a
row is `packing`'s.
"""

import dataclasses
import zlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from vlm_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Component:
    """How much of a part is drawn, and in which order.

    Attributes:
      examples: how many it has.
      weight: its share of the examples drawn, in proportion to the other parts'.
      seed: of its own order, which no other part changes.
    """

    name: str
    examples: int
    weight: float = 1.0
    seed: int = 0


class Mixture:
    """Which example stands where, endlessly: parts that end begin anew in another order."""

    def __init__(self, components: Sequence[Component], *, seed: int = 0, shuffle: bool = True):
        """`seed` is the run's: it changes the order of all parts.

        Raises:
          InputError: an empty part, or a weight that is no number above 0; all such parts together.
        """
        errors = []
        for component in components:
            if not component.examples:
                errors.append(f"{component.name}: holds no examples; remove it from the mixture")
            if not (np.isfinite(component.weight) and component.weight > 0):
                errors.append(f"{component.name}: its weight is {component.weight}; wanted a number above 0")
        if not components:
            errors.append("a mixture of no parts; name at least one")
        if errors:
            raise InputError(errors)
        self.components, self._seed, self._shuffle = tuple(components), seed, shuffle
        weights = np.array([component.weight for component in components], np.float64)
        weights /= weights.max()  # the sum of huge ones would overflow
        self._fractions = weights / weights.sum()
        self._orders: dict[int, tuple[int, np.ndarray]] = {}

    @property
    def examples(self) -> int:
        """How many there are in all parts together: an epoch."""
        return sum(component.examples for component in self.components)

    def take(self, start: int, count: int) -> Int[np.ndarray, "count 2"]:
        """(part, index in the part) of the positions from `start`."""
        before = self._drawn(start)
        # The next draws of each part, more than can be among `count`, in the order of their turns.
        ahead = np.ceil(count * self._fractions).astype(np.int64) + len(self.components) + 2
        part, draw = self._in_turn(before, ahead)
        chosen = np.stack([part[:count], draw[:count]], axis=1)
        for number in range(len(self.components)):
            mine = chosen[:, 0] == number
            chosen[mine, 1] = self._places(number, chosen[mine, 1])
        return chosen

    def _drawn(self, start: int) -> Int[np.ndarray, " parts"]:
        """How many of each part are among the first `start` positions.

        Draw k of a part has its turn at (k + ½) / share. Whatever the start, a part is never further than its own
        number of parts away from its exact share.
        """
        surely = np.maximum(0, np.floor((start - len(self.components) / 2) * self._fractions - 0.5)).astype(np.int64)
        left = start - int(surely.sum())
        if left:
            part, _ = self._in_turn(surely, np.full(len(self.components), left))
            surely = surely + np.bincount(part[:left], minlength=len(self.components))
        return surely

    def _in_turn(self, before, ahead) -> tuple[np.ndarray, np.ndarray]:
        part = np.repeat(np.arange(len(self.components)), ahead)
        draw = np.concatenate([first + np.arange(count) for first, count in zip(before, ahead, strict=True)])
        order = np.lexsort((part, (draw + 0.5) / self._fractions[part]))
        return part[order], draw[order]

    def _places(self, number: int, draws: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        component = self.components[number]
        if not self._shuffle:
            return draws % component.examples
        epochs = draws // component.examples
        places = np.empty_like(draws)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            places[here] = self._order(number, int(epoch))[draws[here] % component.examples]
        return places

    def _order(self, number: int, epoch: int) -> Int[np.ndarray, " n"]:
        cached = self._orders.get(number)
        if cached is None or cached[0] != epoch:
            component = self.components[number]
            cached = (
                epoch,
                np.random.default_rng(
                    (self._seed, component.seed, zlib.crc32(component.name.encode()), epoch)
                ).permutation(component.examples),
            )
            self._orders[number] = cached
        return cached[1]
