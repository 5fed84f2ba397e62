"""What the settings of a run say of the visual tokens of its images, read once for training and what foresees it."""

import dataclasses
import math

from vlm_jax.processing import token_budget, token_schedule
from vlm_jax.processing.token_budget import TokenBudget
from vlm_jax.processing.token_schedule import TokenSchedule


@dataclasses.dataclass(frozen=True)
class VisualTokens:
    """How many visual tokens images take, and how many of them the decoder sees.

    Attributes:
      limits: the fewest and the most that an image is prepared for.
      budget: which of them are kept, but where a schedule says otherwise for training.
      schedule: of several budgets over training; None where there is one.
    """

    limits: tuple[int, int]
    budget: TokenBudget
    schedule: TokenSchedule | None

    @property
    def widest(self) -> TokenBudget:
        """The budget whose rows need most patch slots: of a schedule the one that keeps fewest of an image's tokens."""
        budgets = (self.budget,) if self.schedule is None else self.schedule.budgets
        return min(budgets, key=lambda budget: budget.count(10_000))

    def counts_above(self, tokens: int) -> list[int]:
        """Of so many visual tokens, how many are left above each cut within the decoder; of a schedule, as the mean."""
        budgets = (self.budget,) if self.schedule is None else self.schedule.budgets
        shares = (1.0,) if self.schedule is None else self.schedule.shares
        counts = zip(*(budget.counts_above(tokens) for budget in budgets), strict=True)
        return [math.ceil(sum(share * one for share, one in zip(shares, each, strict=True))) for each in counts]


def of_settings(model, seed: int) -> VisualTokens:
    """As the group `model` of a run's settings says it, with the run's seed for what is drawn."""
    return VisualTokens(
        (model.min_visual_tokens, model.max_visual_tokens),
        token_budget.of_settings(model, seed),
        token_schedule.schedule_of(model, seed),
    )
