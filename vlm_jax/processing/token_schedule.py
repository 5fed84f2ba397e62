"""Visual tokens over training: several budgets, and which example is shown with which.

A budget belongs to an example and not to a step: rows of one shape hold examples of any of them, so that nothing is
compiled again where the budget changes, and a batch costs what it always costs.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from vlm_jax.errors import InputError
from vlm_jax.processing.token_budget import TokenBudget, budget_errors, of_settings

IN_TURN, DRAWN = "in_turn", "drawn"
ORDERS = (IN_TURN, DRAWN)
EXAMPLE = "0.25: 0.9, 1.0: 0.1"
_SUM = 1e-6  # by which shares may miss 1


@dataclasses.dataclass(frozen=True)
class TokenSchedule:
    """Budgets that examples are shown with.

    Attributes:
      budgets: one or more, of one method.
      shares: what part of the examples each is for; of the steps where they are taken in turn and steps are counted.
      order: in_turn, one after the other, or drawn, for each example anew.
      seed: of what is drawn.
    """

    budgets: tuple[TokenBudget, ...]
    shares: tuple[float, ...] = (1.0,)
    order: str = IN_TURN
    seed: int = 0

    def describe(self) -> str:
        """In words, with each share."""
        each = [
            f"{share:.0%} of the examples with "
            + (f"{budget.visual_tokens:.0%}" if budget.visual_tokens <= 1 else f"{budget.visual_tokens} an image")
            for budget, share in zip(self.budgets, self.shares, strict=True)
        ]
        return f"{', then '.join(each)}" if self.order == IN_TURN else f"{', '.join(each)}, drawn for each"

    def at(self, start: int, count: int, turns: Sequence[int] = ()) -> Int[np.ndarray, " count"]:
        """Which budget (its number) the examples that are shown from place `start` on have.

        Args:
          turns: in turn, after how many examples the next one begins: one fewer than budgets.
        """
        places = np.arange(start, start + count)
        if self.order == IN_TURN:
            return np.searchsorted(np.asarray(turns, np.int64), places, side="right")
        return np.searchsorted(np.cumsum(self.shares)[:-1], _uniform(places, self.seed), side="right")


def parse(text: str) -> list[tuple[float, float]]:
    """(visual tokens, share of the examples) of a schedule as the settings have it, "0.25: 0.9, 1.0: 0.1".

    Raises:
      InputError: it is none; all that is wrong with it.
    """
    errors, entries = [], []
    for entry in filter(None, map(str.strip, text.split(","))):
        try:
            tokens, share = map(float, entry.split(":"))
        except ValueError:
            errors.append(f"{entry!r} is no visual tokens and share, such as in {EXAMPLE!r}")
            continue
        errors += budget_errors(_number(tokens), "resize", names=(f"{entry!r}: visual_tokens", "", ""))
        if not 0 < share <= 1:
            errors.append(f"{entry!r} has the share {share:g}; wanted one above 0 and up to 1")
        entries.append((tokens, share))
    if not entries and not errors:
        errors.append(f"it is empty; wanted visual tokens and shares, such as {EXAMPLE!r}")
    if len({tokens for tokens, _ in entries}) < len(entries):
        errors.append("it has the same visual tokens twice")
    if not errors and abs(sum(share for _, share in entries) - 1) > _SUM:
        errors.append(f"its shares add up to {sum(share for _, share in entries):g}; wanted 1")
    if errors:
        raise InputError(errors)
    return entries


def schedule_of(model, seed: int) -> TokenSchedule | None:
    """As the settings of a run have it (the group `model`); None where there is none.

    Args:
      seed: the run's.
    """
    if not model.token_schedule:
        return None
    entries = parse(model.token_schedule)
    budgets = tuple(of_settings(model, seed, tokens) for tokens, _ in entries)
    return TokenSchedule(budgets, tuple(share for _, share in entries), model.token_schedule_order, seed)


def _number(tokens: float) -> float | int:
    return int(tokens) if tokens > 1 and tokens.is_integer() else tokens


def _uniform(places: np.ndarray, seed: int) -> np.ndarray:
    """A number in [0, 1) for each place, the same whichever others are asked for: splitmix64 of the two."""
    with np.errstate(over="ignore"):
        value = places.astype(np.uint64) + np.uint64(seed) * np.uint64(0x632BE59BD9B4E019)
        value = (value + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        value ^= value >> np.uint64(31)
    return (value >> np.uint64(11)) / np.float64(2**53)
